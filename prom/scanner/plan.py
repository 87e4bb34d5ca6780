"""A plan: every measured line or point of a mask, in the order of measurement, with its counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.patterns import Lines, make
from prom.masks import MaskResult
from prom.masks.demands import central
from prom.scanner.ordering import order, trains
from prom.scanner.protocol import Protocol

ECHOES = 8  # of a train by default


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """What is measured when.

    Attributes
    ----------
    pattern
        ``columns``, ``rows`` or ``points``.
    matrix
        Samples along the readout, lines, partitions: the last is 1 in 2D. Of columns the readout is along the rows' index, and the other
        way round; of points it is a third axis, lines are rows of the mask and partitions its columns.
    fov
        The field of view along these three, in metres; of 2D the thickness of the slice is the third.
    steps
        ``(S, 2)`` int64: line and partition, counted from 0, DC at ``n // 2``.
    calibration
        ``(S,)`` bool: within the fully measured centre.
    shot, echo
        ``(S,)`` int64, counted from 0: of a gradient echo, the number in the order, and 0.
    acceleration
        The true one.
    frame
        Of a series in time ``(S,)`` int64, the frame of each, counted from 0; else None.
    oversampling
        How many samples are measured for each of the readout, over a field of view so many times as long.
    """

    pattern: str
    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    steps: Tensor
    calibration: Tensor
    shot: Tensor
    echo: Tensor
    acceleration: float
    frame: Tensor | None = None
    oversampling: int = 1

    @property
    def three_dimensional(self) -> bool:
        """Whether there are partitions."""
        return self.pattern == "points"

    @property
    def samples(self) -> int:
        """That are measured of a readout."""
        return self.matrix[0] * self.oversampling

    @property
    def extent(self) -> float:
        """The field of view along the readout that they have, in metres."""
        return self.fov[0] * self.oversampling

    @property
    def counters(self) -> Tensor:
        """``(S, 2)`` int64: what is counted as LIN and PAR."""
        return self.steps

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Up to what samples and counters count."""
        return self.samples, *self.matrix[1:]

    @property
    def time(self) -> Tensor:
        """``(S,)``: when each is measured, 0 the first."""
        return torch.arange(len(self.steps))

    def mask(self) -> Tensor:
        """The mask that the steps make, ``(H, W)`` bool; of a series ``(T, H, W)``."""
        grid = make(self.pattern, self.shape)
        if self.frame is None:
            selected = torch.zeros(grid.shape, dtype=torch.bool)
            selected[tuple(self.steps[:, : len(grid.shape)].T)] = True
            return grid.forward(selected)
        selected = torch.zeros(int(self.frame.max()) + 1, *grid.shape, dtype=torch.bool)
        selected[(self.frame, *self.steps[:, : len(grid.shape)].T)] = True
        return torch.stack([grid.forward(one) for one in selected])

    @property
    def shape(self) -> tuple[int, int]:
        """Of the mask."""
        readout, lines, partitions = self.matrix
        return {"columns": (readout, lines), "rows": (lines, readout), "points": (lines, partitions)}[self.pattern]


def plan(result: MaskResult, protocol: Protocol, echo_at_centre: int = 1) -> ScanPlan:
    """The plan of a mask under a protocol; ``echo_at_centre``, from 1, matters to a turbo spin echo only.

    Raises
    ------
    InputError
        Where the mask has lines in part, the field of view has the wrong number of values, the calibration region is not measured whole,
        or the protocol asks for what this pattern cannot be.

    >>> from prom.baselines import as_result
    >>> lines = torch.tensor([1, 0, 1, 1, 1, 0, 1, 0]).bool()
    >>> made = plan(as_result(lines.expand(6, 8), "demo", 8 / 5, "columns"), Protocol(calibration=2))
    >>> made.matrix, made.steps[:, 0].tolist(), made.calibration.tolist()
    ((6, 8, 1), [3, 4, 0, 2, 6], [True, True, False, False, False])
    """
    grid = make(result.pattern, tuple(result.mask.shape))
    selected = grid.select(result.mask)
    if result.pattern == "points" and protocol.kind == "tse":
        raise InputError("kind tse: is 2D and measures whole lines, but this mask has points; use kind=gre, or a mask of columns or rows")
    if result.pattern != "points" and protocol.readout is not None:
        raise InputError(
            f"readout {protocol.readout}: a mask of {result.pattern} says itself how long they are, {result.mask.numel() // grid.size}"
        )
    matrix, fov = geometry(result, grid, protocol)
    centre = _calibration(result, selected, protocol)
    if protocol.kind == "tse":
        dealt = trains(selected, train_length(result, protocol), echo_at_centre)
        shots, echoes = dealt.shape[:2]
        steps = dealt.reshape(-1, 1)
        shot, echo = torch.arange(shots).repeat_interleave(echoes), torch.arange(echoes).repeat(shots)
    else:
        steps = order(selected, protocol.order, centre, protocol.shots)
        shot, echo = torch.arange(len(steps)), torch.zeros(len(steps), dtype=torch.int64)
    calibration = centre[tuple(steps.T)]
    if steps.shape[1] == 1:
        steps = torch.cat([steps, torch.zeros_like(steps)], dim=1)
    true = float(result.true_acceleration)
    return ScanPlan(result.pattern, matrix, fov, steps, calibration, shot, echo, true, oversampling=protocol.oversampling)


