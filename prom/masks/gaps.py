"""Lines that are never far apart: the best choice of so many, by dynamic programming, exactly.

Lines stand along one axis. The edges count as measured lines: with a and b the first and the last line that may be measured, a gap g
means that the first measured line is at most a - 1 + g, the last at least b + 1 - g, and that no two neighbours differ by more than g.
All functions take NumPy arrays ``(lines,)``: ``mandatory`` and ``forbidden`` bool, and ``bands`` int64, rising from 0, or None. With
bands every band has the same number of measured lines, ``count`` over their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Walk:
    """Places 0 to m + 1, of which 0 and m + 1 are the edges, and what can be reached from what in one step.

    ``allowed``: which places may be measured; ``lowest``: the first place from which one may step to each; ``bands``: of each place;
    ``number``: of bands.
    """

    first: int
    allowed: np.ndarray
    lowest: np.ndarray
    bands: np.ndarray | None
    number: int

    @classmethod
    def of(cls, gap: int, mandatory: np.ndarray, forbidden: np.ndarray, bands: np.ndarray | None) -> _Walk:
        first, last = (~forbidden).nonzero()[0][[0, -1]]
        inside = slice(first, last + 1)
        allowed = np.concatenate([[False], ~forbidden[inside], [False]])
        places = np.arange(len(allowed))
        stops = np.where(np.concatenate([[True], mandatory[inside], [True]]), places, 0)  # none of these is stepped over
        before = np.concatenate([[0], np.maximum.accumulate(stops)[:-1]])
        along = None if bands is None else np.concatenate([[-1], bands[inside], [-1]])
        number = 1 if bands is None else int(bands.max()) + 1
        return cls(int(first), allowed, np.maximum(places - gap, before), along, number)

    def at(self, number: int, count: int) -> np.ndarray:
        """Where the measured line of this number, from 1 on, may be."""
        if number > count:  # the edge at the end
            return np.arange(len(self.allowed)) == len(self.allowed) - 1
        if self.bands is None:
            return self.allowed
        return self.allowed & (self.bands == (number - 1) * self.number // count)

    def on_the_grid(self, places: np.ndarray, size: int) -> np.ndarray:
        lines = np.zeros(size, dtype=bool)
        lines[self.first : self.first + len(places) - 2] = places[1:-1]
        return lines


def best(
    scores: np.ndarray, count: int, gap: int, mandatory: np.ndarray, forbidden: np.ndarray, bands: np.ndarray | None = None
) -> np.ndarray | None:
    r"""The ``count`` lines of largest sum of scores with no gap larger than ``gap``, bool ``(lines,)``; None where there are none.

    With :math:`b_{c, i}` the best sum of c lines of which i is the last, :math:`b_{c, i} = s_i + \max_{i - g \le j < i} b_{c - 1, j}`, and
    no mandatory line between j and i. Of equal sums that of lines nearer to the centre is taken, by the sum of their squared distances.

    >>> nothing = np.zeros(6, dtype=bool)
    >>> best(np.array([9.0, 8, 7, 1, 2, 0]), 2, 3, nothing, nothing).nonzero()[0].tolist()
    [1, 4]
    """
    walk = _Walk.of(gap, mandatory, forbidden, bands)
    places, size = np.arange(len(walk.allowed)), len(scores)
    lines = np.clip(places - 1 + walk.first, 0, size - 1)
    value, distance = scores.astype(np.float64)[lines], (lines - size // 2) ** 2
    widest = int((places - walk.lowest).max())
    sources = places[:, None] - np.arange(1, widest + 1)  # (places, steps)
    possible = (sources >= walk.lowest[:, None]) & (sources >= 0)
    sources = sources.clip(min=0)
    total, spread = np.where(places == 0, 0.0, -np.inf), np.zeros(len(places), dtype=np.int64)
    previous = np.zeros((count + 2, len(places)), dtype=np.int64)
    for number in range(1, count + 2):
        sums = np.where(possible, total[sources], -np.inf)
        top = sums.max(axis=1)
        near = np.where(sums == top[:, None], spread[sources], np.iinfo(np.int64).max).argmin(axis=1)
        previous[number] = sources[places, near]
        here = walk.at(number, count)
        last = number > count
        total = np.where(here, top + (0.0 if last else value), -np.inf)
        spread = spread[previous[number]] + (0 if last else distance)
    if total[-1] == -np.inf:
        return None
    chosen, place = np.zeros(len(places), dtype=bool), len(places) - 1
    for number in range(count + 1, 0, -1):
        place = previous[number, place]
        chosen[place] = True
    return walk.on_the_grid(chosen, size)


def reachable(count: int, gap: int, mandatory: np.ndarray, forbidden: np.ndarray, bands: np.ndarray | None = None) -> np.ndarray:
    """The lines that are in any allowed choice of ``count``, bool ``(lines,)``; none where there is no such choice.

    >>> nothing = np.zeros(7, dtype=bool)
    >>> reachable(2, 3, nothing, nothing).tolist(), reachable(1, 3, nothing, nothing).tolist() == nothing.tolist()
    ([False, True, True, False, True, True, False], True)
    """
    walk = _Walk.of(gap, mandatory, forbidden, bands)
    size = len(walk.allowed)
    places = np.arange(size)
    highest = np.searchsorted(walk.lowest, places, side="right") - 1  # the last place that may be stepped to: lowest never falls
    forwards = np.zeros((count + 2, size), dtype=bool)
    forwards[0, 0] = True
    for number in range(1, count + 2):
        sums = np.concatenate([[0], forwards[number - 1].cumsum()])
        forwards[number] = walk.at(number, count) & (sums[places] > sums[walk.lowest])
    backwards = np.arange(size) == size - 1
    found = np.zeros(size, dtype=bool)
    for number in range(count, 0, -1):
        sums = np.concatenate([[0], backwards.cumsum()])
        backwards = walk.at(number, count) & (sums[highest + 1] > sums[np.minimum(places + 1, highest + 1)])
        found |= forwards[number] & backwards
    return walk.on_the_grid(found, len(forbidden))


def fewest(gap: int, mandatory: np.ndarray, forbidden: np.ndarray) -> int | None:
    """How many lines there must be at least; None where more than ``gap`` - 1 neighbours are forbidden, so that no number is enough.

    >>> nothing = np.zeros(128, dtype=bool)
    >>> fewest(8, nothing, nothing), fewest(3, nothing, np.arange(128) % 8 < 4)
    (16, None)
    """
    if forbidden.all():
        return None
    walk = _Walk.of(gap, mandatory, forbidden, None)
    end, place, count = len(walk.allowed) - 1, 0, 0
    while walk.lowest[end] > place:
        steps = (walk.allowed & (walk.lowest <= place)).nonzero()[0]
        if not len(steps) or steps[-1] <= place:
            return None
        place, count = int(steps[-1]), count + 1
    return count


def holds(chosen: np.ndarray, gap: int, forbidden: np.ndarray) -> bool:
    """Whether no gap of these lines is larger.

    >>> holds(np.array([False, True, False, False, True, False]), 3, np.zeros(6, dtype=bool))
    True
    """
    first, last = (~forbidden).nonzero()[0][[0, -1]]
    return bool((np.diff(chosen.nonzero()[0], prepend=first - 1, append=last + 1) <= gap).all())
