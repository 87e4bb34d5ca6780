"""Algorithm 1: projected gradient descent on the probabilities of a mask. One loop for every recipe, pattern and objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from prom import bernoulli, distributed, objectives
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.masks import MaskResult, provenance
from prom.options import check_seed
from prom.polish import improve
from prom.problem import Problem
from prom.recipes import DEFAULT, Recipe
from prom.replay import Replayed
from prom.schedules import linear
from prom.steps import STEP_RULES
from prom.threads import added, parallel, spread


def optimize(
    data: SliceDataset | Tensor | np.ndarray,
    acceleration: float,
    pattern: str = "points",
    recipe: Recipe = DEFAULT,
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    seed: int = 0,
    device: str = "auto",
    callback: Callable[[int, Tensor], None] | None = None,
) -> MaskResult:
    """Learn which k-space samples to measure (Eq. 3, Algorithm 1).

    Parameters
    ----------
    data
        A data set, or fully sampled images ``(H, W)``, ``(N, H, W)`` or ``(N, C, H, W)``, real or complex. One image is the paper's
        single-image mode.
    acceleration
        alpha >= 1. The mask has exactly floor(D / alpha) samples (points) or lines (columns, rows).
    pattern
        "points", "columns" or "rows".
    recipe
        :data:`prom.DEFAULT`, :data:`prom.PAPER`, or a variant of one made with ``dataclasses.replace``.
    objective
        "magnitude_mse", a function ``(x_hat, x) -> loss`` of two ``(P, C, H, W)`` batches, or an :class:`prom.objectives.Objective` that
        has been made of these data.
    seed
        Same seed, same machine: same bits.
    device
        "cpu", "cuda", or "auto": CUDA where there is one.
    callback
        Called as ``callback(iteration, theta)`` after every iteration, for figures.

    Returns
    -------
    MaskResult
        Mask (Eq. 8; where the recipe polishes, improved from there), probabilities, history and provenance.

    Raises
    ------
    InputError
        Where the data, the acceleration, a name or the device cannot be used, or the loss is not finite.

    >>> from dataclasses import replace
    >>> result = optimize(torch.rand(2, 16, 16), acceleration=4, recipe=replace(DEFAULT, iterations=20))
    >>> result.mask.shape, int(result.mask.sum())
    (torch.Size([16, 16]), 64)
    """
    return learn(Problem.of(data, acceleration, pattern, objective, device), recipe, check_seed(seed), callback)


@spread()
def learn(problem: Problem, recipe: Recipe = DEFAULT, seed: int = 0, callback: Callable[[int, Tensor], None] | None = None) -> MaskResult:
    """:func:`optimize`, for a problem that has been made already."""
    data, pattern, objective, feasible = problem.data, problem.pattern, problem.objective, problem.feasible
    _refuse_what_fails(problem, recipe)
    generator = torch.Generator(problem.device).manual_seed(seed)
    solutions, history = [], []
    said = torch.empty(recipe.members * recipe.iterations, 2, device=problem.device)  # loss, share of active entries: fetched at the end
    theta = move = None
    bar = tqdm(total=len(said), desc=f"optimize {data.name} x{problem.acceleration:g}", disable=None, leave=False)
    for member in range(recipe.members):
        fresh = member == 0 or recipe.independent_members
        if fresh:
            theta = torch.rand(pattern.shape, generator=generator, device=problem.device)  # U(0, 1), section 4
            if recipe.initialisation == "energy":
                theta = energy_order(pattern.adjoint(objective.data.power(most=objectives.CURVATURE_IMAGES)))
            step = STEP_RULES[recipe.step_rule](recipe, theta, problem.acceleration)
            move = replayed(partial(iterate, problem, step, recipe, generator), problem, generator)
        batches = shuffled_batches(len(objective.data), recipe.batch_size, generator)
        for iteration in range(recipe.iterations):
            progress = iteration / max(recipe.iterations - 1, 1)
            tau = linear(progress, recipe.tau_start, recipe.tau_end)
            budget = feasible.annealed(progress if fresh else 1.0, *recipe.phases)  # A.1
            theta, said[len(history)] = move(theta, next(batches), tau, budget)
            history.append((member, iteration, budget))
            if callback:
                callback(iteration, theta)
            bar.update()
        solutions.append(feasible.project(theta))  # feasible whatever the order of step and projection
    bar.close()
    theta = bernoulli.average(solutions).cpu()
    loss, active = said.cpu().double().T.numpy()
    if not np.isfinite(loss).all():
        raise InputError(
            f"{data.name}: the loss is {loss[~np.isfinite(loss)][0]:g}; change the objective, or the unit of the images by scale"
        )
    mask = pattern.forward(feasible.round(theta)).contiguous()  # Eq. 8
    if recipe.polish:
        mask = improve(mask, problem, recipe.polish, hold_out=recipe.hold_out)
    return MaskResult(
        mask=mask,
        probabilities=pattern.forward(theta).contiguous(),
        theta=theta,
        pattern=pattern.name,
        acceleration=problem.acceleration,
        recipe=recipe.as_dict(),
        seed=seed,
        history=pd.DataFrame(history, columns=["member", "iteration", "budget"]).assign(
            loss=loss * objective.loss_unit, active_fraction=active
        ),
        provenance=provenance(data, objective.describe(), problem.device),
    )


def _refuse_what_fails(problem: Problem, recipe: Recipe) -> None:
    images = problem.objective.data
    if problem.objective.loss_unit != 1 and recipe.step_rule == "adam":
        raise InputError(
            f"{problem.data.name}: has values up to {images.unit:.0e}, where Adam fails; use recipe default, or the option scale"
        )
    most = min(recipe.batch_size, len(images))
    if distributed.size() > most:
        raise InputError(f"{distributed.size()} processes: a batch has {most} images; start no more than one process for each")


def energy_order(power: Tensor) -> Tensor:
    """Probabilities evenly spaced on (0, 1], as of a uniform distribution, in the order of the power.

    >>> energy_order(torch.tensor([5.0, 1.0, 9.0, 2.0]))
    tensor([0.7500, 0.2500, 1.0000, 0.5000])
    """
    return (power.flatten().argsort().argsort().reshape(power.shape) + 1.0) / power.numel()


def iterate(
    problem: Problem,
    step: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    generator: torch.Generator,
    theta: Tensor,
    batch: Sequence[int] | Tensor,
    tau: float | Tensor,
    budget: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """One iteration of Algorithm 1: theta, and the loss with the share of active mask entries, ``(2,)``."""
    if not recipe.project_after_step:
        theta = problem.feasible.project(theta, budget)
    loss, gradient, active = expected_gradient(problem, batch, theta, tau, recipe, generator)
    theta = step(theta, gradient)
    if recipe.project_after_step:
        theta = problem.feasible.project(theta, budget)  # Eq. 6, 7
    return theta, torch.stack([loss, active])


def replayed(move: Callable, problem: Problem, generator: torch.Generator) -> Callable:
    """The same function, recorded once and replayed where a GPU can."""
    can = problem.device.type == "cuda" and problem.objective.replayable and problem.feasible.plain and distributed.size() == 1
    return Replayed(move, generator) if can else move


def expected_gradient(
    problem: Problem,
    batch: Sequence[int] | Tensor,
    theta: Tensor,
    tau: float | Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Monte-Carlo estimate of Eq. 2 on a batch: (loss, gradient with respect to theta, share of active mask entries)."""
    pattern, objective = problem.pattern, problem.objective
    curvature = objective.curvature() if recipe.curvature else None
    relaxed = bernoulli.RelaxedSamples(theta, tau) if recipe.estimator == "gumbel" else None

    def draw(source: torch.Generator, count: int = recipe.samples) -> tuple[Tensor, Tensor | None]:
        """Hard masks and dm/dtheta, None where that is taken as 1."""
        return relaxed.draw(source, count) if relaxed else (bernoulli.sample(theta, source, count), None)  # Eq. 4, 5; or Eq. 1

    def draw_batch() -> tuple[Tensor, Tensor | None]:
        """Those of all images at once, of which each process keeps its own images'."""
        hard, slope = draw(generator, len(batch) * recipe.samples)
        apart = (len(batch), recipe.samples)
        return distributed.share(hard.unflatten(0, apart)), None if slope is None else distributed.share(slope.unflatten(0, apart))

    def of_group(group: tuple[Sequence[int], Callable[[], tuple[Tensor, Tensor | None]]]) -> tuple[Tensor, Tensor, Tensor]:
        """Means over the images of a group and their masks."""
        images, masks_drawn = group
        hard, slope = masks_drawn()
        masks = pattern.forward(hard)
        loss, by_mask = objective.loss_and_gradient(images, masks)
        if curvature is not None:
            by_mask = torch.addcmul(by_mask, 0.5 - masks, curvature, value=1 / masks.shape[:-2].numel())
        gradient = bernoulli.chained(pattern.adjoint(by_mask).flatten(-theta.ndim), slope)
        return loss, gradient, hard.mean()

    mine = distributed.share(batch)
    if recipe.shared_mask:
        groups = [(mine, partial(draw, generator))]
    elif theta.is_cuda:
        groups = [(mine, draw_batch)]
    else:  # a seed for every image, so that it gets the same masks whichever process or thread works on it
        seeds = torch.randint(2**63 - 1, (len(batch),), generator=generator).tolist()
        sources = [torch.Generator().manual_seed(seed) for seed in distributed.share(seeds)]
        groups = [([image], partial(draw, source)) for image, source in zip(mine, sources, strict=True)]
    parts = parallel(of_group, groups) if objective.concurrent else [of_group(group) for group in groups]
    part = len(groups[0][0]) / len(batch)  # groups are of one size
    loss, gradient, active = distributed.total(*(added(sums).mul_(part) for sums in zip(*parts, strict=True)))
    return loss, gradient.reshape(pattern.shape), active


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int] | Tensor]:
    """Endless batches of indices; each pass visits every image once, in a new order. A short last batch is left out.

    Of a generator on a GPU they stay there, so that nobody waits for it.

    >>> batches = shuffled_batches(3, 2, torch.Generator().manual_seed(0))
    >>> len(next(batches)), len(next(batches))
    (2, 2)
    """
    batch_size = min(batch_size, count)
    while True:
        order = torch.randperm(count, generator=generator, device=generator.device)
        order = order if order.is_cuda else order.tolist()
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
