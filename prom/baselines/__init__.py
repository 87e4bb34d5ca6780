"""What ProM is compared with: masks that need no learning, and (in :mod:`prom.baselines.rivals`) other ways to learn one.

Every baseline is ``(train, acceleration, pattern=, seed=, demands=, **options) -> mask``: ``(H, W)`` bool, centred, exactly
floor(D / alpha) samples or lines, with whatever :class:`prom.masks.demands.Demands` there are ("equispaced" has others with
``exact_budget=False``). "energy", "conjugate_energy", "repulsion", "repeated", "anisotropic_angles" and "a_optimal" look at the training
images, "best_candidate" at their coils, the others at their size only; "equispaced", "gaussian", "polynomial", "poisson_disc", "vista"
and "random_readouts" draw at random from ``seed``. Rivals look at the images, and most of them draw too.
:func:`prom.baselines.tuned.tuned` chooses the options of any of them by training slices.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from torch import Tensor

from prom import methods
from prom.baselines.closed_forms import conjugate_energy, energy, low_pass
from prom.baselines.densities import equispaced, gaussian, poisson_disc, polynomial
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown
from prom.kspace.patterns import make
from prom.masks import MaskResult, as_mask, provenance
from prom.masks.demands import Demands
from prom.options import check_seed

__all__ = [
    "BASELINES",
    "RIVALS",
    "as_result",
    "conjugate_energy",
    "default_pattern",
    "energy",
    "equispaced",
    "gaussian",
    "get",
    "low_pass",
    "poisson_disc",
    "polynomial",
]


class _Functions(Mapping[str, Callable[..., Tensor]]):
    """The functions of the registry's baselines, or of those that learn, by name."""

    def __init__(self, learning: bool) -> None:
        self.learning = learning

    def __getitem__(self, name: str) -> Callable[..., Tensor]:
        if name not in methods.baselines(self.learning):
            raise KeyError(name)
        return methods.METHODS[name].resolve()

    def __iter__(self) -> Iterator[str]:
        return iter(methods.baselines(self.learning))

    def __len__(self) -> int:
        return len(methods.baselines(self.learning))


BASELINES, RIVALS = _Functions(learning=False), _Functions(learning=True)


def default_pattern(name: str) -> str:
    """The pattern that a baseline makes when none is given.

    >>> default_pattern("equispaced")
    'columns'
    """
    given, possible = inspect.signature(get(name)).parameters.get("pattern"), methods.METHODS[name].patterns
    return given.default if given and given.default in possible else possible[0]


def with_demands(name: str, demands: Demands) -> dict[str, Demands]:
    """What a baseline has to be given for these demands.

    Raises
    ------
    InputError
        Where there are demands, and the baseline, one from outside, has no such argument.

    >>> with_demands("energy", Demands())
    {}
    """
    if demands.plain:
        return {}
    if "demands" not in inspect.signature(get(name)).parameters:
        raise InputError(f"baseline {name}: has no argument demands; leave out {demands.describe()}")
    return {"demands": demands}


def get(name: str) -> Callable[..., Tensor]:
    """The baseline called ``name``.

    >>> get("energie")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prom.errors.InputError: baseline 'energie' is not known; did you mean 'energy'? (known: a_optimal, ...)
    """
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    return BASELINES[name]


def as_result(
    mask: Tensor,
    name: str,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    train: SliceDataset | None = None,
    options: dict[str, object] | None = None,
) -> MaskResult:
    """A mask that was not optimised, as a :class:`MaskResult` that can be saved and exported: its probabilities are 0 and 1.

    ``options`` are those that the baseline was called with, ``demands`` among them.
    """
    trajectory = None if train is None else train.trajectory
    mask = as_mask(mask, tuple(np.shape(mask)), name) if train is None else as_mask(mask, tuple(train.grid), train.name)
    lines = make(pattern, tuple(mask.shape), train is not None and train.kind == "series") if trajectory is None else train.choices(pattern)
    theta = lines.adjoint(mask.float()) / (mask.numel() / lines.size)
    record = {} if train is None else provenance(train, {"objective": f"baseline {name}"}, "cpu")
    demands = (options or {}).get("demands") or Demands()
    recipe = {"name": name, **{option: value for option, value in (options or {}).items() if option != "demands"}}
    recipe |= {} if demands.plain else {"demands": demands.as_dict()}
    return MaskResult(
        mask, mask.float(), theta, pattern, float(acceleration), recipe, check_seed(seed), provenance=record, trajectory=trajectory
    )
