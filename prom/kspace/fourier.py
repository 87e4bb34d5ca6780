"""The centred, orthonormal Fourier transform between image and k-space. The only place in the project that shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMAGE_AXES = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    r"""k-space of an image: :math:`x_k = F x`, DC at ``[..., H // 2, W // 2]``.

    Orthonormal, so that :math:`\|x_k\|_2 = \|x\|_2` and the inverse is the adjoint. Transforms the last two axes only; every
    other axis is a batch axis (the authors' code also shifts those, which changes nothing but costs time).

    Parameters
    ----------
    image
        ``(..., H, W)``, real or complex.

    Returns
    -------
    Tensor
        ``(..., H, W)``, complex, in the units of the image.

    >>> kspace = fft2c(torch.ones(4, 6))
    >>> kspace.abs().argmax().item() == 2 * 6 + 3          # everything is at DC
    True
    """
    return torch.fft.fftshift(torch.fft.fft2(to_native(image), norm="ortho"), dim=IMAGE_AXES)


def ifft2c(kspace: Tensor) -> Tensor:
    r"""Zero-filled reconstruction of centred k-space: :math:`x_c = F^{-1} x_k` (paper, section 3.1).

    ``(..., H, W)`` complex to ``(..., H, W)`` complex; the inverse of :func:`fft2c`.

    >>> image = torch.rand(5, 4)
    >>> torch.allclose(ifft2c(fft2c(image)).real, image, atol=1e-6)
    True
    """
    image = torch.fft.ifft2(to_native(kspace), norm="ortho")
    return torch.fft.fftshift(image, dim=IMAGE_AXES)


def modulation(shape: Sequence[int]) -> Tensor:
    r"""p, ``(H, W)`` complex128 of magnitude 1, with which no shift is needed: fft2(p x) is :func:`fft2c` of x but for phases of samples.

    A checkerboard of signs where H and W are even, up to one factor.

    >>> image = torch.rand(5, 4, dtype=torch.float64)
    >>> torch.allclose(torch.fft.fft2(modulation((5, 4)) * image, norm="ortho").abs(), fft2c(image).abs(), atol=1e-6)
    True
    """
    waves = [torch.exp(2j * torch.pi * (n // 2) / n * torch.arange(n, dtype=torch.float64)) for n in shape]
    return waves[0][:, None] * waves[1]


def offsets(shape: Sequence[int]) -> Tensor:
    """The signed frequency of every index of a centred grid along each of its axes, 0 at DC: ``(*shape, axes)`` int64.

    >>> offsets((4,)).flatten().tolist(), offsets((2, 3))[0, 0].tolist()
    ([-2, -1, 0, 1], [-1, -1])
    """
    return torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij"), dim=-1)


def opposite(centred: Tensor) -> Tensor:
    """The array with the entry of frequency -k where that of k was, along all axes: ``(H, W)``, or ``(lines,)``; even or odd.

    >>> opposite(torch.arange(4)).tolist(), opposite(torch.arange(5)).tolist()    # DC at index 2 stays
    ([0, 3, 2, 1], [4, 3, 2, 1, 0])
    """
    axes = tuple(range(centred.ndim))
    turned = torch.flip(centred, axes)
    return torch.roll(turned, [1 - n % 2 for n in centred.shape], axes)  # with an even n, index 0 is its own partner


def to_native(centred: Tensor) -> Tensor:
    """Move the centre ``[H // 2, W // 2]`` to ``[0, 0]``, where the transform has DC. Objectives shift masks so, never images."""
    return torch.fft.ifftshift(centred, dim=IMAGE_AXES)


def to_centred(native: Tensor) -> Tensor:
    """The inverse of :func:`to_native`."""
    return torch.fft.fftshift(native, dim=IMAGE_AXES)
