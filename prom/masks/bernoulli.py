"""The mask distribution of Eq. 1: drawing from it, differentiating through it, and its most probable mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prom.engine.device import compiles
from prom.engine.random import uniform_numbers
from prom.errors import InputError


def log_probability(mask: Tensor, theta: Tensor) -> Tensor:
    r"""Log of Eq. 1: :math:`\log P(M = m | \theta) = \sum_i m_i \log \theta_i + (1 - m_i) \log (1 - \theta_i)`.

    ``mask`` is bool and ``theta`` float in [0, 1], of one shape; the result is a scalar, ``-inf`` for an impossible mask.

    >>> log_probability(torch.tensor([True, False]), torch.tensor([0.5, 0.5])).exp().item()
    0.25
    """
    return torch.where(mask, theta, 1 - theta).log().sum()  # Eq. 1


def sample(theta: Tensor, generator: torch.Generator, count: int = 1) -> Tensor:
    """Independent hard masks m ~ Bernoulli(theta): ``(count, *theta.shape)``, of theta's dtype, values 0 and 1 (Eq. 1).

    >>> sample(torch.tensor([0.0, 1.0]), torch.Generator().manual_seed(0), 3).tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    uniform = uniform_numbers(generator, (count, *theta.shape), theta)
    return torch.lt(uniform, theta, out=uniform)


def relaxed_sample(theta: Tensor, tau: float, generator: torch.Generator, count: int = 1) -> tuple[Tensor, Tensor]:
    r"""Straight-through Gumbel samples of the paper and their slope: ``RelaxedSamples(theta, tau).draw(generator, count)``.

    >>> hard, slope = relaxed_sample(torch.tensor([0.0, 0.5, 1.0]), 0.5, torch.Generator().manual_seed(0))
    >>> hard.shape, slope[0, 0].item(), slope[0, 2].item()
    (torch.Size([1, 3]), 0.0, 0.0)
    """
    return RelaxedSamples(theta, tau).draw(generator, count)


