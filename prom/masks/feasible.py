"""Which masks are allowed: the budget, what has to be measured, what cannot be, what it costs, and budgets of several groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import offsets
from prom.kspace.patterns import Lines
from prom.masks import bernoulli, gaps
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
    gap
        Of lines, or None: no two neighbouring measured lines are further apart, nor the outermost ones from the edges
        (:mod:`prom.masks.gaps`). Rounding meets it; the projection leaves it to the rounding. Groups then are bands, one after the other.

    Raises
    ------
    InputError
        Where shapes differ, a sample is mandatory and forbidden, a cost is not positive, the budget is below what is mandatory or
        above all that is allowed, or no mask has so small a gap.

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
    gap: int | None = None

    def __post_init__(self) -> None:
        for name in ("mandatory", "forbidden", "cost", "groups"):
            part = getattr(self, name)
            if part is not None and tuple(part.shape) != tuple(self.shape):
                raise InputError(f"{name} of {tuple(part.shape)}: must have the shape of theta, {tuple(self.shape)}")
        if self.cost is not None and not bool(((self.cost > 0) & self.cost.isfinite()).all()):
            raise InputError("cost: must be finite and above 0 everywhere")
        if self.mandatory is not None and self.forbidden is not None and bool((self.mandatory & self.forbidden).any()):
            raise InputError("mandatory samples: some are forbidden too")
        for free, fixed in self.parts:
            most = fixed + self._costs(free)
            if not fixed <= self.budget <= most:
                raise InputError(f"budget {self.budget:g}: must be from {fixed:g}, which is mandatory, to {most:g}, which is allowed")
        if self.gap is not None:
            if len(self.shape) != 1 or self.cost is not None or (self.groups is not None and bool((self.groups.diff() < 0).any())):
                raise InputError(f"gap {self.gap}: is for lines of one cost, and groups of them that follow one another")
            if not gaps.reachable(self.count, self.gap, **self._arrays()).any():
                raise InputError(f"gap {self.gap}: is too small for {self.count} lines; allow a larger one")

    @classmethod
    def of(cls, pattern: Lines, acceleration: float, **demands: Tensor) -> Feasible:
        """The masks of a pattern at an acceleration: S = floor(D / alpha), demands included."""
        return cls(pattern.shape, pattern.budget(acceleration), **demands)

    @property
    def plain(self) -> bool:
        """Whether there is nothing but a budget."""
        return all(part is None for part in (self.mandatory, self.forbidden, self.cost, self.groups, self.gap))

    @property
    def count(self) -> int:
        """How many samples a mask has, of all groups together; where samples differ in cost, a bound: if all were the cheapest."""
        return math.floor(self.budget if self.cost is None else self.budget / float(self.cost.min())) * len(self.parts)

    def project(self, theta: Tensor, budget: float | Tensor | None = None) -> Tensor:
        """The nearest probabilities that are allowed (Eq. 6, 7), with this budget or another: shape and dtype of theta.

        What is mandatory or forbidden is set, and the rest projected onto what is left of the budget.
        """
        budget = self.budget if budget is None else budget
        if self.plain:
            return project(theta, budget)
        result = torch.zeros_like(theta) if self.mandatory is None else self.mandatory.to(theta)
        for free, fixed in self.parts:
            cost = None if self.cost is None else self.cost[free].to(theta.device)
            free = free.to(theta.device)
            result[free] = project(theta[free], min(max(budget - fixed, 0), self._costs(free)), cost)
        return result

    def round(self, theta: Tensor, budget: float | None = None) -> Tensor:
        """The most probable mask (Eq. 8): what is mandatory, then the largest probabilities; where samples differ in cost, what fits.

        bool of theta's shape; without costs exactly the budget, its whole part. Of equal probabilities that nearest to the centre of
        k-space is taken. With a gap, the lines of largest sum. With another ``budget`` than that of the set, as on the way there, a gap is
        left out.
        """
        if self.plain:
            return bernoulli.mode(theta, math.floor(self.budget if budget is None else budget))
        if not theta.isfinite().all():
            raise InputError("probabilities: have NaN or infinite values")
        if self.gap is not None and budget is None:
            return self._lines(theta)
        budget, device, theta = self.budget if budget is None else budget, theta.device, theta.cpu()
        mask = torch.zeros(self.shape, dtype=torch.bool) if self.mandatory is None else self.mandatory.cpu().clone()
        order = _ranks(theta)
        for free, fixed in self.parts:
            places = free.cpu().flatten().nonzero().flatten()
            places = places[order.flatten()[places].argsort()]
            if self.cost is None:
                mask.view(-1)[places[: max(math.floor(budget - fixed), 0)]] = True
                continue
            left = budget - fixed
            for place in places.tolist():
                if (price := float(self.cost.flatten()[place])) <= left:
                    mask.view(-1)[place], left = True, left - price
        return mask.to(device)

    def fitting(self, wished: Tensor) -> Tensor:
        """What can be had of a wish, bool of this shape: mandatory samples, and those wished for that leave the rest possible.

        >>> Feasible((4,), 2, forbidden=torch.tensor([False, False, True, False])).fitting(torch.tensor([False, True, True, False]))
        tensor([False,  True, False, False])
        """
        within = wished if self.mandatory is None else wished | self.mandatory.to(wished.device)
        return self.round(wished.double()) & within

    def keeping(self, wished: Tensor) -> Feasible:
        """The set of those masks that have all of a wish that can be had."""
        return replace(self, mandatory=self.fitting(wished).cpu())

    def open(self, taken: Tensor) -> Tensor:
        """What may be measured next, bool, where ``taken``, part of an allowed mask with all that is mandatory, is measured already.

        >>> Feasible((4,), 2, gap=2).open(torch.tensor([True, False, False, False]))
        tensor([False, False,  True, False])
        """
        device, taken = taken.device, taken.cpu()
        if self.gap is not None:
            return torch.from_numpy(gaps.reachable(self.count, self.gap, **self._arrays(taken))).to(device) & ~taken.to(device)
        free = torch.zeros(self.shape, dtype=torch.bool)
        for part, fixed in self.parts:
            rest = torch.ones(self.shape, dtype=torch.bool) if part is ... else part.cpu()
            used = fixed + self._costs(rest & taken)
            room = rest & ~taken
            free |= room & ((1 if self.cost is None else self.cost.cpu()) <= self.budget - used)
        return free.to(device)

    def grown(self, taken: Tensor, scores: Tensor, number: int = 1) -> Tensor:
        """``taken``, as of :meth:`open`, and ``number`` more samples, of the largest scores that may be added; fewer where it is full.

        >>> Feasible((5,), 3).grown(torch.arange(5) == 2, torch.tensor([0.0, 3.0, 9.0, 1.0, 2.0]), 2)
        tensor([False,  True,  True, False,  True])
        """
        if not scores.isfinite().all():
            raise InputError("scores: have NaN or infinite values")
        number = min(number, self.count - int(taken.sum()))
        while number > 0:
            room = self.open(taken)
            at_once = number if self.gap is None and self.cost is None else 1
            ranked = torch.where(room, scores, -torch.inf)
            if self.groups is not None:  # in each group the best, as many as it has room for
                left = torch.zeros_like(room)
                for part, fixed in self.parts:
                    part = part.to(room.device)
                    order = _ranks(torch.where(part & room, scores, -torch.inf))
                    left |= part & room & (order < math.floor(self.budget - fixed) - int((part & taken).sum()))
                ranked = torch.where(left, scores, -torch.inf)
            at_once = min(at_once, int(ranked.isfinite().sum()))
            if not at_once:
                break
            taken = taken | (_ranks(ranked) < at_once)
            number -= at_once
        return taken

    def repaired(self, mask: Tensor, before: Tensor) -> Tensor:
        """An allowed mask that has much in common with a mask; what it had ``before`` counts a quarter, so that changes are undone.

        >>> Feasible((4,), 2, gap=2).repaired(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])).int()
        tensor([1, 0, 1, 0], dtype=torch.int32)
        """
        return mask if self.admits(mask) else self.round(mask.double() + before.double() / 4)

    def admits(self, mask: Tensor) -> bool:
        """Whether a mask, bool of this shape, is in the set, with exactly the budget where all samples cost the same.

        >>> Feasible((4,), 2, gap=2).admits(torch.tensor([True, True, False, False]))
        False
        """
        mask = mask.cpu()
        if (self.mandatory is not None and not mask[self.mandatory.cpu()].all()) or (
            self.forbidden is not None and mask[self.forbidden.cpu()].any()
        ):
            return False
        for part, fixed in self.parts:
            used = fixed + self._costs(mask if part is ... else part.cpu() & mask)
            if used > self.budget or (self.cost is None and used != math.floor(self.budget)):
                return False
        return self.gap is None or gaps.holds(mask.numpy(), self.gap, self._arrays()["forbidden"])

    def _lines(self, theta: Tensor) -> Tensor:
        found = gaps.best(theta.double().cpu().numpy(), self.count, self.gap, **self._arrays())
        return torch.from_numpy(found).to(theta.device)

    def _arrays(self, taken: Tensor | None = None) -> dict[str, np.ndarray | None]:
        """What :mod:`prom.masks.gaps` needs."""
        none = torch.zeros(self.shape, dtype=torch.bool)
        mandatory, forbidden = (none if part is None else part.cpu() for part in (self.mandatory, self.forbidden))
        bands = None if self.groups is None else self.groups.unique(return_inverse=True)[1].cpu().numpy()
        return {"mandatory": (mandatory if taken is None else mandatory | taken).numpy(), "forbidden": forbidden.numpy(), "bands": bands}

    def annealed(self, progress: float, *phases: float) -> float:
        """The budget at a moment of the optimisation, from all that is allowed down to this one (A.1).

        ``phases`` as for :func:`prom.masks.schedules.annealed_budget`.
        """
        everything = float(max(fixed + self._costs(free) for free, fixed in self.parts))
        return annealed_budget(progress, self.budget, everything, *phases)

    @cached_property
    def parts(self) -> list[tuple[Tensor | type(...), float]]:
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
