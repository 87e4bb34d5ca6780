"""One mask for all frames of a series."""

from __future__ import annotations

from torch import Tensor

from prom.baselines.frames import repeat, series
from prom.baselines.repulsion import repulsion
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.masks.demands import Demands


def repeated(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "still-columns",
    seed: int = 0,
    strength: float | None = None,
    demands: Demands | None = None,
) -> Tensor:
    """The best mask for single frames, in every frame: :func:`prom.baselines.repulsion.repulsion` of all frames as slices.

    It knows nothing of time, other than :func:`prom.baselines.repulsion.repulsion` with the same pattern, whose spectrum is one over
    temporal frequencies too.
    Its strength is that which serves SENSE of single frames best, as there.

    Returns
    -------
    Tensor
        ``(T, H, W)`` bool, centred, in every frame the same floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where the data are no series, or the pattern is not "still-points", "still-columns" or "still-rows".

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 2, 1, 8), ["a"], [0], kind="series")
    >>> repeated(data, 8)[:, 0].int().tolist()
    [[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]]
    """
    lines = series("repeated", train, pattern)
    if lines.apart:
        raise InputError(f"repeated: has the same {pattern} in every frame; use pattern still-{pattern}")
    return repeat(repulsion, train, acceleration, pattern, seed, strength=strength, demands=demands)
