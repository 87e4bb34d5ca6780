"""Which masks are allowed: the budget, what has to be measured, what cannot be, what it costs, and budgets of several groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.kspace.patterns import Lines
from prom.masks import bernoulli
from prom.masks.projection import project
from prom.masks.schedules import annealed_budget


@dataclass(frozen=True, eq=False)
class Feasible:
    r"""The set of Eq. 3: :math:`0 \le \theta \le 1` and :math:`\langle c, \theta \rangle \le S`, 1 where mandatory, 0 where forbidden.

    Parameters
    ----------
    shape
        Of theta.
    budget
        S, mandatory samples included; of every group the same where there are groups.
    mandatory, forbidden
        Bool of this shape, or None: what is measured in any case, and what never is.
    cost
        Positive, of this shape, or None: what each sample takes of the budget; by default 1.
    groups
        int64 of this shape, or None: the group, such as a frame, whose budget each sample counts towards.

    Raises
    ------
    InputError
        Where shapes differ, a sample is mandatory and forbidden, a cost is not positive, or the budget is below what is mandatory or
        above all that is allowed.

    >>> centre = torch.tensor([False, False, True, False])
    >>> lines = Feasible((4,), 2, mandatory=centre, forbidden=torch.tensor([True, False, False, False]))
    >>> lines.project(torch.tensor([0.9, 0.8, 0.1, 0.4])), lines.round(torch.tensor([0.9, 0.3, 0.0, 0.2]))
    (tensor([0.0000, 0.7000, 1.0000, 0.3000]), tensor([False,  True,  True, False]))
    """

    shape: tuple[int, ...]
    budget: float
    mandatory: Tensor | None = None
    forbidden: Tensor | None = None
    cost: Tensor | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("mandatory", "forbidden", "cost", "groups"):
            part = getattr(self, name)
            if part is not None and tuple(part.shape) != tuple(self.shape):
                raise InputError(f"{name} of {tuple(part.shape)}: must have the shape of theta, {tuple(self.shape)}")
        if self.cost is not None and not bool(((self.cost > 0) & self.cost.isfinite()).all()):
            raise InputError("cost: must be finite and above 0 everywhere")
        if self.mandatory is not None and self.forbidden is not None and bool((self.mandatory & self.forbidden).any()):
            raise InputError("mandatory samples: some are forbidden too")
        for free, fixed in self._parts:
            most = fixed + self._costs(free)
            if not fixed <= self.budget <= most:
                raise InputError(f"budget {self.budget:g}: must be from {fixed:g}, which is mandatory, to {most:g}, which is allowed")

    @classmethod
    def of(cls, pattern: Lines, acceleration: float, **demands: Tensor) -> Feasible:
        """The masks of a pattern at an acceleration: S = floor(D / alpha), demands included."""
        return cls(pattern.shape, pattern.budget(acceleration), **demands)

    @property
    def plain(self) -> bool:
        """Whether there is nothing but a budget."""
        return all(part is None for part in (self.mandatory, self.forbidden, self.cost, self.groups))

    def project(self, theta: Tensor, budget: float | Tensor | None = None) -> Tensor:
        """The nearest probabilities that are allowed (Eq. 6, 7), with this budget or another: shape and dtype of theta.

        What is mandatory or forbidden is set, and the rest projected onto what is left of the budget.
        """
        budget = self.budget if budget is None else budget
        if self.plain:
            return project(theta, budget)
        result = torch.zeros_like(theta) if self.mandatory is None else self.mandatory.to(theta)
        for free, fixed in self._parts:
            cost = None if self.cost is None else self.cost[free]
            result[free] = project(theta[free], min(max(budget - fixed, 0), self._costs(free)), cost)
        return result

    def round(self, theta: Tensor) -> Tensor:
        """The most probable mask (Eq. 8): what is mandatory, then the largest probabilities; where samples differ in cost, what fits.

        bool of theta's shape; without costs exactly the budget. Of equal probabilities that nearest to the centre of k-space is taken.
        """
        if self.plain:
            return bernoulli.mode(theta, self.budget)
        mask = torch.zeros(self.shape, dtype=torch.bool, device=theta.device) if self.mandatory is None else self.mandatory.clone()
        order = _ranks(theta)
        for free, fixed in self._parts:
            places = free.flatten().nonzero().flatten()
            places = places[order.flatten()[places].argsort()]
            if self.cost is None:
                mask.view(-1)[places[: math.floor(self.budget - fixed)]] = True
                continue
            left = self.budget - fixed
            for place in places.tolist():
                if (price := float(self.cost.flatten()[place])) <= left:
                    mask.view(-1)[place], left = True, left - price
        return mask

    def annealed(self, progress: float, *phases: float) -> float:
        """The budget at a moment of the optimisation, from all that is allowed down to this one (A.1).

        ``phases`` as for :func:`prom.masks.schedules.annealed_budget`.
        """
        everything = float(max(fixed + self._costs(free) for free, fixed in self._parts))
        return annealed_budget(progress, self.budget, everything, *phases)

    @cached_property
    def _parts(self) -> list[tuple[Tensor | type(...), float]]:
        """Of every group what may be chosen, bool, and what its mandatory samples cost."""
        if self.plain:
            return [(..., 0)]
        free = torch.ones(self.shape, dtype=torch.bool)
        for taken in (self.mandatory, self.forbidden):
            free = free if taken is None else free.to(taken.device) & ~taken
        places = [torch.ones_like(free)] if self.groups is None else [self.groups == group for group in self.groups.unique()]
        return [(free & there, 0 if self.mandatory is None else self._costs(self.mandatory & there)) for there in places]

    def _costs(self, chosen: Tensor | type(...)) -> float:
        if chosen is ...:
            return math.prod(self.shape)
        return int(chosen.sum()) if self.cost is None else float(self.cost[chosen].double().sum())


def _ranks(theta: Tensor) -> Tensor:
    """The place of each probability in falling order; of equal ones, nearest to the centre of k-space first."""
    distance = offsets(theta.shape).square().sum(dim=-1).to(theta.device)
    near = distance.flatten().argsort(stable=True)
    order = near[theta.flatten()[near].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device)).reshape(theta.shape)
