"""MaskLayer: budget, gradient, what it measures, and that it learns inside a network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prom
from prom.layer import MaskLayer


@given(st.integers(4, 12), st.integers(4, 12), st.floats(1, 16), st.sampled_from(["points", "columns", "rows"]), st.integers(0, 5))
def test_budget_is_kept_after_any_step(height, width, acceleration, pattern, seed):
    grid = prom.patterns.make(pattern, (height, width))
    if grid.size < acceleration:
        return
    layer = MaskLayer((height, width), acceleration, pattern)
    with torch.no_grad():
        layer.theta.add_(torch.randn(grid.shape, generator=torch.Generator().manual_seed(seed)))
    layer.project()
    assert layer.theta.min() >= 0 and layer.theta.max() <= 1 and float(layer.theta.detach().sum()) <= layer.budget * (1 + 1e-5)
    assert int(grid.gather(layer.mask().float()).gt(0).sum()) == layer.budget


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (9, 5)])
@pytest.mark.parametrize("phase", [False, True])
def test_evaluation_measures_the_mode(shape, phase):
    images = torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    images = images * torch.exp(6j * images) if phase else images
    layer = MaskLayer(shape, 4, start=torch.rand(shape, generator=torch.Generator().manual_seed(1))).eval()
    torch.testing.assert_close(layer(images), prom.undersample(images, layer.mask()), rtol=1e-4, atol=1e-5)


def test_training_draws_masks_and_gives_theta_their_gradient():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    layer = MaskLayer((8, 8), 4)
    first, second = layer(images), layer(images)
    assert not torch.equal(first, second)
    assert torch.equal(first, MaskLayer((8, 8), 4)(images))  # the same seed draws the same masks
    second.square().mean().backward()
    gradient = layer.theta.grad
    assert torch.isfinite(gradient).all() and float(gradient.abs().max()) == pytest.approx(1.0)  # divided by its largest entry

    mask = torch.zeros(8, 8, requires_grad=True)  # the second draw, seen from outside
    drawn = prom.bernoulli.sample(torch.full((8, 8), 0.25), torch.Generator().manual_seed(layer.seed + 1))[0]
    prom.undersample(images, drawn + mask).square().mean().backward()
    torch.testing.assert_close(gradient, mask.grad / mask.grad.abs().max(), rtol=1e-4, atol=1e-5)


def test_it_learns_together_with_a_network(blobs):
    torch.manual_seed(0)
    layer, network = MaskLayer((32, 32), 8), nn.Conv2d(1, 1, 3, padding=1)
    weights, probabilities = torch.optim.Adam(network.parameters(), 1e-2), torch.optim.SGD(layer.parameters(), 0.05, 0.9)
    for _ in range(150):
        weights.zero_grad(), probabilities.zero_grad()
        loss = (network(layer(blobs.images)) - blobs.images).square().mean()
        loss.backward()
        weights.step(), probabilities.step()
        layer.project()
    random = prom.baselines.gaussian(blobs, 8, sigma=100.0)
    psnr = [prom.evaluate(mask, blobs)["psnr"].mean() for mask in (layer.mask(), random)]
    assert int(layer.mask().sum()) == 128 and psnr[0] > psnr[1] + 6
