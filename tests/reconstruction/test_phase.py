"""Images of known phase: dense least squares, finite differences and exact cases are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prom import InputError
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils
from prom.kspace.fourier import fft2c, ifft2c
from prom.reconstruction.from_noise import power_law, sparse_strength
from prom.reconstruction.phase import PhaseConstrained, homodyne, smooth_phase
from prom.reconstruction.sense import Sense

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=GENERATOR)


@pytest.mark.parametrize("shape", [(4, 6), (5, 4)])
def test_it_is_the_dense_least_squares_solution(shape):
    maps, samples, mask = normal(2, *shape), normal(2, *shape), torch.rand(shape, generator=GENERATOR) < 0.5
    phase = torch.exp(1j * normal(*shape).real)
    penalty = 0.1 + torch.rand(shape, generator=GENERATOR, dtype=torch.float64)
    n = shape[0] * shape[1]
    units = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    encoding = Coils(maps)
    rows = torch.cat([(mask * encoding.forward(phase * units)).reshape(n, -1), (penalty.sqrt() * fft2c(units)).reshape(n, -1)], dim=1).T
    right = torch.cat([(mask * samples).flatten(), torch.zeros(n)])
    stacked = np.concatenate([rows.real.numpy(), rows.imag.numpy()])
    expected = np.linalg.lstsq(stacked, np.concatenate([right.real.numpy(), right.imag.numpy()]), rcond=None)[0].reshape(shape)
    found, _ = PhaseConstrained(penalty, phase, iterations=300, tolerance=1e-12)(samples, mask, encoding)
    assert np.allclose(found, phase.numpy() * expected, atol=1e-8)


def test_a_smooth_phase_has_the_window_of_its_formula():
    image, expected = normal(7, 10), np.zeros((7, 10))
    for (y, x), _ in np.ndenumerate(expected):
        share = [min(abs(y - 3) / 2, 1), min(abs(x - 5) / 4, 1)]  # reach 1 and 3
        expected[y, x] = np.prod(np.cos(np.pi / 2 * np.array(share)) ** 2)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image.numpy())))
    smooth = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(expected * kspace)))
    assert np.allclose(smooth_phase(image, (1, 3)), smooth / np.abs(smooth), atol=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    shape = (4, 6)
    maps, samples, target = normal(2, *shape), normal(2, *shape), normal(*shape)
    phase, weight = torch.exp(1j * normal(*shape).real), torch.rand(shape, generator=GENERATOR, dtype=torch.float64)
    reconstruction = PhaseConstrained(0.3, phase, iterations=300, tolerance=1e-13)

    def loss(weight):
        return float((reconstruction(samples, weight, Coils(maps))[0] - target).abs().square().sum())

    found, pullback = reconstruction(samples, weight, Coils(maps))
    gradient = pullback(2 * (found - target)).sum(dim=0)
    for y, x in ((0, 0), (2, 3), (3, 5)):
        step = torch.zeros(shape, dtype=torch.float64)
        step[y, x] = 1e-5
        assert float(gradient[y, x]) == pytest.approx((loss(weight + step) - loss(weight - step)) / 2e-5, rel=1e-5)


def test_a_batch_is_image_by_image():
    maps, samples, phase = normal(3, 2, 8, 6), normal(3, 2, 8, 6), torch.exp(1j * normal(3, 8, 6).real)
    mask = torch.rand(8, 6, generator=GENERATOR) < 0.6
    together = PhaseConstrained(0.1, phase, iterations=100, tolerance=1e-10)(samples, mask, Coils(maps))[0]
    for number in range(3):
        alone = PhaseConstrained(0.1, phase[number], iterations=100, tolerance=1e-10)(samples[number], mask, Coils(maps[number]))[0]
        assert torch.allclose(together[number], alone, atol=1e-7)


@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_half_of_k_space_is_enough_where_the_phase_is_known(shape):
    image, phase = torch.rand(shape, generator=GENERATOR, dtype=torch.float64), torch.exp(1j * normal(*shape).real)
    mask = (torch.arange(shape[0]) <= shape[0] // 2)[:, None].expand(shape).contiguous()  # with DC: the rest is its conjugate
    flat = torch.ones(shape, dtype=torch.complex128)
    assert torch.allclose(homodyne(fft2c(image), mask, flat).real, image)
    maps = simulated(4, shape).to(torch.complex128)
    samples = mask * Coils(maps).forward(phase * image)
    found, _ = PhaseConstrained(1e-8, phase, iterations=500, tolerance=1e-12)(samples, mask, Coils(maps))
    assert torch.allclose(found, phase * image, atol=1e-4)


def test_a_smooth_phase_is_found_and_partial_fourier_profits(blobs):
    """Of an image with a smooth phase, three quarters of k-space: the error falls to less than half, with one coil and with several."""
    image = blobs.images[0, 0]
    wave = torch.arange(32) * (2 * torch.pi / 32)
    phase = torch.polar(torch.ones(32, 32), 0.8 * wave.sin()[:, None] + 0.5 * wave.cos())
    mask = (torch.arange(32) < 24)[:, None].expand(32, 32).contiguous()
    for maps in (torch.ones(1, 32, 32, dtype=torch.complex64), simulated(4, (32, 32))):
        samples = mask * Coils(maps).forward(phase * image)
        free = Sense(1e-4)(samples, mask, Coils(maps))[0]
        found = smooth_phase(free, (7, 15))
        constrained = PhaseConstrained(1e-4, found)(samples, mask, Coils(maps))[0]
        error, before = ((one.abs() - image).square().mean().sqrt() for one in (constrained, free))
        assert error < before / 2
    alone = ifft2c(fft2c(phase * image) * mask)
    better = homodyne(fft2c(phase * image) * mask, mask, smooth_phase(alone, (7, 15)))
    assert (better.abs() - image).square().mean() < (alone.abs() - image).square().mean() / 2


def test_phases_of_nothing():
    assert torch.equal(smooth_phase(torch.zeros(4, 4, dtype=torch.complex64), (1, 1)), torch.ones(4, 4, dtype=torch.complex64))
    with pytest.raises(InputError, match="reach -1"):
        smooth_phase(torch.ones(4, 4), (-1, 1))


# ---------------------------------------------------------------------------------------------------- what samples are weighed against


def test_a_power_law_is_found_through_coils_mask_and_noise():
    generator = torch.Generator().manual_seed(1)
    distance = torch.hypot(*torch.meshgrid(torch.arange(64.0) - 32, torch.arange(64.0) - 32, indexing="ij"))
    power = 400 * (1 + distance).pow(-2.5)
    draws = [torch.randn(6, 64, 64, dtype=torch.complex64, generator=generator) for _ in range(1)][0]
    maps = simulated(8, (64, 64))
    noise = 0.2 * torch.randn(6, 8, 64, 64, dtype=torch.complex64, generator=generator)
    kspace = Coils(maps).forward(ifft2c(power.sqrt() * draws)) + noise
    mask = torch.rand(64, 64, generator=generator) < 0.4
    found = power_law(kspace * mask, mask, 0.2)
    ratio = (found / power)[distance.round().long() % 3 == 0]
    assert float(ratio.min()) > 0.5 and float(ratio.max()) < 2


def test_it_is_near_the_best_ridge_or_better(blobs):
    """For virtual coils, two levels of noise: the mean error is at most that of the best of nine ridges."""
    maps, image = simulated(4, (32, 32)), blobs.images[3, 0] + 0j
    encoding, generator = Coils(maps), torch.Generator().manual_seed(2)
    mask = torch.rand(32, 32, generator=generator) < 0.4
    mask[12:20, 12:20] = True
    for noise in (0.02, 0.1):
        samples = mask * (encoding.forward(image) + noise * torch.randn(4, 32, 32, dtype=torch.complex64, generator=generator))

        def error(penalty, samples=samples):
            return float((Sense(penalty)(samples, mask, encoding)[0] - image).abs().square().mean())

        ridges = [error(10.0**power) for power in np.linspace(-5, 1, 9)]
        assert error(noise**2 / power_law(samples[None], mask, noise)) < 1.05 * min(ridges)


def test_what_is_all_noise_is_refused():
    noise = torch.randn(1, 2, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="has nothing above the noise, 2"):
        power_law(noise, torch.ones(16, 16, dtype=torch.bool), 2.0)
    flat = power_law(noise, torch.ones(16, 16, dtype=torch.bool), 0.01)
    assert float(flat.max() / flat.min()) < 3
    assert sparse_strength(0 * noise[0], torch.ones(16, 16, dtype=torch.bool), 1.0) == 1e-3
    k = (torch.arange(32.0)[:, None] - 16).hypot(torch.arange(32.0) - 16)
    rising = power_law((1 + k).pow(0.25)[None, None] + 0j, torch.ones(32, 32, dtype=torch.bool), 1e-6)  # no power law falls like that
    assert float(rising.max()) == pytest.approx(float(rising.min())) == pytest.approx(3.5, rel=0.02)


def test_phases_have_magnitude_1_or_0():
    maps, phase = simulated(2, (16, 16)), torch.ones(16, 16) + 0j
    samples, mask = Coils(maps).forward(phase), torch.ones(16, 16)
    with pytest.raises(InputError, match="phase: has values of other magnitude than 1; divide it by phase.abs"):
        PhaseConstrained(1e-2, 0.01 * phase)(samples, mask, Coils(maps))
    with pytest.raises(InputError, match="phase: has values of other magnitude than 1; divide it by phase.abs"):
        homodyne(fft2c(phase), mask.bool(), 0.01 * phase)
    outside = phase.clone()
    outside[:2] = 0
    assert not PhaseConstrained(1e-2, outside)(samples, mask, Coils(maps))[0][:2].any()
