"""What an optimisation has done so far: shown as a bar, passed to the callback, and kept as a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from prom.errors import InputError
from prom.learn.recipes import Recipe
from prom.problem import Problem


class History:
    """Member, iteration, budget, loss and active share of every iteration. Losses stay on the device until the end, which waits for nobody.

    ``callback`` is called as ``callback(iteration, theta)`` after every iteration.
    """

    def __init__(self, problem: Problem, recipe: Recipe, callback: Callable[[int, Tensor], None] | None = None) -> None:
        self.problem, self.callback, self.rows = problem, callback, []
        self.measured = torch.empty(recipe.members * recipe.iterations, 2, device=problem.device)
        title = f"optimize {problem.data.name} x{problem.acceleration:g}"
        self.bar = tqdm(total=len(self.measured), desc=title, disable=None, leave=False)

    def add(self, member: int, iteration: int, budget: float, measured: Tensor, theta: Tensor) -> None:
        """One iteration: ``measured`` has its loss and the share of active mask entries."""
        self.measured[len(self.rows)] = measured
        self.rows.append((member, iteration, budget))
        if self.callback:
            self.callback(iteration, theta)
        self.bar.update()

    def state_dict(self) -> dict[str, Tensor]:
        """All of it so far."""
        return {"rows": torch.tensor(self.rows, dtype=torch.float64), "measured": self.measured[: len(self.rows)].cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.rows = [(int(member), int(iteration), budget) for member, iteration, budget in state["rows"].tolist()]
        self.measured[: len(self.rows)] = state["measured"]
        self.bar.update(len(self.rows))

    def table(self) -> pd.DataFrame:
        """All of it, at the end.

        Raises
        ------
        InputError
            Where a loss is not finite.
        """
        self.bar.close()
        loss, active = self.measured.cpu().double().T.numpy()
        if not np.isfinite(loss).all():
            wrong = loss[~np.isfinite(loss)][0]
            what = f"the loss is {wrong:g}" if np.isinf(wrong) else "the loss, or its gradient, is nan"
            raise InputError(f"{self.problem.data.name}: {what}; change the objective, or the unit of the images by scale")
        table = pd.DataFrame(self.rows, columns=["member", "iteration", "budget"])
        return table.assign(loss=loss * self.problem.objective.loss_unit, active_fraction=active)
