"""The moments of Adam against torch's, and the unit of the images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import prom
from prom.learn.moments import adam_moments

RECIPE = replace(prom.PAPER, batch_size=4)


def data(scale: float = 1.0) -> prom.SliceDataset:
    images = scale * torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return prom.SliceDataset("demo", "train", images, list("abcdef"), [0] * 6)


def test_are_those_of_torch(monkeypatch):
    """A step of torch's Adam after the same gradients."""
    seen = []
    original = prom.learn.moments.expected_gradient

    def watched(*arguments):
        found = original(*arguments)
        seen.append(found[1].clone())
        return found

    monkeypatch.setattr(prom.learn.moments, "expected_gradient", watched)
    mean, square = adam_moments(data(), 4, RECIPE, draws=7)
    place = torch.zeros(8, 8, requires_grad=True)
    adam = torch.optim.Adam([place], lr=1.0, betas=(RECIPE.momentum, RECIPE.rms_decay), eps=RECIPE.epsilon)
    for gradient in seen:
        before, place.grad = place.detach().clone(), gradient
        adam.step()
    assert len(seen) == 7 and len({float(gradient.sum()) for gradient in seen}) == 7
    torch.testing.assert_close(place.detach() - before, -mean / (square.sqrt() + RECIPE.epsilon), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 0.125])
def test_grow_with_the_square_of_the_images(scale):
    """Powers of two change no bit: images times s are the same run as epsilon / s^2."""
    mean, square = adam_moments(data(), 4, RECIPE, draws=3)
    small_mean, small_square = adam_moments(data(scale), 4, RECIPE, draws=3)
    assert torch.equal(small_mean, scale**2 * mean) and torch.equal(small_square, scale**4 * square)


def test_same_seed_same_bits_and_another_seed_others():
    one, again, other = (adam_moments(data(), 4, RECIPE, draws=2, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
