"""A long optimisation in a file, from time to time, so that one that was stopped goes on where it was, to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from prom.engine import distributed, network_files
from prom.errors import InputError
from prom.files import check_writable
from prom.learn.recipes import Recipe
from prom.masks.origin import versions
from prom.problem import Problem

EVERY = 60.0  # seconds from one writing to the next; most optimisations are over before the first


class Part(Protocol):
    """What changes while an optimisation runs, as modules and optimisers of PyTorch."""

    def state_dict(self) -> dict[str, Any]:
        """All of it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


@dataclass
class Kept:
    """Where an optimisation is: its member, how many iterations of it are done, theta, the solutions of members before ``(members, ...)``,
    the state of all else, and the seconds that it took.
    """

    member: int
    done: int
    theta: Tensor
    solutions: Tensor
    states: dict[str, Any] = field(default_factory=dict)
    spent: float = 0.0

    def restore(self, generator: torch.Generator, **parts: Part) -> None:
        """Put the generator and these parts where they were."""
        generator.set_state(self.states["generator"].cpu())
        for name, part in parts.items():
            part.load_state_dict(self.states[name])


class Checkpoint:
    """The file of one optimisation.

    Attributes
    ----------
    before
        Seconds that were spent before it was stopped.

    Parameters
    ----------
    path
        Where it is. It needs not exist.
    problem, recipe, seed
        What is optimised: only the same goes on.

    Raises
    ------
    InputError
        Where it cannot be written, cannot be read, or is of something else.
    """

    def __init__(self, path: str | os.PathLike, problem: Problem, recipe: Recipe, seed: int) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"checkpoint {path!r}: must be the name of a file")
        self.path, self.problem, self.recipe, self.seed, self.before = Path(path), problem, recipe, seed, 0.0
        self.begun = self.written = time.monotonic()
        try:
            check_writable(self.path)
        except InputError as error:
            raise InputError(_of_checkpoint(error)) from error

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What is optimised, each part as text or a number; only where there is a file, as most optimisations are over before."""
        problem = self.problem
        return {
            "data": problem.data.fingerprint(),
            "objective": json.dumps([problem.objective.describe(), _loss_at_first(problem)]),
            "pattern": problem.pattern.name,
            "acceleration": float(problem.acceleration),
            "demands": json.dumps(problem.demands.as_dict(), sort_keys=True),
            "recipe": json.dumps(self.recipe.as_dict(), sort_keys=True),
            "seed": self.seed,
            "kind of device": problem.device.type,
            "versions": json.dumps(versions(), sort_keys=True),
        }

    def read(self) -> Kept | None:
        """What was written last, or None; the same for all processes."""
        kept = self._read() if self.path.is_file() else None
        place = torch.tensor([1.0 + kept.member, 1.0 + kept.done] if kept else [0.0, 0.0], dtype=torch.float64, device=self.problem.device)
        sums, squares = distributed.total(place, place.square())
        if not torch.equal(sums.square(), distributed.size() * squares):
            raise InputError(f"checkpoint {self.path}: is not the same for all processes; name a file that all of them see")
        self.before = kept.spent if kept else 0.0
        return kept

    def _read(self) -> Kept:
        try:
            state = torch.load(network_files.checked(self.path), map_location=self.problem.device, weights_only=True)
            asked, kept = dict(state.pop("asked")), Kept(**state)
        except Exception as error:  # a damaged file fails in any of many ways
            raise InputError(f"checkpoint {self.path}: cannot be read; remove it to start again") from error
        if others := [name for name in self.asked if asked.get(name) != self.asked[name]]:
            raise InputError(
                f"checkpoint {self.path}: is of an optimisation with other {', '.join(others)}; remove it, or name another file"
            )
        return kept

    @property
    def due(self) -> bool:
        """Whether it is time to write, for the process that does."""
        return distributed.rank() == 0 and time.monotonic() - self.written > EVERY

    def write(self, kept: Kept, generator: torch.Generator, **parts: Part) -> None:
        """Write where it is, and the state of the generator and of these parts; where that fails, say so and go on."""
        states = {"generator": generator.get_state(), **{name: part.state_dict() for name, part in parts.items()}}
        self.written = time.monotonic()
        spent = self.before + self.written - self.begun
        try:
            network_files.write(self.path, {**vars(kept), "states": states, "spent": spent, "asked": self.asked})
        except InputError as error:
            tqdm.write(
                f"{_of_checkpoint(error).partition('; ')[0]}; the optimisation goes on, but from the last one where it is stopped",
                file=sys.stderr,
            )


def _of_checkpoint(error: InputError) -> str:
    """Its message, which names an output."""
    return str(error).replace("output", "checkpoint", 1)


def _loss_at_first(problem: Problem) -> str:
    """What tells losses of one name apart: hexadecimal digits of loss and gradient of the first image, where theta is a half."""
    mask = problem.pattern.forward(torch.full(problem.pattern.shape, 0.5, device=problem.device))
    parts = problem.objective.loss_and_gradient([0], mask[None].contiguous())
    if (curvature := problem.objective.curvature()) is not None:
        parts = (*parts, curvature)
    return hashlib.sha256(b"".join(part.detach().cpu().contiguous().numpy().tobytes() for part in parts)).hexdigest()[:16]
