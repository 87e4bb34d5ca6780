"""The closed form for readouts off the grid: energy with repulsion, with the readouts' own overlap as the kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom import options
from prom.baselines.angles import equal_angles
from prom.baselines.tuned import tuned
from prom.datasets.base import SliceDataset
from prom.errors import InputError
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

    the error that is left of :class:`prom.reconstruction.sense.Sense` if the inverse of its matrix is taken as diagonal, with the
    :func:`overlaps` :math:`a_{s,j}` of candidate s and frequency j of the grid, P the spectrum and :math:`\sigma` the noise. One after
    another, the candidate by which J falls most; then each is exchanged for the best one in its place, as long as J falls. A second such
    search begins with equal angles, where the candidates have angles, and that which ends lower is taken.

    Parameters and errors are those of :func:`prom.baselines.repulsion.repulsion`, but that gains are always exact.

    >>> from prom.kspace.trajectories import spokes
    >>> bump = torch.hann_window(16).outer(torch.hann_window(16))[None, None] + 0j
    >>> data = SliceDataset("demo", "train", bump, ["a"], [0], noise=0.01).along(spokes(12, size=16))
    >>> int(repulsion_off_grid(data, acceleration=4, strength=1.0)[:, 0].sum())
    4
    """
    if exact is not None:
        raise InputError(f"exact {exact}: is for series on a grid; leave it out")
    if train.kind != "slices":
        raise InputError(f"repulsion: of readouts off the grid it is for slices, and {train.name} has {train.kind}; use equal_angles")
    if not train.noise:
        raise InputError(f"{train.name}: its noise is not known, which the images are weighed against; give its reader noise=...")
    lines = train.choices(pattern)
    feasible = allowed(lines, acceleration, demands)
    passes = PASSES if passes is None else options.check("passes", passes, "[0, 1000]", whole=True)
    overlap, power = overlaps(train), spectrum(train)

    starts = [None]
    if passes and train.trajectory.turns is not None:
        starts.append(equal_angles(train, acceleration, pattern, demands=demands).any(dim=-1))

    def mask(strength: float) -> Tensor:
        found = [greedy(overlap, power, strength / train.noise**2, feasible, passes, start) for start in starts]
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
    encoding = train.trajectory.encoding(train.shape)
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
    total = torch.zeros(twice, dtype=torch.complex128)
    for index in evenly(len(maps), REACH_SLICES):
        coils = maps[index].to(torch.complex128)
        for one in coils:
            total += torch.fft.fftn(one.conj() * coils, s=twice, dim=axes).abs().square().sum(dim=0)
    kappa = torch.fft.ifftn(total, dim=axes).conj()
    return (kappa * (math.prod(train.shape[axis] for axis in axes) / total.flatten()[0])).to(torch.complex64)


def greedy(
    overlap: Tensor, power: Tensor, strength: float, feasible: Feasible, passes: int = 0, start: Tensor | None = None
) -> tuple[Tensor, float]:
    r"""Candidates one after another, the one by which :math:`J = \sum_j P_j / (1 + \mu\, a_j P_j / \sigma^2)` falls most, a their sum.

    ``strength``: :math:`\mu / \sigma^2`. ``start``: a mask to begin with, ``(K,)`` bool, instead of what is mandatory. Afterwards, as often
    as ``passes`` says, each is exchanged for the best one in its place, as long as J falls. Returns what is taken, ``(K,)`` bool, and J.
    """
    overlap, power = overlap.flatten(1), power.flatten().to(overlap)
    scaled = strength * power
    known = torch.zeros_like(power)
    mandatory = torch.zeros(len(overlap), dtype=torch.bool) if feasible.mandatory is None else feasible.mandatory
    taken = (mandatory if start is None else start).clone()
    for place in taken.nonzero().flatten().tolist():
        known += overlap[place]

    def best() -> int:
        left = (power / (1 + scaled * (known + overlap))).sum(dim=1, dtype=torch.float64)
        return int(torch.where(feasible.open(taken), left, torch.inf).argmin())

    def move(place: int, sign: int) -> None:
        taken[place] = sign > 0
        known.add_(overlap[place], alpha=sign)

    for _ in range(feasible.count - int(taken.sum())):
        move(best(), 1)
    for _ in range(passes):
        before = taken.clone()
        for place in (taken & ~mandatory).nonzero().flatten().tolist():
            move(place, -1)
            move(best(), 1)
        if taken.equal(before):
            break
    return taken, float((power / (1 + scaled * known)).sum(dtype=torch.float64))
