"""How good a mask is on a data set: zero-filled reconstruction of every slice, scored against the fully sampled one."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from prom import metrics
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown
from prom.fourier import undersample

CHUNK = 32  # slices reconstructed at once


def evaluate(mask: Tensor, dataset: SliceDataset, convention: str = "paper") -> pd.DataFrame:
    """Score a mask: one row per slice ("paper") or per volume ("fastmri", where ``slice`` is the number of slices averaged over).

    Parameters
    ----------
    mask
        ``(H, W)`` bool, centred.
    dataset
        Slices of the same size. Complex images are compared by magnitude.
    convention
        ``"paper"`` or ``"fastmri"``; see :mod:`prom.metrics`.

    Returns
    -------
    pandas.DataFrame
        Columns ``subject, slice, psnr`` (dB)``, ssim, nmse``.

    Raises
    ------
    InputError
        Where sizes differ, the convention is unknown, or a slice is constant (its PSNR is not defined).

    >>> data = SliceDataset("demo", "test", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> evaluate(torch.ones(16, 16, dtype=torch.bool), data).columns.tolist()
    ['subject', 'slice', 'psnr', 'ssim', 'nmse']
    """
    if convention not in metrics.CONVENTIONS:
        raise unknown("convention", convention, metrics.CONVENTIONS)
    if tuple(mask.shape) != dataset.shape:
        raise InputError(f"mask of {tuple(mask.shape)}: does not fit {dataset.name}, whose slices are {dataset.shape}")
    device = mask.device
    parts = []
    for start in tqdm(range(0, len(dataset), CHUNK), desc=f"evaluate {dataset.name}", disable=None, leave=False):
        target = dataset.images[start : start + CHUNK].to(device)
        prediction, target = undersample(target, mask), target.abs()
        _refuse_constant(target, dataset, start)
        if convention == "paper":
            parts.append(pd.DataFrame({name: score.cpu().numpy() for name, score in metrics.paper_scores(prediction, target).items()}))
        else:
            parts.append(prediction.cpu())
    subjects, slices = list(dataset.subjects), list(dataset.slices)
    if convention == "paper":
        return pd.concat([pd.DataFrame({"subject": subjects, "slice": slices}), pd.concat(parts, ignore_index=True)], axis=1)
    prediction, rows = torch.cat(parts), []
    for subject in dict.fromkeys(subjects):
        members = [i for i, name in enumerate(subjects) if name == subject]
        scores = metrics.fastmri_scores(prediction[members], dataset.images[members].abs())
        rows.append({"subject": subject, "slice": len(members), **{name: score.item() for name, score in scores.items()}})
    return pd.DataFrame(rows)


def _refuse_constant(target: Tensor, dataset: SliceDataset, start: int) -> None:
    constant = (target.amax(dim=(1, 2, 3)) == target.amin(dim=(1, 2, 3))).nonzero().flatten()
    if len(constant):
        raise InputError(f"{dataset.describe(start + int(constant[0]))}: is constant, so its PSNR is not defined; leave it out")
