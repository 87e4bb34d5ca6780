"""The closed form for several coils: energy with repulsion, which keeps apart what the coils can tell from one another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.baselines.closed_forms import energy
from prom.datasets.base import SliceDataset
from prom.engine.kernels import exactly
from prom.errors import InputError
from prom.kspace.fourier import fft2c
from prom.kspace.patterns import Lines, make
from prom.masks.feasible import Feasible
from prom.objectives import evenly, whole_loss
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import LEAST_POWER, Sense, mean_power

STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of the repulsion, of which training images choose
TUNING_SLICES = 8  # that choose it
REACH_SLICES = 16  # whose maps are averaged where each slice has its own: K^2 transforms a slice, and K changes slowly through the head


def repulsion(train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0, strength: float | None = None) -> Tensor:
    r"""Energy with repulsion: one sample after another, the one of largest

    .. math:: \frac{P_i \, s_i}{(1 + \mu \, s_i \, (K * m)_i)^2}, \qquad s_i = P_i / \sigma^2, \qquad
              K(\delta) = \frac{\sum_{c,c'} |F(\bar S_c S_{c'})(\delta)|^2}{\sum_{c,c'} |F(\bar S_c S_{c'})(0)|^2},

    with P the mean power spectrum, :math:`\sigma` the noise, m the samples taken so far and K what a sample tells of its neighbours: the
    weight of a pair in Levine and Hargreaves, arXiv 1710.07837. This is the diagonal approximation of A-optimal design, that is of the
    mask of least mean error of :class:`prom.reconstruction.sense.Sense`. Of lines, P is the mean along the line and K the sum.

    With one coil K has no reach, and this is :func:`prom.baselines.energy`, exactly. Nothing is trained and nothing is random; ``seed`` is
    not used.

    Parameters
    ----------
    train
        Slices with ``sensitivities`` (K is the mean over slices, of at most 16, evenly spaced, where each has its own) and ``noise``.
    strength
        :math:`\mu`, from 0 (the energy oracle). By default that of six whose masks give the highest mean PSNR with
        :class:`prom.reconstruction.sense.Sense` on eight training slices.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where the noise is not known, or the strength is below 0.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> repulsion(data, acceleration=64).nonzero().tolist()          # one coil: the energy oracle
    [[4, 4]]
    """
    if strength is not None:
        options.check("strength", strength, "[0, 1e6]")
    if train.sensitivities is None:
        return energy(train, acceleration, pattern, seed)
    if not train.noise:
        raise InputError(f"{train.name}: its noise is not known, which repulsion weighs the images against; set SliceDataset.noise")
    lines = make(pattern, train.shape)
    feasible = Feasible.of(lines, acceleration)
    power = _power(train, lines)
    kernel = reach(train.sensitivities, lines)
    if strength is not None:
        return lines.forward(_chosen(power, kernel, train.noise, strength, feasible)).contiguous()
    masks = [lines.forward(_chosen(power, kernel, train.noise, candidate, feasible)).contiguous() for candidate in STRENGTHS]
    few = train.thinned(TUNING_SLICES)
    objective = Reconstructed(few, Sense.of(train), criterion="psnr")
    losses = [
        whole_loss(objective, range(len(few)), mask.float()) for mask in tqdm(masks, desc="repulsion", delay=2, disable=None, leave=False)
    ]
    return masks[int(np.argmin(losses))]


def reach(sensitivities: Tensor, lines: Lines) -> Tensor:
    """K, how much a sample tells of another at each distance along the axes of a pattern: float64 of its shape, centred, 1 at distance 0.

    ``sensitivities``: ``(K, H, W)``, or ``(N, K, H, W)``, of which at most 16 slices, evenly spaced, are taken.

    >>> reach(torch.ones(1, 4, 4, dtype=torch.complex64), Lines((4, 4)))[2].tolist()         # one even coil: nothing
    [0.0, 0.0, 1.0, 0.0]
    """
    maps = sensitivities if sensitivities.ndim == 4 else sensitivities[None]
    total = torch.zeros(lines.samples, dtype=torch.float64)
    for index in evenly(len(maps), REACH_SLICES):
        coils = maps[index].to(torch.complex128)
        for one in coils:
            total += fft2c(one.conj() * coils).abs().square().sum(dim=0)
    along = lines.adjoint(total)
    return along / along[tuple(n // 2 for n in lines.shape)]


def _power(train: SliceDataset, lines: Lines) -> Tensor:
    power = mean_power(train)
    power = lines.adjoint(power) / (power.numel() / lines.size)
    return power.clamp(min=LEAST_POWER * power.max())


def _chosen(power: Tensor, kernel: Tensor, noise: float, strength: float, feasible: Feasible) -> Tensor:
    """The parameters that are measured, bool."""
    shape = power.shape if power.ndim == 2 else (1, len(power))
    taken = greedy(power.reshape(shape).numpy(), kernel.reshape(shape).numpy(), float(strength / noise**2), int(feasible.budget))
    return torch.from_numpy(taken).reshape(power.shape)


@exactly
def greedy(power: np.ndarray, kernel: np.ndarray, strength: float, count: int) -> np.ndarray:
    """``count`` samples one after another, of largest P^2 / (1 + strength P u)^2, u the kernel around all those taken before."""
    height, width = power.shape
    taken, near = np.zeros((height, width), np.bool_), np.zeros((height, width))
    place = np.argmax(power)
    for _ in range(count):
        y, x = place // width, place % width
        taken[y, x] = True
        best = -1.0
        for i in range(height):  # k-space is periodic, as the transform is
            row = kernel[(i - y + height // 2) % height]
            first = (width // 2 - x) % width
            for j in range(width):
                near[i, j] += row[first]
                first = first + 1 if first + 1 < width else 0
                if not taken[i, j]:
                    gain = power[i, j] / (1 + strength * power[i, j] * near[i, j])
                    if gain > best:
                        best, place = gain, i * width + j
    return taken
