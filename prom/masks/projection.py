"""Exact projection onto the masks that the budget allows (Eq. 6 and 7; derivation in A.2 and in chapter 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prom.engine.device import asynchronous
from prom.errors import InputError

# Newton's method on a piecewise linear function, kept inside a bracket. It ends after 5 to 15 steps on all that we met; should it
# ever cycle, every second step from NEWTON_ONLY on halves the bracket, and the rest of STEPS closes it to rounding.
NEWTON_ONLY, STEPS = 16, 144
LARGE = 2.0**20  # above it double precision has no small parts of 1 to spare for lambda
MOST_WITH_COST = 2.0**30
ROUNDING = 4 * torch.finfo(torch.float64).eps  # of a term of the sum; in vector registers it is added up in several parts


def project(theta: Tensor, budget: float | Tensor, cost: Tensor | None = None) -> Tensor:
    r"""Nearest point of :math:`\{\theta : 0 \le \theta_i \le 1, \sum_i \theta_i \le S\}` in the Euclidean sense.

    :math:`\theta = \min(1, \max(0, \tilde\theta - \max(0, \lambda)))` (Eq. 7) where :math:`\lambda` solves
    :math:`\sum_i \min(1, \max(0, \tilde\theta_i - \lambda)) = S` (Eq. 6). The sum falls piecewise linearly in :math:`\lambda`, so Newton's
    method, kept inside a shrinking bracket, ends exactly. O(D) per step, float64 inside. On a CUDA device, which would have to wait to
    know when to end, the places where the slope changes are sorted instead.

    Differentiable wherever the projection is: the Jacobian is :math:`I - 11^T / |A|` on the entries A strictly between 0 and 1 where the
    budget binds, I on them where it does not, and 0 elsewhere.

    Parameters
    ----------
    theta
        Any shape and real dtype, any finite values; whole numbers become float64.
    budget
        S, 0 <= S <= D; need not be whole. On a CUDA device also a scalar tensor there, of a number above 0 that is not looked at.
    cost
        Positive, of theta's shape: what each entry takes of the budget, :math:`\sum_i c_i \theta_i \le S`, so that
        :math:`\theta = \min(1, \max(0, \tilde\theta - \lambda c))`; by default 1.

    Returns
    -------
    Tensor
        Shape and floating dtype of ``theta``, in [0, 1], its sum at most S (to rounding of the dtype).

    Raises
    ------
    InputError
        Where the budget is outside [0, D], costs are not above 0 or of another shape, or theta is not finite, or with costs above 2^30
        (theta is not looked at on a CUDA device, which would have to wait: there the projection of NaN is NaN).

    >>> project(torch.tensor([2.0, 0.6, 0.4, -3.0]), 1.5)
    tensor([1.0000, 0.3500, 0.1500, 0.0000])
    >>> project(torch.tensor([0.2, 0.3]), 1.5)                # within the budget already
    tensor([0.2000, 0.3000])
    >>> project(torch.tensor([0.9, 0.9]), 1.0, cost=torch.tensor([1.0, 2.0]))
    tensor([0.5600, 0.2200])
    """
    theta = theta if theta.dtype.is_floating_point else theta.double()
    if cost is not None and (cost.shape != theta.shape or not (asynchronous(cost) or bool((cost > 0).all()))):
        raise InputError(f"cost of {tuple(cost.shape)}: must be above 0, one for each of theta's {tuple(theta.shape)}")
    most = theta.numel() if cost is None else float(cost.double().sum()) * (1 + 1e-9)  # of a sum, which rounds
    if not isinstance(budget, Tensor) and not 0 <= budget <= most:
        what = "the number of k-space samples" if cost is None else "what all samples cost"
        raise InputError(f"budget {budget}: must lie between 0 and {most:.12g}, {what}")
    finite = asynchronous(theta) or torch.isfinite(theta.detach().sum()) or torch.isfinite(theta).all()  # a finite sum has finite terms
    if not finite:
        raise InputError("theta: has NaN or infinite values, which have no projection")
    if not isinstance(budget, Tensor) and budget == 0:
        return theta * 0
    if cost is not None:
        if not asynchronous(theta) and float(theta.detach().max()) > MOST_WITH_COST:
            raise InputError(f"theta: has values above {MOST_WITH_COST:g}, too large to be told apart with costs; divide it by a unit")
        return _with_costs(theta, budget, cost.double())
    if not asynchronous(theta) and float(theta.detach().max()) > LARGE:
        theta = _moved(theta, math.ceil(budget))
    values = theta.detach().flatten()
    if values.dtype != torch.float32:
        values = values.double()
    multiplier = _multiplier(values, budget)
    if not theta.requires_grad and not asynchronous(values):
        return _clipped(values, multiplier).to(theta.dtype).reshape(theta.shape)
    if not theta.requires_grad:
        return (values.double() - multiplier).clamp_(0, 1).to(theta.dtype).reshape(theta.shape)
    # One more Newton step, now recorded: it moves lambda by nothing, but carries d lambda / d theta = 1 / |A| on A.
    shifted = theta.double() - multiplier
    active = ((shifted > 0) & (shifted < 1)).sum().clamp(min=1)
    step = torch.where(multiplier > 0, (shifted.clamp(0, 1).sum() - budget) / active, 0.0)
    return (shifted - step).clamp(0, 1).to(theta.dtype)


def dual_slope(values: Tensor, multiplier: Tensor, budget: float) -> tuple[Tensor, Tensor]:
    r"""g'(lambda) of the dual function, Eq. 14, and the number of entries strictly inside (0, 1), which is minus its own slope.

    :math:`g'(\lambda) = \sum_i \min(1, \max(0, \tilde\theta_i - \lambda)) - S`. ``values`` is 1D, float32 or float64; both results are
    scalars, the first in float64.

    >>> dual_slope(torch.tensor([0.5, 2.0]).double(), torch.tensor(0.25).double(), 1.0)
    (tensor(0.2500, dtype=torch.float64), tensor(1))
    """
    if asynchronous(values):
        shifted = values.double() - multiplier
        return shifted.clamp(0, 1).sum() - budget, ((shifted > 0) & (shifted < 1)).sum()
    from prom.engine import kernels

    total, inside = kernels.clipped_sum(kernels.flat(values), float(multiplier))
    return torch.tensor(total - budget, dtype=torch.float64), torch.tensor(inside)


def _moved(theta: Tensor, count: int) -> Tensor:
    """Values with the same projection, of which none is large.

    With c the value that ``count``, the budget rounded up, of them reach, lambda lies from c - 1 to c: above it fewer than S could be
    above 0, below it all of those are 1 already. So what is above c + 2 is as good as c + 2, and from large c all can be moved to 2.

    >>> _moved(torch.tensor([3e6, 2e6 + 0.5, 2e6, 0.0]), 2)
    tensor([4.0000, 2.0000, 1.5000, 0.0000])
    """
    c = theta.detach().flatten().kthvalue(theta.numel() - count + 1).values
    if c < LARGE:
        return theta.clamp(max=max(float(c) + 2, 1.0))
    return (theta - c + 2).clamp(0, 4)


def _multiplier(values: Tensor, budget: float | Tensor) -> Tensor:
    """max(0, lambda) of Eq. 7, a float64 scalar on the device of ``values`` (1D)."""
    if asynchronous(values):
        return _by_sorting(values, budget)
    return torch.tensor(_newton(values, float(budget)), dtype=torch.float64)


def _clipped(values: Tensor, multiplier: Tensor) -> Tensor:
    from prom.engine.kernels import clip, flat

    result = torch.empty_like(values)
    clip(flat(values), float(multiplier), flat(result))
    return result


def _newton(values: Tensor, budget: float) -> float:
    """The multiplier on a CPU, until the root is found."""
    from prom.engine.kernels import clipped_sum, flat

    array = flat(values)
    low, high = 0.0, max(float(values.max()), 0.0)  # g'(low) >= 0, unless the budget does not bind; g'(high) = -S <= 0
    tolerance = len(array) * ROUNDING * max(high, 1.0)  # rounding of the sum and of lambda
    multiplier = 0.0
    for step in range(STEPS):
        total, inside = clipped_sum(array, multiplier)
        excess = total - budget
        if excess <= tolerance and (step == 0 or excess >= -tolerance):
            break  # found; in the first step, with lambda = 0 and no excess, the budget does not bind
        if excess > 0:
            low = multiplier
        else:
            high = min(multiplier, high)
        newton = multiplier + excess / inside if inside else math.inf  # then halve
        halve = not low <= newton <= high or (step >= NEWTON_ONLY and step % 2)
        following = (low + high) / 2 if halve else newton
        if following == multiplier:
            break  # the bracket has closed to rounding
        multiplier = following
    return multiplier


def _by_sorting(values: Tensor, budget: float | Tensor) -> Tensor:
    """The multiplier without a look at any number on its way, in a dozen operations: a GPU need not wait, and it sorts in O(D).

    With lambda falling from above, the sum of Eq. 6 begins to grow with an entry where lambda passes it, and ends to where that entry is
    1: between two of these 2 D places it is a straight line.
    """
    values = values.double()
    places, order = torch.cat([values, values - 1]).sort(descending=True)
    inside = torch.where(order < len(values), 1, -1).cumsum(0)  # entries inside (0, 1) right below each place
    sums = ((places[:-1] - places[1:]) * inside[:-1]).cumsum(0)
    sums = torch.cat([sums.new_zeros(1), sums])
    wanted = sums.new_zeros(1).add_(budget)
    last = torch.searchsorted(sums, wanted, right=True) - 1  # at least 0: the first sum is 0
    place, total, slope = (part.gather(0, last) for part in (places, sums, inside))
    return (place - (wanted - total) / slope.clamp(min=1)).clamp(min=0)[0]  # no slope: the sum is D already


def _with_costs(theta: Tensor, budget: float | Tensor, cost: Tensor) -> Tensor:
    """The projection where entries differ in cost: the sum of Eq. 6, each term times its cost, falls by cost squared inside (0, 1)."""
    values, price = theta.detach().double().flatten(), cost.flatten()
    places, order = torch.cat([values / price, (values - 1) / price]).sort(descending=True)
    squares = torch.cat([price.square(), -price.square()])[order].cumsum(0)
    sums = torch.cat([squares.new_zeros(1), ((places[:-1] - places[1:]) * squares[:-1]).cumsum(0)])
    last = (torch.searchsorted(sums, sums.new_zeros(1).add_(budget), right=True) - 1).clamp(max=len(places) - 2)
    slope = squares[last].clamp(min=torch.finfo(torch.float64).tiny)
    multiplier = (places[last] - (budget - sums[last]) / slope).maximum(places[last + 1]).clamp(min=0)  # no lower than the next place
    shifted = theta.double() - multiplier * cost
    active = (shifted > 0) & (shifted < 1)
    # As above one more Newton step, which carries the derivative.
    excess = (cost * shifted.clamp(0, 1)).sum() - budget
    step = torch.where(multiplier > 0, excess / (cost * active).square().sum().clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return (shifted - torch.where(active.any(), step, 0.0) * cost).clamp(0, 1).to(theta.dtype)
