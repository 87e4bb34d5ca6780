"""What can be switched on in k-space: single points, columns or rows.

A pattern is a linear map from its parameters to the k-space grid, and its adjoint. Nothing else in the project knows about lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prom.errors import InputError, unknown
from prom.options import check

if TYPE_CHECKING:  # the command line lists the patterns without importing PyTorch
    from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Every k-space point has its own parameter (the paper's 2D mask): ``theta`` is ``(H, W)``.

    >>> Points((4, 6)).budget(acceleration=5)               # floor(24 / 5)
    4
    """

    grid: tuple[int, int]
    name = "points"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``theta``."""
        return self.grid

    @property
    def size(self) -> int:
        """D: the number of parameters."""
        return math.prod(self.shape)

    def budget(self, acceleration: float) -> int:
        """S = floor(D / alpha) (paper, section 3.1).

        Raises
        ------
        InputError
            Where alpha is no number, below 1 (more than everything) or above D (not even one sample).
        """
        check("acceleration", acceleration, "[1, inf)")
        if acceleration > self.size:
            raise InputError(f"acceleration {acceleration}: must be <= {self.size}, the number of {self.name} of a {self.grid} grid")
        return math.floor(self.size / acceleration)

    def expand(self, theta: Tensor) -> Tensor:
        """``(..., *shape)`` parameters to ``(..., H, W)`` on the grid."""
        return theta

    def gather(self, gradient: Tensor) -> Tensor:
        """The adjoint of :meth:`expand`: ``(..., H, W)`` to ``(..., *shape)``, so that <expand(a), b> = <a, gather(b)>."""
        return gradient


@dataclass(frozen=True)
class Columns(Points):
    """One parameter per column, i.e. phase encodes along the width (a 1D mask): ``theta`` is ``(W,)``.

    >>> import torch
    >>> Columns((2, 3)).expand(torch.tensor([0.0, 1.0, 0.5]))
    tensor([[0.0000, 1.0000, 0.5000],
            [0.0000, 1.0000, 0.5000]])
    """

    name = "columns"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.grid[1],)

    def expand(self, theta: Tensor) -> Tensor:
        return theta.unsqueeze(-2).expand(*theta.shape[:-1], *self.grid)

    def gather(self, gradient: Tensor) -> Tensor:
        return gradient.sum(dim=-2)


@dataclass(frozen=True)
class Rows(Points):
    """One parameter per row, i.e. phase encodes along the height (a 1D mask): ``theta`` is ``(H,)``."""

    name = "rows"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.grid[0],)

    def expand(self, theta: Tensor) -> Tensor:
        return theta.unsqueeze(-1).expand(*theta.shape[:-1], *self.grid)

    def gather(self, gradient: Tensor) -> Tensor:
        return gradient.sum(dim=-1)


PATTERNS = {pattern.name: pattern for pattern in (Points, Columns, Rows)}


def make(name: str, grid: tuple[int, int]) -> Points:
    """The pattern called ``name`` ("points", "columns" or "rows") on a ``(H, W)`` grid.

    >>> make("colums", (8, 8))
    Traceback (most recent call last):
    prom.errors.InputError: pattern 'colums' is not known; did you mean 'columns'? (known: columns, points, rows)
    """
    if name not in PATTERNS:
        raise unknown("pattern", name, PATTERNS)
    return PATTERNS[name](tuple(grid))
