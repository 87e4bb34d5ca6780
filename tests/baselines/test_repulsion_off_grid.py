"""Overlaps of readouts against the grid's and dense sums; the greedy choice against brute force over all choices."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from prom import InputError, SliceDataset, baselines
from prom.baselines.repulsion import reach
from prom.baselines.repulsion_off_grid import Knowledge, greedy, overlaps, repulsion_off_grid
from prom.kspace.coils import simulated
from prom.kspace.fourier import fftc, offsets
from prom.kspace.patterns import Lines
from prom.kspace.trajectories import Trajectory, spirals, spokes
from prom.masks.demands import Demands
from prom.masks.feasible import Feasible
from prom.reconstruction.sense import Sense, spectrum

SIZE = 8


def data(trajectory: Trajectory | None = None, size: int = SIZE, coils: int = 3, own: bool = False) -> SliceDataset:
    """Two smooth images and their coils, along a trajectory or on the grid."""
    window = torch.hann_window(size, periodic=False).outer(torch.hann_window(size, periodic=False))
    ramp = torch.linspace(0.5, 1, size)
    maps = simulated(coils, (size, size))
    images = torch.stack([window * ramp, window * ramp[:, None]])[:, None] + 0j
    maps = torch.stack([maps, maps.flip(-1)]) if own else maps
    found = SliceDataset("demo", "train", images, ["a", "b"], [0, 0], sensitivities=maps, noise=0.02)
    return found.along(trajectory) if trajectory else found


def tiny(candidates: int = 10, count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Feasible]:
    """Overlaps and powers drawn at random, of so few candidates that all choices can be tried."""
    generator = torch.Generator().manual_seed(seed)
    overlap = torch.rand(candidates, 5, 5, generator=generator) ** 4
    return overlap, torch.rand(5, 5, generator=generator) ** 3, Feasible((candidates,), count)


def left(overlap: torch.Tensor, power: torch.Tensor, strength: float, chosen: list[int] | tuple[int, ...]) -> float:
    """J by its formula, in double precision."""
    known = overlap[list(chosen)].double().sum(dim=0)
    return float((power.double() / (1 + strength * known * power.double())).sum())


@pytest.mark.parametrize("size", [8, 7])
def test_overlaps_of_rows_of_the_grid_are_its_reach_along_them(size):
    rows = Trajectory(offsets((size, size)).float(), "readouts", size)
    found = overlaps(data(rows, size))
    maps = data(size=size).sensitivities
    distance = reach(maps, Lines((size, size)))
    for y in range(size):
        expected = torch.zeros(size, size, dtype=torch.float64)
        for x in range(size):  # each sample of the row reaches as far, periodically
            expected += distance.roll((y - size // 2, x - size // 2), (0, 1))
        torch.testing.assert_close(found[y].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("trajectory", "own"), [(spokes(5, SIZE), False), (spirals(4, SIZE, arms=4), False), (spokes(3, SIZE), True)])
def test_overlaps_are_the_squared_correlations_of_what_is_measured(trajectory, own):
    """K(k - j) is sum_{c,d} |<wave k through coil c, wave j through coil d>|^2, divided by that of k = j: no Fourier transform in it."""
    train = data(trajectory, own=own)
    pixels = offsets((SIZE, SIZE)).double().reshape(-1, 2)
    points, grid = trajectory.points.double().reshape(-1, 2), offsets((SIZE, SIZE)).double().reshape(-1, 2)
    one, two = (torch.exp(2j * math.pi * (k @ pixels.T) / SIZE) for k in (points, grid))
    total, at_zero = 0, 0
    for maps in train.maps(range(len(train)) if own else [0]):
        flat = maps.flatten(1).to(torch.complex128)
        for c in flat:
            for d in flat:
                total = total + ((one * c) @ (two * d).mH).abs().square()
                at_zero = at_zero + torch.vdot(d, c).abs().square()
    expected = (total / at_zero).reshape(len(trajectory), -1, SIZE, SIZE).sum(dim=1)
    torch.testing.assert_close(overlaps(train).double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_greedy_is_within_its_guarantee_of_the_best_of_all_choices(seed, strength):
    """What J falls by is a concave function of sums of overlaps >= 0 for each frequency, so it is monotone and submodular, and greedy
    gets at least 1 - 1/e of the most (Nemhauser, Wolsey and Fisher 1978); exchanges only add to that, and leave no better exchange."""
    overlap, power, feasible = tiny(seed=seed)
    nothing = left(overlap, power, strength, ())
    values = {chosen: left(overlap, power, strength, chosen) for chosen in combinations(range(10), 4)}
    best = min(values.values())
    first, without = greedy(overlap, power, strength, feasible, passes=0)
    last, after = greedy(overlap, power, strength, feasible, passes=50)
    for taken, objective in ((first, without), (last, after)):
        chosen = tuple(taken.nonzero().flatten().tolist())
        assert objective == pytest.approx(values[chosen], rel=1e-5)
        assert nothing - objective >= (1 - 1 / math.e) * (nothing - best) and objective >= best * (1 - 1e-6)
    assert after <= without * (1 + 1e-6)
    chosen = set(last.nonzero().flatten().tolist())
    exchanges = [values[tuple(sorted(chosen - {old} | {new}))] for old in chosen for new in set(range(10)) - chosen]
    assert min(exchanges) >= after * (1 - 1e-5)


def test_each_step_is_the_best_one():
    overlap, power, _ = tiny()
    chosen: list[int] = []
    for count in range(1, 8):
        taken, _ = greedy(overlap, power, 3.0, Feasible((10,), count))
        chosen.append(min(set(range(10)) - set(chosen), key=lambda one: left(overlap, power, 3.0, [*chosen, one])))
        assert taken.nonzero().flatten().tolist() == sorted(chosen)


def test_passes_never_raise_what_is_left():
    overlaps_found, power = overlaps(data(spokes(20, SIZE))), spectrum(data())
    found = [greedy(overlaps_found, power, 100.0, Feasible((20,), 6), passes)[1] for passes in range(5)]
    assert all(after <= before * (1 + 1e-6) for before, after in zip(found, found[1:], strict=False))


def test_what_is_mandatory_stays_and_what_is_forbidden_stays_out():
    overlap, power, _ = tiny()
    mandatory, forbidden = (torch.zeros(10, dtype=torch.bool) for _ in range(2))
    mandatory[[2, 9]] = forbidden[[0, 4]] = True
    taken, objective = greedy(overlap, power, 3.0, Feasible((10,), 4, mandatory, forbidden), passes=20)
    assert taken[mandatory].all() and not taken[forbidden].any() and int(taken.sum()) == 4
    allowed = [{2, 9, *rest} for rest in combinations(set(range(10)) - {0, 2, 4, 9}, 2)]
    best = min(left(overlap, power, 3.0, sorted(chosen)) for chosen in allowed)
    start = left(overlap, power, 3.0, [2, 9])
    assert best * (1 - 1e-6) <= objective and start - objective >= (1 - 1 / math.e) * (start - best)


def test_it_is_found_by_the_name_of_the_grids_and_chooses_its_strength():
    train = data(spokes(16, SIZE))
    for given in ({}, {"strength": 0.1}):
        mask = baselines.get("repulsion")(train, 2, "spokes", **given)
        assert mask.equal(repulsion_off_grid(train, 2, **given)) and mask.shape == (16, SIZE) and int(mask[:, 0].sum()) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: repulsion_off_grid(data(spokes(16, SIZE)), 2, exact=True), "is for series on a grid"),
        (lambda: repulsion_off_grid(data(spokes(16, SIZE)), 2, passes=-1), "passes"),
        (lambda: repulsion_off_grid(data(spokes(16, SIZE)), 2, "spirals"), "use pattern spokes"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def series(frames: int = 3) -> SliceDataset:
    images = torch.rand(2, 1, frames, 8, 8, generator=torch.Generator().manual_seed(0))
    return SliceDataset("demo", "train", images, ["a", "b"], [0, 0], kind="series", noise=0.1).along(spokes(12, 8))


def dense(overlap: torch.Tensor, power: torch.Tensor, strength: float, chosen: torch.Tensor) -> float:
    """J of a series by its formula: the covariance over time has the power of each temporal frequency as its eigenvalues."""
    frames = len(power)
    transform = fftc(torch.eye(frames, dtype=torch.complex128), (0,))
    total = 0.0
    for j in range(overlap.flatten(1).shape[1]):
        covariance = transform.mH @ torch.diag(power.flatten(1)[:, j].double() + 0j) @ transform
        known = torch.diag(strength * chosen.double() @ overlap.flatten(1)[:, j].double() + 0j)
        total += float(torch.linalg.inv(torch.linalg.inv(covariance) + known).diagonal().real.sum())
    return total


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_knowledge_of_series_is_its_dense_formula(frames):
    generator = torch.Generator().manual_seed(0)
    overlap, power = torch.rand(6, 3, 4, generator=generator), torch.rand(frames, 3, 4, generator=generator) + 0.1
    chosen, known = torch.zeros(frames, 6), Knowledge(overlap, power, 2.0)
    for frame, place in ((0, 2), (frames - 1, 5), (0, 1)):
        gain, before = known.gains(frame)[place], known.error()
        known.take(frame, place)
        chosen[frame, place] = 1
        assert known.error() == pytest.approx(dense(overlap, power, 2.0, chosen), rel=1e-5)
        assert before - known.error() == pytest.approx(float(gain), rel=1e-5)
    known.take(0, 2, back=True)
    chosen[0, 2] = 0
    assert known.error() == pytest.approx(dense(overlap, power, 2.0, chosen), rel=1e-5)


def test_of_series_each_step_and_each_exchange_is_the_best_one():
    """The trace is not submodular in time, so that there is no guarantee; no single exchange lowers what is found."""
    generator = torch.Generator().manual_seed(1)
    overlap, power = torch.rand(4, 3, 3, generator=generator) ** 3, torch.rand(2, 3, 3, generator=generator) + 0.05
    places = [(frame, place) for frame in range(2) for place in range(4)]

    def value(chosen: list[tuple[int, int]]) -> float:
        mask = torch.zeros(2, 4)
        for one in chosen:
            mask[one] = 1
        return dense(overlap, power, 5.0, mask)

    chosen: list[tuple[int, int]] = []
    for count in range(1, 4):
        chosen.append(min((one for one in places if one not in chosen), key=lambda one: value([*chosen, one])))
        taken, objective = greedy(overlap, power, 5.0, Feasible((2, 4), count))
        assert sorted(map(tuple, taken.nonzero().tolist())) == sorted(chosen) and objective == pytest.approx(value(chosen), rel=1e-5)
    last, after = greedy(overlap, power, 5.0, Feasible((2, 4), 3), passes=20)
    found = list(map(tuple, last.nonzero().tolist()))
    exchanges = [value([*(one for one in found if one != old), new]) for old in found for new in places if new not in found]
    assert min(exchanges) >= after * (1 - 1e-5) and after <= objective * (1 + 1e-6)


def test_budgets_of_series_are_exact():
    train = series()
    for demands in (Demands(), Demands(per_frame=True)):
        mask = repulsion_off_grid(train, 4, strength=0.1, demands=demands)
        assert mask.shape == (3, 12, 8) and demands.feasible(train.choices("spokes"), 4).admits(mask[..., 0])
        assert int(mask[..., 0].sum()) == 6


def test_it_needs_the_noise():
    images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="its noise is not known"):
        repulsion_off_grid(SliceDataset("demo", "train", images, ["a"], [0]).along(spokes(12, 8)), 2)


def test_without_any_strength_no_candidate_is_better_than_another():
    with pytest.raises(InputError, match="strength 0: must be above 0 off the grid"):
        baselines.get("repulsion")(data(spokes(16, SIZE)), 4, "spokes", strength=0.0)


def test_strengths_are_above_0_and_data_off_the_grid():
    data = SliceDataset("demo", "train", torch.ones(1, 1, 16, 16) + 0j, ["a"], [0], noise=0.01)
    with pytest.raises(InputError, match="repulsion: is for readouts off the grid, and demo is on it"):
        repulsion_off_grid(data, 4, "points")
    for strength in (-1.0, 0.0):
        with pytest.raises(InputError, match="strength .*: must be > 0"):
            repulsion_off_grid(data.along(spokes(12, size=16)), 4, strength=strength)
    without = SliceDataset("demo", "train", data.images, ["a"], [0], sensitivities=simulated(2, (16, 16)), noise=0.0)
    with pytest.raises(InputError, match="demo: its noise is 0, not above 0, which the images are weighed against"):
        baselines.get("repulsion")(without, 4)
    with pytest.raises(InputError, match="demo: its noise is 0, not above 0, which SENSE needs"):
        Sense.of(without)
