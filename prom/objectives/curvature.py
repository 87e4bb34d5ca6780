"""The second derivative of a loss that has no formula for it: taken as proportional to the mean power spectrum, and measured once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.errors import InputError
from prom.objectives.contract import Objective, whole_set
from prom.objectives.measurements import CURVATURE_IMAGES, evenly


def near(objective: Objective, mask: Tensor, slices: int = 256) -> Tensor:
    r"""Curvature h of an objective near a mask, ``(H, W)``: :math:`h_i = c P_i`, one number c measured, P the mean power spectrum.

    For a squared error, phases averaged out, h *is* proportional to P (:attr:`prom.objectives.MagnitudeMSE.curvature`). For any other loss
    it is a model; but some curvature is needed: to first order alone the lowest frequencies, whose gradient is the largest, look like the
    best ones to leave out. Recipes with ``curvature=True`` use it where the objective was made with ``near=mask``.

    Parameters
    ----------
    objective
        An objective on its data.
    mask
        ``(H, W)`` bool, centred, with samples in it: where c is measured, by leaving out its weakest tenth (of fewer samples, single
        images decide about the sign). A sensible mask of the acceleration that is wanted, as :func:`prom.baselines.energy` makes it.
    slices
        For c, at most so many slices, evenly spaced, are used, 1 at least; for P up to 2048.

    Raises
    ------
    InputError
        Where the mask is empty, of another size, or has other values than 0 and 1.

    >>> from prom.objectives import ImageLoss
    >>> objective = ImageLoss(torch.rand(4, 1, 8, 8), torch.nn.functional.mse_loss)
    >>> near(objective, torch.ones(8, 8).bool()).shape
    torch.Size([8, 8])
    """
    options.check("slices", slices, "[1, 1e9]", whole=True)
    if not isinstance(mask, Tensor | np.ndarray) or isinstance(mask, np.ma.MaskedArray):
        raise InputError(f"mask of type {type(mask).__name__}: must be an array of 0 and 1")
    if mask.is_complex() if isinstance(mask, Tensor) else mask.dtype.kind not in "biuf":
        raise InputError(f"mask of {mask.dtype}: must have 0 and 1 only")
    mask = mask.double() if isinstance(mask, Tensor) else torch.from_numpy(mask.astype(np.float64))
    if tuple(mask.shape) != objective.data.samples or not mask.any():
        raise InputError(f"mask of {tuple(mask.shape)} with {mask.sum():g} samples: must have some, on {objective.data.samples}")
    selected = mask.bool()
    if not (mask == selected).all():
        raise InputError(f"mask with the value {mask[mask != selected][0]:g}: must have 0 and 1 only")
    power = objective.data.power(most=CURVATURE_IMAGES)
    chosen = evenly(len(objective.data), slices)

    def evaluate(selected: Tensor) -> tuple[float, Tensor]:
        return whole_set(objective, chosen, selected.to(power))

    selected = selected.to(power.device)
    return power * measure_scale(evaluate, selected, *evaluate(selected), power, part=10)


def measure_scale(
    evaluate: Callable[[Tensor], tuple[float, Tensor]], selected: Tensor, loss: float, gradient: Tensor, power: Tensor, part: int = 100
) -> float:
    """c of h = c P, from the true change of the loss without the weakest samples, one in ``part``; ``evaluate`` gives loss and gradient."""
    weakest = torch.where(selected, power, torch.inf).flatten().argsort(stable=True)[: max(1, int(selected.sum()) // part)]
    without = selected.flatten().clone()
    without[weakest] = False
    change = evaluate(without.reshape(selected.shape))[0] - loss
    total = float(power.flatten()[weakest].sum())
    return max(0.0, 2 * (change + float(gradient.flatten()[weakest].sum())) / total) if total > 0 else 0.0
