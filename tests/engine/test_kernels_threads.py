"""Compiled arithmetic against NumPy, and threads that change no bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import threads
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import prom
from prom.engine import kernels
from prom.engine.random import uniform_numbers
from prom.engine.threads import gathered, parallel, spread
from prom.masks.projection import _by_sorting, _newton
from prom.objectives import MagnitudeMSE

sizes = st.integers(1, 300)


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


@given(sizes)
def test_masked_and_products(size):
    k, b, mask, gradient = (numbers(n, i) for i, n in enumerate((2 * size, 2 * size, size, size)))
    product, expected = np.empty_like(k), gradient + (k * b).reshape(-1, 2).sum(axis=1)
    kernels.masked(k, mask, np.float32(0.25), product)
    np.testing.assert_array_equal(product, 0.25 * k * mask.repeat(2))
    kernels.add_products(k, b, gradient)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@given(sizes, st.booleans())
def test_residual(size, empty):
    r, x = (np.zeros if empty else numbers)(2 * size).astype(np.float32), np.abs(numbers(size, 1))
    z = r.astype(np.float64).view(np.complex128)
    error = np.abs(z) - x
    expected = error * np.exp(1j * np.angle(z)) * (z != 0)
    total = kernels.residual(r, x)
    np.testing.assert_allclose(total, (error**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(r.view(np.complex64), expected, rtol=1e-4, atol=1e-5)


@given(arrays.arrays(np.float32, sizes, elements=st.floats(2.0**-126, 2.0**127, width=32)))
def test_log2_and_exp2(values):
    exponents = np.array([kernels.log2(value) for value in values])
    np.testing.assert_allclose(exponents, np.log2(values.astype(np.float64)), rtol=5e-7, atol=1e-7)
    back = [kernels.exp2(np.float32(exponent)) for exponent in exponents]
    np.testing.assert_allclose(back, np.exp2(exponents.astype(np.float64)), rtol=2e-7)


def test_powers_below_the_normal_numbers_are_0():
    assert [kernels.exp2(np.float32(x)) for x in (-127.5, -1e4, -np.inf)] == [0, 0, 0]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5), st.integers(0, 2**63 - 1))
def test_uniform_numbers_are_those_of_pytorch_and_leave_the_generator_as_it_does(counts, seed):
    mine, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    for count in counts:
        assert torch.equal(uniform_numbers(mine, (count,), torch.empty(0)), torch.rand(count, generator=theirs))
        assert torch.equal(torch.randn(3, generator=mine), torch.randn(3, generator=theirs))  # one of them is kept for the next call


@given(arrays.arrays(np.float32, sizes, elements=st.floats(-(2.0**99), 2.0**99, width=32)), st.randoms(use_true_random=False))
def test_smallest_is_that_of_the_sorted_magnitudes(values, random):
    rank = random.randrange(len(values))
    assert kernels.smallest(values, rank) == np.sort(abs(values))[rank]


@given(arrays.arrays(np.float64, sizes, elements=st.floats(-1e3, 1e3)), st.floats(0.0, 1.0, exclude_min=True))
def test_sorting_finds_the_same_multiplier(values, share):
    values, budget = torch.from_numpy(values), share * len(values)
    assert float(_by_sorting(values, budget)) == pytest.approx(_newton(values, budget), rel=1e-9, abs=1e-9)


@given(
    arrays.arrays(np.float32, 50, elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(0.0, 1e3, width=32),
    st.floats(2.0**-20, 1.0, width=32),
)
def test_moved_rounds_as_pytorch_does(direction, quantile, rate):
    theta, moved = np.linspace(0, 1, 50, dtype=np.float32), np.empty(50, np.float32)
    kernels.moved(theta, direction, np.float32(quantile), np.float32(rate), moved)
    cut = (torch.from_numpy(direction) / quantile).nan_to_num(0.0).clamp(-1, 1)
    assert torch.equal(torch.from_numpy(moved), torch.from_numpy(theta) - rate * cut)


def test_results_come_in_order_and_errors_come_out():
    with threads(4):
        assert parallel(lambda i: i * i, range(50)) == [i * i for i in range(50)]
        with pytest.raises(ZeroDivisionError):
            parallel(lambda i: 1 // (i - 30), range(50))


def test_workers_have_one_thread_and_nobody_keeps_the_change():
    with threads(3):
        with spread():
            assert torch.get_num_threads() == 1
            assert set(parallel(lambda _: torch.get_num_threads(), range(9))) == {1}
            with gathered():
                assert torch.get_num_threads() == 3
            with spread():  # once more inside: still three workers
                assert parallel(lambda _: parallel(abs, [-1, 2]), range(3)) == [[1, 2]] * 3
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("shape", [(3, 24, 20), (7, 3, 24, 20)])
def test_threads_change_no_bit_of_a_gradient(shape):
    generator = torch.Generator().manual_seed(0)
    objective, masks = MagnitudeMSE(torch.rand(7, 2, 24, 20, generator=generator)), torch.rand(shape, generator=generator)
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(objective.loss_and_gradient(range(7), masks))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0]) and torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("recipe", ["default", "paper", "polished"])
def test_threads_change_no_bit_of_a_mask(blobs, recipe):
    recipe, results = replace(prom.recipes.get(recipe), iterations=12, members=1), []
    for count in (1, 3):
        with threads(count):
            results.append(prom.optimize(blobs, 5, recipe=recipe))
    assert torch.equal(results[0].theta, results[1].theta) and torch.equal(results[0].mask, results[1].mask)


def test_own_masks_of_each_image_are_looked_at_one_by_one():
    generator = torch.Generator().manual_seed(0)
    objective, masks = MagnitudeMSE(torch.rand(3, 2, 8, 9, generator=generator)), torch.rand(2, 4, 8, 9, generator=generator)
    loss, gradient = objective.loss_and_gradient([2, 0], masks)
    alone = [objective.loss_and_gradient([index], own) for index, own in zip([2, 0], masks, strict=True)]
    torch.testing.assert_close(loss, sum(loss for loss, _ in alone) / 2)
    torch.testing.assert_close(gradient, torch.stack([gradient for _, gradient in alone]) / 2)
