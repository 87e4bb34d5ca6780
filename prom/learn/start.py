"""Where an optimisation begins, and what it cannot begin with."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.engine import distributed
from prom.errors import InputError
from prom.learn.recipes import Recipe
from prom.objectives import CURVATURE_IMAGES
from prom.problem import Problem


def start(problem: Problem, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """theta of the pattern's shape: U(0, 1) (section 4), or evenly from 0 to 1 in the order of the mean power spectrum."""
    theta = torch.rand(problem.pattern.shape, generator=generator, device=problem.device)
    if recipe.initialisation == "energy":
        return energy_order(problem.pattern.adjoint(problem.objective.data.power(most=CURVATURE_IMAGES)))
    return theta


def energy_order(power: Tensor) -> Tensor:
    """Probabilities evenly spaced on (0, 1], as of a uniform distribution, in the order of the power.

    >>> energy_order(torch.tensor([5.0, 1.0, 9.0, 2.0]))
    tensor([0.7500, 0.2500, 1.0000, 0.5000])
    """
    return (power.flatten().argsort().argsort().reshape(power.shape) + 1.0) / power.numel()


def refuse_what_fails(problem: Problem, recipe: Recipe) -> None:
    """Raise an error at once where Adam would fail, or a process would have no image.

    Raises
    ------
    InputError
        With the way out.
    """
    images = problem.objective.data
    if problem.objective.loss_unit != 1 and recipe.step_rule == "adam":
        raise InputError(
            f"{problem.data.name}: has values up to {images.unit:.0e}, where Adam fails; use recipe default, or the option scale"
        )
    most = min(recipe.batch_size, len(images))
    if distributed.size() > most:
        raise InputError(f"{distributed.size()} processes: a batch has {most} images; start no more than one process for each")
