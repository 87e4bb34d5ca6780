"""The closed form in k and t against dense matrices, against today's rule for one frame, and against what must leave it as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import prom
from prom import InputError, SliceDataset
from prom.baselines.repulsion import greedy, repulsion
from prom.baselines.repulsion_in_time import Knowledge, greedy_in_time
from prom.masks.demands import Demands
from prom.masks.feasible import Feasible

T, H, W = 4, 5, 4


def series(frames: int = 6, size: int = 12, coils: int = 4, noise: float = 0.05, entries: int = 2) -> SliceDataset:
    """Discs that grow and shrink, seen by coils."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, size),) * 2, indexing="ij")
    phases, texture = 2 * torch.pi * torch.arange(frames) / frames, torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    images = torch.stack(
        [
            torch.stack([texture * ((y - 0.2) ** 2 + 2 * x**2 < 0.4 + 0.1 * entry + 0.2 * phase.cos()) for phase in phases])
            for entry in range(entries)
        ]
    )
    data = SliceDataset("discs", "train", images[:, None] + 0j, [str(n) for n in range(entries)], [0] * entries, noise=noise, kind="series")
    return data.with_coils(prom.kspace.coils.simulated(coils, (size, size)), noise) if coils > 1 else data


def random_power(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape) ** 4 + 0.01


