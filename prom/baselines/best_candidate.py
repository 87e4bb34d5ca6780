"""Best-candidate sampling: samples as far apart as the coils' pair weights ask for, whatever the image's spectrum."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from prom.baselines.densities import central
from prom.baselines.frames import one_frame
from prom.baselines.repulsion import REACH_SLICES, reach
from prom.datasets.base import SliceDataset
from prom.kspace.fourier import offsets
from prom.masks.demands import Demands, allowed
from prom.objectives import evenly

STEP = 2.0**-30  # to which weights are rounded, so that sums are exact, and equal ones are equal on every processor


@one_frame(instead="repulsion")
def best_candidate(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    centre_share: float = 0.25,
    demands: Demands | None = None,
) -> Tensor:
    r"""Best-candidate sampling: one sample after another, the one of least :math:`\sum_{j \in m} K(i - j)`, around a full centre.

    K is the weight of a pair of samples (:func:`prom.baselines.repulsion.reach`), so that each adds the least to
    :math:`\sum_{ij \in m} K(i - j)`, which is the sum of the squared eigenvalues of :math:`E^H W E` up to a factor, while the sum of the
    eigenvalues is the same for all masks of this size: their spread is kept small. Levine and Hargreaves, arXiv 1710.07837, Section "best
    candidate"; the exact variant of their code (evanlev/dda-sampling), where the weights are not cut off.

    Differences: theirs has no centre, which an image's spectrum needs; and of equal sums they take the first in memory, this the nearest
    to DC. The mean power spectrum is not used, so this is what :func:`prom.baselines.repulsion` is without it. With one even coil all
    samples but those taken are equal, and this is :func:`prom.baselines.low_pass`. Nothing is random; ``seed`` is not used.

    Parameters
    ----------
    train
        Slices with ``sensitivities`` (K is the mean over those of at most 16 slices).
    centre_share
        Share of the budget, from 0 to 1, that is spent on the samples (or lines) nearest to DC.
    demands
        What is mandatory comes first; then the best of those candidates that leave the rest possible.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where the share is not from 0 to 1, or the acceleration is out of range.

    >>> import torch
    >>> maps = torch.tensor([[1, 0] * 4, [0, 1] * 4])[:, None].to(torch.complex64)      # samples 4 apart tell of each other
    >>> image = torch.ones(1, 1, 1, 8, dtype=torch.complex64)
    >>> data = SliceDataset("demo", "train", image, ["a"], [0], sensitivities=maps)
    >>> best_candidate(data, acceleration=2, pattern="columns", centre_share=0.25)[0].nonzero().flatten().tolist()
    [2, 3, 4, 5]
    """
    lines = train.lines(pattern)
    feasible = allowed(lines, acceleration, demands)
    taken = feasible.fitting(central(lines, acceleration, centre_share))
    kernel = (reach(train.maps(evenly(len(train), REACH_SLICES)), lines).numpy() / STEP).round() * STEP
    twice = np.tile(kernel, (2,) * kernel.ndim)  # k-space is periodic, as the transform is

    def around(place: tuple[int, ...]) -> np.ndarray:
        starts = [(n // 2 - at) % n for n, at in zip(lines.shape, place, strict=True)]
        return twice[tuple(slice(start, start + n) for start, n in zip(starts, lines.shape, strict=True))]

    order = offsets(lines.shape).square().sum(dim=-1).flatten().argsort(stable=True).numpy()
    sums = sum((around(place) for place in np.argwhere(taken.numpy())), np.zeros(lines.shape))
    for _ in range(feasible.count - int(taken.sum())):
        free = np.where(feasible.open(taken).numpy(), sums, np.inf).ravel()[order]
        place = np.unravel_index(order[free.argmin()], lines.shape)
        taken[place] = True
        sums += around(place)
    return lines.forward(taken).contiguous()
