"""Conjugate gradients for one image of several coils on a CPU: few coils at a time, so that they stay in cache, few passes over memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CACHED = 2**16  # samples of coils that are transformed at once: 512 kB. Fewer would take more calls, and threads wait at each for Python


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
    from prom.engine.kernels import add_coils, add_penalty, add_rows, descend, pairs, to_coils, turn, weigh

    axes = tuple(range(1 - maps.ndim, 0))  # those of space, which coils see; frames have each its own weight
    frames = 1 if right.ndim == len(axes) else len(right)
    twice = tuple(weight.shape[-len(axes) :]) if weight.numel() > right.numel() else None
    # Along an axis on which all weights are equal, as along columns, the two transforms of the coils would undo each other. That is used
    # for the first axes alone: without the last one PyTorch leaves what it returns in another order.
    across = axes
    while not twice and len(across) > 1 and bool((weight == weight.narrow(across[0], 0, 1)).all()):
        across = across[1:]
    count = math.prod(weight.shape[axis] for axis in across)
    weight = weight / (right.numel() * count)  # the scale of all four transforms, which then have none
    weight = weight.reshape(frames, -1).repeat_interleave(2, dim=1).numpy()
    penalty, scale = (part.flatten().repeat_interleave(2).numpy() for part in (penalty, scale))
    groups = [(pairs(part), torch.empty_like(part)) for part in maps.split(max(1, CACHED * frames // right.numel()))]
    groups = [(part, room, pairs(room)) for part, room in groups]
    found, rest, direction, total = torch.zeros_like(right), right.clone(), torch.zeros_like(right), torch.empty_like(right)
    x, r, d, s = (pairs(part) for part in (found, rest, direction, total))  # the memory of these, and of no others
    sums = s.reshape(frames, -1)
    turn(np.float32(0), scale, r, d)
    size = float((r * scale).astype("float64") @ r.astype("float64"))
    enough = tolerance**2 * float(right.abs().double().square().sum())
    for _ in range(iterations):
        image = pairs(torch.fft.ifftn(direction, norm="forward")).reshape(frames, -1)
        total.zero_()
        for frame in range(frames):
            for part, room, rooms in groups:
                to_coils(part, image[frame], rooms)
                if twice is None:
                    seen = torch.fft.fftn(room, dim=across)  # into memory of its own: with out= PyTorch copies
                    weigh(pairs(seen), weight[frame])
                    add_coils(part, pairs(torch.fft.ifftn(seen, dim=across, norm="forward")), sums[frame])
                else:
                    seen = padded(room, axes, twice)
                    weigh(pairs(seen), weight[frame])
                    add_rows(part, pairs(cropped(seen, axes)), sums[frame], 2 * right.shape[-1])
        image = pairs(torch.fft.fftn(total))
        length = add_penalty(penalty, d, image)
        if not length > 0:
            break
        square, after = descend(np.float32(size / length), d, image, scale, x, r)
        if square <= enough:
            break
        turn(np.float32(after / size), scale, r, d)
        size = after
    return found


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
