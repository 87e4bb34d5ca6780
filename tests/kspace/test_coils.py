"""Coils against closed forms, the normal equations solved pixel by pixel, SigPy's maps, NumPy's singular values and known noise."""

import math

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch
from hypothesis import given
from hypothesis import strategies as st

from prom.errors import InputError
from prom.kspace.coils import (
    combine,
    compress,
    compression,
    estimated,
    measured_noise_level,
    mixed,
    noise_level,
    resampled,
    root_sum_of_squares,
    simulated,
    whitening,
    with_phase,
)
from prom.kspace.fourier import fft2c


def complex_normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_root_sum_of_squares_is_the_norm_over_the_coils(coils, seed):
    images = complex_normal(2, coils, 5, 4, seed=seed)
    result = root_sum_of_squares(images)
    assert result.dtype == torch.float32 and result.shape == (2, 5, 4)
    assert np.allclose(result, np.linalg.norm(images.numpy().astype(np.complex128), axis=1), rtol=1e-6)
    assert torch.equal(result, root_sum_of_squares(images.movedim(1, 3), axis=3))
    mixing, _ = torch.linalg.qr(complex_normal(coils, coils, seed=seed + 1))  # a unitary mixture of the coils changes nothing
    assert torch.allclose(root_sum_of_squares(torch.einsum("jk,nkhw->njhw", mixing, images)), result, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_root_sum_of_squares_neither_underflows_nor_overflows(scale):
    assert torch.allclose(root_sum_of_squares(torch.tensor([3.0, 4.0]).reshape(2, 1, 1) * scale), torch.tensor(5.0) * scale)


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_combine_is_the_least_squares_solution(coils, seed):
    images, maps = complex_normal(2, coils, 4, 3, seed=seed), complex_normal(coils, 4, 3, seed=seed + 1)
    result = combine(images, maps)
    assert result.dtype == torch.complex64 and result.shape == (2, 4, 3)
    for row in range(4):
        for column in range(3):
            matrix, data = maps[:, row, column, None].to(torch.complex128), images[:, :, row, column].T.to(torch.complex128)
            expected = np.linalg.lstsq(matrix.numpy(), data.numpy(), rcond=None)[0][0]
            assert np.allclose(result[:, row, column], expected, rtol=1e-4, atol=1e-5)


def test_combine_is_0_where_nothing_is_known():
    maps = complex_normal(3, 4, 4)
    maps[:, 1, 2] = 0
    result = combine(complex_normal(3, 4, 4, seed=1), maps)
    assert result[1, 2] == 0 and torch.isfinite(result).all() and (result != 0).sum() == 15


def test_maps_made_of_the_images_give_the_root_sum_of_squares():
    images = complex_normal(1, 4, 6, 6)
    magnitude = root_sum_of_squares(images)
    combined = combine(images, (images / magnitude[:, None])[0])
    assert torch.allclose(combined.real, magnitude, rtol=1e-5) and combined.imag.abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (2, 4, 4), (1, 2, 4, 5)])
def test_shapes_that_disagree_are_named(shape):
    with pytest.raises(InputError) as caught:
        combine(complex_normal(7, 2, 4, 5), complex_normal(*shape))
    assert str(shape) in str(caught.value) and "(2, 4, 5)" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("coils, shape, distance", [(1, (8, 8), 1.5), (8, (32, 24), 1.5), (8, (9, 7), 1.5), (12, (16, 40), 2.5)])
def test_simulated_maps_are_sigpys_birdcage(coils, shape, distance):
    check_birdcage(coils, shape, distance, coils)


@pytest.mark.parametrize("coils, shape, ring", [(1, (4, 8, 8), 1), (8, (6, 12, 9), 4), (7, (5, 4, 8), 4)])
def test_simulated_maps_of_a_volume_are_sigpys_birdcage_of_two_rings(coils, shape, ring):
    check_birdcage(coils, shape, 1.5, ring)
    with pytest.raises(InputError, match="or \\(D, H, W\\) of a volume"):
        simulated(coils, (*shape, 2))


