"""A plan of readouts off the grid: every one that a mask measures, in the order of measurement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.trajectories import Trajectory
from prom.masks import MaskResult
from prom.scanner.ordering import order
from prom.scanner.plan import ScanPlan
from prom.scanner.protocol import Protocol

ORDERS = ("linear", "interleaved", "golden")  # the others go by the distance from DC, which every readout meets
STRAIGHT = 1e-3  # cycles per field of view by which samples may lie off a straight line with even steps


@dataclass(frozen=True, eq=False)
class ReadoutPlan(ScanPlan):
    """What is measured when. The axes x, y, z are an image's columns, rows and partitions.

    Attributes
    ----------
    pattern
        ``spokes``, ``spirals``, ``kooshball`` or ``readouts``.
    matrix
        Of the image that the readouts resolve, x first; the last is 1 in 2D.
    fov
        The field of view along these, in metres; of 2D the thickness of the slice is the third.
    steps
        ``(S, 2)`` int64: the number of the candidate, counted from 0, and 0.
    trajectory
        All candidates.
    """

    trajectory: Trajectory | None = None

    @property
    def three_dimensional(self) -> bool:
        return self.trajectory.points.shape[-1] == 3

    @property
    def samples(self) -> int:
        return self.trajectory.points.shape[1]

    @property
    def counters(self) -> Tensor:
        """``(S, 2)`` int64: the number of each in the order of measurement, of a series within its frame, and 0."""
        frame = torch.zeros(len(self.steps), dtype=torch.int64) if self.frame is None else self.frame
        begins = torch.searchsorted(frame, frame)
        return torch.stack([torch.arange(len(frame)) - begins, torch.zeros_like(frame)], dim=1)

    @property
    def lengths(self) -> tuple[int, int, int]:
        return self.samples, int(self.counters[:, 0].max()) + 1, 1

    @property
    def points(self) -> Tensor:
        """``(S, R, 3)`` float64: cycles per field of view along x, y and z."""
        points = self.trajectory.points[self.steps[:, 0]].double().flip(-1)
        return points if self.three_dimensional else torch.nn.functional.pad(points, (0, 1))

    def mask(self) -> Tensor:
        """The mask that the steps make: ``(K, R)`` bool, of 3D ``(1, K, R)``, of a series ``(T, K, R)``."""
        frames = 1 if self.frame is None else int(self.frame.max()) + 1
        selected = torch.zeros(frames, len(self.trajectory), dtype=torch.bool)
        selected[0 if self.frame is None else self.frame, self.steps[:, 0]] = True
        mask = selected[..., None].expand(-1, -1, self.samples)
        return mask if self.three_dimensional or self.frame is not None else mask[0]


def plan(result: MaskResult, protocol: Protocol) -> ReadoutPlan:
    """The plan of a mask of readouts under a protocol.

    Raises
    ------
    InputError
        Where the protocol asks for what such a scan cannot be, or the field of view has the wrong number of values.

    >>> from prom.baselines import as_result
    >>> from prom.kspace.trajectories import spokes
    >>> from prom.masks import MaskResult
    >>> theta = (torch.arange(8) % 2 == 0).float()
    >>> mask = theta.bool()[:, None].expand(8, 4).contiguous()
    >>> result = MaskResult(mask, mask.float(), theta, "spokes", 1.0, {"name": "demo"}, 0, trajectory=spokes(8, size=4))
    >>> made = plan(result, Protocol(order="golden"))
    >>> made.matrix, made.steps[:, 0].tolist(), made.counters[:, 0].tolist()
    ((4, 4, 1), [0, 4, 2, 6], [0, 1, 2, 3])
    """
    kind, trajectory = result.pattern, result.trajectory
    if protocol.kind != "gre":
        raise InputError(f"kind {protocol.kind}: measures lines of a grid, but this mask has {kind}; use kind=gre, or a mask of columns")
    if protocol.readout is not None:
        raise InputError(f"readout {protocol.readout}: a mask of {kind} says itself how many samples it has; leave it out")
    if protocol.oversampling != 1:
        raise InputError(
            f"oversampling {protocol.oversampling}: is of lines and points; make the {kind} with more samples each, and leave it out"
        )
    if protocol.calibration:
        raise InputError(f"calibration {protocol.calibration}: is of lines and points, and every one of the {kind} is whole; leave it out")
    if protocol.order not in ORDERS:
        raise InputError(f"order {protocol.order}: is of lines and points of a grid; of {kind} use {', '.join(ORDERS)}")
    axes = trajectory.points.shape[-1]
    given = tuple(value / 1000 for value in protocol.fov)
    if len(given) not in (1, axes):
        names = "3 (depth, height, width)" if axes == 3 else "2 (height, width)"
        raise InputError(f"fov of {len(given)} values: a mask of {kind} makes a {axes}D sequence, so give 1 or {names}")
    fov = (given * axes if len(given) == 1 else given)[::-1]
    selected = result.lines.select(result.mask)
    steps = order(selected, protocol.order, shots=protocol.shots)
    return ReadoutPlan(
        kind,
        resolved(trajectory),
        fov if axes == 3 else (*fov, (protocol.thickness or 5.0) / 1000),
        torch.cat([steps, torch.zeros_like(steps)], dim=1),
        torch.zeros(len(steps), dtype=torch.bool),
        torch.arange(len(steps)),
        torch.zeros(len(steps), dtype=torch.int64),
        float(result.true_acceleration),
        trajectory=trajectory,
    )


def resolved(trajectory: Trajectory) -> tuple[int, int, int]:
    """The matrix that the candidates resolve, x first: twice their reach, and of R even steps along a line at least R times their length.

    >>> from prom.kspace.trajectories import kooshball, spirals
    >>> resolved(kooshball(50, size=9)), resolved(spirals(50, size=16))
    ((9, 9, 9), (16, 16, 1))
    """
    points = trajectory.points.double()
    count, axes = points.shape[1:]
    ends = 2 * points.flatten(0, 1)
    if straight(points):
        ends = torch.cat([ends, (points[:, -1] - points[:, 0]) * count / max(1, count - 1)])
    own = ends.abs().amax(dim=0) if trajectory.kind == "readouts" else ends.norm(dim=-1).amax().expand(axes)
    sizes = [max(1, round(float(size))) for size in own.flip(0)]
    return (*sizes, 1)[:3]


def straight(points: Tensor) -> bool:
    """Whether all readouts ``(K, R, axes)`` are straight lines with even steps.

    >>> from prom.kspace.trajectories import spirals, spokes
    >>> straight(spokes(8, size=6).points), straight(spirals(8, size=16).points)
    (True, False)
    """
    points = points.double()
    share = torch.linspace(0, 1, points.shape[1], dtype=torch.float64)[:, None]
    lines = points[:, :1] + share * (points[:, -1:] - points[:, :1])
    return bool((lines - points).abs().max() < STRAIGHT)
