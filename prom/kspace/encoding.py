"""What a scanner measures of an image, as a linear map and its adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prom.kspace.fourier import fft2c, ifft2c, offsets, to_centred


class Encoding(Protocol):
    """E: an image to all the samples that could be measured of it."""

    samples: tuple[int, ...]  # the shape of what is measured, on which masks lie

    @property
    def locations(self) -> Tensor:
        """``(*samples, axes)``: the spatial frequency of each sample along each axis, in cycles per field of view, 0 at DC."""

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)``, real or complex, to complex samples."""

    def adjoint(self, samples: Tensor) -> Tensor:
        """The other way, so that <forward(x), y> = <x, adjoint(y)>."""


@dataclass(frozen=True)
class Fourier:
    """Every point of k-space, centred and orthonormal (:func:`prom.fft2c`), so that the adjoint is the inverse.

    >>> encoding, image = Fourier((4, 6)), torch.rand(4, 6)
    >>> torch.allclose(encoding.adjoint(encoding.forward(image)).real, image, atol=1e-6), encoding.locations[2, 5].tolist()
    (True, [0, 2])
    """

    samples: tuple[int, int]

    @property
    def locations(self) -> Tensor:
        """Whole cycles per field of view along both axes."""
        return offsets(self.samples)

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)`` to k-space of that shape."""
        return fft2c(image)

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., H, W)`` k-space to a complex image with its own phase."""
        return ifft2c(samples)


@dataclass(frozen=True)
class FourierUpToPhase(Fourier):
    """Of images times a phase, a checkerboard of signs or at odd sizes a ramp, so that nothing is ever shifted, which costs time.

    For magnitudes only, and for gradients with respect to masks: the images that come back have a phase that is not theirs.

    >>> image = torch.rand(4, 6)
    >>> exact, fast = Fourier((4, 6)), FourierUpToPhase((4, 6))
    >>> torch.allclose(fast.samples_of(image).abs(), exact.forward(image).abs(), atol=1e-6)
    True
    >>> torch.allclose(fast.adjoint(fast.samples_of(image)).abs(), image, atol=1e-6)
    True
    """

    def samples_of(self, image: Tensor) -> Tensor:
        """Centred k-space of an image as it is, without that phase: ``(..., H, W)``."""
        return to_centred(torch.fft.fft2(image, norm="ortho"))

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)``, an image times the phase, to its centred k-space."""
        return torch.fft.fft2(image, norm="ortho")

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., H, W)`` centred k-space to the image times the phase."""
        return torch.fft.ifft2(samples, norm="ortho")
