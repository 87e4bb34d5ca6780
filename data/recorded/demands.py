"""Record demands.csv: python data/recorded/demands.py virtual [--root FOLDER], which goes on where it was stopped.

What each demand of a scanner costs, through SENSE: one row for each method, demand, seed and subject. The cost is the difference to the
rows of the demand "none". Lines x4, of 128 (with 128 or 112 samples each), and points x8. What a method tunes it tunes for each demand, on
training slices. Every mask is checked against its demands before it is recorded.

- "virtual": simulated brains, coils, phase and noise, 128 x 128.
- "lowfield": images measured at 0.055 T, with their phase and their noise, which the reference has too, seen through measured coils,
  128 x 112. Images and coils were not measured together, and the noise of the coils is simulated. Five patients, a subset of the six that
  were published, each held out once. Its part "brain" is a brain measured with these eight coils: one slice of one person, which no mask
  has seen, but whose sensitivities are those that the masks were made with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from coils import METHODS, RANDOM, Case, append, lowfield, recorded, rows_of, virtual
from tqdm import tqdm

import prom
from prom import SliceDataset
from prom.errors import InputError
from prom.kspace.patterns import make
from prom.masks.demands import Demands
from prom.reconstruction import named

KEY = ["data", "held_out", "pattern", "acceleration", "demand", "method", "seed"]
OUTPUT = Path(__file__).with_suffix(".csv")
SIZE = (128, 112)
PATIENTS = ("Figure6A", "Figure6B", "SupplementaryFigure6A", "Figure7B", "SupplementaryFigure6B")
CALIBRATION = 24
LINES = {
    "none": {},
    "calibration": {"calibration": CALIBRATION},
    "partial_fourier": {"partial_fourier": 0.75},
    "max_gap": {"max_gap": 8},  # twice the acceleration
    "segments": {"segments": 8},
    # Of 32 lines 24 are in the middle: 8 others leave gaps of 11 at least, and 8 bands cannot be equal, but 2 can.
    "protocol": {"calibration": CALIBRATION, "max_gap": 12, "segments": 2},
}
POINTS = {
    "none": {},
    "calibration": {"calibration": CALIBRATION},
    "calibration, disc": {"calibration": CALIBRATION, "calibration_shape": "disc"},
    "shutter": {"shutter": True},
    "partial_fourier": {"partial_fourier": 0.75},
    "segments": {"segments": 8},
    "protocol": {"calibration": CALIBRATION, "shutter": True},
}
OF_LINES = ("energy", "gaussian", "equispaced", "repulsion", "a_optimal", "igs")  # the slowest last
OF_POINTS = ("energy", "gaussian", "poisson_disc", "repulsion")


@dataclass(frozen=True)
class Fold:
    """Training slices, and the parts of the data that score masks; ``lines`` is the pattern that has 128 of them."""

    held_out: str
    train: SliceDataset
    parts: dict[str, SliceDataset]
    lines: str


def folds(name: str, root: Path | None) -> Iterator[Fold]:
    if name == "virtual":
        yield Fold("test", *virtual(root), "columns")
        return
    for patient in PATIENTS:
        yield Fold(patient, *lowfield(root, SIZE, (patient,)), "rows")


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(["virtual", "lowfield"]))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--seeds", default=3, show_default=True, help="Masks of what is random.")
@click.option("--output", default=OUTPUT, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(sorted({*OF_LINES, *OF_POINTS})), help="These methods alone.")
def main(name: str, root: Path | None, seeds: int, output: Path, only: tuple[str, ...]) -> None:
    for fold in folds(name, root):
        sense = named("sense", fold.train)
        runs = [
            (pattern, acceleration, demand, wanted, method, seed)
            for pattern, acceleration, demands, methods in ((fold.lines, 4, LINES, OF_LINES), ("points", 8, POINTS, OF_POINTS))
            for method in methods
            if not only or method in only
            for demand, wanted in demands.items()
            for seed in range(seeds if method in RANDOM else 1)
        ]
        for pattern, acceleration, demand, wanted, method, seed in tqdm(runs, disable=None):
            key = dict(zip(KEY, (name, fold.held_out, pattern, acceleration, demand, method, seed), strict=True))
            if recorded(output, key):
                continue
            demands, start = Demands(**wanted), time.perf_counter()
            mask, setting = METHODS[method][2](Case(fold.train, pattern, acceleration, "sense", sense, seed, demands))
            seconds, lines = round(time.perf_counter() - start, 1), make(pattern, fold.train.shape)
            if not demands.feasible(lines, acceleration).admits(lines.select(mask)):
                raise InputError(f"{method}: its mask does not meet {demands.describe() or 'the budget'}")
            scores = {part: prom.evaluate(mask, data, reconstruction=sense) for part, data in fold.parts.items()}
            append(output, rows_of({**key, "asked": demands.describe(), "setting": setting}, mask, seconds, scores, ["psnr", "ssim"]))
            means = {part: round(float(table["psnr"].mean()), 2) for part, table in scores.items()}
            tqdm.write(f"{' '.join(map(str, key.values()))}: {means} dB, {seconds} s {setting}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
