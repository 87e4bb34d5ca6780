"""Preconditioned conjugate gradients for many images at once, each with steps of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

IMAGE = (-2, -1)


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], scale: Tensor, right: Tensor, iterations: int, tolerance: float, start: Tensor | None = None
) -> Tensor:
    r"""z with :math:`A z = b`, for a symmetric positive matrix A: Hestenes and Stiefel 1952, doi:10.6028/jres.049.044.

    Lengths and angles are those of real vectors, :math:`\mathrm{Re} \sum \bar u v`, so that A may be linear over the real numbers only.

    Parameters
    ----------
    normal
        A, of images.
    scale
        What multiplies the residual before it becomes a direction: about the inverse of A's diagonal, real, > 0.
    right
        b: ``(..., H, W)`` complex.
    iterations
        At most so many.
    tolerance
        Enough where no residual is above this share of b.
    start
        Where to begin, of b's shape; by default 0.

    >>> right = torch.randn(2, 4, 4, dtype=torch.complex64)
    >>> torch.allclose(conjugate_gradients(lambda z: 3 * z, torch.ones(4, 4), right, 5, 1e-6), right / 3)
    True
    """
    found, rest = (torch.zeros_like(right), right) if start is None else (start, right - normal(start))
    direction = scaled = scale * rest
    size = _product(rest, scaled)
    enough = tolerance**2 * _product(right, right)
    for _ in range(iterations):
        image = normal(direction)
        step = _ratio(size, _product(direction, image))
        found = found + step * direction
        rest = rest - step * image
        if bool((_product(rest, rest) <= enough).all()):
            break
        scaled = scale * rest
        last, size = size, _product(rest, scaled)
        direction = scaled + _ratio(size, last) * direction
    return found


def _product(one: Tensor, two: Tensor) -> Tensor:
    """The real part of <one, two> of each image, ``(..., 1, 1)``."""
    return (one.real * two.real + one.imag * two.imag).sum(dim=IMAGE, keepdim=True)


def _ratio(one: Tensor, two: Tensor) -> Tensor:
    """one / two, 0 where both have become 0; the second ``where`` keeps autograd from dividing there."""
    return torch.where(two > 0, one / torch.where(two > 0, two, 1), 0)
