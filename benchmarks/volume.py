"""Time and memory of a large 3D scan: python benchmarks/volume.py write FOLDER, then volume.py measure FOLDER [--output volume.json]

"write" makes a virtual brain, 160 x 256 x 256 (N, H, W), as eight simulated coils with noise measure it: one file of raw k-space, 640 MiB.
"measure" does what a user would, and times each step: reading it with volume=True and readout 1, sensitivities estimated by ESPIRiT, the
closed form (repulsion, its strength chosen), and 100 iterations of learning through SENSE. The peak is that of the process, and of the
largest of those that read. Minutes of the processors are also given: on a machine that others use, their sum divided by the number of
threads is about what the wall clock would show without them. FOLDER needs 3 GiB.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

import prom
from prom.baselines.repulsion import repulsion
from prom.files import atomic
from prom.kspace.coils import simulated
from prom.kspace.fourier import fft2c
from prom.masks import versions
from prom.runs.golden import processor

NAME = "scan.npy"
SHAPE, COILS, NOISE, ACCELERATION, ITERATIONS = (160, 256, 256), 8, 0.005, 8, 100
GIB = 2**30 if sys.platform == "darwin" else 2**20  # of what the system counts


def write(path: Path, shape: tuple[int, int, int] = SHAPE) -> None:
    """Raw k-space (K, N, H, W) of a virtual brain. Coil by coil; the transform along N follows that of H and W."""
    slices = range(0, shape[0])
    brain = prom.load("mni_brain", subjects=1, size=shape[1], slices=slices, phase=True, volume=True, readout=0)
    image = torch.zeros(shape, dtype=torch.complex64)
    image[brain.slices] = brain.images[:, 0]
    file = np.lib.format.open_memmap(path, "w+", np.complex64, (COILS, *shape))
    generator = torch.Generator().manual_seed(0)
    maps = simulated(COILS, shape)
    for coil in tqdm(range(COILS), desc="write raw k-space", delay=2, disable=None, leave=False):
        samples = fft2c(maps[coil] * image)
        for row in range(shape[1]):  # a transform in 2D with an axis of one sample is that of the other
            samples[:, row] = fft2c(samples[:, row].T[:, :, None])[..., 0].T
        samples += NOISE * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)
        file[coil] = samples.numpy()
    file.flush()


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("write")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def write_command(folder: Path) -> None:
    """Make the file that is measured."""
    write(folder / NAME)


@main.command("measure")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path))
def measure_command(folder: Path, output: Path | None) -> None:
    """Time the steps from the file to a learnt mask."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with tempfile.TemporaryDirectory(dir=folder) as place:
        os.environ["PROM_CACHE"] = place
        found: dict[str, object] = {"shape": SHAPE, "coils": COILS, "file MiB": path.stat().st_size // 2**20}
        found |= {
            "processor": processor(),
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "minutes": {},
            "processor minutes": {},
        }

        def step(name: str, work):
            wall, own = time.perf_counter(), spent()
            result = work()
            found["minutes"][name] = round((time.perf_counter() - wall) / 60, 2)
            found["processor minutes"][name] = round((spent() - own) / 60, 2)
            click.echo(f"{name}: {found['minutes'][name]} minutes, {found['processor minutes'][name]} of processors")
            return result

        how = {"volume": True, "readout": 1, "axes": "KNHW", "domain": "kspace", "coils": "keep"}
        data = step("read", lambda: prom.load(path, **how))
        step("repulsion", lambda: repulsion(data, ACCELERATION))
        recipe = replace(prom.DEFAULT, iterations=ITERATIONS, members=1)
        result = step("learn", lambda: prom.optimize(data, ACCELERATION, recipe=recipe, reconstruction="sense"))
        found["minutes"]["all"] = round(sum(found["minutes"].values()), 2)
        found["processor minutes"]["all"] = round(sum(found["processor minutes"].values()), 2)
        usage = {"this process": resource.RUSAGE_SELF, "a reading process": resource.RUSAGE_CHILDREN}
        found["peak GiB"] = {name: round(resource.getrusage(who).ru_maxrss / GIB, 2) for name, who in usage.items()}
        found |= {"slices": len(data), "samples": int(result.mask.sum())}
    click.echo(json.dumps(found))
    if output:
        with atomic(output) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")


def spent() -> float:
    """Seconds of processors of this process and of those that it has ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
