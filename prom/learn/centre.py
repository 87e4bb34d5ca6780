"""The centre of k-space, which an optimisation can lose, and then does not find again."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from prom.errors import InputError
from prom.kspace.patterns import Readouts
from prom.problem import Problem


def demanded(problem: Problem, mask: Tensor) -> Problem | None:
    """The same problem with DC demanded, where a frame of ``mask`` has none; None where all have it, or it cannot be demanded.

    Without DC an image is so far off that no other sample matters, nor does the gradient of DC, and the curvature drives its probability
    down. This can happen where objects fill the field of view.

    >>> import torch
    >>> problem = Problem.of(torch.rand(2, 8, 8), acceleration=4)
    >>> found = demanded(problem, torch.eye(8).roll(1, 0).bool())
    >>> found.feasible.mandatory.nonzero().tolist(), demanded(problem, torch.eye(8).bool())
    ([[4, 4]], None)
    """
    lines = problem.pattern
    if isinstance(lines, Readouts) or problem.demands.calibration:
        return None
    kept = mask if lines.frames else mask[None]
    if bool(kept[(slice(None), *(n // 2 for n in kept.shape[1:]))].all()):
        return None
    try:
        demands = replace(problem.demands, calibration=1)
        return replace(problem, demands=demands, feasible=demands.feasible(lines, problem.acceleration))
    except InputError:  # such as where it is forbidden
        return None
