"""Orders and echo trains: each a permutation of what is measured, with the property that its name promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import baseline, of, random_mask

from prom import InputError
from prom.masks.demands import central
from prom.scanner.ordering import ORDERS, length, order, trains
from prom.scanner.plan import plan
from prom.scanner.protocol import Protocol


@st.composite
def selections(draw, dimensions: tuple[int, ...] = (1, 2)) -> torch.Tensor:
    """Lines ``(n,)`` or points ``(H, W)``, at least one of them measured."""
    shape = tuple(draw(st.integers(1, 12)) for _ in range(draw(st.sampled_from(dimensions))))
    chosen = draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).filter(any))
    return torch.tensor(chosen).reshape(shape)


def as_set(places: torch.Tensor) -> set[tuple[int, ...]]:
    found = [tuple(place) for place in places.tolist()]
    assert len(set(found)) == len(found)
    return set(found)


@given(selections(), st.sampled_from(list(ORDERS)), st.data())
def test_everything_once_and_the_first_first(selected, name, data):
    first = selected & torch.rand(selected.shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))).lt(0.3)
    parts = [int(part.sum()) for part in (first, selected & ~first) if bool(part.any())]
    shots = data.draw(st.integers(1, min(parts)))
    found = order(selected, name, first, shots)
    assert as_set(found) == as_set(selected.nonzero())
    assert as_set(found[: int(first.sum())]) == as_set(first.nonzero())


@given(selections())
def test_linear(selected):
    found = order(selected, "linear").numpy()
    assert found.tolist() == sorted(found.tolist(), key=lambda place: place[::-1])  # the first axis is the fastest


@given(selections())
def test_centric(selected):
    """Along the slowest axis from DC outwards, and where that is equal along the other."""
    found = order(selected, "centric").numpy() - np.array(selected.shape) // 2
    sequence = [0] + [sign * step for step in range(1, 20) for sign in (-1, 1)]
    ranks = [tuple(sequence.index(offset) for offset in place[::-1]) for place in found.tolist()]
    assert ranks == sorted(ranks)


@given(selections())
def test_radial(selected):
    distances = ((order(selected, "radial") - torch.tensor(selected.shape) // 2) ** 2).sum(dim=1)
    assert (distances.diff() >= 0).all()


@given(selections((1,)), st.data())
def test_interleaved(selected, data):
    shots = data.draw(st.integers(1, int(selected.sum())))
    found, linear = order(selected, "interleaved", shots=shots).flatten(), selected.nonzero().flatten()
    begin = 0
    for shot in range(shots):
        part = linear[shot::shots]
        assert torch.equal(found[begin : begin + len(part)], part)
        begin += len(part)


@given(selections())
def test_shortest_is_no_longer_than_linear(selected):
    found = {name: length(order(selected, name)) for name in ("shortest", "linear", "radial", "centric")}
    assert all(found["shortest"] <= other + 1e-9 for name, other in found.items() if name == "linear" or selected.ndim == 1)


@given(st.integers(2, 7), st.integers(2, 7))
def test_shortest_of_a_full_grid_is_known(height, width):
    """A path through n points of a grid with steps of 1 has the length n - 1: 2-opt may miss that by little, never by a step of linear."""
    full = torch.ones(height, width, dtype=torch.bool)
    assert height * width - 1 <= length(order(full, "shortest")) <= 1.15 * (height * width - 1)


def test_shortest_saves_half_of_the_jumps():
    """Of a sparse random mask; what it saves is what makes it worth its time."""
    selected = random_mask("points", (48, 48), 0.15).mask
    assert length(order(selected, "shortest")) < 0.5 * length(order(selected, "linear"))


@given(selections((1,)), st.data())
def test_trains(selected, data):
    """Each echo takes one band, and each shot one line of each; DC's band is at the chosen echo.

    Bands are of neighbours, in their order, but around a first or last echo of growing distance.
    """
    count = int(selected.sum())
    echoes = data.draw(st.sampled_from([n for n in range(1, count + 1) if count % n == 0]))
    centre = data.draw(st.integers(1, echoes))
    dealt = trains(selected, echoes, centre).squeeze(-1)
    assert dealt.shape == (count // echoes, echoes) and as_set(dealt.reshape(-1, 1)) == as_set(selected.nonzero())
    bands = [sorted(band) for band in dealt.T.tolist()]
    assert all(band == column for band, column in zip(bands, dealt.T.tolist(), strict=True))
    nearest = int((selected.nonzero().flatten() - len(selected) // 2).abs().min())
    away = [sorted(abs(line - len(selected) // 2) for line in band) for band in bands]
    assert away[centre - 1][0] == nearest
    if centre in (1, echoes):
        outwards = away if centre == 1 else away[::-1]
        assert all(nearer[-1] <= farther[0] for nearer, farther in zip(outwards, outwards[1:], strict=False))
        return
    flat = [line for band in sorted(bands) for line in band]
    assert flat == sorted(flat)  # bands do not overlap
    steps = [sorted(bands).index(band) for band in bands]
    assert all((second - first) % echoes == 1 % echoes for first, second in zip(steps, steps[1:], strict=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: order(torch.ones(4).bool(), "zigzag"), "order 'zigzag' is not known"),
        (lambda: order(torch.zeros(4).bool()), "measures nothing"),
        (lambda: order(torch.ones(4).bool(), "interleaved", shots=5), "shots 5: only 4 lines"),
        (lambda: order(torch.eye(4)[0].bool(), first=torch.ones(4).bool()), "3 of 4 samples that come first"),
        (lambda: trains(torch.ones(10).bool(), 4, 1), "10 measured lines cannot be dealt out, 2 are left over; use a length of 2 or 5"),
        (lambda: trains(torch.ones(8).bool(), 4, 5), "echo at the centre 5"),
        (lambda: trains(torch.ones(8).bool(), 9, 1), "echo train of length 9"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------- calibration and trains of a mask's own


@pytest.mark.parametrize("pattern", ["columns", "points"])
def test_calibration_that_was_demanded_is_labelled_and_first(pattern):
    result = baseline("energy", pattern, (20, 24), 3, demands={"calibration": 5})
    made = plan(result, Protocol())
    count = 5 if pattern == "columns" else 25
    assert int(made.calibration.sum()) == count and made.calibration[:count].all()
    places = made.steps[:count, : 1 if pattern == "columns" else 2] - torch.tensor([12] if pattern == "columns" else [10, 12])
    assert places.min() == -2 and places.max() == 2
    assert not plan(result, Protocol(calibration=0)).calibration.any()


def test_a_disc_that_was_demanded():
    result = baseline("energy", "points", (20, 24), 3, demands={"calibration": 7, "calibration_shape": "disc"})
    made = plan(result, Protocol())
    offsets = made.steps[made.calibration] - torch.tensor([10, 12])
    assert len(offsets) == 37 and (4 * (offsets**2).sum(dim=1)).max() <= 49
    region = central(result.mask.shape, 7, disc=True)
    assert torch.equal(plan(result, Protocol(calibration=7)).calibration, plan(result, Protocol()).calibration)
    assert int(region.sum()) == 37


def test_calibration_of_a_baselines_option():
    made = plan(baseline("poisson_disc", "points", (24, 24), 4, calibration=6), Protocol())
    assert int(made.calibration.sum()) == 36


def test_calibration_that_is_asked_for_must_be_there():
    lines = torch.arange(16) % 2 == 0
    with pytest.raises(InputError, match="calibration 4: the mask does not measure 2 .* at most 1 is measured whole"):
        plan(of(lines, "columns", (8, 16)), Protocol(calibration=4))


def test_segments_that_were_demanded_are_the_echo_train():
    """Each echo meets one of the bands that had equal counts."""
    result = baseline("energy", "columns", (16, 36), 3, demands={"segments": 4})
    made = plan(result, Protocol(kind="tse"), 2)
    assert int(made.echo.max()) + 1 == 4
    bands = made.steps[:, 0] * 4 // 36
    for echo in range(4):
        assert len(bands[made.echo == echo].unique()) == 1
    assert int(plan(result, Protocol(kind="tse", echoes=6), 2).echo.max()) + 1 == 6


@settings(max_examples=30)
@given(st.sampled_from(["columns", "rows", "points"]), st.integers(4, 12), st.integers(4, 12), st.sampled_from(list(ORDERS)))
def test_a_plan_is_its_mask(pattern, height, width, name):
    result = random_mask(pattern, (height, width), 0.5, seed=height * width)
    made = plan(result, Protocol(order=name))
    assert torch.equal(made.mask(), result.mask) and made.shape == (height, width)
    assert made.acceleration == result.true_acceleration


@pytest.mark.parametrize("number", range(4, 40))
def test_golden_is_not_linear_backwards(number):
    steps = order(torch.ones(number, dtype=torch.bool), "golden").flatten().diff() % number
    assert not bool((steps == number - 1).all()) and not bool((steps == 1).all())
    if number not in (4, 6):
        coprime = [step for step in range(1, number) if math.gcd(step, number) == 1]
        assert set(steps.tolist()) == {min(coprime, key=lambda step: abs(step - 0.618034 * number))}


def test_shots_are_of_all_lines_however_few_come_first():
    selected = torch.ones(12, dtype=torch.bool)
    first = torch.arange(12) == 6
    found = order(selected, "interleaved", first, shots=4).flatten().tolist()
    assert found[0] == 6 and found[1:4] == [0, 4, 9] and sorted(found) == list(range(12))
