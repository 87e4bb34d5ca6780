"""The lines of raw data as a scanner measured them, and the grid of k-space on which each has its place."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prom.datasets.reading import check_declared
from prom.errors import InputError

EVEN = 0.01  # of the distance between slices, by which it may vary to be called the same
TINY = 1e-6  # a correlation that is none


@dataclass(frozen=True)
class Geometry:
    """What the header of raw data says of its k-space.

    Attributes
    ----------
    kind
        The format, in words.
    matrix
        Samples of a line, lines, and partitions: 1 in 2D.
    width
        How many samples of a line are left without oversampling.
    centres
        The numbers of the line and of the partition in the middle; None where the header does not say it.
    extent
        The field of view in mm along the line (without oversampling), lines and partitions, or None.
    pattern
        What prom wrote of the mask: columns, rows or points; else None.
    receiver
        The relative noise bandwidth of the receiver: how much of the noise of an even spectrum is left in a scan of noise; else 1.
    """

    kind: str
    matrix: tuple[int, int, int]
    width: int
    centres: tuple[int | None, int | None]
    extent: tuple[float, float, float] | None = None
    pattern: str | None = None
    receiver: float = 1.0


@dataclass(frozen=True)
class Line:
    """One readout.

    Attributes
    ----------
    data
        ``(coils, samples)`` complex64.
    purpose
        ``image``, ``reference`` (for sensitivities alone), ``unfit`` (the same, with other samples than the image's lines) or ``noise``.
    calibration
        Whether it is marked as calibration data; an image's line can be.
    slice, line, partition, segment
        Its counters.
    alike
        Counters that all lines of one image share.
    dwell
        Time between samples, in any unit that all lines share; 0 where unknown.
    position
        Of the slice's centre in mm, or None.
    """

    data: np.ndarray
    purpose: str = "image"
    calibration: bool = False
    slice: int = 0
    line: int = 0
    partition: int = 0
    segment: int = 0
    alike: dict[str, int] = field(default_factory=dict)
    dwell: float = 0.0
    position: tuple[float, float, float] | None = None


def by_place(positions: Sequence[tuple[float, float, float] | None]) -> list[int] | None:
    """The slices as they lie on a line, where that is not the order of their numbers, as of interleaved slices; else None.

    Which end is the first follows from the numbers, as far as they go one way.

    >>> by_place([(0, 0, 0), (0, 0, 10), (0, 0, 5), (0, 0, 15)]), by_place([(0, 0, 10), (0, 0, 5), (0, 0, 0)])
    ([0, 2, 1, 3], None)
    """
    if len(positions) < 3 or None in positions or not np.isfinite(positions).all():
        return None
    points = np.array(positions, dtype=float)
    spread = points - points.mean(axis=0)
    axis = np.linalg.svd(spread, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.abs(axis).round(6).argmax()])
    along = spread @ axis
    away, apart = np.abs(spread - np.outer(along, axis)).max(), np.diff(np.sort(along)).min()
    if not apart > 0 or away > EVEN * apart:  # they do not lie on one line, or two at one place
        return None
    order = (along if np.corrcoef(along, np.arange(len(along)))[0, 1] > -TINY else -along).argsort().tolist()
    return None if order == list(range(len(order))) else order


Lines = Generator[Line, None, None]  # close it where not all are taken: it holds a file open


class Grid:
    """K-space, and how often each of its lines was measured; lines are put in their places as they come.

    Parameters
    ----------
    path
        Of the file, for messages.
    geometry
        Where a centre is None, it is ``n // 2``.
    outside
        What a line outside the matrix means, for the message.
    way
        What can be done where there are several phases or repetitions, for the message.

    Attributes
    ----------
    slices
        By number ``(coils, lines, partitions, samples)`` complex64, a sum over what was measured again.
    counts
        By number ``(lines, partitions)``.
    """

    def __init__(self, path: Path, geometry: Geometry, outside: str, way: str = "") -> None:
        self.path, self.geometry, self.outside, self.way = path, geometry, outside, way
        self.first: dict[str, int] = {}
        self.segments: dict[tuple[int, int, int], int] = {}
        self.slices: dict[int, np.ndarray] = {}
        self.counts: dict[int, np.ndarray] = {}

    def check_one(self, counters: dict[str, int]) -> None:
        """Refuse a file in which some lines are, e.g., of another contrast."""
        self.first = self.first or counters
        for name, value in counters.items():
            if value != self.first[name]:
                way = self.way if name in ("phase", "repetition") else ""
                raise InputError(f"{self.path}: has several {name}s ({self.first[name]}, {value}, ...); {way}save one of them alone")

    def add(self, line: Line) -> None:
        """Put one line in its place; what is measured again is added."""
        samples, *lengths = self.geometry.matrix
        places = []
        for name, number, length, centre in zip(
            ("line", "partition"), (line.line, line.partition), lengths, self.geometry.centres, strict=True
        ):
            centre = length // 2 if centre is None else centre
            places.append(number + length // 2 - centre)
            if not 0 <= places[-1] < length:
                raise InputError(f"{self.path}: {name} {number} of {length} with the centre at {centre}: {self.outside}")
        if line.slice not in self.slices:
            shape = (len(line.data), *lengths, line.data.shape[-1])
            check_declared(self.path, (len(self.slices) + 1, *shape), np.dtype(np.complex64), axes=(5,))
            self.slices[line.slice], self.counts[line.slice] = np.zeros(shape, np.complex64), np.zeros(lengths, int)
        row, partition = places
        place = self.slices[line.slice][:, row, partition]
        if place.shape != line.data.shape:
            raise InputError(f"{self.path}: has lines of shape {place.shape} and {line.data.shape} (coils, samples); must be alike")
        if self.segments.setdefault((line.slice, row, partition), line.segment) != line.segment:
            raise InputError(
                f"{self.path}: line {line.line} was measured in the segments {self.segments[line.slice, row, partition]} and "
                f"{line.segment}, and what that means is unclear; save one of them alone"
            )
        place += line.data
        self.counts[line.slice][row, partition] += 1

    def averaged(self) -> tuple[np.ndarray, np.ndarray]:
        """K-space ``(slices, coils, lines, partitions, samples)`` complex64, the mean of what was measured again and 0 where nothing was,
        and how often that was: ``(slices, lines, partitions)``.

        Raises
        ------
        InputError
            Where there is nothing, or slices differ in their number of coils.
        """
        if not self.slices:
            raise InputError(f"{self.path}: has no lines of an image")
        numbers = sorted(self.slices)
        shapes = {self.slices[number].shape for number in numbers}
        if len(shapes) > 1:
            raise InputError(f"{self.path}: has slices of shapes {sorted(shapes)}; must be alike")
        counts = np.stack([self.counts[number] for number in numbers])
        kspace = np.stack([self.slices.pop(number) for number in numbers])
        kspace /= np.maximum(counts, 1)[:, None, :, :, None]
        return kspace, counts
