"""Polishing: the loss falls, the count stays, and with enough evaluations no single swap is left (checked by enumeration)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from prom import DEFAULT, POLISHED, InputError, SliceDataset, baselines, fft2c, ifft2c, load, optimize
from prom.kspace.fourier import opposite
from prom.kspace.patterns import make
from prom.learn.polish import RELATIVE_TOLERANCE, _one_of_each_pair, polish
from prom.masks import bernoulli
from prom.objectives import MagnitudeMSE, whole_set


def tiny(phase: bool = False) -> SliceDataset:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(5, 2, 8, 8, generator=generator)
    if phase:
        images = images * torch.exp(6j * torch.rand(5, 2, 8, 8, generator=generator))
    return SliceDataset("tiny", "train", images, list("abcde"), [0] * 5)


def loss_of(mask: torch.Tensor, data: SliceDataset, criterion=functional.mse_loss) -> float:
    """Written out, in float64."""
    images = data.images.to(torch.complex128)
    return float(criterion(ifft2c(fft2c(images) * mask).abs(), images.abs()))


def random_mask(pattern: str, shape: tuple[int, int], acceleration: float) -> torch.Tensor:
    """Random, but for a tenth of the samples around the centre."""
    grid = make(pattern, shape)
    budget = grid.budget(acceleration)
    centre = bernoulli.mode(torch.zeros(grid.shape), max(1, budget // 10))
    scores = torch.rand(grid.shape, generator=torch.Generator().manual_seed(1)) + 2 * centre
    return grid.forward(bernoulli.mode(scores, budget)).contiguous()


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
@pytest.mark.parametrize("objective", ["magnitude_mse", functional.l1_loss])
def test_loss_falls_and_count_stays(blobs, pattern, objective):
    criterion = functional.l1_loss if callable(objective) else functional.mse_loss
    start = random_mask(pattern, blobs.shape, 4)
    better = polish(start, blobs, pattern=pattern, objective=objective, evaluations=30)
    assert better.dtype == torch.bool and better.sum() == start.sum()
    grid = make(pattern, blobs.shape)
    assert torch.equal(grid.forward(grid.adjoint(better.int()) > 0), better)  # still whole lines
    assert loss_of(better, blobs, criterion) < 0.5 * loss_of(start, blobs, criterion)
    assert torch.equal(better, polish(start, blobs, pattern=pattern, objective=objective, evaluations=30))


def test_more_evaluations_never_hurt(blobs):
    start = baselines.energy(blobs, 8)
    losses = [loss_of(polish(start, blobs, evaluations=count), blobs) for count in range(1, 21)]
    assert losses[0] == loss_of(start, blobs)  # the first evaluation is the start's own
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip(losses, losses[1:], strict=False))
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("objective", ["magnitude_mse", functional.l1_loss])
@pytest.mark.parametrize(("pattern", "acceleration"), [("points", 10), ("columns", 2), ("rows", 4)])
@pytest.mark.parametrize("phase", [False, True])
def test_no_single_swap_improves_the_result(objective, pattern, acceleration, phase):
    data, grid = tiny(phase), make(pattern, (8, 8))
    criterion = functional.l1_loss if callable(objective) else functional.mse_loss
    start = random_mask(pattern, (8, 8), acceleration)
    mask = polish(start, data, pattern=pattern, objective=objective, evaluations=3000, exhaustive=True)
    members = grid.adjoint(mask.int()).flatten() > 0
    best = loss_of(mask, data, criterion)
    for removal in members.nonzero().flatten().tolist():
        for addition in (~members).nonzero().flatten().tolist():
            swapped = members.clone()
            swapped[removal], swapped[addition] = False, True
            assert loss_of(grid.forward(swapped.reshape(grid.shape)), data, criterion) > best * (1 - 2 * RELATIVE_TOLERANCE)


def test_linear_problem_is_solved_outright():
    """One complex channel whose image has all its power in k-space where it is chosen: the S strongest are the optimum."""
    kspace = torch.zeros(8, 8, dtype=torch.complex64)
    kspace[4, 4], kspace[2, 5], kspace[7, 1] = 40.0, 3.0j, 2.0
    data = SliceDataset("three", "train", ifft2c(kspace)[None, None].repeat(2, 1, 1, 1), ["a", "b"], [0, 0])
    start = torch.zeros(8, 8, dtype=torch.bool)
    start[0, 0] = start[4, 4] = start[1, 1] = True  # one of the three
    assert polish(start, data)[kspace != 0].all()


def test_chunks_weigh_by_their_size(blobs):
    images = blobs.images.repeat(4, 1, 1, 1)[:41]  # 32 + 9
    mask = random_mask("points", blobs.shape, 3).float()
    loss, gradient = whole_set(MagnitudeMSE(images), range(41), mask)
    at_once, expected = MagnitudeMSE(images).loss_and_gradient(list(range(41)), mask[None])
    assert loss == pytest.approx(float(at_once), rel=1e-5)
    torch.testing.assert_close(gradient, expected[0], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 25])
def test_evaluations_are_counted(blobs, count):
    calls = []

    def objective(prediction, target):
        calls.append(len(prediction))
        return functional.l1_loss(prediction, target)

    polish(baselines.energy(blobs, 4), blobs, objective=objective, evaluations=count)
    assert sum(calls) == len(blobs) * count  # the energy oracle leaves more to do than that


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (8,)])
def test_partners_are_opposite_frequencies(shape):
    """The k-space of a real image is Hermitian: an entry equals its partner's conjugate."""
    partners = opposite(torch.arange(math.prod(shape)).reshape(shape)).flatten()
    kspace = fft2c(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))[0].flatten()
    torch.testing.assert_close(kspace, kspace[partners].conj())
    assert torch.equal(partners[partners], torch.arange(len(partners)))
    order = torch.randperm(len(partners), generator=torch.Generator().manual_seed(1))
    kept = _one_of_each_pair(order, partners).tolist()
    pairs = [{int(i), int(partners[i])} for i in order]
    assert kept == [int(i) for k, i in enumerate(order) if pairs[k] not in pairs[:k]]


