"""Masks of series in time out of masks of single frames: each frame its own, or one that is repeated."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from prom.datasets.base import SliceDataset
from prom.errors import InputError
from prom.kspace.patterns import Lines
from prom.masks.demands import acceleration_of, allowed
from prom.masks.feasible import Feasible

SEEDS = 1_000_003  # from one frame's seed to the next's, so that two runs with seeds near each other have no frame in common
LARGEST_SEED = 2**63


def each_frame(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A baseline of slices that makes masks of series too: of every frame its own, with a seed of its own.

    Frames have equal numbers of samples or lines, or numbers that differ by one where S is no multiple of T. Of a pattern "still-..." it
    makes one mask, of all frames as slices, for each of them.
    """

    def of_series(train: SliceDataset, acceleration: float, pattern: str, seed: int, **options: object) -> Tensor:
        lines, demands = train.lines(pattern), options.pop("demands", None)
        if not lines.apart:
            return repeat(function, train, acceleration, pattern, seed, demands=demands, **options)
        numbers = counts(allowed(lines, acceleration, demands))
        masks = torch.zeros(train.shape, dtype=torch.bool)
        for frame, count in enumerate(numbers):
            if count:
                own = {**options, "demands": demands and demands.of_frame(lines, frame)}
                as_given = options.get("exact_budget") is False  # its spacing is the acceleration, not what follows from a number of lines
                alpha = min(acceleration, lines.frame.size) if as_given else float(acceleration_of(lines.frame.size, count))
                masks[frame] = function(frames(train, [frame]), alpha, pattern, (seed + SEEDS * frame) % LARGEST_SEED, **own)
        return masks

    return _by_kind(function, of_series)


