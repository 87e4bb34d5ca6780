"""How good a mask is on a data set: zero-filled reconstruction of every slice, scored against the fully sampled one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.datasets.units import unit
from prom.errors import InputError, unknown
from prom.evaluation import metrics
from prom.masks import as_mask
from prom.reconstruction.zero_filled import undersample

CHUNK = 2**17  # pixels reconstructed at once, 2 slices of 256 x 256, which stay in the cache of a CPU


def evaluate(mask: Tensor | np.ndarray, dataset: SliceDataset, convention: str = "paper") -> pd.DataFrame:
    """Score a mask: one row per slice ("paper") or per volume ("fastmri", where ``slice`` is the number of slices averaged over).

    Parameters
    ----------
    mask
        ``(H, W)``, centred, bool or 0 and 1 in any type.
    dataset
        Slices of the same size, in any unit. Complex images are compared by magnitude.
    convention
        ``"paper"`` or ``"fastmri"``; see :mod:`prom.evaluation.metrics`.

    Returns
    -------
    pandas.DataFrame
        Columns ``subject, slice, psnr`` (dB)``, ssim, nmse``.

    Raises
    ------
    InputError
        Where sizes differ, the mask has other values than 0 and 1, the convention is unknown, or a slice is constant (its PSNR is not
        defined).

    >>> import torch
    >>> data = SliceDataset("demo", "test", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> evaluate(torch.ones(16, 16, dtype=torch.bool), data).columns.tolist()
    ['subject', 'slice', 'psnr', 'ssim', 'nmse']
    """
    if convention not in metrics.CONVENTIONS:
        raise unknown("convention", convention, metrics.CONVENTIONS)
    mask = as_mask(mask, dataset.shape, dataset.name)
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
        target = target / unit(target.abs().amax(dim=(0, 1, 2, 3) if fastmri else (1, 2, 3), keepdim=True))
        prediction, target = undersample(target, mask), target.abs()
        _refuse_constant(target, dataset, group)
        scores = (metrics.fastmri_scores if fastmri else metrics.paper_scores)(prediction, target)
        parts.append(pd.DataFrame({name: score.cpu().numpy() for name, score in scores.items()}))
    scores = pd.concat(parts, ignore_index=True)
    who = {"subject": list(members), "slice": [len(group) for group in groups]} if fastmri else {"subject": subjects, "slice": slices}
    return pd.concat([pd.DataFrame(who), scores], axis=1)


def _refuse_constant(target: Tensor, dataset: SliceDataset, group: list[int]) -> None:
    constant = (target.amax(dim=(1, 2, 3)) == target.amin(dim=(1, 2, 3))).nonzero().flatten()
    if len(constant):
        raise InputError(f"{dataset.describe(group[int(constant[0])])}: is constant, so its PSNR is not defined; leave it out")
