"""The order in which images are looked at."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from prom.engine.device import asynchronous


class ShuffledBatches:
    """Endless batches of indices; each pass visits every image once, in a new order. A short last batch is left out.

    Of a generator on a GPU they stay there, so that nobody waits for it.

    >>> batches = ShuffledBatches(3, 2, torch.Generator().manual_seed(0))
    >>> len(next(batches)), len(next(batches))
    (2, 2)
    """

    def __init__(self, count: int, batch_size: int, generator: torch.Generator) -> None:
        self.count, self.batch_size, self.generator = count, min(batch_size, count), generator
        self.order, self.place = torch.empty(0, dtype=torch.int64), 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[int] | Tensor:
        if self.place + self.batch_size > len(self.order):
            self.order, self.place = torch.randperm(self.count, generator=self.generator, device=self.generator.device), 0
        batch = self.order[self.place : self.place + self.batch_size]
        self.place += self.batch_size
        return batch if asynchronous(batch) else batch.tolist()

    def state_dict(self) -> dict[str, Any]:
        """Where it is, but for the generator."""
        return {"order": self.order, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.order, self.place = state["order"].to(self.generator.device), state["place"]
