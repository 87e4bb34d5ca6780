"""Rivals for several coils: density, lattice, best candidate, BASS and tuning, each against what it claims."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import prom
from prom import InputError, SliceDataset, baselines
from prom.baselines.bass import bass, importance
from prom.baselines.best_candidate import best_candidate
from prom.baselines.densities import gaussian, polynomial
from prom.baselines.lattice import lattice, points, widest
from prom.baselines.repulsion import reach
from prom.baselines.tuned import tuned
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.kspace.patterns import make
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense
from prom.reconstruction.zero_filled import ZeroFilled


def blank(height: int, width: int, maps: torch.Tensor | None = None) -> SliceDataset:
    images = torch.ones(1, 1, height, width, dtype=torch.complex64)
    return SliceDataset("blank", "train", images, ["a"], [0], sensitivities=maps)


@pytest.fixture(scope="module")
def coiled(blobs) -> SliceDataset:
    images = blobs.images[:2, :, 4:20, 4:20].to(torch.complex64)
    return SliceDataset("coiled", "train", images, ["a", "b"], [0, 0], sensitivities=simulated(4, (16, 16)), noise=0.01)


@pytest.mark.parametrize("kind", ["series", "volumes"])
@pytest.mark.parametrize("coils", [1, 3])
def test_importance_of_series_and_volumes_sums_over_coils(kind, coils):
    """By zero-filling all that is left is what was not measured."""
    images = torch.randn(2, 1, 4, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    maps = None if coils == 1 else simulated(coils, (8, 8)) if kind == "series" else simulated(coils, (8, 8))[:, None].expand(-1, 4, -1, -1)
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], kind=kind, sensitivities=maps)
    mask = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3
    left = data.samples([0, 1]).abs().square().sum(dim=(0, 1))
    energy, _ = importance(data, ZeroFilled(), mask)
    if coils == 1:
        assert torch.allclose(energy, left * ~mask, rtol=1e-3, atol=1e-3 * float(left.max()))
    assert energy.shape == mask.shape
    sense, rest = Sense(1e-2), 0
    for number in (0, 1):
        samples, encoding = data.samples([number])[0], data.encoding(number)
        rest = rest + (samples - encoding.forward(sense(samples, mask.float(), encoding)[0])).abs().square().sum(dim=0)
    assert torch.allclose(importance(data, sense, mask)[0], rest, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 2.0, 6.0])
def test_polynomial_draws_by_its_density(power):
    """One line of nine, drawn 1000 times, against (1 - r)^p; the edge, where r is 1, is never drawn."""
    density = (1 - np.abs(np.arange(9) - 4) / 4) ** power
    expected = 1000 * density / density.sum()
    counts = sum(polynomial(blank(1, 9), 9, "columns", seed, power, 0).int()[0] for seed in range(1000)).numpy()
    likely = expected > 0
    assert (((counts - expected) ** 2)[likely] / expected[likely]).sum() < 26.1  # 8 degrees of freedom: one in a thousand
    assert not counts[~likely].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("method", [polynomial, lattice, best_candidate])
def test_the_centre_takes_its_share(method, share):
    mask = method(blank(24, 20), 8, centre_share=share)
    middle = baselines.low_pass(blank(24, 20), 480 / max(60 * share, 1))
    assert int(mask.sum()) == 60 and (share == 0 or bool(mask[middle].all()))
    assert share < 1 or mask.equal(middle)


@pytest.mark.parametrize(("rows", "columns", "shift"), [(2, 2, 1), (3, 2, 1), (1, 4, 0), (4, 1, 2), (2, 3, 0)])
def test_a_lattice_is_closed_under_differences(rows, columns, shift):
    """On a grid of whole periods: one in R is measured, and folding has R places, at the dual lattice only."""
    height, width = 2 * rows * columns, rows * columns
    mask = points((height, width), rows, columns, shift)
    assert int(mask.sum()) * rows * columns == height * width
    spread = torch.fft.ifft2(mask.double()).abs() > 1e-9
    assert int(spread.sum()) == rows * columns
    exact = lattice(blank(height, width), rows * columns, rows=rows, columns=columns, shift=shift, centre_share=0)
    assert exact.equal(mask)


def test_the_budget_takes_the_farthest_out_and_the_nearest_in():
    whole, distance = points((20, 20), 2, 2, 1), np.hypot(*(np.indices((20, 20)) - 10))
    for acceleration in (3.1, 5.3):
        mask = lattice(blank(20, 20), acceleration, rows=2, columns=2, shift=1, centre_share=0).numpy()
        changed = mask ^ whole.numpy()
        assert changed.any() and (mask.sum() > whole.sum()) == (acceleration < 4)
        if acceleration > 4:
            assert distance[changed].min() >= distance[mask].max()
        else:
            assert distance[changed].max() <= distance[~mask].min()


def test_the_widest_lattice_is_found_by_brute_force():
    for reduction in range(1, 13):
        sizes = [(n, reduction // n) for n in range(1, reduction + 1) if reduction % n == 0]

        def nearest(one):
            y, x = np.nonzero(points((61, 61), *one).numpy())
            return np.sort(np.hypot(y - 30, x - 30))[1]

        best = max(nearest((rows, columns, shift)) for rows, columns in sizes for shift in range(rows))
        assert nearest(widest(sizes)) == pytest.approx(best)


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_the_best_candidate_adds_least(pattern):
    data = blank(7, 6, simulated(3, (7, 6)))
    lines = make(pattern, data.shape)
    kernel = reach(data.sensitivities, lines).numpy()
    mask = lines.select(best_candidate(data, 2, pattern, centre_share=0.25)).numpy()
    taken = lines.select(baselines.low_pass(data, lines.size / round(0.25 * mask.sum()), pattern)).numpy()

    def weights(chosen):
        return sum(np.roll(kernel, np.subtract(place, [n // 2 for n in kernel.shape]), range(kernel.ndim)) for place in np.argwhere(chosen))

    while taken.sum() < mask.sum():
        allowed = np.where(taken, np.inf, weights(taken))
        ways = np.argwhere((allowed < allowed.min() + 1e-7) & mask)  # of equal ones the mask has one
        assert len(ways)
        taken[tuple(min(ways, key=lambda place: sum((at - n // 2) ** 2 for at, n in zip(place, kernel.shape, strict=True))))] = True
    assert np.array_equal(taken, mask)


def test_best_candidates_keep_the_eigenvalues_together():
    """Of the information of a mask (all masks of a size have the same mean of it), against random masks."""
    maps = simulated(4, (8, 8))
    each = torch.eye(64, dtype=torch.complex64).reshape(-1, 8, 8)

    def spread(mask):
        encoding = Coils(maps)
        return torch.linalg.eigvalsh(encoding.adjoint(mask * encoding.forward(each)).flatten(1)).square().sum()

    ours = spread(best_candidate(blank(8, 8, maps), 4, centre_share=0))
    assert all(ours < spread(gaussian(blank(8, 8), 4, seed=seed, sigma=1e4)) for seed in range(20))


def test_one_even_coil_makes_candidates_equal():
    data = blank(9, 8, torch.ones(1, 9, 8, dtype=torch.complex64))
    assert best_candidate(data, 3).equal(baselines.low_pass(data, 3))


def test_maps_of_importance_are_the_residual(coiled):
    mask, sense = gaussian(coiled, 3, sigma=4), Sense.of(coiled)
    energy, ratio = importance(coiled, sense, mask)
    rest = torch.zeros(16, 16)
    for index in range(2):
        encoding, samples = Coils(coiled.sensitivities[:]), coiled.samples([index])[0]
        rest += (samples - encoding.forward(sense(samples, mask.float(), encoding)[0])).abs().square().sum(0)
    assert torch.allclose(energy, rest, rtol=1e-3, atol=1e-6)
    assert (ratio > 0).all() and float(ratio[mask].mean()) < float(ratio[~mask].mean())


def test_bass_lowers_the_loss_and_finds_the_energy_oracle():
    """Of complex images without coils, by zero-filling, nothing couples: each exchange is one of the energy oracle's."""
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(2, 1, 12, 12, dtype=torch.complex64, generator=generator) / (torch.arange(144).reshape(12, 12) + 1.0)
    data = SliceDataset("waves", "train", prom.ifft2c(kspace), ["a", "b"], [0, 0])

    def missed(mask):
        return float((prom.fft2c(data.images).abs().square() * ~mask).sum())

    found = [missed(bass(data, 6, iterations=count, shrink=0.9)) for count in (1, 20, 200)]
    assert found[0] > found[1] >= found[2] and found[2] < 1.2 * missed(baselines.energy(data, 6))


