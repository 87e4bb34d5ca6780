"""Sparse reconstruction against SigPy's and a proximal gradient of PyWavelets; its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from reference import adjoint, gradient, noise, unitary
from sigpy.mri.app import TotalVariationRecon

import prom
from prom import InputError
from prom.kspace.encoding import Coils
from prom.reconstruction import named
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.sparsity import Differences, Wavelets
from prom.reconstruction.typical import typical

SIZE = (8, 12)
KINDS = ("wavelet", "tv")
SMALL = pytest.mark.filterwarnings("ignore:Level value")  # of PyWavelets, whose filters go around small images
FULLY = {"steps": 200, "iterations": 20, "tolerance": 1e-12, "wavelet": "db2"}


def case(coils: int = 3, size: tuple[int, int] = SIZE, seed: int = 0):
    """An encoding with maps of root sum of squares 1, an image of few jumps, its samples with noise, and a mask, in double precision."""
    maps = noise(coils, *size, seed=seed)
    encoding = Coils(maps / maps.abs().square().sum(dim=0).sqrt())
    image = torch.zeros(size, dtype=torch.complex128)
    image[size[0] // 4 : -2, 2 : size[1] // 2 + 1] = 1 + 0.5j
    image[3:5, 3:6] -= 0.7
    mask = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.5
    return encoding, image, encoding.forward(image) + 0.05 * noise(coils, *size, seed=7), mask.double()


def size_of(samples, mask) -> float:
    """s, of which strength and smoothing are multiples."""
    return float((mask * samples.abs().square()).sum() / mask.numel()) ** 0.5


@SMALL
@pytest.mark.parametrize(("size", "wavelet", "levels"), [((16, 24), "db4", 2), ((24, 40), "db2", 3), ((12, 20), "haar", 2)])
def test_wavelets_are_unitary_and_those_of_pywavelets(size, wavelet, levels):
    transform, images = Wavelets(size, wavelet, dtype=torch.complex128), noise(2, *size)
    unitary(transform.forward, transform.adjoint, images)
    expected = pywt.wavedec2(images.numpy(), wavelet, "periodization", levels)
    np.testing.assert_allclose(transform.forward(images)[:, 0], pywt.coeffs_to_array(expected, axes=(-2, -1))[0], atol=1e-12)
    assert int(transform.members.sum()) == size[0] * size[1] * (1 - 4**-levels)


@pytest.mark.parametrize("transform", [Wavelets(SIZE, "db2", dtype=torch.complex128), Differences(SIZE, torch.complex128)])
def test_a_transform_has_its_adjoint_and_its_diagonal(transform):
    coefficients = transform.forward(noise(*SIZE))
    adjoint(transform.forward, transform.adjoint, noise(*SIZE), noise(*coefficients.shape, seed=1))
    weights = torch.rand(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * transform.members.sum(dim=0)
    waves = prom.ifft2c(torch.eye(SIZE[0] * SIZE[1], dtype=torch.complex128).unflatten(-1, SIZE))
    expected = (weights * transform.forward(waves).abs().square()).sum(dim=(-3, -2, -1)).reshape(SIZE)
    of_bands = (weights * transform.members).sum(dim=(-2, -1))
    torch.testing.assert_close((of_bands[:, None, None] * transform.spectra).sum(dim=0), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_minimum(kind):
    """Where the derivative of the objective, by autograd, is 0; the objective is convex."""
    encoding, _, samples, mask = case()
    weights, strength = mask * 0.8 + 0.1, 0.05
    found, _ = Sparse(kind, strength, 0.02, **FULLY)(samples, weights, encoding)
    size = size_of(samples, weights)
    transform = Wavelets(SIZE, "db2", dtype=torch.complex128) if kind == "wavelet" else Differences(SIZE, torch.complex128)
    at = found.clone().requires_grad_()
    lengths = (transform.forward(at).abs().square().sum(dim=-3) + (0.02 * size) ** 2).sqrt()
    data = (weights * (encoding.forward(at) - samples).abs().square()).sum()
    (2 * strength * size * (lengths * transform.members.sum(dim=0)).sum() + data).backward()
    assert at.grad.abs().max() < 1e-7


def test_tv_is_that_of_sigpy():
    """On images that change along one axis only: SigPy's is not isotropic, which makes no difference there."""
    encoding, image, _, mask = case()
    encoding = Coils(torch.ones(1, *SIZE, dtype=torch.complex128))
    samples, mask = encoding.forward(image[4].expand(SIZE)), mask[:1].expand(SIZE)
    lam = 0.05 * size_of(samples, mask)

    def objective(image) -> float:
        rest = encoding.forward(torch.as_tensor(image)) - samples
        return float((mask * rest.abs().square()).sum()) + 2 * lam * float(np.abs(np.diff(image, axis=1, append=image[:, :1])).sum())

    given = {"weights": mask.numpy(), "max_iter": 700, "show_pbar": False}
    expected = TotalVariationRecon((mask * samples).numpy(), np.ones((1, *SIZE), complex), lam, **given).run()
    found, _ = Sparse("tv", 0.05, 1e-4, steps=60)(samples, mask, encoding)
    assert objective(found.numpy()) == pytest.approx(objective(expected), rel=2e-3)