def frames_of(result: MaskResult) -> list[MaskResult]:
    """The masks of the frames of a series, each of a scan in 2D, or in 3D where they have points.

    Raises
    ------
    InputError
        Where a frame measures nothing.

    >>> from prom.masks import MaskResult
    >>> theta = torch.eye(3)
    >>> mask = theta.bool()[:, None].expand(3, 4, 3).contiguous()
    >>> series = MaskResult(mask, mask.float(), theta, "columns", 3.0, {"name": "demo"}, 0, provenance={"kind": "series"})
    >>> [(one.mask.shape, one.pattern, int(one.mask.sum())) for one in frames_of(series)][:2]
    [(torch.Size([4, 3]), 'columns', 4), (torch.Size([4, 3]), 'columns', 4)]
    """
    lines = result.lines
    found = []
    for number, (mask, probabilities) in enumerate(zip(result.mask, result.probabilities, strict=True)):
        if not mask.any():
            raise InputError(
                f"frame {number}: measures nothing, so it has no scan; make a mask with equally many samples in each (per_frame)"
            )
        found.append(
            replace(
                result,
                mask=mask,
                probabilities=probabilities,
                theta=result.theta[number] if lines.apart else result.theta,
                pattern=lines.frame.name,
                acceleration=mask.numel() / int(mask.sum()),
                provenance={name: value for name, value in result.provenance.items() if name != "kind"},
            )
        )
    return found


def across(result: MaskResult) -> tuple[MaskResult, int]:
    """The points of a 3D scan that measures the lines of a volume: a mask of lines (ky) and partitions (kz), and the samples of a line.

    The partitions of the volume are those of the scan; its rows or columns, whichever are not the readout, are the lines.

    Raises
    ------
    InputError
        Where the volume's mask has points, each of which would be a readout of its own.

    >>> from prom.baselines import as_result
    >>> mask = torch.eye(4, 6).bool()[:, None].expand(4, 5, 6).contiguous()
    >>> points, readout = across(as_result(mask, "demo", 6.0, "columns"))
    >>> points.mask.shape, points.pattern, readout
    (torch.Size([6, 4]), 'points', 5)
    """
    lines = result.lines
    if not lines.readout:
        raise InputError(
            f"mask of {tuple(result.mask.shape)}: has points along all three axes, each a readout of its own; export it as .npy, .mat, "
            ".cfl or .csv without settings, or make a mask of columns or rows"
        )
    [readout] = lines.readout
    theta = result.theta.T.contiguous()
    selected = lines.select(result.mask).T.contiguous()
    return replace(result, mask=selected, probabilities=theta, theta=theta, pattern="points"), result.mask.shape[readout]


def joined(plans: Sequence[ScanPlan]) -> ScanPlan:
    """The plans of the frames of a series as one: frame after frame, the shots counted through."""
    shots, parts = 0, []
    for one in plans:
        parts.append(one.shot + shots)
        shots += int(one.shot.max()) + 1
    return replace(
        plans[0],
        **{name: torch.cat([getattr(one, name) for one in plans]) for name in ("steps", "calibration", "echo")},
        shot=torch.cat(parts),
        frame=torch.cat([torch.full((len(one.steps),), number) for number, one in enumerate(plans)]),
        acceleration=len(plans) / sum(1 / one.acceleration for one in plans),
    )


def geometry(result: MaskResult, grid: Lines, protocol: Protocol) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Matrix and field of view in metres along readout, lines and partitions."""
    height, width = result.mask.shape
    points = grid.name == "points"
    given = tuple(value / 1000 for value in protocol.fov)
    if len(given) > 1 and len(given) != 2 + points:
        raise InputError(
            f"fov of {len(given)} values: this mask makes a {2 + points}D sequence, so give 1 or "
            f"{'3 (readout, lines, partitions)' if points else '2 (height, width)'}"
        )
    fov = given * (2 + points) if len(given) == 1 else given
    if points:
        return (protocol.readout or height, height, width), fov
    thickness = (protocol.thickness or 5.0) / 1000
    if grid.name == "columns":
        return (height, width, 1), (fov[0], fov[1], thickness)
    return (width, height, 1), (fov[1], fov[0], thickness)


def train_length(result: MaskResult, protocol: Protocol) -> int:
    """Echoes of a train: what is asked for, else the segments with equal counts that were demanded of the mask, else 8.

    >>> from prom.baselines import as_result
    >>> train_length(as_result(torch.eye(4).bool(), "demo", 4), Protocol())
    8
    """
    if protocol.echoes is not None:
        return protocol.echoes
    segments = result.demands.segments
    return segments if segments > 1 else ECHOES


def _calibration(result: MaskResult, selected: Tensor, protocol: Protocol) -> Tensor:
    """The centre that is labelled: what is asked for, if it is measured whole; of what the metadata say, what is measured whole."""
    width, demands = protocol.calibration, result.demands
    disc = demands.calibration > 0 and demands.calibration_shape == "disc"
    if width is None:
        noted = demands.calibration or result.recipe.get("calibration", 0)  # a demand, or an option of a baseline
        width = noted if isinstance(noted, int) and not isinstance(noted, bool) and 0 < noted <= max(selected.shape) else 0
        return next(region for w in range(width, -1, -1) if bool(selected[region := central(selected.shape, w, disc)].all()))
    missing = int((~selected & central(selected.shape, width, disc)).sum())
    if missing:
        whole = next(w for w in range(width, -1, -1) if bool(selected[central(selected.shape, w, disc)].all()))
        raise InputError(
            f"calibration {width}: the mask does not measure {missing} of the lines or points of this centre; at most {whole} is measured "
            "whole, or make the mask with a calibration region"
        )
    return central(selected.shape, width, disc)
