"""Several images at once on a CPU: one thread for each, instead of all threads for each transform."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")


class _Local(threading.local):
    workers: int | None = None  # None: as many as PyTorch may use, which is one inside a worker


_local = _Local()


def parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``[function(item) for item in items]`` by as many threads as PyTorch may use (``torch.set_num_threads``), in the items' order.

    An image of 256 x 256 is too small to be shared out among threads, and a batch too large for their caches; so every thread works on
    images of its own. PyTorch and :mod:`prom.engine.kernels` run without Python's lock. Inside a worker everything has one thread.

    >>> parallel(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    helpers = min(_local.workers or torch.get_num_threads(), len(items)) - 1
    if helpers < 1:
        return [function(item) for item in items]
    results: list[Result] = [None] * len(items)
    left = iter(enumerate(items))  # whoever is free takes the next

    def work() -> None:
        for place, item in left:
            results[place] = function(item)

    others = [_pool(helpers).submit(work) for _ in range(helpers)]
    with _threads(1, 1):
        work()
    for other in others:
        other.result()
    return results


def added(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of what :func:`parallel` returned, in that order whoever made it.

    >>> added([torch.ones(2), torch.ones(2)])
    tensor([2., 2.])
    """
    total, *others = parts
    total = total.clone()  # which may be the caller's own
    for other in others:
        total += other
    return total


@contextmanager
def spread() -> Iterator[None]:
    """Inside this context PyTorch uses one thread; :func:`parallel` uses all that it had. Also a decorator: ``@spread()``.

    PyTorch's own threads wait for their next piece of work without sleeping, and would take the cores from the workers.
    """
    with _threads(_local.workers or torch.get_num_threads(), 1):
        yield


@contextmanager
def gathered() -> Iterator[None]:
    """Inside this context, within :func:`spread`, PyTorch uses all threads again: for networks, whose operations are large."""
    with _threads(None, _local.workers or torch.get_num_threads()):
        yield


@contextmanager
def _threads(workers: int | None, own: int) -> Iterator[None]:
    before = _local.workers, torch.get_num_threads()
    _local.workers = workers
    torch.set_num_threads(own)
    try:
        yield
    finally:
        _local.workers = before[0]
        torch.set_num_threads(before[1])


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "prom", initializer=_be_a_worker)


def _be_a_worker() -> None:
    torch.get_num_threads()  # at its first use in a thread PyTorch takes the program's number, which must not come after ours
    torch.set_num_threads(1)
    _local.workers = 1  # a worker that waited for another one in the same pool could wait for ever


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive it
