"""A long optimisation in a file, from time to time, so that one that was stopped goes on where it was, to the same bits."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

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
    """Where an optimisation is: its member, how many iterations of it are done, theta, and the solutions of members before."""

    member: int
    done: int
    theta: Tensor
    solutions: list[Tensor]
    states: dict[str, Any] = field(default_factory=dict)

    def restore(self, generator: torch.Generator, **parts: Part) -> None:
        """Put the generator and these parts where they were."""
        generator.set_state(self.states["generator"].cpu())
        for name, part in parts.items():
            part.load_state_dict(self.states[name])


class Checkpoint:
    """The file of one optimisation.

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
        self.path, self.device, self.written = Path(path), problem.device, time.monotonic()
        check_writable(self.path)
        asked = {
            "data": problem.data.fingerprint(),
            "objective": problem.objective.describe(),
            "pattern": problem.pattern.name,
            "acceleration": problem.acceleration,
            "demands": problem.demands.as_dict(),
            "recipe": recipe.as_dict(),
            "seed": seed,
            "device": problem.device.type,
            "versions": versions(),
        }
        self.asked = json.dumps(asked, sort_keys=True)

    def read(self) -> Kept | None:
        """What was written last, or None."""
        if not self.path.is_file():
            return None
        try:
            state = torch.load(network_files.checked(self.path), map_location=self.device, weights_only=True)
            asked, kept = state.pop("asked"), Kept(**state)
        except Exception as error:  # a damaged file fails in any of many ways
            raise InputError(f"checkpoint {self.path}: cannot be read; remove it to start again") from error
        if asked != self.asked:
            raise InputError(
                f"checkpoint {self.path}: is of an optimisation with other data, settings or versions; remove it, or name another file"
            )
        return kept

    @property
    def due(self) -> bool:
        """Whether it is time to write, for the process that does."""
        return distributed.rank() == 0 and time.monotonic() - self.written > EVERY

    def write(self, kept: Kept, generator: torch.Generator, **parts: Part) -> None:
        """Write where it is, and the state of the generator and of these parts."""
        states = {"generator": generator.get_state(), **{name: part.state_dict() for name, part in parts.items()}}
        network_files.write(self.path, {**vars(kept), "states": states, "asked": self.asked})
        self.written = time.monotonic()

    def remove(self) -> None:
        """At the end."""
        if distributed.rank() == 0:
            self.path.unlink(missing_ok=True)
