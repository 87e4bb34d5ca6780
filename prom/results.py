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

from prom import baselines, options, recipes
from prom.datasets.base import SliceDataset
from prom.device import choose_device
from prom.errors import unknown
from prom.evaluate import evaluate
from prom.files import atomic
from prom.masks import MaskResult, versions
from prom.optimize import optimize
from prom.rivals import RIVALS

SCORES = ("psnr", "ssim", "nmse")
GIVEN = ("train", "acceleration", "pattern", "seed", "objective", "device", "name")  # said elsewhere, not an option of a method


def parse_method(text: str) -> tuple[str, dict[str, object]]:
    """A method as text: the name of a baseline or a recipe, and options of it, as ``name:option=value,option=value``.

    Options of a baseline are the arguments of its function, options of a recipe are the fields of :class:`prom.recipes.Recipe`.

    Raises
    ------
    InputError
        Where a name or an option is not known or a value is of another type.

    >>> parse_method("gaussian:sigma=35,protect_centre=true"), parse_method("paper:members=1")
    (('gaussian', {'sigma': 35.0, 'protect_centre': True}), ('paper', {'members': 1}))
    """
    name, _, rest = text.partition(":")
    if name not in baselines.BASELINES and name not in recipes.RECIPES:
        raise unknown("method", name, {*baselines.BASELINES, *recipes.RECIPES})
    known = options.names(baselines.BASELINES.get(name, recipes.Recipe), without=GIVEN)
    return name, dict(options.parse(option, known, name) for option in rest.split(",") if rest)


def recipe_of(text: str) -> dict[str, object]:
    """What a record says of how its mask was made: the recipe's fields, or the baseline's name and options.

    >>> recipe_of("gaussian:sigma=35"), recipe_of("paper:members=1")["members"]
    ({'name': 'gaussian', 'sigma': 35.0}, 1)
    """
    name, chosen = parse_method(text)
    return {"name": name, **chosen} if name in baselines.BASELINES else replace(recipes.get(name), **chosen).as_dict()


def make(method: str, train: SliceDataset, acceleration: float, pattern: str | None = None, seed: int = 0) -> MaskResult:
    """The mask that a method makes of training slices. Its provenance says besides: the method's text, and the seconds spent.

    Parameters
    ----------
    method
        As for :func:`parse_method`.
    pattern
        "points", "columns", "rows"; default: the method's own.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> result = make("default:iterations=5", data, acceleration=4)
    >>> result.provenance["method"], result.true_acceleration
    ('default:iterations=5', 4.0)
    """
    name, chosen = parse_method(method)
    started = time.perf_counter()
    if name in baselines.BASELINES:
        pattern = pattern or baselines.default_pattern(name)
        mask = baselines.get(name)(train, acceleration, pattern=pattern, seed=seed, **chosen)
        result = baselines.as_result(mask, name, acceleration, pattern, seed, train, chosen)
        device = str(choose_device("auto")) if name in RIVALS else "cpu"
    else:
        result = optimize(train, acceleration, pattern=pattern or "points", recipe=replace(recipes.get(name), **chosen), seed=seed)
        device = result.provenance["device"]
    seconds = round(time.perf_counter() - started, 2)
    return replace(result, provenance={**result.provenance, "method": method, "device": device, "seconds": seconds})


def record(result: MaskResult, test: SliceDataset, scores: pd.DataFrame) -> dict[str, object]:
    """The record of a mask from :func:`make` and its scores on ``test`` from :func:`prom.evaluate`, with everything needed to repeat it.

    Returns
    -------
    dict
        Flat and JSON-ready: what was asked for, true acceleration, mean and standard deviation over slices of PSNR (dB), SSIM and NMSE,
        seconds spent making the mask, the device that made it, recipe, fingerprints of both splits, versions.
    """
    made = result.provenance
    method, _, variant = made["method"].partition(":")
    return {
        "dataset": test.name,
        "method": method,
        "variant": variant,
        "members": result.recipe.get("members", 1),
        "pattern": result.pattern,
        "acceleration": result.acceleration,
        "true_acceleration": result.true_acceleration,
        "seed": result.seed,
        **{name: float(scores[name].mean()) for name in SCORES},
        **{f"{name}_std": float(scores[name].std(ddof=0)) for name in SCORES},
        "slices_train": made["slices"],
        "slices_test": len(test),
        "seconds": made["seconds"],
        "device": made["device"],
        "recipe": json.dumps(result.recipe, sort_keys=True),
        "fingerprint_train": made["fingerprint"],
        "fingerprint_test": test.fingerprint(),
        "versions": json.dumps(versions(), sort_keys=True),
    }


def run(
    method: str, train: SliceDataset, test: SliceDataset, acceleration: float, pattern: str | None = None, seed: int = 0
) -> dict[str, object]:
    """Make one mask on ``train``, score it on ``test`` in the paper's convention, and return the record.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> run("energy", data, data, acceleration=4)["true_acceleration"]
    4.0
    """
    result = make(method, train, acceleration, pattern, seed)
    return record(result, test, evaluate(result.mask, test))


def write(path: str | os.PathLike, entry: dict[str, object]) -> None:
    """Write one record as JSON, in one step: the file is complete or not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/run.json", {"seed": 0, "psnr": 31.5})
    ...     json.loads(Path(folder, "run.json").read_text())
    {'seed': 0, 'psnr': 31.5}
    """
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(entry, indent=1) + "\n")


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


def append(path: str | os.PathLike, entry: dict[str, object]) -> None:
    """Add a record to a csv file, in one step: a killed run leaves the file as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed in (0, 1):
    ...         append(f"{folder}/runs.csv", {"seed": seed})
    ...     len(read(f"{folder}/runs.csv"))
    2
    """
    path = Path(path)
    rows = pd.concat([read(path), pd.DataFrame([entry])], ignore_index=True) if path.exists() else pd.DataFrame([entry])
    with atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def read(path: str | os.PathLike) -> pd.DataFrame:
    """The records of a csv file, one row a run."""
    return pd.read_csv(path)
