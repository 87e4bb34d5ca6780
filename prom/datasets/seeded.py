"""What virtual subjects are drawn with: a generator for every key, uniform numbers, and whole numbers in a range."""

from __future__ import annotations

import hashlib
from numbers import Integral

import numpy as np
import torch

from prom.errors import InputError

# Subjects are numbered through: a split owns 1000 numbers, so that no two splits can share one, however many there are.
FIRST_NUMBER = {"train": 0, "validation": 1000, "test": 2000}
NUMBERS_PER_SPLIT = 1000


def generator(*key: int | str) -> torch.Generator:
    """A generator of its own for every (seed, subject number, ...), so that nothing depends on what else is loaded.

    >>> first, again = (torch.rand(2, generator=generator(0, 7)) for _ in range(2))
    >>> torch.equal(first, again), torch.equal(first, torch.rand(2, generator=generator(0, 8)))
    (True, False)
    """
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]))


def uniform(generator: torch.Generator, limit: float, *shape: int) -> np.ndarray:
    """Independent float64 values in [-limit, limit).

    >>> bool((np.abs(uniform(generator(0), 2.0, 100)) <= 2).all())
    True
    """
    return limit * (2 * torch.rand(*shape, generator=generator, dtype=torch.float64).numpy() - 1)


def whole(what: str, value: int, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``.

    Raises
    ------
    InputError
        Where it is anything else.

    >>> whole("frames", 1, 2, 64)
    Traceback (most recent call last):
    prom.errors.InputError: frames 1: must be a whole number from 2 to 64
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise InputError(f"{what} {value!r}: must be a whole number from {low} to {high}")
    return int(value)
