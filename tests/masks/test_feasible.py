"""The set of allowed masks: projection against a general solver, exact budgets with demands, groups and costs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from prom import DEFAULT, InputError
from prom.masks.bernoulli import mode
from prom.masks.feasible import Feasible
from prom.masks.projection import project


def some(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_solver(theta: torch.Tensor, budget: float, cost: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The nearest point by SciPy's SLSQP."""
    wanted, price = theta.numpy().ravel(), cost.numpy().ravel()
    found = scipy.optimize.minimize(
        lambda x: ((x - wanted) ** 2).sum(),
        np.clip(wanted, 0, 1) * 0.1,
        jac=lambda x: 2 * (x - wanted),
        bounds=list(zip(low.numpy().ravel(), high.numpy().ravel(), strict=True)),
        constraints={"type": "ineq", "fun": lambda x: budget - price @ x, "jac": lambda x: -price},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return torch.from_numpy(found.x).reshape(theta.shape)


@pytest.mark.parametrize("seed", range(6))
def test_projection_with_demands_and_costs_is_the_nearest_point(seed):
    theta = 3 * some(seed, 12) - 1
    cost = 0.2 + some(seed + 10, 12) if seed % 2 else torch.ones(12).double()
    mandatory, forbidden = torch.zeros(12).bool(), torch.zeros(12).bool()
    mandatory[seed], forbidden[seed + 2] = True, True
    budget = float(cost[mandatory].sum()) + 2.0
    feasible = Feasible((12,), budget, mandatory, forbidden, cost if seed % 2 else None)
    expected = by_solver(theta, budget, cost, mandatory.double(), (~forbidden).double())
    torch.testing.assert_close(feasible.project(theta), expected, rtol=0, atol=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0.01, 1.5))
def test_costs_that_are_equal_change_nothing_but_the_unit(seed, size, share):
    theta = 4 * some(seed, size) - 1.5
    price = 0.3
    budget = min(share, 1.0) * size
    torch.testing.assert_close(project(theta, budget * price, torch.full_like(theta, price)), project(theta, budget), rtol=0, atol=1e-9)


def test_projection_with_costs_is_differentiable():
    theta, cost = (2 * some(1, 9) - 0.3).requires_grad_(), 0.5 + some(2, 9)
    assert torch.autograd.gradcheck(lambda x: project(x, 2.0, cost), theta, eps=1e-7, atol=1e-5)


@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_masks_have_exactly_the_budget_and_what_is_demanded(seed, forced, grouped):
    shape, generator = (6, 8), torch.Generator().manual_seed(seed)
    drawn = torch.rand(shape, generator=generator)
    mandatory, forbidden = drawn < 0.1, drawn > 0.8
    groups = torch.arange(6)[:, None].expand(shape) if grouped else None
    budget = 5 if grouped else 20
    mandatory &= drawn == drawn.amin(dim=1, keepdim=True)  # at most one in a group
    if grouped:
        forbidden &= drawn != drawn.amax(dim=1, keepdim=True)
    rows = (~forbidden).sum(dim=1)
    if grouped and int(rows.min()) < budget:
        return
    feasible = Feasible(shape, budget, mandatory if forced else None, forbidden, groups=groups)
    theta = torch.rand(shape, generator=generator)
    mask, near = feasible.round(theta), feasible.project(theta)
    assert not (mask & forbidden).any() and (near[forbidden] == 0).all()
    if forced:
        assert mask[mandatory].all() and (near[mandatory] == 1).all()
    sums = (mask.sum(dim=1), near.sum(dim=1)) if grouped else (mask.sum(), near.sum())
    assert (sums[0] == budget).all() and (sums[1] <= budget + 1e-4).all()


def test_without_demands_it_is_the_papers_set():
    theta = 2 * some(3, 5, 7) - 0.5
    feasible = Feasible((5, 7), 9)
    assert torch.equal(feasible.project(theta), project(theta, 9)) and torch.equal(feasible.round(theta), mode(theta, 9))
    everything = Feasible((5, 7), 9, forbidden=torch.zeros(5, 7).bool())
    torch.testing.assert_close(everything.project(theta), project(theta, 9))
    assert torch.equal(everything.round(theta), mode(theta, 9))
    flat = torch.zeros(5, 7)  # of equal values the one nearest to the centre
    assert torch.equal(everything.round(flat), mode(flat, 9))


def test_rounding_by_cost_takes_what_fits():
    feasible = Feasible((4,), 3.0, cost=torch.tensor([2.0, 2.0, 1.0, 0.5]))
    assert feasible.round(torch.tensor([0.9, 0.8, 0.7, 0.6])).tolist() == [True, False, True, False]


def test_the_budget_falls_from_all_that_is_allowed():
    forbidden = torch.arange(10) < 4
    feasible = Feasible((10,), 2, forbidden=forbidden)
    assert feasible.annealed(0.0, *DEFAULT.phases) == 6 and feasible.annealed(1.0, *DEFAULT.phases) == 2
    theta = torch.ones(10)
    assert torch.equal(feasible.project(theta, 6), (~forbidden).float())


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        ({"mandatory": torch.ones(3).bool()}, "must have the shape of theta"),
        ({"mandatory": torch.ones(4).bool()}, "budget 2: must be from 4, which is mandatory"),
        ({"forbidden": torch.ones(4).bool()}, "to 0, which is allowed"),
        ({"mandatory": torch.arange(4) < 1, "forbidden": torch.arange(4) < 1}, "some are forbidden too"),
        ({"cost": torch.tensor([1.0, 0.0, 1.0, 1.0])}, "cost: must be finite and above 0"),
    ],
)
def test_demands_that_cannot_be_met_are_refused(demands, message):
    with pytest.raises(InputError, match=message):
        Feasible((4,), 2, **demands)


def test_a_budget_may_be_a_fraction():
    theta = torch.tensor([0.1, 0.9, 0.5, 0.7])
    for more in ({}, {"mandatory": torch.tensor([False, True, False, False])}):
        feasible = Feasible((4,), 2.5, **more)
        assert feasible.round(theta).tolist() == [False, True, False, True] and feasible.admits(feasible.round(theta))
