"""The closed form for several coils: energy with repulsion, which keeps apart what the coils can tell from one another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prom import options
from prom.baselines.closed_forms import energy
from prom.baselines.frames import no_volumes
from prom.baselines.in_time import shifted_equispaced
from prom.baselines.repulsion_in_time import PASSES, greedy_in_time
from prom.baselines.repulsion_off_grid import repulsion_off_grid
from prom.baselines.tuned import tuned
from prom.datasets.base import SliceDataset
from prom.engine.kernels import exactly
from prom.errors import InputError, unknown_noise
from prom.kspace.fourier import fft2c
from prom.kspace.patterns import Lines
from prom.masks.demands import Demands, allowed
from prom.masks.feasible import Feasible
from prom.objectives import evenly
from prom.reconstruction.sense import spectrum

STRENGTHS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # of the repulsion, of which training images choose
REACH_SLICES = 16  # whose maps are averaged where each slice has its own: K^2 transforms a slice, and K changes slowly through the head
ROUNDING = 1e-6  # of K's sum
NEAR = 6  # samples, as far as K is looked at among points: farther away it is below a hundredth for coils around a body


def repulsion(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    strength: float | None = None,
    demands: Demands | None = None,
    exact: bool | None = None,
    passes: int | None = None,
) -> Tensor:
    r"""Energy with repulsion: one sample after another, the one of largest

    .. math:: \sum_j K(j - i) \, v_j^2, \qquad v_j = \frac{P_j}{1 + \mu \, (K * m)_j \, P_j / \sigma^2}, \qquad
              K(\delta) = \frac{\sum_{c,c'} |F(\bar S_c S_{c'})(\delta)|^2}{\sum_{c,c'} |F(\bar S_c S_{c'})(0)|^2},

    with P the spectrum (:func:`prom.reconstruction.sense.spectrum`), :math:`\sigma` the noise, m the samples taken so far and K what a
    sample reveals about its neighbours: the weight of a pair in Levine and Hargreaves, arXiv 1710.07837. v is what is not known yet of each
    frequency, and the sum is by how much a further sample lowers it, to first order: A-optimal design, that is the mask of least mean
    error of :class:`prom.reconstruction.sense.Sense`, with its matrix taken as diagonal, and K in the place of that diagonal. :math:`\mu`
    makes up for that: what two samples tell overlaps. Of lines, v is that of every sample, and K the sum along the line.

    Where K has no reach, as with one even coil, what is left is the order of the mean power: :func:`prom.baselines.energy`, exactly.
    Nothing is trained and nothing is random; ``seed`` is not used.

    *Series.* P is of spatial and temporal frequency, and what a sample reveals about other frames follows from it:
    :class:`prom.baselines.repulsion_in_time.Knowledge`, of which this is the case T = 1. That has something to tell of one coil too, where
    :math:`\mu` is 1. Of several frames, the gain is by how much the sum falls in fact; single samples are exchanged afterwards as long as
    it falls; and of two such searches, the second of which begins with a lattice in k and t
    (:func:`prom.baselines.in_time.shifted_equispaced`), that which ends lower is taken.
    With a pattern "still-...", whose samples are measured in all frames, v is that of all temporal frequencies.

    *Readouts off the grid.* Their overlap with each frequency of the grid takes the place of K:
    :func:`prom.baselines.repulsion_off_grid.repulsion_off_grid`.

    Parameters
    ----------
    train
        Slices with ``sensitivities`` (K is the mean over slices, of at most 16, evenly spaced, where each has its own) and ``noise``.
    strength
        :math:`\mu`, from 0 on, off the grid above 0. By default that of six whose masks give the highest mean PSNR with
        :class:`prom.reconstruction.sense.Sense` on eight training slices or series; of one coil 1.
    demands
        What is mandatory comes first; then the best of those samples that leave the rest possible.
    exact, passes
        Of series with a mask for each of several frames: whether gains are exact (the default), or to first order; and how often each
        sample is exchanged at most. With 0 there is no second search either. By default 6; of several coils, where the strength is not
        given, training series choose between 0 and 6 too: where they are few, or the spectrum is not quite theirs, exchange can do harm.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, or ``(T, H, W)`` of series, centred, exactly floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where the noise is not known or 0, the strength is below 0, or ``exact`` or ``passes`` is given where frames have no masks of
        their own.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> repulsion(data, acceleration=64).nonzero().tolist()          # one coil: the energy oracle
    [[4, 4]]
    """
    if strength is not None:
        options.check("strength", strength, "[0, 1e6]")
    if train.trajectory is not None:
        if strength == 0:
            raise InputError(f"strength {strength:g}: must be above 0 off the grid, where nothing else tells candidates apart")
        return repulsion_off_grid(train, acceleration, pattern, strength, demands, exact, passes)
    in_time, lines = train.kind == "series", train.lines(pattern)
    moves = in_time and lines.apart and lines.samples[0] > 1
    for name, value in {"exact": exact, "passes": passes}.items():
        if value is not None and not moves:
            raise InputError(f"{name} {value}: is for series with a mask for each frame; leave it out")
    if train.sensitivities is None and not in_time:
        return energy(train, acceleration, pattern, seed, demands)
    no_volumes("repulsion", train)
    if not train.noise:
        raise unknown_noise(train.name, "which the images are weighed against", noise=train.noise)
    kernel = reach(
        torch.ones(1, *lines.frame.samples, dtype=torch.complex64) if train.sensitivities is None else train.sensitivities, lines
    )
    alone = float(kernel.sum()) < 1 + ROUNDING
    if alone and not in_time:
        return energy(train, acceleration, pattern, seed, demands)
    power, feasible = _by_parameter(spectrum(train), lines), allowed(lines, acceleration, demands)
    kernel = kernel.numpy().reshape(power.shape[-3:-1])

    exact = moves if exact is None else exact
    tried = ((0, PASSES) if moves else (0,)) if passes is None else (options.check("passes", passes, "[0, 1000]", whole=True),)

    def mask(strength: float, passes: int = tried[-1]) -> Tensor:
        given = power, kernel, float(strength / train.noise**2)
        if lines.apart:
            starts = [None]
            if passes and feasible.gap is None:
                starts.append(lines.select(shifted_equispaced(train, acceleration, pattern, centre_share=0, demands=demands)).numpy())
            found = [greedy_in_time(*given, feasible, exact, start, passes) for start in starts]
            taken, _ = min(found, key=lambda one: one[1])
        else:
            taken = greedy(*given, feasible.count) if feasible.plain else _demanded(*given, feasible)
        return lines.forward(torch.from_numpy(taken).reshape(lines.shape)).contiguous()

    if strength is None and alone:
        strength = 1.0
    if strength is not None:
        return mask(strength)
    return tuned(mask, [{"strength": value, "passes": number} for value in STRENGTHS for number in tried], train)[0]


def reach(sensitivities: Tensor, lines: Lines) -> Tensor:
    """K, how much a sample reveals about another at each distance along a pattern's axes: float64 of its shape, centred, 1 at distance 0.

    ``sensitivities``: ``(K, H, W)``, or ``(N, K, H, W)``, of which at most 16 slices, evenly spaced, are taken. Of series, the axes of a
    frame.

    >>> reach(torch.ones(1, 4, 4, dtype=torch.complex64), Lines((4, 4)))[2].tolist()         # one even coil: nothing
    [0.0, 0.0, 1.0, 0.0]
    """
    lines, maps = lines.frame, sensitivities if sensitivities.ndim == 4 else sensitivities[None]
    total = torch.zeros(lines.samples, dtype=torch.float64)
    for index in evenly(len(maps), REACH_SLICES):
        coils = maps[index].to(torch.complex128)
        for one in coils:
            total += fft2c(one.conj() * coils).abs().square().sum(dim=0)
    along = lines.adjoint(total)
    return along / along[tuple(n // 2 for n in lines.shape)]


def _by_parameter(power: Tensor, lines: Lines) -> np.ndarray:
    """``(rows, columns, samples of a parameter)`` for :func:`greedy`: the grid of points, or one row of lines.

    Of series with the same mask in all frames the samples of all temporal frequencies, else with these before: for :func:`greedy_in_time`.
    """
    frame = lines.frame
    power = power if lines.frames else power[None]
    by_line = (power if frame.name == "rows" else power.mT)[:, None]
    power = power[..., None] if len(frame.shape) == 2 else by_line
    return np.ascontiguousarray((power if lines.apart else power.permute(1, 2, 0, 3).flatten(2)).numpy())


def _demanded(power: np.ndarray, kernel: np.ndarray, strength: float, feasible: Feasible) -> np.ndarray:
    """:func:`greedy` where a mask has to meet demands: what is mandatory first, and then what may still be added."""
    known, unknown, gain = (np.zeros(power.shape[:2]) for _ in range(3))
    begin(power, kernel, unknown, gain)
    taken = torch.zeros(feasible.shape, dtype=torch.bool)
    places = [] if feasible.mandatory is None else feasible.mandatory.flatten().nonzero().flatten().tolist()
    for number in range(feasible.count):
        if number >= len(places):
            places.append(int(np.where(feasible.open(taken).numpy().ravel(), gain.ravel(), -np.inf).argmax()))
        taken.view(-1)[places[number]] = True
        take(*divmod(places[number], power.shape[1]), power, kernel, strength, known, unknown, gain)
    return taken.numpy().reshape(power.shape[:2])


@exactly
def greedy(power: np.ndarray, kernel: np.ndarray, strength: float, count: int) -> np.ndarray:
    """``count`` parameters one after another, of largest sum of K v^2 around them; each changes v, and that sum, within K's reach."""
    height, width, _ = power.shape
    taken, known, gain = np.zeros((height, width), np.bool_), np.zeros((height, width)), np.zeros((height, width))
    unknown = np.zeros((height, width))
    begin(power, kernel, unknown, gain)
    for _ in range(count):
        best, row, column = -1.0, 0, 0
        for y in range(height):
            for x in range(width):
                if not taken[y, x] and gain[y, x] > best:
                    best, row, column = gain[y, x], y, x
        taken[row, column] = True
        take(row, column, power, kernel, strength, known, unknown, gain)
    return taken


