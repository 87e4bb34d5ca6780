"""MaskLayer: budget, gradient, what it measures, and that it learns inside a network."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prom
from prom import InputError, SliceDataset, baselines
from prom.engine.device import choose_device
from prom.learn.layer import MaskLayer


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
    assert int(grid.adjoint(layer.mask().float()).gt(0).sum()) == layer.budget


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


@pytest.mark.parametrize("pattern", ["points", "columns"])
def test_the_mask_itself_is_what_images_are_seen_under(pattern):
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    layer, other = MaskLayer((8, 8), 4, pattern), MaskLayer((8, 8), 4, pattern)
    for one in (layer, other):
        one(images)
    mask = other.sample()
    torch.testing.assert_close(layer(images), prom.undersample(images, mask.detach()))
    assert mask.requires_grad and set(mask.unique().tolist()) == {0, 1}
    assert torch.equal(other.eval().sample(), other.mask())


def test_it_learns_together_with_a_network(blobs):
    torch.manual_seed(0)
    start = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))  # whose mask is far from a good one
    layer, network = MaskLayer((32, 32), 8, start=start), nn.Conv2d(1, 1, 3, padding=1)
    before = layer.mask()
    weights, probabilities = torch.optim.Adam(network.parameters(), 1e-2), torch.optim.SGD(layer.parameters(), 0.05, 0.9)
    for _ in range(150):
        weights.zero_grad(), probabilities.zero_grad()
        loss = (network(layer(blobs.images)) - blobs.images).square().mean()
        loss.backward()
        weights.step(), probabilities.step()
        layer.project()
    psnr = [prom.evaluate(mask, blobs)["psnr"].mean() for mask in (layer.mask(), before)]
    assert int(layer.mask().sum()) == 128 and psnr[0] > psnr[1] + 10


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"])
def test_what_comes_out_has_the_precision_of_what_went_in(kind, training):
    dtype = getattr(torch, kind)
    images = 9 * torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = (images * torch.exp(6j * images) if dtype.is_complex else images).to(dtype)
    exact = images.to(torch.complex128 if dtype.is_complex else torch.float64)
    layer, reference = (MaskLayer((12, 10), 4).train(training) for _ in range(2))
    found, expected = layer(images), reference(exact)
    assert found.dtype == torch.empty(0, dtype=dtype).real.dtype and expected.dtype == torch.float64
    # The transform adds nothing to the rounding of the result.
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(found.dtype).eps, atol=1e-5)
    found.float().square().mean().backward() if training else None
    assert not training or layer.theta.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks(dtype):
    images = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), MaskLayer((12, 10), 4), nn.Conv2d(1, 1, 3, padding=1))
    with torch.autocast("cpu", dtype=dtype):
        result = network(images)
    result.float().mean().backward()
    assert result.dtype == dtype and network[1].theta.grad.isfinite().all()
    before = network[1].theta.detach().clone()
    network.to(dtype)
    assert network(images.to(dtype)).dtype == dtype
    assert torch.equal(network[1].theta, before) and before.dtype == torch.float32  # steps of theta are smaller than half precision


@pytest.mark.parametrize("images", [torch.ones(1, 1, 8, 8, dtype=torch.uint8), torch.ones(1, 1, 8, 8).bool(), torch.ones(8, 8).numpy()])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(InputError, match="must be a tensor of real or complex floating-point numbers"):
        MaskLayer((8, 8), 4)(images)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"images of \(10, 8\): do not fit the mask, which is \(8, 10\)"):
        MaskLayer((8, 10), 4)(torch.rand(1, 1, 10, 8))
    with pytest.raises(InputError, match=r"start of \(8,\)"):
        MaskLayer((8, 10), 4, start=torch.rand(8))
    with pytest.raises(InputError, match="must be finite"):
        MaskLayer((8, 10), 4, start=torch.full((8, 10), torch.nan))


@pytest.mark.parametrize(
    "name",
    ["mps", "xpu", "meta", "hpu", "vulkan", "ipu", "gpu", "CUDA", "cpu:0", "cpu:3", "cuda:-1", "cuda:99", "cuda:٣", "", " cpu", None],
)
def test_other_devices_are_refused_in_one_line(name):
    for asked in (name, torch.device(name)) if name in ("mps", "meta", "cpu:3") else (name,):
        with pytest.raises(InputError, match="device '") as caught:
            choose_device(asked)
        assert "\n" not in str(caught.value)


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name)) for name in ("auto", "cuda", "cuda:1", torch.device("cuda", 0))] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cuda:0",
    ]
    with pytest.raises(InputError, match="has 2 GPU"):
        choose_device("cuda:2")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_divide_the_gradient_too(again):
    layer = MaskLayer((8, 8), 4)
    for one in (layer, again(layer), again(layer).double()):
        (one(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))) * 1e3).sum().backward()
        assert float(one.theta.grad.abs().max()) == pytest.approx(1.0)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_of_a_frozen_layer_divides_the_gradient_once_it_is_thawed(again):
    layer = again(MaskLayer((8, 8), 4).requires_grad_(False))
    assert not layer.theta.requires_grad
    layer.requires_grad_()
    (layer.sample() * 7).sum().backward()
    assert float(layer.theta.grad.abs().max()) == pytest.approx(1.0)


def test_what_is_demanded_is_in_every_mask():
    layer = MaskLayer((16, 16), acceleration=4, calibration=4, shutter=True)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        layer(torch.rand(2, 1, 16, 16)).square().sum().backward()
        optimiser.step()
        layer.project()
        for mask in (layer.sample().detach().bool(), layer.mask()):
            assert mask[6:10, 6:10].all() and not mask[0, 0] and not mask[-1, -1]
    assert int(layer.mask().sum()) == 64


def test_a_training_that_goes_on_draws_the_following_masks():
    layer, again, old = (MaskLayer((8, 8), 4) for _ in range(3))
    layer.sample(), layer.sample()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.sample(), layer.sample()) and again.drawn == 3
    old.load_state_dict({"theta": layer.theta})  # of before draws were counted
    assert old.drawn == 0


def test_gradients_that_are_no_numbers_are_not_hidden():
    layer = MaskLayer((8, 8), 4)
    (torch.full((8, 8), torch.inf) * layer.sample()).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    with pytest.raises(InputError, match="NaN or infinite"):
        layer.project()


def test_masks_of_lines_have_memory_of_their_own():
    mask = MaskLayer((16, 16), 4, "columns").mask()
    mask[8, :] = True
    assert mask.sum() == 4 * 15 + 16
    energy = baselines.energy(SliceDataset("a", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0]), 4, "columns")
    assert energy.is_contiguous()


@pytest.mark.parametrize("demands", [{}, {"calibration": 8}, {"shutter": True}, {"partial_fourier": 0.6}])
def test_the_first_draws_have_the_budget(demands):
    layer = MaskLayer((32, 32), 4, **demands)
    assert layer.theta.detach().sum() == pytest.approx(layer.budget, rel=1e-5) and layer.theta.unique().numel() <= 3
    start = torch.full((32, 32), 0.2)
    one, other = (MaskLayer((32, 32), 4, start=given, **demands) for given in (start, start.numpy()))
    assert torch.equal(one.theta, other.theta)
    with pytest.raises(InputError, match="masked array, whose own mask would be lost"):
        MaskLayer((32, 32), 4, start=np.ma.masked_array(start.numpy(), mask=np.eye(32)))
    assert torch.equal(MaskLayer((32, 32), 4, start=start.tolist(), **demands).theta, one.theta)
    for wrong in (start + 0j, [torch.ones(32, requires_grad=True)] * 32, [["a"] * 32] * 32):
        with pytest.raises(InputError, match="start"):
            MaskLayer((32, 32), 4, start=wrong)
    bands = MaskLayer((8, 32), 32 / 9, "columns", segments=3)
    assert bands.theta.detach().sum() == pytest.approx(bands.budget, rel=1e-6)


def test_theta_is_float32_whatever_pytorch_makes_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert MaskLayer((8, 8), 4).theta.dtype == torch.float32
        result = prom.optimize(torch.rand(2, 8, 8).float(), 4, recipe=replace(prom.DEFAULT, iterations=3))
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.theta.dtype == result.probabilities.dtype == torch.float32


@pytest.mark.parametrize("assign", [False, True])
def test_a_layer_that_was_loaded_divides_its_gradient(assign):
    layer, stored = MaskLayer((8, 8), 4), MaskLayer((8, 8), 4).state_dict()
    layer.load_state_dict(stored, assign=assign)
    (1000 * layer.sample()).sum().backward()
    assert layer.theta.grad.abs().max() == 1 and list(stored) == ["theta", "_extra_state"]
    frozen = MaskLayer((8, 8), 4).requires_grad_(False)
    frozen.load_state_dict(stored, assign=assign)
    for copied in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert torch.equal(copied.mask(), frozen.mask())


def test_double_precision_is_no_single_precision():
    images = torch.rand(2, 1, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = MaskLayer((12, 10), 4).eval()
    expected = prom.ifft2c(prom.fft2c(images) * layer.mask()).abs()
    torch.testing.assert_close(layer(images), expected, rtol=0, atol=1e-12)


def test_draws_are_exactly_0_and_1():
    layer = prom.MaskLayer((64, 64), 4, start=torch.rand(64, 64, generator=torch.Generator().manual_seed(0)))
    assert layer.sample().unique().tolist() == [0, 1]
