"""SENSE off the grid against a dense solve, the grid's and SigPy's; its gradient against finite differences."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from reference import gradient, noise
from sigpy.mri.app import SenseRecon

from prom.engine import coils
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.fourier import fftc
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import kooshball, spirals, spokes
from prom.reconstruction.conjugate_gradients import conjugate_gradients
from prom.reconstruction.sense import Sense


def case(size: tuple[int, int] = (8, 8), readouts: int = 9, count: int = 3, seed: int = 0):
    """Coils along spokes, an image, and weights that each readout has for all its samples, in double precision."""
    trajectory = spokes(readouts, max(size)) if size[0] == size[1] else None
    if trajectory is None:
        drawn = torch.rand(readouts, 6, 2, generator=torch.Generator().manual_seed(seed)) - 0.5
        points = drawn * torch.tensor(size)
    else:
        points = trajectory.points
    encoding = Coils(noise(count, *size, seed=seed), NonUniform(points, size))
    weight = torch.rand(readouts, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05
    return encoding, noise(*size, seed=seed + 1), weight.expand(encoding.samples).contiguous()


def dense(encoding: Coils, weight: torch.Tensor, penalty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A of the normal equations, and E, by the definition of each transform: matrices of images that are flattened."""
    image = encoding.fourier.image
    points = encoding.fourier.trajectory.reshape(-1, len(image)).double() / torch.tensor(image)
    pixels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in image))
    transform = torch.exp(-2j * math.pi * (points @ pixels.T)) / math.sqrt(math.prod(image))
    measured = torch.cat([transform * one.flatten() for one in encoding.maps])
    units = torch.eye(math.prod(image), dtype=torch.complex128).reshape(-1, *image)
    grid = fftc(units, tuple(range(-len(image), 0))).flatten(1).T
    repeated = weight.reshape(-1).repeat(len(encoding.maps))[:, None]
    return measured.mH @ (repeated * measured) + grid.mH @ (penalty.expand(image).reshape(-1, 1) * grid), measured


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9)])
@pytest.mark.parametrize("spectrum", [False, True])
def test_it_is_the_solution_of_the_dense_normal_equations(size, spectrum):
    encoding, image, weight = case(size)
    penalty = torch.rand(size, dtype=torch.float64) + 0.1 if spectrum else torch.tensor(0.3, dtype=torch.float64)
    samples = encoding.forward(image) + 0.1 * noise(3, *encoding.samples, seed=7)
    matrix, measured = dense(encoding, weight, penalty)
    expected = torch.linalg.solve(matrix, measured.mH @ (weight * samples).flatten())
    found, _ = Sense(penalty, iterations=400, tolerance=1e-13)(samples, weight, encoding)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_the_gradient_is_that_of_finite_differences(size):
    """The step's own error is of its square, 1e-8, and that of rounding 1e-12 over the step: both below what is tested."""
    encoding, image, weight = case(size)
    samples = encoding.forward(image) + 0.1 * noise(3, *encoding.samples, seed=7)
    sense, target = Sense(0.2, iterations=600, tolerance=1e-14), image.abs()

    def loss(weights):
        return (sense(samples, weights, encoding)[0].abs() - target).square().sum()

    found, pullback = sense(samples, weight, encoding)
    slope = 2 * (found.abs() - target) * found / found.abs()
    gradient(loss, pullback(slope).sum(dim=0), weight, step=1e-5, tolerance=1e-6)


def test_readouts_along_rows_of_the_grid_are_the_grids():
    encoding, image, _ = case()
    rows = torch.tensor([1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.float64)[:, None].expand(8, 8)
    on_grid, penalty = Coils(encoding.maps), torch.rand(8, 8, dtype=torch.float64) + 0.1
    off_grid = Coils(encoding.maps, NonUniform(Fourier((8, 8)).locations.float(), (8, 8)))  # row y is the readout y
    samples = on_grid.forward(image) + 0.1 * noise(3, 8, 8, seed=7)
    sense = Sense(penalty, iterations=400, tolerance=1e-13)
    one, back_one = sense(samples, rows, on_grid)
    two, back_two = sense(samples, rows, off_grid)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-9)
    torch.testing.assert_close(back_two(image), back_one(image), rtol=0, atol=1e-8)


def test_it_is_that_of_sigpy():
    encoding, image, weight = case((12, 12), 16)
    samples = encoding.forward(image)
    given = {"coord": encoding.fourier.trajectory.double().numpy(), "weights": weight.numpy(), "lamda": 0.05}
    expected = SenseRecon(samples.numpy(), encoding.maps.numpy(), max_iter=300, show_pbar=False, **given).run()
    found, _ = Sense(0.05, iterations=400, tolerance=1e-13)(samples, weight, encoding)
    assert np.linalg.norm(found.numpy() - expected) < 0.01 * np.linalg.norm(expected)  # its transform is good to 1e-3


