"""What several commands share: options, examples for help, and JSON."""

from __future__ import annotations

import json as jsonlib
import math
from collections.abc import Callable
from functools import wraps

import click

from prom.cli.types import whole


def example(*lines: str) -> str:
    """An example for --help that click does not re-wrap."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def threads_option(command: Callable) -> Callable:
    """The option for the number of threads that PyTorch uses in ``command``."""

    @wraps(command)
    def limited(threads, **rest):
        if threads:
            import torch

            torch.set_num_threads(threads)
        return command(**rest)

    text = "The number of CPU threads. [default: one per core, or OMP_NUM_THREADS]"
    return click.option("--threads", type=whole("[1, 1024]"), help=text)(limited)


json_option = click.option("--json", "json", is_flag=True, help="Print one JSON object instead of text.")


def strict_json(value: object) -> str:
    """A value as JSON that every program reads: where a number is NaN or infinite, which JSON does not have, null.

    >>> strict_json({"loss": float("nan"), "scores": [1.0, float("inf")]})
    '{"loss": null, "scores": [1.0, null]}'
    """

    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {name: finite(entry) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [finite(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return jsonlib.dumps(finite(value), allow_nan=False)
