"""Rivals for series: exact budgets by frame, what each is by its definition, and what is refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prom import InputError, SliceDataset, baselines
from prom.baselines.frames import counts, frames
from prom.baselines.in_time import golden_step, shifted_equispaced, vista
from prom.baselines.repeated import repeated
from prom.masks.demands import Demands
from prom.masks.feasible import Feasible
from prom.methods import METHODS

IN_TIME = [(name, pattern) for name, method in METHODS.items() if method.in_time for pattern in method.patterns]
BY_FRAME = [(name, pattern) for name in ("gaussian", "polynomial", "low_pass", "equispaced") for pattern in ("columns", "rows")]
BY_FRAME += [(name, "points") for name in ("gaussian", "polynomial", "low_pass", "poisson_disc")]


def blank(frames: int = 5, height: int = 16, width: int = 14, entries: int = 1) -> SliceDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(entries, 1, frames, height, width, generator=generator)
    return SliceDataset("blank", "train", images, ["a"] * entries, list(range(entries)), kind="series")


def test_greedy_sampling_begins_in_every_frame():
    """A frame without samples has no gradient, and would stay empty."""
    data = blank(entries=3)
    mask = baselines.RIVALS["igs"](data, 3.5, "columns")
    assert mask[:, 0, 7].all() and (mask[:, 0].sum(dim=-1) > 1).all() and int(mask[:, 0].sum()) == 20


@pytest.mark.parametrize(("name", "pattern"), [*IN_TIME, *BY_FRAME])
@settings(max_examples=8, deadline=None)
@given(acceleration=st.floats(1, 14), per_frame=st.booleans(), seed=st.integers(0, 2**62))
def test_the_budget_is_exact_in_all_and_in_every_frame(name, pattern, acceleration, per_frame, seed):
    data = blank()
    lines, apart = data.lines(pattern), not pattern.startswith("still")
    demands = Demands(per_frame=True) if per_frame and apart else Demands()
    mask = baselines.get(name)(data, acceleration, pattern, seed=seed, demands=demands)
    assert mask.shape == data.shape and mask.dtype == torch.bool and mask.is_contiguous()
    selected = lines.select(mask)
    assert demands.feasible(lines, acceleration).admits(selected)
    if apart:
        by_frame = selected.flatten(1).sum(dim=1)
        assert by_frame.max() - by_frame.min() <= (0 if per_frame else 1)
    assert baselines.get(name)(data, acceleration, pattern, seed=seed, demands=demands).equal(mask)


@pytest.mark.parametrize(("name", "pattern"), [*IN_TIME, *BY_FRAME])
def test_demands_are_met(name, pattern):
    data = blank(width=16)
    lines = data.lines(pattern)
    required, forbidden = (torch.zeros(lines.shape, dtype=torch.bool) for _ in range(2))
    required[..., 0] = forbidden[..., 3] = True
    for demands in (Demands(calibration=2, partial_fourier=0.75), Demands(require=required, forbid=forbidden)):
        mask = baselines.get(name)(data, 3, pattern, demands=demands)
        assert demands.feasible(lines, 3).admits(lines.select(mask))


@pytest.mark.parametrize(("name", "pattern"), BY_FRAME)
def test_frames_are_drawn_one_by_one(name, pattern):
    """With seeds of their own, so that frames differ where the seed matters; "still-..." draws once."""
    mask = baselines.get(name)(blank(), 4, pattern, seed=3, demands=Demands(per_frame=True))
    assert (mask == mask[0]).all() == (not METHODS[name].random)
    still = baselines.get(name)(blank(), 4, f"still-{pattern}", seed=3)
    alone = SliceDataset("blank", "train", torch.ones(1, 1, 16, 14), ["a"], [0])
    assert (still == baselines.get(name)(alone, 4, pattern, seed=3)).all()


@pytest.mark.parametrize("shift", [None, 0.25])
def test_equispaced_lines_are_shifted_along_a_lattice(shift):
    data = blank(frames=8, width=32)
    mask = shifted_equispaced(data, 4, centre_share=0, shift=shift)[:, 0].numpy()
    step = 1 if shift else 2  # of R = 4: half of it leaves lines farthest from each other in (k, t)
    assert all(np.array_equal(np.flatnonzero(row) % 4, np.full(8, step * t % 4)) for t, row in enumerate(mask))
    points = shifted_equispaced(data, 4, "points", centre_share=0)
    assert points[:4].sum(dim=0).max() == 1 and points[:4].any(dim=0).all()  # four translations measure everything once


def test_a_centre_is_in_every_frame():
    for mask in (shifted_equispaced(blank(), 3.5, centre_share=0.5), golden_step(blank(), 3.5, centre_share=0.5)):
        assert mask[:, 0, 6:8].all()


def test_golden_steps_are_even_over_any_run_of_frames():
    mask = golden_step(blank(frames=20, width=64), 8)[:, 0].double()
    for start in range(0, 16):
        lines = mask[start : start + 4].sum(dim=0).reshape(8, 8).sum(dim=1)  # 32 lines in eighths of k-space
        assert lines.min() >= 3 and lines.max() <= 5
    dense = golden_step(blank(frames=20, width=64), 8, power=2)[:, 0].double()
    assert dense[:, 24:40].sum() > 2 * mask[:, 24:40].sum()


def energy(mask: torch.Tensor, width: float, peak: float, time: float) -> float:
    t, k = np.nonzero(mask[:, 0].numpy())
    size = mask.shape[-1]
    charge = 1 - peak * np.exp(-(((k - size // 2) / (width * size)) ** 2) / 2)
    distance = (k[:, None] - k) ** 2 + (time * (t[:, None] - t)) ** 2
    pairs = np.triu_indices(len(k), 1)
    return float((charge[:, None] * charge)[pairs] @ (1 / distance[pairs]))


def test_no_line_of_vista_can_move_to_less_energy():
    data, chosen = blank(frames=4, width=14), {"width": 0.2, "peak": 0.7, "time": 1.5}
    mask = vista(data, 3.5, seed=2, **chosen)
    least = energy(mask, **chosen)
    drawn = baselines.gaussian(data, 3.5, "columns", seed=2, sigma=5)
    assert least < energy(drawn, **chosen)
    for t, line in mask[:, 0].nonzero().tolist():
        for other in (~mask[t, 0]).nonzero().flatten().tolist():
            moved = mask.clone()
            moved[t, :, line], moved[t, :, other] = False, True
            assert energy(moved, **chosen) >= least - 1e-12


def test_one_mask_is_repeated():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 3, 12, 12, dtype=torch.complex64, generator=generator)
    data = SliceDataset("noise", "train", images, ["a", "b"], [0, 0], noise=0.1, kind="series")
    mask = repeated(data, 4, "still-points")
    assert (mask == baselines.energy(frames(data), 4)).all()  # one coil
    assert frames(data).images[1].equal(images[0, :, 1]) and frames(data, [2]).images[1].equal(images[1, :, 2])


@settings(max_examples=50)
@given(data=st.data(), number=st.integers(1, 6), size=st.integers(1, 6))
def test_counts_are_as_even_as_they_can_be(data, number, size):
    state = data.draw(st.lists(st.integers(-1, 1), min_size=number * size, max_size=number * size))
    state = torch.tensor(state).reshape(number, size)
    total = data.draw(st.integers(int((state == 1).sum()), int((state >= 0).sum())))
    found = torch.tensor(counts(Feasible((number, size), total, mandatory=state == 1, forbidden=state == -1)))
    least, most = (state == 1).sum(dim=1), (state >= 0).sum(dim=1)
    assert int(found.sum()) == total and (found >= least).all() and (found <= most).all()
    full = max((one for one, fewest in zip(found.tolist(), least.tolist(), strict=True) if one > fewest), default=0)
    empty = min((one for one, room in zip(found.tolist(), most.tolist(), strict=True) if one < room), default=99)
    assert full - empty <= 1  # nothing moved from one frame to another would make them more alike


def test_what_does_not_fit_is_refused():
    slices = SliceDataset("demo", "train", torch.ones(1, 1, 8, 8), ["a"], [0])
    for name, pattern in IN_TIME:
        with pytest.raises(InputError, match=f"{name}: is for series in time, and demo has slices"):
            baselines.get(name)(slices, 4, pattern.removeprefix("still-"))
    for name in ("lattice", "best_candidate", "a_optimal"):
        with pytest.raises(InputError, match="would measure the same points in every frame; use pattern still-points"):
            baselines.get(name)(blank(), 4, "points")
    for name in ("golden_step", "vista"):
        with pytest.raises(InputError, match="makes lines"):
            baselines.get(name)(blank(), 4, "points")
        with pytest.raises(InputError, match="moves from frame to frame; use pattern columns"):
            baselines.get(name)(blank(), 4, "still-columns")
    with pytest.raises(InputError, match="use pattern still-columns"):
        repeated(blank(), 4, "columns")
    wrong = [partial(vista, width=0), partial(vista, peak=1), partial(vista, time=0), partial(golden_step, power=-1)]
    wrong += [partial(shifted_equispaced, shift=2), partial(shifted_equispaced, centre_share=2), partial(golden_step, centre_share=-1)]
    for make in wrong:
        with pytest.raises(InputError, match="must be"):
            make(blank(), 4)


@pytest.mark.parametrize(("width", "acceleration"), [(168, 7), (168, 14), (120, 15), (240, 15)])
def test_lines_of_a_lattice_with_a_whole_spacing_are_equally_spaced_in_every_frame(width, acceleration):
    mask = shifted_equispaced(blank(8, 1, width), acceleration, centre_share=0)[:, 0]
    assert {int(step) for frame in mask for step in frame.nonzero().flatten().diff()} == {acceleration}


def test_equispaced_lines_without_a_budget_may_be_fewer_than_frames():
    mask = baselines.equispaced(blank(6, 2, 8), 12, exact_budget=False, centre_fraction=0)[:, 0]
    assert mask.sum(dim=1).max() == 1 and 3 <= int(mask.sum()) <= 5


@pytest.mark.parametrize(("width", "acceleration", "number"), [(64, 12, 6), (96, 13, 8), (32, 6, 6)])
def test_equispaced_lines_without_a_budget_are_as_far_apart_as_of_a_slice(width, acceleration, number):
    mask = baselines.equispaced(blank(number, 2, width), acceleration, exact_budget=False, centre_fraction=0)[:, 0]
    assert {int(step) for frame in mask for step in frame.nonzero().flatten().diff()} == {acceleration}
