"""The closed form for readouts off the grid: energy with repulsion, with the readouts' own overlap as the kernel."""

from __future__ import annotations

import math
from copy import copy

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.baselines.angles import equal_angles, readouts, waves
from prom.baselines.tuned import tuned
from prom.datasets.base import SliceDataset
from prom.engine.kernels import exactly
from prom.errors import InputError, unknown_noise
from prom.masks.demands import Demands, allowed
from prom.masks.feasible import Feasible
from prom.objectives import evenly
from prom.reconstruction.sense import spectrum

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of which training images choose
PASSES = 6  # through all readouts of a mask, at most

REACH_SLICES = 16  # whose maps are averaged where each slice has its own
CHUNK = 32  # candidates whose point-spread functions are made at once


def repulsion_off_grid(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "spokes",
    strength: float | None = None,
    demands: Demands | None = None,
    exact: bool | None = None,
    passes: int | None = None,
) -> Tensor:
    r"""Energy with repulsion of readouts off the grid: those of least

    .. math:: J = \sum_j \frac{P_j}{1 + \mu\, a_j P_j / \sigma^2}, \qquad a_j = \sum_{s \in m} a_{s,j},

    the error that is left of :class:`prom.reconstruction.sense.Sense` if its matrix is taken as diagonal, with the
    :func:`overlaps` :math:`a_{s,j}` of candidate s and frequency j of the grid, P the spectrum and :math:`\sigma` the noise. One after
    another, the candidate by which J falls most; then each is exchanged for the best one in its place, as long as J falls. A second such
    search begins with the best of masks whose angles have a density like a wave (:func:`prom.baselines.angles.waves`), where the candidates
    have angles; of series, with equal angles. That which ends lower is taken: exchange moves one readout at a time, and cannot turn all of
    them a little.

    Of series it is followed from frame to frame: :class:`Knowledge`. Parameters and errors are those of
    :func:`prom.baselines.repulsion.repulsion`, but that gains are always exact, with ``exact`` refused; that the strength is above 0, and
    by default chosen by training images with one coil too; and that ``passes``, by default 6, is of slices as well.

    >>> from prom.kspace.trajectories import spokes
    >>> bump = torch.hann_window(16).outer(torch.hann_window(16))[None, None] + 0j
    >>> data = SliceDataset("demo", "train", bump, ["a"], [0], noise=0.01).along(spokes(12, size=16))
    >>> int(repulsion_off_grid(data, acceleration=4, strength=1.0)[:, 0].sum())
    4
    """
    if exact is not None:
        raise InputError(f"exact {exact}: is for series on a grid; leave it out")
    lines = readouts("repulsion", train, pattern)
    if strength is not None:
        options.check("strength", strength, "(0, 1e6]")
    if not train.noise:
        raise unknown_noise(train.name, "which the images are weighed against", noise=train.noise)
    feasible = allowed(lines, acceleration, demands)
    passes = PASSES if passes is None else options.check("passes", passes, "[0, 1000]", whole=True)
    overlap, power = overlaps(train), spectrum(train)

    starts: list[Tensor] = []
    if passes and train.trajectory.turns is not None:
        masks = (
            [equal_angles(train, acceleration, pattern, demands=demands)] if lines.apart else waves(train, acceleration, pattern, demands)
        )
        starts = [mask.any(dim=-1) for mask in masks]

    def mask(strength: float) -> Tensor:
        given = overlap, power, strength / train.noise**2
        nothing = Knowledge(*given)
        begin = [None, min(starts, key=lambda start: nothing.after(start).error())] if starts else [None]
        found = [greedy(*given, feasible, passes, start) for start in begin]
        return lines.forward(min(found, key=lambda one: one[1])[0]).contiguous()

    if strength is not None:
        return mask(strength)
    return tuned(mask, [{"strength": value} for value in STRENGTHS], train)[0]


def overlaps(train: SliceDataset) -> Tensor:
    r"""What each candidate tells of each frequency of the grid: ``(K, *image)`` float32.

    .. math:: a_{s,j} = \sum_{r} K(k_{s,r} - j), \qquad
              K(\delta) = \sum_l \kappa(l) \, e^{-2 \pi i \, \delta \cdot l / N} \Big/ \sum_l \kappa(l), \qquad
              \kappa(l) = \sum_n \big| \sum_c \bar S_c(n) S_c(n - l) \big|^2,

    with K that of :func:`prom.baselines.repulsion.repulsion`, now between any two frequencies: the sum over all samples r of a readout.
    So on the grid, of readouts that are its lines, a is K added up along them.
    """
    encoding = train.trajectory.encoding(train.shape[-len(train.axes) :])
    kappa = _kappa(train)
    found = []
    for first in range(0, len(train.trajectory), CHUNK):
        some = range(first, min(first + CHUNK, len(train.trajectory)))
        weight = torch.zeros(len(some), *encoding.samples)
        for place, index in enumerate(some):
            weight[place].select(-2, index)[:] = 1
        found.append(encoding.on_grid(encoding.spread(weight) * kappa).clamp(min=0))
    return torch.cat(found)


def _kappa(train: SliceDataset) -> Tensor:
    """``(2 H, 2 W)`` complex64, distance 0 first, times the number of pixels, which the point-spread function is divided by."""
    axes = train.axes
    twice = [2 * train.shape[axis] for axis in axes]
    maps = train.maps(range(len(train)) if train.own_maps else [0])
    maps = maps.squeeze(-3) if train.kind == "series" else maps
    total = torch.zeros(twice, dtype=torch.complex128)
    for index in evenly(len(maps), REACH_SLICES):
        coils = maps[index].to(torch.complex128)
        for one in coils:
            total += torch.fft.fftn(one.conj() * coils, s=twice, dim=axes).abs().square().sum(dim=0)
    kappa = torch.fft.ifftn(total, dim=axes).conj()
    return (kappa * (math.prod(train.shape[axis] for axis in axes) / total.flatten()[0])).to(torch.complex64)


