"""How fast learning through SENSE is off the grid: python benchmarks/off_grid.py [--output results/off_grid.json]

An iteration, the gradient of a mask of spokes for several images, against the non-uniform transforms that it would take with E and its
adjoint alone: in each step of the solver one each way for every coil, at the samples of the mask; and the transforms to all candidates that
the gradient needs. By turns in one process. Virtual brains, eight simulated coils, 256 candidates, x8.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import coils
import speed
import torch

from prom.baselines.angles import equal_angles
from prom.engine.threads import parallel, spread
from prom.files import atomic
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import spokes
from prom.masks import versions
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense

CANDIDATES, ACCELERATION, SIZES = 256, 8, (64, 128)


def transforms(size: int, images: int):
    """Non-uniform transforms alone, of plans made before."""
    every = spokes(CANDIDATES, size).points
    measured = NonUniform(every[:: CANDIDATES * ACCELERATION // size].contiguous(), (size, size))
    everything = NonUniform(every, (size, size))
    image = torch.randn(coils.COILS, size, size, dtype=torch.complex64)
    samples = everything.forward(image)

    def one(_: int) -> None:
        everything.adjoint(samples)  # the right-hand side
        for _ in range(2 * coils.STEPS):
            measured.adjoint(measured.forward(image))
        everything.forward(image), everything.forward(image)  # the rest, and what the gradient is of it

    return spread()(lambda: parallel(one, range(images)))


def iteration(size: int):
    data = coils.brains(size, coils.BATCH // 2).along(spokes(CANDIDATES, size))
    objective = Reconstructed(data, Sense(Sense.of(data).penalty, iterations=coils.STEPS, tolerance=0.0))
    mask = equal_angles(data, ACCELERATION).float()[None]
    return spread()(lambda: objective.loss_and_gradient(range(coils.BATCH), mask))


@click.command(help=__doc__)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--turns", default=5, show_default=True)
def main(output: Path | None, turns: int) -> None:
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {"processor": speed.processor(), "versions": versions(), "threads": torch.get_num_threads()}
    for size in SIZES:
        spent = speed.by_turns({"ours": iteration(size), "transforms": transforms(size, coils.BATCH)}, "cpu", turns, rounds=1)
        name = f"iteration, {size}"
        found[name] = {**{way: round(1e3 * value, 2) for way, value in spent.items()}, "unit": "ms"}
        found[name]["ratio"] = round(spent["ours"] / spent["transforms"], 2)
        print(f"{name}: {found[name]}")
    if output:
        with atomic(output) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
