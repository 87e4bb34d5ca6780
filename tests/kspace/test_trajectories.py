"""Candidates of readouts against their geometry, their budgets, and what data measured along them refuse."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from prom import InputError, SliceDataset, optimize
from prom.baselines import as_result
from prom.baselines.angles import equal_angles, random_readouts
from prom.kspace.nonuniform import NonUniform
from prom.kspace.patterns import Readouts
from prom.kspace.trajectories import MAKERS, Trajectory, kooshball, make, spirals, spokes
from prom.masks.demands import Demands
from prom.objectives import ImageLoss, MagnitudeMSE
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense


def data(size: int = 8, coils: int = 2, **given) -> SliceDataset:
    """Two slices seen by coils, with noise."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, size, size, dtype=torch.complex64, generator=generator)
    images = torch.randn(2, 1, size, size, dtype=torch.complex64, generator=generator)
    return SliceDataset("demo", "train", images, ["a", "b"], [0, 0], **{"sensitivities": maps, "noise": 0.1} | given)


@pytest.mark.parametrize(("candidates", "size", "samples"), [(7, 8, None), (12, 9, None), (6, 8, 16)])
def test_spokes_are_straight_through_the_centre_at_even_angles(candidates, size, samples):
    made = spokes(candidates, size, samples)
    count = samples or size
    assert made.points.shape == (candidates, count, 2) and made.full == size and made.kind == "spokes"
    assert (made.points[:, count // 2] == 0).all()
    angles = torch.atan2(made.points[:, -1, 0].double(), made.points[:, -1, 1].double())
    torch.testing.assert_close(angles, math.pi * torch.arange(candidates).double() / candidates, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.points.diff(dim=1).norm(dim=-1), torch.full((candidates, count - 1), size / count))
    assert made.points[0, :, 0].abs().max() == 0  # the first lies along the columns, as a row of the grid


@pytest.mark.parametrize(("size", "arms"), [(16, 8), (32, 16), (16, 1)])
def test_so_many_spiral_arms_sample_the_disc_fully(size, arms):
    made = spirals(arms, size, arms=arms)
    assert made.full == arms and made.points.norm(dim=-1).max() == pytest.approx(size / 2, abs=1e-4)
    along = made.points.diff(dim=1).norm(dim=-1)
    assert along.max() <= 1.05 and along.median() >= 0.95  # about one cycle apart, a chord being shorter where the arm bends
    grid = torch.cartesian_prod(*[torch.linspace(-size / 2, size / 2, 4 * size + 1)] * 2)
    inside = grid[grid.norm(dim=-1) <= size / 2 - 1]
    assert torch.cdist(inside, made.points.flatten(0, 1)).min(dim=1).values.max() < 0.75  # sqrt(1/2) of a grid that is one apart


def test_spiral_arms_are_the_first_one_turned():
    """And that one is of the formula: two windings here, in the sense of the turns."""
    made = spirals(8, size=16, arms=4)
    first = torch.view_as_complex(made.points[0].flip(-1).contiguous()).to(torch.complex128)
    t = first.abs() / 8
    torch.testing.assert_close(first, 8 * t * torch.exp(2j * math.pi * 2 * t), rtol=0, atol=1e-4)
    for arm, turn in zip(made.points, made.turns, strict=True):
        expected = first * torch.polar(torch.ones(()).double(), 2 * math.pi * turn)
        torch.testing.assert_close(torch.view_as_complex(arm.flip(-1).contiguous()).to(torch.complex128), expected, rtol=0, atol=1e-5)


def test_kooshball_directions_cover_half_a_sphere_evenly():
    made = kooshball(500, size=8)
    directions = made.points[:, -1].double() / made.points[:, -1].double().norm(dim=-1, keepdim=True)
    assert made.full == 64 and made.points.shape == (500, 8, 3) and (directions[:, 0] > 0).all()
    both = torch.cat([directions, -directions])
    torch.testing.assert_close(both.T @ both / len(both), torch.eye(3).double() / 3, rtol=0, atol=0.01)  # of the even density
    distances = torch.cdist(both, both).fill_diagonal_(torch.inf).min(dim=1).values
    assert distances.min() > 0.4 * math.sqrt(4 * math.pi / len(both))  # of an even cover: half of it where the two halves meet


def test_masks_and_budgets_refer_to_a_full_scan_of_the_grid():
    assert spokes(256, 128).lines((128, 128)).budget(acceleration=8) == 16
    assert spokes(33, 128, 256).lines((128, 128)).budget(acceleration=16) == 8  # oversampling costs no time
    series = spokes(64, 32).lines((10, 32, 32), frames=True)
    assert series.shape == (10, 64) and series.full == 320 and series.budget(4) == 80 and series.frame.budget(4) == 8
    volume = kooshball(300, 16).lines((16, 16, 16))
    assert volume.samples == (1, 300, 16) and volume.shape == (300,) and volume.budget(4) == 64
    with pytest.raises(InputError, match="acceleration 2: takes 4 of 8 spokes, and there are 3 candidates"):
        spokes(3, 8).lines((8, 8)).budget(2)


def test_arrays_come_back():
    for name, maker in MAKERS.items():
        made = maker(6, 8)
        again = Trajectory.from_arrays(name, made.arrays())
        assert again.points.equal(made.points) and again.full == made.full and again.kind == name
        assert (again.turns is None) == (made.turns is None) and (made.turns is None or again.turns.equal(made.turns))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Trajectory(torch.zeros(3, 4, 1)), r"must be \(readouts, samples, 2 or 3\)"),
        (lambda: Trajectory(torch.zeros(0, 4, 2)), r"must be \(readouts, samples, 2 or 3\)"),
        (lambda: Trajectory(torch.zeros(3, 4, 2).long()), "finite floating-point"),
        (lambda: Trajectory(torch.full((3, 4, 2), torch.inf)), "finite floating-point"),
        (lambda: Trajectory(torch.zeros(3, 4, 2), "spoke"), "did you mean 'spokes'"),
        (lambda: Trajectory(torch.zeros(3, 4, 2), full=0), "full"),
        (lambda: Trajectory(torch.zeros(3, 4, 2), turns=torch.tensor([0.0, 0.5, 1.0])), "3 shares of a turn"),
        (lambda: Trajectory(torch.zeros(3, 4, 2), turns=torch.zeros(2)), "3 shares of a turn"),
        (lambda: spokes(0, 8), "candidates"),
        (lambda: spokes(4, 1), "size"),
        (lambda: spirals(4, 8, arms=0), "arms"),
        (lambda: spirals(4, "16"), "size 16: must be a whole number"),
        (lambda: spokes(4, 8, samples=0), "samples 0"),
        (lambda: spirals(4, 8, samples=0), "samples 0"),
        (lambda: kooshball(4, 8, samples=0), "samples 0"),
        (lambda: make("spoke", (8, 8), 4), "did you mean 'spokes'"),
        (lambda: make("spokes", (8, 6), 4), "equal sides"),
        (lambda: make("kooshball", (8, 8), 4), "read them as volumes"),
        (lambda: make("kooshball", (4, 8, 6), 4), "equal sides"),
        (lambda: make("kooshball", (16, 8, 8), 4), r"read volumes of 8 slices, or crop or pad these in the plane \(size=16,16\)"),
        (lambda: make("kooshball", (8, 8, 8), 4, frames=True), "these are series in time"),
    ],
)
def test_what_cannot_be_is_refused(make_it, message):
    with pytest.raises(InputError, match=message) as caught:
        make_it()
    assert "\n" not in str(caught.value)