class Knowledge:
    r"""What the readouts taken so far leave unknown, and by how much each further one would lower it.

    As :class:`prom.baselines.repulsion_in_time.Knowledge`, exact in time and diagonal in k, with the overlaps :math:`a_{s,j}` for K: of
    frequency j of the grid is left

    .. math:: V_j = \big( C_j^{-1} + \operatorname{diag}_t \mu\, a_{t,j} / \sigma^2 \big)^{-1}, \qquad a_{t,j} = \sum_{s \in m_t} a_{s,j},

    a number where there is one frame, and :math:`J = \sum_j \operatorname{tr} V_j`.

    Parameters
    ----------
    overlap
        :func:`overlaps`, ``(K, *image)``.
    power
        P, ``(*image)`` of slices or ``(T, *image)`` of series, centred in temporal frequency.
    strength
        :math:`\mu / \sigma^2`.

    >>> known = Knowledge(torch.eye(2), torch.tensor([4.0, 1.0]), strength=1.0)
    >>> known.gains(0).tolist()                                            # 4 becomes 4 / (1 + 4), 1 becomes 1 / 2
    [3.2, 0.5]
    >>> known.take(0, 0)
    >>> round(known.error(), 6)
    1.8
    """

    def __init__(self, overlap: Tensor, power: Tensor, strength: float) -> None:
        self.weight = (strength * overlap.flatten(1)).float().contiguous()
        power = power.reshape(-1, self.weight.shape[1]).double()
        lag = torch.arange(len(power), dtype=torch.float64)
        waves = torch.polar(torch.ones_like(power[:, :1]), 2 * math.pi / len(power) * torch.outer(lag, lag - len(power) // 2)) / len(power)
        along = (waves @ power.to(torch.complex128)).T  # C by its lag, (N, T)
        self.left = along[:, (lag[:, None] - lag).long() % len(power)]
        self.left = self.left.real.contiguous() if len(power) == 1 else self.left.contiguous()

    def gains(self, frame: int) -> Tensor:
        """By how much each candidate, measured in this frame, would lower J: ``(K,)`` float64."""
        column = self.left[:, :, frame]
        square, own = column.abs().square().sum(dim=1), column[:, frame].real.contiguous()
        return torch.from_numpy(lowered(self.weight.numpy(), square.numpy(), own.numpy()))

    def take(self, frame: int, place: int, back: bool = False) -> None:
        """Measure a candidate in a frame, or ``back``: no longer."""
        weight, column = self.weight[place].double() * (-1 if back else 1), self.left[:, :, frame]
        factor = weight / (1 + weight * column[:, frame].real)
        self.left = self.left - factor[:, None, None] * column[:, :, None] * column[:, None].conj()

    def after(self, mask: Tensor) -> Knowledge:
        """What is left after all readouts of a mask, ``(K,)`` or ``(T, K)`` bool; this one stays as it is."""
        found = copy(self)
        for frame, place in mask.view(-1, len(self.weight)).nonzero().tolist():
            found.take(frame, place)
        return found

    def error(self) -> float:
        """J, in the units of P."""
        return float(self.left.diagonal(dim1=1, dim2=2).real.sum())


@exactly
def lowered(weight: np.ndarray, square: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The sum of ``w |V e_t|^2 / (1 + w V_tt)`` over frequencies for every candidate, in one pass over memory."""
    found = np.zeros(len(weight))
    for candidate in range(len(weight)):
        total = 0.0
        for j in range(len(square)):
            w = np.float64(weight[candidate, j])
            total += w * square[j] / (1 + w * own[j])
        found[candidate] = total
    return found


def greedy(
    overlap: Tensor, power: Tensor, strength: float, feasible: Feasible, passes: int = 0, start: Tensor | None = None
) -> tuple[Tensor, float]:
    """One readout after another, that of the largest gain of :class:`Knowledge`, until a mask is complete; and its J.

    What is mandatory comes first, or all of ``start``, a complete mask. Then, as often as ``passes`` says, each is taken out and the best
    one put in its place, until nothing changes. The mask is bool of the shape of ``feasible``, ``(K,)`` or ``(T, K)``.
    """
    fixed = torch.zeros(feasible.shape, dtype=torch.bool) if feasible.mandatory is None else feasible.mandatory
    taken = (fixed if start is None else start).clone()
    by_frame, fixed = taken.view(-1, len(overlap)), fixed.view(-1, len(overlap))
    known = Knowledge(overlap, power, strength).after(taken)

    def best() -> tuple[int, int]:
        open_ = feasible.open(taken).view_as(by_frame)
        gains = torch.full(by_frame.shape, -torch.inf, dtype=torch.float64)
        for frame in open_.any(dim=1).nonzero().flatten().tolist():
            gains[frame] = torch.where(open_[frame], known.gains(frame), -torch.inf)
        return divmod(int(gains.argmax()), len(overlap))

    def move(frame: int, place: int, back: bool = False) -> None:
        by_frame[frame, place] = not back
        known.take(frame, place, back)

    for _ in tqdm(range(feasible.count - int(taken.sum())), desc="readouts", delay=2, disable=None, leave=False):
        move(*best())
    for _ in tqdm(range(passes), desc="exchange of readouts", delay=2, disable=None, leave=False):
        before = taken.clone()
        for frame, place in (by_frame & ~fixed).nonzero().tolist():
            move(frame, place, back=True)
            move(*best())
        if taken.equal(before):
            break
    return taken, known.error()
