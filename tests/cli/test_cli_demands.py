"""Demands on the command line: what is asked for is in the mask and in its file, and what cannot be met is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prom import load_mask


@pytest.fixture
def run(command_line, tmp_path):
    """The command line in this process, in a folder with four images of 32 x 32: exit code, output, errors."""
    generator = np.random.default_rng(0)
    (tmp_path / "mine").mkdir()
    for subject in range(4):
        np.save(tmp_path / "mine" / f"subject{subject}.npy", generator.random((2, 32, 32)))
    np.save(tmp_path / "small.npy", np.eye(16))
    np.save(tmp_path / "diagonal.npy", np.eye(32))
    return command_line


def test_an_optimised_mask_with_its_scan_time(run):
    given = ("--pattern", "rows", "--calibration", 4, "--max-gap", 9, "--partial-fourier", 0.75, "--segments", 2, "--tr", 1500)
    code, out, err = run("optimize", "mine", "-a", 4, "--iterations", 8, *given, "-o", "mask.h5", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and found["true_acceleration"] == 4
    assert (found["excitations"], found["shots"], found["minutes"]) == (8, 4, 0.1)
    assert found["demands"] == "calibration 4, partial_fourier 0.75, max_gap 9, segments 2"
    result = load_mask("mask.h5")
    rows = result.mask[:, 0].nonzero().flatten()
    assert {14, 15, 16, 17} <= set(rows.tolist()) and rows.max() < 24 and (rows < 12).sum() == 4 and rows.diff().max() <= 9
    assert result.demands.as_dict() == {"calibration": 4, "partial_fourier": 0.75, "max_gap": 9, "segments": 2}


def test_a_baseline_with_files_of_samples(run):
    assert run("baseline", "low_pass", "mine", "-a", 16, "-o", "centre.h5")[0] == 0
    forbidden = np.zeros((32, 32), dtype=bool)
    forbidden[3] = True
    np.save("never.npy", forbidden)
    given = ("--require", "centre.h5", "--forbid", "never.npy", "--shutter", "--calibration", 6, "--calibration-shape", "disc")
    code, out, _ = run("baseline", "gaussian", "mine", "-a", 4, *given, "--axis", "columns", "--segments", 4, "-o", "mask.h5")
    assert code == 0 and "256 excitations in 64 shots, with calibration 6, calibration_shape disc, shutter, require 64 samples" in out
    mask = load_mask("mask.h5").mask
    assert mask[load_mask("centre.h5").mask].all() and not mask[3].any() and mask.sum() == 256
    assert mask.unflatten(1, (4, 8)).sum(dim=(0, 2)).tolist() == [64] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--calibration", 24, "-a", 4, "--pattern", "columns"), "calibration 24 needs 24 columns, and x4 of 32 allows 8; take"),
        (("--partial-fourier", 0.5, "-a", 4), "number 0.5: must be > 0.5"),
        (("--require", "none.npy", "-a", 4), "mask none.npy: no such file"),
        (("--calibration-shape", "dics", "-a", 4), "did you mean 'disc'"),
        (("--max-gap", 4, "-a", 4), "max_gap 4: is for lines"),
        (("--calibration-shape", "disc", "-a", 4), "calibration_shape disc: is that of calibration, which is 0"),
        (("--require", "small.npy", "-a", 4), "require: mask of (16, 16): does not fit the slices, which are (32, 32)"),
        (("--forbid", "diagonal.npy", "-a", 4, "--pattern", "rows"), "forbid: mask: has rows that are measured in part"),
        (("--require", "diagonal.npy", "--forbid", "diagonal.npy", "-a", 4), "require and forbid: 32 points would be measured and left"),
        (("--calibration", 6, "--max-gap", 8, "--segments", 4, "-a", 4, "--pattern", "columns"), "band 2 holds 3 that are required, and"),
        (("--segments", 2, "-a", 4.5, "--pattern", "columns"), "7 columns, which cannot be divided equally (1 would be left over); take"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("optimize",), ("baseline", "energy")])
def test_what_cannot_be_met_writes_nothing(run, tmp_path, command, given, message):
    code, out, err = run(*command, "mine", *given, "-o", "mask.h5")
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert not (tmp_path / "mask.h5").exists()
