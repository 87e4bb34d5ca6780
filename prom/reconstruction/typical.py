"""A mask to choose a reconstruction's numbers with, where the mask itself is still to be learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.datasets.base import SliceDataset
from prom.reconstruction.sense import mean_power


def typical(train: SliceDataset, acceleration: float, pattern: str = "points") -> Tensor:
    """Points or lines drawn one after another, with a density as the square root of the mean power spectrum: ``(H, W)`` bool.

    The same data give the same mask. Exactly floor(D / alpha) points or lines; of readouts off the grid all are alike.

    Raises
    ------
    InputError
        Where the pattern is not known, or the acceleration is out of range.

    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0])
    >>> int(typical(data, acceleration=4).sum()), int(typical(data, acceleration=4, pattern="columns")[0].sum())
    (16, 2)
    """
    lines = train.choices(pattern)
    density = (lines.adjoint(mean_power(train)) if train.trajectory is None else torch.ones(lines.shape, dtype=torch.float64)).sqrt()
    density = density.clamp(min=1e-12 * density.max())
    drawn = torch.rand(density.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = (drawn.log() / density).flatten().argsort(descending=True)  # Efraimidis and Spirakis 2006
    chosen = torch.zeros(lines.size, dtype=torch.bool)
    chosen[order[: lines.budget(acceleration)]] = True
    return lines.forward(chosen.reshape(lines.shape)).contiguous()
