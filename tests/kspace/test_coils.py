"""Coil combination against closed forms and against the normal equations solved pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prom.errors import InputError
from prom.kspace.coils import combine, root_sum_of_squares


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
