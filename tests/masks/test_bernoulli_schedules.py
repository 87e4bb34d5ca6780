"""Eq. 1, 4, 5 and 8, and the annealing of A.1."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prom import InputError
from prom.masks.bernoulli import average, log_probability, mode, pull_back, relaxed_sample, sample
from prom.masks.projection import project
from prom.masks.schedules import annealed_budget, linear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_masks(size: int):
    return [torch.tensor(bits) for bits in itertools.product([False, True], repeat=size)]


def test_probabilities_of_all_masks_sum_to_one():
    theta = torch.rand(6, generator=generator(), dtype=torch.float64)
    assert sum(log_probability(m, theta).exp() for m in all_masks(6)).item() == pytest.approx(1)


@given(st.integers(0, 200), st.integers(0, 7))
def test_mode_is_the_most_probable_mask_of_its_size(seed, budget):
    theta = torch.rand(7, generator=generator(seed), dtype=torch.float64)
    best = max((m for m in all_masks(7) if m.sum() == budget), key=lambda m: log_probability(m, theta))
    assert torch.equal(mode(theta, budget), best)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_mode_has_exactly_the_budget_whatever_the_ties(height, width, data):
    theta = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=height * width, max_size=height * width)))
    budget = data.draw(st.integers(0, height * width))
    mask = mode(theta.view(height, width), budget)
    assert mask.sum() == budget
    if 0 < budget < height * width:
        assert theta.view(height, width)[mask].min() >= theta.view(height, width)[~mask].max()


def test_ties_go_to_the_centre():
    assert mode(torch.zeros(5, 5), 1).nonzero().tolist() == [[2, 2]]
    assert mode(torch.zeros(9), 3).nonzero().flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize("budget", [-1, 10])
def test_mode_refuses_impossible_budgets(budget):
    with pytest.raises(InputError, match="budget"):
        mode(torch.zeros(9), budget)


@pytest.mark.parametrize("draw", [lambda t, g, n: sample(t, g, n), lambda t, g, n: relaxed_sample(t, 0.7, g, n)[0]])
def test_samples_have_the_probabilities_of_theta(draw):
    theta = torch.tensor([0.0, 0.03, 0.5, 0.9, 1.0])
    frequency = draw(theta, generator(), 40_000).mean(dim=0)
    assert frequency[0] == 0 and frequency[-1] == 1
    torch.testing.assert_close(frequency, theta, atol=4 * (0.25 / 40_000) ** 0.5, rtol=0)  # four standard errors


@pytest.mark.parametrize("tau", [1.0, 0.3, 0.03])
def test_slope_is_the_derivative_of_the_soft_mask(tau):
    theta = torch.rand(50, generator=generator(3), dtype=torch.float64) * 0.98 + 0.01
    hard, slope = relaxed_sample(theta, tau, generator(5), 4)
    # the same noise, written out as Eq. 4 and differentiated by autograd
    noise = torch.rand((4, 50), generator=generator(5), dtype=torch.float64).logit()
    variable = theta.clone().requires_grad_()
    soft = torch.sigmoid((torch.log(variable / (1 - variable)) + noise) / tau)
    (expected,) = torch.autograd.grad(soft.sum(), variable)
    torch.testing.assert_close(slope.sum(dim=0), expected)
    assert torch.equal(hard.bool(), soft >= 0.5)


@pytest.mark.parametrize("tau", [1.0, 0.3, 0.03])
def test_one_pass_is_the_formula(tau):
    """The compiled samples of float32 against Eq. 4 and 5 in float64, sure points among the others."""
    theta = project(torch.rand(40, 50, generator=generator(3)) * 2 - 0.5, 1000)
    undecided = (theta > 0) & (theta < 1)
    assert 100 < undecided.sum() < 1900
    hard, slope = relaxed_sample(theta, tau, generator(5), 4)
    noise = torch.rand((4, int(undecided.sum())), generator=generator(5)).double().logit()
    variable = theta[undecided].double().requires_grad_()
    soft = torch.sigmoid((variable.logit() + noise) / tau)
    for row in range(4):
        (expected,) = torch.autograd.grad(soft[row].sum(), variable, retain_graph=True)
        torch.testing.assert_close(slope[row, undecided].double(), expected, rtol=1e-4, atol=1e-6 / tau)
    assert torch.equal(hard[:, undecided].bool(), soft >= 0.5)
    assert torch.equal(hard[:, ~undecided], theta[~undecided].expand(4, -1)) and (slope[:, ~undecided] == 0).all()


@pytest.mark.parametrize("samples", [(1,), (4,), (2, 3)])
def test_chained_sums_gradients_times_slopes(samples):
    gradient, slope = (torch.rand(*samples, 6, generator=generator(seed)) for seed in (0, 1))
    over = tuple(range(len(samples)))
    torch.testing.assert_close(pull_back(gradient, slope), (gradient * slope).sum(dim=over))
    torch.testing.assert_close(pull_back(gradient, None), gradient.sum(dim=over))


def test_zero_and_one_are_absorbing():
    _, slope = relaxed_sample(torch.tensor([0.0, 1.0]), 1.0, generator(), 100)
    assert (slope == 0).all()


def test_average():
    solutions = [torch.rand(3, 3) for _ in range(4)]
    torch.testing.assert_close(average(solutions), sum(solutions) / 4)


@given(st.floats(0, 1), st.integers(1, 100), st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.5, 4))
def test_annealing_stays_between_target_and_everything(progress, target, exploration, exploitation, power):
    assert target <= annealed_budget(progress, target, 100, exploration, exploitation, power) <= 100


def test_annealing_is_the_formula_of_a1():
    for i in range(250, 2250, 50):
        expected = (1 / 8 + (1 - 1 / 8) * (1 - (i - 250) / 2000)) * 1000
        assert annealed_budget(i / 2500, 125, 1000, power=1.0) == pytest.approx(expected)
    assert annealed_budget(0.05, 125, 1000) == 1000 and annealed_budget(0.9, 125, 1000) == 125


def test_temperature_is_linear():
    assert [round(linear(p, 1.0, 0.03), 3) for p in (0, 0.5, 1)] == [1.0, 0.515, 0.03]