def test_data_along_a_trajectory_are_seeded_samples_of_the_same_images():
    slices, trajectory = data(), spokes(12, 8)
    one, again, other = (slices.along(trajectory, seed) for seed in (0, 0, 1))
    assert one.kspace.equal(again.kspace) and not one.kspace.equal(other.kspace) and one.images.equal(slices.images)
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    bare = replace(slices, noise=0.0).along(trajectory)
    assert bare.kspace is None and bare.samples([0, 1]).shape == (2, 2, 12, 8) and one.grid == (12, 8) == bare.grid
    torch.testing.assert_close(bare.samples([1]), bare.encoding([1]).forward(slices.images[[1], 0]))
    rest = one.kspace - bare.samples([0, 1])
    assert rest.abs().square().mean().sqrt() == pytest.approx(0.1, rel=0.1)  # noise of the same level
    assert one.choices("spokes") == Readouts((12, 8), (-1,), kind="spokes", full_scan=8)
    still, moving = (Readouts((5, 12, 8), readout, full_scan=full, frames=True) for readout, full in (((-3, -1), 8), ((-1,), 40)))
    assert still.frame == moving.frame == Readouts((12, 8), (-1,), full_scan=8)
    assert still.frame.forward(torch.ones(12)).shape == (12, 8)


def test_the_fingerprint_follows_the_trajectory():
    slices = replace(data(), noise=None)
    assert slices.along(spokes(12, 8)).fingerprint() != slices.along(spokes(13, 8)).fingerprint() != slices.fingerprint()


