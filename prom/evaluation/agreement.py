"""How alike the masks of several runs are: point by point, and by pairs of conjugate partners, which are worth the same.

Partners are opposite each other along every axis, as in slices and volumes; of series in time give frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prom.kspace.fourier import opposite
from prom.masks import MaskResult


def overlap(one: Tensor, other: Tensor) -> float:
    """Share of the samples of a mask that another mask of the same size measures too.

    >>> overlap(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]]))
    0.5
    """
    return float((one & other).sum() / other.sum())


def pair_overlap(one: Tensor, other: Tensor) -> float:
    """The same by pairs: it does not matter which of two conjugate partners is measured.

    >>> pair_overlap(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]]))
    1.0
    """
    pairs = [mask.int() + opposite(mask).int() for mask in (one, other)]
    return float(torch.minimum(*pairs).sum() / pairs[1].sum())


def unpaired(mask: Tensor) -> Tensor:
    """Points of a mask whose conjugate partner is not in it: ``(H, W)`` bool.

    >>> unpaired(torch.tensor([[True, True, False]]))
    tensor([[ True, False, False]])
    """
    return mask & ~opposite(mask)


def toss_partners(mask: Tensor, generator: torch.Generator) -> Tensor:
    """The mask with each unpaired point moved to its conjugate partner with probability 1/2. It has the same size.

    >>> int(toss_partners(torch.tensor([[True, True, False]]), torch.Generator()).sum())
    2
    """
    move = unpaired(mask) & (torch.rand(mask.shape, generator=generator, dtype=torch.float32) < 0.5)
    return (mask & ~move) | opposite(move)


def variances(members: Sequence[MaskResult]) -> tuple[Tensor, Tensor]:
    r"""Variance over runs of :math:`\theta_i`, and of :math:`(\theta_i + \theta_{-i}) / 2`: both ``(H, W)``."""
    thetas = torch.stack([result.probabilities for result in members])
    pairs = torch.stack([(theta + opposite(theta)) / 2 for theta in thetas])
    return thetas.var(dim=0, correction=0), pairs.var(dim=0, correction=0)


def partner_share(members: Sequence[MaskResult]) -> float:
    """Share of the variance over runs that lies in the difference of partners: 1/2 where they vary independently, NaN without variance."""
    plain, paired = variances(members)
    return float(1 - paired.sum() / plain.sum())
