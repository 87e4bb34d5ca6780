"""The middle of a mask: how much of it is measured whole, and how far it reaches on either side."""

from __future__ import annotations

from torch import Tensor


def whole_centre(mask: Tensor, most: int | None = None) -> tuple[int, int]:
    """Rows and columns of the fully measured centre of a mask ``(H, W)`` bool: the largest square, then longer along both axes.

    A centre of n of N samples begins at ``N // 2 - n // 2``. (0, 0) where DC was not measured.

    Parameters
    ----------
    most
        Rows, and columns, at most.

    >>> import torch
    >>> mask = torch.tensor([0, 0, 1, 1, 1, 1, 0, 1]).bool()[:, None].expand(8, 6)
    >>> whole_centre(mask), whole_centre(mask, most=4)
    ((4, 6), (4, 4))
    """
    sides = [0, 0]
    limits = [n if most is None else min(n, most) for n in mask.shape]
    for axes in ((0, 1), (0,), (1,)):
        while True:
            larger = [side + (axis in axes) for axis, side in enumerate(sides)]
            if any(side > limit for side, limit in zip(larger, limits, strict=True)) or 0 in larger or not _whole(mask, larger):
                break
            sides = larger
    return tuple(sides)


def _whole(mask: Tensor, sides: list[int]) -> bool:
    rows, columns = (slice(n // 2 - side // 2, n // 2 - side // 2 + side) for n, side in zip(mask.shape, sides, strict=True))
    return bool(mask[rows, columns].all())


def reach(mask: Tensor) -> list[tuple[int, int]]:
    """How far a mask ``(H, W)`` bool reaches from DC along each axis, to lower and to higher numbers; -1 where it measures nothing there.

    >>> import torch
    >>> reach((torch.arange(8) < 6)[:, None].expand(8, 5))
    [(4, 1), (2, 2)]
    """
    found = []
    for axis, n in enumerate(mask.shape):
        lines = mask.any(1 - axis).nonzero().flatten()
        first, last = (int(lines[0]), int(lines[-1])) if len(lines) else (n, -1)
        found.append((max(n // 2 - first, -1), max(last - n // 2, -1)))
    return found
