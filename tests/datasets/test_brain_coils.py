"""Virtual brains with simulated coils, phase and noise."""

from __future__ import annotations

import pytest
import torch

import prom
from prom import InputError

HOW = {"subjects": 2, "slices": [60, 90], "size": 32}


def test_without_coils_nothing_changes():
    plain, phased = prom.load("mni_brain", **HOW), prom.load("mni_brain", phase=True, **HOW)
    assert plain.images.dtype == torch.float32 and plain.sensitivities is None and plain.noise is None
    assert torch.allclose(phased.images.abs(), plain.images, atol=1e-6) and phased.sensitivities is None
    assert phased.images.angle().std() > 0.3


def test_what_the_coils_measure_is_the_image_and_noise_as_asked_for():
    data = prom.load("mni_brain", coils=6, phase=True, noise=0.02, **HOW)
    assert data.kspace.shape == (4, 6, 32, 32) and data.noise == 0.02 and "6 coils" in data.source and "simulated" in data.source
    rest = data.kspace - prom.fft2c(data.sensitivities * data.images)
    assert rest.abs().square().mean().sqrt() == pytest.approx(0.02, rel=0.03)
    assert torch.allclose(data.sensitivities.abs().square().sum(0), torch.ones(32, 32), atol=1e-5)
    assert not torch.equal(rest[0], rest[1])


def test_a_subject_stays_what_it_is():
    one = prom.load("mni_brain", coils=4, phase=True, **HOW | {"subjects": 1, "slices": [90]})
    two = prom.load("mni_brain", coils=4, phase=True, **HOW)
    assert one.images[0].equal(two.images[1]) and one.kspace[0].equal(two.kspace[1])
    other = prom.load("mni_brain", coils=4, phase=True, seed=1, **HOW)
    assert not other.kspace.equal(two.kspace)


@pytest.mark.parametrize("wrong", [{"coils": 0}, {"noise": 0.1}, {"coils": 4, "noise": -1}, {"coils": 4, "contrasts": 4}, {"phase": "yes"}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InputError, match=next(reversed(wrong))):
        prom.load("mni_brain", **HOW, **wrong)
