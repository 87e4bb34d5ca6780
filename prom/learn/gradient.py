"""The gradient of the expected loss (Eq. 2), estimated from drawn masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from prom.engine import distributed
from prom.engine.device import asynchronous
from prom.engine.threads import added, parallel
from prom.learn.recipes import Recipe
from prom.masks import bernoulli
from prom.problem import Problem


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
        """The masks of all images, drawn at once; each process keeps those of its own images."""
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
            by_mask = torch.addcmul(by_mask, 0.5 - masks, curvature, value=1 / masks.shape[: -len(pattern.samples)].numel())
        gradient = bernoulli.pull_back(pattern.adjoint(by_mask).flatten(-theta.ndim), slope)
        return loss, gradient, hard.mean()

    mine = distributed.share(batch)
    if recipe.shared_mask:
        groups = [(mine, partial(draw, generator))]
    elif asynchronous(theta):
        groups = [(mine, draw_batch)]
    else:  # a seed for every image, so that it gets the same masks whichever process or thread works on it
        seeds = torch.randint(2**63 - 1, (len(batch),), generator=generator).tolist()
        sources = [torch.Generator().manual_seed(seed) for seed in distributed.share(seeds)]
        groups = [([image], partial(draw, source)) for image, source in zip(mine, sources, strict=True)]
    parts = parallel(of_group, groups) if objective.concurrent else [of_group(group) for group in groups]
    part = len(groups[0][0]) / len(batch)  # groups are of one size
    loss, gradient, active = distributed.total(*(added(sums).mul_(part) for sums in zip(*parts, strict=True)))
    loss = loss.where(gradient.isfinite().all() | loss.isinf(), torch.nan)  # a step would hide it
    return loss, gradient.reshape(pattern.shape), active
