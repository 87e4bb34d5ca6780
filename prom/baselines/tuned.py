"""Tuning: of several settings of a baseline that which serves a few training slices best through a reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.objectives import whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import Reconstruction


def tuned(
    make: Callable[..., Tensor],
    settings: Sequence[Mapping[str, object]],
    train: SliceDataset,
    reconstruction: Reconstruction | None = None,
    slices: int = 8,
) -> tuple[Tensor, Mapping[str, object]]:
    """The mask, and its setting, with the highest mean PSNR of the magnitude over training slices; of equal ones the first.

    Parameters
    ----------
    make
        The mask of a setting, ``make(**setting)``: ``(H, W)`` bool, such as ``functools.partial(baselines.gaussian, train, 8)``.
    settings
        Those that are tried, at least one.
    train
        The slices that choose.
    reconstruction
        By default :meth:`prom.reconstruction.sense.Sense.of` these slices, all of them.
    slices
        At most so many choose, spread evenly, those left out that are the same everywhere.

    Raises
    ------
    InputError
        Where there is no setting, or the noise is not known, which SENSE needs.

    >>> import torch
    >>> from functools import partial
    >>> from prom.baselines.densities import gaussian
    >>> bump = torch.hann_window(16).outer(torch.hann_window(16))
    >>> data = SliceDataset("demo", "train", bump[None, None], ["a"], [0], noise=0.1)
    >>> mask, setting = tuned(partial(gaussian, data, 32), [{"sigma": 9.0}, {"sigma": 0.5}], data)
    >>> setting, bool(mask[8, 8])                                       # a smooth image is near DC
    ({'sigma': 0.5}, True)
    """
    if not settings:
        raise InputError("settings: are none; give at least one")
    few = (_shaped(train.thinned(slices)) or _shaped(train) or train).thinned(slices)
    objective = Reconstructed(few, reconstruction or Sense.of(train), criterion="psnr")
    masks, losses = [], []
    for setting in tqdm(settings, desc="tuning", delay=2, disable=None, leave=False):
        masks.append(make(**setting))
        losses.append(float(whole_loss(objective, range(len(few)), masks[-1].float())))
    best = losses.index(min(losses))
    return masks[best], settings[best]


def _shaped(data: SliceDataset) -> SliceDataset | None:
    """Without entries that are the same everywhere, as slices of air: they have no PSNR. None where all are."""
    kept = [index for index, image in enumerate(data.images) if float(image.abs().max()) > float(image.abs().min())]
    return data if len(kept) == len(data) else data.select(kept) if kept else None