@pytest.mark.parametrize("removal", ["ratio", "gradient"])
@pytest.mark.parametrize("pattern", ["points", "columns"])
def test_bass_learns_through_sense(coiled, pattern, removal, monkeypatch):
    """Its maps of importance lead further than exchanges at random, which are kept under the same condition."""

    def loss(count):
        masks = [bass(coiled, 4, pattern, seed=seed, iterations=count, removal=removal, device="cpu") for seed in range(4)]
        return np.mean([float(Reconstructed(coiled, Sense.of(coiled)).loss(range(2), mask.float()[None])) for mask in masks])

    first, last = loss(1), loss(12)
    assert last < 0.9 * first
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(sys.modules[bass.__module__], "importance", lambda *_: torch.rand(2, 16, 16, generator=generator).unbind())
    assert pattern == "columns" or last < 0.9 * loss(12)  # of four lines there are too few to tell


def test_the_best_setting_is_chosen(coiled):
    settings = [{"sigma": sigma, "seed": seed} for sigma, seed in itertools.product((1.0, 4.0), (0, 1))]
    sense = Sense.of(coiled)
    mask, setting = tuned(partial(gaussian, coiled, 4), settings, coiled)
    scores = [float(prom.evaluate(gaussian(coiled, 4, **one), coiled, reconstruction=sense)["psnr"].mean()) for one in settings]
    assert setting == settings[int(np.argmax(scores))] and mask.equal(gaussian(coiled, 4, **setting))
    calls = []

    def counted(*given):
        calls.append(len(given[0]))
        return ZeroFilled()(*given)

    tuned(partial(gaussian, coiled, 4), settings, coiled, reconstruction=counted, slices=1)
    assert len(calls) == len(settings)  # one slice for each


