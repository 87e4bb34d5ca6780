"""A problem is made once, and its parts cannot disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import prom
from prom import InputError, SliceDataset, baselines, masks
from prom.kspace.trajectories import Trajectory, spokes
from prom.learn.exchange import exchange
from prom.objectives import ImageLoss, MagnitudeMSE, Measurements, Objective, whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.problem import Problem, as_dataset
from prom.reconstruction.sense import Sense
from prom.reconstruction.sparse import Sparse

FEW = replace(prom.DEFAULT, iterations=5)


def test_an_objective_of_other_images_is_refused(blobs):
    other = MagnitudeMSE(blobs.images.flip(0))
    for use in (
        lambda: prom.optimize(blobs, 4, recipe=FEW, objective=other, device="cpu"),
        lambda: prom.polish(baselines.energy(blobs, 4), blobs, objective=other, device="cpu"),
        lambda: baselines.get("igs")(blobs, 4, objective=other, device="cpu"),
    ):
        with pytest.raises(InputError, match="has other images than blobs"):
            use()
    same = MagnitudeMSE(blobs.images.clone())
    assert torch.equal(
        prom.optimize(blobs, 4, recipe=FEW, objective=same, device="cpu").mask, prom.optimize(blobs, 4, recipe=FEW, device="cpu").mask
    )


def test_masks_learnt_through_different_networks_are_not_averaged(blobs):
    made = [
        ImageLoss(blobs.images, torch.nn.functional.l1_loss, described={"objective": "segmentation", "network": name}) for name in "abb"
    ]
    results = [prom.optimize(blobs, 4, recipe=FEW, objective=objective, seed=seed, device="cpu") for seed, objective in enumerate(made)]
    assert results[0].provenance["network"] == "a"
    with pytest.raises(InputError, match="network b: the first mask has a"):
        masks.average(results[:2])
    assert masks.average(results[1:]).recipe["members"] == 2


def test_an_objective_of_ones_own_needs_images_and_one_function(blobs):
    """A new objective in a few lines: the complex error, whose minimiser is the energy oracle."""

    class ComplexMSE(Objective):
        def __init__(self, images: torch.Tensor) -> None:
            self.data = Measurements(images)

        def loss_and_gradient(self, indices, masks):
            power = self.data[list(indices)][0].abs().square().mean(dim=(0, 1))
            return ((1 - masks).square() * power).sum(dim=(-2, -1)).mean(), -2 * (1 - masks) * power / len(masks)

    result = prom.optimize(blobs, 8, objective=ComplexMSE(blobs.images), recipe=replace(prom.DEFAULT, curvature=False), device="cpu")
    polished = prom.polish(result.mask, blobs, objective=ComplexMSE(blobs.images), device="cpu")
    power = Measurements(blobs.images).power()
    missed = [float(power[~mask].sum()) for mask in (polished, baselines.energy(blobs, 8))]
    assert missed[0] == pytest.approx(missed[1], rel=1e-5)  # partners have the same power, but for rounding


def test_a_reconstruction_by_name_or_as_an_object_is_the_same():
    data = prom.load("mni_brain", subjects=2, slices=[72], size=32, coils=4, phase=True, noise=0.005)
    by_name = prom.optimize(data, 4, recipe=FEW, reconstruction="sense", device="cpu")
    ready = Reconstructed(data, Sense.of(data))
    for given in ({"reconstruction": Sense.of(data)}, {"objective": ready}):
        assert torch.equal(prom.optimize(data, 4, recipe=FEW, device="cpu", **given).theta, by_name.theta)
    assert by_name.provenance["reconstruction"] == "Sense" and by_name.provenance["objective"] == "magnitude_mse"
    other = prom.optimize(data, 4, recipe=FEW, reconstruction="sense", objective="magnitude_psnr", seed=1, device="cpu")
    assert other.provenance["objective"] == "magnitude_psnr"
    polished = prom.polish(by_name.mask, data, evaluations=4, reconstruction="sense", device="cpu")
    assert whole_loss(ready, [0, 1], polished.float()) < whole_loss(ready, [0, 1], by_name.mask.float())
    through_tv = prom.optimize(data, 4, recipe=replace(FEW, iterations=1), reconstruction=Sparse("tv", steps=3), seed=1, device="cpu")
    assert through_tv.provenance["reconstruction"] == "Sparse(tv, strength=0.001, steps=3)"
    with pytest.raises(InputError, match="reconstruction"):
        masks.average([by_name, replace(by_name, seed=1, provenance=through_tv.provenance)])


def test_zero_filling_by_name_is_the_default(blobs):
    plain, named = (prom.optimize(blobs, 4, recipe=FEW, device="cpu", reconstruction=name) for name in (None, "zero-filled"))
    assert torch.equal(plain.theta, named.theta) and "reconstruction" not in named.provenance


def test_what_does_not_go_together_is_refused(blobs):
    channels = prom.load("mni_brain", subjects=1, slices=[72], size=32, contrasts=4)
    for given, message in (
        ({"reconstruction": "tvv"}, "did you mean 'tv'"),
        ({"reconstruction": "sense"}, "its noise is not known"),
        ({"reconstruction": 3}, "reconstruction 3: must be a name"),
        ({"reconstruction": "tv", "objective": MagnitudeMSE(blobs.images)}, "tv: goes with objective .*, not with MagnitudeMSE"),
        ({"reconstruction": "tv", "objective": torch.nn.functional.l1_loss}, "not with l1_loss"),
        ({"objective": "magnitude_psnr"}, "name the reconstruction, e.g. sense"),
        ({"data": channels, "reconstruction": Sparse("tv")}, "has 4 channels"),
    ):
        with pytest.raises(InputError, match=message):
            prom.optimize(**{"data": blobs, "acceleration": 4, "recipe": FEW, "device": "cpu", **given})
    with pytest.raises(InputError, match="reconstruction 'sense': is made of training data"):
        prom.evaluate(torch.ones(blobs.shape), blobs, reconstruction="sense")


def test_a_problem_around_a_mask_has_its_size(blobs):
    problem = Problem.around(baselines.energy(blobs, 8, "columns"), blobs, "columns", device="cpu")
    assert problem.feasible.budget == 4 and problem.acceleration == 8 and problem.device.type == "cpu"


def test_arrays_in_any_order_of_memory_and_bytes():
    array = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
    for other in (array[:, ::-1][:, ::-1], array.astype(">f4"), np.asfortranarray(array), torch.tensor(array, requires_grad=True)):
        assert torch.equal(as_dataset(other).images[:, 0], torch.from_numpy(array))
    assert torch.equal(as_dataset(array[:, ::-1]).images[:, 0], torch.from_numpy(array).flip(1))


def test_entries_are_chosen_by_numbers_alone():
    data = SliceDataset("demo", "train", torch.rand(4, 1, 8, 8), list("abca"), [0, 0, 0, 1])
    for wrong in (np.array(data.subjects) == "a", [True, False, True, False], torch.tensor([True, False, False, True])):
        for choose in (data.select, data.samples):
            with pytest.raises(InputError, match="numpy.flatnonzero"):
                choose(wrong)
    assert data.select(np.flatnonzero(np.array(data.subjects) == "a")).subjects == ["a", "a"]


def test_subjects_and_slices_from_numpy_are_the_same_data():
    images = torch.rand(4, 1, 8, 8)
    one = SliceDataset("demo", "train", images, list("abca"), [0, 0, 0, 1])
    for slices in (np.arange(4) // 3, list(np.arange(4) // 3)):
        other = SliceDataset("demo", "train", images, np.array(list("abca")), slices)
        assert other.fingerprint() == one.fingerprint() and len(other.hold_out(0.3)[0]) > 0 and other.thinned(2).subjects == ["a", "a"]


def test_an_objective_of_other_measurements_is_refused():
    """The images alone do not say what was measured."""
    plain = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8) + 0j, ["a", "b"], [0, 0], noise=0.01)
    one = replace(plain, sensitivities=torch.ones(1, 8, 8) + 0j)
    others = [plain.along(spokes(8, size=8)), replace(plain, sensitivities=torch.ones(4, 8, 8) + 0j), replace(one, noise=0.1)]
    for other in others:
        with pytest.raises(InputError, match="has other coils, k-space, noise or readouts than demo; make it of these data"):
            Problem.of(one, 4, "rows", Reconstructed(other, Sense(1e-3)))
    assert Problem.of(one, 4, "rows", Reconstructed(replace(one, subjects=["c", "d"]), Sense(1e-3))).feasible.count == 2
    volumes = SliceDataset("demo", "train", torch.rand(2, 1, 4, 8, 8), ["a", "b"], [0, 0], noise=0.1, kind="volumes")
    series = replace(volumes, kind="series")
    for other in (MagnitudeMSE(volumes.images, axes=volumes.axes), Reconstructed(volumes, Sense(0.1))):
        with pytest.raises(InputError, match="has other axes of the Fourier transform than demo, which has series"):
            Problem.of(series, 4, "columns", other)
    assert Problem.of(plain, 4, objective=MagnitudeMSE(plain.images, axes=(-1, -2))).feasible.count == 16  # the same transform
    radial = one.along(spokes(8, size=8))
    chosen = torch.zeros(8, 8, dtype=torch.bool)
    chosen[::4] = True
    by_tensor, by_array = (exchange(mask, Reconstructed(radial, Sense(0.1)), [0], "spokes") for mask in (chosen, chosen.numpy()))
    assert torch.equal(by_tensor, by_array)
    found = exchange(torch.eye(8)[3].bool().expand(8, 8), Reconstructed(one, Sense(1e-3)), [0])
    assert found.sum() == 8


def test_what_does_not_fit_a_trajectory_is_refused():
    images = torch.rand(2, 1, 8, 8) + 0j
    along = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], noise=0.01).along(spokes(8, size=8))
    with pytest.raises(InputError, match="put coils on the images first"):
        along.with_coils(torch.ones(2, 8, 8) + 0j, noise=0.01)
    with pytest.raises(InputError, match="trajectory of 2 axes: is of slices and series"):
        replace(along, images=images[None, :1], subjects=["a"], slices=[0], kind="volumes", kspace=None, sensitivities=None)
    turned = replace(along.trajectory, points=along.trajectory.points.flip(0))
    fresh = Trajectory(turned.points, "spokes", turned.full, turned.turns)
    bare = SliceDataset("demo", "train", images, ["a", "b"], [0, 0])
    assert torch.equal(bare.along(turned).samples([0]), bare.along(fresh).samples([0]))
