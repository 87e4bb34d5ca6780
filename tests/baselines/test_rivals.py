"""Rivals: exact budgets, determinism, and each algorithm against its definition written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from prom import InputError, SliceDataset, baselines, fft2c, ifft2c
from prom.baselines import RIVALS
from prom.baselines.rivals import igs, loupe, rescale, score_prune
from prom.kspace.patterns import make
from prom.masks.demands import Demands

QUICK = {"igs": {"batch_size": 5}, "loupe": {"iterations": 8, "learning_rate": 0.3}}
QUICK |= dict.fromkeys(("score_prune", "bass"), {"iterations": 8})


@pytest.fixture(scope="module")
def complex_blobs(blobs) -> SliceDataset:
    """With phase, so that no two samples are conjugate partners with equal gradients, between which rounding would choose."""
    phase = blobs.images.roll(1, dims=0) + 2 * blobs.images.roll(5, dims=3)
    return SliceDataset("complex", "train", blobs.images * torch.exp(1j * phase), blobs.subjects, blobs.slices)


def loss_of(mask: torch.Tensor, data: SliceDataset, criterion=functional.mse_loss) -> torch.Tensor:
    """Written out, in float64."""
    images = data.images.to(torch.complex128)
    return criterion(ifft2c(fft2c(images) * mask).abs(), images.abs())


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
@pytest.mark.parametrize("acceleration", [1.0, 3.7, 32.0])
def test_exact_budget_and_determinism(blobs, name, pattern, acceleration):
    grid = make(pattern, blobs.shape)
    masks = [RIVALS[name](blobs, acceleration, pattern=pattern, seed=seed, **QUICK[name]) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    for mask in masks:
        assert mask.dtype == torch.bool and mask.shape == blobs.shape
        lines = grid.adjoint(mask.int()) > 0
        assert int(lines.sum()) == grid.budget(acceleration) and torch.equal(grid.forward(lines), mask)


@pytest.mark.parametrize("name", ["loupe", "score_prune", "bass"])
def test_seed_matters(blobs, name):
    assert not torch.equal(*(RIVALS[name](blobs, 4, seed=seed, **QUICK[name]) for seed in (0, 1)))


@pytest.mark.parametrize("name", ["igs", "loupe", "score_prune"])
def test_any_function_is_an_objective(complex_blobs, name):
    objectives = (functional.l1_loss, "magnitude_mse")
    masks = [RIVALS[name](complex_blobs, 4, pattern="points", objective=objective, **QUICK[name]) for objective in objectives]
    assert masks[0].sum() == masks[1].sum() and not torch.equal(*masks)


@pytest.mark.parametrize("criterion", [functional.mse_loss, functional.l1_loss])
@pytest.mark.parametrize("pattern", ["columns", "rows"])
def test_igs_is_greedy_by_gradient(complex_blobs, pattern, criterion):
    objective = "magnitude_mse" if criterion is functional.mse_loss else criterion
    grid = make(pattern, complex_blobs.shape)
    w = torch.zeros(32, dtype=torch.float64)
    w[16] = 1
    while w.sum() < 8:
        w.requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(grid.forward(w), complex_blobs, criterion), w)
        w = w.detach()
        w[torch.where(w > 0, torch.inf, gradient).argmin()] = 1
    assert torch.equal(igs(complex_blobs, 4, pattern=pattern, objective=objective), grid.forward(w > 0))


def test_igs_masks_are_nested_and_start_at_the_centre(complex_blobs):
    masks = [igs(complex_blobs, 32 / count) for count in (1, 2, 5, 9)]
    assert masks[0][0].nonzero().item() == 16
    for small, large in zip(masks, masks[1:], strict=False):
        assert (large | ~small).all()


@pytest.mark.parametrize("per_round", [1, 3, 16, 1000])
def test_igs_points_by_rounds(blobs, per_round):
    mask = igs(blobs, 16, pattern="points", per_round=per_round)
    assert mask.sum() == 64 and mask[16, 16]
    assert loss_of(mask, blobs) < 1.5 * loss_of(baselines.energy(blobs, 16), blobs)


def test_rescale_has_the_mean_and_stays_in_bounds():
    generator = torch.Generator().manual_seed(0)
    for power in (0.1, 1.0, 10.0):
        p = torch.rand(1000, generator=generator) ** power
        for density in (0.03, 0.5, 0.97):
            q = rescale(p, density)
            assert float(q.mean()) == pytest.approx(density, abs=1e-5) and q.min() >= 0 and q.max() <= 1
            assert (q[p.argsort()].diff() >= 0).all()  # the ranking stays


@pytest.mark.parametrize("slopes", [(5.0, 12.0), (1.0, 40.0)])
def test_loupe_is_adam_on_the_soft_masks_loss(blobs, slopes):
    """The same draws, but the loss and the mask layer written out in float64, with autograd through all of it."""
    slope, sample_slope = slopes
    generator = torch.Generator().manual_seed(5)
    w = ((torch.rand(32, generator=generator) * 0.98 + 0.01).logit() / slope).double().requires_grad_()
    adam = torch.optim.Adam([w], lr=1.0)
    for _ in range(3):
        order = torch.randperm(12, generator=generator).tolist()
        p = rescale(torch.sigmoid(slope * w), 0.25)
        loss = torch.zeros((), dtype=torch.float64)
        for index in order:
            soft = torch.sigmoid(sample_slope * (p - torch.rand(32, generator=generator)))
            loss = loss + loss_of(soft.expand(32, 32), blobs.select([index])) / 12
        adam.zero_grad()
        loss.backward()
        adam.step()
    expected = torch.zeros(32, dtype=torch.bool)
    expected[w.detach().argsort(descending=True)[:8]] = True
    options = {"slope": slope, "sample_slope": sample_slope, "learning_rate": 1.0}
    assert torch.equal(loupe(blobs, 4, pattern="columns", seed=5, iterations=3, device="cpu", **options)[0], expected)


def test_first_score_step_is_gradient_descent(blobs):
    """With one iteration the mask is the top S of the scores already; the step then follows the gradient written out."""
    scores = torch.rand(32, generator=(generator := torch.Generator().manual_seed(4)))
    batch = torch.randperm(12, generator=generator).tolist()[:6]
    m = torch.zeros(32, dtype=torch.float64)
    m[scores.argsort(descending=True)[:8]] = 1
    m.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(m.expand(32, 32), blobs.select(batch)), m)
    scores = scores - 0.5 * gradient / gradient.abs().max()
    expected = torch.zeros(32, dtype=torch.bool)
    expected[scores.argsort(descending=True)[:8]] = True
    mask = score_prune(blobs, 4, pattern="columns", seed=4, iterations=1, batch_size=6, learning_rate=0.5, device="cpu")
    assert torch.equal(mask[0], expected)


def test_scores_are_pruned_step_by_step(blobs):
    """Momentum, and a mask that falls from all lines to S along the cubic of A.1, written out over four iterations."""
    scores = torch.rand(32, generator=(generator := torch.Generator().manual_seed(4)))
    mean, batches = torch.zeros(32, dtype=torch.float64), []
    while len(batches) < 4:
        order = torch.randperm(12, generator=generator).tolist()
        batches += [order[:6], order[6:]]
    for iteration, batch in enumerate(batches, 1):
        count = int(8 + 24 * (1 - iteration / 4) ** 3)
        m = torch.zeros(32, dtype=torch.float64)
        m[scores.argsort(descending=True)[:count]] = 1
        m.requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(m.expand(32, 32), blobs.select(batch)), m)
        mean = 0.9 * mean + 0.1 * gradient
        scores = scores - 0.2 * mean / mean.abs().max()
    expected = torch.zeros(32, dtype=torch.bool)
    expected[scores.argsort(descending=True)[:8]] = True
    mask = score_prune(blobs, 4, pattern="columns", seed=4, iterations=4, batch_size=6, learning_rate=0.2, device="cpu")
    assert torch.equal(mask[0], expected)


def test_scores_do_not_depend_on_the_images_scale(blobs):
    scaled = SliceDataset("blobs", "train", blobs.images * 2.0**-30, blobs.subjects, blobs.slices)
    assert torch.equal(score_prune(blobs, 8, iterations=20), score_prune(scaled, 8, iterations=20))


@pytest.mark.parametrize("name", ["loupe", "score_prune"])
def test_learning_helps(blobs, name):
    few, many = (RIVALS[name](blobs, 8, pattern="columns", iterations=count, device="cpu") for count in (1, 200))
    assert loss_of(many, blobs) < 0.7 * loss_of(few, blobs)


def test_bad_input(blobs):
    for bad, message in (
        (lambda: igs(blobs, 4, per_round=0), "per_round 0"),
        (lambda: igs(blobs, 4, batch_size=0), "batch_size 0"),
        (lambda: igs(blobs, 0.5), "acceleration 0.5"),
        (lambda: loupe(blobs, 4, iterations=0), "iterations 0"),
        (lambda: loupe(blobs, 4, learning_rate=-1), "learning_rate -1"),
        (lambda: score_prune(blobs, 4, momentum=1), "momentum 1"),
        (lambda: score_prune(blobs, 4, pattern="spokes"), "spokes"),
    ):
        with pytest.raises(InputError, match=message):
            bad()


def test_loupe_of_demands_that_leave_nothing_to_choose():
    outside = torch.tensor([1, 1, 0, 0, 0, 0, 1, 1]).bool().expand(8, 8).contiguous()
    data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "b"], [0, 0])
    mask = loupe(data, 2, "columns", iterations=2, demands=Demands(calibration=4, forbid=outside))
    assert torch.equal(mask, ~outside)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_loupe_learns_where_gradients_are_switched_off(blobs, context):
    expected = loupe(blobs, 4, device="cpu", **QUICK["loupe"])
    with context():
        assert torch.equal(loupe(blobs, 4, device="cpu", **QUICK["loupe"]), expected)


def test_masks_are_the_same_whatever_pytorch_makes_by_default(blobs):
    few = blobs.select(range(4))
    names = ("equispaced", "gaussian", "poisson_disc", "score_prune", "loupe")
    made = {}
    for kind in (torch.float32, torch.float64):
        torch.set_default_dtype(kind)
        try:
            made[kind] = [baselines.get(name)(few, 4, seed=3) for name in names]
        finally:
            torch.set_default_dtype(torch.float32)
    assert [torch.equal(*pair) for pair in zip(*made.values(), strict=True)] == [True] * len(names)
