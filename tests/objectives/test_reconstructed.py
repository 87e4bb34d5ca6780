"""The error through a reconstruction: its gradient, its units, and that the optimiser follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import prom
from prom import InputError, SliceDataset, baselines
from prom.objectives import ImageLoss, whole_loss, whole_set
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named
from prom.reconstruction.gridding import Gridding
from prom.reconstruction.phase import PhaseConstrained
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.zero_filled import ZeroFilled


@pytest.fixture(scope="module")
def brains():
    return prom.load("mni_brain", subjects=3, slices=[60, 90], size=32, coils=4, phase=True, noise=0.005)


@pytest.mark.parametrize("criterion", ["mse", "psnr"])
def test_the_gradient_says_what_the_loss_does(brains, criterion):
    objective = Reconstructed(brains, Sense.of(brains, iterations=80, tolerance=1e-7), criterion=criterion)
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    loss, gradient = whole_set(objective, range(6), mask)
    assert loss == pytest.approx(whole_loss(objective, range(6), mask), rel=1e-5)
    ways = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1)) - 0.5
    for way in (gradient, *(way * gradient.sign() for way in ways.abs() * (torch.arange(32) < 16)), ways[0].abs() * -gradient.sign()):
        step = 0.02 * way / way.abs().max()
        change = whole_loss(objective, range(6), mask + step) - whole_loss(objective, range(6), mask - step)
        assert change == pytest.approx(2 * float((step * gradient).sum()), rel=0.02)


def test_psnr_is_that_of_evaluate(brains):
    """But for values outside the target's range, which evaluate clamps."""
    sense = Sense.of(brains)
    mask = prom.baselines.gaussian(brains, 3)
    expected = prom.evaluate(mask, brains, reconstruction=sense)["psnr"].mean()
    assert -whole_loss(Reconstructed(brains, sense, criterion="psnr"), range(6), mask.float()) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("reconstruction", [Sense(1e-3), Sparse("tv", 0.1), PhaseConstrained(1e-3, torch.ones(8, 8) + 0j), Gridding()])
def test_a_loss_of_bare_images_refuses_what_needs_coils(reconstruction):
    objective = ImageLoss(torch.rand(2, 1, 8, 8), torch.nn.functional.l1_loss, reconstruction=reconstruction)
    with pytest.raises(InputError, match="needs an encoding by Coils"):
        objective.loss_and_gradient([0], torch.ones(1, 8, 8))


@pytest.mark.parametrize("factor", [1e-15, 1e15])
def test_the_unit_makes_no_difference(brains, factor):
    mask, other = prom.baselines.gaussian(brains, 3), brains.scaled(factor)
    converged = dict(iterations=200, tolerance=1e-6)  # where 50 steps end hangs on the processor by .01 dB
    one, two = (prom.evaluate(mask, data, reconstruction=Sense.of(data, **converged)) for data in (brains, other))
    assert (one["psnr"] - two["psnr"]).abs().max() < 0.01
    losses = [Reconstructed(data, Sense.of(data)).loss_and_gradient([0], mask.float()[None]) for data in (brains, other)]
    assert all(part.isfinite().all() and part.any() for loss in losses for part in loss)


def test_each_image_may_have_masks_of_its_own(brains):
    objective = Reconstructed(brains, Sense.of(brains))
    masks = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    loss, gradient = objective.loss_and_gradient([1, 4], masks)
    alone = [objective.loss_and_gradient([index], own) for index, own in zip((1, 4), masks, strict=True)]
    torch.testing.assert_close(loss, sum(part for part, _ in alone) / 2)
    torch.testing.assert_close(gradient, torch.stack([part for _, part in alone]) / 2, rtol=1e-3, atol=1e-7)


def test_the_optimiser_goes_through_it(brains):
    objective = Reconstructed(brains, Sense.of(brains, iterations=10), criterion="psnr")
    recipe = replace(prom.DEFAULT, iterations=60, curvature=False, batch_size=4)
    result = prom.optimize(brains, 4, "points", recipe, objective)
    assert int(result.mask.sum()) == 256
    rivals = [prom.baselines.low_pass(brains, 4), prom.baselines.energy(brains, 4)]  # without a gradient it would be the first
    learnt, *others = (whole_loss(objective, range(6), mask.float()) for mask in (result.mask, *rivals))
    assert learnt < min(others) - 1.5


def test_a_function_as_criterion_is_the_formula(brains):
    sense = Sense.of(brains, iterations=10)
    masks = (torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.4).float()

    def of_number(found, number):
        return (found - brains.images[number].abs()).square().mean()

    formula, given = Reconstructed(brains, sense), Reconstructed(brains, sense, criterion=functional.mse_loss, near=masks[0].bool())
    named = Reconstructed(brains, sense, criterion=of_number, targets=torch.arange(6))
    expected = formula.loss_and_gradient([1, 4], masks)
    for objective in (given, named):
        loss, gradient = objective.loss_and_gradient([1, 4], masks)
        torch.testing.assert_close(loss, expected[0] * formula.loss_unit)
        torch.testing.assert_close(gradient, expected[1] * formula.loss_unit, rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(objective.loss([1, 4], masks), loss)
    assert formula.curvature() is None and given.curvature().shape == (32, 32)
    assert (
        given.describe() == {"objective": "mse_loss", **sense.describe()} and sense.describe()["reconstruction"] == "Sense(iterations=10)"
    )


def test_an_unknown_criterion_is_refused(brains):
    with pytest.raises(InputError, match="criterion 'pnsr'"):
        Reconstructed(brains, Sense.of(brains), criterion="pnsr")
    with pytest.raises(InputError, match="for targets of your own give a function"):
        Reconstructed(brains, Sense.of(brains), targets=torch.arange(6))


@pytest.mark.parametrize("name", ["sense", "tv"])
def test_gradients_do_not_vanish_in_any_unit(brains, name):
    few = brains.select([0, 1])
    mask = baselines.energy(few, 4).float()[None]
    found = {}
    for power in (0, -30, -36, -60, 30):
        data = replace(
            few,
            images=few.images * 2.0**power,
            kspace=None if few.kspace is None else few.kspace * 2.0**power,
            noise=few.noise * 2.0**power,
        )
        objective = Reconstructed(data, named(name, data, mask[0].bool()))
        loss, gradient = objective.loss_and_gradient([0, 1], mask)
        found[power] = gradient * objective.loss_unit / 4.0**power
    for power, gradient in found.items():
        error = (gradient - found[0]).norm() / found[0].norm()
        assert error < 1e-3, (power, error)


def test_decibels_of_constant_slices_are_refused_and_of_exact_images_finite():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[1] = 1
    loss = Reconstructed(SliceDataset("demo", "train", images, ["a", "b"], [0, 0]), ZeroFilled(), criterion="psnr").loss_and_gradient
    with pytest.raises(InputError, match="demo, subject b, slice 0: is constant, so that it has no PSNR"):
        loss([0, 1], torch.ones(1, 8, 8))
    point = torch.zeros(1, 1, 8, 8)
    point[..., 4, 4] = 1
    exact = Reconstructed(SliceDataset("demo", "train", point, ["a"], [0]), ZeroFilled(), criterion="psnr")
    value, gradient = exact.loss_and_gradient([0], torch.ones(1, 8, 8))
    assert bool(value.isfinite()) and bool(gradient.isfinite().all())
