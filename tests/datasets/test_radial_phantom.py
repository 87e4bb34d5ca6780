"""The measured spokes of a phantom: its angles are found again where they are known, and are those that its file shows."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from scipy.ndimage import gaussian_filter
from sigpy import shepp_logan

import prom
from prom import InputError
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.kspace.nonuniform import NonUniform

NEXT = ("pi i / 33", "2 pi i / 34")  # the hypotheses that explain most after the true one
SCRIPT = Path(__file__).parents[2] / "data" / "recorded" / "radial_phantom.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("radial_phantom", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(script) -> Path:
    """The measurement, where it lies beside the project."""
    if not (SHARED / script.FILE).is_file():
        pytest.skip(f"no measured spokes beside the project ({SHARED.name}/{script.FILE})")
    return SHARED / script.FILE


@pytest.mark.parametrize(("angle", "delay"), [("2 pi i / 33", 0.0), ("golden angle, 111.25 degrees", 0.25)])
def test_angles_levels_and_delays_are_found_where_they_are_known(script, angle, delay):
    """An oval phantom, off the centre, so that no two spokes of it are alike, its signal falling as that of the scanner does."""
    image = torch.from_numpy(gaussian_filter(np.abs(shepp_logan((90, 60))), 1.0)).to(torch.complex64)
    image = torch.nn.functional.pad(image, (20, 48, 12, 26))
    level = torch.polar(0.8 + torch.exp(-torch.arange(33) / 8.0), 0.1 * torch.arange(33).sin())
    encoding = Coils(simulated(6, (128, 128)), NonUniform(script.spokes_at(script.angles()[angle], delay), (128, 128)))
    truth = encoding.forward(image)[None]
    samples, found = script.levelled(truth * level[:, None])
    if not delay:  # else none of the samples is at the centre
        torch.testing.assert_close(found[0] / found[0, 0], level / level[0], rtol=1e-3, atol=1e-3)
    given = samples if not delay else truth
    rest = [script.explained(given, script.spokes_at(script.angles()[name], delay))[0] for name in (angle, *NEXT)]
    assert rest[0] < 0.03 and min(rest[1:]) > 2 * rest[0]
    assert script.explained(given, script.spokes_at(script.angles()[angle], delay + 0.25))[0] > 2 * rest[0]


def test_a_file_of_another_shape_is_refused(script, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        script.read(tmp_path)
    np.save(tmp_path / "other.npy", np.zeros((3, 33, 17, 255), np.complex64))
    with pytest.raises(InputError, match="must be complex64"):
        script.read(tmp_path / "other.npy")


def test_the_file_has_spokes_over_a_whole_turn_without_a_delay(script, file):
    """What the record's table shows, of one slice: the next hypothesis leaves twice as much, and so does a quarter of a sample."""
    samples = script.compress(script.levelled(script.read(file))[0], script.KEPT_COILS)[:1]
    best, *rest = (script.explained(samples, script.spokes_at(script.angles()[name]))[0] for name in ("2 pi i / 33", *NEXT))
    assert best < 0.08 and min(rest) > 2 * best
    for delay in (-0.25, 0.25):
        assert script.explained(samples, script.spokes_at(script.angles()["2 pi i / 33"], delay))[0] > 1.7 * best


def test_the_measured_spokes_are_a_data_set(script, file):
    data = script.measured_spokes(file)
    assert data.shape == (128, 128) and data.grid == (33, 256) and data.coils == 8 and len(data) == 3
    assert float(data.images.abs().max()) == pytest.approx(1) and data.choices("spokes").budget(16) == 8
    assert data.trajectory.turns.tolist() == pytest.approx([2 * i / 33 % 1 for i in range(33)])
    for index in range(3):
        rest = data.encoding(index).forward(data.images[index, 0]) - data.samples([index])[0]
        assert 3 * data.noise * math.sqrt(rest.numel()) < rest.norm() < 0.12 * data.samples([index]).norm()
    scores = []
    for acceleration in (4, 8, 16):
        mask = prom.baselines.get("equal_angles")(data, acceleration, "spokes")
        assert int(mask[:, 0].sum()) == 128 // acceleration
        scores.append(prom.evaluate(mask, data, reconstruction=script.Sense(script.RIDGE))["psnr"].mean())
    assert scores[0] > scores[1] + 3 and scores[1] > scores[2] + 1  # in dB: 26.0 and 24.4 of 16 and 8 spokes
