"""Preconditioned conjugate gradients for many images at once, each with steps of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

IMAGE = (-2, -1)


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor],
    scale: Tensor,
    right: Tensor,
    iterations: int,
    tolerance: float,
    start: Tensor | None = None,
    image: tuple[int, ...] = IMAGE,
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
    image
        The axes of one image, counted from the last; all others are a batch.

    >>> right = torch.randn(2, 4, 4, dtype=torch.complex64)
    >>> torch.allclose(conjugate_gradients(lambda z: 3 * z, torch.ones(4, 4), right, 5, 1e-6), right / 3)
    True
    """
    found, rest = (torch.zeros_like(right), right) if start is None else (start, right - normal(start))
    direction = scaled = scale * rest
    size = _product(rest, scaled, image)
    enough = tolerance**2 * _product(right, right, image)
    for _ in range(iterations):
        mapped = normal(direction)
        step = _ratio(size, _product(direction, mapped, image))
        found = found + step * direction
        rest = rest - step * mapped
        if bool((_product(rest, rest, image) <= enough).all()):
            break
        scaled = scale * rest
        last, size = size, _product(rest, scaled, image)
        direction = scaled + _ratio(size, last) * direction
    return found


def _product(one: Tensor, two: Tensor, image: tuple[int, ...]) -> Tensor:
    """The real part of <one, two> of each image, with its axes kept, of length 1."""
    return (one.real * two.real + one.imag * two.imag).sum(dim=image, keepdim=True)


def _ratio(one: Tensor, two: Tensor) -> Tensor:
    """one / two, 0 where both have become 0; the second ``where`` keeps autograd from dividing there."""
    return torch.where(two > 0, one / torch.where(two > 0, two, 1), 0)
