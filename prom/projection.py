"""Exact projection onto the masks that the budget allows (Eq. 6 and 7; derivation in A.2 and in chapter 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from prom.errors import InputError

# Newton's method on a piecewise linear function, kept inside a bracket. It ends after 5 to 15 steps on all that we met; should it
# ever cycle, every second step from NEWTON_ONLY on halves the bracket, and the rest of STEPS closes it to rounding.
NEWTON_ONLY, STEPS = 16, 144
CHUNK = 1 << 16  # entries worked on at once on a CPU: half a megabyte of float64, which stays in its cache


def project(theta: Tensor, budget: float) -> Tensor:
    r"""Nearest point of :math:`\{\theta : 0 \le \theta_i \le 1, \sum_i \theta_i \le S\}` in the Euclidean sense.

    :math:`\theta = \min(1, \max(0, \tilde\theta - \max(0, \lambda)))` (Eq. 7) where :math:`\lambda` solves
    :math:`\sum_i \min(1, \max(0, \tilde\theta_i - \lambda)) = S` (Eq. 6). The sum falls piecewise linearly in :math:`\lambda`, so Newton's
    method, kept inside a shrinking bracket, ends exactly. O(D) per step, float64 inside. On a CUDA device the steps run without
    waiting for the device; on a CPU they stop as soon as the root is found.

    Differentiable wherever the projection is: the Jacobian is :math:`I - 11^T / |A|` on the entries A strictly between 0 and 1 where the
    budget binds, I on them where it does not, and 0 elsewhere.

    Parameters
    ----------
    theta
        Any shape and real dtype, any finite values.
    budget
        S, 0 <= S <= D; need not be whole.

    Returns
    -------
    Tensor
        Shape and dtype of ``theta``, in [0, 1], its sum at most S (to rounding of the dtype).

    Raises
    ------
    InputError
        Where the budget is outside [0, D] or theta is not finite.

    >>> project(torch.tensor([2.0, 0.6, 0.4, -3.0]), 1.5)
    tensor([1.0000, 0.3500, 0.1500, 0.0000])
    >>> project(torch.tensor([0.2, 0.3]), 1.5)                # within the budget already
    tensor([0.2000, 0.3000])
    """
    if not 0 <= budget <= theta.numel():
        raise InputError(f"budget {budget}: must lie between 0 and {theta.numel()}, the number of k-space samples")
    if not torch.isfinite(theta).all():
        raise InputError("theta: has NaN or infinite values, which have no projection")
    if budget == 0:
        return theta * 0
    values = theta.detach().flatten().double()
    multiplier = _multiplier(values, float(budget))
    if not theta.requires_grad:
        return (values - multiplier).clamp_(0, 1).to(theta.dtype).reshape(theta.shape)
    # One more Newton step, now recorded: it moves lambda by nothing, but carries d lambda / d theta = 1 / |A| on A.
    shifted = theta.double() - multiplier
    active = ((shifted > 0) & (shifted < 1)).sum().clamp(min=1)
    step = torch.where(multiplier > 0, (shifted.clamp(0, 1).sum() - budget) / active, 0.0)
    return (shifted - step).clamp(0, 1).to(theta.dtype)


def dual_slope(values: Tensor, multiplier: Tensor, budget: float) -> tuple[Tensor, Tensor]:
    r"""g'(lambda) of the dual function, Eq. 14, and the number of entries strictly inside (0, 1), which is minus its own slope.

    :math:`g'(\lambda) = \sum_i \min(1, \max(0, \tilde\theta_i - \lambda)) - S`. ``values`` is 1D float64; both results are scalars.

    >>> dual_slope(torch.tensor([0.5, 2.0]).double(), torch.tensor(0.25).double(), 1.0)
    (tensor(0.2500, dtype=torch.float64), tensor(1))
    """
    chunks = values.split(CHUNK) if values.device.type == "cpu" else (values,)
    total, inside = -budget, 0
    for chunk in chunks:
        shifted = chunk - multiplier
        inside = inside + ((shifted > 0) & (shifted < 1)).sum()
        total = total + shifted.clamp_(0, 1).sum()
    return total, inside


def _multiplier(values: Tensor, budget: float) -> Tensor:
    """max(0, lambda) of Eq. 7, a float64 scalar on the device of ``values`` (1D float64)."""
    on_cpu = values.device.type == "cpu"
    low = values.new_zeros(())  # g'(low) >= 0, unless the budget does not bind
    high = values.max().clamp(min=0)  # g'(high) = -S <= 0
    tolerance = values.numel() * torch.finfo(values.dtype).eps * high.clamp(min=1)  # rounding of the sum and of lambda
    multiplier = low
    for step in range(STEPS):
        excess, inside = dual_slope(values, multiplier, budget)
        done = excess.abs() <= tolerance
        if step == 0:
            done = excess <= tolerance  # lambda = 0 and no excess: the budget does not bind
            high = torch.where(done, low, high)
        if on_cpu and done:
            break
        low = torch.where(excess > 0, multiplier, low)
        high = torch.where(excess < 0, torch.minimum(multiplier, high), high)
        newton = multiplier + excess / inside  # infinite or NaN where no entry is inside: then halve
        halve = ~((newton >= low) & (newton <= high))
        if step >= NEWTON_ONLY and step % 2:
            halve = torch.ones_like(halve)
        following = torch.where(done, multiplier, torch.where(halve, (low + high) / 2, newton))
        if on_cpu and following == multiplier:
            break  # the bracket has closed to rounding
        multiplier = following
    return multiplier
