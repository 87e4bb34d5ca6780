"""What every operator is checked with: adjoint, unitary, gradient, feasible. Each says what does not hold by failing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def inner(one: Tensor, two: Tensor) -> Tensor:
    """<one, two>, the first conjugated."""
    return torch.vdot(one.flatten(), two.flatten())


def adjoint(forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor], domain: Tensor, range_: Tensor) -> None:
    """<A x, y> = <x, A^H y> for these x and y."""
    torch.testing.assert_close(inner(forward(domain), range_), inner(domain, backward(range_)))


def unitary(forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor], domain: Tensor) -> None:
    """A^H A x = x, and lengths stay."""
    torch.testing.assert_close(backward(forward(domain)), domain)
    torch.testing.assert_close(forward(domain).norm(), domain.norm())


def gradient(function: Callable[[Tensor], Tensor], by_formula: Tensor, at: Tensor, step: float = 1e-6, tolerance: float = 1e-6) -> None:
    """A scalar's gradient against central differences in 20 directions. In float64."""
    for seed in range(20):
        direction = noise(*at.shape, seed=seed, dtype=at.dtype)
        difference = (function(at + step * direction) - function(at - step * direction)) / (2 * step)
        torch.testing.assert_close((by_formula * direction).sum(), difference, rtol=tolerance, atol=tolerance)


def feasible(theta: Tensor, budget: float, mandatory: Tensor | None = None, forbidden: Tensor | None = None) -> None:
    """0 <= theta <= 1, the sum within the budget, demands met. To rounding of float32."""
    assert (theta >= 0).all() and (theta <= 1).all() and theta.double().sum() <= budget * (1 + 1e-6)
    assert mandatory is None or (theta[mandatory] == 1).all()
    assert forbidden is None or (theta[forbidden] == 0).all()
