"""Conjugate gradients for one image of several coils on a CPU: coil by coil, so that they stay in cache, in few passes over memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prom.engine.transforms import plan

CACHED = 2**16  # pixels of coils that are transformed at once off the grid, on one twice as large along each axis: 2 MB in the plane


def solve(maps: Tensor, weight: Tensor, penalty: Tensor, scale: Tensor, right: Tensor, iterations: int, tolerance: float) -> Tensor:
    r"""z of :math:`(F E^H W E F^H + r) z = b` for the transform without shifts: complex64 like b, all else contiguous on a CPU.

    Off the grid, the weight is that of a grid twice as large (:meth:`prom.kspace.nonuniform.NonUniform.multiplier`).

    Parameters
    ----------
    maps
        ``(K, H, W)`` complex64, or ``(K, D, H, W)`` of a volume.
    weight, penalty, scale
        ``(H, W)`` float32, or as b: w; r; and what the residual is multiplied by before each step.
    right
        b, complex64: ``(H, W)``, ``(D, H, W)``, or ``(T, H, W)`` of a series, whose F has one more transform, over time.
    iterations, tolerance
        At most so many steps, fewer where the residual is no longer than this share of b.

    >>> maps, ones = torch.ones(1, 4, 4, dtype=torch.complex64), torch.ones(4, 4)
    >>> solve(maps, ones, ones, ones, torch.ones(4, 4, dtype=torch.complex64), 5, 0.0)[0, 0]       # half of b
    tensor(0.5000+0.j)
    """
    from prom.engine.kernels import advance, descend, flat, pairs, turn

    axes = tuple(range(1 - maps.ndim, 0))  # those of space, which coils see; frames have each its own weight
    frames = 1 if right.ndim == len(axes) else len(right)
    twice = tuple(weight.shape[-len(axes) :]) if weight.numel() > right.numel() else None
    # Along an axis on which all weights are equal, as along columns, the two transforms of the coils would undo each other. That is used
    # for the first axes alone: a plan is over the last ones.
    across = axes
    while not twice and len(across) > 1 and bool((weight == weight.narrow(across[0], 0, 1)).all()):
        across = across[1:]
    count = math.prod(weight.shape[axis] for axis in across)
    weight = weight / (right.numel() * count)  # the scale of all four transforms, which then have none
    weight, penalty, scale = weight.reshape(frames, -1).numpy(), flat(penalty), flat(scale)
    found, rest, direction, total = torch.zeros_like(right), right.clone(), torch.zeros_like(right), torch.zeros_like(right)
    x, r, d, image = (pairs(part) for part in (found, rest, direction, total))  # the memory of these, and of no others
    normal = _on_larger_grid(maps, weight, direction, total, twice) if twice else _on_grid(maps, weight, direction, total, len(across))
    square, size = descend(np.float32(0), d, image, scale, x, r)  # no step yet
    enough = tolerance**2 * square
    turn(np.float32(0), scale, r, d)
    for _ in range(iterations):
        normal()
        size, square = advance(size, penalty, scale, d, image, x, r)
        if not square > enough:
            break
    return found


def _on_grid(maps: Tensor, weight: np.ndarray, direction: Tensor, total: Tensor, axes: int) -> Callable[[], None]:
    """What makes ``total`` :math:`F E^H W E F^H` of the direction, where coils are transformed along the last ``axes`` axes."""
    from prom.engine.kernels import normal, pairs

    image, room = torch.empty_like(direction), torch.empty_like(maps[0])
    plans = plan(image.shape, image.ndim), plan(room.shape, axes)
    return partial(normal, *plans, pairs(maps), weight, *(pairs(part) for part in (direction, image, room, total)))


def _on_larger_grid(maps: Tensor, weight: np.ndarray, direction: Tensor, total: Tensor, sizes: tuple[int, ...]) -> Callable[[], None]:
    """The same off the grid, where the weight is that of a grid twice as large, of these sizes."""
    from prom.engine.kernels import add_rows, forward, pairs, to_coils, weigh

    axes, width = tuple(range(-len(sizes), 0)), 2 * maps.shape[-1]
    groups = [(pairs(part), torch.empty_like(part)) for part in maps.split(max(1, CACHED // maps[0].numel()))]
    of_image = plan(total.shape, total.ndim)

    def normal() -> None:
        image = pairs(torch.fft.ifftn(direction, norm="forward")).reshape(len(weight), -1)
        total.zero_()
        sums = pairs(total).reshape(len(weight), -1)
        for frame in range(len(weight)):
            for part, room in groups:
                to_coils(part, image[frame], pairs(room))
                seen = padded(room, axes, sizes)
                weigh(pairs(seen), weight[frame])
                add_rows(part, pairs(cropped(seen, axes)), sums[frame], width)
        forward(of_image, pairs(total))

    return normal


def padded(images: Tensor, axes: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """The transform of images with zeros after them, ``(K, 2 H, 2 W)``: axis by axis from the last, so that rows of zeros have none.

    >>> image = torch.rand(3, 4, 6) + 0j
    >>> torch.allclose(padded(image, (-2, -1), (8, 12)), torch.fft.fft2(image, s=(8, 12)), atol=1e-6)
    True
    """
    for axis, size in zip(reversed(axes), reversed(sizes), strict=True):
        images = torch.fft.fft(images, n=size, dim=axis)
    return images.contiguous()  # PyTorch may leave the axes in another order


def cropped(samples: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The inverse transform without a scale, of which the first half of each axis is kept, but for the last, which stays as it is.

    >>> samples = torch.rand(3, 8, 12) + 0j
    >>> torch.allclose(cropped(samples, (-2, -1)), torch.fft.ifft2(samples, norm="forward")[:, :4], atol=1e-4)
    True
    """
    for axis in axes[:-1]:
        samples = torch.fft.ifft(samples, dim=axis, norm="forward").narrow(axis, 0, samples.shape[axis] // 2)
    return torch.fft.ifft(samples, dim=-1, norm="forward").contiguous()