@exactly
def begin(power: np.ndarray, kernel: np.ndarray, unknown: np.ndarray, gain: np.ndarray) -> None:
    """Before any sample: ``unknown``, the sum of v^2 over the samples of a parameter, and ``gain``, that of K v^2 around it."""
    height, width, depth = power.shape
    up, left = min(NEAR, (height - 1) // 2), (width - 1) // 2 if height == 1 else min(NEAR, (width - 1) // 2)
    middle, centre = height // 2, width // 2
    for y in range(height):
        for x in range(width):
            for k in range(depth):
                unknown[y, x] += power[y, x, k] ** 2
    for y in range(height):  # k-space is periodic, as the transform is
        for x in range(width):
            for i in range(-up, up + 1):
                for j in range(-left, left + 1):
                    gain[y, x] += kernel[middle + i, centre + j] * unknown[(y + i) % height, (x + j) % width]


@exactly
def take(
    row: int,
    column: int,
    power: np.ndarray,
    kernel: np.ndarray,
    strength: float,
    known: np.ndarray,
    unknown: np.ndarray,
    gain: np.ndarray,
) -> None:
    """What a measured parameter changes: ``known``, K * m, around it, and so ``unknown`` and ``gain``."""
    height, width, depth = power.shape
    up, left = min(NEAR, (height - 1) // 2), (width - 1) // 2 if height == 1 else min(NEAR, (width - 1) // 2)
    middle, centre = height // 2, width // 2
    for i in range(-up, up + 1):
        for j in range(-left, left + 1):
            y, x = (row + i) % height, (column + j) % width
            known[y, x] += kernel[middle + i, centre + j]
            now = 0.0
            for k in range(depth):
                now += (power[y, x, k] / (1 + strength * power[y, x, k] * known[y, x])) ** 2
            change = now - unknown[y, x]
            unknown[y, x] = now
            for a in range(-up, up + 1):
                for b in range(-left, left + 1):
                    gain[(y - a) % height, (x - b) % width] += kernel[middle + a, centre + b] * change