def test_series_and_volumes_go_along_trajectories():
    images = torch.randn(1, 1, 3, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    series = SliceDataset("demo", "train", images, ["a"], [0], kind="series").along(spokes(12, 8))
    assert series.grid == (3, 12, 8) and series.samples([0]).shape == (1, 1, 3, 12, 8)
    images = torch.randn(1, 1, 8, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    volumes = SliceDataset("demo", "train", images, ["a"], [0], kind="volumes").along(kooshball(12, 8))
    assert volumes.grid == (1, 12, 8) and volumes.samples([0]).shape == (1, 1, 1, 12, 8)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: data().along(spokes(4, 8)).along(spokes(4, 8)), "was measured along a trajectory already"),
        (lambda: SliceDataset("demo", "train", torch.rand(1, 2, 8, 8), ["a"], [0]).along(spokes(4, 8)), "one channel"),
        (lambda: data().along(spokes(4, 16)), "spokes: were made for images of 16 x 16"),
        (lambda: data().along(kooshball(4, 8)), "trajectory of 3 axes: is of volumes"),
        (lambda: data().along(spokes(4, 8)).choices("points"), "use pattern spokes"),
        (lambda: data().along(spokes(4, 8)).lines("columns"), "off the grid"),
        (lambda: data().choices("spokes"), "put the data on a trajectory first"),
    ],
)
def test_what_does_not_go_along_a_trajectory_is_refused(make_it, message):
    with pytest.raises(InputError, match=message) as caught:
        make_it()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("samples", [None, 7, 16])
def test_candidates_know_the_size_that_they_were_made_for(name, size, samples):
    made, sides = MAKERS[name](12, size, samples), 3 if name == "kooshball" else 2
    made.check_image((size,) * sides)
    for other in (size - 1, size + 1, 2 * size):
        with pytest.raises(InputError, match=f"{name}: were made for images of {size} x {size}"):
            made.check_image((other,) * sides)
        with pytest.raises(InputError, match=f"{name}: were made for images of {size} x {size}"):
            made.check_image((other, *(size,) * (sides - 1)))
    if name != "kooshball":
        with pytest.raises(InputError, match="were made for images of"):
            data(size=2 * size).along(made)


def test_demands_are_of_the_same_candidates(tmp_path):
    """A file with the same spokes in another order would demand others."""
    slices = data()
    turned = replace(spokes(12, 8), points=spokes(12, 8).points.flip(0))
    mask = equal_angles(slices.along(spokes(12, 8)), 4)
    as_result(mask, "equal_angles", 4, "spokes", train=slices.along(spokes(12, 8))).save(tmp_path / "mask.h5")
    demands = Demands(require=tmp_path / "mask.h5")
    for again in (demands, replace(demands, per_frame=False)):
        found = random_readouts(slices.along(spokes(12, 8)), 2, demands=again)
        assert bool((found | ~mask).all()) and int(found[:, 0].sum()) == 4
        with pytest.raises(InputError, match="require: chooses among other spokes than these"):
            random_readouts(slices.along(turned), 2, demands=again)
    assert random_readouts(slices.along(turned), 2, demands=Demands(require=mask)).any()  # a mask in memory says nothing of it


def test_objectives_of_the_grid_are_refused_off_it():
    """Where candidates and samples are as many as rows and columns, nothing else would tell."""
    slices = data().along(spokes(8, 8))
    for objective in (MagnitudeMSE(slices.images), ImageLoss(slices.images, torch.nn.functional.mse_loss)):
        with pytest.raises(InputError, match="readouts are off the grid"):
            optimize(slices, 4, "spokes", objective=objective)
    with pytest.raises(InputError, match="near: is a mask of the grid"):
        Reconstructed(slices, Sense(1e-2), near=torch.ones(8, 8).bool())


def test_what_does_not_fit_the_images_is_refused():
    with pytest.raises(InputError, match="is of other frames than images of .2, 8, 8.; give it for each of them"):
        NonUniform(torch.zeros(3, 4, 5, 2), (2, 8, 8))
    for kind in ("spokes", "spirals"):
        with pytest.raises(InputError, match=f"pattern {kind}: is of slices, or of series in time, and these images are .4, 8, 8."):
            make(kind, (4, 8, 8), 16)
        assert make(kind, (4, 8, 8), 16, frames=True).points.shape[-1] == 2
    with pytest.raises(InputError, match="at most 16777216 samples"):
        Trajectory(torch.zeros(1, 1, 2).expand(17408, 1024, 2))


def test_splits_do_not_share_their_noise():
    names = ("train", "validation", "test", "training", "testing")
    made = [replace(data(), split=split).along(spokes(12, 8)) for split in names]
    noise = [one.kspace - replace(one, kspace=None, noise=0.0).samples([0, 1]) for one in made]
    assert all(float((one - other).abs().max()) > 0.01 for one, other in itertools.combinations(noise, 2))
    assert torch.equal(made[0].kspace, data().along(spokes(12, 8), 0).kspace)
