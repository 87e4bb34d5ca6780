"""Exact A-optimal design against dense inverses written out, and what its trace says of a reconstruction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import prom
from prom import InputError, SliceDataset, baselines
from prom.baselines import a_optimal as module
from prom.baselines.a_optimal import Design, a_optimal
from prom.baselines.repulsion import repulsion
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.kspace.patterns import make
from prom.reconstruction.sense import LEAST_POWER, Sense, mean_power

NOISE = 0.3


def small(split: str) -> SliceDataset:
    """Virtual brains on a grid of 16 x 16, seen by eight simulated coils."""
    data = prom.load("mni_brain", split, subjects=5, slices=[60, 80, 100], size=32, phase=True)
    images = prom.ifft2c(prom.fft2c(data.images)[..., 8:24, 8:24]) / 2
    return replace(data, images=images, sensitivities=simulated(8, (16, 16)), kspace=None, labels=None, label_names=(), noise=0.005)


@pytest.fixture(scope="module")
def brains() -> SliceDataset:
    return small("train")


def measured(maps: torch.Tensor) -> torch.Tensor:
    """What coil c measures at place i of the k-space that is 1 at j alone: ``(i, c, j)``, from the encoding."""
    each = torch.eye(maps[0].numel(), dtype=torch.complex128).reshape(-1, *maps.shape[1:])
    return Coils(maps).forward(prom.ifft2c(each)).flatten(2).permute(2, 1, 0)


def inverse(rows: torch.Tensor, power: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Gamma, by inverting its inverse."""
    chosen = rows[places].flatten(0, 1)
    return torch.linalg.inv(chosen.mH @ chosen / NOISE**2 + torch.diag(1 / power.flatten()).to(torch.complex128))


