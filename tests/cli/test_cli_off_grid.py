"""Spokes and spirals on the command line: masks with their candidates, scored along them, and one line where that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import prom
from prom import fft2c, load_mask
from prom.kspace.coils import simulated
from prom.kspace.trajectories import spirals, spokes

SPOKES = ("--pattern", "spokes", "--candidates", 20)
COILS = ("--set", "axes=NKHW", "--set", "domain=kspace", "--set", "coils=keep", "--set", "sensitivities=maps.npy", "--set", "noise=0.05")


@pytest.fixture
def run(command_line, tmp_path):
    """The command line in this process, in a folder with images and k-space of four subjects: exit code, output, errors."""
    generator, maps = np.random.default_rng(0), simulated(3, (16, 16))
    np.save(tmp_path / "maps.npy", maps.numpy())
    for folder in ("mine", "oblong", "coils"):
        (tmp_path / folder).mkdir()
    for subject in range(4):
        images = generator.random((2, 16, 16))
        np.save(tmp_path / "mine" / f"subject{subject}.npy", images)
        np.save(tmp_path / "oblong" / f"subject{subject}.npy", images[:, :, :12])
        kspace = fft2c(maps * torch.from_numpy(images).float()[:, None])
        np.save(tmp_path / "coils" / f"subject{subject}.npy", kspace.numpy())
    return command_line


@pytest.mark.parametrize("name", ["equal_angles", "golden_angle", "random_readouts", "repulsion"])
def test_a_baseline_is_made_and_scored_along_its_candidates(run, name):
    code, out, err = run("baseline", name, "coils", *COILS, "-a", 4, *SPOKES, "-o", "mask.h5", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["excitations"] == 4 and found["true_acceleration"] == 4
    result = load_mask("mask.h5")
    assert result.mask.shape == (20, 16) and result.trajectory.points.equal(spokes(20, 16).points) and int(result.mask[:, 0].sum()) == 4
    code, out, err = run("evaluate", "mask.h5", "coils", *COILS, "--reconstruction", "sense", "--json")
    how = {"axes": "NKHW", "domain": "kspace", "coils": "keep", "sensitivities": "maps.npy", "noise": 0.05}
    train, test = (prom.load("coils", split, **how).along(spokes(20, 16)) for split in ("train", "test"))
    expected = prom.evaluate(result.mask, test, reconstruction=prom.reconstruction.named("sense", train))["psnr"].mean()
    found = json.loads(out)
    assert (code, err) == (0, "") and found["psnr"] == pytest.approx(expected, abs=0.01) and found["true_acceleration"] == 4


def test_an_optimised_mask_has_candidates(run):
    given = ("--reconstruction", "sense", "--iterations", 3)
    code, _, err = run("optimize", "coils", *COILS, "-a", 4, "--pattern", "spirals", "--candidates", 12, *given, "-o", "mask.h5")
    assert (code, err) == (0, "")
    result = load_mask("mask.h5")
    assert result.trajectory.points.equal(spirals(12, 16).points) and int(result.mask[:, 0].sum()) == 4


def test_without_a_number_there_are_256_candidates(run):
    assert run("baseline", "equal_angles", "mine", "-a", 4, "--pattern", "spokes", "-o", "mask.h5")[0] == 0
    assert load_mask("mask.h5").mask.shape == (256, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("baseline", "gaussian", "mine", "-a", 4, "--candidates", 20), "--candidates 20: is for spokes, spirals and kooshball"),
        (("baseline", "equal_angles", "mine", "-a", 4, "--pattern", "spoke"), "did you mean 'spokes'"),
        (("baseline", "equal_angles", "oblong", "-a", 4, "--pattern", "spokes"), "equal sides"),
        (("baseline", "equal_angles", "mine", "-a", 2, "--pattern", "spokes", "--candidates", 4), "there are 4 candidates; take more"),
        (("baseline", "equal_angles", "mine", "-a", 4, "--pattern", "spokes", "--candidates", 0), "candidates"),
        (("baseline", "equal_angles", "mine", "-a", 4, "--pattern", "kooshball"), "is of volumes"),
        (("baseline", "equal_angles", "mine", "-a", 4, *SPOKES, "--calibration", 2), "calibration: is of a grid"),
        (("baseline", "repulsion", "mine", "-a", 4, *SPOKES), "its noise is not known"),
        (("baseline", "gaussian", "mine", "-a", 4, *SPOKES), "off the grid"),
        (("optimize", "mine", "-a", 4, *SPOKES, "--iterations", 3), "zero-filling is for grids; name a reconstruction"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, arguments, message):
    code, out, err = run(*arguments, "-o", "mask.h5")
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and message in lines[-1] and "Traceback" not in err and not (tmp_path / "mask.h5").exists()


def test_zero_filling_is_refused_off_the_grid(run):
    assert run("baseline", "equal_angles", "mine", "-a", 4, *SPOKES, "-o", "mask.h5")[0] == 0
    code, _, err = run("evaluate", "mask.h5", "mine")
    assert code == 2 and "zero-filling is for grids" in err


def test_a_mask_of_spokes_is_of_one_size(run):
    """Of larger images so many spokes are another acceleration, and do not reach their resolution."""
    assert run("baseline", "equal_angles", "mine", "-a", 4, *SPOKES, "-o", "mask.h5")[0] == 0
    code, out, err = run("evaluate", "mask.h5", "mine", "--set", "size=12", "--reconstruction", "sense")
    assert (code, out) == (2, "") and err == (
        "prom: spokes: were made for images of 16 x 16, and these are (12, 12); make the mask for these "
        "(readouts of your own are of the kind 'readouts')\n"
    )
