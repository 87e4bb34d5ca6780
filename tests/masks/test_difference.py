"""Comparison of masks: counts by hand, and every explanation undone gives back the mask."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies

from prom import InputError
from prom.kspace.fourier import opposite
from prom.masks.centre import reach, whole_centre
from prom.masks.difference import difference, lines_of

SIDES = strategies.integers(2, 9)


def random_mask(height, width, seed):
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.4


def applied(mask, explanation):
    """What the words of an explanation say, done by other means."""
    for step in explanation.split(" and "):
        if step == "transposed":
            mask = mask.T
        elif step == "rows reversed":
            mask = torch.stack([opposite(column) for column in mask.T]).T
        elif step == "columns reversed":
            mask = torch.stack([opposite(row) for row in mask])
        else:
            shift = step.removeprefix("shifted by (").removesuffix(")").split(", ")
            mask = mask.roll([int(number) for number in shift], (0, 1))
    return mask


@hypothesis.given(SIDES, SIDES, strategies.integers(0, 10**6), strategies.booleans(), strategies.booleans(), SIDES, SIDES)
def test_what_moved_a_mask_is_found(height, width, seed, rows, columns, down, right):
    asked = random_mask(height, width, seed)
    measured = asked.flip([axis for axis, flip in ((0, rows), (1, columns)) if flip]).roll((down, right), (0, 1))
    found = difference(asked, measured)
    assert found.equal == torch.equal(asked, measured)
    if not found.equal:
        assert torch.equal(applied(asked, found.explanation), measured)


@hypothesis.given(SIDES, strategies.integers(0, 10**6))
def test_a_transposed_mask_is_found(side, seed):
    asked = random_mask(side, side, seed)
    found = difference(asked, asked.T)
    assert found.equal or torch.equal(applied(asked, found.explanation), asked.T)


@hypothesis.given(SIDES, SIDES, strategies.integers(0, 10**6), strategies.integers(0, 10**6))
def test_counts(height, width, one, other):
    asked, measured = random_mask(height, width, one), random_mask(height, width, other)
    found = difference(asked, measured)
    if found.unit == "points":
        assert (found.missing, found.unasked) == (int((asked & ~measured).sum()), int((~asked & measured).sum()))
    assert found.asked - found.missing == found.measured - found.unasked
    if found.explanation:
        assert torch.equal(applied(asked, found.explanation), measured)


def test_the_simplest_explanation_is_named():
    lines = torch.tensor([0, 1, 1, 0, 1, 0, 0, 0, 1, 0]).bool()
    asked = lines[:, None].expand(10, 8)
    for measured, what in (
        (asked.roll(1, 0), "shifted by (1, 0)"),
        (asked.roll(-2, 0), "shifted by (-2, 0)"),
        (opposite(lines)[:, None].expand(10, 8), "rows reversed"),
        (asked.flip(0), "rows reversed and shifted by (-1, 0)"),
    ):
        found = difference(asked, measured)
        assert found.unit == "rows" and found.asked == found.measured == 4 and found.explanation == what and what in str(found)
    square = torch.zeros(6, 6, dtype=torch.bool)
    square[1, 2:5] = square[4, 3] = True
    assert difference(square, square.T).explanation == "transposed"


def test_lost_lines_have_no_explanation():
    asked = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]).bool()[None].expand(6, 8)
    measured = asked.clone()
    measured[:, 1] = False
    assert str(difference(asked, measured)) == "1 of 4 columns that were asked for not measured"
    assert str(difference(measured, asked)) == "1 column measured that was not asked for"
    measured[0, 1] = True
    assert difference(asked, measured).unit == "points" and difference(asked, measured).missing == 5


def test_sizes_must_agree():
    with pytest.raises(InputError, match="its transpose does"):
        difference(torch.ones(4, 6, dtype=torch.bool), torch.ones(6, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="give the mask that was measured"):
        difference(torch.ones(4, 6, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool))


@hypothesis.given(SIDES, SIDES, strategies.integers(0, 10**6))
def test_the_whole_centre_is_whole_and_cannot_grow(height, width, seed):
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.9

    def whole(rows, columns):
        cut = mask[
            height // 2 - rows // 2 : height // 2 - rows // 2 + rows, width // 2 - columns // 2 : width // 2 - columns // 2 + columns
        ]
        return bool(cut.all())

    rows, columns = whole_centre(mask)
    square = max(n for n in range(min(height, width) + 1) if all(whole(m, m) for m in range(n + 1)))
    assert whole(rows, columns) and min(rows, columns) >= square
    assert (rows == height or columns == 0 or not whole(rows + 1, columns)) and (
        columns == width or rows == 0 or not whole(rows, columns + 1)
    )
    assert max(whole_centre(mask, most=2)) <= 2


def test_reach_and_lines():
    mask = torch.zeros(8, 6, dtype=torch.bool)
    assert reach(mask) == [(-1, -1), (-1, -1)] and lines_of(mask) == "rows"
    mask[3:7, 5] = True
    assert reach(mask) == [(1, 2), (-1, 2)] and lines_of(mask) == "points"


@hypothesis.given(SIDES, SIDES, SIDES, strategies.integers(0, 10**6), strategies.booleans(), strategies.booleans(), SIDES, SIDES, SIDES)
def test_what_moved_a_mask_with_three_axes_is_found(depth, height, width, seed, rows, columns, along, down, right):
    asked = torch.rand(depth, height, width, generator=torch.Generator().manual_seed(seed)) < 0.4
    flipped = asked.flip([axis for axis, flip in ((1, rows), (2, columns)) if flip])
    measured = flipped.roll((along, down, right), (0, 1, 2))
    found = difference(asked, measured)
    assert found.equal == torch.equal(asked, measured)
    if found.equal:
        return
    again = asked
    for step in found.explanation.split(" and "):
        if step.startswith("shifted"):
            again = again.roll([int(number) for number in step.removeprefix("shifted by (").removesuffix(")").split(", ")], (0, 1, 2))
        else:
            again = opposite(again, (1,) if step == "rows reversed" else (2,))
    assert torch.equal(again, measured)


def test_masks_with_three_axes_of_other_sizes_are_refused():
    mask = torch.ones(3, 4, 5, dtype=torch.bool)
    for other in (mask[:2], mask[0]):
        with pytest.raises(InputError, match=r"mask of \(3, 4, 5\): does not fit the raw data"):
            difference(mask, other)
