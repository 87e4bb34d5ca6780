"""Masks with three axes as a scanner is given them: frames of series counted as phases, lines of volumes as 3D scans."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pandas as pd
import pytest
import torch

from prom import InputError
from prom.kspace.patterns import make
from prom.masks import MaskResult
from prom.scanner.writing import write_scan

SHAPE = (4, 8, 10)
SETTINGS = {"fov": [220], "tr": 8, "te": 4, "flip": 12}


def drawn(pattern: str, kind: str) -> MaskResult:
    """Half of the lines or points of every frame or partition, DC among them."""
    grid = make(pattern, SHAPE, kind == "series")
    theta = torch.rand(grid.shape, generator=torch.Generator().manual_seed(1))
    theta[..., grid.shape[-1] // 2] = 2.0
    chosen = theta >= theta.quantile(0.5, dim=-1, keepdim=True)
    mask, count = grid.forward(chosen).contiguous(), int(chosen.sum())
    theta = chosen.float()
    provenance = {"kind": kind} if kind == "series" else {}
    return MaskResult(mask, mask.float(), theta, pattern, grid.size / count, {"name": "drawn"}, 0, provenance=provenance)


def heads(path) -> tuple[object, list]:
    with ismrmrd.Dataset(path, mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        return header, [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]


@pytest.mark.parametrize("pattern", ["columns", "rows", "points", "still-columns", "still-points"])
def test_raw_data_count_frames_as_phases(pattern, tmp_path):
    result = drawn(pattern, "series")
    made = write_scan(result, tmp_path / "scan.mrd", **SETTINGS)
    assert torch.equal(made.mask(), result.mask)
    header, lines = heads(tmp_path / "scan.mrd")
    rebuilt = np.zeros(SHAPE, dtype=bool)
    for line in lines:
        step = line.idx.kspace_encode_step_1
        place = {"columns": (slice(None), step), "rows": (step, slice(None)), "points": (step, line.idx.kspace_encode_step_2)}
        rebuilt[(line.idx.phase, *place[pattern.removeprefix("still-")])] = True
    np.testing.assert_array_equal(rebuilt, result.mask.numpy())
    assert header.encoding[0].encodingLimits.phase.maximum == 3
    for flag, step in ((ismrmrd.ACQ_FIRST_IN_PHASE, -1), (ismrmrd.ACQ_LAST_IN_PHASE, 1)):
        marked = [number for number, line in enumerate(lines) if line.is_flag_set(flag)]
        ends = [0, len(lines) - 1][step > 0]
        assert [lines[number].idx.phase for number in marked] == [0, 1, 2, 3] and marked[0 if step < 0 else -1] == ends
    stamps = [line.acquisition_time_stamp for line in lines]
    assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)


def test_a_list_in_the_order_of_measurement_has_frames(tmp_path):
    result = drawn("columns", "series")
    write_scan(result, tmp_path / "order.csv", order="centric")
    table = pd.read_csv(tmp_path / "order.csv")
    assert table.columns.tolist() == ["frame", "column", "column_offset", "shot", "echo", "calibration"]
    rebuilt = np.zeros((4, 10), dtype=bool)
    rebuilt[table["frame"], table["column"]] = True
    np.testing.assert_array_equal(rebuilt, result.mask[:, 0].numpy())
    assert table["shot"].tolist() == list(range(len(table))) and table["frame"].is_monotonic_increasing
    for _, frame in table.groupby("frame"):
        assert frame["column_offset"].abs().is_monotonic_increasing


@pytest.mark.parametrize("pattern", ["columns", "rows"])
def test_lines_of_a_volume_are_a_3d_scan(pattern, tmp_path):
    result = drawn(pattern, "volumes")
    scan = write_scan(result, tmp_path / "scan.mrd", **SETTINGS)
    readout = 8 if pattern == "columns" else 10
    assert scan.plan.matrix == (readout, 18 - readout, 4)
    _, lines = heads(tmp_path / "scan.mrd")
    rebuilt = np.zeros(SHAPE, dtype=bool)
    for line in lines:
        step, partition = line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2
        rebuilt[(partition, slice(None), step) if pattern == "columns" else (partition, step)] = True
    np.testing.assert_array_equal(rebuilt, result.mask.numpy())
    assert write_scan(result, tmp_path / "scan.seq", **SETTINGS).plan.matrix == scan.plan.matrix
    write_scan(result, tmp_path / "order.csv", order="linear")
    rows = pd.read_csv(tmp_path / "order.csv")
    place, size = pattern.removesuffix("s"), result.mask.shape[2 if pattern == "columns" else 1]
    listed = torch.zeros(4, size, dtype=torch.bool)
    listed[rows["partition"].to_numpy(), rows[place].to_numpy()] = True
    assert torch.equal(listed, result.mask[:, 0] if pattern == "columns" else result.mask[:, :, 0])
    assert (rows[f"{place}_offset"] == rows[place] - size // 2).all() and (rows["partition_offset"] == rows["partition"] - 2).all()


@pytest.mark.parametrize(
    ("pattern", "kind", "name", "settings", "message"),
    [
        ("columns", "series", "scan.seq", SETTINGS, "a Pulseq sequence is of one frame, and this mask has 4; export it as .csv"),
        ("points", "series", "mask.npy", {"tr": 8}, ".npy has no order of measurement"),
        ("points", "volumes", "scan.mrd", SETTINGS, "points along all three axes"),
        ("columns", "volumes", "scan.mrd", SETTINGS | {"readout": 12}, "readout 12: the mask of a volume says itself"),
    ],
)
def test_what_no_scan_can_be_is_refused(pattern, kind, name, settings, message, tmp_path):
    with pytest.raises(InputError) as caught:
        write_scan(drawn(pattern, kind), tmp_path / name, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_empty_frame_is_named(tmp_path):
    result = drawn("points", "series")
    result.mask[2] = False
    with pytest.raises(InputError, match="frame 2: measures nothing"):
        write_scan(result, tmp_path / "scan.mrd", **SETTINGS)
