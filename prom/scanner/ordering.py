"""In which order the lines or points of a mask are measured: every one exactly once."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from prom.engine.kernels import exactly
from prom.errors import InputError, unknown
from prom.options import check

ROUNDS = 100  # of 2-opt over all points at most; it is done after 5 to 20
NEIGHBOURS = 10  # of each point, to which 2-opt tries new edges
GOLDEN = (math.sqrt(5) - 1) / 2
GAIN = 1e-9  # by which a path must become shorter for a change to count: rounding is no gain


def order(selected: Tensor, name: str = "linear", first: Tensor | None = None, shots: int = 1) -> Tensor:
    """The indices of what is measured, one row a line or point, in the order of measurement.

    - ``linear``: by increasing index; of points, one column after the other.
    - ``centric``: from DC outwards, 0, -1, 1, -2, ...; of points, one column after the other, both from DC outwards.
    - ``radial``: by the distance from DC in grid steps, and at equal distance by the angle.
    - ``interleaved``: in shots: line 0, ``shots``, 2 ``shots``, ... of those measured, then 1, 1 + ``shots``, ...
    - ``golden``: in equal steps of about the golden ratio of all, in the linear order, so that any stretch of time has lines from
      everywhere; of 4 and of 6, of which no such steps meet every line, in the order of the multiples' remainders.
    - ``shortest``: with small jumps between successive points, so of gradients, and never longer than ``linear``: the nearest neighbour
      each time, and then 2-opt (Croes 1958, https://doi.org/10.1287/opre.6.6.791), which reverses parts of the path while that shortens
      it.

    Parameters
    ----------
    selected
        ``(n,)`` bool for lines, ``(H, W)`` bool for points; DC is at ``n // 2``.
    name
        One of the above.
    first
        bool of this shape, or None: what is measured before all else, such as calibration lines, in the same order within itself.
    shots
        Of ``interleaved``: how many.

    Returns
    -------
    Tensor
        ``(S, axes)`` int64.

    Raises
    ------
    InputError
        Where the name is not known, nothing is selected, what comes first is not selected, or there are fewer lines than shots.

    >>> lines = torch.tensor([True, False, True, True, True])
    >>> [order(lines, name).flatten().tolist() for name in ("linear", "centric", "shortest")]
    [[0, 2, 3, 4], [2, 3, 0, 4], [0, 2, 3, 4]]
    >>> order(lines, "interleaved", shots=2).flatten().tolist(), order(lines, first=lines & torch.tensor([0, 0, 0, 1, 0]).bool())[0].item()
    ([0, 3, 2, 4], 3)
    """
    if name not in ORDERS:
        raise unknown("order", name, ORDERS)
    if not bool(selected.any()):
        raise InputError("mask: measures nothing, so there is no order; use one that has samples")
    shots = check("shots", shots, "[1, 1e6]", whole=True)
    first = torch.zeros_like(selected) if first is None else first
    if bool((first & ~selected).any()):
        raise InputError(f"{int((first & ~selected).sum())} of {int(first.sum())} samples that come first: are not in the mask")
    if name == "interleaved" and shots > int(selected.sum()):
        raise InputError(f"shots {shots}: only {int(selected.sum())} lines are measured; use at most so many")
    parts = []
    for part in (first, selected & ~first):
        places = part.nonzero()
        if len(places):
            dealt = ORDERS[name](places.numpy(), np.array(selected.shape) // 2, min(shots, len(places)))
            parts.append(places[torch.from_numpy(dealt)])
    return torch.cat(parts)


def _linear(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    return np.lexsort(places.T)  # the last axis is the slowest, as partitions are


def _centric(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    offsets = places - centre
    return np.lexsort((2 * abs(offsets) + (offsets > 0)).T)  # 0, -1, 1, -2, ...


def _radial(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    offsets = places - centre
    angle = np.arctan2(offsets[:, -1], offsets[:, 0] if offsets.shape[1] > 1 else 0)
    return np.lexsort((angle, (offsets**2).sum(axis=1)))  # whole numbers, so that equal distances are equal


def _interleaved(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    linear = _linear(places, centre, shots)
    return np.concatenate([linear[shot::shots] for shot in range(shots)])


def _golden(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    linear = _linear(places, centre, shots)
    count = len(linear)
    coprime = [step for step in range(1, count + 1) if math.gcd(step, count) == 1]  # only these meet every line once
    step = min(coprime, key=lambda step: abs(step - GOLDEN * count))
    if step == count - 1 and count > 3:  # of 4 and of 6 no other is coprime
        return linear[np.argsort(np.argsort(np.arange(count) * GOLDEN % 1))]
    return linear[np.arange(count) * step % count]


def _shortest(places: np.ndarray, centre: np.ndarray, shots: int) -> np.ndarray:
    linear = _linear(places, centre, shots)
    if places.shape[1] == 1 or len(places) < 3:
        return linear  # nothing is shorter
    points = places.astype(float)
    near = cKDTree(points).query(points, min(NEIGHBOURS + 1, len(points)))[1][:, 1:]
    starts = (_nearest(points, linear[0]), linear.copy())  # from the second, the result is never longer than linear
    paths = [_shortened(points, near, start) for start in starts]
    return min(paths, key=lambda path: length(torch.from_numpy(points[path])))


@exactly
def _distance(points, one, two):
    """Between two points, by their numbers."""
    return math.sqrt((points[one, 0] - points[two, 0]) ** 2 + (points[one, 1] - points[two, 1]) ** 2)


@exactly
def _nearest(points, first):
    """A path that goes to the nearest point that is left, each time."""
    left = np.arange(len(points))
    path = np.empty(len(points), np.int64)
    path[0] = first
    count, left[first] = len(points) - 1, left[-1]
    for step in range(1, len(points)):
        best, at = np.inf, 0
        for place in range(count):
            distance = _distance(points, left[place], path[step - 1])
            if distance < best or (distance == best and left[place] < left[at]):
                best, at = distance, place
        path[step] = left[at]
        count -= 1
        left[at] = left[count]
    return path


@exactly
def _shortened(points, near, path):
    """The path after 2-opt: two edges a-b and c-d become a-c and b-d, c among the nearest to a, while that shortens it. In place."""
    size = len(path)
    at = np.empty(size, np.int64)
    at[path] = np.arange(size)
    for _ in range(ROUNDS):
        better = False
        for a in range(size):
            for side in (1, -1):  # the edge after a, and the one before it; beyond the ends of the path there is none
                i = at[a]
                if not 0 <= i + side < size:
                    continue
                b = path[i + side]
                old = _distance(points, a, b)
                for c in near[a]:
                    gain = old - _distance(points, a, c)
                    if gain <= 0:
                        break  # the next are farther away
                    j = at[c]
                    if 0 <= j + side < size:
                        d = path[j + side]
                        gain += _distance(points, c, d) - _distance(points, b, d)
                    if gain > GAIN:
                        low, high = (min(i, j) + 1, max(i, j)) if side == 1 else (min(i, j), max(i, j) - 1)
                        path[low : high + 1] = path[low : high + 1][::-1].copy()
                        at[path[low : high + 1]] = np.arange(low, high + 1)
                        better = True
                        break
        if not better:
            break
    return path


def length(places: Tensor) -> float:
    """The sum of the distances between successive places, ``(S, axes)``, in grid steps: what the phase-encoding gradients jump.

    >>> length(torch.tensor([[0, 0], [3, 4], [3, 5]]))
    6.0
    """
    return float(places.diff(dim=0).double().norm(dim=1).sum())


ORDERS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "linear": _linear,
    "centric": _centric,
    "radial": _radial,
    "interleaved": _interleaved,
    "golden": _golden,
    "shortest": _shortest,
}


def trains(selected: Tensor, length: int, centre: int) -> Tensor:
    """The lines of each echo train of a turbo spin echo: every shot takes one line of each band.

    The L measured lines, in increasing order, are cut into ``length`` bands of L / ``length`` neighbours. The band with DC (or the line
    nearest to it) is measured at echo number ``centre``, which so decides the effective echo time, the next band at the next echo, and
    beyond the last echo they go on with the first. Where ``centre`` is the first or the last echo, that would put both side by side
    next to DC, and much of the contrast would be that of the other: there the bands are those of growing distance from DC, the nearest at
    ``centre``.

    Parameters
    ----------
    selected
        ``(n,)`` bool; DC is at ``n // 2``.
    length
        Echoes of a train.
    centre
        The echo that meets the centre, from 1 to ``length``.

    Returns
    -------
    Tensor
        ``(shots, echoes, 1)`` int64.

    Raises
    ------
    InputError
        Where the lines cannot be cut into bands of one size, or there is no such echo.

    >>> trains(torch.ones(6, dtype=torch.bool), length=3, centre=1).squeeze(-1)      # DC is line 3
    tensor([[2, 1, 0],
            [3, 4, 5]])
    """
    lines = selected.nonzero().flatten()
    length = check("echo train of length", length, f"[1, {max(1, len(lines))}]", whole=True)
    centre = check("echo at the centre", centre, f"[1, {length}]", whole=True)
    if len(lines) % length:
        fitting = [n for n in range(1, len(lines) + 1) if len(lines) % n == 0]
        below, above = next(pair for pair in pairwise(fitting) if pair[0] < length < pair[1])
        raise InputError(
            f"echo train of length {length}: {len(lines)} measured lines cannot be dealt out, {len(lines) % length} are left over; "
            f"use a length of {below} or {above}, or a mask of {len(lines) // length * length} lines"
        )
    away = (lines - len(selected) // 2).abs()
    if centre in (1, length):
        bands = lines[away.sort(stable=True).indices].reshape(length, -1).sort(dim=1).values
        return (bands if centre == 1 else bands.flip(0)).T.unsqueeze(-1)
    bands = lines.reshape(length, -1).T  # (shots, bands)
    middle = int(away.argmin()) // (len(lines) // length)
    return torch.roll(bands, centre - 1 - middle, dims=1).unsqueeze(-1)
