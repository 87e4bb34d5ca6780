"""The images of an objective, and their k-space."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom.engine.device import asynchronous
from prom.errors import InputError
from prom.kspace.encoding import FourierUpToPhase
from prom.kspace.fourier import IMAGE_AXES

TRANSFORM_CHUNK = 32  # images transformed at once
PREPARATION_CHUNK = 2  # images made ready at once: what a piece takes comes on top of the data
CURVATURE_IMAGES = 2048  # a correction of the gradient needs no more than an estimate


class Measurements:
    """Magnitude images and k-space of the data, in a unit in which squares neither vanish nor overflow.

    K-space is centred, and that of the image as it lies in memory, as if the first pixel were the origin
    (:class:`prom.kspace.encoding.FourierUpToPhase`). So no shift is ever needed again: a mask multiplies k-space, to which the origin
    makes no difference, and the inverse transform of centred k-space is the image times a phase, which its magnitude does not have.

    Of images in memory both are kept; the magnitude is the image itself where that is one already, in this unit. Of stored images,
    which do not fit, they are computed when needed: a transform takes less time than reading k-space, which is twice as large, from a
    disk.

    Parameters
    ----------
    images
        ``(N, C, *samples)`` float32 or complex64, in any unit: a tensor, or the stored images of a data set.
    device
        Where to keep and return them.
    keep
        Whether to keep both; by default where ``images`` is a tensor.
    axes
        Those that the Fourier transform goes over, counted from the last: three of volumes.

    Attributes
    ----------
    images
        As they were given.
    unit
        What the images were divided by, a power of two, so that nothing is rounded. The largest value (of stored images: among the
        first 32) becomes 1 to 2.

    >>> kspace, magnitude = Measurements(torch.ones(3, 1, 4, 4))[[0, 2]]
    >>> kspace.shape, kspace[0, 0, 2, 2].abs().item(), magnitude.max().item()    # everything is at DC
    (torch.Size([2, 1, 4, 4]), 4.0, 1.0)
    """

    def __init__(
        self, images: Tensor, device: torch.device | str = "cpu", keep: bool | None = None, axes: tuple[int, ...] = IMAGE_AXES
    ) -> None:
        self.axes = axes
        in_memory = isinstance(images, Tensor)
        peak = _largest(images if in_memory else images[:TRANSFORM_CHUNK])
        if peak == math.inf:
            raise InputError("images: have values too large for single precision; divide them by a unit")
        self.unit = 2.0 ** math.floor(math.log2(peak)) if peak > 0 else 1.0
        self.device = device
        self.images, self._kept, self._arrays = images, None, None
        if in_memory if keep is None else keep:
            kspace, magnitude = torch.empty(images.shape, dtype=torch.complex64, device=device), images
            alike = in_memory and self.unit == 1 and images.dtype == torch.float32 and images.device == kspace.device
            if not alike or images.min() < 0:
                magnitude = torch.empty(images.shape, dtype=torch.float32, device=device)
            for start in range(0, len(images), PREPARATION_CHUNK):  # piece by piece: the transform's copies would double the memory
                block = slice(start, start + PREPARATION_CHUNK)
                kspace[block], made = self._make(block)
                if magnitude is not images:
                    magnitude[block] = made
            self._kept = kspace, magnitude.contiguous()
            if not asynchronous(kspace):  # of the same memory
                self._arrays = torch.view_as_real(kspace).flatten(2).numpy(), self._kept[1].flatten(2).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def are_of(self, images: Tensor) -> bool:
        """Whether these are the images, to the bit."""
        if self.images is images:
            return True
        alike = self.images.shape == images.shape and self.images.dtype == images.dtype
        starts = range(0, len(images), TRANSFORM_CHUNK)
        return alike and all(torch.equal(self.images[at : at + TRANSFORM_CHUNK], images[at : at + TRANSFORM_CHUNK]) for at in starts)

    @property
    def encoding(self) -> FourierUpToPhase:
        """What made this k-space of the images, up to a phase of the images."""
        return FourierUpToPhase(self.samples, self.axes)

    @property
    def kept(self) -> bool:
        """Whether k-space and magnitudes are in memory."""
        return self._kept is not None

    @property
    def shape(self) -> torch.Size:
        """``(N, C, *samples)``."""
        return self.images.shape

    @property
    def samples(self) -> tuple[int, ...]:
        """Shape of a mask: ``(H, W)``, or with partitions or frames before them."""
        return tuple(self.images.shape[2:])

    def __getitem__(self, block: slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """K-space and magnitude images ``(B, C, *samples)`` of these entries."""
        return self._make(block) if self._kept is None else (self._kept[0][block], self._kept[1][block])

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """K-space as pairs ``(C, 2 n)`` and magnitudes ``(C, n)`` of n samples of one entry on a CPU, for :mod:`prom.engine.kernels`."""
        if self._arrays:
            return self._arrays[0][index], self._arrays[1][index]
        kspace, magnitude = self._make(slice(index, index + 1))
        return torch.view_as_real(kspace[0]).flatten(1).numpy(), magnitude[0].flatten(1).numpy()

    def _make(self, block: slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        where = block.tolist() if isinstance(block, Tensor) else block
        images = self.images[where].to(self.device) / self.unit
        return self.encoding.samples_of(images), images.abs()

    def power(self, most: int | None = None) -> Tensor:
        """``(*samples)``, centred: the mean of :math:`|x_k|^2` over images and channels, in units of ``unit`` squared.

        ``most``: of no more images than this, evenly spaced.
        """
        total = torch.zeros(self.samples, dtype=torch.float32, device=self.device)
        chosen = evenly(len(self), most)
        for index in tqdm(chosen, desc="mean power spectrum", delay=2, disable=None, leave=False):
            kspace, _ = self[index : index + 1]  # image by image: the powers of all of them would be another copy of the data
            total += (kspace.real.square() + kspace.imag.square()).mean(dim=(0, 1))
        return total * (1 / len(chosen))


def _largest(images: Tensor) -> float:
    """The largest magnitude, without a copy of all of them."""
    return max(float(piece.abs().max()) for piece in images.split(PREPARATION_CHUNK))


def evenly(count: int, most: int | None) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spaced; all of them where ``most`` is None.

    >>> evenly(5, 3), evenly(3, None)
    ([0, 2, 4], [0, 1, 2])
    """
    return torch.linspace(0, count - 1, min(count if most is None else most, count), dtype=torch.float64).long().tolist()
