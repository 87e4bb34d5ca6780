"""The projection is the nearest feasible point: against a quadratic-programme solver, by its KKT conditions, and at the edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prom import InputError, project
from prom.masks.projection import _multiplier, dual_slope

vectors = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e3, 1e3, allow_subnormal=False))
shares = st.floats(0, 1)


def by_quadratic_programme(theta: np.ndarray, budget: float) -> np.ndarray:
    """Minimise |x - theta|^2 / 2 under sum x <= S and 0 <= x <= 1."""
    size = len(theta)
    constraints = np.hstack([-np.ones((size, 1)), np.eye(size), -np.eye(size)])
    bounds = np.concatenate([[-budget], np.zeros(size), -np.ones(size)])
    return quadprog.solve_qp(np.eye(size), theta, constraints, bounds)[0]


@pytest.mark.parametrize("seed", range(40))
def test_equals_a_quadratic_programme(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 80))
    theta = generator.normal(0.3, generator.choice([0.2, 1.0, 5.0]), size)
    budget = float(generator.uniform(0.05, 0.95) * size)
    ours = project(torch.from_numpy(theta), budget).numpy()
    np.testing.assert_allclose(ours, by_quadratic_programme(theta, budget), atol=1e-6)


@given(vectors, shares)
def test_feasible_idempotent_and_optimal(values, share):
    theta, budget = torch.from_numpy(values), share * len(values)
    result = project(theta, budget)
    assert result.min() >= 0 and result.max() <= 1 and result.sum() <= budget + 1e-6
    torch.testing.assert_close(project(result, budget), result, atol=1e-9, rtol=0)
    # KKT: one multiplier >= 0 explains every coordinate, and it is 0 where the budget does not bind.
    multiplier = _multiplier(theta, budget) if budget else theta.max().clamp(min=0)
    torch.testing.assert_close(result, (theta - multiplier).clamp(0, 1), atol=1e-9, rtol=0)
    assert multiplier >= 0 and float(multiplier) * abs(float(result.sum()) - budget) < 1e-5


@given(vectors, vectors, shares)
def test_nonexpansive(first, second, share):
    size = min(len(first), len(second))
    first, second = torch.from_numpy(first[:size]), torch.from_numpy(second[:size])
    projected = project(first, share * size) - project(second, share * size)
    assert projected.norm() <= (first - second).norm() + 1e-6


@given(vectors, shares)
def test_order_is_kept(values, share):
    theta = torch.from_numpy(values)
    result = project(theta, share * len(values))
    assert (result[theta.argsort()].diff() >= 0).all()


@pytest.mark.parametrize(
    ("theta", "budget", "expected"),
    [
        ([0.3, 0.9], 0, [0.0, 0.0]),
        ([5.0, -5.0, 0.5], 3, [1.0, 0.0, 0.5]),
        ([0.5, 0.5, 0.5, 0.5], 1, [0.25] * 4),  # ties share the budget
        ([7.0, 7.0, 7.0], 3, [1.0, 1.0, 1.0]),
        ([-1.0, -2.0], 1, [0.0, 0.0]),
        ([1e8, 1e8, -1e8], 1, [0.5, 0.5, 0.0]),
        ([1.0, 1.0, 0.0, 0.0], 2, [1.0, 1.0, 0.0, 0.0]),  # already there, with an empty interior
    ],
)
def test_edges(theta, budget, expected):
    torch.testing.assert_close(project(torch.tensor(theta, dtype=torch.float64), budget).tolist(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["uniform", "heavy tails", "far outside", "binary"])
@pytest.mark.parametrize("size", [65_536, 10_000_000])
def test_large(kind, size):
    generator = torch.Generator().manual_seed(1)
    theta = torch.rand(size, generator=generator)
    theta = {"uniform": theta, "heavy tails": theta.logit(1e-7) ** 3, "far outside": theta + 1e4, "binary": (theta < 0.3).float()}[kind]
    result = project(theta, size / 8)
    assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 1
    assert abs(float(result.double().sum()) / (size / 8) - 1) < 1e-6


def test_shape_is_kept_and_input_unchanged():
    theta = torch.rand(4, 5)
    before = theta.clone()
    assert project(theta, 3).shape == (4, 5) and torch.equal(theta, before)


@pytest.mark.parametrize("budget", [-1, 4.5, float("nan")])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(InputError, match="budget"):
        project(torch.rand(4), budget)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_without_projection_are_refused(bad):
    with pytest.raises(InputError, match="theta"):
        project(torch.tensor([0.1, bad]), 1)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 0.9))
def test_gradient(seed, share):
    theta = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: project(t, share * 9), theta, eps=1e-7, atol=1e-5)


@given(vectors, st.floats(-5, 5))
def test_dual_slope_is_equation_14(values, multiplier):
    expected = np.clip(values - multiplier, 0, 1).sum() - 1.5
    excess, _ = dual_slope(torch.from_numpy(values), torch.tensor(multiplier, dtype=torch.float64), 1.5)
    assert float(excess) == pytest.approx(expected, abs=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    theta = torch.randn(65_536)
    torch.testing.assert_close(project(theta.cuda(), 8192).cpu(), project(theta, 8192), atol=1e-6, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_projects_without_waiting_for_the_device():
    theta = torch.randn(65_536, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        project(theta, 8192.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def in_fractions(values: torch.Tensor, budget: float) -> torch.Tensor:
    """Eq. 7 in exact arithmetic: lambda from the two ends of its piece of the sum."""
    numbers, budget = [Fraction(float(value)) for value in values], Fraction(budget)

    def total(multiplier: Fraction) -> Fraction:
        return sum(min(1, max(0, number - multiplier)) for number in numbers)

    multiplier = Fraction(0)
    if total(multiplier) > budget:
        ends = sorted({Fraction(0), *(end for number in numbers for end in (number, number - 1) if end > 0)})
        low = max(end for end in ends if total(end) >= budget)
        high = min((end for end in ends if end > low), default=low)
        falls = total(low) - total(high)
        multiplier = low + ((total(low) - budget) / falls * (high - low) if falls else 0)
    return torch.tensor([float(min(1, max(0, number - multiplier))) for number in numbers], dtype=torch.float64)


@pytest.mark.parametrize("large", [1.0, 1e6, 2e6, 1e12, 1e15, 1e30, 1e300])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("budget", [1.0, 2.5, 3.0, 11.0])
def test_large_values_keep_to_the_budget(large, few, budget):
    generator = torch.Generator().manual_seed(int(budget))
    values = torch.rand(12, generator=generator, dtype=torch.float64)
    values += large * (torch.rand(12, generator=generator) > (0.5 if few else -1)).double()
    found = project(values, budget)
    assert found.sum() <= budget + 1e-9
    torch.testing.assert_close(found, in_fractions(values, budget), rtol=0, atol=1e-9)
    single = values.float()
    if single.isfinite().all():
        torch.testing.assert_close(project(single, budget).double(), in_fractions(single, budget), rtol=0, atol=1e-6)


def test_large_values_have_the_gradient_of_small_ones():
    small = torch.tensor([0.45, 0.9, 0.7, -2.0, 5.0], dtype=torch.float64)
    gradients = []
    for moved in (0, 2**21):
        theta = (small + moved).requires_grad_()
        project(theta, 2.0).square().sum().backward()
        gradients.append(theta.grad)
    torch.testing.assert_close(*gradients)


def test_costs_are_above_0_and_one_for_each():
    for cost in (torch.ones(3), torch.ones(1), torch.tensor([1.0, -1.0])):
        with pytest.raises(InputError, match="cost of .*: must be above 0, one for each of theta's .2,."):
            project(torch.tensor([0.9, 0.9]), 0.5, cost)
