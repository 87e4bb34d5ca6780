"""What a scanner measures of an image, as a linear map and its adjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import IMAGE_AXES, fftc, ifftc, modulation, offsets, to_centred
from prom.kspace.nonuniform import NonUniform, kept


class Encoding(Protocol):
    """E: an image to all the samples that could be measured of it."""

    samples: tuple[int, ...]  # the shape of what is measured, on which masks lie

    @property
    def locations(self) -> Tensor:
        """``(*samples, axes)``: the spatial frequency of each sample along each axis, in cycles per field of view, 0 at DC."""

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)``, real or complex, with an axis before them where samples have three, to complex samples."""

    def adjoint(self, samples: Tensor) -> Tensor:
        """The other way, so that <forward(x), y> = <x, adjoint(y)>."""


def check_slices(encoding: Encoding, what: str) -> None:
    """Refuse samples of volumes and series where something is for slices only.

    >>> check_slices(Fourier((3, 4, 4)), "wavelets")
    Traceback (most recent call last):
    prom.errors.InputError: wavelets: are for slices, and these samples have three axes, (3, 4, 4); use the reconstruction sense
    """
    if len(encoding.samples) != 2:
        raise InputError(f"{what}: are for slices, and these samples have three axes, {encoding.samples}; use the reconstruction sense")


def weights_of(mask: Tensor, encoding: Coils, dtype: torch.dtype) -> Tensor:
    """What a mask multiplies samples by, of this real dtype: ``(*samples)``, or ``(..., 1, *samples)`` with an axis for the coils.

    Shorter masks, as ``(1, W)``, are expanded: solvers look at the shape.

    Raises
    ------
    InputError
        Where it does not fit the samples, or would have a mask for each coil.

    >>> weights_of(torch.ones(1, 6), Coils(torch.ones(2, 4, 6) + 0j), torch.float32).shape
    torch.Size([4, 6])
    """
    samples, shape = tuple(encoding.samples), tuple(mask.shape)
    leading = shape[: max(0, mask.ndim - len(samples))]
    if any(of not in (1, side) for of, side in zip(shape[::-1], samples[::-1], strict=False)) or (leading and leading[-1] != 1):
        example = f"must be of {samples}, or (..., 1, {', '.join(map(str, samples))}), one for all coils"
        raise InputError(f"mask of {shape}: does not fit the samples; it {example}")
    return mask.to(dtype).expand(*leading, *samples)


def check_coils(encoding: Encoding, what: str) -> None:
    """Refuse an encoding without sensitivities where something needs them.

    >>> check_coils(Fourier((4, 4)), "sense")
    Traceback (most recent call last):
    prom.errors.InputError: sense: needs an encoding by Coils, and this is Fourier; a loss has it by prom.objectives.reconstructed
    """
    if not isinstance(encoding, Coils):
        way = "a loss has it by prom.objectives.reconstructed"
        raise InputError(f"{what}: needs an encoding by Coils, and this is {type(encoding).__name__}; {way}")


def check_grid(encoding: Encoding, what: str) -> None:
    """Refuse samples off the grid where something needs their opposites.

    >>> check_grid(Coils(torch.ones(1, 4, 4) + 0j, NonUniform(torch.zeros(1, 1, 2), (4, 4))), "symmetry")
    Traceback (most recent call last):
    prom.errors.InputError: symmetry: is for samples on the grid, and these are off it; use the reconstruction sense
    """
    if isinstance(getattr(encoding, "fourier", encoding), NonUniform):
        raise InputError(f"{what}: is for samples on the grid, and these are off it; use the reconstruction sense")


