"""Memory and speed on a data set that does not fit into memory: noise in the size of the paper's BraTS training set.

    /usr/bin/time -v python benchmarks/large_store.py --folder /path/with/21/GiB --slices 20000

makes the store where it is not there yet (without that, the peak is that of the optimisation alone), optimises a mask by the default
recipe, and prints one JSON object: seconds for the mean power spectrum, for all iterations, for loading the batches of as many
iterations alone, and the peak resident memory of the process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

import prom
from prom.datasets import cache
from prom.datasets.base import Part, Plan
from prom.learn.batches import ShuffledBatches
from prom.objectives import Measurements

SLICES_PER_SUBJECT = 50
SHAPE = (4, 256, 256)


def noise(number: int, count: int) -> Part:
    """The slices of one subject: seeded noise."""
    images = np.random.default_rng(number).random((count, *SHAPE), dtype=np.float32)
    return Part(Path(f"noise-{number}"), f"noise-{number:04d}", images, range(count))


def load(folder: Path, slices: int) -> prom.SliceDataset:
    """The noise data set, from its store."""
    os.environ["PROM_CACHE"] = str(folder)
    subjects = range(slices // SLICES_PER_SUBJECT)
    plan = Plan("noise", "train", folder, subjects, partial(noise, count=SLICES_PER_SUBJECT), [], {"slices": slices})
    return cache.read(plan, store=True, processes=os.cpu_count())


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the store lies or is made.")
@click.option("--slices", default=20000, show_default=True)
@click.option("--iterations", default=prom.DEFAULT.iterations, show_default=True)
def main(folder: Path, slices: int, iterations: int) -> None:
    seconds = {}

    def timed(name: str, started: float) -> None:
        seconds[name] = round(time.perf_counter() - started, 2)

    started = time.perf_counter()
    data = load(folder, slices)
    timed("open or make the store", started)
    recipe = replace(prom.DEFAULT, iterations=iterations)

    started = time.perf_counter()
    Measurements(data.images).power()
    timed("mean power spectrum", started)

    started = time.perf_counter()
    result = prom.optimize(data, 8, recipe=recipe)
    timed("optimise, with the mean power spectrum", started)

    batches = ShuffledBatches(len(data), recipe.batch_size, torch.Generator().manual_seed(0))
    started = time.perf_counter()
    for _ in range(iterations):
        data.images[next(batches)]
    timed("load the same number of batches", started)

    started = time.perf_counter()
    first = data.images[: recipe.batch_size]
    for _ in range(20):
        torch.fft.fft2(first)
    timed("transform 20 batches", started)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    images_gib = len(data) * np.prod(SHAPE) * 4 / 2**30
    print(json.dumps({"slices": len(data), "images GiB": round(float(images_gib), 2), "seconds": seconds, "peak GiB": round(peak, 3)}))
    assert int(result.mask.sum()) == SHAPE[1] * SHAPE[2] // 8


if __name__ == "__main__":
    main()
