"""Sparse reconstruction off the grid against a proximal gradient, the grid's and SigPy's; its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from reference import gradient, noise
from sigpy.mri.app import TotalVariationRecon

import prom
from prom import InputError, SliceDataset
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import spokes
from prom.reconstruction.sparse import Sparse
from prom.reconstruction.sparsity import Differences, Wavelets

SIZE = (8, 8)
KINDS = ("wavelet", "tv")
SMALL = pytest.mark.filterwarnings("ignore:Level value")  # of PyWavelets, whose filters go around small images
FULLY = {"steps": 200, "iterations": 40, "tolerance": 1e-12, "wavelet": "db2"}


def case(coils: int = 3, readouts: int = 9):
    """Coils along spokes, an image of few jumps, its samples with noise, and a mask of half of the spokes, in double precision."""
    maps = noise(coils, *SIZE)
    encoding = Coils(maps / maps.abs().square().sum(dim=0).sqrt(), NonUniform(spokes(readouts, 8).points, SIZE))
    image = torch.zeros(SIZE, dtype=torch.complex128)
    image[2:-2, 2:5] = 1 + 0.5j
    image[3:5, 3:6] -= 0.7
    mask = (torch.arange(readouts) % 2 == 0).double()[:, None].expand(encoding.samples).contiguous()
    return encoding, image, encoding.forward(image) + 0.05 * noise(coils, *encoding.samples, seed=7), mask


def size_of(samples, mask) -> float:
    """s, of which strength and smoothing are multiples."""
    return float((mask * samples.abs().square()).sum() / (SIZE[0] * SIZE[1])) ** 0.5


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
    assert at.grad.abs().max() < 1e-6


@SMALL
def test_wavelets_are_those_of_a_proximal_gradient():
    """FISTA of Beck and Teboulle 2009 with the soft threshold of PyWavelets, and steps by the largest eigenvalue of E^H W E."""
    encoding, _, samples, mask = case()
    strength = 0.05
    lam = strength * size_of(samples, mask)
    units = torch.eye(64, dtype=torch.complex128).reshape(-1, *SIZE)
    matrix = encoding.adjoint(mask * encoding.forward(units)).flatten(1).T
    step = 1 / float(torch.linalg.eigvalsh(matrix)[-1])
    x = last = np.zeros(SIZE, complex)
    for k in range(1500):
        ahead = torch.from_numpy(x + k / (k + 3) * (x - last))
        rest = encoding.adjoint(mask * (encoding.forward(ahead) - samples))
        coarse, *fine = pywt.wavedec2((ahead - step * rest).numpy(), "db2", "periodization", 2)
        shrunk = [tuple(pywt.threshold(band, step * lam, "soft") for band in bands) for bands in fine]
        last, x = x, pywt.waverec2([coarse, *shrunk], "db2", "periodization")

    def objective(image) -> float:
        fine = pywt.wavedec2(np.asarray(image), "db2", "periodization", 2)[1:]
        rest = encoding.forward(torch.as_tensor(image)) - samples
        return float((mask * rest.abs().square()).sum()) + 2 * lam * sum(np.abs(band).sum() for bands in fine for band in bands)

    found, _ = Sparse("wavelet", strength, 1e-4, steps=300, iterations=20, wavelet="db2")(samples, mask, encoding)
    assert objective(found) == pytest.approx(objective(x), rel=1e-3)
    np.testing.assert_allclose(found.numpy(), x, atol=1e-2)


def test_tv_is_that_of_sigpy():
    """On an image that changes along one axis only, measured along that axis: SigPy's is not isotropic, which makes no difference there."""
    _, image, _, _ = case()
    image = image[3].expand(SIZE)
    points = torch.stack([torch.zeros(8), torch.linspace(-3.7, 3.7, 8)], dim=-1)[None].float()  # off the grid along the columns
    encoding = Coils(torch.ones(1, *SIZE, dtype=torch.complex128), NonUniform(points, SIZE))
    samples, mask = encoding.forward(image), torch.tensor([[1, 0, 1, 1, 1, 1, 0, 1]], dtype=torch.float64)
    lam = 0.05 * size_of(samples, mask)

    def objective(image) -> float:
        rest = encoding.forward(torch.as_tensor(image)) - samples
        return float((mask * rest.abs().square()).sum()) + 2 * lam * float(np.abs(np.diff(image, axis=1, append=image[:, :1])).sum())

    given = {"weights": mask.numpy(), "coord": points.double().numpy(), "max_iter": 700, "show_pbar": False}
    expected = TotalVariationRecon((mask * samples).numpy(), np.ones((1, *SIZE), complex), lam, **given).run()
    found, _ = Sparse("tv", 0.05, 1e-4, steps=60)(samples, mask, encoding)
    assert objective(found.numpy()) == pytest.approx(objective(expected), rel=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_grid_it_is_the_grids(kind):
    encoding, image, _, _ = case()
    mask = torch.tensor([1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.float64)[:, None].expand(SIZE)
    on_grid, off_grid = Coils(encoding.maps), Coils(encoding.maps, NonUniform(Fourier(SIZE).locations.float(), SIZE))
    samples, sparse = on_grid.forward(image), Sparse(kind, 0.05, 0.1, **FULLY)
    one, back_one = sparse(samples, mask, on_grid)
    two, back_two = sparse(samples, mask, off_grid)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-8)
    torch.testing.assert_close(back_two(image), back_one(image), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    encoding, image, samples, mask = case()
    sparse, target = Sparse(kind, 0.1, 0.5, **FULLY | {"tolerance": 1e-8, "iterations": 20}), image.abs()

    def loss(weights):
        return (sparse(samples, weights, encoding)[0].abs() - target).square().sum()

    weights = mask * 0.9 + 0.05
    found, pullback = sparse(samples, weights, encoding)
    slope = 2 * (found.abs() - target) * found / found.abs()
    gradient(loss, pullback(slope).sum(dim=0), weights, step=1e-4, tolerance=1e-5)


def test_several_masks_in_single_precision():
    encoding, _, samples, mask = case()
    sparse, masks = Sparse("tv", 0.05, 0.1, **FULLY), torch.stack([mask, 1 - mask])
    single = Coils(encoding.maps.to(torch.complex64), encoding.fourier)
    found, pullback = Sparse("tv", 0.05, 0.1, steps=60)(samples.to(torch.complex64), masks.unsqueeze(-3), single)
    assert pullback(found).shape == (2, 3, 9, 8)
    for together, one in zip(found, masks, strict=True):
        torch.testing.assert_close(together.to(torch.complex128), sparse(samples, one, encoding)[0], rtol=0, atol=1e-3)


def test_it_is_scored_by_its_name_with_a_strength_of_its_own():
    images = torch.zeros(2, 1, 32, 32)
    images[:, :, 8:24, 6:20] = 1
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], noise=0.05).along(spokes(24, 32))
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[::3] = True
    made = {name: prom.reconstruction.named(name, data, mask) for name in ("tv", "sense")}
    scores = {name: prom.evaluate(mask, data, reconstruction=one) for name, one in made.items()}
    assert scores["tv"]["psnr"].mean() > scores["sense"]["psnr"].mean()  # this image is made for it
    assert 0 < made["tv"].strength < Sparse.of(data, "tv").strength  # which is that of a typical mask
    with pytest.raises(InputError, match=r"mask of \(32, 32\): does not fit demo, whose samples are \(24, 32\)"):
        Sparse.of(data, "tv", torch.ones(32, 32).bool())


def test_series_are_refused():
    encoding = Coils(torch.ones(1, 1, 8, 8) + 0j, spokes(9, 8).encoding((2, 8, 8)))
    with pytest.raises(InputError, match="wavelet and tv: are for slices"):
        Sparse("tv")(encoding.forward(torch.ones(2, 8, 8)), torch.ones(2, 9, 8), encoding)
