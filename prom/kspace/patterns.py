"""What can be switched on in k-space: single points, or whole lines.

A pattern is a linear map from its parameters to the grid of samples, and its adjoint. Nothing else in the project knows about lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from prom.errors import InputError, unknown
from prom.options import READOUTS, check

if TYPE_CHECKING:  # the command line lists the patterns without importing PyTorch
    from torch import Tensor

LARGEST_MASK = 2**26  # samples, out of a file
AXES = {-3: "partition", -2: "row", -1: "column"}  # what an index along an axis of the samples counts; a series has frames for partitions


@dataclass(frozen=True)
class Lines:
    """One parameter for all the samples along the readout axes; without any, every sample has its own (the paper's 2D mask).

    Parameters
    ----------
    samples
        Shape of the grid of samples: ``(H, W)``, or any other.
    readout
        The axes that are measured whole, counted from the last, -1: ``(-2,)`` makes columns of a 2D grid, one for each phase encode along
        the width; ``(-1,)`` rows. With -3 a series has the same samples in every frame.
    frames
        Whether the first of three axes is time: samples of a series.

    >>> import torch
    >>> Lines((2, 3), readout=(-2,)).forward(torch.tensor([0.0, 1.0, 0.5]))
    tensor([[0.0000, 1.0000, 0.5000],
            [0.0000, 1.0000, 0.5000]])
    >>> Lines((4, 6)).shape, Lines((8, 4, 6), readout=(-1,)).shape                # partitions and rows of a volume
    ((4, 6), (8, 4))
    >>> series = Lines((8, 4, 6), readout=(-2,), frames=True)
    >>> series.shape, series.frame                                                # columns of each frame
    ((8, 6), Lines(samples=(4, 6), readout=(-2,), frames=False))
    """

    samples: tuple[int, ...]
    readout: tuple[int, ...] = ()
    frames: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which there are parameters, counted from the last."""
        return tuple(axis for axis in range(-len(self.samples), 0) if axis not in self.readout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``theta``."""
        return tuple(self.samples[axis] for axis in self.axes)

    @property
    def size(self) -> int:
        """D: the number of parameters."""
        return math.prod(self.shape)

    @property
    def full(self) -> int:
        """How many parameters a full scan has, to which accelerations refer: all of them."""
        return self.size

    @property
    def frame(self) -> Lines:
        """The pattern of one frame of a series; else itself."""
        return Lines(self.samples[1:], tuple(axis for axis in self.readout if axis != -3)) if self.frames else self

    @property
    def apart(self) -> bool:
        """Whether each frame of a series has parameters of its own: the first axis of theta."""
        return self.frames and -3 not in self.readout

    def in_frames(self, theta: Tensor) -> Tensor:
        """Parameters of one frame, ``(*frame.shape)``, as parameters of all frames: a view, of theta's shape."""
        return theta.expand(self.shape) if self.apart else theta

    @property
    def name(self) -> str:
        """What is switched on: points, columns, rows, or lines."""
        return NAMES.get(self.readout, "lines")

    def budget(self, acceleration: float) -> int:
        """S = floor(D / alpha) (paper, section 3.1).

        Raises
        ------
        InputError
            Where alpha is no number, below 1 (more than everything) or above D (not even one sample).

        >>> Lines((4, 6)).budget(acceleration=5)               # floor(24 / 5)
        4
        """
        acceleration = check("acceleration", acceleration, "[1, inf)")
        if acceleration > self.full:
            raise InputError(f"acceleration {str(acceleration).removesuffix('.0')}: must be <= {self.full}, the number of {self._number}")
        return count_of(self.full, acceleration)

    @property
    def _number(self) -> str:
        """What ``full`` counts, for messages."""
        return f"{self.name} of a {self.samples} grid"

    def forward(self, theta: Tensor) -> Tensor:
        """``(..., *shape)`` parameters to ``(..., *samples)``: every sample of a line has the line's value."""
        if not self.readout:
            return theta
        batch = theta.shape[: theta.ndim - len(self.shape)]
        for axis in sorted(self.readout, reverse=True):  # from the last axis on, so that the others keep their numbers
            theta = theta.unsqueeze(axis)
        return theta.expand(*batch, *self.samples)

    def adjoint(self, weights: Tensor) -> Tensor:
        """``(..., *samples)`` to ``(..., *shape)``, so that <forward(a), b> = <a, adjoint(b)>: the sum along each line."""
        return weights.sum(dim=self.readout) if self.readout else weights

    def select(self, mask: Tensor) -> Tensor:
        """The lines that a mask has, ``(*samples)`` bool to ``(*shape)`` bool.

        Raises
        ------
        InputError
            Where the mask is not bool, of another size, or has a line in part.

        >>> import torch
        >>> Lines((2, 2), readout=(-2,)).select(torch.tensor([[True, False], [True, False]]))
        tensor([ True, False])
        """
        import torch

        if mask.dtype != torch.bool:
            raise InputError(f"mask of type {mask.dtype}: must be bool; use mask > 0.5")
        if tuple(mask.shape) != self.samples:
            raise InputError(f"mask of {tuple(mask.shape)}: does not fit the slices, which are {self.samples}")
        selected = self.adjoint(mask.int()) > 0
        if not self.forward(selected).equal(mask):
            way = "use pattern 'points'" if self.name in NAMES.values() else "each is measured whole or not at all"
            raise InputError(f"mask: has {self.name} that are measured in part; {way}")
        return selected


@dataclass(frozen=True)
class Readouts(Lines):
    """One parameter for each candidate of a trajectory's readouts: :class:`prom.kspace.trajectories.Trajectory` makes it.

    Parameters
    ----------
    samples, readout, frames
        ``(K, R)`` for K candidates of R samples, ``(1, K, R)`` of volumes, ``(T, K, R)`` of series; all axes but that of K, and of T where
        frames have masks of their own, are measured whole.
    kind
        What they are called: spokes, spirals, kooshball or readouts.
    full_scan
        How many of them a full scan takes. A budget is S = floor(full_scan / alpha), so that an acceleration says how much shorter the scan
        is, however many candidates there are.
    key
        What tells these candidates from others, "" where nothing does: :attr:`prom.kspace.trajectories.Trajectory.key`.

    >>> pattern = Readouts((256, 128), (-1,), kind="spokes", full_scan=128)
    >>> pattern.shape, pattern.budget(acceleration=8)
    ((256,), 16)
    >>> Readouts((8, 128), (-1,), kind="spokes", full_scan=128).budget(acceleration=4)
    Traceback (most recent call last):
    prom.errors.InputError: acceleration 4: takes 32 of 128 spokes, and there are 8 candidates; take more
    """

    kind: str = "spokes"
    full_scan: int = 1
    key: str = field(default="", compare=False, repr=False)

    @property
    def full(self) -> int:
        return self.full_scan

    @property
    def frame(self) -> Readouts:
        if not self.frames:
            return self
        readout = tuple(axis for axis in self.readout if axis != -3)
        full = self.full_scan // (self.samples[0] if self.apart else 1)
        return replace(self, samples=self.samples[1:], readout=readout, frames=False, full_scan=full)

    @property
    def name(self) -> str:
        return self.kind

    @property
    def _number(self) -> str:
        return f"{self.kind} of a full scan"

    def budget(self, acceleration: float) -> int:
        count = super().budget(acceleration)
        if count > self.size:
            raise InputError(
                f"acceleration {acceleration:g}: takes {count} of {self.full} {self.kind}, and there are {self.size} candidates; take more"
            )
        return count


def count_of(full: int, acceleration: float) -> int:
    """floor(D / alpha), and S where alpha is D / S, also if the quotient comes out a last bit lower: 168 / 2.24 is 74.99999999999999.

    >>> count_of(168, 2.24), count_of(9, 9 / 7)
    (75, 7)
    """
    count = math.floor(full / acceleration)
    return count + (full / (count + 1) == acceleration)


NAMES = {(): "points", (-2,): "columns", (-1,): "rows"}
STILL = {(-3, *readout): f"still-{name}" for readout, name in NAMES.items()}  # the same in every frame of a series
NAMES |= STILL
# By name what makes a pattern on a grid of samples. One of your own has the attributes and methods of Lines.
PATTERNS: dict[str, Callable[[tuple[int, ...]], Lines]] = {name: partial(Lines, readout=readout) for readout, name in NAMES.items()}


def make(name: str, samples: Sequence[int], frames: bool = False) -> Lines:
    """The pattern called ``name`` on a grid of samples, whose first axis is time with ``frames``.

    "points", "columns" or "rows"; of a series also "still-points", "still-columns" or "still-rows", the same in every frame.

    Raises
    ------
    InputError
        Where the name is not known, or is of a series and there are no frames.

    >>> make("colums", (8, 8))                                                       # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prom.errors.InputError: pattern 'colums' is not known; did you mean 'columns'? (known: columns, points, rows, ...)
    >>> make("still-columns", (8, 8))
    Traceback (most recent call last):
    prom.errors.InputError: pattern still-columns: is of series in time, and these are not; use columns
    """
    if name in READOUTS:
        raise InputError(f"pattern {name}: needs candidates, off the grid; put the data on a trajectory first, data.along(trajectory)")
    if name not in PATTERNS:
        raise unknown("pattern", name, PATTERNS)
    if name in STILL.values() and not frames:
        raise InputError(f"pattern {name}: is of series in time, and these are not; use {name.removeprefix('still-')}")
    made = PATTERNS[name](tuple(samples))
    return replace(made, frames=True) if frames else made
