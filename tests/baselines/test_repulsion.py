"""Energy with repulsion: its kernel and its greedy choice against what the formula says, and what it is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import prom
from prom import InputError, SliceDataset, baselines
from prom.baselines.repulsion import greedy, reach, repulsion
from prom.kspace.coils import simulated
from prom.kspace.patterns import make
from prom.reconstruction.sense import Sense


@pytest.fixture(scope="module")
def brains():
    return prom.load("mni_brain", subjects=6, slices=[60, 80, 100], size=48, coils=8, phase=True, noise=0.005)


@pytest.fixture(scope="module")
def others():
    return prom.load("mni_brain", "test", subjects=5, slices=[60, 80, 100], size=48, coils=8, phase=True, noise=0.005)


def score(mask, brains, others) -> float:
    return prom.evaluate(mask, others, reconstruction=Sense.of(brains))["psnr"].mean()


def test_the_reach_is_the_spectrum_of_products_of_maps(brains):
    maps = brains.sensitivities.to(torch.complex128)[:3, :8, :6]
    found = reach(maps, make("points", (8, 6)))
    coils, (y, x) = maps.numpy(), np.mgrid[:8, :6]
    for dy, dx in ((0, 0), (1, 0), (-3, 2), (-4, -3)):
        wave = np.exp(-2j * np.pi * (dy * (y - 4) / 8 + dx * (x - 3) / 6))
        products = np.einsum("khw,lhw,hw->kl", coils.conj(), coils, wave)
        whole = np.einsum("khw,lhw->kl", coils.conj(), coils)
        assert float(found[dy + 4, dx + 3]) == pytest.approx((abs(products) ** 2).sum() / (abs(whole) ** 2).sum())
    assert torch.allclose(reach(maps, make("columns", (8, 6))), found.sum(0) / found[:, 3].sum())


def test_the_reach_of_maps_of_every_slice_is_that_of_sixteen_of_them():
    maps = torch.randn(31, 3, 8, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    lines = make("points", (8, 6))
    assert reach(maps, lines).equal(reach(maps[::2], lines)) and not reach(maps[:16], lines).equal(reach(maps[::2], lines))
    assert torch.allclose(reach(maps[:1].expand(31, -1, -1, -1), lines), reach(maps[0], lines))


@pytest.mark.parametrize("shape", [(7, 6, 1), (1, 9, 4)])  # points, and lines of four samples
def test_the_choice_is_greedy(shape):
    rng = np.random.default_rng(0)
    power, kernel = rng.random(shape), rng.random(shape[:2])
    offsets = [range(-((n - 1) // 2), (n - 1) // 2 + 1) for n in shape[:2]]  # a periodic grid has each of them once

    def around(values):
        """The sum of kernel times values at each offset, for every place."""
        middle = [n // 2 for n in shape[:2]]
        return sum(kernel[middle[0] + i, middle[1] + j] * np.roll(values, (-i, -j), (0, 1)) for i in offsets[0] for j in offsets[1])

    taken = np.zeros(shape[:2], bool)
    for _ in range(5):
        known = around(taken[::-1, ::-1].astype(float))[::-1, ::-1]  # of the mirrored mask: K(j - i) where the other sum has K(i - j)
        unknown = ((power / (1 + 3 * power * known[:, :, None])) ** 2).sum(axis=2)
        taken.flat[np.where(taken, -1, around(unknown)).argmax()] = True
    assert np.array_equal(greedy(power, kernel, 3.0, 5), taken)


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_one_coil_makes_it_the_energy_oracle(pattern):
    data = prom.load("mni_brain", subjects=2, slices=[80], size=32, coils=1, phase=True, noise=0.005)
    power = prom.fft2c(data.images).abs().square().mean(dim=(0, 1))
    power = {"points": power, "columns": power.sum(dim=0), "rows": power.sum(dim=1)}[pattern]
    mask = repulsion(data, 5, pattern, strength=0.3)
    chosen = make(pattern, (32, 32)).select(mask)
    assert power[chosen].min() >= power[~chosen].max() and int(chosen.sum()) == power.numel() // 5
    assert repulsion(prom.load("mni_brain", subjects=2, slices=[80], size=32, phase=True), 5, pattern).equal(mask)


@pytest.mark.parametrize(("pattern", "acceleration", "count"), [("points", 7.3, 48 * 48 / 7.3), ("columns", 5, 9), ("rows", 48, 1)])
def test_the_budget_is_exact(brains, pattern, acceleration, count):
    mask = repulsion(brains, acceleration, pattern, strength=0.1)
    assert int(make(pattern, (48, 48)).select(mask).sum()) == int(count)


@pytest.mark.parametrize(("pattern", "acceleration", "margin"), [("points", 4, 0.5), ("points", 8, 0.5), ("columns", 4, 1.5)])
def test_it_is_ahead_of_what_is_drawn(brains, others, pattern, acceleration, margin):
    """Of virtual brains with eight coils, on subjects that no mask has seen; the rivals here are not tuned."""
    ours = score(repulsion(brains, acceleration, pattern), brains, others)
    rivals = ["energy", "gaussian"] + (["poisson_disc"] if pattern == "points" else ["equispaced"])
    assert all(ours > score(baselines.get(rival)(brains, acceleration, pattern), brains, others) + margin for rival in rivals)


def test_more_of_it_keeps_samples_apart(brains):
    lines = make("points", (48, 48))
    kernel = reach(brains.sensitivities, lines).numpy()
    kernel[24, 24] = 0

    def crowding(strength):
        mask = repulsion(brains, 6, strength=strength).double().numpy()
        near = np.fft.ifft2(np.fft.fft2(mask) * np.fft.fft2(np.fft.ifftshift(kernel))).real
        return (near * mask).sum()

    assert crowding(0.0) > crowding(0.05) > crowding(0.5)


def test_what_cannot_be_is_refused(brains):
    from dataclasses import replace

    with pytest.raises(InputError, match="noise is not known"):
        repulsion(replace(brains, noise=None), 4)
    with pytest.raises(InputError, match="strength"):
        repulsion(brains, 4, strength=-1)


def test_slices_of_air_do_not_choose():
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(16).outer(torch.hann_window(16))
    images = (window * torch.rand(20, 1, 16, 16, generator=generator)) + 0j
    images[19] = 0  # among the eight that choose
    data = SliceDataset("demo", "train", images, [f"s{i // 5}" for i in range(20)], [i % 5 for i in range(20)])
    data = replace(data, sensitivities=simulated(3, (16, 16)), noise=0.01)
    assert int(baselines.get("repulsion")(data, 4, "columns")[0].sum()) == 4
