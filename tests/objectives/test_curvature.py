"""The measured curvature is the formula's where there is one, and keeps the centre of k-space where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import prom
from prom import InputError, baselines, curvature
from prom.objectives import ImageLoss, MagnitudeMSE, whole_set


def test_the_scale_is_that_of_a_quadratic():
    """L = L0 + g (m - m0) + c / 2 sum P (m - m0)^2, whose c is asked for."""
    generator = torch.Generator().manual_seed(0)
    power, slope = (torch.rand(16, 16, generator=generator) + 0.1 for _ in range(2))
    mask = torch.rand(16, 16, generator=generator) < 0.4

    def evaluate(other: torch.Tensor) -> tuple[float, torch.Tensor]:
        away = other.float() - mask.float()
        return 5 + float((slope * away + 3 / 2 * power * away.square()).sum()), slope

    assert curvature.measure_scale(evaluate, mask, *evaluate(mask), power) == pytest.approx(3, rel=1e-3)


def test_of_a_squared_error_it_is_the_formula(blobs):
    mask = baselines.energy(blobs, 4)
    measured = curvature.near(ImageLoss(blobs.images, functional.mse_loss), mask)
    formula = MagnitudeMSE(blobs.images).curvature()
    ratio = measured / formula
    assert ratio.std() < 1e-3 * ratio.mean()  # the same shape
    assert 1 <= ratio.mean() < 2.2  # both of two conjugate partners are left out at once, which in real images act together
    phase = blobs.images.roll(1, dims=0) + 2 * blobs.images.roll(5, dims=3)
    images = blobs.images * torch.exp(1j * phase)
    mask = baselines.energy(replace(blobs, images=images), 4)
    ratio = curvature.near(ImageLoss(images, functional.mse_loss), mask) / MagnitudeMSE(images).curvature()
    assert ratio.mean() == pytest.approx(1, abs=0.2)


def test_it_makes_another_loss_learnable(blobs):
    def edges(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return sum((predicted.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in (-2, -1))

    losses = []
    for with_curvature in (False, True):
        objective = ImageLoss(blobs.images, edges, near=baselines.energy(blobs, 8) if with_curvature else None)
        recipe = replace(prom.DEFAULT, iterations=150, initialisation="energy")
        result = prom.optimize(blobs, 8, recipe=recipe, objective=objective, device="cpu")
        losses.append(whole_set(objective, range(len(blobs)), result.mask.float())[0])
    energy = whole_set(objective, range(len(blobs)), baselines.energy(blobs, 8).float())[0]
    assert losses[1] < losses[0] and losses[1] < energy


def test_it_needs_a_mask_with_samples(blobs):
    objective = MagnitudeMSE(blobs.images)
    for mask in (torch.zeros(32, 32).bool(), torch.ones(4, 4).bool()):
        with pytest.raises(InputError, match="must have some"):
            curvature.near(objective, mask)
    with pytest.raises(InputError, match="mask with the value 255: must have 0 and 1 only"):
        curvature.near(objective, 255 * torch.ones(32, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match="mask with the value -1: must have 0 and 1 only"):
        curvature.near(objective, -torch.eye(32))
    with pytest.raises(InputError, match="mask of type str: must be an array of 0 and 1"):
        curvature.near(objective, "mask.h5")
    for mask in (torch.ones(32, 32) + 1j, np.full((32, 32), "a")):
        with pytest.raises(InputError, match="mask of .*: must have 0 and 1 only"):
            curvature.near(objective, mask)
    with pytest.raises(InputError, match="mask of .8, 8. with nan samples"):
        curvature.near(objective, torch.full((8, 8), torch.nan))
    with pytest.raises(InputError, match="mask of type MaskedArray: must be an array"):
        curvature.near(objective, np.ma.masked_array(np.ones((32, 32)), mask=np.eye(32)))
    for kind in ("u2", ">f4"):
        assert torch.equal(curvature.near(objective, np.ones((32, 32), kind)), curvature.near(objective, torch.ones(32, 32)))
    whole = torch.ones(32, 32)
    assert torch.equal(curvature.near(objective, whole), curvature.near(objective, whole.bool()))