@pytest.mark.parametrize("trajectory", [spokes(11, 12), spirals(8, 12), kooshball(30, 6)])
def test_the_compiled_solver_is_the_generic_one(trajectory):
    """Single precision on a CPU has code of its own; here both get the same numbers."""
    image = (12, 12) if trajectory.points.shape[-1] == 2 else (6, 6, 6)
    fourier = trajectory.encoding(image)
    encoding = Coils(noise(3, *image, dtype=torch.complex64), fourier)
    weight = torch.rand(fourier.samples, generator=torch.Generator().manual_seed(0))
    penalty = torch.rand(image, generator=torch.Generator().manual_seed(1)) + 0.1
    scale = 1 / (encoding.diagonal(weight).clamp(min=0) + penalty)
    right, multiplier, axes = noise(*image, seed=2, dtype=torch.complex64), fourier.multiplier(weight), fourier.axes

    def normal(z):
        padded = torch.fft.fftn(encoding.maps * torch.fft.ifftn(z, dim=axes, norm="ortho"), s=fourier.twice, dim=axes)
        product = torch.fft.ifftn(multiplier * padded, dim=axes)[(..., *(slice(n) for n in image))]
        return torch.fft.fftn((encoding.maps.conj() * product).sum(dim=0), dim=axes, norm="ortho") + penalty * z

    expected = conjugate_gradients(normal, scale, right, 40, 1e-6, image=axes)
    found = coils.solve(encoding.maps, multiplier, penalty, scale, right, 40, 1e-6)
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert (normal(found) - right).norm() < 1e-4 * right.norm()


def test_single_precision_is_double_precision_for_several_masks():
    encoding, image, weight = case((12, 12), 16)
    masks = torch.stack([weight > 0.5, weight < 0.5, weight > 0]).unsqueeze(-3)
    found, slopes = [], []
    for kind in (torch.complex128, torch.complex64):
        of_kind = Coils(encoding.maps.to(kind), encoding.fourier)
        one, pullback = Sense(0.05, iterations=80)(of_kind.forward(image.to(kind)), masks, of_kind)
        found.append(one), slopes.append(pullback(one))
    assert found[0].shape == (3, 12, 12) and slopes[0].shape == (3, 3, *encoding.samples)
    torch.testing.assert_close(found[1].to(torch.complex128), found[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(slopes[1].double(), slopes[0], atol=1e-2, rtol=0)


def test_frames_of_a_series_are_each_solved_with_their_own_readouts():
    """With a penalty that is even over time, the frames have nothing in common."""
    points = torch.stack([spokes(9, 8).points, spokes(9, 8).points.flip(-1) + 0.3]).clamp(-4, 4)
    maps, image = noise(3, 1, 8, 8), noise(2, 8, 8, seed=1)
    encoding = Coils(maps, NonUniform(points, (2, 8, 8)))
    samples = encoding.forward(image)
    weight = torch.rand(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, pullback = Sense(0.1, iterations=400, tolerance=1e-13)(samples, weight, encoding)
    slopes = pullback(image)
    for frame in range(2):
        alone = Coils(maps[:, 0], NonUniform(points[frame], (8, 8)))
        one, back = Sense(0.1, iterations=400, tolerance=1e-13)(samples[:, frame], weight[frame], alone)
        torch.testing.assert_close(found[frame], one, rtol=0, atol=1e-9)
        torch.testing.assert_close(slopes[:, frame], back(image[frame]), rtol=0, atol=1e-8)


def test_threads_share_an_encoding():
    """Plans of FINUFFT have memory of their own, which no two threads may write to."""
    encoding, image, weight = case((12, 12), 16)
    sense, images = Sense(0.1, iterations=50, tolerance=1e-10), noise(8, 12, 12)
    expected = [sense(encoding.forward(one), weight, encoding)[0] for one in images]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda one: sense(encoding.forward(one), weight, encoding)[0], images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)  # other threads may sum in another order


def test_nothing_measured_is_nothing():
    encoding, image, weight = case()
    found, pullback = Sense(0.1)(encoding.forward(image), torch.zeros_like(weight), encoding)
    assert not found.any() and pullback(image).isfinite().all()


def test_autograd_through_the_solver_gives_the_pullback():
    """Networks that unroll SENSE differentiate it by autograd, the products on the larger grid and their weights too."""
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    shape = (6, 8)
    points = (torch.rand(4, 9, 2, generator=generator) - 0.5) * torch.tensor(shape)
    encoding = Coils(drawn(3, *shape), NonUniform(points, shape))
    samples = encoding.forward(drawn(*shape)) + 0.1 * drawn(3, 4, 9)
    weight = torch.rand(4, 9, dtype=torch.float64, generator=generator).requires_grad_()
    found, pullback = Sense(0.05, iterations=200, tolerance=1e-13)(samples, weight, encoding)
    found.abs().square().sum().backward()
    with torch.no_grad():
        gradient = pullback(2 * found).sum(dim=0)
    assert torch.allclose(weight.grad, gradient, atol=1e-9 * float(gradient.abs().max()))
