"""The order in which images are looked at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prom.engine.device import asynchronous


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int] | Tensor]:
    """Endless batches of indices; each pass visits every image once, in a new order. A short last batch is left out.

    Of a generator on a GPU they stay there, so that nobody waits for it.

    >>> batches = shuffled_batches(3, 2, torch.Generator().manual_seed(0))
    >>> len(next(batches)), len(next(batches))
    (2, 2)
    """
    batch_size = min(batch_size, count)
    while True:
        order = torch.randperm(count, generator=generator, device=generator.device)
        order = order if asynchronous(order) else order.tolist()
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
