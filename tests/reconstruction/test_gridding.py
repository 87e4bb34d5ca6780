"""Gridding against the grid, SigPy's density and finite differences of what its gradient claims."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from reference import gradient, noise
from scipy.ndimage import gaussian_filter
from sigpy import shepp_logan
from sigpy.mri.dcf import pipe_menon_dcf

import prom
from prom import DEFAULT, InputError, SliceDataset, reconstruction
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.reconstruction import gridding
from prom.reconstruction.gridding import KERNEL, Gridding

SIZE = 32


def phantom(size: int = SIZE) -> torch.Tensor:
    """A smooth head."""
    return torch.from_numpy(gaussian_filter(np.abs(shepp_logan((size, size))), 1.0)).to(torch.complex128)


def coils(trajectory: Trajectory, size: int = SIZE, count: int = 4) -> Coils:
    return Coils(1.5 * simulated(count, (size, size)).to(torch.complex128), trajectory.encoding((size, size)))


def some(candidates: int, samples: int, *chosen: int) -> torch.Tensor:
    mask = torch.zeros(candidates, samples, dtype=torch.float64)
    mask[list(chosen)] = 1
    return mask


def test_a_full_scan_of_the_grid_is_the_image():
    points = Fourier((SIZE, SIZE)).locations.float()
    encoding = Coils(1.5 * simulated(4, (SIZE, SIZE)).to(torch.complex128), NonUniform(points, (SIZE, SIZE)))
    found, _ = Gridding()(encoding.forward(phantom()), torch.ones(SIZE, SIZE), encoding)
    torch.testing.assert_close(found, phantom(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("trajectory", "error"), [(spokes(64, SIZE, 2 * SIZE), 0.07), (spirals(32, SIZE, arms=16), 0.12)])
def test_a_full_scan_off_the_grid_is_nearly_the_image(trajectory, error):
    encoding = coils(trajectory)
    samples, mask = encoding.forward(phantom()), torch.ones(encoding.samples)
    found, _ = Gridding()(samples, mask, encoding)
    assert (found - phantom()).norm() < error * phantom().norm()
    plain = encoding.adjoint(samples) / 2.25  # without the density even its best multiple is far from it
    scale = torch.vdot(plain.flatten(), phantom().flatten()) / plain.norm() ** 2
    assert (scale * plain - phantom()).norm() > 4 * error * phantom().norm()


@pytest.mark.parametrize("iterations", [3, 30])
def test_weights_of_what_is_measured_are_those_of_sigpy(iterations):
    """Up to the scale, which makes them 1 on the grid, and those of readouts that are not measured are of no account."""
    trajectory, chosen = spirals(12, SIZE, arms=8), [0, 3, 5]
    found = Gridding(iterations).weights(some(12, trajectory.points.shape[1], *chosen), trajectory.encoding((SIZE, SIZE)))[chosen]
    points = trajectory.points[chosen].double().numpy().reshape(-1, 2)
    expected = torch.from_numpy(pipe_menon_dcf(points, (SIZE, SIZE), max_iter=iterations, show_pbar=False, **KERNEL)).reshape(found.shape)
    torch.testing.assert_close(found.double() / found.sum(), expected / expected.sum(), rtol=1e-4, atol=0)


def test_a_readout_that_is_not_measured_is_weighted_as_if_it_were():
    """The first step of the iteration with it: SigPy's, of one iteration over the mask and that readout."""
    trajectory = spokes(16, SIZE, 2 * SIZE)
    weights = Gridding().weights(some(16, 2 * SIZE, 0, 5, 9), trajectory.encoding((SIZE, SIZE)))
    single = pipe_menon_dcf(np.mgrid[-8:8, -8:8].reshape(2, -1).T.astype(float), (16, 16), max_iter=1, show_pbar=False, **KERNEL)
    for added in (1, 7, 15):
        points = trajectory.points[[0, 5, 9, added]].double().numpy().reshape(-1, 2)
        expected = pipe_menon_dcf(points, (SIZE, SIZE), max_iter=1, show_pbar=False, **KERNEL)[-2 * SIZE :] / single.mean()
        torch.testing.assert_close(weights[added].double(), torch.from_numpy(expected), rtol=1e-4, atol=0)
    converged = Gridding().weights(some(16, 2 * SIZE, 0, 5, 9, 7), trajectory.encoding((SIZE, SIZE)))[7]
    assert np.corrcoef(weights[7], converged)[0, 1] > 0.85  # and so near the weights that it would have


@pytest.mark.parametrize("trajectory", [spokes(12, SIZE), spirals(8, SIZE, arms=8)])
def test_the_gradient_is_that_of_the_image_at_these_weights(trajectory):
    encoding = coils(trajectory)
    mask = some(len(trajectory), trajectory.points.shape[1], 0, 3, 4)
    samples = encoding.forward(phantom()) + 0.05 * noise(4, *encoding.samples, seed=3)
    method, target = Gridding(), phantom().real
    weights = method.weights(mask, encoding.fourier).double()

    def loss(m):
        found = encoding.adjoint(weights * m * samples) / encoding.maps.abs().square().sum(dim=0)
        return (found.abs() - target).square().sum()

    found, pullback = method(samples, mask, encoding)
    slope = 2 * (found.abs() - target) * found / found.abs()
    gradient(loss, pullback(slope).sum(dim=0), mask, step=1e-5)


