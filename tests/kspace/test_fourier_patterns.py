"""The transform is unitary and centred; patterns are adjoint pairs with exact budgets."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import noise

from prom import InputError, fft2c
from prom.kspace.encoding import Fourier, FourierUpToPhase
from prom.kspace.fourier import to_centred, to_native
from prom.kspace.patterns import PATTERNS, Lines, make
from prom.masks.demands import acceleration_of

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@pytest.mark.parametrize("encoding", [Fourier, FourierUpToPhase])
@given(size=sizes)
def test_transforms_are_unitary(encoding, size):
    image, kspace, made = noise(2, *size), noise(2, *size, seed=1), encoding(size)
    reference.unitary(made.forward, made.adjoint, image)
    reference.adjoint(made.forward, made.adjoint, image, kspace)


@given(sizes)
def test_the_fast_transform_differs_by_a_phase_of_the_image_only(size):
    image, exact, fast = noise(*size), Fourier(size), FourierUpToPhase(size)
    torch.testing.assert_close(fast.samples_of(image).abs(), exact.forward(image).abs())
    torch.testing.assert_close(fast.adjoint(fast.samples_of(image)).abs(), image.abs())


@given(sizes)
def test_locations_are_whole_frequencies_with_0_at_dc(size):
    locations = Fourier(size).locations
    assert locations.shape == (*size, 2) and not locations[size[0] // 2, size[1] // 2].any()
    image = torch.exp(2j * torch.pi * (torch.arange(size[0]).double()[:, None] * int(locations[0, 0, 0]) / size[0]).expand(size))
    assert int(fft2c(image).abs().argmax()) // size[1] == 0  # a wave of the first row's frequency is found there


@given(sizes)
def test_transform_agrees_with_scipy(size):
    image = noise(3, *size).numpy()
    axes = (-2, -1)
    expected = np.fft.fftshift(scipy.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)
    np.testing.assert_allclose(fft2c(torch.from_numpy(image)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 5)])
def test_zero_frequency_is_at_the_centre(size):
    kspace = fft2c(torch.ones(*size))
    assert kspace.abs().argmax() == (size[0] // 2) * size[1] + size[1] // 2
    delta = torch.zeros(*size)
    delta[size[0] // 2, size[1] // 2] = 1  # a point at the centre of the image has a flat spectrum without phase
    torch.testing.assert_close(fft2c(delta), torch.full(size, (size[0] * size[1]) ** -0.5, dtype=torch.complex64))


def test_batch_axes_are_independent():
    images = noise(3, 2, 6, 7)
    torch.testing.assert_close(fft2c(images)[1, 1], fft2c(images[1, 1]))


@given(sizes)
def test_native_layout(size):
    image = noise(*size)
    assert torch.equal(to_native(to_centred(image)), image)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
@given(grid=sizes, seed=st.integers(0, 100))
def test_forward_and_adjoint_are_adjoint(name, frames, grid, seed):
    if name.startswith("still") and not frames:
        with pytest.raises(InputError, match="is of series in time"):
            make(name, grid)
        return
    grid = (3, *grid) if frames else grid
    pattern = make(name, grid, frames)
    theta, weights = (noise(3, *shape, seed=seed, dtype=torch.float64) for shape in (pattern.shape, grid))
    reference.adjoint(pattern.forward, pattern.adjoint, theta, weights)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_lines_of_any_number_of_dimensions(samples, data):
    readout = tuple(axis for axis in range(-len(samples), 0) if data.draw(st.booleans()))
    pattern = Lines(tuple(samples), readout)
    reference.adjoint(pattern.forward, pattern.adjoint, noise(2, *pattern.shape), noise(2, *samples, seed=1))
    chosen = noise(*pattern.shape, dtype=torch.float64) > 0
    assert torch.equal(pattern.select(pattern.forward(chosen).contiguous()), chosen)


def test_lines_are_where_they_should_be():
    assert make("columns", (4, 6)).forward(torch.eye(6)[2])[:, 2].all()
    assert make("rows", (4, 6)).forward(torch.eye(4)[1])[1].all()


@given(sizes, st.floats(1, 81))
def test_budget_is_the_floor(grid, acceleration):
    pattern = make("points", grid)
    if acceleration <= pattern.size:
        budget = pattern.budget(acceleration)
        exact = pattern.size / budget == acceleration or budget <= pattern.size / acceleration
        assert exact and pattern.size / acceleration < budget + 1 and budget >= 1


@pytest.mark.parametrize("full", [9, 110, 168, 255, 672])
def test_the_acceleration_of_a_count_makes_that_count(full):
    """Also where the quotient is not exact: 168 / 2.24 is 74.99999999999999."""
    lines = make("columns", (1, full))
    for count in range(1, full + 1):
        for acceleration in (full / count, float(acceleration_of(full, count))):
            assert lines.budget(acceleration) == count


@pytest.mark.parametrize("acceleration", [0.5, 0, -3, float("nan"), 26])
def test_impossible_accelerations_are_refused(acceleration):
    with pytest.raises(InputError, match=f"acceleration {acceleration}: must be"):
        make("points", (5, 5)).budget(acceleration)
