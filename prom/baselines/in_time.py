"""Rivals for series in time: shifted lattices, golden steps, points that repel each other, and one mask that is repeated."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.baselines import lattice
from prom.baselines.frames import series, sets
from prom.datasets.base import SliceDataset
from prom.engine.kernels import exactly
from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.kspace.patterns import Lines
from prom.masks import bernoulli
from prom.masks.demands import Demands, allowed
from prom.masks.feasible import Feasible

GOLDEN = (math.sqrt(5) - 1) / 2
ROUNDING = 1e-9  # below which a place is a whole number
SWEEPS = 50  # of vista over all lines; it ends before where none moves


def shifted_equispaced(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    centre_share: float = 0.25,
    shift: float | None = None,
    demands: Demands | None = None,
) -> Tensor:
    r"""Equally spaced lines, or a lattice of points, shifted from frame to frame, about a centre that every frame measures: a k-t lattice.

    Of lines, those of frame t are at :math:`(n + \Delta t) R` for whole n, counted over the lines that are neither in the centre nor
    demanded nor forbidden, with the spacing R that the budget leaves and the shift :math:`\Delta`, a share of R: TSENSE (Kellman et al.
    2001, Magn Reson Med 45:846-852) and k-t BLAST (Tsao et al. 2003, doi:10.1002/mrm.10611). There R is whole; here places are rounded
    down. Of points, the lattice of :func:`prom.baselines.lattice.lattice` has R translations, and frame t has that of number n t modulo R,
    with n the number next to :math:`\Delta R` that has no divisor in common with R, so that R frames together measure everything once.
    Nothing is random; ``seed`` is not used.

    Parameters
    ----------
    centre_share
        Share of the budget, from 0 to 1, that is spent on the samples or lines nearest to DC.
    shift
        :math:`\Delta`, from 0 to 1. By default, of lines, that of the lattice in (k, t) whose nearest points are farthest from each other,
        with R rounded; of points the golden section, about 0.618.

    Returns
    -------
    Tensor
        ``(T, H, W)`` bool, centred, exactly floor(D / alpha) samples or lines; numbers of two frames differ by at most one,
        as far as the demands allow.

    Raises
    ------
    InputError
        Where the data are no series, the pattern is the same in every frame, or a number is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 4, 1, 8), ["a"], [0], kind="series")
    >>> shifted_equispaced(data, 4, centre_share=0)[:, 0].int().tolist()
    [[1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0]]
    """
    lines = _moving("shifted_equispaced", train, pattern)
    options.check("centre_share", centre_share, "[0, 1]")
    if shift is not None:
        options.check("shift", shift, "[0, 1]")
    feasible = allowed(lines, acceleration, demands)
    taken = torch.zeros(lines.shape, dtype=torch.bool)
    for t, frame in enumerate(sets(feasible)):
        frame = frame.keeping(bernoulli.mode(torch.zeros(frame.shape), round(centre_share * frame.count)))
        fixed, left = frame.mandatory, frame.count - int(frame.mandatory.sum())
        outside = ~fixed if frame.forbidden is None else ~fixed & ~frame.forbidden
        if left and len(frame.shape) == 1:
            places = outside.nonzero().flatten()
            spacing = len(places) / left
            step = _widest_shift(spacing) if shift is None else shift
            fixed = fixed.clone()
            shifted = (torch.arange(left, dtype=torch.float64) + step * t % 1) * spacing
            fixed[places[(shifted + ROUNDING).floor().long() % len(places)]] = True
        elif left:
            fixed = fixed | _lattice(frame, outside, left, t, GOLDEN if shift is None else shift)
        taken[t] = frame.round(fixed.float())
    return lines.forward(taken).contiguous()


def golden_step(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    power: float = 0.0,
    centre_share: float = 0.0,
    demands: Demands | None = None,
) -> Tensor:
    r"""Lines by golden-ratio steps through k-space, on from frame to frame: number j is at the quantile :math:`j g` modulo 1 of a density.

    :math:`g = (\sqrt 5 - 1) / 2`, so that any run of lines, in one frame or several, is spread nearly evenly over the density,
    :math:`(1 - r)^p` with r the distance to the middle of k-space in half widths, which for even sizes is half a line beside DC. A line
    that its frame has already is replaced by the nearest that it has not. The golden step and a warp towards DC are those of CAVA (Rich et
    al. 2020, doi:10.1002/mrm.28059) and GRO (Joshi et al. 2022, arXiv 2206.03630), whose density is another one. Nothing is random;
    ``seed`` is not used.

    Parameters
    ----------
    power
        p, from 0 (even) on.
    centre_share
        Share of the budget, from 0 to 1, that is spent on the lines nearest to DC, in every frame.

    Returns
    -------
    Tensor
        ``(T, H, W)`` bool, centred, exactly floor(D / alpha) lines; numbers of two frames differ by at most one,
        as far as the demands allow.

    Raises
    ------
    InputError
        Where the data are no series, the pattern is not "columns" or "rows", or a number is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 3, 1, 8), ["a"], [0], kind="series")
    >>> golden_step(data, 4)[:, 0].int().tolist()
    [[1, 0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0, 0, 0]]
    """
    lines = _of_lines("golden_step", train, pattern)
    options.check("power", power, "[0, 1000]")
    options.check("centre_share", centre_share, "[0, 1]")
    taken, number = torch.zeros(lines.shape, dtype=torch.bool), 0
    size = lines.shape[1]
    index = torch.arange(size)
    for t, frame in enumerate(sets(allowed(lines, acceleration, demands))):
        frame = frame.keeping(bernoulli.mode(torch.zeros(frame.shape), round(centre_share * frame.count)))
        chosen = frame.mandatory.clone()
        while (open_ := frame.open(chosen)).any():
            place = _quantile(number * GOLDEN % 1, power) * size
            number += 1
            distance = (index + 0.5 - place).abs()
            chosen[int(torch.where(open_, distance, math.inf).argmin())] = True
        taken[t] = chosen
    return lines.forward(taken).contiguous()


def vista(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    width: float = 0.15,
    peak: float = 0.8,
    time: float = 4.0,
    demands: Demands | None = None,
) -> Tensor:
    r"""Lines that repel each other in (k, t), those near DC less: a local minimum of the Riesz energy, like VISTA.

    .. math:: U = \sum_{i < j} \frac{q_i q_j}{(k_i - k_j)^2 + \tau^2 (t_i - t_j)^2}, \qquad q = 1 - a \, e^{-k^2 / 2 (s N)^2},

    over all measured lines i, of frame :math:`t_i` and :math:`k_i` lines from DC, with their charges q: Ahmad et al. 2015,
    doi:10.1002/mrm.25507, "variable density incoherent spatiotemporal acquisition".

    Differences: they move lines continuously along the gradient and round them in the end; here every line in turn moves to the free
    place of its frame with the least energy, until none moves, so that each frame's number of lines is exact and demands are met. Their
    step that fills up the mean over time, so that every line is measured at least once, is left out. It starts at places drawn at random
    from ``seed``, with the density 1 / q.

    Parameters
    ----------
    width
        s, the width of what is dense, in widths of k-space: above 0, up to 10.
    peak
        a, from 0 (even) to 0.999.
    time
        :math:`\tau`, how many lines one frame counts for in a distance: from 0.01 to 1000.

    Returns
    -------
    Tensor
        ``(T, H, W)`` bool, centred, exactly floor(D / alpha) lines; numbers of two frames differ by at most one,
        as far as the demands allow.

    Raises
    ------
    InputError
        Where the data are no series, the pattern is not "columns" or "rows", or a number is out of range.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 4, 1, 8), ["a"], [0], kind="series")
    >>> vista(data, 4)[:, 0].sum(dim=1).tolist()
    [2, 2, 2, 2]
    """
    lines = _of_lines("vista", train, pattern)
    options.check("width", width, "(0, 10]")
    options.check("peak", peak, "[0, 0.999]")
    options.check("time", time, "[0.01, 1000]")
    size = lines.shape[1]
    charge = 1 - peak * (-(((torch.arange(size) - size // 2) / (width * size)).double() ** 2) / 2).exp()
    generator = torch.Generator().manual_seed(options.check_seed(seed))
    taken, movable, possible = (torch.zeros(lines.shape, dtype=torch.bool) for _ in range(3))
    for t, frame in enumerate(sets(allowed(lines, acceleration, demands))):
        if frame.groups is not None:
            raise InputError("vista: moves lines through all of a frame; leave out segments")
        uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp_(min=torch.finfo(torch.float64).tiny)
        taken[t] = frame.round(-(-uniform.log()).log() - charge.log())  # drawn one after the other, as densities.gaussian does
        fixed = torch.zeros(size, dtype=torch.bool) if frame.mandatory is None else frame.mandatory
        possible[t] = ~fixed if frame.forbidden is None else ~fixed & ~frame.forbidden
        movable[t] = taken[t] & ~fixed
    spread_out(taken.numpy(), movable.numpy(), possible.numpy(), charge.numpy(), time, SWEEPS)
    return lines.forward(taken).contiguous()


def _moving(name: str, train: SliceDataset, pattern: str) -> Lines:
    lines = series(name, train, pattern)
    if not lines.apart:
        raise InputError(f"{name}: moves from frame to frame; use pattern {lines.frame.name}, or repeated for {pattern}")
    return lines


def _of_lines(name: str, train: SliceDataset, pattern: str) -> Lines:
    lines = _moving(name, train, pattern)
    if len(lines.shape) != 2:
        raise InputError(f"{name}: makes lines; use pattern columns or rows, or shifted_equispaced for points")
    return lines


def _widest_shift(spacing: float) -> float:
    whole = max(1, round(spacing))
    return lattice.widest([(whole, 1)])[2] / whole


def _lattice(frame: Feasible, outside: Tensor, left: int, t: int, shift: float) -> Tensor:
    """Points of the lattice of least R that fits into what is left of a frame, in the translation of this frame, bool."""
    reduction = max(1, math.floor(int(outside.sum()) / left))
    y, x = offsets(frame.shape).unbind(dim=-1)
    while True:
        sizes = [(n, reduction // n) for n in range(1, reduction + 1) if reduction % n == 0]
        rows, columns, sheared = lattice.widest(sizes)
        across, down = divmod(_coprime(shift, reduction) * t % reduction, rows)
        found = outside & ((x - across) % columns == 0) & ((y - down - sheared * ((x - across) // columns)) % rows == 0)
        if int(found.sum()) <= left:
            return found
        reduction += 1


def _coprime(share: float, whole: int) -> int:
    return min((n for n in range(1, whole + 1) if math.gcd(n, whole) == 1), key=lambda n: abs(n - share * whole))


def _quantile(share: float, power: float) -> float:
    """Where the density (1 - r)^p, over [0, 1] with r the distance to the middle in halves, has this share before it."""
    signed = 2 * share - 1
    return 0.5 + 0.5 * math.copysign(1 - (1 - abs(signed)) ** (1 / (power + 1)), signed)


@exactly
def spread_out(taken: np.ndarray, movable: np.ndarray, possible: np.ndarray, charge: np.ndarray, time: float, sweeps: int) -> None:
    """Move one line after another to the place of its frame where the energy is least, until none moves; ``taken`` changes."""
    frames, size = taken.shape
    energy = np.empty(size)
    for _ in range(sweeps):
        moved = False
        for t in range(frames):
            for line in range(size):
                if not movable[t, line]:
                    continue
                taken[t, line] = False
                energy[:] = 0
                for s in range(frames):
                    for other in range(size):
                        if taken[s, other]:
                            for k in range(size):
                                if k != other or s != t:
                                    energy[k] += charge[k] * charge[other] / ((k - other) ** 2 + (time * (t - s)) ** 2)
                place = line
                for k in range(size):
                    if possible[t, k] and not taken[t, k] and energy[k] < energy[place]:
                        place = k
                taken[t, place] = True
                if place != line:
                    movable[t, line], movable[t, place] = False, True
                    moved = True
        if not moved:
            return
