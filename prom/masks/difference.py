"""The mask that was measured beside the one that was asked for: what is missing, what is new, and what would explain it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import opposite
from prom.kspace.patterns import AXES, make


@dataclass(frozen=True)
class Difference:
    """How a measured mask differs from the one that was asked for.

    Attributes
    ----------
    unit
        What is counted: columns, rows or points.
    asked, measured
        How many there are of them in either mask.
    missing, unasked
        How many were asked for and not measured, and measured without being asked for.
    explanation
        What makes the measured mask of the one that was asked for, exactly: ``transposed``, ``rows reversed``, ``shifted by (1, 0)``, or
        several of them in this order. Reversing leaves DC where it is; shifts are of (rows, columns), with a third axis of all three, and
        what leaves the grid on one side comes back on the other; with three axes no transposition is looked for. None where nothing
        makes it, or the masks are equal.
    """

    unit: str
    asked: int
    measured: int
    missing: int
    unasked: int
    explanation: str | None = None

    @property
    def equal(self) -> bool:
        """Whether what was asked for was measured, and nothing else."""
        return not self.missing and not self.unasked

    def __str__(self) -> str:
        """As a clause.

        >>> str(Difference("rows", 4, 4, 1, 1, "shifted by (1, 0)"))
        '1 of 4 rows that were asked for not measured, 1 measured that was not asked for: exactly the mask asked for, shifted by (1, 0)'
        >>> str(Difference("points", 16, 16, 0, 0))
        'what was asked for, all 16 points'
        """
        if self.equal:
            return f"what was asked for, all {self.asked} {self.unit}"
        found = []
        if self.missing:
            found.append(f"{self.missing} of {self.asked} {self.unit} that were asked for not measured")
        if self.unasked:
            one = self.unasked == 1
            counted = "" if self.missing else f" {self.unit.removesuffix('s') if one else self.unit}"
            found.append(f"{self.unasked}{counted} measured that {'was' if one else 'were'} not asked for")
        return ", ".join(found) + (f": exactly the mask asked for, {self.explanation}" if self.explanation else "")


def difference(asked: Tensor, measured: Tensor) -> Difference:
    """How ``measured`` differs from ``asked``, both ``(H, W)`` bool, centred, or with a third axis before.

    Lines are counted where both have the same whole ones.

    Raises
    ------
    InputError
        Where they are of different sizes.

    >>> mask = torch.tensor([0, 1, 1, 0, 0, 1, 0, 0]).bool()[:, None].expand(8, 6)
    >>> difference(mask, mask.roll(1, 0)).explanation
    'shifted by (1, 0)'
    >>> difference(mask, mask).equal
    True
    """
    if asked.shape != measured.shape:
        axes = "(rows, columns)" if measured.ndim == 2 else "(frames or partitions, rows, columns)"
        turned = asked.ndim == 2 and asked.T.shape == measured.shape
        raise InputError(
            f"mask of {tuple(asked.shape)}: does not fit the raw data, which have {tuple(measured.shape)} {axes}"
            + ("; its transpose does, so that rows and columns may be confused" if turned else "; give the mask that was measured")
        )
    pattern = next((name for name in ("columns", "rows") if _has(asked, name) and _has(measured, name)), "points")
    grid = make(pattern, tuple(asked.shape))
    one, other = (grid.select(mask.contiguous()) for mask in (asked, measured))
    missing, unasked = int((one & ~other).sum()), int((other & ~one).sum())
    explanation = _explanation(asked, measured) if missing or unasked else None
    return Difference(pattern, int(one.sum()), int(other.sum()), missing, unasked, explanation)


def of_scan(asked: Tensor, pattern: str, measured: Tensor) -> Tensor:
    """The lines of a volume ``(D, H, W)`` as the points ``(lines, D)`` of the 3D scan that measures them, where ``measured`` has that
    shape; else the mask as it is.

    >>> asked = torch.eye(4, 6).bool()[:, None].expand(4, 5, 6)
    >>> of_scan(asked, "columns", torch.ones(6, 4).bool()).shape, of_scan(asked, "columns", torch.ones(5, 6).bool()).shape
    (torch.Size([6, 4]), torch.Size([4, 5, 6]))
    """
    if asked.ndim == 3 and measured.ndim == 2 and pattern in ("columns", "rows"):
        points = asked.any(dim=-2 if pattern == "columns" else -1).T
        return points if points.shape == measured.shape else asked
    return asked


def lines_of(mask: Tensor) -> str:
    """What a mask, ``(H, W)`` bool or with a third axis before, consists of: columns, rows or points. Everything, and nothing, is rows.

    >>> lines_of(torch.eye(3).bool()), lines_of(torch.eye(3).bool()[:1].expand(3, 3)), lines_of(torch.ones(3, 3).bool())
    ('points', 'columns', 'rows')
    """
    return next((name for name in ("rows", "columns") if _has(mask, name)), "points")


def _has(mask: Tensor, pattern: str) -> bool:
    """Whether a mask consists of whole lines of this kind."""
    axis = make(pattern, tuple(mask.shape)).readout[0]
    return bool((mask.any(axis) == mask.all(axis)).all())


def _explanation(asked: Tensor, measured: Tensor) -> str | None:
    if asked.sum() != measured.sum():
        return None
    found = [(steps, *shift) for steps, changed in _turned(asked) for shift in [_shift(changed, measured)] if shift]
    if not found:
        return None
    steps, *shift = min(found, key=_unlikely)
    return " and ".join([*steps, *([f"shifted by ({', '.join(map(str, shift))})"] if any(shift) else [])])


def _unlikely(found: tuple[list[str], *tuple[int, ...]]) -> tuple[int, int]:
    """What sorts explanations: fewer things that happened come first, and of one thing a shift by one before a reversal."""
    steps, *shift = found
    distance = sum(abs(step) for step in shift)
    return len(steps) + (distance > 0), 2 * len(steps) + distance


def _turned(mask: Tensor) -> Iterator[tuple[list[str], Tensor]]:
    """The mask as it is, transposed where it is square, and reversed along either axis or both, each with what was done to it."""
    square = mask.ndim == 2 and mask.shape[0] == mask.shape[1]
    for transposed, *reversals in product((False, True) if square else (False,), (False, True), (False, True)):
        changed, steps = (mask.T, ["transposed"]) if transposed else (mask, [])
        for axis, reverse in zip((-2, -1), reversals, strict=True):
            if reverse:
                changed = opposite(changed, (axis,))
                steps.append(f"{AXES[axis]}s reversed")
        yield steps, changed


def _shift(mask: Tensor, measured: Tensor) -> tuple[int, ...] | None:
    """The shortest shift that makes the one mask of the other, exactly."""
    spectra = [torch.fft.fftn(one.double()) for one in (mask, measured)]
    common = torch.fft.ifftn(spectra[0].conj() * spectra[1]).real  # how many samples both have, by shift
    candidates = (common > mask.sum() - 0.5).nonzero().tolist()
    signed = [tuple((step + n // 2) % n - n // 2 for step, n in zip(shift, mask.shape, strict=True)) for shift in candidates]
    return min(signed, key=lambda shift: sum(map(abs, shift)), default=None)
