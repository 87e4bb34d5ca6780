"""Algorithm 1: projected gradient descent on the probabilities of a mask. One loop for every recipe, pattern and objective."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prom import objectives
from prom.datasets.base import SliceDataset
from prom.engine.replay import replayed
from prom.engine.threads import spread
from prom.errors import InputError
from prom.learn import centre
from prom.learn.batches import ShuffledBatches
from prom.learn.checkpoint import Checkpoint, Kept
from prom.learn.history import History
from prom.learn.iterate import iterate
from prom.learn.polish import improve
from prom.learn.recipes import DEFAULT, Recipe
from prom.learn.start import refuse_what_fails, start
from prom.learn.steps import STEP_RULES
from prom.masks import MaskResult, bernoulli, provenance
from prom.masks.demands import Demands
from prom.masks.schedules import linear
from prom.options import check_seed
from prom.problem import Problem
from prom.reconstruction.zero_filled import Reconstruction


@torch.inference_mode(False)
@torch.enable_grad()
def optimize(
    data: SliceDataset | Tensor | np.ndarray,
    acceleration: float,
    pattern: str = "points",
    recipe: Recipe = DEFAULT,
    objective: str | objectives.ImageCriterion | objectives.Objective = "magnitude_mse",
    seed: int = 0,
    device: str = "auto",
    callback: Callable[[int, Tensor], None] | None = None,
    reconstruction: str | Reconstruction | None = None,
    demands: Demands | None = None,
    checkpoint: str | os.PathLike | None = None,
    **named: object,
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
        has been made of these data. With a ``reconstruction``: "magnitude_mse" or "magnitude_psnr", of its image.
    seed
        Same seed, same machine: same bits.
    device
        "cpu", "cuda", or "auto": CUDA where there is one. An objective that is made already stays on its own.
    callback
        Called as ``callback(iteration, theta)`` after every iteration, for figures. A run that is watched is not repeated.
    reconstruction
        What makes the image of the samples of all coils (without coils: of one that is 1 everywhere): "sense", "wavelet" or "tv", made
        of the data for a typical mask of this acceleration, or an object (:mod:`prom.reconstruction`). By default zero-filling of the
        images, as if one coil had measured them.
    demands, named
        What the scanner demands of the mask: :class:`prom.masks.demands.Demands`, or its fields by name, such as ``calibration=24``.
    checkpoint
        A file that the state goes to once a minute. Where it exists, the optimisation goes on from it, to the same bits; polishing, and
        the second run with DC, start again. It stays: remove it when the mask is saved.

    Returns
    -------
    MaskResult
        Mask (Eq. 8; where the recipe polishes, improved from there), probabilities, history and provenance. Where a recipe with curvature
        ends without DC, it is run again with ``calibration=1``, and the mask of the lower training loss is the result; its provenance says
        so.

    Raises
    ------
    InputError
        Where the data, the acceleration, a name or the device cannot be used, demands cannot be met, the loss is not finite, or the
        checkpoint is damaged or of something else.

    >>> from dataclasses import replace
    >>> result = optimize(torch.rand(2, 16, 16), acceleration=4, recipe=replace(DEFAULT, iterations=20))
    >>> result.mask.shape, int(result.mask.sum())
    (torch.Size([16, 16]), 64)
    >>> result = optimize(torch.rand(2, 16, 16), 4, "columns", recipe=replace(DEFAULT, iterations=20), calibration=2, max_gap=6)
    >>> int(result.mask[0].sum()), bool(result.mask[:, 7:9].all())
    (4, True)
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe {str(recipe)[:40]!r}: must be a Recipe, e.g. prom.DEFAULT or prom.PAPER")
    demands = Demands.of(demands, named)
    problem, seed = Problem.of(data, acceleration, pattern, objective, device, reconstruction, demands), check_seed(seed)
    if checkpoint is None:
        return learn(problem, recipe, seed, callback)
    kept = Checkpoint(checkpoint, problem, recipe, seed)
    result = learn(problem, recipe, seed, callback, kept)
    return replace(result, provenance=result.provenance | {"seconds_before": round(kept.before, 2)}) if kept.before else result


@spread()
def learn(
    problem: Problem,
    recipe: Recipe = DEFAULT,
    seed: int = 0,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> MaskResult:
    """Algorithm 1, for a problem that has been made already; again with DC demanded, where curvature has lost it and the loss falls so."""
    result = descend(problem, recipe, seed, callback, checkpoint)
    again = centre.demanded(problem, result.mask) if recipe.curvature and callback is None else None
    if again is None:
        return result
    other, images = descend(again, recipe, seed), range(len(problem.data))
    losses = [objectives.whole_loss(problem.objective, images, one.mask.float().to(problem.device)) for one in (result, other)]
    if not losses[1] < losses[0]:
        return result
    return replace(other, recipe=result.recipe, provenance=other.provenance | {"centre": "learnt again with DC demanded"})


def descend(
    problem: Problem,
    recipe: Recipe,
    seed: int,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> MaskResult:
    """Algorithm 1, once."""
    refuse_what_fails(problem, recipe)
    generator = torch.Generator(problem.device).manual_seed(seed)
    history, solutions, feasible = History(problem, recipe, callback), [], problem.feasible
    kept = checkpoint.read() if checkpoint else None
    for member in range(kept.member if kept else 0, recipe.members):
        fresh, done = member == 0 or recipe.independent_members, 0
        if fresh or kept:
            theta = start(problem, recipe, generator)  # U(0, 1), section 4
            step = STEP_RULES[recipe.step_rule](recipe, theta, problem.acceleration)
            move = replayed(partial(iterate, problem, step, recipe, generator), generator, problem.replayable)
        batches = ShuffledBatches(len(problem.data), recipe.batch_size, generator)
        if kept:
            kept.restore(generator, step=step, batches=batches, history=history)
            theta, solutions, done, kept = kept.theta, list(kept.solutions), kept.done, None
        for iteration in range(done, recipe.iterations):
            progress = iteration / max(recipe.iterations - 1, 1)
            tau = linear(progress, recipe.tau_start, recipe.tau_end)
            budget = feasible.annealed(progress if fresh else 1.0, *recipe.phases)  # A.1
            theta, measured = move(theta, next(batches), tau, budget)
            history.add(member, iteration, budget * len(feasible.parts), measured, theta)
            if checkpoint and checkpoint.due:
                place = Kept(member, iteration + 1, theta, torch.stack(solutions) if solutions else theta[:0])
                checkpoint.write(place, generator, step=step, batches=batches, history=history)
        solutions.append(feasible.project(theta))  # feasible whatever the order of step and projection
    table, theta = history.table(), bernoulli.average(solutions).cpu()
    mask = problem.pattern.forward(feasible.round(theta)).contiguous()  # Eq. 8
    if recipe.polish:
        mask = improve(mask, problem, recipe.polish, hold_out=recipe.hold_out)
    probabilities = problem.pattern.forward(theta).contiguous()
    made = provenance(problem.data, problem.objective.describe(), problem.device)
    settings = {**recipe.as_dict(), **({} if problem.demands.plain else {"demands": problem.demands.as_dict()})}
    chosen = mask, probabilities, theta, problem.pattern.name, problem.acceleration
    return MaskResult(*chosen, settings, seed, table, made, problem.data.trajectory)
