"""One iteration of Algorithm 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prom.learn.gradient import expected_gradient
from prom.learn.recipes import Recipe
from prom.problem import Problem


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
    """Gradient, step and projection: the next theta, and the loss with the share of active mask entries, ``(2,)``."""
    if not recipe.project_after_step:
        theta = problem.feasible.project(theta, budget)
    loss, gradient, active = expected_gradient(problem, batch, theta, tau, recipe, generator)  # Eq. 2
    theta = step(theta, gradient)
    if recipe.project_after_step:
        theta = problem.feasible.project(theta, budget)  # Eq. 6, 7
    return theta, torch.stack([loss, active])
