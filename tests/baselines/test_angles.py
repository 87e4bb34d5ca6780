"""Rivals off the grid against their formulas, and exact budgets whatever is demanded."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prom import InputError, SliceDataset, baselines
from prom.baselines.angles import anisotropic_angles, equal_angles, golden_angle, random_readouts
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.masks.demands import Demands

ANGLES = ("equal_angles", "golden_angle", "random_readouts")
WINKELMANN = 111.246  # degrees, as the paper gives it


def slices(candidates: int = 24, size: int = 16, trajectory: Trajectory | None = None) -> SliceDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, size, size, generator=generator)
    data = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], noise=0.05)
    return data.along(trajectory or spokes(candidates, size))


def series(candidates: int = 24, size: int = 8, frames: int = 5) -> SliceDataset:
    images = torch.rand(1, 1, frames, size, size, generator=torch.Generator().manual_seed(0))
    return SliceDataset("demo", "train", images, ["a"], [0], kind="series").along(spokes(candidates, size))


def places(mask: torch.Tensor) -> list[int]:
    """The readouts of a mask, each of which must be whole."""
    assert mask.dtype == torch.bool and mask.equal(mask[..., :1].expand_as(mask))
    return mask[..., 0].nonzero().flatten().tolist()


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_equal_angles_of_candidates_that_have_them_are_exact(count):
    data = slices(48)
    assert places(equal_angles(data, 16 / count)) == list(range(0, 48, 48 // count))
    if count < 16:  # of 16, each halfway is between two candidates
        assert places(equal_angles(data, 16 / count, start=0.5)) == list(range(24 // count, 48, 48 // count))


def test_equal_angles_of_any_number_are_within_half_a_candidate():
    for count in (3, 5, 7, 11):
        chosen = np.array(places(equal_angles(slices(256), 16 / count)))
        assert np.abs(chosen - 256 * np.arange(count) / count).max() <= 0.5


def test_golden_angles_are_those_of_the_paper():
    """Each spoke 111.246 degrees on from the one before it, all of them modulo half a turn, to the nearest candidate."""
    chosen = places(golden_angle(slices(720, 16), 16 / 13))
    wanted = np.mod(WINKELMANN * np.arange(13), 180) / 180 * 720
    assert chosen == sorted(np.round(wanted).astype(int).tolist())


@pytest.mark.parametrize(("order", "degrees"), [(1, 111.246), (2, 68.754), (5, 32.039), (7, 23.628)])
def test_tiny_golden_angles_are_those_of_the_paper(order, degrees):
    """Wundrak et al. 2016, table 1, of half a turn."""
    chosen = places(golden_angle(slices(1800, 16), 8, order=order))
    assert chosen == [0, round(degrees * 10)]


def test_a_taken_candidate_is_not_taken_twice():
    """As many as there are candidates: all of them, in whatever order they were wanted."""
    for name in ANGLES:
        assert places(baselines.get(name)(slices(16), 1, "spokes")) == list(range(16))


def test_frames_of_a_series_go_on_where_the_last_one_ended():
    data = series(candidates=360, frames=4)
    mask = golden_angle(data, 4, demands=Demands(per_frame=True))
    wanted = np.mod(WINKELMANN * np.arange(8), 180) * 2
    for frame in range(4):
        expected = np.round(wanted[2 * frame : 2 * frame + 2]).astype(int) % 360
        assert places(mask[frame]) == sorted(expected.tolist())
    evenly = equal_angles(data, 4, demands=Demands(per_frame=True))
    turn = (math.sqrt(5) - 1) / 2
    for frame in range(4):
        first = frame * turn % 1 * 180  # of two spokes, 90 degrees apart, which repeat after as much
        expected = {round(first) % 360, round(first + 180) % 360}
        assert set(places(evenly[frame])) == expected


def test_random_readouts_are_seeded_and_all_alike():
    data = slices(24)
    assert random_readouts(data, 4, seed=3).equal(random_readouts(data, 4, seed=3))
    drawn = torch.stack([random_readouts(data, 4, seed=seed)[:, 0] for seed in range(600)]).double()
    assert (drawn.sum(dim=1) == 4).all()
    deviation = (drawn.mean(dim=0) - 4 / 24).abs().max()
    assert deviation < 5 * math.sqrt(4 / 24 * 20 / 24 / 600)  # five standard deviations


def test_anisotropic_angles_cut_the_width_of_an_ellipse_into_equal_parts():
    """Its width across a spoke at the angle t is 2 sqrt((p cos t)^2 + (q sin t)^2), with half axes p along the rows' axis and q."""
    y, x = np.mgrid[-48:48, -48:48]
    images = torch.from_numpy(((y / 12) ** 2 + (x / 40) ** 2 <= 1).astype(np.float32))[None, None]
    data = SliceDataset("demo", "train", images, ["a"], [0]).along(spokes(960, 96))
    chosen = np.array(places(anisotropic_angles(data, 8)))
    fine = np.arange(96_000) / 96_000 * np.pi
    total = np.cumsum(np.hypot(12 * np.cos(fine), 40 * np.sin(fine)))
    shares = np.interp(chosen / 960 * np.pi, fine, total / total[-1])
    np.testing.assert_allclose(shares, np.arange(12) / 12, atol=0.006)


def test_of_a_disc_anisotropic_angles_are_equal_ones():
    y, x = np.mgrid[-48:48, -48:48]
    images = torch.from_numpy((y**2 + x**2 <= 40**2).astype(np.float32))[None, None]
    data = SliceDataset("demo", "train", images, ["a"], [0]).along(spokes(96, 96))
    difference = np.array(places(anisotropic_angles(data, 8))) - np.array(places(equal_angles(data, 8)))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", [*ANGLES, "anisotropic_angles", "repulsion"])
