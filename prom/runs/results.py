"""One run is one record: method, scores, and everything needed to repeat it. Tables are made from records, never by hand."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from prom import baselines, options
from prom.baselines import RIVALS
from prom.baselines.rivals import igs
from prom.datasets.base import SliceDataset
from prom.engine.device import choose_device, named
from prom.errors import InputError, unknown
from prom.evaluation.evaluate import evaluate
from prom.files import atomic
from prom.learn import recipes
from prom.learn.exchange import exchange_lines
from prom.learn.optimize import optimize
from prom.learn.polish import improve, split_slices
from prom.masks import MaskResult, commit, versions
from prom.masks.demands import Demands
from prom.objectives import Objective, evenly, whole_loss
from prom.problem import Problem

WORDS = ("dataset", "subject", "patient")  # columns of words, also where these look like numbers, 001, or like nothing, NA
DIGITS = ("commit", "fingerprint_train", "fingerprint_test", "network")  # hexadecimal, also where these look like numbers, 12e45
TASK = "task-"  # before a method's name: learnt through the network of a segmentation
TASK_SETTINGS = {"polish": 12, "hold_out": 0.2}  # a fifth of the patients has a veto (chapter 5)
# A start of polishing for a task: learnt while the budget falls slowly, so that it is another mask than the image's. Table 2 has it.
SLOW = replace(recipes.DEFAULT, iterations=600, exploration=0.1, exploitation=0.1)
TASK_SLICES = 256  # that polishing for a task evaluates: a network takes much longer than an image's loss
GIVEN = ("train", "acceleration", "pattern", "seed", "objective", "device", "name", "demands")  # given elsewhere, not an option of a method


def parse_method(text: str) -> tuple[str, dict[str, object]]:
    """A method as text: the name of a baseline or a recipe, and options of it, as ``name:option=value,option=value``.

    Options of a baseline are the arguments of its function, options of a recipe are the fields of :class:`prom.Recipe`. ``task-`` before
    the name of a method that learns means: through a network. It is no part of the name that is returned.

    Raises
    ------
    InputError
        Where a name or an option is not known or a value is of another type.

    >>> parse_method("gaussian:sigma=35,protect_centre=true"), parse_method("task-paper:members=1")
    (('gaussian', {'sigma': 35.0, 'protect_centre': True}), ('paper', {'members': 1}))
    """
    name, _, rest = text.removeprefix(TASK).partition(":")
    methods = {**RIVALS, **recipes.RECIPES} if text.startswith(TASK) else {**baselines.BASELINES, **recipes.RECIPES}
    if name not in methods:
        raise unknown("method", text.partition(":")[0], {*methods, *(TASK + learns for learns in (*RIVALS, *recipes.RECIPES))})
    known = options.names(baselines.BASELINES.get(name, recipes.Recipe), without=GIVEN)
    return name, options.parse_all((option for option in rest.split(",") if rest), partial(options.parse, known=known, of=name))


def recipe_of(text: str) -> dict[str, object]:
    """How a mask was made, as its record has it: the recipe's fields, or the baseline's name and options.

    >>> recipe_of("gaussian:sigma=35"), recipe_of("paper:members=1")["members"]
    ({'name': 'gaussian', 'sigma': 35.0}, 1)
    """
    name, chosen = parse_method(text)
    return {"name": name, **chosen} if name in baselines.BASELINES else replace(recipes.get(name), **chosen).as_dict()


def make(
    method: str,
    train: SliceDataset,
    acceleration: float,
    pattern: str | None = None,
    seed: int = 0,
    task: Objective | None = None,
    demands: Demands | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> MaskResult:
    """The mask that a method makes of training slices. Its provenance also has the method's text and the seconds spent.

    Parameters
    ----------
    method
        As for :func:`parse_method`.
    pattern
        "points", "columns", "rows"; default: the method's own.
    task
        For ``task-`` methods: the loss of a frozen network (:meth:`prom.evaluation.segmentation.Segmenter.objective`), which takes the
        place of the image's. Where a recipe polishes, the mask is learnt and polished for the image first, and then improved for the
        task; from a better start where there is one, by the training loss. Points are polished, from the image's or
        that of ``SLOW``, or that of :func:`prom.baselines.conjugate_energy`. Lines are polished from the image's and from
        those of :func:`prom.baselines.rivals.igs` through the network; the better go through :func:`prom.learn.exchange.exchange`,
        until nothing that it tries helps (chapter 5).
    demands
        What the mask has to meet.
    checkpoint
        As of :func:`prom.optimize`, for recipes; of no use where a recipe polishes for the task, nor to baselines.

    Raises
    ------
    InputError
        Where the method is not known or cannot be used, or ``task`` is missing.

    >>> import torch
    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0])
    >>> result = make("default:iterations=5", data, acceleration=4)
    >>> result.provenance["method"], result.true_acceleration
    ('default:iterations=5', 4.0)
    """
    name, chosen = parse_method(method)
    demands = demands or Demands()
    through = method.startswith(TASK)
    if through and task is None:
        raise InputError(f"method {method}: is learnt through a network; name the network")
    objective = task if through else "magnitude_mse"
    started = time.perf_counter()
    if name in baselines.BASELINES:
        pattern = pattern or baselines.default_pattern(name)
        chosen |= baselines.with_demands(name, demands)
        given = {**chosen, "objective": objective} if through else chosen
        mask = baselines.get(name)(train, acceleration, pattern=pattern, seed=seed, **given)
        result = baselines.as_result(mask, name, acceleration, pattern, seed, train, chosen)
        device = str(choose_device("auto")) if name in RIVALS else "cpu"
    else:
        recipe, pattern = replace(recipes.get(name), **chosen), pattern or "points"
        if through and recipe.polish:
            result = for_task(train, acceleration, pattern, recipe, task, seed, demands)
        else:
            given = {"objective": objective, "seed": seed, "demands": demands, "checkpoint": checkpoint}
            result = optimize(train, acceleration, pattern, recipe, **given)
        device = result.provenance["device"]
    seconds = round(time.perf_counter() - started + result.provenance.get("seconds_before", 0), 2)
    learnt = {name: value for name, value in task.describe().items() if name != "objective"} if through else {}  # of baselines too
    return replace(result, provenance={**result.provenance, **learnt, "method": method, "device": device, "seconds": seconds})


def for_task(
    train: SliceDataset,
    acceleration: float,
    pattern: str,
    recipe: recipes.Recipe,
    task: Objective,
    seed: int = 0,
    demands: Demands | None = None,
) -> MaskResult:
    """The mask for the image, or what starts better for the task by the training loss, improved for the task (chapter 5).

    Masks of points that are as good for the image differ for the task, but none is far from the others: the best of them is polished. Lines
    are few, and swaps need not lead from one choice to another: every start is polished, and then the best exchanged line by line.

    Parameters
    ----------
    recipe
        That of the image's mask, which polishes; ``TASK_SETTINGS`` are for the task.
    task
        The loss of a frozen network on ``train`` (:meth:`prom.evaluation.segmentation.Segmenter.objective`).
    demands
        What the mask has to meet, at every step.
    """
    options.check("polish", recipe.polish, "[1, 1e9]", whole=True)
    problem = Problem.of(train, acceleration, pattern, task, demands=demands)
    chosen, held = split_slices(train, TASK_SLICES, recipe.hold_out)
    device = str(problem.device)
    image = optimize(train, acceleration, pattern, replace(recipe, hold_out=0.0), seed=seed, device=device, demands=demands)
    seen = evenly(len(train), TASK_SLICES)

    def loss(mask: Tensor) -> float:
        return whole_loss(task, seen, mask.float().to(device))

    def polished(start: Tensor) -> Tensor:
        return improve(start, problem, recipe.polish, slices=TASK_SLICES, hold_out=recipe.hold_out)

    if pattern == "points":
        flat = optimize(train, acceleration, recipe=SLOW, seed=seed, device=device, demands=demands)
        starts = [image.mask, flat.mask]
        if train.images.dtype != torch.complex64:  # the closed form is one for real images
            starts.append(baselines.conjugate_energy(train, acceleration, demands=demands))
        mask = polished(min(starts, key=loss))
    else:
        greedy = igs(train, acceleration, pattern, seed, objective=task, batch_size=TASK_SLICES // 2, demands=demands)
        mask = exchange_lines(min(polished(image.mask), polished(greedy), key=loss), problem, chosen, held)
    made = {**image.recipe, **recipe.as_dict()}  # its demands remain
    told = {**task.describe(), "history": f"of the image's mask, with objective {image.provenance['objective']}"}
    return replace(image, mask=mask, recipe=made, provenance={**image.provenance, **told})


def record(result: MaskResult, test: SliceDataset, scores: pd.DataFrame) -> dict[str, object]:
    """The record of a mask from :func:`make` and its scores on ``test`` from :func:`prom.evaluate`, with everything needed to repeat it.

    ``scores`` may also have other columns, such as those of :func:`prom.evaluation.segmentation.evaluate`.

    Returns
    -------
    dict
        Flat and JSON-ready: the settings, true acceleration, mean and standard deviation over slices of every score, seconds
        spent making the mask, the device that made it, recipe, fingerprints of both splits, versions and commit.
    """
    made = result.provenance
    method, _, variant = made["method"].partition(":")
    columns = [(name, values) for name, values in scores.items() if name not in ("subject", "slice")]
    return {
        "dataset": test.name,
        "method": method,
        "variant": variant,
        "members": result.recipe.get("members", 1),
        "pattern": result.pattern,
        "acceleration": result.acceleration,
        "true_acceleration": result.true_acceleration,
        "seed": result.seed,
        **{name: float(values.mean()) for name, values in columns},
        **{f"{name}_std": float(values.std(ddof=0)) for name, values in columns},
        "slices_train": made["slices"],
        "slices_test": len(test),
        "seconds": made["seconds"],
        "device": named(made["device"]),
        "recipe": json.dumps(result.recipe, sort_keys=True),
        "fingerprint_train": made["fingerprint"],
        "fingerprint_test": test.fingerprint(),
        "versions": json.dumps(versions(), sort_keys=True),
        "commit": commit(),
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
    """The most main memory that this process has had so far, in MiB; None where the system does not report it.

    >>> peak_memory() is None or peak_memory() > 10
    True
    """
    # Not ru_maxrss on Linux: a new process begins there with the peak of the one that started it.
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 2**10 if found else None
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


def data_folder() -> Path:
    """The folder ``data`` of the project that this process runs in: ``recorded`` and ``paper`` are its tables.

    Chapters run in the project's folder or in ``notebooks``.

    Raises
    ------
    InputError
        Where neither this folder nor the one above it is the project's.

    >>> (data_folder() / "recorded").is_dir()
    True
    """
    for folder in (Path("data"), Path("../data")):
        if (folder / "recorded").is_dir():
            return folder
    raise InputError(f"folder {Path.cwd()}: has no data/recorded, nor has the one above; run this in the project's folder or in notebooks")


def read(path: str | os.PathLike) -> pd.DataFrame:
    """The records of a csv file, one row a run."""
    table = pd.read_csv(path, low_memory=False, dtype=dict.fromkeys(DIGITS, str))
    if words := [name for name in WORDS if name in table]:
        table[words] = pd.read_csv(path, usecols=words, dtype=str, keep_default_na=False)[words]
    return table
