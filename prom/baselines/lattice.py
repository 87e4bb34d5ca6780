"""Shifted lattices of points about a full centre: what is measured is spread evenly over both phase-encode directions."""

from __future__ import annotations

import math

from torch import Tensor

from prom import options
from prom.baselines.densities import central
from prom.baselines.frames import one_frame
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.masks.demands import Demands, allowed


@one_frame(instead="shifted_equispaced")
def lattice(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    rows: int | None = None,
    columns: int | None = None,
    shift: int | None = None,
    centre_share: float = 0.25,
    demands: Demands | None = None,
) -> Tensor:
    r"""A lattice of points through DC, each sampled column shifted against the one before, and a fully sampled centre.

    .. math:: (y, x) \text{ is measured where } x \bmod R_x = 0 \text{ and } (y - \Delta \, x / R_x) \bmod R_y = 0,

    with y and x counted from DC, one sample in :math:`R = R_y R_x`: 2D CAIPIRINHA of Breuer et al. 2006, doi:10.1002/mrm.20787, which moves
    aliases to where coils can tell them apart. Nothing is random; ``seed`` is not used.

    The budget is exact. What lattice and centre have too much is left out, those farthest from DC first; what they lack is added, those
    nearest to DC first. With the usual R little is added, and nothing left out. Demands count as part of the centre.

    Parameters
    ----------
    rows, columns
        :math:`R_y` and :math:`R_x`, both or neither. By default R is the least whose lattice fits into the budget beside the centre, from
        the number of points outside the centre over the rest of the budget on, and of all its lattices that is taken whose nearest points
        are farthest from each other.
    shift
        :math:`\Delta`, from 0 to :math:`R_y - 1`; by default likewise.
    centre_share
        Share of the budget, from 0 to 1, that is spent on the samples nearest to DC.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) samples.

    Raises
    ------
    InputError
        Where the pattern is not "points", only one of rows and columns or only the shift is given, or a number is out of range.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 4, 8), ["a"], [0])
    >>> lattice(data, acceleration=4, rows=2, columns=2, shift=1, centre_share=0).int().tolist()
    [[1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0]]
    """
    lines = train.lines(pattern)
    if pattern != "points":
        raise InputError(f"pattern {pattern!r}: a lattice has points; use points, or equispaced for lines")
    feasible = allowed(lines, acceleration, demands).keeping(central(lines, acceleration, centre_share))
    full, free = feasible.mandatory, feasible.open(feasible.mandatory)
    if (rows is None) != (columns is None) or (shift is not None and rows is None):
        raise InputError("lattice: needs both rows and columns, and these where there is a shift; or none of them")
    if rows is None:
        chosen = full | _fitting(train.shape, full, free, feasible.count)
    else:
        options.check("rows", rows, "[1, 1e6]", whole=True)
        options.check("columns", columns, "[1, 1e6]", whole=True)
        shift = widest([(rows, columns)])[2] if shift is None else options.check("shift", shift, f"[0, {rows - 1}]", whole=True)
        chosen = full | points(train.shape, rows, columns, shift)
    return feasible.round(chosen.float()).contiguous()


def points(shape: tuple[int, int], rows: int, columns: int, shift: int) -> Tensor:
    """The whole lattice on a grid, bool.

    >>> points((3, 3), 2, 1, 1).int().tolist()
    [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """
    y, x = offsets(shape).unbind(dim=-1)
    return (x % columns == 0) & ((y - shift * (x // columns)) % rows == 0)


def widest(sizes: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Rows, columns and shift of the lattice whose nearest points are farthest from each other; of equal ones the first.

    >>> widest([(4, 1), (2, 2), (1, 4)])
    (4, 1, 2)
    """
    return max(((rows, columns, shift) for rows, columns in sizes for shift in range(rows)), key=lambda one: _distance(*one))


def _distance(rows: int, columns: int, shift: int) -> int:
    """The square of the least distance between two points."""
    steps = range(1, rows // columns + 2)  # sampled columns to the right: any farther is no nearer than the next point of the same one
    return min([rows**2, *((columns * n) ** 2 + min(shift * n % rows, -shift * n % rows) ** 2 for n in steps)])


def _fitting(shape: tuple[int, int], full: Tensor, free: Tensor, budget: int) -> Tensor:
    """The lattice of the least R of which, with what is full, no more than the budget is free."""
    left = budget - int(full.sum())
    if not left:
        return full
    reduction = max(1, math.floor(int(free.sum()) / left))
    while True:
        found = points(shape, *widest([(n, reduction // n) for n in range(1, reduction + 1) if reduction % n == 0]))
        if int((found & free | full).sum()) <= budget:
            return found
        reduction += 1