@pytest.mark.parametrize("acceleration", [1.0, 2.3, 4.0, 16.0])
@pytest.mark.parametrize("demand", ["none", "require", "forbid", "both"])
def test_budgets_are_exact_and_demands_met(name, acceleration, demand):
    data = slices(20)
    lines = data.choices("spokes")
    required, forbidden = (torch.zeros(20, dtype=torch.bool) for _ in range(2))
    required[7] = forbidden[[0, 5, 13]] = True
    given = {"require": {"require": required}, "forbid": {"forbid": forbidden}, "both": {"require": required, "forbid": forbidden}}
    demands = Demands(**given.get(demand, {}))
    mask = baselines.get(name)(data, acceleration, "spokes", demands=demands, **{"strength": 0.1} if name == "repulsion" else {})
    assert mask.shape == (20, 16) and mask.is_contiguous()
    chosen = places(mask)
    assert len(chosen) == math.floor(16 / acceleration) and demands.feasible(lines, acceleration).admits(lines.select(mask))
    assert "require" not in given.get(demand, {}) or 7 in chosen
    assert "forbid" not in given.get(demand, {}) or not {0, 5, 13} & set(chosen)


@pytest.mark.parametrize("name", ANGLES)
@pytest.mark.parametrize("acceleration", [1.0, 2.7, 8.0])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_budgets_of_series_are_exact(name, acceleration, per_frame, fixed):
    data = series(candidates=12)
    lines = data.choices("spokes")
    required, forbidden = (torch.zeros(5, 12, dtype=torch.bool) for _ in range(2))
    required[2, 3] = forbidden[:, 1] = True
    demands = Demands(per_frame=per_frame, **{"require": required, "forbid": forbidden} if fixed else {})
    mask = baselines.get(name)(data, acceleration, "spokes", seed=1, demands=demands)
    selected = lines.select(mask)
    assert demands.feasible(lines, acceleration).admits(selected)
    each = selected.sum(dim=1)
    assert int(each.sum()) == (5 * math.floor(8 / acceleration) if per_frame else math.floor(40 / acceleration))
    assert each.max() - each.min() <= (0 if per_frame else 1) or name == "random_readouts"


@pytest.mark.parametrize("name", ANGLES)
def test_spirals_turn_by_a_whole_turn(name):
    data = slices(trajectory=spirals(32, 16, arms=8))
    mask = baselines.get(name)(data, 2, "spirals")
    assert len(places(mask)) == 4
    if name == "equal_angles":
        assert places(mask) == [0, 8, 16, 24]
    if name == "golden_angle":
        assert places(mask) == sorted(round(32 * (n * 0.6180339887 % 1)) for n in range(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equal_angles(SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]), 2), "use pattern spokes"),
        (lambda: golden_angle(slices(), 4, "points"), "use pattern spokes"),
        (lambda: equal_angles(replace(slices(), trajectory=Trajectory(spokes(24, 16).points, "spokes", 16)), 4), "random_readouts"),
        (lambda: equal_angles(slices(), 4, start=1.5), "start"),
        (lambda: golden_angle(slices(), 4, order=0), "order"),
        (lambda: anisotropic_angles(slices(), 4, threshold=1.0), "threshold"),
        (lambda: anisotropic_angles(slices(trajectory=spirals(24, 16)), 4, "spirals"), "is for spokes"),
        (lambda: random_readouts(slices(), 4, seed=-(2**70)), "seed"),
        (lambda: random_readouts(slices(6), 1), "takes 16 of 16 spokes, and there are 6 candidates"),
        (lambda: random_readouts(slices(), 40), "must be <= 16, the number of spokes of a full scan"),
        (lambda: random_readouts(slices(), 4, demands=Demands(calibration=4)), "calibration: is of a grid"),
        (lambda: random_readouts(slices(), 4, demands=Demands(per_frame=True)), "per_frame"),
        (lambda: random_readouts(slices(), 8, demands=Demands(require=torch.ones(24, dtype=torch.bool))), "require"),
        (lambda: random_readouts(slices(), 8, demands=Demands(require=torch.ones(9, dtype=torch.bool))), "require"),
        (lambda: baselines.get("gaussian")(slices(), 4, "spokes"), "off the grid"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_kooshball_has_no_single_angle():
    images = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    data = SliceDataset("demo", "train", images, ["a"], [0], kind="volumes").along(kooshball(80, 8))
    with pytest.raises(InputError, match="use random_readouts"):
        equal_angles(data, 4, "kooshball")
    mask = random_readouts(data, 4, "kooshball")
    assert mask.shape == (1, 80, 8) and int(mask[0, :, 0].sum()) == 16 and mask.equal(mask[..., :1].expand_as(mask))


def test_golden_angles_do_not_drift_over_a_long_series():
    """Against the same rule in double precision: the nearest free candidate of each turn."""
    images = torch.rand(1, 1, 64, 8, 8)
    data = SliceDataset("demo", "train", images, ["a"], [0], kind="series").along(replace(spokes(512, 8), full=48))
    mask = golden_angle(data, 2)[..., 0].numpy()
    turns, number = np.arange(512) / 512, 0
    for frame in mask:
        free = np.ones(512, dtype=bool)
        for _ in range(int(frame.sum())):
            apart = np.abs((turns - (number * (np.sqrt(5) - 1) / 2) % 1 + 0.5) % 1 - 0.5) * 512
            free[np.where(free, np.round(apart, 2), np.inf).argmin()] = False
            number += 1
        assert np.array_equal(~free, frame)
