"""From the images of several receive coils to one image."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.errors import InputError


def root_sum_of_squares(images: Tensor, axis: int = -3) -> Tensor:
    r"""Magnitude image without knowledge of the coils: :math:`\sqrt{\sum_k |x_k|^2}`.

    What the matched combination becomes where the coil images themselves stand in for the sensitivities: Roemer et al. 1990,
    doi:10.1002/mrm.1910160203. The phase is lost, and noise is not zero in the mean.

    Parameters
    ----------
    images
        Coil images, e.g. ``(..., K, H, W)``, real or complex.
    axis
        The axis of the coils.

    Returns
    -------
    Tensor
        float32 without the axis, in the units of the images.

    >>> root_sum_of_squares(torch.tensor([3.0, 4.0j]).reshape(2, 1, 1))
    tensor([[5.]])
    """
    return images.abs().double().square().sum(axis).sqrt().float()  # squares of small intensities underflow in single precision


def combine(images: Tensor, sensitivities: Tensor) -> Tensor:
    r"""Complex image by known sensitivities: :math:`x = \sum_k \bar s_k x_k / \sum_k |s_k|^2`.

    The least-squares solution of :math:`x_k = s_k x`: Roemer et al. 1990, doi:10.1002/mrm.1910160203, and, as SENSE without
    acceleration, Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S. Noise is taken to be
    equal and uncorrelated in the coils. Where all sensitivities are 0 nothing is known of x, and it is 0.

    Parameters
    ----------
    images
        Coil images ``(..., K, H, W)``, real or complex.
    sensitivities
        ``(K, H, W)``, real or complex; their scale divides the result.

    Returns
    -------
    Tensor
        ``(..., H, W)`` complex64.

    Raises
    ------
    InputError
        Where coils, H or W disagree.

    >>> image, maps = torch.randn(5, 4, dtype=torch.complex64), torch.randn(3, 5, 4, dtype=torch.complex64)
    >>> torch.allclose(combine(maps * image, maps), image, atol=1e-5)
    True
    """
    if sensitivities.ndim != 3 or images.shape[-3:] != sensitivities.shape:
        raise InputError(
            f"sensitivities of shape {tuple(sensitivities.shape)} (coils, H, W) for images of {tuple(images.shape[-3:])}; must be equal"
        )
    maps = sensitivities.to(torch.complex128)
    weight = maps.abs().square().sum(-3)
    combined = (maps.conj() * images).sum(-3) / weight
    return combined.where(weight > 0, 0).to(torch.complex64)
