"""Lines with no large gap: the dynamic programme against every choice there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prom.masks import gaps


def everything(size, count, gap, mandatory, forbidden, bands):
    """Every allowed choice, as a set of indices."""
    free = [line for line in range(size) if not forbidden[line]]
    for chosen in combinations(free, count):
        places = [free[0] - 1, *chosen, free[-1] + 1]
        narrow = all(after - before <= gap for before, after in zip(places, places[1:], strict=False))
        equal = bands is None or len({sum(bands[line] == band for line in chosen) for band in set(bands.tolist())}) == 1
        if narrow and equal and all(line in chosen for line in np.flatnonzero(mandatory)):
            yield chosen


@st.composite
def problems(draw):
    size = draw(st.integers(1, 11))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    roles = generator.choice(3, size, p=[0.7, 0.15, 0.15])
    if (roles == 2).all():
        roles[0] = 0
    number = draw(st.integers(1, 3))
    bands = np.arange(size) * number // size if number > 1 and number <= size else None
    count = draw(st.integers(1, size))
    count -= count % number if bands is not None and count >= number else 0
    if bands is not None and count % number:
        bands = None
    scores = generator.choice([0.0, 0.25, 0.5, 0.75], size) if draw(st.booleans()) else generator.normal(size=size)
    return scores, count, draw(st.integers(1, 6)), roles == 1, roles == 2, bands


@settings(max_examples=400)
@given(problems())
def test_the_best_choice_is_the_best_of_all(problem):
    scores, count, gap, mandatory, forbidden, bands = problem
    possible = list(everything(len(scores), count, gap, mandatory, forbidden, bands))
    found = gaps.best(*problem)
    reachable = gaps.reachable(count, gap, mandatory, forbidden, bands)
    assert set(np.flatnonzero(reachable)) == {line for chosen in possible for line in chosen}
    assert (found is None) == (not possible)
    if possible:
        assert tuple(np.flatnonzero(found)) in possible and gaps.holds(found, gap, forbidden)
        centre = len(scores) // 2
        keys = {chosen: (round(sum(scores[list(chosen)]), 9), -sum((line - centre) ** 2 for line in chosen)) for chosen in possible}
        assert keys[tuple(np.flatnonzero(found))] == max(keys.values())  # of equal sums that nearest to the centre


@settings(max_examples=200)
@given(problems())
def test_no_smaller_number_of_lines_is_enough(problem):
    scores, _, gap, mandatory, forbidden, _ = problem
    enough = [
        count for count in range(1, len(scores) + 1) if any(True for _ in everything(len(scores), count, gap, mandatory, forbidden, None))
    ]
    empty = (~forbidden).any() and not mandatory.any() and gap > np.ptp(np.flatnonzero(~forbidden)) + 1  # the edges see each other
    assert gaps.fewest(gap, mandatory, forbidden) == (0 if empty else min(enough, default=None))