@dataclass(frozen=True)
class Fourier:
    """Every point of k-space, centred and orthonormal (:func:`prom.kspace.fourier.fftc`), so that the adjoint is the inverse.

    Parameters
    ----------
    samples
        ``(H, W)`` of a slice, ``(D, H, W)`` of a volume, ``(T, H, W)`` of the frames of a series.
    axes
        Those of the samples that are spatial frequencies, counted from the last. An image has the same shape, and frames stay frames.

    >>> encoding, image = Fourier((4, 6)), torch.rand(4, 6)
    >>> torch.allclose(encoding.adjoint(encoding.forward(image)).real, image, atol=1e-6), encoding.locations[2, 5].tolist()
    (True, [0, 2])
    >>> Fourier((8, 4, 6)).forward(torch.ones(8, 4, 6)).abs().sum(dim=(-2, -1)).round()[0]         # a DC in each of 8 frames
    tensor(5.)
    """

    samples: tuple[int, ...]
    axes: tuple[int, ...] = IMAGE_AXES

    @property
    def locations(self) -> Tensor:
        """Whole cycles per field of view along the spatial axes."""
        return offsets(self.samples)[..., len(self.samples) - len(self.axes) :]

    @kept
    def phase(self) -> Tensor:
        """What an image is multiplied by where its transform in space needs no shift: :func:`prom.kspace.fourier.modulation`."""
        return modulation((*(1 for _ in self.samples[: -len(self.axes)]), *self.samples[-len(self.axes) :]))

    def forward(self, image: Tensor) -> Tensor:
        """``(..., *samples)`` to k-space of that shape."""
        return fftc(image, self.axes)

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., *samples)`` k-space to a complex image with its own phase."""
        return ifftc(samples, self.axes)


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

    @kept
    def phase(self) -> Tensor:
        """That of time alone: that of space is in the images already."""
        return modulation((*self.samples[: -len(self.axes)], *(1 for _ in self.axes)))

    def samples_of(self, image: Tensor) -> Tensor:
        """Centred k-space of an image as it is, without that phase: ``(..., *samples)``."""
        return to_centred(torch.fft.fftn(image, dim=self.axes, norm="ortho"), self.axes)

    def forward(self, image: Tensor) -> Tensor:
        """``(..., *samples)``, an image times the phase, to its centred k-space."""
        return torch.fft.fftn(image, dim=self.axes, norm="ortho")

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., *samples)`` centred k-space to the image times the phase."""
        return torch.fft.ifftn(samples, dim=self.axes, norm="ortho")


