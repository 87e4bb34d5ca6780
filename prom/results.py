"""One run is one record: method, scores, and everything needed to repeat it. Tables are made from records, never by hand."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from prom import baselines, recipes
from prom.datasets.base import SliceDataset
from prom.evaluate import evaluate
from prom.files import atomic
from prom.masks import versions
from prom.optimize import optimize

SCORES = ("psnr", "ssim", "nmse")


def run(
    method: str,
    train: SliceDataset,
    test: SliceDataset,
    acceleration: float,
    pattern: str | None = None,
    seed: int = 0,
    iterations: int | None = None,
    members: int | None = None,
    **options,
) -> dict[str, object]:
    """Make one mask on ``train``, score it on ``test`` in the paper's convention, and return the record.

    Parameters
    ----------
    method
        A baseline ("energy", "equispaced") or a recipe ("default", "paper").
    pattern
        "points", "columns", "rows"; default: the method's own.
    iterations, members
        Instead of the recipe's own.
    options
        Passed to a baseline, e.g. ``exact_budget=False``.

    Returns
    -------
    dict
        Flat and JSON-ready: what was asked for, true acceleration, mean and standard deviation over slices of PSNR (dB), SSIM and NMSE,
        seconds spent making the mask, recipe, fingerprints of both splits, versions.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> run("energy", data, data, acceleration=4)["true_acceleration"]
    4.0
    """
    started = time.perf_counter()
    if method in baselines.BASELINES:
        pattern = pattern or baselines.default_pattern(method)
        mask = baselines.get(method)(train, acceleration, pattern=pattern, seed=seed, **options)
        recipe = {"name": method, **options}
    else:
        changes = {name: value for name, value in (("iterations", iterations), ("members", members)) if value is not None}
        pattern = pattern or "points"
        result = optimize(train, acceleration, pattern=pattern, recipe=replace(recipes.get(method), **changes), seed=seed)
        mask, recipe = result.mask, result.recipe
    seconds = time.perf_counter() - started
    scores = evaluate(mask, test)[list(SCORES)]
    return {
        "dataset": test.name,
        "method": method,
        "pattern": pattern,
        "acceleration": float(acceleration),
        "true_acceleration": mask.numel() / int(mask.sum()),
        "seed": seed,
        **{name: float(scores[name].mean()) for name in SCORES},
        **{f"{name}_std": float(scores[name].std(ddof=0)) for name in SCORES},
        "slices_train": len(train),
        "slices_test": len(test),
        "seconds": round(seconds, 2),
        "recipe": json.dumps(recipe, sort_keys=True),
        "fingerprint_train": train.fingerprint(),
        "fingerprint_test": test.fingerprint(),
        "versions": json.dumps(versions(), sort_keys=True),
    }


def append(path: str | os.PathLike, record: dict[str, object]) -> None:
    """Add a record to a csv file, in one step: a killed run leaves the file as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed in (0, 1):
    ...         append(f"{folder}/runs.csv", {"seed": seed})
    ...     len(read(f"{folder}/runs.csv"))
    2
    """
    path = Path(path)
    rows = pd.concat([read(path), pd.DataFrame([record])], ignore_index=True) if path.exists() else pd.DataFrame([record])
    with atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def read(path: str | os.PathLike) -> pd.DataFrame:
    """The records of a csv file, one row a run."""
    return pd.read_csv(path)
