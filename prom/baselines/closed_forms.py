"""Masks that are computed, not learnt and not drawn: the S best samples by power, and those nearest to DC. The seed is not used."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.baselines.frames import each_frame
from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.fourier import opposite
from prom.masks.demands import Demands, allowed
from prom.objectives import Measurements


def energy(train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0, demands: Demands | None = None) -> Tensor:
    r"""The energy oracle: the S samples (or lines) with the most mean power on the training data. No learning.

    For the *complex* zero-filled error the expected loss of Eq. 3 is :math:`\sum_i (1 - \theta_i) P_i` with P the mean power
    spectrum, so this is its exact minimiser (Knoll et al. 2011; Baldassarre et al. 2016). It needs one Fourier transform per image;
    ``seed`` is not used.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> energy(data, acceleration=64).nonzero().tolist()     # a constant image is all DC
    [[4, 4]]
    """
    lines = train.lines(pattern)
    power = lines.adjoint(Measurements(train.images, keep=False, axes=train.axes).power())
    return lines.forward(allowed(lines, acceleration, demands).round(power)).contiguous()


@each_frame
def low_pass(train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0, demands: Demands | None = None) -> Tensor:
    """The S samples (or lines) nearest to DC: a disc, or a band. ``seed`` is not used.

    Distances are in samples along each axis. Of samples at one distance, those first in row-major order win.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 5, 5), ["a"], [0])
    >>> low_pass(data, acceleration=5).int().tolist()
    [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    """
    lines = train.lines(pattern)
    return lines.forward(allowed(lines, acceleration, demands).round(torch.zeros(lines.shape))).contiguous()


def conjugate_energy(
    train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0, demands: Demands | None = None
) -> Tensor:
    r"""The energy oracle for magnitudes of real images, whose k-space has every value twice. No learning; ``seed`` is not used.

    The k-space of a real image x is Hermitian, :math:`X_{-k} = \overline{X_k}`. Split a mask into m = s + a with
    :math:`s_k = (m_k + m_{-k}) / 2` and :math:`a_k = (m_k - m_{-k}) / 2`. Then s X is Hermitian and a X anti-Hermitian, so that
    :math:`r = F^{-1}(m X)` has the real part :math:`F^{-1}(s X)` and the imaginary part :math:`F^{-1}(a X) / i`. Where the imaginary part
    is small against the real one, the magnitude does not see it (it enters squared), and what is left is the error of the real part,

    .. math:: \big\| |r| - |x| \big\|^2 \approx \sum_k (1 - s_k)^2 |X_k|^2 .

    A pair of power P each, 2 P together, so costs 2 P with neither measured, P / 2 with one (half the amplitude of both is missing) and
    0 with both. The first partner gains 3/2 P, the second 1/2 P, and a point that is its own partner P. Gains add up and the first is
    never the smaller, so the S largest minimise the sum exactly. The first partner is the one that comes first in row-major order of the
    centred grid: that with the lower row frequency, or in the same row with the lower column frequency. Lines are paired likewise, line
    n with line -n, and P is the power of the line; a line that is its own partner gains P.

    It is an artefact of emulated k-space, and so is its lead over the energy oracle: a scanner's images have phase, and their k-space no
    such symmetry. Shimron et al. 2022 (doi:10.1073/pnas.2117203119) call results from emulated k-space "data crimes".

    Raises
    ------
    InputError
        Where the images are complex, or the acceleration is out of range.

    >>> x = torch.arange(8.0)
    >>> wave = torch.cos(2 * torch.pi * (x[:, None] + 2 * x) / 8).expand(1, 1, 8, 8) + 9
    >>> conjugate_energy(SliceDataset("demo", "train", wave, ["a"], [0]), 32).nonzero().tolist()   # DC, then one of the wave's pair
    [[3, 2], [4, 4]]
    """
    if train.images.dtype == torch.complex64:
        raise InputError(f"{train.name}: has complex images, whose k-space has no conjugate symmetry; use the baseline energy")
    lines = train.lines(pattern)
    power = lines.adjoint(Measurements(train.images, keep=False, axes=train.axes).power())
    index = torch.arange(power.numel()).reshape(power.shape)
    axes = range(int(lines.apart), index.ndim)  # the opposite frequency in the same frame
    partner = opposite(index, axes)
    power = (power + opposite(power, axes)) / 2  # equal except for rounding
    gain = power * (1.0 + 0.5 * torch.sign(partner - index))
    return lines.forward(allowed(lines, acceleration, demands).round(gain)).contiguous()
