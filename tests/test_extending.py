"""A baseline, a pattern and a reconstruction from outside the package: each in one place, and then used like those inside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional

import prom
from prom import fft2c, ifft2c, methods, reconstruction
from prom.datasets.cache import StoredRows
from prom.kspace import patterns
from prom.masks import bernoulli, load_mask
from prom.objectives import ImageLoss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import mean_power
from prom.reconstruction.zero_filled import ZeroFilled
from prom.runs import results, sweep

FEW = replace(prom.DEFAULT, iterations=30)


def test_a_baseline(blobs, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))

    def ring(train, acceleration, pattern="points", seed=0, width: float = 0.5):
        """Samples at some distance from DC."""
        lines = patterns.make(pattern, train.shape)
        row, column = torch.meshgrid(*(torch.arange(n) - n // 2 for n in train.shape), indexing="ij")
        distance = ((row**2 + column**2).sqrt() - width * 16).abs()
        return bernoulli.mode(-distance, lines.budget(acceleration))

    methods.register(methods.Method("ring", "a ring", patterns=("points",), function=ring))
    record = results.run("ring:width=0.25", blobs, blobs, 8)
    assert record["true_acceleration"] == 8 and record["method"] == "ring"
    assert len(list(sweep.combinations(["ring"], ["points", "rows"], [4, 8], seeds=3))) == 2


def test_a_pattern(blobs, monkeypatch, tmp_path):
    @dataclass(frozen=True)
    class Pairs(patterns.Lines):
        """Two neighbouring columns at a time."""

        name = "pairs"
        shape = property(lambda self: (self.samples[1] // 2,))

        def forward(self, theta):
            return theta.repeat_interleave(2, dim=-1).unsqueeze(-2).expand(*theta.shape[:-1], *self.samples)

        def adjoint(self, weights):
            return weights.sum(dim=-2).unflatten(-1, (-1, 2)).sum(dim=-1)

    monkeypatch.setitem(patterns.PATTERNS, "pairs", Pairs)
    result = prom.optimize(blobs, 4, pattern="pairs", recipe=replace(FEW, polish=4))
    assert int(result.mask[0].sum()) == 8 and torch.equal(result.mask[:, 0::2], result.mask[:, 1::2])
    result.save(tmp_path / "mask.h5")
    assert torch.equal(load_mask(tmp_path / "mask.h5").mask, result.mask)
    assert result.mask[:, 16].all()  # DC


@pytest.mark.parametrize("size", [(32, 32), (15, 14)])
def test_a_reconstruction_that_looks_at_the_image(size, tmp_path):
    """What it gets is the image itself, not up to a phase; of stored images, of others, and by a loss of samples alike."""

    def smoothed(samples, mask, encoding):
        image = encoding.adjoint(samples * mask)
        return (image.roll(-1, -1) + image + image.roll(1, -1)) / 3, lambda gradient: gradient.real

    images = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(1, *size, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    seen = ifft2c(fft2c(images) * mask)
    expected = functional.mse_loss(((seen.roll(-1, -1) + seen + seen.roll(1, -1)) / 3).abs(), images.abs())
    found = ImageLoss(images, functional.mse_loss, reconstruction=smoothed)
    assert float(found.loss([0, 1, 2], mask)) == pytest.approx(float(expected), rel=1e-5)
    images.numpy().tofile(tmp_path / "images")
    stored = ImageLoss(StoredRows(tmp_path / "images", "float32", images.shape), functional.mse_loss, reconstruction=smoothed)
    loss, gradient = stored.loss_and_gradient([0, 1, 2], mask)
    step = 0.01 * torch.rand(mask.shape, generator=torch.Generator().manual_seed(2))
    change = found.loss([0, 1, 2], mask + step) - found.loss([0, 1, 2], mask - step)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5) and float(change) == pytest.approx(
        float(2 * (gradient * step).sum()), rel=0.02
    )

    class Smoothed(ZeroFilled):
        def __call__(self, samples, mask, encoding):
            return smoothed(samples, mask, encoding)

    found = ImageLoss(images, functional.mse_loss, reconstruction=Smoothed())
    assert float(found.loss([0, 1, 2], mask)) == pytest.approx(float(expected), rel=1e-5) and "Smoothed" in str(found.describe())
    data = prom.SliceDataset("noise", "train", images, ["a", "b", "c"], [0, 0, 0])
    assert float(Reconstructed(data, smoothed).loss([0, 1, 2], mask)) == pytest.approx(float(expected), rel=1e-5)


def test_a_reconstruction_by_name(blobs, monkeypatch):
    monkeypatch.setattr(reconstruction, "RECONSTRUCTIONS", dict(reconstruction.RECONSTRUCTIONS))

    class Windowed:
        """Zero-filling, then less of frequencies where the training images have little."""

        def __init__(self, train, mask):
            power = mean_power(train).float()
            self.window = power / (power + 0.01 * power.mean())

        def __call__(self, samples, mask, encoding):
            window = self.window.to(samples.device)
            return encoding.adjoint(samples * mask * window), lambda gradient: (samples.conj() * window * encoding.forward(gradient)).real

    reconstruction.register("windowed", Windowed)
    result = prom.optimize(blobs, 8, recipe=FEW, reconstruction="windowed", device="cpu")
    scores = prom.evaluate(result.mask, blobs, reconstruction=reconstruction.named("windowed", blobs))
    assert result.provenance["reconstruction"] == "Windowed" and scores["psnr"].mean() > 20


def test_a_reconstruction(blobs):
    class Smoothed:
        """Zero-filling, then less and less of higher frequencies."""

        def __call__(self, samples, mask, encoding):
            window = 1 / (1 + encoding.locations.square().sum(dim=-1) / 64)
            return encoding.adjoint(samples * mask * window), lambda gradient: (samples.conj() * window * encoding.forward(gradient)).real

    objective = ImageLoss(blobs.images, functional.mse_loss, reconstruction=Smoothed())
    result = prom.optimize(blobs, 8, recipe=FEW, objective=objective, device="cpu")
    zero_filled = ImageLoss(blobs.images, functional.mse_loss)
    everyone, mask = list(range(len(blobs))), result.mask.float()[None]
    assert int(result.mask.sum()) == 128 and objective.loss(everyone, mask) != pytest.approx(float(zero_filled.loss(everyone, mask)))
