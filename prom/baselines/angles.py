"""Rivals off the grid: readouts at equal angles, at golden angles, and at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from prom import options
from prom.baselines.frames import sets
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.patterns import Readouts
from prom.kspace.trajectories import GOLDEN, Trajectory
from prom.masks.demands import Demands, allowed

FINE = 4096  # angles at which a density is looked at
AMPLITUDES, DIRECTIONS, STARTS = (0.0, 0.1, 0.2, 0.3), 8, (0.0, 0.25, 0.5, 0.75)  # of waves
ROUNDED = 2  # decimals of the step between candidates to which distances are compared, so that rounding decides nothing


def equal_angles(
    train: SliceDataset, acceleration: float, pattern: str = "spokes", seed: int = 0, start: float = 0.0, demands: Demands | None = None
) -> Tensor:
    """Readouts at equal angles from one another, each frame of a series turned against the one before by 0.618 of that angle.

    Parameters
    ----------
    train
        Slices, volumes or series on a trajectory with ``turns``; of them only the trajectory is looked at.
    start
        The first angle, as a share of that between two, 0 to 1.
    seed
        Not used: nothing is random.

    Returns
    -------
    Tensor
        A mask of candidates ``(K, R)`` bool, those nearest to the wanted angles, each once: exactly S.

    Raises
    ------
    InputError
        Where the data are on a grid, or the candidates' angles are not known.

    >>> from prom.kspace.trajectories import spokes
    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]).along(spokes(8, size=8))
    >>> equal_angles(data, acceleration=2)[:, 0].int().tolist()
    [1, 0, 1, 0, 1, 0, 1, 0]
    """
    options.check("start", start, "[0, 1]")
    return _nearest("equal_angles", train, acceleration, pattern, demands, _evenly(start))


def golden_angle(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "spokes",
    seed: int = 0,
    start: float = 0.0,
    order: int = 1,
    demands: Demands | None = None,
) -> Tensor:
    r"""Each readout turned against the one before by a golden angle: Winkelmann et al. 2007, doi:10.1109/TMI.2006.885337.

    .. math:: \psi_n = \frac{1}{\varphi + n - 1}, \qquad \varphi = \frac{1 + \sqrt 5}{2},

    as a share of the turn after which readouts repeat: half a turn of spokes. With n from 2 on the angle is a tiny one (Wundrak et al.
    2016, doi:10.1002/mrm.25831). Readouts go on from frame to frame of a series.

    Parameters
    ----------
    start
        The first angle, as a share of that turn.
    order
        n.
    train, seed
        As :func:`equal_angles`, and so what it returns and raises.

    >>> from prom.kspace.trajectories import spokes
    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]).along(spokes(8, size=8))
    >>> golden_angle(data, acceleration=2)[:, 0].int().tolist()                        # 0, 111, 42, 154 degrees
    [1, 0, 1, 0, 0, 1, 0, 1]
    """
    options.check("start", start, "[0, 1]")
    options.check("order", order, "[1, 1000]", whole=True)
    step = 1 / ((1 + math.sqrt(5)) / 2 + order - 1)
    return _nearest(
        "golden_angle",
        train,
        acceleration,
        pattern,
        demands,
        lambda frame, first, count: start + step * (first + torch.arange(count, dtype=torch.float64)),
    )


def anisotropic_angles(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "spokes",
    seed: int = 0,
    start: float = 0.0,
    threshold: float = 0.05,
    demands: Demands | None = None,
) -> Tensor:
    r"""Spokes that are closer where the object is wider across them: Larson, Gurney and Nishimura 2008, doi:10.1109/TMI.2007.902799.

    At the end of the spokes, N / 2 from the centre, neighbours are to be one cycle over the object's width apart. So the density of angles
    is in proportion to the width w across the spoke,

    .. math:: \rho(\vartheta) \propto w(\vartheta + \pi / 2),

    and S of them cut its integral into equal parts. Of a disc these are equal angles.

    Parameters
    ----------
    start
        The first angle, as a share of that between two, 0 to 1.
    threshold
        Of the largest magnitude of all training images: the object is where one of them has more, seen along all lines of a direction.
    train, seed
        As :func:`equal_angles`, and so what it returns and raises; and where the readouts are no spokes.

    >>> from prom.kspace.trajectories import spokes
    >>> wide = torch.zeros(1, 1, 32, 32)
    >>> wide[..., 12:20, :] = 1                                              # four times as wide as high
    >>> data = SliceDataset("demo", "train", wide, ["a"], [0]).along(spokes(32, size=32))
    >>> [int(part.sum()) for part in anisotropic_angles(data, acceleration=2)[:, 0].roll(8).chunk(2)]    # along the rows, along the columns
    [6, 10]
    """
    options.check("start", start, "[0, 1]")
    options.check("threshold", threshold, "(0, 1)")
    lines = readouts("anisotropic_angles", train, pattern)
    if lines.kind != "spokes":
        raise InputError(f"anisotropic_angles: is for spokes, and these are {lines.kind}; use equal_angles")
    magnitude = train.images[:].abs().flatten(0, -3).amax(dim=0)
    places = (magnitude > threshold * magnitude.max()).nonzero().double()
    grid = torch.linspace(0, 1, FINE + 1, dtype=torch.float64)[:-1]
    across = torch.stack([(math.pi * grid).cos(), -(math.pi * grid).sin()])  # of a spoke along (sin, cos)
    width = torch.cat([(lambda along: along.amax(0) - along.amin(0) + 1)(places @ part) for part in across.split(64, dim=1)])
    return _nearest("anisotropic_angles", train, acceleration, pattern, demands, _by_density(width, start))


def waves(train: SliceDataset, acceleration: float, pattern: str = "spokes", demands: Demands | None = None) -> Iterator[Tensor]:
    r"""Masks whose density of angles is a wave, :math:`1 + a \cos 2 \pi (t - \varphi)` at the turn t: of amplitudes a up to 0.3.

    There are equal angles among them, and what anisotropic angles of an ellipse are about. They begin searches
    (:func:`prom.baselines.repulsion_off_grid.repulsion_off_grid`).

    >>> from prom.kspace.trajectories import spokes
    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]).along(spokes(8, size=8))
    >>> {int(mask[:, 0].sum()) for mask in waves(data, acceleration=2)}
    {4}
    """
    turns = torch.arange(FINE, dtype=torch.float64) / FINE
    for amplitude in AMPLITUDES:
        for direction in range(DIRECTIONS if amplitude else 1):
            density = 1 + amplitude * (2 * math.pi * (turns - direction / DIRECTIONS)).cos()
            for start in STARTS:
                yield _nearest("waves", train, acceleration, pattern, demands, _by_density(density, start))


def random_readouts(
    train: SliceDataset, acceleration: float, pattern: str = "spokes", seed: int = 0, demands: Demands | None = None
) -> Tensor:
    """Any of the candidates, all alike, drawn from ``seed``: ``(K, R)`` bool, exactly S.

    >>> from prom.kspace.trajectories import spokes
    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 8), ["a"], [0]).along(spokes(8, size=8))
    >>> int(random_readouts(data, acceleration=2)[:, 0].sum())
    4
    """
    lines = readouts("random_readouts", train, pattern)
    chances = torch.rand(lines.shape, generator=torch.Generator().manual_seed(options.check_seed(seed)), dtype=torch.float32)
    return lines.forward(allowed(lines, acceleration, demands).round(chances)).contiguous()


def readouts(name: str, train: SliceDataset, pattern: str) -> Readouts:
    """The pattern of a baseline that is for trajectories only.

    >>> readouts("golden_angle", SliceDataset("demo", "train", torch.ones(1, 1, 8, 8), ["a"], [0]), "spokes")
    Traceback (most recent call last):
    prom.errors.InputError: golden_angle: is for readouts off the grid, and demo is on it; use pattern spokes, or data.along(...)
    """
    if train.trajectory is None:
        raise InputError(f"{name}: is for readouts off the grid, and {train.name} is on it; use pattern spokes, or data.along(...)")
    return train.choices(pattern)


def distances(name: str, trajectory: Trajectory) -> Callable[[Tensor], Tensor]:
    """From turns ``(S,)`` to their distances from all candidates, ``(S, K)``, in steps between two of these.

    >>> from prom.kspace.trajectories import spokes
    >>> distances("demo", spokes(4, size=4))(torch.tensor([0.9], dtype=torch.float64)).round(decimals=1).tolist()
    [[0.4, 1.4, 1.6, 0.6]]
    """
    turns = trajectory.turns
    if turns is None:
        raise InputError(f"{name}: needs the candidates' angles, and of these {trajectory.kind} they are not known; use random_readouts")
    return lambda wanted: ((turns - wanted[:, None] + 0.5).remainder(1) - 0.5).abs() * len(turns)


def _by_density(density: Tensor, start: float) -> Callable[[int, int, int], Tensor]:
    """Turns that cut the integral of a density over a turn, at FINE places, into equal parts; turned on by golden shares of one a frame."""
    total = density.cumsum(0) / density.sum()

    def wanted(frame: int, first: int, count: int) -> Tensor:
        shares = ((torch.arange(count) + start + frame * GOLDEN) / max(count, 1)).remainder(1).double()
        return torch.searchsorted(total, shares).clamp(max=len(density) - 1).double() / len(density)

    return wanted


def _evenly(start: float) -> Callable[[int, int, int], Tensor]:
    return lambda frame, first, count: (torch.arange(count) + start + frame * GOLDEN) / max(count, 1)


def _nearest(
    name: str,
    train: SliceDataset,
    acceleration: float,
    pattern: str,
    demands: Demands | None,
    wanted: Callable[[int, int, int], Tensor],
) -> Tensor:
    """The free candidates nearest to wanted turns, after what is mandatory; of each frame where these have readouts of their own.

    ``wanted``: of the frame's number, that of the readouts before it, and how many it has, to their turns.
    """
    lines, apart = readouts(name, train, pattern), distances(name, train.trajectory)
    feasible, done = allowed(lines, acceleration, demands), 0
    chosen = torch.zeros(lines.shape, dtype=torch.bool)
    parts = sets(feasible) if lines.apart else [feasible]
    for frame, (part, taken) in enumerate(zip(parts, chosen if lines.apart else [chosen], strict=True)):
        if part.mandatory is not None:
            taken |= part.mandatory
        needed = part.count - int(taken.sum())
        for distance in apart(wanted(frame, done, needed).double()):
            taken[int(torch.where(part.open(taken), distance.round(decimals=ROUNDED), torch.inf).argmin())] = True
        done += needed
    return lines.forward(chosen).contiguous()