@SMALL
def test_wavelets_are_those_of_a_proximal_gradient():
    """FISTA of Beck and Teboulle 2009 with the soft threshold of PyWavelets; SigPy's wavelets have other boundaries."""
    encoding, _, samples, mask = case()
    strength = 0.05
    lam = strength * size_of(samples, mask)
    x = last = np.zeros(SIZE, complex)
    for k in range(150):
        ahead = torch.from_numpy(x + k / (k + 3) * (x - last))
        step = (ahead - encoding.adjoint(mask * (encoding.forward(ahead) - samples))).numpy()  # E^H W E <= 1
        coarse, *fine = pywt.wavedec2(step, "db2", "periodization", 2)
        shrunk = [tuple(pywt.threshold(band, lam, "soft") for band in bands) for bands in fine]
        last, x = x, pywt.waverec2([coarse, *shrunk], "db2", "periodization")

    def objective(image) -> float:
        fine = pywt.wavedec2(np.asarray(image), "db2", "periodization", 2)[1:]
        rest = encoding.forward(torch.as_tensor(image)) - samples
        return float((mask * rest.abs().square()).sum()) + 2 * lam * sum(np.abs(band).sum() for bands in fine for band in bands)

    found, _ = Sparse("wavelet", strength, 1e-4, steps=100, wavelet="db2")(samples, mask, encoding)
    assert objective(found) == pytest.approx(objective(x), rel=1e-4)
    np.testing.assert_allclose(found.numpy(), x, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    encoding, image, samples, mask = case()
    sparse, target = Sparse(kind, 0.1, 0.5, **FULLY | {"tolerance": 1e-8}), image.abs()

    def loss(weights):
        return (sparse(samples, weights, encoding)[0].abs() - target).square().sum()

    weights = mask * 0.9 + 0.05  # the loss is smooth on both sides
    found, pullback = sparse(samples, weights, encoding)
    slope = 2 * (found.abs() - target) * found / found.abs()
    gradient(loss, pullback(slope).sum(dim=0), weights, step=1e-4, tolerance=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_measured_and_nearly_no_penalty_is_the_image(kind):
    encoding, image, _, mask = case()
    found, _ = Sparse(kind, 1e-7, wavelet="db2")(encoding.forward(image), torch.ones_like(mask), encoding)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_are_each_alone(kind):
    encoding, _, samples, mask = case()
    sparse, masks = Sparse(kind, 0.05, 0.1, **FULLY), torch.stack([mask, 1 - mask])
    found, pullback = sparse(samples, masks.unsqueeze(-3), encoding)
    gradients = pullback(found)
    for together, gradient_together, one in zip(found, gradients, masks, strict=True):
        alone, pullback = sparse(samples, one, encoding)
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(gradient_together, pullback(alone), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_units_and_what_was_not_measured_make_no_difference(kind):
    encoding, _, samples, mask = case()
    sparse = Sparse(kind, 0.01, wavelet="db2")
    found, _ = sparse(samples, mask, encoding)
    torch.testing.assert_close(sparse(samples * 2**30, mask, encoding)[0], found * 2**30)
    torch.testing.assert_close(sparse(samples * mask, mask, encoding)[0], found)
    empty, pullback = sparse(samples, torch.zeros_like(mask), encoding)
    assert not empty.any() and pullback(found).isfinite().all()


def test_few_steps_are_enough():
    """Within 0.05 dB of the minimum."""
    data = prom.load("mni_brain", subjects=1, slices=[72], size=48, coils=4, phase=True, noise=0.005)
    samples, encoding, mask = data.samples([0])[0], Coils(data.maps([0])[0]), typical(data, 4)
    for kind in KINDS:
        (few, _), (many, _) = (Sparse(kind, steps=steps)(samples, mask, encoding) for steps in (16, 60))
        psnr = [-10 * (found.abs() - data.images[0, 0].abs()).square().mean().log10() for found in (few, many)]
        assert abs(psnr[0] - psnr[1]) < 0.05


def test_the_strength_is_that_of_the_best_images():
    data = prom.load("mni_brain", subjects=1, slices=[72, 92], size=32, coils=4, phase=True, noise=0.01)
    noisy = prom.load("mni_brain", subjects=1, slices=[72, 92], size=32, coils=4, phase=True, noise=0.05)
    found, more = Sparse.of(data, "tv"), Sparse.of(noisy, "tv")
    assert more.strength > found.strength and Sparse.of(data.scaled(100), "tv").strength == found.strength
    assert Sparse.of(data, "tv", strength=0.5, steps=3).strength == 0.5
    mask = typical(data, 4)

    def psnr(strength: float) -> float:
        return prom.evaluate(mask, data, reconstruction=Sparse("tv", strength))["psnr"].mean()

    assert psnr(found.strength) > max(psnr(found.strength * 4), psnr(found.strength / 4))
    assert Sparse.of(data, "tv", torch.ones(32, 32).bool()).strength > found.strength > named("tv", data, typical(data, 10)).strength
    for kind in KINDS:
        with pytest.raises(InputError, match=r"mask of \(8, 8\): does not fit mni_brain, whose samples are \(32, 32\)"):
            named(kind, data, torch.ones(8, 8).bool())


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="sparsity 'tvv' is not known; did you mean 'tv'"):
        Sparse("tvv")
    with pytest.raises(InputError, match="strength 0: must be > 0"):
        Sparse(strength=0)
    with pytest.raises(InputError, match="wavelet 'db44' is not known"):
        Sparse(wavelet="db44")
    with pytest.raises(InputError, match="images of 9 x 16 must have even sizes of at least 8; use tv"):
        Sparse()(noise(1, 9, 16), torch.ones(9, 16), Coils(noise(1, 9, 16)))


@pytest.mark.parametrize("steps", [16, 100])
def test_a_constant_that_nothing_measures_is_left_out(steps):
    """It has no differences, and one even coil sees it at DC alone: rounding would make it grow."""
    image, encoding = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)), Coils(torch.ones(1, 16, 16) + 0j)
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[8, 8] = False
    samples = encoding.forward(image + 0j)
    found, pullback = Sparse("tv", steps=steps)(samples, mask, encoding)
    assert found.mean().abs() < 1e-5 and found.abs().max() < 2
    double = Coils(encoding.maps.to(torch.complex128))
    torch.testing.assert_close(found, Sparse("tv", steps=steps)(samples, mask, double)[0].to(torch.complex64), atol=1e-3, rtol=0)
    gradient = pullback(found - image)[0]
    assert gradient.isfinite().all() and gradient.argmin() == 8 * 16 + 8  # and what would help most is to measure it


def test_wavelets_that_are_orthogonal_by_name_alone_are_refused():
    """Pairs of the discrete Meyer filter overlap by half a per cent."""
    with pytest.raises(InputError, match="wavelet dmey: is not orthogonal"):
        Wavelets((64, 64), "dmey")
    for name in ("haar", "db38", "sym20", "coif17"):
        transform, image = Wavelets((128, 128), name), torch.rand(128, 128, generator=torch.Generator().manual_seed(0)) + 0j
        assert torch.allclose(transform.adjoint(transform.forward(image)), image, atol=1e-4)
