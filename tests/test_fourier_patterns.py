"""The transform is unitary and centred; patterns are adjoint pairs with exact budgets."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from prom import InputError, fft2c, ifft2c
from prom.kspace.fourier import to_centred, to_native
from prom.kspace.patterns import PATTERNS, make

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@given(sizes)
def test_transform_is_unitary(size):
    image, kspace = noise(2, *size), noise(2, *size, seed=1)
    torch.testing.assert_close(ifft2c(fft2c(image)), image)
    torch.testing.assert_close(torch.vdot(fft2c(image).flatten(), kspace.flatten()), torch.vdot(image.flatten(), ifft2c(kspace).flatten()))


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


@pytest.mark.parametrize("name", PATTERNS)
@given(grid=sizes, seed=st.integers(0, 100))
def test_forward_and_adjoint_are_adjoint(name, grid, seed):
    pattern = make(name, grid)
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(3, *pattern.shape, generator=generator, dtype=torch.float64)
    gradient = torch.randn(3, *grid, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((pattern.forward(theta) * gradient).sum(), (theta * pattern.adjoint(gradient)).sum())


def test_lines_are_where_they_should_be():
    assert make("columns", (4, 6)).forward(torch.eye(6)[2])[:, 2].all()
    assert make("rows", (4, 6)).forward(torch.eye(4)[1])[1].all()


@given(sizes, st.floats(1, 81))
def test_budget_is_the_floor(grid, acceleration):
    pattern = make("points", grid)
    if acceleration <= pattern.size:
        budget = pattern.budget(acceleration)
        assert budget <= pattern.size / acceleration < budget + 1 and budget >= 1


@pytest.mark.parametrize("acceleration", [0.5, 0, -3, float("nan"), 26])
def test_impossible_accelerations_are_refused(acceleration):
    with pytest.raises(InputError, match=f"acceleration {acceleration}: must be"):
        make("points", (5, 5)).budget(acceleration)
