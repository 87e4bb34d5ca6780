"""Masks that need no optimisation. Every baseline is ``(train, acceleration, pattern=, seed=) -> mask`` with an exact budget."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from prom import bernoulli
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown
from prom.masks import MaskResult, provenance
from prom.objectives import Measurements
from prom.patterns import make


def energy(train: SliceDataset, acceleration: float, pattern: str = "points", seed: int = 0) -> Tensor:
    r"""The energy oracle: the S samples (or lines) with the most mean power on the training data. No learning.

    For the *complex* zero-filled error the expected loss of Eq. 3 is :math:`\sum_i (1 - \theta_i) P_i` with P the mean power
    spectrum, so this is its exact minimiser (Knoll et al. 2011; Baldassarre et al. 2016). It needs one Fourier transform per image;
    ``seed`` is not used.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> energy(data, acceleration=64).nonzero().tolist()     # a constant image is all DC
    [[4, 4]]
    """
    grid = make(pattern, train.shape)
    return grid.expand(bernoulli.mode(grid.gather(Measurements(train.images, keep=False).power()), grid.budget(acceleration)))


def equispaced(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "columns",
    seed: int = 0,
    centre_fraction: float = 0.04,
    exact_budget: bool = True,
) -> Tensor:
    """Equally spaced lines plus a fully sampled centre of 4 % of the lines, with a random offset (fastMRI; the paper's "Equi.").

    With ``exact_budget`` the spacing is widened so that centre and spaced lines together are floor(n / alpha) lines; where even the
    centre is over budget, the innermost lines are kept. Without it every alpha-th line is *added* to the centre, as in the authors'
    code, so that the true acceleration is lower than the nominal one: x3.6, x6.3, x10, x14 instead of x4, x8, x16, x32 for 256 lines.

    Raises
    ------
    InputError
        Where the pattern is "points", which has no lines, or the acceleration is out of range.

    >>> data = SliceDataset("demo", "train", torch.rand(1, 1, 8, 256), ["a"], [0])
    >>> int(equispaced(data, 8)[0].sum()), int(equispaced(data, 8, exact_budget=False)[0].sum()) > 32
    (32, True)
    """
    if pattern == "points":
        raise InputError("pattern 'points': equispaced sampling has lines; use columns or rows")
    grid = make(pattern, train.shape)
    lines, budget = grid.size, grid.budget(acceleration)
    generator = torch.Generator().manual_seed(seed)
    centre = torch.zeros(lines, dtype=torch.bool)
    count = round(lines * centre_fraction)
    first = (lines - count + 1) // 2
    centre[first : first + count] = True
    if not exact_budget:
        offset = int(torch.randint(round(acceleration), (), generator=generator))
        centre[torch.arange(offset, lines, round(acceleration))] = True
        return grid.expand(centre).contiguous()
    if count >= budget:
        return grid.expand(bernoulli.mode(centre.float(), budget)).contiguous()
    outside = (~centre).nonzero().flatten()
    wanted = budget - count
    spacing = len(outside) / wanted
    offset = float(torch.rand((), generator=generator)) * spacing
    centre[outside[((offset + spacing * torch.arange(wanted)) % len(outside)).long()]] = True
    return grid.expand(centre).contiguous()


BASELINES = {"energy": energy, "equispaced": equispaced}


def default_pattern(name: str) -> str:
    """The pattern that a baseline makes when none is asked for.

    >>> default_pattern("equispaced")
    'columns'
    """
    return inspect.signature(get(name)).parameters["pattern"].default


def get(name: str) -> Callable[..., Tensor]:
    """The baseline called ``name``.

    >>> get("energie")
    Traceback (most recent call last):
    prom.errors.InputError: baseline 'energie' is not known; did you mean 'energy'? (known: energy, equispaced)
    """
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    return BASELINES[name]


def as_result(
    mask: Tensor, name: str, acceleration: float, pattern: str = "points", seed: int = 0, train: SliceDataset | None = None
) -> MaskResult:
    """A mask that was not optimised, as a :class:`MaskResult` that can be saved and exported: its probabilities are 0 and 1."""
    grid = make(pattern, tuple(mask.shape))
    theta = grid.gather(mask.float()) / (mask.numel() / grid.size)
    record = {} if train is None else provenance(train, f"baseline {name}", "cpu")
    return MaskResult(mask, mask.float(), theta, pattern, float(acceleration), {"name": name}, seed, provenance=record)
