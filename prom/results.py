"""One run is one record: method, scores, and everything needed to repeat it. Tables are made from records, never by hand."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from prom import baselines, recipes
from prom.datasets.base import SliceDataset
from prom.evaluate import evaluate
from prom.files import atomic
from prom.masks import versions
from prom.optimize import choose_device, optimize
from prom.rivals import RIVALS

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
        The name of a baseline (:data:`prom.baselines.BASELINES`) or of a recipe ("default", "paper").
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
        seconds spent making the mask, the device that made it, recipe, fingerprints of both splits, versions.

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
        device = str(choose_device("auto")) if method in RIVALS else "cpu"
    else:
        changes = {name: value for name, value in (("iterations", iterations), ("members", members)) if value is not None}
        pattern = pattern or "points"
        result = optimize(train, acceleration, pattern=pattern, recipe=replace(recipes.get(method), **changes), seed=seed)
        mask, recipe, device = result.mask, result.recipe, result.provenance["device"]
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
        "device": device,
        "recipe": json.dumps(recipe, sort_keys=True),
        "fingerprint_train": train.fingerprint(),
        "fingerprint_test": test.fingerprint(),
        "versions": json.dumps(versions(), sort_keys=True),
    }


def write(path: str | os.PathLike, record: dict[str, object]) -> None:
    """Write one record as JSON, in one step: the file is complete or not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/run.json", {"seed": 0, "psnr": 31.5})
    ...     json.loads(Path(folder, "run.json").read_text())
    {'seed': 0, 'psnr': 31.5}
    """
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def peak_memory() -> float | None:
    """The most main memory that this process has had so far, in MiB; None where the system does not tell.

    >>> peak_memory() is None or peak_memory() > 10
    True
    """
    # Not ru_maxrss on Linux: a new process begins there with the peak of the one that started it.
    if sys.platform == "linux":
        return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10
    if sys.platform == "darwin":
        import resource  # does not exist on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return None


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