def setting(shape: tuple[int, int], problems: int = 2, coils: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(problems, coils, *shape, dtype=torch.complex128, generator=generator)
    return maps, torch.rand(shape, dtype=torch.float64, generator=generator) + 0.05


@pytest.mark.parametrize("shape", [(5, 4), (1, 7)])
def test_every_step_is_that_of_dense_inverses(shape):
    maps, power = setting(shape)
    design, rows, taken = Design(maps, power, NOISE), [measured(one) for one in maps], []

    def trace(places: list[int]) -> float:
        return sum(float(inverse(one, power, places).diagonal().real.sum()) for one in rows)

    for _ in range(5):
        gains = torch.tensor([trace(taken) - trace([*taken, place]) for place in range(power.numel())], dtype=torch.float64)
        assert torch.allclose(design.gains()[~design.taken], gains[~design.taken], rtol=1e-9)
        gains[taken] = 0
        assert design.best() == int(gains.argmax())
        taken.append(design.best())
        design.take(taken[-1])
        for covariance, one in zip(design.covariance, rows, strict=True):
            assert torch.allclose(covariance, inverse(one, power, taken), rtol=1e-9)
    assert design.trace() == pytest.approx(trace(taken))
    design.take(taken.pop(1), back=True)
    assert torch.allclose(design.covariance[1], inverse(rows[1], power, taken), rtol=1e-9)
    gains = torch.tensor([trace(taken) - trace([*taken, place]) for place in range(power.numel())], dtype=torch.float64)
    assert torch.allclose(design.gains()[~design.taken], gains[~design.taken], rtol=1e-9)


def test_the_trace_is_the_mean_error_of_sense():
    """Over images of the spectrum P: the error of SENSE is linear in image and noise, so unit vectors of both give its mean."""
    maps, power = setting((4, 4), problems=1)
    design, encoding = Design(maps, power, NOISE), Coils(maps[0])
    for _ in range(6):
        design.take(design.best())
    mask, sense = design.taken.reshape(4, 4), Sense(NOISE**2 / power, iterations=500, tolerance=1e-12)
    images = prom.ifft2c(torch.diag(power.flatten().sqrt()).to(torch.complex128).reshape(-1, 4, 4))
    noise = NOISE * torch.eye(48, dtype=torch.complex128).reshape(-1, 3, 4, 4)
    error = (sense(encoding.forward(images), mask, encoding)[0] - images).abs().square().sum()
    error += sense(noise, mask, encoding)[0].abs().square().sum()
    assert design.trace() == pytest.approx(float(error), rel=1e-6)


def test_one_even_coil_makes_it_the_energy_oracle(brains):
    one = replace(brains, sensitivities=torch.ones(1, 16, 16, dtype=torch.complex64), kspace=None)
    for pattern in ("points", "columns", "rows"):
        expected = baselines.energy(brains, 8, pattern)
        assert a_optimal(one, 8, pattern).equal(expected)
        assert a_optimal(replace(one, sensitivities=None), 8, pattern).equal(expected)


@pytest.mark.parametrize("pattern", ["columns", "rows"])
def test_lines_are_a_problem_for_every_position(brains, pattern):
    """By brute force: the mean of P along the readout at each position; and no less than the error with all of P."""
    design, whole, lines = Design.of(brains, pattern), Design.of(brains), make(pattern, brains.shape)
    mask = a_optimal(brains, 4, pattern)
    for place in lines.select(mask).nonzero().flatten().tolist():
        design.take(place)
    power = mean_power(brains)
    power = power.clamp(min=LEAST_POWER * power.max()).mean(dim=0 if pattern == "columns" else 1)
    fourier = prom.fft2c(torch.eye(16, dtype=torch.complex128)[:, None])[:, 0].mT
    total = 0.0
    for position in range(16):
        there = brains.sensitivities[..., position, :] if pattern == "columns" else brains.sensitivities[..., position]
        rows = (fourier @ torch.diag_embed(there.to(torch.complex128)) @ fourier.mH)[:, lines.select(mask)].flatten(0, 1)
        prior = torch.diag(1 / power).to(torch.complex128)
        total += float(torch.linalg.inv(rows.mH @ rows / brains.noise**2 + prior).diagonal().real.sum())
    assert design.trace() == pytest.approx(total, rel=1e-6)
    for place in mask.flatten().nonzero().flatten().tolist():
        whole.take(place)
    assert whole.trace() <= design.trace()


@pytest.mark.parametrize(("pattern", "acceleration"), [("points", 12), ("columns", 4)])
def test_exchanges_never_raise_the_trace(brains, pattern, acceleration):
    def trace(mask):
        design = Design.of(brains, pattern)
        for place in make(pattern, brains.shape).select(mask).flatten().nonzero().flatten().tolist():
            design.take(place)
        return design.trace()

    greedy, exchanged = (a_optimal(brains, acceleration, pattern, passes=passes) for passes in (0, 1))
    assert greedy.sum() == exchanged.sum()
    assert trace(exchanged) <= trace(greedy) * (1 + 1e-9) < trace(baselines.energy(brains, acceleration, pattern))


@pytest.mark.parametrize(("pattern", "acceleration", "margin"), [("points", 8, 0.6), ("columns", 4, 2.0)])
def test_repulsion_is_near_it(brains, pattern, acceleration, margin):
    """dB on subjects that neither has seen."""
    exact, near = (
        prom.evaluate(method(brains, acceleration, pattern), small("test"), reconstruction=Sense.of(brains))["psnr"].mean()
        for method in (a_optimal, repulsion)
    )
    assert near - 0.1 < exact < near + margin


def test_what_cannot_be_is_refused(brains, monkeypatch):
    with pytest.raises(InputError, match="noise is not known"):
        a_optimal(replace(brains, noise=None), 4)
    with pytest.raises(InputError, match="passes -1"):
        a_optimal(brains, 4, passes=-1)
    monkeypatch.setattr(module, "MEMORY", 2**16)
    with pytest.raises(InputError, match=r"would need 0\.0 GiB.*use repulsion"):
        a_optimal(brains, 4)
