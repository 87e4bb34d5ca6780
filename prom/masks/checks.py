"""What every mask with its probabilities and its metadata must satisfy, whether it was just made or comes out of a file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.patterns import LARGEST_MASK, READOUTS, Lines
from prom.masks.demands import Demands

if TYPE_CHECKING:
    from prom.masks import MaskResult

LONGEST_RECORD = 2**20 + LARGEST_MASK // 2  # bytes of recipe or provenance as JSON; demands have two masks, of six bits a letter


def check(result: MaskResult) -> None:
    """Whether the fields of a mask fit each other.

    Mask and probabilities are constant along the pattern's lines; as many samples are measured as the acceleration allows (of the baseline
    equispaced with ``exact_budget=False`` others); its demands are met; where nothing was polished, and no gap asked for another, none is
    less probable than one of its band that is not measured.

    Raises
    ------
    InputError
        Where they do not; the message says which.
    """
    _check_numbers(result, *_check_arrays(result))
    for name in ("recipe", "provenance"):
        record_as_json(name, getattr(result, name))
    if not isinstance(result.recipe.get("name"), str):
        raise InputError("its recipe has no name")
    history = result.history
    values = history.to_numpy(dtype=float)
    if not np.isfinite(values).all() or (history[["member", "iteration"]] < 0).any(axis=None):
        raise InputError("its history has NaN, infinite or negative numbers")
    if not history["active_fraction"].between(0, 1).all():
        raise InputError("its history has shares outside 0 to 1")


def record_as_json(name: str, record: dict[str, object]) -> str:
    """Recipe or provenance as the text that a file holds.

    Raises
    ------
    InputError
        Where it is no dictionary, holds what JSON cannot say (NaN, objects), or is too long.

    >>> record_as_json("recipe", {"name": "energy"})
    '{"name": "energy"}'
    """
    if not isinstance(record, dict):
        raise InputError(f"its {name} is no dictionary, but of type {type(record).__name__}")
    try:
        text = json.dumps(record, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"its {name} is no JSON ({error})") from error
    if len(text) > LONGEST_RECORD:
        raise InputError(f"its {name} has {len(text)} characters; at most {LONGEST_RECORD} are possible")
    return text


def _check_arrays(result: MaskResult) -> tuple[Lines, Tensor]:
    mask, probabilities, theta = result.mask, result.probabilities, result.theta
    if mask.dtype != torch.bool or mask.ndim not in (2, 3) or not 0 < mask.numel() <= LARGEST_MASK:
        raise InputError(f"its mask is {_described(mask)}; it must be bool, 2D or 3D, with 1 to {LARGEST_MASK} samples")
    if (result.pattern in READOUTS) != (result.trajectory is not None) or result.trajectory and result.trajectory.kind != result.pattern:
        raise InputError(f"its pattern is {result.pattern}, which does not go with its trajectory")
    lines = result.lines
    if lines.samples != tuple(mask.shape):
        raise InputError(f"its mask is {_described(mask)}, where its trajectory has {lines.samples}")
    for name, values, shape in (("probabilities", probabilities, mask.shape), ("theta", theta, lines.shape)):
        if values.dtype != torch.float32 or tuple(values.shape) != tuple(shape):
            raise InputError(f"its {name} is {_described(values)}; pattern {result.pattern} has {tuple(shape)} of torch.float32")
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            raise InputError(f"its {name} has values outside 0 to 1")
    if not torch.equal(lines.forward(theta), probabilities):
        raise InputError("its probabilities are not those of theta")
    return lines, lines.select(mask)


def _check_numbers(result: MaskResult, lines: Lines, selected: Tensor) -> None:
    if not isinstance(result.acceleration, float) or not math.isfinite(result.acceleration):
        raise InputError(f"its acceleration is {result.acceleration!r}, no finite number")
    if not isinstance(result.seed, int) or isinstance(result.seed, bool) or not -(2**63) <= result.seed < 2**64:
        raise InputError(f"its seed is {result.seed!r}, no whole number of 64 bits")
    count, recipe = int(selected.sum()), result.recipe if isinstance(result.recipe, dict) else {}
    demands = Demands.from_dict(recipe.get("demands", {}))
    budget = demands.budget(lines, result.acceleration)
    if count != budget and (not count or recipe.get("exact_budget") is not False):  # as the authors' code makes them
        raise InputError(f"its mask has {count} {lines.name}, where acceleration {result.acceleration:g} of {lines.full} makes {budget}")
    feasible = demands.of_size(lines, count)
    if not feasible.plain and not feasible.admits(selected):
        raise InputError("its mask does not meet the demands that it names")
    if recipe.get("polish") or feasible.gap is not None:
        return
    for free, _ in feasible.parts:
        theta, chosen = result.theta[free], selected[free]
        if chosen.any() and not chosen.all() and theta[chosen].min() < theta[~chosen].max():
            raise InputError("its mask leaves out samples that are more probable than some it has")


def _described(values: Tensor) -> str:
    return f"{tuple(values.shape)} of {values.dtype}"
