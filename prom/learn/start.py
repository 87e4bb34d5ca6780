"""Where an optimisation begins, and what it cannot begin with."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.datasets.base import SliceDataset
from prom.engine import distributed
from prom.errors import InputError
from prom.learn.recipes import Recipe
from prom.objectives import CURVATURE_IMAGES, Measurements
from prom.problem import Problem


def start(problem: Problem, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """theta of the pattern's shape: U(0, 1) (section 4), or evenly from 0 to 1 in the order of the mean power spectrum."""
    theta = torch.rand(problem.pattern.shape, generator=generator, dtype=torch.float32, device=problem.device)
    if recipe.initialisation == "energy":
        return energy_order(problem.pattern.adjoint(mean_power(problem.data, problem.device)))
    return theta


def mean_power(data: SliceDataset, device: torch.device | str) -> Tensor:
    """The mean power spectrum of the images, or off the grid that of the samples, over coils, of at most ``CURVATURE_IMAGES`` entries.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 2, 2), ["a", "b"], [0, 0])
    >>> mean_power(data, "cpu").tolist()
    [[0.0, 0.0], [0.0, 4.0]]
    """
    if data.trajectory is None:
        return Measurements(data.images, device, keep=False, axes=data.axes).power(most=CURVATURE_IMAGES)
    some = data.thinned(CURVATURE_IMAGES)
    power = sum(some.samples([index])[0].abs().square().sum(dim=0) for index in range(len(some)))
    return (power / len(some)).to(device)


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
        wrong = "small" if images.unit < 1 else "large"
        raise InputError(
            f"{problem.data.name}: has values of up to {2 * images.unit:.0e}, too {wrong}, where Adam fails; use recipe default, or the "
            "option scale"
        )
    if recipe.hold_out:
        problem.data.held_out(recipe.hold_out, "hold_out")  # polishing, hours later, would
    most = min(recipe.batch_size, len(images))
    if distributed.size() > most:
        raise InputError(f"{distributed.size()} processes: a batch has {most} images; start no more than one process for each")
