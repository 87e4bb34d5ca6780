"""Overlaps, and how the variance over runs splits into pairs and partners."""

from types import SimpleNamespace

import pytest
import torch

from prom.evaluation import agreement
from prom.kspace.fourier import opposite

SHAPES = [(6, 8), (7, 5)]


def runs(thetas: torch.Tensor) -> list:
    return [SimpleNamespace(probabilities=theta) for theta in thetas]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_toss_changes_points_but_not_pairs(shape):
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(shape, generator=generator) < 0.4
    tossed = agreement.toss_partners(mask, generator)
    assert not torch.equal(tossed, mask) and tossed.sum() == mask.sum()
    assert torch.equal(tossed | opposite(tossed), mask | opposite(mask))
    assert torch.equal(tossed & opposite(tossed), mask & opposite(mask))
    assert agreement.overlap(mask, tossed) < agreement.pair_overlap(mask, tossed) == 1
    assert torch.equal(agreement.unpaired(mask), mask & (mask != opposite(mask)))


@pytest.mark.parametrize("shape", SHAPES)
def test_variance_splits_into_pairs_and_partners(shape):
    thetas = torch.rand((4, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plain, paired = agreement.variances(runs(thetas))
    difference = torch.stack([(theta - opposite(theta)) / 2 for theta in thetas]).var(dim=0, correction=0)
    assert torch.allclose(plain + opposite(plain), 2 * paired + 2 * difference)
    assert agreement.partner_share(runs(thetas)) == pytest.approx(float(difference.sum() / plain.sum()))


def test_partner_share_tells_chance_from_agreement():
    thetas = torch.rand(400, 9, 9, generator=torch.Generator().manual_seed(3))
    assert agreement.partner_share(runs(thetas)) == pytest.approx(0.5, abs=0.02)  # independent (but for DC, its own partner)
    tossed = thetas / 2 - torch.stack([opposite(theta) / 2 for theta in thetas])
    assert agreement.partner_share(runs(tossed + 0.5)) == pytest.approx(1)  # theta_i + theta_-i is the same in every run