def waves(frames: int) -> np.ndarray:
    """The orthonormal transform over time, centred in frequency and, as in the core, in time."""
    t = np.arange(frames) - frames // 2
    return np.exp(-2j * np.pi * np.outer(t, t) / frames) / np.sqrt(frames)


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_what_is_left_is_the_inverse_of_the_dense_matrix(frames):
    """Of coils too: K tells of every frequency within its reach as a measurement would."""
    power, kernel = random_power(frames, 1, 7, 2), np.array([[0.1, 0.0, 0.3, 1.0, 0.2, 0.1, 0.0]])
    known = Knowledge(power, kernel, 2.5, (0, 3))
    places = [(0, 2), (frames - 1, 2), (frames // 2, 5), (0, 6)]
    for frame, column in places:
        known.take(frame, 0, column)
    transform = waves(frames)
    for column in range(7):
        weight = np.zeros(frames)
        for frame, taken in places:
            weight[frame] += 2.5 * kernel[0, (column - taken + 3) % 7]
        for sample in range(2):
            covariance = transform.conj().T @ np.diag(power[:, 0, column, sample]) @ transform
            left = np.linalg.inv(np.linalg.inv(covariance) + np.diag(weight))
            ours = known.real[0, column, sample] + 1j * known.imaginary[0, column, sample]
            assert np.allclose(ours, left, atol=1e-12)
            assert np.allclose(known.variance[0, column, sample], np.diag(left).real)
            assert np.allclose(known.unknown[0, column, sample], (abs(left) ** 2).sum(axis=0))
    gains = np.array(
        [[sum(kernel[0, (j - k + 3) % 7] * known.unknown[0, j, :, t].sum() for j in range(7)) for t in range(frames)] for k in range(7)]
    )
    assert np.allclose(known.gain[0], gains)


@pytest.mark.parametrize("exact", [False, True])
def test_for_one_coil_it_is_greedy_a_optimal_design(exact):
    """Of all T H W values at once, as one dense matrix: the gain is the derivative of the trace, or by how much it falls in fact."""
    power, noise = random_power(T, H, W), 0.3
    kernel = np.zeros((H, W))
    kernel[H // 2, W // 2] = 1
    taken = greedy_in_time(power[..., None], kernel, 1 / noise, Feasible((T, H, W), 11), exact, passes=0)[0]
    transform = np.kron(waves(T), np.eye(H * W))  # z = F_t x, with x the k-spaces of the frames
    covariance = transform.conj().T @ np.diag(power.ravel()) @ transform
    chosen = []
    for _ in range(11):
        left = np.linalg.inv(np.linalg.inv(covariance) + np.diag(np.bincount(chosen, minlength=T * H * W)) / noise)
        gain = (abs(left) ** 2).sum(axis=0) / (noise + np.diag(left).real if exact else 1)
        gain[chosen] = -np.inf
        best = np.flatnonzero(gain > gain.max() * (1 - 1e-9))  # frames are alike at first
        chosen.append(next(place for place in best if place in np.flatnonzero(taken)))
    assert sorted(chosen) == np.flatnonzero(taken).tolist()


@pytest.mark.parametrize("shape", [(15, 14, 1), (1, 19, 4)])
@pytest.mark.parametrize("strength", [0.0, 0.4, 30.0])
def test_for_one_frame_it_is_the_rule_of_slices(shape, strength):
    power, kernel = random_power(*shape), np.random.default_rng(1).random(shape[:2]) * 0.3
    kernel[shape[0] // 2, shape[1] // 2] = 1
    count = shape[0] * shape[1] // 4
    ours = greedy_in_time(power[None], kernel, strength, Feasible((1, *shape[:2]), count), passes=0)[0]
    assert np.array_equal(ours[0], greedy(power, kernel, strength, count)) and ours.sum() == count


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_a_series_of_one_frame_has_the_mask_of_a_slice(pattern):
    one = series(frames=1, size=20)
    frame = replace(one, images=one.images[:, :, 0], kspace=one.kspace[:, :, 0], kind="slices")
    mask = repulsion(one, 3, pattern, strength=0.2)
    assert mask.shape == (1, 20, 20) and mask[0].equal(repulsion(frame, 3, pattern, strength=0.2))
    assert repulsion(one, 3, f"still-{pattern}", strength=0.2).equal(mask)


@pytest.mark.parametrize("pattern", ["still-points", "still-columns", "still-rows"])
def test_the_same_mask_in_all_frames_is_chosen_by_all_temporal_frequencies(pattern):
    """One even coil: the S largest sums over f of P^2 / (1 + mu P / sigma^2)^0, which no mask changes before it has them."""
    data = series(coils=1)
    mask = repulsion(data, 3, pattern)
    assert mask[0].expand_as(mask).equal(mask)
    lines = data.lines(pattern)
    gain = lines.adjoint(prom.reconstruction.sense.spectrum(data).square())
    selected = lines.select(mask)
    assert int(selected.sum()) == lines.size // 3 and gain[selected].min() >= gain[~selected].max() * (1 - 1e-9)


@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
def test_budgets_are_exact_in_all_and_by_frame(pattern):
    data = series()
    lines = data.lines(pattern)
    whole = lines.select(repulsion(data, 3.7, pattern, strength=0.1))
    assert int(whole.sum()) == int(lines.size / 3.7)
    each = lines.select(repulsion(data, 3.7, pattern, strength=0.1, demands=Demands(per_frame=True)))
    assert each.flatten(1).sum(dim=1).tolist() == [int(lines.frame.size / 3.7)] * 6


def test_demands_are_met():
    data, generator = series(), torch.Generator().manual_seed(0)
    forbidden = torch.rand(data.shape, generator=generator) < 0.2
    required = (torch.rand(data.shape, generator=generator) < 0.05) & ~forbidden
    for demands in (Demands(require=required, forbid=forbidden), Demands(calibration=4, shutter=True, per_frame=True)):
        mask = repulsion(data, 4, "points", strength=0.1, demands=demands)
        assert demands.feasible(data.lines("points"), 4).admits(mask)
    gap = Demands(max_gap=4)
    assert gap.feasible(data.lines("still-columns"), 3).admits(
        data.lines("still-columns").select(repulsion(data, 3, "still-columns", strength=0.1, demands=gap))
    )


def test_neither_units_nor_the_start_of_the_cycle_matter():
    data = series()
    mask = repulsion(data, 4, "points", strength=0.1)
    assert repulsion(data, 4, "points", strength=0.1).equal(mask) and repulsion(data.scaled(8.0), 4, "points", strength=0.1).equal(mask)
    power, kernel = random_power(6, 1, 9, 1), np.array([[0, 0, 0.1, 0.3, 1, 0.3, 0.1, 0, 0.0]])

    def error(taken: np.ndarray) -> float:
        known = Knowledge(power, kernel, 3.0, (0, 4))
        for frame, column in np.argwhere(taken):
            known.take(frame, 0, column)
        return known.error()

    taken, _ = greedy_in_time(power, kernel, 3.0, Feasible((6, 9), 12))
    assert error(np.roll(taken, 2, axis=0)) == pytest.approx(error(taken), rel=1e-12)
    assert error(taken) < error(np.roll(taken, 2, axis=1)) < error(np.zeros_like(taken))


def test_frames_share_what_changes_slowly():
    """Where nothing moves, one sample tells of all frames, and no place is measured twice before all that matter are; where all frames
    are independent, each gets the same samples."""
    still, moving = np.full((5, 1, 10, 1), 1e-9), np.ones((5, 1, 10, 1))
    still[2] = 1
    fall = np.linspace(1, 0.9, 10)[:, None]
    kernel = np.zeros((1, 10))
    kernel[0, 5] = 1
    assert greedy_in_time(still * fall, kernel, 100.0, Feasible((5, 10), 10))[0].sum(axis=0).tolist() == [1] * 10
    assert greedy_in_time(moving * fall, kernel, 100.0, Feasible((5, 10), 10))[0].sum(axis=0).tolist() == [5, 5] + [0] * 8


def test_the_exact_gain_is_for_frames_with_masks_of_their_own():
    data = series()
    greedy_masks = [repulsion(data, 4, "columns", strength=0.1, exact=exact, passes=0) for exact in (True, False)]
    assert not greedy_masks[0].equal(greedy_masks[1])
    with pytest.raises(InputError, match="exact True: is for series with a mask for each frame"):
        repulsion(data, 4, "still-columns", strength=0.1, exact=True)
    with pytest.raises(InputError, match="passes 2: is for series with a mask for each frame"):
        repulsion(data, 4, "still-columns", strength=0.1, passes=2)


def test_it_needs_the_noise():
    with pytest.raises(InputError, match="noise is not known"):
        repulsion(replace(series(coils=1), noise=None), 4)


def test_an_exchange_forgets_what_was_taken_out_and_never_does_harm():
    """After it V is that of the mask it leaves, as if nothing else had ever been measured; and no single exchange would help."""
    power, kernel = random_power(5, 1, 9, 2), np.array([[0, 0, 0.1, 0.3, 1, 0.3, 0.1, 0, 0.0]])
    shape, strength = (5, 1, 9), 40.0
    groups = np.repeat(np.arange(5), 9).reshape(shape)
    feasible = Feasible((5, 9), 2, groups=torch.from_numpy(groups.reshape(5, 9)))

    def error(taken: np.ndarray) -> float:
        known = Knowledge(power, kernel, strength, (0, 4))
        for place in np.argwhere(taken.reshape(shape)):
            known.take(*place)
        return known.error()

    greedy_mask, before = greedy_in_time(power, kernel, strength, feasible, passes=0)
    taken, after = greedy_in_time(power, kernel, strength, feasible, exact=True, passes=50)
    assert taken.sum(axis=1).tolist() == [2] * 5
    assert error(greedy_mask) == pytest.approx(before) and error(taken) == pytest.approx(after)
    again, kept = greedy_in_time(power, kernel, strength, feasible, exact=True, start=taken, passes=50)
    assert np.array_equal(again, taken) and kept == pytest.approx(after)
    worst = taken.copy()
    worst[:] = False
    worst[:, :2] = True
    assert greedy_in_time(power, kernel, strength, feasible, exact=True, start=worst, passes=50)[1] <= error(worst)
    for frame, line in np.argwhere(taken):
        for other in np.flatnonzero(~taken[frame]):
            changed = taken.copy()
            changed[frame, line], changed[frame, other] = False, True
            assert error(changed) >= after * (1 - 1e-6)