class RelaxedSamples:
    r"""Straight-through Gumbel samples at one theta and temperature, and their slope.

    The soft mask is :math:`m_{soft} = \sigma((\rho + g_1 - g_0) / \tau)` with :math:`\rho = \log(\theta / (1 - \theta))` (Eq. 4). Used
    forwards is the hard mask :math:`1(m_{soft} \ge 1/2)`, used backwards the soft one (Eq. 5): the gradient with respect to theta is
    the gradient with respect to m times :math:`\partial m_{soft} / \partial \theta = m_{soft} (1 - m_{soft}) / (\tau \theta (1 - \theta))`.
    The difference of two Gumbel variables is logistic, so one uniform draw u gives it: :math:`g_1 - g_0 = \log(u / (1 - u))`.

    At theta = 0 and theta = 1 the slope is set to 0: its limit for tau < 1, and our choice for tau = 1, which only the first iteration
    has. So such a point never moves again by itself, one of the two reasons why the method can lose the centre of k-space. On a CPU, in
    single precision, nothing is drawn for these points, soon most of them: their m is sure.

    Parameters
    ----------
    theta
        Probabilities in [0, 1], any shape.
    tau
        Temperature, > 0.
    """

    def __init__(self, theta: Tensor, tau: float) -> None:
        self.theta, self.tau = theta, tau
        self.fused = compiles(theta)
        probability = theta.flatten()
        if self.fused:
            self.sure = (probability == 1).to(theta.dtype)
            self.open = ((probability > 0) & (probability < 1)).nonzero().flatten()  # on a GPU, which would have to wait: everywhere
            probability = probability[self.open]
        variance = probability * (1 - probability)
        self.reciprocal = torch.where(variance > 0, 1 / (tau * variance), 0.0).clamp(max=torch.finfo(theta.dtype).max)
        self.odds = probability / (1 - probability)

    def draw(self, generator: torch.Generator, count: int = 1) -> tuple[Tensor, Tensor]:
        """``count`` independent samples, hard, and their slopes: both ``(count, *theta.shape)``, of theta's dtype."""
        uniform = uniform_numbers(generator, (count, len(self.odds)), self.theta)
        hard, slope = (self._in_one_pass if self.fused else self._step_by_step)(uniform)
        shape = (count, *self.theta.shape)
        return hard.reshape(shape), slope.reshape(shape)

    def _step_by_step(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        noise = uniform.clamp_(min=torch.finfo(uniform.dtype).tiny).logit_()  # u = 0 would give log(0)
        soft = noise.add_(self.odds.log()).mul_(1 / self.tau).sigmoid_()  # Eq. 4
        hard = (soft >= 0.5).to(soft.dtype)  # Eq. 5, forwards
        return hard, soft.mul_(1 - soft).mul_(self.reciprocal)  # Eq. 5, backwards

    def _in_one_pass(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        from prom.engine.kernels import flat, relax

        hard, slope = (uniform.new_empty(len(uniform), len(self.sure)) for _ in range(2))
        fixed = flat(self.odds), flat(self.reciprocal), np.float32(self.tau), flat(self.open), flat(self.sure)
        relax(uniform.numpy(), *fixed, hard.numpy(), slope.numpy())  # Eq. 4, 5
        return hard, slope


def pull_back(gradient: Tensor, slope: Tensor | None) -> Tensor:
    """The gradient with respect to theta, ``(D,)``: the sum over samples, ``(..., D)``, of their gradients times their slopes.

    ``slope`` has the shape of theta behind the same dimensions; None: 1 everywhere.

    >>> pull_back(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), pull_back(torch.ones(3, 2), None)
    (tensor([1., 5.]), tensor([3., 3.]))
    """
    size = gradient.shape[-1]
    rows = gradient.reshape(-1, size)
    if slope is None:
        return rows.sum(dim=0) if len(rows) > 1 else rows[0]
    slopes = slope.reshape(-1, size)
    if not compiles(gradient):
        return (rows * slopes).sum(dim=0)
    from prom.engine.kernels import flat, product_sum

    total = gradient.new_empty(size)
    product_sum(rows.numpy(), slopes.numpy(), flat(total))
    return total


def mode(theta: Tensor, budget: int) -> Tensor:
    """The most probable mask with exactly ``budget`` samples: the S largest probabilities (Eq. 8).

    Among equal probabilities the one nearest to the centre of k-space wins, so that the answer does not depend on the device.

    Parameters
    ----------
    theta
        Probabilities in the centred layout, ``(H, W)`` or ``(lines,)``.
    budget
        S, 0 <= S <= D.

    Returns
    -------
    Tensor
        bool, theta's shape, exactly ``budget`` entries True.

    Raises
    ------
    InputError
        Where the budget is below 0 or above D, or theta is not finite.

    >>> mode(torch.tensor([0.1, 0.9, 0.4, 0.4]), 2)           # ties: index 2 is the centre of 4
    tensor([False,  True,  True, False])
    """
    if not 0 <= budget <= theta.numel():
        raise InputError(f"budget {budget}: must lie between 0 and {theta.numel()}, the number of k-space samples")
    if not torch.isfinite(theta).all():
        raise InputError("probabilities: have NaN or infinite values")
    if budget == 0:
        return torch.zeros_like(theta, dtype=torch.bool)
    flat = theta.flatten()
    last = flat.kthvalue(len(flat) - budget + 1).values  # the S-th largest, without a full sort
    mask = flat > last
    equal = (flat == last).nonzero().flatten()
    wanted = budget - int(mask.sum())
    if len(equal) > wanted:
        rest, distance = equal, torch.zeros_like(equal)  # torch.unravel_index is slow the first time
        for n in reversed(theta.shape):
            distance += (rest % n - n // 2) ** 2
            rest = rest // n
        equal = equal[distance.argsort(stable=True)[:wanted]]
    mask[equal] = True
    return mask.reshape(theta.shape)


def average(solutions: Sequence[Tensor]) -> Tensor:
    """Bayesian model averaging (paper, section 4): the mean of the probabilities of independently optimised solutions.

    >>> average([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])])
    tensor([0.5000, 1.0000])
    """
    return torch.stack(list(solutions)).mean(dim=0)