def check_birdcage(coils, shape, distance, ring):
    maps = simulated(coils, shape, distance)
    assert maps.dtype == torch.complex64
    assert np.allclose(maps, sigpy.mri.birdcage_maps((coils, *shape), r=distance, nzz=ring), atol=1e-6)
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(shape), atol=1e-6)
    assert torch.equal(maps, simulated(coils, shape, distance))


def test_simulated_coils_see_different_parts_and_are_smooth():
    maps = simulated(8, (64, 64))
    brightest = [divmod(int(coil.abs().argmax()), 64) for coil in maps]
    angles = [math.atan2(row - 32, column - 32) % (2 * math.pi) for row, column in brightest]
    assert np.allclose(np.diff(angles[:8]), np.pi / 4, atol=0.1) and angles[0] < 0.1
    assert max(maps.diff(dim=axis).abs().max() for axis in (1, 2)) < 0.3  # a phase that wraps would jump by up to 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, (8, 8)), "coils 0: must be >= 1 and <= 128"),
        ((2.5, (8, 8)), "coils 2.5: must be a whole number"),
        ((4, (8, 0)), "shape 0: must be >= 1"),
        ((4, (8, 8), 1.4), "distance 1.4: must be > 1.4143"),
    ],
)
def test_bad_simulated_coils_are_named(arguments, message):
    with pytest.raises(InputError) as caught:
        simulated(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("deviation", [1e-6, 0.005, 3.0])
def test_noise_level_finds_known_noise_beside_an_image(deviation):
    phantom = torch.tensor(sigpy.shepp_logan((128, 128)), dtype=torch.complex64)
    smooth = torch.tensor(np.hanning(128)[:, None] * np.hanning(128)).float()  # a spectrum that has ended at the corners
    noise = deviation * complex_normal(3, 4, 128, 128)
    kspace = fft2c(simulated(4, (128, 128)) * phantom) * smooth**8 + noise
    assert noise.abs().square().mean().sqrt() == pytest.approx(deviation, rel=0.01)  # what the deviation of a complex sample is
    assert noise_level(kspace) == pytest.approx(deviation, rel=0.03)
    assert noise_level(kspace[0, 0]) == pytest.approx(deviation, rel=0.1)


def test_noise_level_is_robust_to_bright_samples_and_averages_the_variance_of_coils():
    kspace = complex_normal(2, 2, 64, 64)
    kspace[:, 1] *= 3
    expected = math.sqrt((1 + 9) / 2)
    assert noise_level(kspace) == pytest.approx(expected, rel=0.06)
    bright = kspace.clone()
    bright[..., :2, :2] = 1e6  # 4 of 64 samples of a corner, 1.6 % of all corners
    assert noise_level(bright) == pytest.approx(noise_level(kspace), rel=0.03)


@pytest.mark.parametrize("share", [0.05, 0.45])
def test_the_noise_of_padded_kspace_is_that_of_what_was_measured(share):
    """Zeros beside what was measured, of whole columns or beyond an ellipse, say nothing of noise."""
    padded, shuttered = 0.05 * complex_normal(4, 4, 64, 320), 0.05 * complex_normal(4, 4, 128, 128)
    columns = round(share * 320 / 8)
    padded[..., :columns] = padded[..., 320 - columns :] = 0
    row, column = torch.meshgrid(*(2 * torch.arange(n) / n - 1 for n in (128, 128)), indexing="ij")
    shuttered[..., row**2 + column**2 > 1.5 - share / 2] = 0
    for kspace in (padded, shuttered):
        assert (kspace == 0).any() and noise_level(kspace) == pytest.approx(0.05, rel=0.05)
        assert measured_noise_level(kspace, torch.ones(kspace.shape[-2:], dtype=torch.bool)) == pytest.approx(0.05, rel=0.05)
    one = padded.clone()
    one[:, 1] = 0
    with pytest.raises(InputError, match="corners are empty"):
        noise_level(one)  # a coil without a signal
    few = torch.zeros(1, 64, 64, dtype=torch.complex64)
    few[0, 0, :8] = few[0, 1, :8] = few[0, 1, 56:] = 0.05
    with pytest.raises(InputError, match="corners are empty"):
        noise_level(few)


@pytest.mark.parametrize(
    "kspace, message", [(torch.zeros(4, 64, 64) + 0j, "corners are empty"), (complex_normal(4, 12, 12), "4 samples in its corners")]
)
def test_noise_level_says_where_it_cannot_tell(kspace, message):
    with pytest.raises(InputError) as caught:
        noise_level(kspace)
    assert message in str(caught.value) and "give noise=" in str(caught.value) and "\n" not in str(caught.value)


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_compression_keeps_the_energy_of_the_largest_singular_values_in_their_order(count, seed):
    kspace = complex_normal(3, 6, 8, 5, seed=seed) * torch.arange(1, 7)[:, None, None]
    kspace = mixed(kspace, complex_normal(6, 6, seed=seed + 1))
    stacked = kspace.movedim(1, 0).flatten(1).to(torch.complex128).numpy()
    left, values, _ = np.linalg.svd(stacked, full_matrices=False)
    compressed = compress(kspace, count)
    energy = compressed.abs().square().sum((0, 2, 3))
    assert compressed.shape == (3, count, 8, 5) and compressed.dtype == torch.complex64
    assert np.allclose(energy, values[:count] ** 2, rtol=1e-4)
    matrix = compression(kspace, count)
    overlap = np.abs(np.diag(matrix.numpy() @ left[:, :count]))
    assert np.allclose(overlap, 1, atol=1e-3)
    assert torch.allclose(matrix @ matrix.mH, torch.eye(count) + 0j, atol=1e-5)


def test_compression_does_not_hang_on_scale_or_phase_and_keeps_all_where_coils_repeat():
    few = complex_normal(2, 2, 16, 16)
    kspace = mixed(few, complex_normal(5, 2, seed=1))  # five coils of rank two
    assert compress(kspace, 2).abs().square().sum() == pytest.approx(float(kspace.abs().square().sum()), rel=1e-5)
    assert torch.allclose(compression(kspace, 2), compression(kspace * 1e-5j, 2), atol=1e-4)
    with pytest.raises(InputError, match="coils to keep 6: must be >= 1 and <= 5"):
        compress(kspace, 6)


@pytest.mark.parametrize("shape", [(32, 24), (33, 21), (64, 96)])
def test_resampled_maps_are_the_same_coils_at_the_new_pixels(shape):
    """The ring of coils is known at every place of the field of view, so the maps of the new grid are known without resampling."""
    found = resampled(3 * simulated(6, (64, 60)), shape)
    expected = simulated(6, shape)
    inner = np.s_[..., 2:-2, 2:-2]  # at the edge there is nothing to interpolate with
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    odd = any(n % 2 for n in shape)
    if odd:  # simulated() has its middle at n / 2, between the pixels n // 2 and n // 2 + 1
        expected = ring(6, 2 * (rows - shape[0] // 2) / shape[0], 2 * (columns - shape[1] // 2) / shape[1])
    assert torch.allclose(found[inner], expected[inner], atol=0.02)
    assert torch.allclose(found.abs().square().sum(0), torch.ones(shape), atol=1e-5)


def ring(count, v, u, distance=1.5):
    """The maps of ``simulated`` at rows v and columns u, from -1 to 1."""
    angle = 2 * np.pi * np.arange(count)[:, None, None] / count
    u, v = u - distance * np.cos(angle), v[:, None] - distance * np.sin(angle)
    maps = np.exp(1j * (np.arctan2(u, -v) - angle)) / np.hypot(u, v)
    return torch.tensor(maps / np.sqrt((abs(maps) ** 2).sum(0)), dtype=torch.complex64)


def test_resampling_to_the_same_grid_normalises_and_keeps_what_is_unknown():
    maps = complex_normal(3, 9, 8)
    maps[:, :3] = 0
    found = resampled(maps, (9, 8))
    assert torch.allclose(found[:, 3:], maps[:, 3:] / maps[:, 3:].abs().square().sum(0).sqrt(), atol=1e-6) and (found[:, :3] == 0).all()
    larger = resampled(maps, (18, 16)).abs().square().sum(0)
    assert torch.all((larger - 1).abs().lt(1e-5) | (larger == 0)) and (larger > 0).float().mean() == pytest.approx(2 / 3, abs=0.05)
    for unknown, kept in ((3, [False, False, True, True]), (2, [False, True, True, True])):  # of a pixel at 2, weighted 1/2, 1, 1/2
        edge = torch.ones(1, 8, 8)
        edge[:, :, :unknown] = 0
        assert (resampled(edge, (4, 4)) != 0).tolist() == [[kept] * 4]
    for bad in (torch.zeros(3, 8, 8), torch.ones(8, 8)):
        with pytest.raises(InputError, match="sensitivities of shape"):
            resampled(bad, (4, 4))
    maps[1, 0, 0] = torch.nan  # as 0 / 0 outside the object: products would carry it everywhere
    with pytest.raises(InputError, match="NaN or infinite values; where nothing is known of a coil, they can be 0"):
        resampled(maps, (9, 8))


@pytest.mark.parametrize("dead", [0.0, 1e-4])
def test_a_coil_that_was_not_connected_gives_no_phase(dead):
    """Neither 0 nor noise alone: the maps are those of the other coils, whatever the order."""
    image = torch.zeros(32, 32)
    image[4:28, 4:28] = 1
    kspace = fft2c(simulated(4, (32, 32)) * image) + 1e-4 * complex_normal(4, 32, 32)
    alone = estimated(kspace)
    nothing = dead * complex_normal(1, 32, 32, seed=1)
    first, last = estimated(torch.cat([nothing, kspace])), estimated(torch.cat([kspace, nothing]))
    assert torch.allclose(first[1:], alone, atol=1e-3) and torch.allclose(last[:-1], alone, atol=1e-3)
    assert (first[1][first[1] != 0].angle().abs() < 1e-3).all()


def test_without_a_crop_there_are_maps_everywhere():
    image = torch.zeros(32, 32)
    image[8:24, 8:24] = 1
    kspace = fft2c(simulated(4, (32, 32)) * image) + 1e-3 * complex_normal(4, 32, 32)
    cropped, whole = estimated(kspace), estimated(kspace, crop=0.0)
    assert 0 < (cropped.abs().sum(0) == 0).float().mean() < 1
    assert torch.allclose(whole.abs().square().sum(0), torch.ones(32, 32), atol=1e-4)
    assert torch.allclose(whole * (cropped != 0), cropped, atol=1e-5)


def test_whitening_makes_noise_equal_and_uncorrelated():
    """Of noise mixed by any matrix, the sample covariance after it is the mean power of the coils times the identity."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, dtype=torch.complex64, generator=generator)
    noise = mixing @ torch.randn(5, 4000, dtype=torch.complex64, generator=generator)
    matrix = whitening(noise)
    white = (matrix @ noise).to(torch.complex128)
    power = noise.abs().double().square().mean()
    assert torch.allclose(white @ white.mH / 4000, power * torch.eye(5, dtype=torch.complex128), atol=1e-4 * float(power))
    other = (matrix @ mixing).to(torch.complex128)  # of noise that was not looked at: to the accuracy of 4000 samples
    assert torch.allclose(other @ other.mH, power * torch.eye(5, dtype=torch.complex128), atol=0.1 * float(power))


@pytest.mark.parametrize("seed", range(4))
def test_whitening_of_coils_that_depend_on_each_other_is_refused(seed):
    """Rounding decides whether Cholesky's factorisation fails."""
    noise = torch.randn(3, 500, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    for dependent in (noise[0], 0.3 * noise[0] + 0.7j * noise[1]):
        with pytest.raises(InputError, match="a coil has no noise, or the same as another or others"):
            whitening(torch.stack([noise[0], noise[1], dependent]))


def test_whitening_of_too_little_noise_is_refused():
    noise = torch.randn(4, 15, dtype=torch.complex64)
    with pytest.raises(InputError, match="noise scan of 15 samples: must have at least 16 for 4 coils"):
        whitening(noise)
    twice = torch.randn(2, 100, dtype=torch.complex64)
    with pytest.raises(InputError, match="a coil has no noise"):
        whitening(torch.cat([twice, torch.zeros(1, 100)]))


def test_slices_have_the_phase_of_one_coil():
    """Of one that sees all of them, not of the first, which fades away from slice to slice."""
    image = torch.zeros(32, 32)
    image[4:28, 4:28] = 1
    maps = simulated(4, (32, 32)) * torch.polar(torch.ones(4), torch.tensor([0.0, 2.0, 0.5, 1.0]))[:, None, None]
    fading = torch.stack([torch.cat([maps[:1] * share, maps[1:]]) for share in (1.0, 0.3, 0.05)])
    kspace = fft2c(fading * image) + 1e-5 * complex_normal(3, 4, 32, 32)
    first = with_phase(kspace)
    found = torch.stack([estimated(one, first=first) for one in kspace])
    assert first == 1 and (found[:, 1, 8:24, 8:24].angle().abs() < 0.05).all()
    assert with_phase(kspace[0]) == 0  # alone, the first slice would have the phase of another
    kspace[1] = 0  # an empty slice says nothing
    assert with_phase(kspace) == 1 and with_phase(kspace[1:2]) == 0
    kspace[0, 1:] = kspace[2, 0] = 0  # no coil sees all
    assert with_phase(kspace) == 0
    halves = torch.zeros(6, 3, 16, 16, dtype=torch.complex64)  # a dead coil, and two that see half of the slices each, or more
    halves[:3, 1] = halves[2:, 2] = 1
    assert with_phase(halves) == 2


def test_noise_of_what_is_no_number_is_refused():
    kspace = complex_normal(2, 64, 64)
    kspace[1, 0, :] = torch.nan
    kspace[1, :8, :8] = torch.nan
    for find in (lambda: noise_level(kspace), lambda: measured_noise_level(kspace, torch.ones(64, 64).bool())):
        with pytest.raises(InputError, match="NaN or infinite values where the noise is looked at"):
            find()


@pytest.mark.parametrize("share", [1.0, 0.3, 0.1])
def test_the_noise_of_undersampled_kspace(share):
    generator = torch.Generator().manual_seed(0)
    frequency = torch.hypot(torch.arange(64.0)[:, None] - 32, torch.arange(64.0) - 32)
    signal = 100 / (1 + frequency) ** 2.5
    noise = 0.05 * torch.randn(3, 4, 64, 64, dtype=torch.complex64, generator=generator)
    mask = torch.rand(64, 64, generator=generator) < share
    assert measured_noise_level((signal + noise) * mask, mask) == pytest.approx(0.05, rel=0.1)


def test_the_noise_of_oblong_kspace_is_from_what_lies_farthest_out_along_either_axis():
    mask = torch.ones(32, 128, dtype=torch.bool)
    noise = torch.randn(4, 32, 128, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    rows, columns = (torch.arange(32.0)[:, None] - 16).abs() / 16, (torch.arange(128.0) - 64).abs() / 64
    corners = torch.hypot(rows, columns) > 1.1
    assert int(corners.sum()) > 32 * 128 / 16  # as many as are taken
    assert measured_noise_level(torch.where(corners, 0.05 * noise, 5 * noise), mask) == pytest.approx(0.05, rel=0.1)


def test_noise_of_too_few_samples_is_refused():
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[5:12, 5:12] = True
    with pytest.raises(InputError, match="has 49 measured samples"):
        measured_noise_level(torch.ones(1, 16, 16, dtype=torch.complex64), mask)
    with pytest.raises(InputError, match="has 0 measured samples"):
        measured_noise_level(torch.zeros(1, 16, 16, dtype=torch.complex64), ~mask)  # there are 207 of them
    kspace = torch.ones(2, 16, 16, dtype=torch.complex64)
    kspace[1] = 0
    with pytest.raises(InputError, match="outermost samples of a coil are 0"):
        measured_noise_level(kspace, ~mask)
