"""How fast SENSE and the closed form for several coils are: python benchmarks/coils.py [--output results/coils.json]

A step of the solver, and an iteration of learning through it, against the Fourier transforms that they cannot do without, by turns in one
process; and seconds of energy with repulsion at 256 x 256, its strength chosen by training slices. Virtual brains, eight simulated coils.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import speed
import torch

import prom
from prom.baselines.repulsion import repulsion
from prom.datasets import mni_brain
from prom.engine.coils import CACHED, solve
from prom.engine.threads import parallel, spread
from prom.files import atomic
from prom.kspace.encoding import Coils
from prom.masks import versions
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense

COILS, STEPS, BATCH = 8, 10, 8
SIZES = (64, 128, 256)


def brains(size: int, subjects: int) -> prom.SliceDataset:
    return mni_brain.load("train", subjects=subjects, slices=(72, 92), size=size, coils=COILS, phase=True, noise=0.005)


def transforms(size: int, images: int, solves: int):
    """The same transforms as ``solves`` of STEPS steps for each image, in groups of coils that stay in cache as the solver has them."""
    groups = list(torch.randn(COILS, size, size, dtype=torch.complex64).split(max(1, CACHED // size**2)))
    image = groups[0][0]

    def one(_: int) -> None:
        for _ in range(solves * STEPS):
            torch.fft.fft2(image), torch.fft.ifft2(image, norm="forward")
            for group in groups:
                torch.fft.ifft2(torch.fft.fft2(group), norm="forward")

    return spread()(lambda: parallel(one, range(images)))


def step(size: int):
    """A solve of STEPS steps for one image."""
    data = brains(size, 1)
    maps, mask = data.maps([0])[0].contiguous(), repulsion(data, 8, strength=0.1).float()
    penalty = Sense.of(data).penalty.float()
    scale = 1 / (Coils(maps).diagonal(mask).clamp(min=0) + penalty)
    right = torch.randn(size, size, dtype=torch.complex64)
    return spread()(lambda: solve(maps, mask, penalty, scale, right, STEPS, 0.0))


def iteration(size: int):
    """The gradient of BATCH images with one mask: for each a solve for the image and one for the gradient."""
    data = brains(size, BATCH // 2)
    objective = Reconstructed(data, Sense(Sense.of(data).penalty, iterations=STEPS, tolerance=0.0))
    mask = repulsion(data, 8, strength=0.1).float()[None]
    return spread()(lambda: objective.loss_and_gradient(range(BATCH), mask))


@click.command(help=__doc__)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--turns", default=9, show_default=True)
def main(output: Path | None, turns: int) -> None:
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {"processor": speed.processor(), "versions": versions(), "threads": torch.get_num_threads()}
    for size in SIZES:
        for name, work, images, solves in (("step", step, 1, 1), ("iteration", iteration, BATCH, 2)):
            ways = {"ours": work(size), "transforms": transforms(size, images, solves)}
            spent = speed.by_turns(ways, "cpu", turns, rounds=1)
            found[f"{name}, {size}"] = {**{way: round(1e3 * value, 2) for way, value in spent.items()}, "unit": "ms"}
            found[f"{name}, {size}"]["ratio"] = round(spent["ours"] / spent["transforms"], 2)
            print(f"{name} at {size} x {size}: {found[f'{name}, {size}']}")
    data = brains(256, 12)
    for run in ("first", "second"):
        start = time.perf_counter()
        mask = repulsion(data, 8)
        found[f"repulsion at 256 x 256, {run} call"] = round(time.perf_counter() - start, 1)
    print(f"repulsion at 256 x 256: {found['repulsion at 256 x 256, second call']} s, {int(mask.sum())} samples")
    if output:
        with atomic(output) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
