"""How good a mask is on a data set: the reconstruction of every slice, scored against the fully sampled one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.datasets.units import unit
from prom.errors import InputError, unknown
from prom.evaluation import metrics
from prom.masks import as_mask
from prom.reconstruction.zero_filled import Reconstruction, image_of, undersample

CHUNK = 2**17  # pixels reconstructed at once, 2 slices of 256 x 256, which stay in the cache of a CPU


def evaluate(
    mask: Tensor | np.ndarray, dataset: SliceDataset, convention: str = "paper", reconstruction: Reconstruction | None = None
) -> pd.DataFrame:
    """Score a mask: one row per slice ("paper") or per volume ("fastmri", where ``slice`` is the number of slices averaged over).

    Parameters
    ----------
    mask
        ``(*samples)``: ``(H, W)``, of series ``(T, H, W)``; centred, bool or 0 and 1 in any type.
    dataset
        Slices, volumes or series of the same size, in any unit. Complex images are compared by magnitude.
    convention
        ``"paper"`` or ``"fastmri"``; see :mod:`prom.evaluation.metrics`. A volume of ``"fastmri"`` is all slices of a subject that are
        loaded: where these are of several scans, or not all of one, its peak and its mean are not the benchmark's.
    reconstruction
        What makes the image of the samples of all coils, e.g. :func:`prom.reconstruction.named` of the training data, or
        :class:`prom.reconstruction.through.Through` a network; by default the zero-filled image of ``dataset.images``, as if they had
        been measured with one coil.

    Returns
    -------
    pandas.DataFrame
        Columns ``subject, slice, psnr`` (dB)``, ssim, nmse``.

    Raises
    ------
    InputError
        Where sizes differ, the mask has other values than 0 and 1, the convention is unknown, or a slice, or with fastmri a volume, is
        constant (its PSNR is not defined).

    >>> data = SliceDataset("demo", "test", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> evaluate(torch.ones(16, 16, dtype=torch.bool), data).columns.tolist()
    ['subject', 'slice', 'psnr', 'ssim', 'nmse']
    """
    if not isinstance(dataset, SliceDataset):
        raise InputError(f"data of type {type(dataset).__name__}: must be a data set; prom.load reads one, and SliceDataset makes one")
    if convention not in metrics.CONVENTIONS:
        raise unknown("convention", convention, metrics.CONVENTIONS)
    if convention == "fastmri" and dataset.kind != "slices":
        raise InputError(f"convention fastmri: is of volumes of slices, and {dataset.name} has {dataset.kind}; use the paper's")
    check_masked(dataset, reconstruction)
    mask = as_mask(mask, dataset.grid, dataset.name)
    subjects, slices = list(dataset.subjects), list(dataset.slices)
    members: dict[str, list[int]] = {}
    for index, subject in enumerate(subjects):
        members.setdefault(subject, []).append(index)
    fastmri = convention == "fastmri"
    step = max(1, CHUNK // dataset.images[0].numel())
    chunks = [list(range(start, min(start + step, len(dataset)))) for start in range(0, len(dataset), step)]
    groups = list(members.values()) if fastmri else chunks
    parts = []
    for group in tqdm(groups, desc=f"evaluate {dataset.name}", disable=None, leave=False):
        target = dataset.images[group].to(mask.device)
        scale = unit(target.abs().amax(dim=tuple(range(0 if fastmri else 1, target.ndim)), keepdim=True))
        if reconstruction is None:
            prediction = undersample(target / scale, mask, dataset.axes)
        else:
            prediction = reconstructed(dataset, group, mask, reconstruction, scale)
        target = (target / scale).abs()
        _refuse_constant(target.flatten()[None] if fastmri else target, dataset, group)  # of a volume a slice may be empty
        scores = (metrics.fastmri_scores if fastmri else metrics.paper_scores)(prediction, target)
        parts.append(pd.DataFrame({name: score.cpu().numpy() for name, score in scores.items()}))
    scores = pd.concat(parts, ignore_index=True)
    who = {"subject": list(members), "slice": [len(group) for group in groups]} if fastmri else {"subject": subjects, "slice": slices}
    return pd.concat([pd.DataFrame(who), scores], axis=1)


def check_masked(dataset: SliceDataset, reconstruction: Reconstruction | None) -> None:
    """Raise InputError for the name of a reconstruction, which is made of training data, and where there is none though masks are of
    readouts off the grid: zero-filling would take them for rows."""
    if isinstance(reconstruction, str):
        raise InputError(f"reconstruction {reconstruction!r}: is made of training data; give prom.reconstruction.named(name, train)")
    if reconstruction is None and dataset.trajectory is not None:
        raise InputError(f"{dataset.name}: its readouts are off the grid, and zero-filling is for grids; give a reconstruction, e.g. sense")


@torch.no_grad()
def reconstructed(
    dataset: SliceDataset, group: Sequence[int], mask: Tensor, reconstruction: Reconstruction, scale: Tensor | float = 1.0
) -> Tensor:
    """Magnitudes ``(n, 1, *shape)`` of these entries, from the samples of all coils under a mask, all divided by ``scale``.

    ``mask`` is ``(*samples)``, or ``(n, 1, *samples)``, one for each; ``scale`` a number, or a tensor that broadcasts against the result.

    >>> from prom.reconstruction.zero_filled import ZeroFilled
    >>> data = SliceDataset("demo", "test", torch.rand(2, 1, 4, 4), ["a", "b"], [0, 0])
    >>> torch.allclose(reconstructed(data, [1], torch.ones(4, 4), ZeroFilled(), scale=2.0), data.images[1:] / 2, atol=1e-6)
    True
    """
    encoding = dataset.encoding(group, mask.device)
    samples, shape = dataset.samples(group).to(mask.device) / scale, (len(group), *dataset.shape)
    return image_of(reconstruction, samples, mask, encoding, shape)[0].abs().unsqueeze(1)


def _refuse_constant(target: Tensor, dataset: SliceDataset, group: list[int]) -> None:
    constant = (target.flatten(1).amax(dim=1) == target.flatten(1).amin(dim=1)).nonzero().flatten()
    if len(constant):
        raise InputError(f"{dataset.describe(group[int(constant[0])])}: is constant, so its PSNR is not defined; leave it out")
