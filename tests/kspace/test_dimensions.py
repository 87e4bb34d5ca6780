"""Volumes and series: the same mathematics with one axis more, against NumPy, dense matrices and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import prom
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.coils import simulated
from prom.kspace.encoding import Coils, Fourier
from prom.kspace.fourier import fftc, ifftc
from prom.masks.demands import Demands
from prom.objectives import MagnitudeMSE, whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named
from prom.reconstruction.sense import Sense, spectrum


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def series(count: int = 2, frames: int = 4, side: tuple[int, int] = (6, 5), coils: int = 3, noise: float = 0.05) -> SliceDataset:
    """Random frames that resemble one another, seen by coils."""
    shape = (count, 1, frames, *side)
    still = torch.randn(count, 1, 1, *side, dtype=torch.complex64, generator=generator(1))
    moving = torch.randn(shape, dtype=torch.complex64, generator=generator(2))
    images = still + 0.3 * moving
    given = {"sensitivities": simulated(coils, side), "noise": noise, "kind": "series"}
    return SliceDataset("demo", "train", images, [str(i) for i in range(count)], [0] * count, **given)


def volumes(count: int = 2, side: tuple[int, int, int] = (4, 6, 5), real: bool = True) -> SliceDataset:
    images = torch.rand(count, 1, *side, generator=generator(3)) + 0.2
    return SliceDataset("demo", "train", images if real else images + 0j, [str(i) for i in range(count)], [0] * count, kind="volumes")


@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (-3, -2, -1), (-3, -1)])
def test_transforms_are_those_of_numpy(axes):
    image = torch.randn(2, 4, 5, 6, dtype=torch.complex128, generator=generator())
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image.numpy(), axes), axes=axes, norm="ortho"), axes)
    assert np.allclose(fftc(image, axes).numpy(), expected)
    assert torch.allclose(ifftc(fftc(image, axes), axes), image)


@pytest.mark.parametrize(
    ("maps", "fourier"),
    [
        (torch.randn(3, 1, 6, 5, dtype=torch.complex128, generator=generator(4)), Fourier((4, 6, 5))),
        (torch.randn(3, 4, 6, 5, dtype=torch.complex128, generator=generator(5)), Fourier((4, 6, 5), (-3, -2, -1))),
    ],
)
def test_encodings_are_adjoint_and_their_diagonal_is_exact(maps, fourier):
    encoding = Coils(maps, fourier)
    image = torch.randn(4, 6, 5, dtype=torch.complex128, generator=generator(6))
    samples = torch.randn(3, 4, 6, 5, dtype=torch.complex128, generator=generator(7))
    left = (encoding.forward(image).conj() * samples).sum()
    assert torch.allclose(left, (image.conj() * encoding.adjoint(samples)).sum())
    weight = torch.rand(4, 6, 5, dtype=torch.float64, generator=generator(8))
    for place in ((0, 0, 0), (1, 3, 2), (3, 5, 4)):
        unit = torch.zeros(4, 6, 5, dtype=torch.complex128)
        unit[place] = 1
        back = fourier.forward(encoding.adjoint(weight * encoding.forward(fourier.adjoint(unit))))
        assert torch.allclose(back[place].real, encoding.diagonal(weight)[place])


def dense(data: SliceDataset, mask: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """The k-t image of the first series by a dense solve, in double precision."""
    frames, *side = data.shape
    encoding = data.encoding(0)
    units = torch.eye(frames * side[0] * side[1], dtype=torch.complex128).reshape(-1, *data.shape)
    wide = Coils(encoding.maps.to(torch.complex128), encoding.fourier)
    rows = (mask * wide.forward(units)).flatten(1).mT  # what is measured of each unit image
    prior = (penalty.sqrt() * fftc(units, (-3, -2, -1))).flatten(1).mT
    matrix = rows.mH @ rows + prior.mH @ prior
    samples = (mask * data.samples([0])[0].to(torch.complex128)).flatten()
    return torch.linalg.solve(matrix, rows.mH @ samples).reshape(data.shape)


def test_the_prior_over_time_and_space_is_that_of_a_dense_solve():
    data = series()
    penalty = data.noise**2 / spectrum(data)
    mask = torch.rand(data.shape, generator=generator(9)) < 0.4
    found, _ = Sense(penalty, iterations=300, tolerance=1e-7)(data.samples([0])[0], mask, data.encoding(0))
    assert torch.allclose(found.to(torch.complex128), dense(data, mask, penalty), atol=2e-4)
    wide = Sense(penalty, iterations=300, tolerance=1e-10)
    encoding = Coils(data.encoding(0).maps.to(torch.complex128), data.encoding(0).fourier)
    in_double, _ = wide(data.samples([0])[0].to(torch.complex128), mask, encoding)  # by the other way of computing
    assert torch.allclose(in_double, dense(data, mask, penalty), atol=1e-6)


def test_without_a_penalty_that_knows_time_frames_do_not_know_of_one_another():
    data = series()
    mask = torch.rand(data.shape, generator=generator(10)) < 0.5
    found, _ = Sense(0.01, iterations=200, tolerance=1e-7)(data.samples([0])[0], mask, data.encoding(0))
    for frame in range(data.shape[0]):
        alone, _ = Sense(0.01, iterations=200, tolerance=1e-7)(data.samples([0])[0][:, frame], mask[frame], Coils(data.sensitivities))
        assert torch.allclose(found[frame], alone, atol=1e-4)


def test_a_volume_is_reconstructed_as_by_a_dense_solve_and_slices_as_before():
    data = volumes(real=False)
    maps = torch.randn(3, *data.shape, dtype=torch.complex64, generator=generator(11))
    encoding = Coils(maps, Fourier(data.shape, data.axes))
    mask = torch.rand(data.shape, generator=generator(12)) < 0.5
    samples = encoding.forward(data.images[0, 0])
    found, _ = Sense(0.1, iterations=300, tolerance=1e-7)(samples, mask, encoding)
    units = torch.eye(found.numel(), dtype=torch.complex64).reshape(-1, *data.shape)
    rows = (mask * encoding.forward(units)).flatten(1).mT
    expected = torch.linalg.solve(rows.mH @ rows + 0.1 * torch.eye(found.numel()), rows.mH @ (mask * samples).flatten())
    assert torch.allclose(found.flatten(), expected, atol=1e-3)


@pytest.mark.parametrize("criterion", ["mse", "psnr"])
def test_the_gradient_through_time_is_that_of_finite_differences(criterion):
    data = series(count=1, frames=3, side=(4, 5))
    objective = Reconstructed(data, Sense(data.noise**2 / spectrum(data), iterations=200, tolerance=1e-7), criterion=criterion)
    mask = torch.rand(data.shape, generator=generator(13)) * 0.6 + 0.2
    _, gradient = objective.loss_and_gradient([0], mask[None])
    for seed in range(3):  # along a direction, where single precision shows more than at one sample
        direction = torch.rand(data.shape, generator=generator(20 + seed)) - 0.2
        up, down = (float(objective.loss([0], (mask + sign * 0.02 * direction)[None])) for sign in (1, -1))
        assert float((gradient[0] * direction).sum()) == pytest.approx((up - down) / 0.04, rel=0.03)


@pytest.mark.parametrize("kind", ["volumes", "series"])
def test_the_fused_gradient_is_that_of_autograd(kind):
    images = torch.rand(3, 2, 4, 6, 5, generator=generator(14))
    data = SliceDataset("demo", "train", images, list("abc"), [0] * 3, kind=kind)
    objective = MagnitudeMSE(images, axes=data.axes)
    for shape in ((2, *data.shape), (3, 2, *data.shape)):  # masks for all images, and for each its own
        masks = torch.rand(shape, generator=generator(15)).requires_grad_()
        found = ifftc(fftc(images, data.axes).unsqueeze(1) * (masks if len(shape) == 5 else masks[None]).unsqueeze(-4), data.axes).abs()
        loss = (found - images.unsqueeze(1)).square().mean()
        loss.backward()
        mine, gradient = objective.loss_and_gradient([0, 1, 2], masks.detach())
        assert mine == pytest.approx(float(loss.detach()), rel=1e-4)
        assert torch.allclose(gradient, masks.grad, rtol=1e-3, atol=1e-8)


def test_the_closed_form_of_a_volume_is_the_best_mask_of_all():
    """6 x 6 x 6, three samples: of all 1,656,360 masks none measures more power, so that none leaves a smaller complex error."""
    images = torch.randn(2, 1, 6, 6, 6, dtype=torch.complex64, generator=generator(16)).cumsum(-1).cumsum(-2)
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], kind="volumes")
    power = fftc(images, data.axes).abs().double().square().mean(dim=(0, 1)).flatten()
    mask = prom.baselines.energy(data, acceleration=216 / 3)
    three = torch.combinations(torch.arange(216), 3)
    best = three[power[three].sum(dim=1).argmax()]
    assert sorted(mask.flatten().nonzero().flatten().tolist()) == sorted(best.tolist())


def test_what_is_learnt_of_a_volume_is_the_best_pair_of_all():
    """Of real volumes of 6 x 6 x 6 with two samples, the loss of each of the 23,220 masks is computed."""
    images = torch.rand(2, 1, 6, 6, 6, generator=generator(17))
    images[:, :, 2:4] += 2
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], kind="volumes")
    pairs = torch.combinations(torch.arange(216), 2)
    kspace = fftc(images[:, 0], data.axes)
    losses = []
    for chunk in pairs.split(2048):
        masks = torch.zeros(len(chunk), 216).scatter_(1, chunk, 1).reshape(-1, 1, 6, 6, 6)
        losses.append((ifftc(masks * kspace, data.axes).abs() - images[:, 0]).square().mean(dim=(1, 2, 3, 4)))
    losses = torch.cat(losses)
    result = prom.optimize(data, acceleration=108, seed=0)
    mine = whole_loss(MagnitudeMSE(images, axes=data.axes), [0, 1], result.mask.float())
    assert int(result.mask.sum()) == 2
    assert mine <= float(losses.min()) * (1 + 1e-5)


def test_masks_of_series_have_exact_budgets_in_every_frame():
    data = series(count=2, frames=5, side=(8, 12))
    for pattern, each in (("columns", 3), ("rows", 2), ("points", 24)):
        result = prom.optimize(data, acceleration=4, pattern=pattern, seed=1, per_frame=True, calibration=1)
        chosen = data.lines(pattern).select(result.mask)
        assert chosen.flatten(1).sum(dim=1).tolist() == [each] * 5
        assert result.mask[:, 4, 6].all()
    still = prom.optimize(data, acceleration=4, pattern="still-columns")
    assert all(torch.equal(still.mask[0], frame) for frame in still.mask)
    assert still.excitations == 5 * 3


def test_a_mask_of_a_series_survives_its_file(tmp_path):
    data = series(count=2, frames=3, side=(8, 8))
    result = prom.optimize(data, acceleration=2, pattern="columns", per_frame=True)
    result.save(tmp_path / "mask.h5")
    again = prom.load_mask(tmp_path / "mask.h5")
    assert torch.equal(again.mask, result.mask)
    assert again.lines == result.lines
    assert again.demands.per_frame


def test_demands_of_series_say_what_cannot_be_met():
    lines = series(frames=5, side=(8, 12)).lines("columns")
    with pytest.raises(InputError, match="calibration 4 needs 20 columns, and x4 of 60 allows 15"):
        Demands(per_frame=True, calibration=4).feasible(lines, 4)
    with pytest.raises(InputError, match="max_gap 3: is for lines of one axis; use still-columns"):
        Demands(max_gap=3).feasible(lines, 2)
    with pytest.raises(InputError, match="per_frame: is of series in time"):
        Demands(per_frame=True).feasible(volumes().lines("points"), 2)
    with pytest.raises(InputError, match="per_frame: pattern still-columns has one mask for all frames"):
        Demands(per_frame=True).feasible(series().lines("still-columns"), 2)
    every = Demands(require=torch.eye(8, 12, dtype=torch.bool)).feasible(series(frames=5, side=(8, 12)).lines("points"), 2)
    assert every.mandatory.sum() == 5 * 8


def test_scores_of_series_are_of_all_of_it():
    data = series(count=2, side=(8, 9))
    full = prom.evaluate(torch.ones(data.shape, dtype=torch.bool), data)
    assert (full["psnr"] > 80).all() and len(full) == 2
    mask = torch.rand(data.shape, generator=generator(18)) < 0.5
    scores = prom.evaluate(mask, data, reconstruction=named("sense", data))
    found, _ = named("sense", data)(data.samples([1])[0], mask, data.encoding(1))
    target = data.images[1, 0].abs()
    low, high = target.min(), target.max()
    error = (((found.abs() - low) / (high - low)).clamp(0, 1) - (target - low) / (high - low)).square().mean()
    assert scores["psnr"][1] == pytest.approx(-10 * float(error.log10()), abs=0.01)


def test_view_sharing_takes_the_nearest_frame():
    data = series(count=1, frames=5, side=(4, 4))
    mask = torch.rand(data.shape, generator=generator(19)) < 0.3
    samples = data.samples([0])[0]
    expected = torch.zeros_like(samples)
    for frame in range(5):
        for row in range(4):
            for column in range(4):
                measured = mask[:, row, column].nonzero().flatten().tolist()
                if measured:
                    nearest = min(measured, key=lambda other: (abs(other - frame), other))
                    expected[:, frame, row, column] = samples[:, nearest, row, column]
    found, pullback = named("view-sharing", data)(samples, mask, data.encoding(0))
    assert torch.allclose(found, data.encoding(0).adjoint(expected))
    with pytest.raises(InputError, match="has no gradient"):
        pullback(found)
    with pytest.raises(InputError, match="view-sharing: is of series in time, and demo has volumes"):
        named("view-sharing", volumes())


def test_what_is_for_slices_only_refuses_series():
    data = series()
    with pytest.raises(InputError, match="wavelet and tv: are for slices"):
        named("wavelet", data)
    with pytest.raises(InputError, match="convention fastmri"):
        prom.evaluate(torch.ones(data.shape, dtype=torch.bool), data, convention="fastmri")
    with pytest.raises(InputError, match="a_optimal: would measure the same points in every frame; use pattern still-points"):
        prom.baselines.get("a_optimal")(data, 2)
    for name, pattern in (("lattice", "points"), ("poisson_disc", "points"), ("best_candidate", "points"), ("equispaced", "columns")):
        with pytest.raises(InputError, match=f"{name}: is of planes, and demo has volumes"):
            prom.baselines.get(name)(volumes(), 4, pattern)
    for name in ("energy", "conjugate_energy", "low_pass", "gaussian", "polynomial"):
        assert int(prom.baselines.get(name)(volumes(), 4).sum()) == 4 * 6 * 5 // 4
    with pytest.raises(InputError, match="pattern still-points: is of series in time, and these are not; use points"):
        volumes().lines("still-points")


def test_slices_of_subjects_become_volumes():
    data = prom.load("mni_brain", "test", subjects=2, slices=range(60, 72, 2), size=32, coils=3, phase=True, noise=0.01)
    grid = data.as_volumes()
    assert grid.shape == (6, 32, 32) and grid.kind == "volumes"  # 2 mm apart, as they are
    assert torch.equal(grid.images[1, 0, 4], data.images[10, 0])
    whole = grid.encoding([0, 1]).forward(grid.images[:, 0])  # without noise
    noise = grid.samples([0, 1]) - whole
    assert float(noise.abs().square().mean()) == pytest.approx(0.01**2, rel=0.1)
    with pytest.raises(InputError, match="slices 60, 62, 66 are not evenly apart"):
        data.select([0, 1, 3]).as_volumes()
    with pytest.raises(InputError, match="subjects have different slices, or one twice"):
        data.select([0, 1, 2, 6, 7]).as_volumes()
    with pytest.raises(InputError, match="subjects have different slices, or one twice"):
        data.select([0, 1, 2, 2]).as_volumes()
    with pytest.raises(InputError, match="only slices in memory become volumes"):
        grid.as_volumes()
    read = prom.load("mni_brain", "test", subjects=2, slices=range(60, 66), size=32, grid=True)
    assert read.shape == (6, 32, 32) and read.summary() == "mni_brain, test: 2 volumes of 2 subjects, 6 x 32 x 32"
    mask = prom.baselines.energy(read, 8)
    assert prom.evaluate(mask, read)["psnr"].gt(20).all() and int(mask.sum()) == 6 * 32 * 32 // 8
