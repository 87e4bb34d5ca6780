"""What a scanner measures of an image, as a linear map and its adjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from prom.kspace.fourier import fft2c, ifft2c, modulation, offsets, to_centred


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

    @cached_property
    def phase(self) -> Tensor:
        """What an image is multiplied by where its transform is to need no shift: :func:`prom.kspace.fourier.modulation`."""
        return modulation(self.samples)

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

    @cached_property
    def phase(self) -> Tensor:
        """1: it is in the images already."""
        return torch.ones((), dtype=torch.complex128)

    def samples_of(self, image: Tensor) -> Tensor:
        """Centred k-space of an image as it is, without that phase: ``(..., H, W)``."""
        return to_centred(torch.fft.fft2(image, norm="ortho"))

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)``, an image times the phase, to its centred k-space."""
        return torch.fft.fft2(image, norm="ortho")

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., H, W)`` centred k-space to the image times the phase."""
        return torch.fft.ifft2(samples, norm="ortho")


@dataclass(frozen=True, eq=False)
class Coils:
    r"""What several receive coils measure: :math:`E x = (F S_1 x, \dots, F S_K x)`, S_k the sensitivity of a coil (SENSE).

    Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.

    Parameters
    ----------
    maps
        ``(..., K, H, W)`` complex, of all images or of each.
    fourier
        F; by default :class:`Fourier`.

    >>> encoding = Coils(torch.randn(3, 4, 6, dtype=torch.complex64))
    >>> samples = encoding.forward(torch.rand(2, 4, 6))
    >>> samples.shape, encoding.adjoint(samples).shape
    (torch.Size([2, 3, 4, 6]), torch.Size([2, 4, 6]))
    """

    maps: Tensor
    fourier: Fourier | None = None

    def __post_init__(self) -> None:
        if self.fourier is None:
            object.__setattr__(self, "fourier", Fourier(self.samples))

    @property
    def samples(self) -> tuple[int, int]:
        """``(H, W)``: all coils are measured at once, with one mask."""
        return tuple(self.maps.shape[-2:])

    @property
    def locations(self) -> Tensor:
        """Those of F."""
        return self.fourier.locations

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)`` to ``(..., K, H, W)``."""
        return self.fourier.forward(self.maps * image.unsqueeze(-3))

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., K, H, W)`` to ``(..., H, W)``."""
        return (self.maps.conj() * self.fourier.adjoint(samples)).sum(dim=-3)

    def diagonal(self, weight: Tensor) -> Tensor:
        """Of :math:`F E^H W E F^H` for weights ``(..., H, W)`` of samples: their correlation with the power of the coils' spectra.

        >>> encoding = Coils(torch.ones(1, 4, 4, dtype=torch.complex64))
        >>> encoding.diagonal(torch.eye(4)).round()[0]                                   # one even coil: the weights themselves
        tensor([1., 0., 0., 0.])
        """
        return torch.fft.ifft2(torch.fft.fft2(weight) * self._spectrum).real

    @cached_property
    def seen(self) -> Tensor:
        """``(..., H, W)`` bool: the pixels that some coil sees."""
        return (self.maps != 0).any(dim=-3)

    @cached_property
    def _spectrum(self) -> Tensor:
        return torch.fft.fft2(torch.fft.fft2(self.maps).abs().square().sum(dim=-3)).conj() / math.prod(self.samples) ** 2
