"""Exchange of lines: leave one out, and replace it with the line by which the loss without it falls most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.learn.polish import RELATIVE_TOLERANCE
from prom.masks import as_mask
from prom.masks.demands import Demands
from prom.objectives import Objective, evenly, whole_loss, whole_set
from prom.objectives.reconstructed import Reconstructed
from prom.problem import Problem

SCREENING_IMAGES = 64  # images on which an exchange is tried before all of them
CANDIDATES = 4  # lines that are tried in the place of one: the derivative shows which are promising, and not which is best


def exchange(
    mask: Tensor,
    objective: Objective,
    seen: Sequence[int],
    pattern: str = "columns",
    held: Sequence[int] = (),
    demands: Demands | None = None,
) -> Tensor:
    r"""Improve a mask of few lines by exchanging one at a time, until none of those that are tried helps. The loss never rises.

    Each line of the mask in turn is left out, from the centre of k-space outwards. Of the others, those four are tried in its place whose
    derivatives without it, over at most 64 of the images, are the most negative, and the first by which the loss truly falls, on these, on
    all that are ``seen`` and on those ``held``, is kept. That is a step of
    :func:`prom.baselines.rivals.igs` for each line of the mask, in the way of Fedorov's exchange of the points of an experiment
    ("Theory of Optimal Experiments", 1972).

    Why not :func:`prom.polish`: it predicts a removal from a second derivative that is proportional to the power, so that it never tries
    one of the strongest lines. In real images a network can do without them: the opposite line measures the same (chapter 5).

    Parameters
    ----------
    mask
        ``(H, W)`` bool, centred, of whole lines.
    objective
        On its images.
    seen
        Indices of the images whose mean loss is to fall.
    pattern
        "columns" or "rows". Points are too many: a round has as many steps as the mask has points.
    held
        Indices of images whose mean loss must fall as well.
    demands
        Which the mask meets, and still meets after every exchange.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, as many lines as in ``mask``. Nothing is random.

    Raises
    ------
    InputError
        Where the pattern is not one of lines, or the mask does not fit the data, is not made of whole lines or does not meet the demands.

    >>> from prom.objectives import MagnitudeMSE
    >>> images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> outer = torch.zeros(8, 8, dtype=torch.bool)
    >>> outer[:, :2] = True
    >>> exchange(outer, MagnitudeMSE(images), range(4))[0].int()     # the centre, and another line
    tensor([0, 0, 0, 1, 1, 0, 0, 0], dtype=torch.int32)
    """
    if pattern == "points":
        raise InputError("pattern 'points': exchange is for columns and rows; use prom.polish")
    if not isinstance(objective, Objective):
        raise InputError(f"objective {objective!r}: must be one that has its images, as prom.objectives.MagnitudeMSE(images)")
    images = objective.data.images
    seen, held = (_numbers(name, indices, len(images)) for name, indices in (("seen", seen), ("held", held)))
    if not seen:
        raise InputError("seen: are no images; name one at least")
    subjects = [str(i) for i in range(len(images))]
    own = isinstance(objective, Reconstructed)  # which has coils and noise too
    data = objective.dataset if own else SliceDataset("images", "all", images, subjects, [0] * len(images))
    mask = mask if isinstance(mask, Tensor) else as_mask(mask, data.grid, data.name)
    return exchange_lines(mask, Problem.around(mask, data, pattern, objective, demands=demands), seen, held)


def _numbers(name: str, indices: Sequence[int], count: int) -> list[int]:
    try:
        listed = list(indices.tolist() if isinstance(indices, Tensor | np.ndarray) else indices)
    except TypeError:  # a single number
        listed = [None]
    found = [one.item() if isinstance(one, Tensor) and not one.ndim else one for one in listed]
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | np.integer) or not 0 <= one < count:
            raise InputError(f"{name} {indices if one is None else one}: must be numbers of images, from 0 to {count - 1}")
    return found


def exchange_lines(mask: Tensor, problem: Problem, seen: Sequence[int], held: Sequence[int] = ()) -> Tensor:
    """:func:`exchange`, for a problem that has been made already."""
    lines, objective, feasible, seen = problem.pattern, problem.objective, problem.feasible, list(seen)
    if len(lines.shape) > 1:
        raise InputError(f"pattern {lines.name}: exchange is for lines along one axis, the same in all frames; use prom.polish")
    few = [seen[place] for place in evenly(len(seen), SCREENING_IMAGES)]
    selected = lines.select(mask).to(problem.device)

    groups = [images for images in (few if len(few) < len(seen) else [], seen, list(held)) if images]
    losses = [whole_loss(objective, images, lines.forward(selected.float())) for images in groups]

    def accepts(candidate: Tensor) -> bool:
        """Go on from this mask if it is better, and return whether it is."""
        nonlocal selected, losses
        new = []
        for images, loss in zip(groups, losses, strict=True):
            new.append(whole_loss(objective, images, lines.forward(candidate.float())))
            if not loss - new[-1] > RELATIVE_TOLERANCE * abs(new[-1]):  # decibels are negative
                return False
        selected, losses = candidate, new
        return True

    leavable = selected if feasible.mandatory is None else selected & ~feasible.mandatory.to(selected.device)
    waiting = sorted(leavable.nonzero().flatten().tolist(), key=lambda line: abs(line - lines.size // 2))  # from the centre outwards
    refused = 0
    bar = tqdm(desc=f"exchange {len(waiting)} {lines.name}", disable=None, leave=False)
    while refused < len(waiting):
        leaving = waiting.pop(0)
        without = _with(selected, leaving, False)
        gradient = lines.adjoint(whole_set(objective, few, lines.forward(without.float()))[1])
        order = torch.where(selected, torch.inf, gradient).argsort(stable=True)[: int((~selected).sum())].tolist()
        allowed = (line for line in order if feasible.plain or feasible.admits(_with(without, line, True)))
        taken = next((line for line in islice(allowed, CANDIDATES) if accepts(_with(without, line, True))), leaving)
        waiting.append(taken)
        refused = refused + 1 if taken == leaving else 0
        bar.update()
    bar.close()
    return lines.forward(selected.cpu()).contiguous()


def _with(selected: Tensor, line: int, measured: bool) -> Tensor:
    changed = selected.clone()
    changed[line] = measured
    return changed
