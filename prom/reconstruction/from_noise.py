"""What a reconstruction weighs samples against where there are no training data: their own noise and power."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.reconstruction.sparse import STRENGTH

MOST_STRENGTH = 1e6  # that Sparse takes
CLEAR = 0.1  # of the noise's power: rings with less above it say nothing of the image
# lambda over the deviation of the noise. Virtual brains with eight coils are best with 0.4 to 0.8 at SNR 15 and 50, and lose 1.5 and
# 0.2 dB; a measured one, whose reference has noise of its own, with less.
THRESHOLD = 0.25


def power_law(kspace: Tensor, mask: Tensor, noise: float) -> Tensor:
    r"""The power that the image of undersampled k-space is expected to have: :math:`P(k) = a (1 + |k|)^{-p}`, ``(H, W)`` float64, centred.

    With sensitivities whose squares sum to 1, the coils' power together is that of the image, hardly blurred, and their noise:

    .. math:: \operatorname{E} \sum_k |y_{k,i}|^2 = P_i + K \sigma^2.

    Its mean is taken over the measured samples of rings, one cycle per field of view wide, and a and p, at least 0, are a least-squares
    fit to the logarithm of what is left after the noise, each ring weighted by its number of samples. Rings where that is less than a
    tenth of the noise are left out. As :math:`\sigma^2 / P` the penalty of
    :class:`prom.reconstruction.sense.Sense`, it takes the place of training data's.

    Parameters
    ----------
    kspace
        ``(N, K, H, W)`` complex: all slices together decide.
    mask
        ``(H, W)`` bool, what was measured.
    noise
        :math:`\sigma`, the standard deviation of a complex sample.

    Raises
    ------
    InputError
        Where no ring is a tenth above the noise.

    >>> k = (torch.arange(32.0)[:, None] - 16).hypot(torch.arange(32.0) - 16)
    >>> found = power_law((1 + k).pow(-1.5)[None, None] + 0j, torch.ones(32, 32, dtype=torch.bool), 1e-6)
    >>> round(float(found[16, 16]), 1), round(float(found[16, 19] / found[16, 16]), 3)     # near 1 and (1 + 3)^-3
    (0.9, 0.017)
    """
    distance = offsets(mask.shape).double().square().sum(dim=-1).sqrt()
    power = kspace.abs().double().square().sum(dim=-3).mean(dim=0)[mask]
    rings = distance.round().long()[mask]
    count = torch.bincount(rings).double()
    floor = kspace.shape[-3] * noise**2
    signal = torch.bincount(rings, power) / count.clamp(min=1) - floor
    clear = (count > 0) & (signal > CLEAR * floor)
    if not clear.any():
        raise InputError(f"k-space: has nothing above the noise, {noise:g}; give a smaller noise, the standard deviation of a sample")
    weight = count[clear].sqrt()[:, None]
    radius = torch.arange(len(count)).double()[clear].log1p()
    design = torch.stack([torch.ones_like(radius), -radius], dim=1)[:, : min(2, int(clear.sum()))]
    found = torch.linalg.lstsq(weight * design, weight * signal[clear].log()[:, None]).solution.flatten().tolist()
    if len(found) < 2 or found[1] < 0:
        found = [float((weight[:, 0].square() * signal[clear].log()).sum() / weight.square().sum()), 0.0]
    return math.exp(found[0]) * (1 + distance).pow(-found[1])


def sparse_strength(kspace: Tensor, mask: Tensor, noise: float) -> float:
    r"""The strength of :class:`prom.reconstruction.sparse.Sparse` at which :math:`\lambda` is a quarter of the deviation of the noise.

    ``kspace`` is ``(K, H, W)`` complex of one slice, the rest as of :func:`power_law`. Where all samples or the noise
    are 0, the class's own.

    Raises
    ------
    InputError
        Where it would be above 1e6.

    >>> sparse_strength(torch.full((1, 4, 4), 2.0 + 0j), torch.ones(4, 4, dtype=torch.bool), noise=0.8)
    0.1
    """
    size = math.sqrt(float((kspace * mask).abs().double().square().sum()) / mask.numel())
    found = THRESHOLD * noise / size if size > 0 and noise > 0 else STRENGTH
    if found > MOST_STRENGTH:
        raise InputError(f"k-space: has nothing above the noise, {noise:g}; give a smaller noise, the standard deviation of a sample")
    return found
