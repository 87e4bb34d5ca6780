"""Transforms in which images are sparse: orthogonal wavelets, and differences of neighbouring pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
import pywt
import torch
from torch import Tensor

from prom.errors import InputError, unknown
from prom.kspace.fourier import fft2c

LEVELS = 4


class Wavelets:
    r"""The orthogonal discrete wavelet transform, with periodic ends: Mallat 1989, doi:10.1109/34.192463.

    One level is :math:`L x L^T`, along rows and columns, with L the orthonormal matrix of low-pass over high-pass filter; the next level
    is that of the quarter that passed the low-pass twice. Coefficients are those of PyWavelets with ``mode="periodization"``.

    Parameters
    ----------
    shape
        ``(H, W)``. Levels end where a size is odd, or shorter than the filter.
    wavelet
        An orthogonal one of PyWavelets: "haar", "db4", "sym8", ...
    levels
        At most so many.
    dtype, device
        Of the images.

    Attributes
    ----------
    members
        ``(bands, H, W)``: 1 where a coefficient is of a band, 0 elsewhere. The coarsest approximation is no band.
    spectra
        ``(bands, H, W)``, centred: the power of a band's filter at each spatial frequency.

    Raises
    ------
    InputError
        Where the wavelet is not known or not orthogonal, or the sizes allow no level.

    >>> transform, image = Wavelets((16, 12), "haar"), torch.randn(16, 12, dtype=torch.complex64)
    >>> found = transform.forward(image)
    >>> found.shape, torch.allclose(transform.adjoint(found), image, atol=1e-5)
    (torch.Size([1, 16, 12]), True)
    """

    def __init__(
        self,
        shape: tuple[int, int],
        wavelet: str = "db4",
        levels: int = LEVELS,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> None:
        filters = orthogonal(wavelet)
        self._matrices = []
        bands = []
        height, width = shape
        while len(self._matrices) < levels and height % 2 == width % 2 == 0 and min(height, width) >= filters.dec_len:
            self._matrices.append([_level(n, wavelet).to(device, dtype) for n in (height, width)])
            height, width = height // 2, width // 2
            bands += [(slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width)) for y, x in ((0, 1), (1, 0), (1, 1))]
        if not bands:
            raise InputError(
                f"wavelet {wavelet}: images of {shape[0]} x {shape[1]} must have even sizes of at least {filters.dec_len}; use tv"
            )
        self.members = torch.zeros(len(bands), *shape, dtype=dtype.to_real(), device=device)
        one = torch.zeros(len(bands), 1, *shape, dtype=dtype, device=device)
        for number, (rows, columns) in enumerate(bands):
            self.members[number, rows, columns] = 1
            one[number, 0, rows.start, columns.start] = 1
        self.spectra = fft2c(self.adjoint(one)).abs().square()  # shifts change none

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)`` to coefficients ``(..., 1, H, W)``, coarse ones at the upper left."""
        found = image.clone()
        for rows, columns in self._matrices:
            corner = (..., slice(len(rows)), slice(len(columns)))
            found[corner] = rows @ found[corner] @ columns.T
        return found.unsqueeze(-3)

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """The other way, which is the inverse."""
        found = coefficients.squeeze(-3).clone()
        for rows, columns in reversed(self._matrices):
            corner = (..., slice(len(rows)), slice(len(columns)))
            found[corner] = rows.T @ found[corner] @ columns
        return found


class Differences:
    """Of each pixel and the next, down and to the right, with periodic ends: the gradient of which isotropic total variation is made.

    Rudin, Osher and Fatemi 1992, doi:10.1016/0167-2789(92)90242-F. Parameters and attributes as of :class:`Wavelets`.

    >>> Differences((2, 3)).forward(torch.eye(2, 3)).tolist()
    [[[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]], [[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]]
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype = torch.complex64, device: torch.device | str = "cpu") -> None:
        self.members = torch.ones(1, *shape, dtype=dtype.to_real(), device=device)
        one = torch.zeros(2, 2, *shape, dtype=dtype, device=device)
        one[0, 0, 0, 0] = one[1, 1, 0, 0] = 1
        self.spectra = fft2c(self.adjoint(one)).abs().square().sum(dim=0, keepdim=True)

    def forward(self, image: Tensor) -> Tensor:
        """``(..., H, W)`` to ``(..., 2, H, W)``."""
        return torch.stack([image.roll(-1, axis) - image for axis in (-2, -1)], dim=-3)

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """The other way: minus the divergence."""
        down, right = coefficients.unbind(dim=-3)
        return down.roll(1, -2) - down + right.roll(1, -1) - right


def orthogonal(wavelet: str) -> pywt.Wavelet:
    """The wavelet of this name.

    >>> orthogonal("bior2.2")
    Traceback (most recent call last):
    prom.errors.InputError: wavelet bior2.2: is not orthogonal; use db4, for example
    """
    if wavelet not in pywt.wavelist(kind="discrete"):
        raise unknown("wavelet", wavelet, pywt.wavelist(kind="discrete"))
    found = pywt.Wavelet(wavelet)
    low = np.array(found.dec_lo)
    overlaps = [low[: len(low) - shift] @ low[shift:] for shift in range(0, len(low), 2)]
    if not found.orthogonal or not np.allclose(overlaps, np.eye(1, len(overlaps))[0], atol=1e-6):  # dmey is, to half a per cent
        raise InputError(f"wavelet {wavelet}: is not orthogonal; use db4, for example")
    return found


@cache
def _level(size: int, wavelet: str) -> Tensor:
    """Low-pass over high-pass: ``(size, size)`` float64."""
    return torch.from_numpy(np.concatenate(pywt.dwt(np.eye(size), wavelet, mode="periodization", axis=0)))