@pytest.mark.parametrize("chosen", [(0, 6, 12, 18), (0, 3, 9, 20)])
def test_the_gradient_ranks_readouts_much_as_adding_them_does(chosen):
    """By what the squared error changes when each is added, its neighbours' weights falling too, which the gradient leaves out."""
    encoding = coils(spokes(24, SIZE, 2 * SIZE))
    samples, method = encoding.forward(phantom()), Gridding()
    found, pullback = method(samples, some(24, 2 * SIZE, *chosen), encoding)
    slopes = pullback(2 * (found - phantom())).sum(dim=(0, 2))
    others = [place for place in range(24) if place not in chosen]
    after = [method(samples, some(24, 2 * SIZE, *chosen, one), encoding)[0] for one in others]
    gains = [float((one - phantom()).norm() ** 2) for one in after]
    assert np.corrcoef(slopes[others], gains)[0, 1] > 0.45


def test_several_masks_frames_and_volumes():
    encoding = coils(spokes(12, SIZE))
    samples, method = encoding.forward(phantom()), Gridding()
    masks = torch.stack([some(12, SIZE, 0, 4), some(12, SIZE, 1, 2, 3)])
    together, pullback = method(samples, masks.unsqueeze(-3), encoding)
    assert pullback(together).shape == (2, 4, 12, SIZE)
    for found, mask in zip(together, masks, strict=True):
        torch.testing.assert_close(found, method(samples, mask, encoding)[0])
    series = Coils(simulated(4, (SIZE, SIZE)).to(torch.complex128).unsqueeze(1), spokes(12, SIZE).encoding((2, SIZE, SIZE)))
    frames = torch.stack([phantom(), phantom().flip(0)])
    found, _ = method(series.forward(frames), masks, series)
    for frame in range(2):
        alone = Coils(series.maps[:, 0], spokes(12, SIZE).encoding((SIZE, SIZE)))
        torch.testing.assert_close(found[frame], method(alone.forward(frames[frame]), masks[frame], alone)[0])
    volume = Coils(torch.ones(1, 8, 8, 8, dtype=torch.complex128), kooshball(130, 8, 16).encoding((8, 8, 8)))
    bump = torch.einsum("i,j,k->ijk", *[torch.hann_window(8, dtype=torch.float64)] * 3) + 0j
    found, _ = method(volume.forward(bump), torch.ones(volume.samples), volume)
    assert (found - bump).norm() < 0.2 * bump.norm()


def test_weights_of_the_last_masks_are_remembered(monkeypatch):
    calls, original = [], Gridding._density
    monkeypatch.setattr(Gridding, "_density", lambda self, *given: calls.append(1) or original(self, *given))
    fourier, method = spokes(12, SIZE).encoding((SIZE, SIZE)), Gridding()
    first = method.weights(some(12, SIZE, 0, 4), fourier)
    assert method.weights(some(12, SIZE, 0, 4), fourier).equal(first) and len(calls) == 1
    monkeypatch.setattr(gridding, "KEPT", 2 * 12 * SIZE)
    for place in range(5):
        method.weights(some(12, SIZE, place), fourier)
    assert len(method._known) == 2 and method.weights(some(12, SIZE, 0, 4), fourier).equal(first) and len(calls) == 7


def test_nothing_measured_is_nothing():
    encoding = coils(spokes(12, SIZE))
    found, pullback = Gridding()(encoding.forward(phantom()), torch.zeros(12, SIZE), encoding)
    assert not found.any() and pullback(phantom()).isfinite().all()


def test_masks_are_scored_and_made_through_it():
    images = torch.stack([phantom().abs(), phantom().abs().flip(1)])[:, None].float()
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0]).along(spokes(16, SIZE))
    named = reconstruction.named("gridding", data)
    recipe = prom.Recipe(**{**DEFAULT.as_dict(), "iterations": 3})
    result = prom.optimize(data, 8, pattern="spokes", recipe=recipe, reconstruction=named)
    assert int(result.mask[:, 0].sum()) == 4
    scores = [
        float(prom.evaluate(mask, data, reconstruction=named)["psnr"].mean()) for mask in (some(16, SIZE, 0, 1, 2, 3) > 0, result.mask)
    ]
    assert np.isfinite(scores).all()
    even = some(16, SIZE, 0, 4, 8, 12) > 0
    assert float(prom.evaluate(even, data, reconstruction=named)["psnr"].mean()) > scores[0]


def test_the_grid_is_refused():
    data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0])
    with pytest.raises(InputError, match="gridding: is for readouts off the grid, and demo is on it"):
        reconstruction.named("gridding", data)
    with pytest.raises(InputError, match="these samples are on it"):
        Gridding()(data.samples([0])[0], torch.ones(8, 8), data.encoding(0))
    with pytest.raises(InputError, match="iterations"):
        Gridding(0)


def test_copies_keep_what_a_subclass_has():
    class Mine(Gridding):
        def __init__(self, iterations: int, factor: float = 2.0) -> None:
            super().__init__(iterations)
            self.factor = factor

    copied = copy.deepcopy(Mine(10, factor=5.0))
    assert (copied.iterations, copied.factor) == (10, 5.0) and not copied._known