def test_air_does_not_choose(coiled):
    """Where those that would be taken are air, others choose."""
    images = torch.cat([torch.zeros_like(coiled.images[:1]), coiled.images, torch.zeros_like(coiled.images[:1])])
    air = replace(coiled, images=images, subjects=list("abcd"), slices=[0] * 4)
    settings = [{"sigma": 1.0}, {"sigma": 4.0}]
    assert tuned(partial(gaussian, air, 4), settings, air, Sense.of(coiled), slices=2)[1] in settings
    nothing = replace(coiled, images=torch.zeros_like(coiled.images))
    with pytest.raises(InputError, match="slice 0: is constant"):
        tuned(partial(gaussian, nothing, 4), settings, nothing, Sense.of(coiled))


def test_bad_input(coiled):
    for bad, message in (
        (lambda: polynomial(coiled, 4, power=-1), "power -1"),
        (lambda: polynomial(coiled, 4, centre_share=2), "centre_share 2"),
        (lambda: lattice(coiled, 4, "columns"), "use points, or equispaced"),
        (lambda: lattice(coiled, 4, rows=2), "both rows and columns"),
        (lambda: lattice(coiled, 4, rows=2, columns=2, shift=2), "shift 2"),
        (lambda: bass(coiled, 4, shrink=1), "shrink 1"),
        (lambda: bass(coiled, 4, removal="rate"), "did you mean 'ratio'"),
        (lambda: tuned(gaussian, [], coiled), "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            bad()
