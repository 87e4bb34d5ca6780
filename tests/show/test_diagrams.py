"""Figures of a scan: what they draw is what the sequence does, in its units, and the order is the plan's."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection

from prom import InputError, MaskResult
from prom.baselines import as_result
from prom.scanner.plan import plan
from prom.scanner.protocol import Protocol
from prom.scanner.sequence import make
from prom.scanner.writing import write_scan
from prom.show.diagrams import order_figure, sequence_diagram


def result(pattern: str, shape: tuple[int, int]):
    """Every other line, or points."""
    mask = torch.zeros(shape, dtype=torch.bool)
    if pattern == "columns":
        mask[:, ::2] = True
    elif pattern == "rows":
        mask[1::2] = True
    else:
        mask[::2, ::3] = True
        mask[shape[0] // 2, shape[1] // 2] = True
    return as_result(mask, "regular", mask.numel() / int(mask.sum()), pattern)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


CASES = [
    ("columns", {"dummies": 3, "tr": 9, "te": 4}, 2),
    ("rows", {"kind": "tse", "echoes": 4, "tr": 700, "dummies": 1}, 4),
    ("points", {"readout": 12, "dummies": 0}, 2),
]


@pytest.mark.parametrize(("pattern", "settings", "readouts"), CASES)
@pytest.mark.parametrize("width", [3.46, 7.0])
def test_a_diagram_shows_the_waveforms(pattern, settings, readouts, width):
    scan = make(result(pattern, (16, 14)), Protocol(**settings))
    figure = sequence_diagram(scan, shot=1, width=width)
    rf, *gradients, adc = figure.axes
    assert figure.get_size_inches()[0] == width
    samples = scan.plan.matrix[0]
    times = scan.sequence.adc_times()[0].reshape(-1, samples)
    first = int((scan.plan.shot == 1).nonzero()[0])
    pulse = np.array(scan.sequence.rf_times()[0])[-(int(scan.plan.shot.max()) + 1) + 1]
    assert len(adc.patches) == readouts
    for number, patch in enumerate(adc.patches, start=first):
        left, right = 1000 * (times[number][[0, -1]] - pulse)
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx((left, right), abs=1e-6)
    numbers = [text.get_text().replace("\N{MINUS SIGN}", "-").replace("+", "") for text in adc.texts]
    expected = (scan.plan.steps - torch.tensor(scan.plan.matrix[1:]) // 2)[first : first + readouts]
    assert numbers == [", ".join(str(value) for value in (row if pattern == "points" else row[:1])) for row in expected.tolist()]
    for axis, axes in enumerate(gradients):
        line = next(line for line in axes.lines if line.get_zorder() == 3)
        time, values = line.get_data()
        polynomial = scan.sequence.get_gradients()[axis]
        inner = slice(1, -1)
        theirs = polynomial(np.asarray(time[inner]) / 1000 + pulse) / 42.576e6 * 1000
        np.testing.assert_allclose(values[inner], theirs, atol=1e-3)
    peak = max(np.max(line.get_ydata()) for line in rf.lines)
    kind = {"excitation"} if scan.plan.echo.max() == 0 else {"excitation", "refocusing"}
    pulses = [b.rf for b in map(scan.sequence.get_block, scan.sequence.block_events) if b.rf is not None and b.rf.use in kind]
    assert peak == pytest.approx(max(np.abs(one.signal).max() for one in pulses) / 42.576, rel=1e-6)
    said = " ".join(text.get_text() for text in rf.texts)
    assert f"TE {1000 * scan.te:.4g} ms" in said and (
        "echo spacing" in said if "kind" in settings else f"TR {1000 * scan.tr:.4g} ms" in said
    )


def test_the_echo_at_the_centre_is_marked():
    scan = make(result("rows", (16, 14)), Protocol(kind="tse", echoes=4, te=30, tr=700))
    adc = sequence_diagram(scan).axes[-1]
    [marked] = [patch for patch in adc.patches if patch.get_facecolor()[:3] != adc.patches[0].get_facecolor()[:3]]
    assert marked.get_x() < 1000 * scan.te < marked.get_x() + marked.get_width()


def test_one_shot_and_the_last():
    scan = make(result("columns", (14, 16)))
    assert len(sequence_diagram(scan, shot=7).axes[-1].patches) == 1
    assert len(sequence_diagram(scan, repetitions=3).axes[-1].patches) == 3
    for wrong in (8, -1, 0.5):
        with pytest.raises(InputError, match="shot"):
            sequence_diagram(scan, shot=wrong)


def points_of(axes: plt.Axes) -> np.ndarray:
    """Of the last scatter in these axes: (time, line)."""
    return [artist for artist in axes.collections if isinstance(artist, PathCollection)][-1].get_offsets().data


@pytest.mark.parametrize("width", [3.46, 7.0])
def test_orders(width):
    made = plan(result("columns", (14, 16)), Protocol(order="centric", calibration=1))
    axes, strip, _ = order_figure(made, width).axes
    np.testing.assert_allclose(points_of(axes), np.stack([np.arange(8), made.steps[:, 0] - 8], axis=1))
    drawn = strip.images[0].get_array().squeeze()
    assert np.flatnonzero(~np.ma.getmaskarray(np.ma.masked_invalid(drawn))).tolist() == list(range(0, 16, 2))
    made = plan(result("rows", (16, 14)), Protocol(kind="tse", echoes=4), 2)
    axes = order_figure(made, width).axes[0]
    np.testing.assert_allclose(points_of(axes)[:, 0], made.shot + made.echo / 4)
    assert axes.get_legend_handles_labels()[1] == ["echo 2: the centre"] and axes.get_ylabel() == "row, from DC"
    middles = [points_of(axes)[made.shot == shot, 0].mean() for shot in range(len(axes.get_xticks()))]
    np.testing.assert_allclose(axes.get_xticks(), middles)
    assert [int(label.get_text()) for label in axes.get_xticklabels()] == [shot + 1 for shot in sorted(set(made.shot.tolist()))]
    made = plan(result("points", (14, 15)), Protocol(order="radial"))
    left, right, bar = order_figure(made, width).axes
    drawn = left.images[0].get_array()
    assert np.array_equal(~np.ma.getmaskarray(np.ma.masked_invalid(drawn)), made.mask())
    assert (np.diff(points_of(right)[:, 1]) >= 0).all()
    assert bar.get_xlabel() == "share of the scan"


def test_a_plan_of_a_series_is_refused(tmp_path):
    mask = torch.zeros(3, 12, 14, dtype=torch.bool)
    mask[:, :, ::3] = mask[:, :, 7] = True
    lines = mask[:, 0].float()
    result = MaskResult(mask, mask.float(), lines, "columns", 2.8, {"name": "regular"}, 0, provenance={"kind": "series"})
    made = write_scan(result, tmp_path / "order.csv", order="linear")
    with pytest.raises(InputError, match="plan of a series"):
        order_figure(made)


def test_calibration_is_outlined():
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[4:8, 4:8] = True
    made = plan(as_result(mask, "square", 9, "points"), Protocol(calibration=4))
    lines = order_figure(made).axes[0].lines
    corners = np.concatenate([np.stack(line.get_data(), axis=1) for line in lines])
    assert len(lines) == 16 and corners.min() == -2.5 and corners.max() == 1.5
