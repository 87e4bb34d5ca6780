"""The transform off the grid against its dense matrix, the grid's and SigPy's; its adjoint, gradient and point-spread functions."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import sigpy
import torch
from reference import adjoint, gradient, inner, noise

from prom import InputError
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.fourier import fftc
from prom.kspace.nonuniform import NonUniform

SIZES = [(8, 8), (7, 9), (6, 5), (5, 4, 6), (4, 5, 3)]  # even and odd, slices and volumes


def case(image: tuple[int, ...], readouts: int = 5, samples: int = 7, axes: int | None = None, seed: int = 0) -> NonUniform:
    """Samples anywhere within the resolution, of slices, of volumes, or with fewer axes than the image of series."""
    axes = axes or len(image)
    lead = () if len(image) == 2 else (image[0] if axes == 2 else 1,)
    drawn = torch.rand(*lead, readouts, samples, axes, generator=torch.Generator().manual_seed(seed)) - 0.5
    return NonUniform(drawn * torch.tensor(image[-axes:]), image)


def matrix(encoding: NonUniform) -> torch.Tensor:
    """The sum of the definition, term by term: (samples, pixels) of one slice or volume."""
    points = encoding.trajectory.reshape(-1, encoding.trajectory.shape[-1]).double()
    sizes = torch.tensor(encoding.image, dtype=torch.float64)
    pixels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in encoding.image))
    return torch.exp(-2j * math.pi * ((points / sizes) @ pixels.T)) / math.sqrt(math.prod(encoding.image))


@pytest.mark.parametrize("image", SIZES)
def test_it_is_the_dense_matrix(image):
    encoding, values = case(image), noise(2, 3, *image)
    dense, samples = matrix(encoding), noise(2, 3, *encoding.samples, seed=1)
    expected = torch.einsum("sn,abn->abs", dense, values.flatten(2)).reshape(samples.shape)
    torch.testing.assert_close(encoding.forward(values), expected, rtol=0, atol=1e-10)
    back = torch.einsum("sn,abs->abn", dense.conj(), samples.flatten(2)).reshape(values.shape)
    torch.testing.assert_close(encoding.adjoint(samples), back, rtol=0, atol=1e-10)


@pytest.mark.parametrize("image", [(8, 8), (7, 9)])
def test_frames_of_a_series_have_readouts_of_their_own(image):
    series = case((3, *image), axes=2)
    values, samples = noise(2, 3, *image), noise(2, *series.samples, seed=1)
    for frame, points in enumerate(series.trajectory):
        dense = matrix(NonUniform(points, image))
        found = series.forward(values)[:, frame].flatten(1)
        torch.testing.assert_close(found, values[:, frame].flatten(1) @ dense.T, rtol=0, atol=1e-10)
        back = series.adjoint(samples)[:, frame].flatten(1)
        torch.testing.assert_close(back, samples[:, frame].flatten(1) @ dense.conj(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("image", "axes"), [((8, 8), 2), ((7, 6), 2), ((4, 5, 6), 3), ((3, 8, 7), 2)])
def test_on_the_grid_it_is_the_grids(image, axes):
    fourier = Fourier(image, tuple(range(-axes, 0)))
    points = fourier.locations.float()
    points = points if len(image) == axes else points.expand(*image, axes)
    encoding, values = NonUniform(points, image), noise(2, *image)
    torch.testing.assert_close(encoding.forward(values), fourier.forward(values), rtol=0, atol=1e-10)
    torch.testing.assert_close(encoding.adjoint(values), fourier.adjoint(values), rtol=0, atol=1e-10)
    assert encoding.phase.equal(fourier.phase) or axes < len(image)


@pytest.mark.parametrize("image", SIZES)
def test_it_has_its_adjoint_in_both_precisions(image):
    encoding = case(image)
    values, samples = noise(*image), noise(*encoding.samples, seed=1)
    adjoint(encoding.forward, encoding.adjoint, values, samples)
    for kind, tolerance in ((torch.complex128, 1e-10), (torch.complex64, 1e-5)):
        one, two = values.to(kind), samples.to(kind)
        difference = inner(encoding.forward(one), two) - inner(one, encoding.adjoint(two))
        assert difference.abs() <= tolerance * one.norm() * two.norm()


@pytest.mark.parametrize("image", [(12, 12), (9, 16)])
def test_it_is_that_of_sigpy(image):
    encoding, values = case(image), noise(*image)
    points, samples = encoding.trajectory.double().numpy(), noise(*encoding.samples, seed=1)
    given = {"oversamp": 2, "width": 6}
    expected = sigpy.nufft(values.numpy(), points, **given)
    assert np.linalg.norm(encoding.forward(values).numpy() - expected) < 1e-4 * np.linalg.norm(expected)
    expected = sigpy.nufft_adjoint(samples.numpy(), points, oshape=image, **given)
    assert np.linalg.norm(encoding.adjoint(samples).numpy() - expected) < 1e-4 * np.linalg.norm(expected)


def test_gradients_go_through_it():
    encoding, image = case((6, 5)), noise(6, 5).real.clone()
    target = noise(*encoding.samples, seed=1)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (encoding.forward(values) - target).abs().square().sum()

    at = image.clone().requires_grad_()
    loss(at).backward()
    gradient(loss, at.grad, image)


@pytest.mark.parametrize("image", SIZES)
def test_weights_between_two_transforms_are_a_product_on_a_grid_twice_as_large(image):
    encoding = case(image)
    weight = torch.rand(encoding.samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = matrix(encoding)
    expected = dense.mH @ (weight.flatten()[:, None] * dense)
    units = torch.eye(math.prod(image), dtype=torch.complex128).reshape(-1, *image)
    spectra = encoding.multiplier(weight) * torch.fft.fftn(encoding.phase * units, s=encoding.twice, dim=encoding.axes)
    found = torch.fft.ifftn(spectra, dim=encoding.axes)[(..., *(slice(n) for n in image))] / encoding.phase
    torch.testing.assert_close(found.flatten(1).T, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("image", SIZES)
def test_the_diagonal_of_coils_is_that_of_the_matrix(image):
    encoding = case(image)
    coils = Coils(noise(3, *image), encoding)
    weight = torch.rand(encoding.samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = matrix(encoding)
    of_coils = torch.cat([dense * one.flatten() for one in coils.maps])
    units = torch.eye(math.prod(image), dtype=torch.complex128).reshape(-1, *image)
    to_grid = fftc(units, encoding.axes).flatten(1).T
    normal = of_coils.mH @ (weight.flatten().repeat(3)[:, None] * of_coils)
    expected = (to_grid @ normal @ to_grid.mH).diagonal().real.reshape(image)
    torch.testing.assert_close(coils.diagonal(weight), expected, rtol=1e-10, atol=1e-10)


def test_batches_are_each_alone_whatever_the_batch():
    encoding, values = case((8, 6)), noise(4, 8, 6)
    for found, one in zip(encoding.forward(values), values, strict=True):
        torch.testing.assert_close(found, encoding.forward(one), rtol=0, atol=1e-11)


def test_it_can_be_copied_after_use():
    encoding, values = case((8, 6)), noise(8, 6)
    expected = encoding.forward(values)
    for other in (copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        torch.testing.assert_close(other.forward(values), expected)


@pytest.mark.parametrize(
    ("points", "image", "message"),
    [
        (torch.zeros(3, 4, 2), (4, 4, 4), "must have samples of 3 axes"),
        (torch.zeros(3, 4, 3), (4, 4), "must have samples of 2 axes"),
        (torch.zeros(3, 4, 1), (4, 4), "then 2 or 3 spatial frequencies"),
        (torch.full((3, 4, 2), 2.1), (4, 4), "2.1 cycles per field of view.*half their size"),
        (torch.full((3, 4, 2), torch.nan), (4, 4), "cycles per field of view"),
    ],
)
def test_what_cannot_be_is_refused(points, image, message):
    with pytest.raises(InputError, match=message):
        NonUniform(points, image)
