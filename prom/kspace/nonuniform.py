"""The transform of an image at spatial frequencies off the grid: spokes, spirals, any trajectory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prom.engine.optional import finufft
from prom.errors import InputError
from prom.kspace.fourier import modulation

ACCURACY = {torch.complex64: 1e-5, torch.complex128: 1e-12}  # of the library's approximation, relative: about what single precision loses
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
COMPLEX = {real: complex_type for complex_type, real in REAL.items()}


def kept(function: Callable[[Any], Any]) -> Any:
    """A property that is computed once, whatever the mode: what is made in inference mode, or keeps a graph, would stop later gradients."""
    return cached_property(torch.inference_mode(False)(torch.no_grad()(function)))


@dataclass(frozen=True, eq=False)
class NonUniform:
    r"""An image's transform at any spatial frequencies, orthonormal, and on the grid equal to :class:`prom.kspace.encoding.Fourier`:

    .. math:: (F x)_s = \frac{1}{\sqrt{N}} \sum_n x_n \exp \Big( -2 \pi i \sum_a k_{s,a} (n_a - \lfloor N_a / 2 \rfloor) / N_a \Big), \quad
              N = \prod_a N_a .

    It is computed by FINUFFT (Barnett, Magland and af Klinteberg 2019, doi:10.1137/18M120885X), on the CPU, wherever the image is.

    Parameters
    ----------
    trajectory
        k: ``(*samples, axes)`` float32, in cycles per field of view, so that whole numbers are the points of the grid; the last index
        counts the axes of an image, rows first. Candidates of readouts have samples ``(K, R)``, those of volumes ``(1, K, R)``, and of
        the frames of a series ``(T, K, R)``: as many axes as the images.
    image
        Shape of the images.

    Raises
    ------
    InputError
        Where shapes do not fit each other, or a spatial frequency is not finite or beyond the image's resolution.

    >>> from prom.kspace.encoding import Fourier
    >>> image, grid = torch.randn(5, 6, dtype=torch.complex128), Fourier((5, 6))
    >>> encoding = NonUniform(grid.locations.float(), (5, 6))
    >>> torch.allclose(encoding.forward(image), grid.forward(image))
    True
    >>> torch.allclose(encoding.adjoint(grid.forward(image)), image)
    True
    """

    trajectory: Tensor
    image: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.trajectory.shape)
        if len(shape) != len(self.image) + 1 or shape[-1] not in (2, 3) or shape[-1] > len(self.image):
            raise InputError(f"trajectory of shape {shape}: must have samples of {len(self.image)} axes, then 2 or 3 spatial frequencies")
        if shape[: len(self.image) - shape[-1]] != tuple(self.image[: -shape[-1]]):
            raise InputError(
                f"trajectory of shape {shape}: is of other frames than images of {tuple(self.image)}; give it for each of them"
            )
        sizes = torch.tensor(self.image[-shape[-1] :])
        if not self.trajectory.isfinite().all() or bool((self.trajectory.abs() > sizes / 2 + 1e-3).any()):
            largest = float(self.trajectory.abs().max())
            raise InputError(
                f"trajectory: goes to {largest:g} cycles per field of view, and images of {tuple(self.image)} have half their size at "
                "most; take larger images, or leave out its ends"
            )

    @property
    def samples(self) -> tuple[int, ...]:
        """Shape of what is measured, on which masks lie."""
        return tuple(self.trajectory.shape[:-1])

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of an image, counted from the last."""
        return tuple(range(-self.trajectory.shape[-1], 0))

    @property
    def locations(self) -> Tensor:
        """Cycles per field of view: the trajectory."""
        return self.trajectory

    def forward(self, image: Tensor) -> Tensor:
        """``(..., *image)``, real or complex, to ``(..., *samples)`` complex."""
        return self._scaled(_complex(image), True)

    def adjoint(self, samples: Tensor) -> Tensor:
        """``(..., *samples)`` complex to complex images ``(..., *image)``, so that <forward(x), y> = <x, adjoint(y)>."""
        return self._scaled(_complex(samples), False)

    @kept
    def phase(self) -> Tensor:
        """What an image is multiplied by where its transform along its own axes needs no shift: :func:`prom.kspace.fourier.modulation`."""
        return modulation(self.image)

    def spread(self, weight: Tensor) -> Tensor:
        r"""The point-spread function of weights w at the samples, at all distances between two pixels: ``(..., 2 H, 2 W)`` complex.

        .. math:: t(l) = \frac{1}{N} \sum_s w_s \, e^{2 \pi i \sum_a k_{s,a} l_a / N_a}, \quad -N_a < l_a < N_a,

        distance 0 first, so that :math:`F^H W F` is a convolution with it (Toeplitz). The distance :math:`N_a` itself, which no two
        pixels have, is 0.

        >>> NonUniform(torch.zeros(1, 1, 2), (2, 2)).spread(torch.ones(1, 1)).real               # of the mean of an image: 1 / 4
        tensor([[0.2500, 0.2500, 0.0000, 0.2500],
                [0.2500, 0.2500, 0.0000, 0.2500],
                [0.0000, 0.0000, 0.0000, 0.0000],
                [0.2500, 0.2500, 0.0000, 0.2500]])
        """
        found = _Transform.apply(weight.to(COMPLEX.get(weight.dtype, torch.complex64)), self, False, self.twice) / self._pixels
        for axis in self.axes:
            found = found.index_fill(axis, torch.zeros(1, dtype=torch.int64, device=found.device), 0)
        return torch.fft.ifftshift(found, dim=self.axes)

    def multiplier(self, weight: Tensor) -> Tensor:
        """What :math:`F^H W F` is on a grid twice as large, padded with zeros: ``(..., 2 H, 2 W)`` real, of images times :attr:`phase`.

        >>> encoding, image = NonUniform(6 * torch.rand(7, 8, 2) - 3, (6, 6)), torch.randn(6, 6, dtype=torch.complex64)
        >>> weight, phase = torch.rand(7, 8), encoding.phase.to(image)
        >>> padded = torch.fft.ifft2(encoding.multiplier(weight) * torch.fft.fft2(phase * image, s=(12, 12)))[:6, :6]
        >>> torch.allclose(padded / phase, encoding.adjoint(weight * encoding.forward(image)), atol=1e-4)
        True
        """
        return self.multiplier_of(self.spread(weight))

    def multiplier_of(self, spread: Tensor) -> Tensor:
        """:meth:`multiplier` of what :meth:`spread` made."""
        return torch.fft.fftn(spread * self._modulation.to(spread), dim=self.axes).real

    def on_grid(self, kernel: Tensor) -> Tensor:
        """The transform of a function of the distance between two pixels, ``(..., 2 H, 2 W)``, to whole frequencies: ``(..., H, W)`` real.

        >>> NonUniform(torch.zeros(1, 1, 2), (2, 2)).on_grid(torch.ones(4, 4) + 0j)                # even: all of it at DC
        tensor([[ 0.,  0.],
                [ 0., 16.]])
        """
        folded = kernel * self._modulation.to(kernel)
        for axis in self.axes:
            folded = sum(folded.chunk(2, dim=axis))
        return torch.fft.fftn(folded, dim=self.axes).real

    @kept
    def _modulation(self) -> Tensor:
        """:attr:`phase` of space alone, of the distance between two pixels, 0 first."""
        steps = [torch.fft.fftfreq(2 * self.image[axis], 1 / (2 * self.image[axis])) for axis in self.axes]
        turns = [step.double() * (self.image[axis] // 2) / self.image[axis] for axis, step in zip(self.axes, steps, strict=True)]
        angles = sum(torch.meshgrid(*turns, indexing="ij"))
        return torch.polar(torch.ones_like(angles), 2 * math.pi * angles)

    @property
    def twice(self) -> tuple[int, ...]:
        """The sizes of the grid on which :math:`F^H W F` is a product."""
        return tuple(2 * self.image[axis] for axis in self.axes)

    def _scaled(self, values: Tensor, forward: bool) -> Tensor:
        return _Transform.apply(values, self, forward, tuple(self.image[axis] for axis in self.axes)) / math.sqrt(self._pixels)

    @property
    def _pixels(self) -> int:
        return math.prod(self.image[axis] for axis in self.axes)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}  # which cannot be copied

    @cached_property
    def _plans(self) -> threading.local:
        return threading.local()  # a plan has memory of its own, so each thread makes its own


class _Transform(torch.autograd.Function):
    """The plain sums, which are linear, so that the way back of a gradient is the adjoint."""

    @staticmethod
    def forward(ctx: object, values: Tensor, encoding: NonUniform, forward: bool, modes: tuple[int, ...]) -> Tensor:
        ctx.given = encoding, not forward, modes
        return _run(encoding, values, forward, modes)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Transform.apply(gradient, *ctx.given), None, None, None


def _complex(values: Tensor) -> Tensor:
    """As complex numbers of the same precision, or of single where they are whole."""
    return values if values.is_complex() else values.to(COMPLEX.get(values.dtype, torch.complex64))


def _run(encoding: NonUniform, values: Tensor, forward: bool, modes: tuple[int, ...]) -> Tensor:
    """The plain sums, without a scale: from images of this many modes to samples, or from samples to images."""
    space = len(modes)
    frames = encoding.samples[: len(encoding.image) - space]  # of a series, each with samples of its own
    source = (*frames, *modes) if forward else encoding.samples
    batch = values.shape[: values.ndim - len(source)]
    flat = values.detach().cpu().resolve_conj().reshape(-1, *source).numpy()
    if frames:
        parts = [_execute(encoding, flat[:, frame], forward, modes, frame) for frame in range(frames[0])]
        made = np.stack(parts, axis=1)
    else:
        made = _execute(encoding, flat, forward, modes, None)
    target = encoding.samples if forward else (*frames, *modes)
    return torch.from_numpy(made).reshape(*batch, *target).to(values.device)


def _execute(encoding: NonUniform, flat: np.ndarray, forward: bool, modes: tuple[int, ...], frame: int | None) -> np.ndarray:
    points = encoding.trajectory if frame is None else encoding.trajectory[frame]
    points = points.reshape(-1, len(modes))
    flat = np.ascontiguousarray(flat.reshape(len(flat), *(modes if forward else (len(points),))))
    found = _plan(encoding, points, forward, modes, frame, len(flat), flat.dtype).execute(flat)
    samples = encoding.samples if frame is None else encoding.samples[1:]
    return found.reshape(len(flat), *(samples if forward else modes))


def _plan(encoding: NonUniform, points: Tensor, forward: bool, modes: tuple[int, ...], frame: int | None, count: int, dtype: np.dtype):
    """The library's plan, kept by each thread for calls of the same kind."""
    plans = encoding._plans.__dict__
    key = (forward, modes, frame, count, dtype.str, torch.get_num_threads())
    if key not in plans:
        library = finufft()
        complex_type = torch.from_numpy(np.empty(0, dtype)).dtype
        plan = library.Plan(
            2 if forward else 1,
            modes,
            count,
            ACCURACY[complex_type],
            -1 if forward else 1,
            dtype=dtype,
            nthreads=torch.get_num_threads(),
        )
        sizes = torch.tensor([encoding.image[axis] for axis in encoding.axes], dtype=torch.float64)
        angles = (2 * math.pi * points.double() / sizes).to(REAL[complex_type]).numpy()
        plan.setpts(*(np.ascontiguousarray(angles[:, axis]) for axis in range(len(modes))))
        plans[key] = plan
    return plans[key]
