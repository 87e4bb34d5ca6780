"""The closed forms against what they minimise, and exact numbers of lines."""

from __future__ import annotations

import pytest
import torch

from prom import InputError, SliceDataset, baselines, fft2c


def test_energy_minimises_the_complex_error(blobs):
    """Section 4 of the findings: the top-S of the power spectrum, against every swap of one sample."""
    power = fft2c(blobs.images).abs().square().mean(dim=(0, 1))
    mask = baselines.energy(blobs, 4)
    assert mask.sum() == 256 and power[mask].min() >= power[~mask].max()
    columns = baselines.energy(blobs, 4, pattern="columns")
    assert columns[0].sum() == 8 and power.sum(dim=0)[columns[0]].min() >= power.sum(dim=0)[~columns[0]].max()


@pytest.mark.parametrize("acceleration", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("seed", range(5))
def test_equispaced_has_the_exact_budget(acceleration, seed):
    data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 256), ["a"], [0])
    lines = baselines.equispaced(data, acceleration, seed=seed)[0]
    assert lines.sum() == 256 // acceleration and lines[128]
    placed = lines.nonzero().flatten()
    gaps = torch.cat([placed[placed < 123].diff(), placed[placed > 132].diff()])
    if acceleration <= 8:  # above, the centre leaves few others, or none
        assert gaps.max() - gaps.min() <= 1 and gaps.min() >= acceleration - (acceleration == 2)


def test_equispaced_of_the_paper_is_denser_than_its_name():
    data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 320), ["a"], [0])
    for acceleration, true in ((4, 3.6), (8, 6.2), (16, 9.9), (32, 14.2)):
        lines = torch.stack([baselines.equispaced(data, acceleration, seed=s, exact_budget=False)[0] for s in range(20)]).float()
        assert float(320 / lines.sum(dim=1).mean()) == pytest.approx(true, abs=0.25)


def test_equispaced_has_lines_only(blobs):
    with pytest.raises(InputError, match="use columns or rows"):
        baselines.equispaced(blobs, 4, pattern="points")