@dataclass(frozen=True, eq=False)
class Coils:
    r"""What several receive coils measure: :math:`E x = (F S_1 x, \dots, F S_K x)`, S_k the sensitivity of a coil (SENSE).

    Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.

    Parameters
    ----------
    maps
        ``(..., K, H, W)`` complex, of all images or of each; ``(..., K, D, H, W)`` for volumes, ``(..., K, 1, H, W)`` for all frames of a
        series.
    fourier
        F; by default :class:`Fourier` of slices, else that of volumes or series, or :class:`prom.kspace.nonuniform.NonUniform`.

    >>> encoding = Coils(torch.randn(3, 4, 6, dtype=torch.complex64))
    >>> samples = encoding.forward(torch.rand(2, 4, 6))
    >>> samples.shape, encoding.adjoint(samples).shape
    (torch.Size([2, 3, 4, 6]), torch.Size([2, 4, 6]))
    >>> Coils(torch.ones(3, 1, 4, 6), Fourier((5, 4, 6))).forward(torch.rand(2, 5, 4, 6)).shape            # a series of 5 frames
    torch.Size([2, 3, 5, 4, 6])
    """

    maps: Tensor
    fourier: Fourier | NonUniform | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", self.maps.resolve_conj().resolve_neg())
        if self.fourier is None:
            object.__setattr__(self, "fourier", Fourier(tuple(self.maps.shape[-2:])))

    @property
    def samples(self) -> tuple[int, ...]:
        """All coils are measured at once, with one mask: ``(H, W)``, or as F has them."""
        return self.fourier.samples

    @property
    def axis(self) -> int:
        """That of the coils, before those of the samples, counted from the last."""
        return -len(self.samples) - 1

    @property
    def locations(self) -> Tensor:
        """Those of F."""
        return self.fourier.locations

    def forward(self, image: Tensor) -> Tensor:
        """``(..., *image)`` to ``(..., K, *samples)``."""
        return self.fourier.forward(self.maps * image.unsqueeze(self.axis))

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., K, *samples)`` to ``(..., *image)``."""
        return (self.maps.conj() * self.fourier.adjoint(samples)).sum(dim=self.axis)

    def diagonal(self, weight: Tensor) -> Tensor:
        """Of :math:`F E^H W E F^H` for weights ``(..., *samples)``: their correlation with the power of the coils' spectra.

        F is here the transform to the grid, centred, and the diagonal has the shape of an image, wherever the samples lie.

        >>> encoding = Coils(torch.ones(1, 4, 4, dtype=torch.complex64))
        >>> encoding.diagonal(torch.eye(4)).round()[0]                                   # one even coil: the weights themselves
        tensor([1., 0., 0., 0.])
        """
        if isinstance(self.fourier, NonUniform):
            return self.toeplitz(weight)[1]
        axes = self.fourier.axes
        return torch.fft.ifftn(torch.fft.fftn(weight, dim=axes) * self._spectrum, dim=axes).real

    def toeplitz(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Off the grid, F's :meth:`prom.kspace.nonuniform.NonUniform.multiplier` and :meth:`diagonal`, of one point-spread function.

        >>> encoding, weight = Coils(torch.ones(1, 4, 4) + 0j, NonUniform(torch.zeros(1, 1, 2), (4, 4))), torch.ones(1, 1)
        >>> multiplier, diagonal = encoding.toeplitz(weight)
        >>> bool((multiplier == encoding.fourier.multiplier(weight)).all()), diagonal.argmax()                     # it is at DC
        (True, tensor(10))
        """
        spread = self.fourier.spread(weight)
        return self.fourier.multiplier_of(spread), self.fourier.on_grid(self._overlap * spread)

    @kept
    def unshifted(self) -> tuple[Coils, Tensor, Tensor] | None:
        r"""What needs no shift, E', and two phases: :math:`E x = q E'(p x)`, p of images and q of samples. None where nothing is shifted.

        Both are complex128, as :attr:`Fourier.phase`.

        >>> encoding, image = Coils(torch.randn(3, 5, 6, dtype=torch.complex128)), torch.rand(5, 6)
        >>> plain, of_image, of_samples = encoding.unshifted
        >>> torch.allclose(of_samples * plain.forward(of_image * image), encoding.forward(image)), plain.unshifted
        (True, None)
        """
        if type(self.fourier) is not Fourier:
            return None
        phase = self.fourier.phase.to(self.maps.device)
        centre = phase[tuple(n // 2 for n in phase.shape)]
        return Coils(self.maps, FourierUpToPhase(self.samples, self.fourier.axes)), phase, phase * centre.conj()

    @kept
    def seen(self) -> Tensor:
        """``(..., H, W)`` bool, with an axis for frames where there are some: the pixels that some coil sees."""
        return (self.maps != 0).any(dim=self.axis)

    @kept
    def _spectrum(self) -> Tensor:
        axes = self.fourier.axes
        power = torch.fft.fftn(self.maps, dim=axes).abs().square().sum(dim=self.axis)
        return torch.fft.fftn(power, dim=axes).conj() / math.prod(self.maps.shape[axis] for axis in axes) ** 2

    @kept
    def _overlap(self) -> Tensor:
        """The coils' correlation with themselves at each distance between two pixels, 0 first, over the pixels: ``(..., 2 H, 2 W)``."""
        axes = self.fourier.axes
        sizes = [2 * self.maps.shape[axis] for axis in axes]
        power = torch.fft.fftn(self.maps, s=sizes, dim=axes).abs().square().sum(dim=self.axis)
        return torch.fft.ifftn(power, dim=axes).conj() / math.prod(self.maps.shape[axis] for axis in axes)