@pytest.mark.parametrize("acceleration", [1.0, 1024.0])
def test_full_and_smallest_masks(blobs, acceleration):
    start = baselines.energy(blobs, acceleration)
    better = polish(start, blobs)
    assert torch.equal(better, start)  # nothing outside, or DC alone


def test_scale_of_the_images_does_not_matter(blobs):
    start = baselines.energy(blobs, 8)
    scaled = SliceDataset("blobs", "train", blobs.images * 2.0**-30, blobs.subjects, blobs.slices)
    assert torch.equal(polish(start, blobs), polish(start, scaled))


def test_bad_input(blobs):
    mask = baselines.energy(blobs, 8)
    for bad, message in (
        (lambda: polish(255 * mask, blobs), "value 255"),
        (lambda: polish(optimize(blobs, 8, recipe=replace(DEFAULT, iterations=2)), blobs), "use its .mask"),
        (lambda: polish(mask[:16], blobs), "does not fit"),
        (lambda: polish(mask, blobs, pattern="columns"), "columns that are measured in part"),
        (lambda: polish(mask, blobs, evaluations=0), "evaluations 0"),
        (lambda: polish(mask, blobs, pattern="spokes"), "spokes"),
        (lambda: polish(mask, blobs, objective="psnr"), "psnr"),
    ):
        with pytest.raises(InputError, match=message):
            bad()


@pytest.mark.slow
def test_partners_come_from_one_side():
    """Choosing the partner of every pair by chance costs something, and the first move takes it back: one evaluation, no swap."""
    brain = load("mni_brain", slices=[80, 90])
    grid = make("points", brain.shape)
    oracle = baselines.conjugate_energy(brain, 16).flatten()
    partners = opposite(torch.arange(grid.size).reshape(grid.shape)).flatten()
    single = oracle ^ oracle[partners]
    coin = torch.rand(grid.size, generator=torch.Generator().manual_seed(5)) < 0.5
    coin = torch.where(torch.arange(grid.size) < partners, coin, ~coin[partners])
    mixed = torch.where(single, coin, oracle).reshape(grid.shape)
    assert mixed.sum() == oracle.sum() and (mixed.flatten() & single & oracle).sum() < 0.6 * (single & oracle).sum()
    better = polish(mixed, brain, evaluations=2)
    assert torch.equal(better.flatten(), oracle)
    assert loss_of(better, brain) < loss_of(mixed, brain)
    with_phase = SliceDataset("phase", "train", brain.images * torch.exp(1j * brain.images), brain.subjects, brain.slices)
    assert not torch.equal(polish(mixed, with_phase, evaluations=2).flatten(), oracle)  # no such symmetry, no such move


def test_held_out_patients_have_a_say(blobs):
    """No swap is kept that makes the loss of the held-out patients larger, and they propose none."""
    rest, held = blobs.held_out(0.4)
    images = blobs.images.clone()
    # Two samples matter to them, and hardly to the others; faint, so that the curvature, that of all images, does not know of it.
    images[held] = 0.01 * (images[held] + 0.3 * torch.cos(2 * torch.pi * 9 * torch.arange(32) / 32))
    data = replace(blobs, images=images)
    start = baselines.low_pass(blobs, 8)
    edge = start & ~baselines.low_pass(blobs, 10)
    start[tuple(edge.nonzero()[:2].T)] = False
    start[16, 7] = start[16, 25] = True

    def loss(part, mask):
        return whole_set(MagnitudeMSE(images), part, mask.float())[0]

    kept, alone = polish(start, data, evaluations=30, hold_out=0.4), polish(start, data.select(rest), evaluations=30)
    assert not alone[16, [7, 25]].any() and loss(held, alone) > 10 * loss(held, start)
    assert kept[16, [7, 25]].any() and loss(held, kept) < loss(held, start) and loss(rest, kept) < loss(rest, start)
    start[16, 7] = start[16, 25] = False  # the held-out patients would have them, and do not propose
    start[tuple(edge.nonzero()[:2].T)] = True
    assert not polish(start, data, evaluations=30, hold_out=0.4)[16, [7, 25]].any()
    with pytest.raises(InputError, match="hold_out 0.2: of 1 patient"):  # before the first of its iterations
        optimize(blobs.images[:1, 0], 4, recipe=replace(POLISHED, hold_out=0.2), callback=lambda *_: pytest.fail("it began"))
    with pytest.raises(InputError, match="recipe field hold_out=0.2: is of polishing, and polish=0"):
        replace(DEFAULT, hold_out=0.2)
    with pytest.raises(InputError, match="hold_out 2.0: must be"):
        polish(start, blobs, hold_out=2.0)
