"""Transforms in the memory of their data, by MKL and by PyTorch, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import threads
from hypothesis import given
from hypothesis import strategies as st

from prom.engine import kernels, transforms
from prom.engine.coils import solve
from prom.engine.threads import parallel
from prom.objectives import MagnitudeMSE

WAYS = {"MKL": transforms.plan, "PyTorch": transforms.by_pytorch}
shapes = st.lists(st.integers(1, 13), min_size=1, max_size=4).map(tuple)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("way", WAYS)
@given(shape=shapes, share=st.floats(0.01, 1))
def test_both_directions(way, shape, share):
    axes = math.ceil(len(shape) * share)
    data = numbers(*shape)
    expected, along = data.numpy().astype(np.complex128), tuple(range(-axes, 0))
    chosen = WAYS[way](shape, axes)
    for move, wanted in ((kernels.forward, np.fft.fftn), (kernels.backward, lambda x, axes: np.fft.ifftn(x, axes=axes, norm="forward"))):
        found = data.clone()
        move(chosen, kernels.pairs(found))
        wanted = wanted(expected, axes=along)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0)


def test_what_pytorch_cannot_transform_is_an_error(monkeypatch):
    plan = transforms.by_pytorch((4,), 1)
    monkeypatch.setattr(torch.fft, "fftn", None)
    with pytest.raises(RuntimeError, match="transform failed"):
        kernels.forward(plan, np.zeros(8, np.float32))


def test_mkl_and_pytorch_give_the_same_masks_and_images(monkeypatch):
    images, mask = torch.rand(3, 2, 24, 20, generator=torch.Generator().manual_seed(0)), torch.eye(24)[:, :20][None].contiguous()
    ones = torch.ones(24, 20)

    def results() -> list[torch.Tensor]:
        found = solve(numbers(3, 24, 20), mask[0].contiguous(), 0.1 * ones, ones, numbers(24, 20), 5, 0.0)
        return [*MagnitudeMSE(images).loss_and_gradient(range(3), mask), found]

    ours = results()
    for module in ("prom.objectives.magnitude", "prom.engine.coils"):
        monkeypatch.setattr(f"{module}.plan", transforms.by_pytorch)
    for one, other in zip(ours, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_threads_share_a_plan(way):
    plan = WAYS[way]((32, 32), 2)
    data = [numbers(32, 32) * factor for factor in range(1, 40)]
    expected = [torch.fft.fft2(one) for one in data]
    with threads(2):
        parallel(lambda one: kernels.forward(plan, kernels.pairs(one)), data)
    for found, wanted in zip(data, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_workers_have_none_of_their_own():
    with threads(2):
        counts = parallel(lambda _: parallel(lambda _: torch.get_num_threads(), range(3)), range(50))
    assert {count for inner in counts for count in inner} == {1}
