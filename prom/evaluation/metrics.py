"""PSNR, SSIM and NMSE in the two conventions in use, which can differ by decibels: the paper's and fastMRI's.

======== =========================================== ==================================================
.        paper (per slice)                           fastMRI (per volume)
======== =========================================== ==================================================
range    minimum and maximum of the *target slice*   0 to the maximum of the *target volume*
         are mapped to [0, 1]; the prediction is
         clamped to it
PSNR     per slice                                   over the volume
SSIM     Gaussian window 7, sigma 1, no padding      uniform window 7 x 7, no padding, unbiased variance
NMSE     per slice                                   over the volume
======== =========================================== ==================================================

Inputs are real magnitude images ``(N, C, H, W)``; every function returns one float per slice (paper) or per volume (fastMRI). Of volumes
``(N, C, D, H, W)`` and series ``(N, C, T, H, W)`` an entry takes the place of a slice: range, PSNR and NMSE are those of all of it, SSIM is
the mean over its partitions or frames. No score depends on the unit of the images, from 1e-30 to 1e30: every entry is first divided by a
power of two near its peak.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom import options
from prom.datasets.units import unit
from prom.errors import InputError, unknown

WINDOW = 7
WINDOWS = ("gaussian", "uniform")
CONVENTIONS = options.CONVENTIONS


def psnr(prediction: Tensor, target: Tensor, data_range: Tensor | float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``(N, ...)`` to ``(N,)``: 10 log10(range^2 / MSE).

    >>> psnr(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.1))
    tensor([20.])
    """
    prediction, target, data_range = _without_unit(prediction, target, data_range)
    mse = (prediction - target).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(data_range**2 / mse)


def nmse(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Normalised mean squared error, ``(N, ...)`` to ``(N,)``: :math:`\|\hat x - x\|^2 / \|x\|^2`.

    >>> nmse(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
    tensor([1.])
    """
    prediction, target, _ = _without_unit(prediction, target, 0.0)
    return (prediction - target).square().flatten(1).sum(dim=1) / target.square().flatten(1).sum(dim=1)


def ssim(prediction: Tensor, target: Tensor, data_range: Tensor | float = 1.0, window: str = "gaussian") -> Tensor:
    """Structural similarity (Wang et al. 2004), ``(N, C, H, W)`` to ``(N,)``, averaged over channels and over windows inside the image.

    ``window="gaussian"``: 7 x 7, sigma 1 (the paper's; equal to ``monai.metrics.SSIMMetric(kernel_type="gaussian", win_size=7,
    kernel_sigma=1.0)``). ``window="uniform"``: 7 x 7 with the unbiased variance (fastMRI's; equal to
    ``skimage.metrics.structural_similarity``). Constants K1 = 0.01, K2 = 0.03.

    Raises
    ------
    InputError
        Where the images are smaller than the window, or it is not known.

    >>> image = torch.rand(1, 1, 16, 16)
    >>> round(ssim(image, image).item(), 6)
    1.0
    """
    if window not in WINDOWS:
        raise unknown("window", window, WINDOWS)
    if target.ndim < 4:
        way = "image.unsqueeze(1)" if target.ndim == 3 else "image[None, None]"
        raise InputError(f"images of {tuple(target.shape)}: must be (N, C, H, W); use {way}")
    if min(target.shape[-2:]) < WINDOW:
        raise InputError(f"images of {tuple(target.shape[-2:])}: SSIM needs at least {WINDOW} x {WINDOW}")
    if window == "gaussian":
        weights, unbiased = [math.exp(-0.5 * (k - WINDOW // 2) ** 2) for k in range(WINDOW)], 1.0
    else:
        weights, unbiased = [1.0] * WINDOW, WINDOW**2 / (WINDOW**2 - 1)
    weights = [weight / sum(weights) for weight in weights]
    prediction, target, data_range = _without_unit(prediction, target, data_range)

    def smooth(image: Tensor) -> Tensor:
        image = image.flatten(0, 1).unsqueeze(1)
        for dim in (-2, -1):  # as sums of shifted images: on a CPU twice as fast as a convolution with one channel
            extent = image.shape[dim] - WINDOW + 1
            total = weights[0] * image.narrow(dim, 0, extent)
            for shift in range(1, WINDOW):
                total.add_(image.narrow(dim, shift, extent), alpha=weights[shift])
            image = total
        return image

    mean_x, mean_y = smooth(prediction), smooth(target)
    var_x = unbiased * (smooth(prediction**2) - mean_x**2)
    var_y = unbiased * (smooth(target**2) - mean_y**2)
    covariance = unbiased * (smooth(prediction * target) - mean_x * mean_y)
    data_range = data_range.repeat_interleave(target.shape[1]).view(-1, *[1] * (target.ndim - 1))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.flatten(1).mean(dim=1).view(len(target), -1).mean(dim=1)


def _alike(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both, which must be magnitudes of one shape, in floating point: differences of whole numbers without a sign would be large."""
    if prediction.is_complex() or target.is_complex():
        raise InputError("complex images: scores are those of magnitudes; use image.abs()")
    if prediction.shape != target.shape:
        raise InputError(f"images of {tuple(prediction.shape)} and {tuple(target.shape)}: must be of one shape")
    return tuple(part if part.is_floating_point() else part.double() for part in (prediction, target))


def _without_unit(prediction: Tensor, target: Tensor, data_range: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Each entry, and its range ``(N,)``, divided by the unit of the larger of the two: the range, or the target's peak."""
    prediction, target = _alike(prediction, target)
    data_range = torch.as_tensor(data_range, dtype=target.dtype, device=target.device).expand(len(target))
    divisor = unit(torch.maximum(target.abs().flatten(1).amax(dim=1), data_range))
    each = divisor.view(-1, *[1] * (target.ndim - 1))
    return prediction / each, target / each, data_range / divisor


def paper_scores(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """PSNR, SSIM and NMSE of every slice as the paper computes them: ``{"psnr": (N,), "ssim": (N,), "nmse": (N,)}``.

    The range is taken over all channels of a slice together.

    >>> sorted(paper_scores(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)))
    ['nmse', 'psnr', 'ssim']
    """
    prediction, target = _alike(prediction, target)
    every = tuple(range(1, target.ndim))
    low, high = target.amin(dim=every, keepdim=True), target.amax(dim=every, keepdim=True)
    target = (target - low) / (high - low)
    prediction = ((prediction - low) / (high - low)).clamp(0, 1)
    return {"psnr": psnr(prediction, target), "ssim": ssim(prediction, target), "nmse": nmse(prediction, target)}


def fastmri_scores(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """PSNR, SSIM and NMSE of *one volume* as fastMRI's evaluation computes them: each a tensor of one element.

    >>> fastmri_scores(torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8))["psnr"].shape
    torch.Size([1])
    """
    prediction, target = _alike(prediction, target)
    peak = target.max()
    return {
        "psnr": psnr(prediction.unsqueeze(0), target.unsqueeze(0), peak),
        "ssim": ssim(prediction, target, peak, window="uniform").mean().unsqueeze(0),
        "nmse": nmse(prediction.unsqueeze(0), target.unsqueeze(0)),
    }
