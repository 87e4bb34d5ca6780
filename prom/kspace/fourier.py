"""The centred, orthonormal Fourier transform between image and k-space: where both are shifted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMAGE_AXES = (-2, -1)


def fftc(image: Tensor, axes: Sequence[int] = IMAGE_AXES) -> Tensor:
    r"""k-space of an image along these axes: :math:`x_k = F x`, DC in the middle, at ``n // 2`` of n.

    Orthonormal, so that :math:`\|x_k\|_2 = \|x\|_2` and the inverse is the adjoint. Every other axis is a batch axis (the authors' code
    also shifts those, which changes nothing but costs time).

    Parameters
    ----------
    image
        Real or complex, of any shape.
    axes
        Those to transform, counted from the last: the last two of a slice or of every frame of a series, the last three of a volume.

    Returns
    -------
    Tensor
        Complex, of that shape, in the units of the image.

    >>> kspace = fftc(torch.ones(4, 6, 2), axes=(-3, -2, -1))
    >>> kspace[2, 3, 1].real.round(), kspace.abs().sum() < 7                      # everything is at DC
    (tensor(7.), tensor(True))
    """
    axes = tuple(axes)
    return to_centred(torch.fft.fftn(to_native(image, axes), dim=axes, norm="ortho"), axes)


def ifftc(kspace: Tensor, axes: Sequence[int] = IMAGE_AXES) -> Tensor:
    r"""The image of centred k-space, and the inverse of :func:`fftc`: complex, of its shape.

    >>> image = torch.rand(5, 4, 3)
    >>> torch.allclose(ifftc(fftc(image, (-3, -1)), (-3, -1)).real, image, atol=1e-6)
    True
    """
    axes = tuple(axes)
    return to_centred(torch.fft.ifftn(to_native(kspace, axes), dim=axes, norm="ortho"), axes)


def fft2c(image: Tensor) -> Tensor:
    r"""k-space of an image along its last two axes: :math:`x_k = F x`, DC at ``[..., H // 2, W // 2]``; :func:`fftc` of a slice.

    >>> kspace = fft2c(torch.ones(4, 6))
    >>> kspace.abs().argmax().item() == 2 * 6 + 3          # everything is at DC
    True
    """
    return fftc(image)


def ifft2c(kspace: Tensor) -> Tensor:
    r"""Zero-filled reconstruction of centred k-space: :math:`x_c = F^{-1} x_k` (paper, section 3.1).

    ``(..., H, W)`` complex to ``(..., H, W)`` complex; the inverse of :func:`fft2c`.

    >>> image = torch.rand(5, 4)
    >>> torch.allclose(ifft2c(fft2c(image)).real, image, atol=1e-6)
    True
    """
    return ifftc(kspace)


def modulation(shape: Sequence[int]) -> Tensor:
    r"""p, complex128 of this shape and of magnitude 1, with which no shift is needed: fftn(p x) is :func:`fftc` of x but for phases.

    A checkerboard of signs where all sides are even, up to one factor. The phases are those of samples.

    >>> image = torch.rand(5, 4, dtype=torch.float64)
    >>> torch.allclose(torch.fft.fft2(modulation((5, 4)) * image, norm="ortho").abs(), fft2c(image).abs(), atol=1e-6)
    True
    """
    waves = [torch.exp(2j * torch.pi * (n // 2) / n * torch.arange(n, dtype=torch.float64)) for n in shape]
    product = torch.ones((), dtype=torch.complex128)
    for wave in waves:
        product = product.unsqueeze(-1) * wave
    return product


def offsets(shape: Sequence[int]) -> Tensor:
    """The signed frequency of every index of a centred grid along each of its axes, 0 at DC: ``(*shape, axes)`` int64.

    >>> offsets((4,)).flatten().tolist(), offsets((2, 3))[0, 0].tolist()
    ([-2, -1, 0, 1], [-1, -1])
    """
    return torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij"), dim=-1)


def opposite(centred: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The array with the entry of frequency -k where that of k was, along these axes, by default all: even or odd.

    >>> opposite(torch.arange(4)).tolist(), opposite(torch.arange(5)).tolist()    # DC at index 2 stays
    ([0, 3, 2, 1], [4, 3, 2, 1, 0])
    """
    axes = tuple(range(centred.ndim) if axes is None else axes)
    turned = torch.flip(centred, axes)
    return torch.roll(turned, [1 - centred.shape[axis] % 2 for axis in axes], axes)  # with an even n, index 0 is its own partner


def to_native(centred: Tensor, axes: Sequence[int] = IMAGE_AXES) -> Tensor:
    """Move the centre, ``n // 2`` of each of these axes, to 0, where the transform has DC."""
    return torch.fft.ifftshift(centred, dim=tuple(axes))


def to_centred(native: Tensor, axes: Sequence[int] = IMAGE_AXES) -> Tensor:
    """The inverse of :func:`to_native`."""
    return torch.fft.fftshift(native, dim=tuple(axes))
