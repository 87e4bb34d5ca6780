"""SENSE against a dense solve and SigPy's; its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import adjoint, gradient, noise
from sigpy.mri.app import SenseRecon

import prom
from prom import InputError
from prom.datasets.base import SliceDataset
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils, Fourier, FourierUpToPhase
from prom.reconstruction.phase import PhaseConstrained
from prom.reconstruction.sense import Sense, spectrum
from prom.reconstruction.sparse import Sparse

SIZE = (8, 7)


def case(coils: int = 3, seed: int = 0):
    """Maps, image and a mask of a third, in double precision."""
    maps, image = noise(coils, *SIZE, seed=seed), noise(*SIZE, seed=seed + 1)
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.35
    return maps, image, mask


def dense(function, shape) -> np.ndarray:
    """The matrix of a linear map of images."""
    columns = [function(unit.reshape(shape)).flatten() for unit in torch.eye(shape[0] * shape[1], dtype=torch.complex128)]
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("fourier", [Fourier, FourierUpToPhase])
def test_the_encoding_of_coils_has_its_adjoint(fourier):
    maps, image, _ = case()
    encoding = Coils(maps, fourier(SIZE))
    adjoint(encoding.forward, encoding.adjoint, image, noise(3, *SIZE, seed=5))
    assert encoding.samples == SIZE and encoding.locations.equal(Fourier(SIZE).locations)


def test_the_diagonal_is_that_of_the_matrix():
    maps, _, mask = case()
    encoding = Coils(maps)
    to, back = encoding.fourier.forward, encoding.fourier.adjoint
    matrix = dense(lambda z: to(encoding.adjoint(mask * encoding.forward(back(z)))), SIZE)
    torch.testing.assert_close(encoding.diagonal(mask.double()).flatten(), torch.from_numpy(np.diag(matrix).real.copy()))


@pytest.mark.parametrize("spectrum", [False, True])
def test_it_is_the_solution_of_the_normal_equations(spectrum):
    maps, image, mask = case()
    encoding = Coils(maps)
    penalty = torch.rand(SIZE, dtype=torch.float64) + 0.1 if spectrum else torch.tensor(0.3, dtype=torch.float64)
    samples = encoding.forward(image) + 0.1 * noise(3, *SIZE, seed=7)
    matrix = dense(
        lambda x: encoding.adjoint(mask * encoding.forward(x)) + encoding.fourier.adjoint(penalty * encoding.fourier.forward(x)), SIZE
    )
    expected = np.linalg.solve(matrix, encoding.adjoint(mask * samples).flatten().numpy())
    found, _ = Sense(penalty, iterations=300, tolerance=1e-13)(samples, mask, encoding)
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-8, atol=1e-10)


def test_it_is_that_of_sigpy():
    maps, image, mask = case(4)
    samples = mask * Coils(maps).forward(image)
    expected = SenseRecon(
        samples.numpy(), maps.numpy(), lamda=0.05, weights=mask.numpy().astype(float), max_iter=400, show_pbar=False
    ).run()
    found, _ = Sense(0.05, iterations=400, tolerance=1e-13)(samples, mask, Coils(maps))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fourier", [Fourier, FourierUpToPhase])
def test_the_gradient_is_that_of_finite_differences(fourier):
    maps, image, mask = case()
    encoding = Coils(maps, fourier(SIZE))
    samples = encoding.forward(image) + 0.1 * noise(3, *SIZE, seed=7)
    sense, target = Sense(0.2, iterations=400, tolerance=1e-14), image.abs()

    def loss(weights):
        return (sense(samples, weights, encoding)[0].abs() - target).square().sum()

    weights = mask.double() * 0.9 + 0.05  # between, where the loss is smooth on both sides
    found, pullback = sense(samples, weights, encoding)
    slope = 2 * (found.abs() - target) * found / found.abs()
    gradient(loss, pullback(slope).sum(dim=0), weights)


def test_many_at_once_are_each_alone():
    maps, image, mask = case()
    encoding, masks = Coils(maps), torch.stack([mask, ~mask, torch.ones(SIZE, dtype=torch.bool)])
    samples = encoding.forward(image)
    sense = Sense(0.1, iterations=200, tolerance=1e-12)
    together, _ = sense(samples, masks.unsqueeze(-3), encoding)
    for found, one in zip(together, masks, strict=True):
        torch.testing.assert_close(found, sense(samples, one, encoding)[0])


def test_one_coil_without_a_penalty_is_zero_filling():
    _, image, mask = case()
    encoding = Coils(torch.ones(1, *SIZE, dtype=torch.complex128))
    found, _ = Sense(1e-6, tolerance=1e-10)(encoding.forward(image), mask, encoding)
    torch.testing.assert_close(found, prom.ifft2c(prom.fft2c(image) * mask), rtol=0, atol=1e-5)


def test_nothing_measured_is_nothing():
    maps, image, _ = case()
    found, pullback = Sense(0.1)(Coils(maps).forward(image), torch.zeros(SIZE), Coils(maps))
    assert not found.any() and pullback(image).isfinite().all()


def test_what_cannot_be_is_refused():
    for penalty in (0, -1, float("nan"), torch.zeros(2, 2)):
        with pytest.raises(InputError, match="penalty"):
            Sense(penalty)
    with pytest.raises(InputError, match=r"penalty of \(9, 9\): is not for images of"):
        Sense(torch.ones(9, 9))(torch.ones(1, *SIZE) + 0j, torch.ones(SIZE), Coils(torch.ones(1, *SIZE) + 0j))
    series = Coils(torch.ones(1, 1, *SIZE) + 0j, Fourier((5, *SIZE)))
    with pytest.raises(InputError, match=r"penalty of \(6, .*: is not for images of \(5, "):
        Sense(torch.ones(6, *SIZE))(torch.ones(1, 5, *SIZE) + 0j, torch.ones(5, *SIZE), series)
    with pytest.raises(InputError, match="noise is not known"):
        Sense.of(SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]))


@pytest.mark.parametrize("measured", [True, False])
def test_samples_that_are_no_numbers_are_refused(measured):
    """Steps of length NaN are not taken: the image would be 0 everywhere. A sample of weight 0 is no better, as 0 NaN is NaN."""
    maps, mask = torch.ones(1, *SIZE) + 0j, torch.ones(SIZE)
    samples = torch.ones(1, *SIZE) + 0j
    samples[0, 1, 1], mask[1, 1] = torch.nan, float(measured)
    with pytest.raises(InputError, match="samples: have NaN or infinite values, measured or not"):
        Sense(0.1)(samples, mask, Coils(maps))
    with pytest.raises(InputError, match="sensitivities: have NaN"):
        Sense(0.1)(torch.ones(1, *SIZE) + 0j, torch.ones(SIZE), Coils(maps * torch.nan))
    found, pullback = Sense(0.1)(torch.ones(1, *SIZE) + 0j, torch.ones(SIZE), Coils(maps))
    with pytest.raises(InputError, match="gradient of the loss: has NaN"):
        pullback(found * torch.nan)


def test_single_precision_image_by_image_is_double_precision_at_once():
    """On a CPU the two have code of their own: for several masks, and for images with maps of their own."""
    maps, image = noise(2, 1, 3, 12, 10, seed=1), noise(2, 1, 12, 10, seed=2)
    masks = torch.rand(2, 4, 12, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    found, slopes = [], []
    for kind in (torch.complex128, torch.complex64):
        encoding = Coils(maps.to(kind))
        one, pullback = Sense(1e-2, iterations=60)(encoding.forward(image.to(kind)), masks.unsqueeze(-3), encoding)
        found.append(one), slopes.append(pullback(one))
    assert found[0].shape == (2, 4, 12, 10)
    torch.testing.assert_close(found[1].to(torch.complex128), found[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(slopes[1].double(), slopes[0], atol=1e-2, rtol=0)


def test_the_penalty_of_data_is_the_noise_over_their_power():
    data = prom.load("mni_brain", subjects=2, slices=[80], size=32, coils=4, phase=True, noise=0.02)
    torch.testing.assert_close(Sense.of(data).penalty.double() * spectrum(data).double(), torch.full((32, 32), 0.02**2).double())


def test_the_spectrum_is_the_mean_power_smoothed_in_space():
    white = prom.ifft2c(torch.full((3, 1, 16, 16), 3.0) + 0j)
    flat = spectrum(SliceDataset("white", "train", white, list("abc"), [0] * 3))
    assert torch.allclose(flat.double(), torch.full((16, 16), 9.0).double(), rtol=1e-4)
    powers = torch.arange(5.0)[:, None, None] + torch.ones(5, 8, 8)  # of each temporal frequency
    moving = prom.fourier.ifftc(powers[None, None] + 0j, (-3, -2, -1))
    found = spectrum(SliceDataset("moving", "train", moving, ["a"], [0], kind="series"))
    assert torch.allclose(found.double(), powers.double() ** 2, rtol=1e-3)
    spike = torch.ones(1, 1, 16, 16)
    spike[..., 8, 8] = 10
    found = spectrum(SliceDataset("spike", "train", prom.ifft2c(spike + 0j), ["a"], [0]))
    assert float(found[8, 8].log()) / math.log(100) == pytest.approx(1 / (2 * math.pi * 1.5**2), rel=0.05)  # the middle of a Gaussian


def test_where_no_coil_sees_anything_the_image_is_0():
    """Else the prior alone would fill it."""
    maps = noise(3, 8, 7)
    maps[:, :, :2] = 0
    generator = torch.Generator().manual_seed(0)
    penalty, mask = torch.rand(8, 7, dtype=torch.float64, generator=generator) + 0.1, (torch.rand(8, 7, generator=generator) < 0.5).double()
    image = Sense(penalty)(Coils(maps).forward(noise(8, 7, seed=1)), mask, Coils(maps))[0]
    assert not image[:, :2].any() and image[:, 2:].any()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(1, 7), (8, 1), (7,), (1, 1, 1, 7), (1, 1)])
def test_a_mask_that_broadcasts_is_the_mask_in_full(dtype, shape):
    maps, image, _ = case()
    encoding = Coils(maps.to(dtype))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) > 0.3
    samples = encoding.forward(image.to(dtype))
    for reconstruction in (Sense(1e-3), Sparse("tv", 0.01), PhaseConstrained(1e-3, torch.ones(SIZE) + 0j)):
        found, expected = (reconstruction(samples, one, encoding)[0] for one in (mask, mask.expand(*shape[:-2], *SIZE).contiguous()))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(8, 6), (3, 8, 7), (2, 3, 8, 7), (6,)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    maps, image, _ = case()
    for reconstruction in (Sense(1e-3), Sparse("tv", 0.01), PhaseConstrained(1e-3, torch.ones(SIZE) + 0j)):
        with pytest.raises(InputError, match=r"mask of .*: does not fit the samples; it must be of \(8, 7\), or"):
            reconstruction(Coils(maps).forward(image), torch.ones(shape), Coils(maps))


def test_sensitivities_may_be_double():
    maps, image, mask = case()
    samples = Coils(maps).forward(image).to(torch.complex64)
    for given in (maps, torch.ones(3, 8, 7, dtype=torch.float64)):
        double, single = (Sparse("tv", 0.01)(samples, mask, Coils(one))[0] for one in (given, given.to(torch.complex64)))
        torch.testing.assert_close(double.to(torch.complex64), single, atol=1e-3, rtol=1e-3)


def test_samples_may_be_real_and_sensitivities_conjugate():
    maps, _, mask = case()
    samples = noise(3, *SIZE, seed=9).real
    for each in (Coils(maps), Coils(maps.conj())):
        expected, _ = Sense(0.1)(samples + 0j, mask, Coils(each.maps.clone()))
        torch.testing.assert_close(Sense(0.1)(samples, mask, each)[0], expected)
    single = Coils(maps.to(torch.complex64).conj())
    assert torch.isfinite(Sense(0.1)(samples.float() + 0j, mask, single)[0]).all()


def test_what_is_kept_of_coils_has_no_gradient():
    """Else the second step would go back through what the first has kept, and a first use in inference mode would forbid all others."""
    maps, mask = simulated(4, (16, 16)).requires_grad_(), torch.ones(16, 16)
    for mode in (torch.no_grad, torch.inference_mode):
        encoding, samples = Coils(maps), torch.rand(4, 16, 16) + 0j
        with mode():
            Sense(1e-3)(samples, mask, encoding)
        for _ in range(2):
            Sense(1e-3)(samples, mask, encoding)[0].abs().sum().backward()
    assert maps.grad.abs().sum() > 0
