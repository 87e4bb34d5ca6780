"""Record open_choices.csv, what the paper leaves open and each choice is worth: python data/recorded/open_choices.py --root data/ACDC

The paper's recipe, one member a run, with one choice changed at a time: the unit of the images, and on ACDC the exponent of the course of
the budget, and the projection before or after the step. The energy oracle is in it for comparison. On training patients only: masks are
learnt on four fifths of them and scored on the others. A run takes 4 to 10 minutes on one core. Goes on where it was stopped.

"above" is the share of points whose gradient at the start, by its root mean square, is above Adam's epsilon.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import click
import pandas as pd
import torch
from tqdm import tqdm

import prom
from prom.engine.workers import end_with
from prom.learn.moments import adam_moments
from prom.runs import results

ONE = "paper:members=1"
VARIANTS = (f"{ONE},project_after_step=false", f"{ONE},anneal_power=1")
ALPHAS = (4.0, 8.0, 16.0, 32.0)
RUNS = {
    "acdc": [
        *product(("energy",), (1.0,), ALPHAS, (0,)),
        *product((ONE,), (1.0, 0.3, 0.2, 0.1, 0.03, 0.01, 0.003, 0.001), (8.0, 32.0), (0,)),
        *product((ONE,), (0.3, 0.2, 0.1, 0.03), (4.0, 16.0), (0,)),
        *product((ONE,), (1.0,), (8.0,), (1, 2)),
        *product(VARIANTS, (1.0,), (8.0,), (0, 1, 2)),
    ],
    "brain_tumour": [*product(("energy",), (1.0, 0.3, 0.2), (8.0,), (0,))],  # for their share above epsilon
}


def above(train: prom.SliceDataset) -> float:
    """The share of points whose gradient is above epsilon where the recipe starts."""
    _, square = adam_moments(train, 8, prom.PAPER, draws=60)
    return float((square.sqrt() > prom.PAPER.epsilon).float().mean())


def made(parent: int, dataset: str, root: str, method: str, unit: float, acceleration: float, seed: int) -> dict[str, object]:
    """The record of one run, in a worker that ends with its parent."""
    end_with(parent)
    torch.set_num_threads(1)
    train, held = (prom.load(dataset, split, root, validation=0.2, scale=unit) for split in ("train", "validation"))
    mask = results.make(method, train, acceleration, "points", seed)
    command = f"python data/recorded/open_choices.py --dataset {dataset} --root {root}"
    return {**results.record(mask, held, prom.evaluate(mask.mask, held)), "unit": unit, "above": above(train), "command": command}


@click.command(help=__doc__)
@click.option("--dataset", default="acdc", show_default=True, type=click.Choice(list(RUNS)))
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False))
@click.option("--jobs", default=1, show_default=True, help="Runs at a time, each on one core.")
def main(dataset: str, root: str, jobs: int) -> None:
    file = Path(__file__).with_suffix(".csv")
    keys = ["dataset", "method", "variant", "unit", "acceleration", "seed"]
    done = set(results.read(file).fillna({"variant": ""})[keys].itertuples(index=False, name=None)) if file.exists() else set()
    left = [
        (method, unit, acceleration, seed)
        for method, unit, acceleration, seed in RUNS[dataset]
        if (dataset, *method.partition(":")[::2], unit, acceleration, seed) not in done
    ]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as workers:
        work = [workers.submit(made, os.getpid(), dataset, root, *run) for run in left]
        for run in tqdm(as_completed(work), total=len(left), disable=None):
            results.append(file, run.result())
    rows = ["dataset", "method", "variant", "unit"]
    table = results.read(file).fillna({"variant": ""})
    print(table.pivot_table(index=rows, columns=["acceleration", "seed"], values="psnr").round(2).to_string())


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main()