def _by_kind(function: Callable[..., Tensor], of_series: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A baseline, which for series is another function."""
    parameters = inspect.signature(function).parameters
    default, own_options = parameters["pattern"].default, list(parameters)[4:]

    @wraps(function)
    def made(train: SliceDataset, acceleration: float, pattern: str = default, seed: int = 0, *more: object, **options: object) -> Tensor:
        options |= dict(zip(own_options, more, strict=False))
        return (of_series if train.kind == "series" else function)(train, acceleration, pattern, seed, **options)

    return made


def repeat(
    function: Callable[..., Tensor], train: SliceDataset, acceleration: float, pattern: str, seed: int = 0, **options: object
) -> Tensor:
    """The mask of a baseline of slices, which sees every frame as a slice, in each frame: ``(T, H, W)`` bool.

    >>> data = SliceDataset("demo", "train", torch.ones(1, 1, 3, 8, 8), ["a"], [0], kind="series")
    >>> from prom.baselines.closed_forms import energy
    >>> repeat(energy, data, 64, "still-points").nonzero().tolist()
    [[0, 4, 4], [1, 4, 4], [2, 4, 4]]
    """
    lines, demands = train.lines(pattern), options.pop("demands", None)
    if demands:
        demands.feasible(lines, acceleration)  # of all frames
        demands = demands.of_frame(lines, 0)
    mask = function(frames(train), acceleration, lines.frame.name, seed, demands=demands, **options)
    return mask.expand(train.shape).contiguous()


def no_volumes(name: str, train: SliceDataset) -> None:
    """Refuse full 3D grids to a baseline of planes.

    >>> no_volumes("lattice", SliceDataset("demo", "train", torch.ones(1, 1, 4, 8, 8), ["a"], [0], kind="volumes"))
    Traceback (most recent call last):
    prom.errors.InputError: lattice: is of planes, and demo has volumes; cut them along a readout, or use energy or gaussian
    """
    if train.kind == "volumes":
        raise InputError(f"{name}: is of planes, and {train.name} has volumes; cut them along a readout, or use energy or gaussian")


def one_frame(instead: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """For a baseline of slices that would make the masks of all frames alike: of series it takes patterns "still-..." only.

    ``instead``, for the message, is what makes other masks.

    >>> from prom.baselines.lattice import lattice
    >>> lattice(SliceDataset("demo", "train", torch.ones(1, 1, 3, 8, 8), ["a"], [0], kind="series"), 4)
    Traceback (most recent call last):
    prom.errors.InputError: lattice: would measure the same points in every frame; use pattern still-points, or shifted_equispaced
    """

    def decorated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        name = function.__name__

        @wraps(function)
        def of_planes(train: SliceDataset, *given: object, **options: object) -> Tensor:
            no_volumes(name, train)
            return function(train, *given, **options)

        def of_series(train: SliceDataset, acceleration: float, pattern: str, seed: int, **options: object) -> Tensor:
            if train.lines(pattern).apart:
                raise InputError(f"{name}: would measure the same {pattern} in every frame; use pattern still-{pattern}, or {instead}")
            return repeat(function, train, acceleration, pattern, seed, **options)

        return _by_kind(of_planes, of_series)

    return decorated


def series(name: str, train: SliceDataset, pattern: str) -> Lines:
    """The pattern of a baseline that is for series only.

    >>> series("vista", SliceDataset("demo", "train", torch.ones(1, 1, 8, 8), ["a"], [0]), "columns")
    Traceback (most recent call last):
    prom.errors.InputError: vista: is for series in time, and demo has slices; use equispaced or gaussian
    """
    if train.kind != "series":
        raise InputError(f"{name}: is for series in time, and {train.name} has {train.kind}; use equispaced or gaussian")
    return train.lines(pattern)


def frames(train: SliceDataset, which: list[int] | None = None) -> SliceDataset:
    """All frames of a series, or these, as slices: those of the first entry, then those of the next.

    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 3, 8, 8), ["a", "b"], [0, 0], kind="series")
    >>> frames(data).images.shape, frames(data, [1]).images.shape, frames(data).subjects
    (torch.Size([6, 1, 8, 8]), torch.Size([2, 1, 8, 8]), ['a', 'a', 'a', 'b', 'b', 'b'])
    """
    which = list(range(train.shape[0])) if which is None else which

    def unfolded(array: Tensor) -> Tensor:
        return array[:, :, which].transpose(1, 2).flatten(0, 1)

    def repeated(entries: list) -> list:
        return [entry for entry in entries for _ in which]

    return SliceDataset(
        train.name,
        train.split,
        unfolded(train.images[:]),
        repeated(train.subjects),
        repeated(train.slices),
        source=train.source,
        patients=repeated(train.patients),
        sensitivities=train.sensitivities[:].repeat_interleave(len(which), dim=0) if train.own_maps else train.sensitivities,
        kspace=None if train.kspace is None else unfolded(train.kspace[:]),
        noise=train.noise,
    )


def counts(feasible: Feasible) -> list[int]:
    """How many samples or lines each frame gets: equal numbers, or numbers that differ by one, as far as the set allows.

    ``feasible`` has frames along its first axis. Its groups, where there are any, each belong to a frame.

    >>> counts(Feasible((4, 8), 10)), counts(Feasible((2, 4), 5, mandatory=torch.tensor([[True] * 4, [False] * 4])))
    ([2, 3, 2, 3], [4, 1])
    """
    number = feasible.shape[0]
    if feasible.groups is not None:
        each = math.floor(feasible.budget)
        found = [each * len(frame.unique()) for frame in feasible.groups]
        if sum(found) != feasible.count:
            raise InputError("demands: have bands that reach over several frames; use per_frame=True")
        return found
    total = feasible.count
    none = torch.zeros(feasible.shape, dtype=torch.bool)
    least, most = ((none if part is None else part).flatten(1).sum(dim=1).tolist() for part in (feasible.mandatory, feasible.forbidden))
    most = [math.prod(feasible.shape[1:]) - count for count in most]
    found = [(frame + 1) * total // number - frame * total // number for frame in range(number)]
    found = [min(max(count, low), high) for count, low, high in zip(found, least, most, strict=True)]
    while rest := total - sum(found):  # of the frames with room, those with the fewest (or the most) first
        step = 1 if rest > 0 else -1
        room = [frame for frame in range(number) if least[frame] <= found[frame] + step <= most[frame]]
        found[min(room, key=lambda frame: step * found[frame])] += step
    return found


def sets(feasible: Feasible) -> list[Feasible]:
    """The masks that each frame may have, of so many samples as :func:`counts` says.

    >>> [frame.budget for frame in sets(Feasible((4, 8), 10))]
    [2, 3, 2, 3]
    """

    def there(part: Tensor | None, frame: int) -> Tensor | None:
        return None if part is None else part[frame]

    found = []
    for frame, count in enumerate(counts(feasible)):
        groups = there(feasible.groups, frame)
        budget = count if groups is None else feasible.budget
        groups = None if groups is None or len(groups.unique()) == 1 else groups
        fixed = there(feasible.mandatory, frame), there(feasible.forbidden, frame)
        found.append(Feasible(feasible.shape[1:], budget, *fixed, groups=groups))
    return found
