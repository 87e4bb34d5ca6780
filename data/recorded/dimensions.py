"""Record dimensions_volumes.csv: python data/recorded/dimensions.py volumes [--root FOLDER], which goes on where it was stopped.

Does a 3D scan gain from choosing single points of ky-kz, against lines of ky or of kz? The points are as many as the readouts of the lines,
of the fewer where columns and rows differ (whole lines do not divide every budget). One row for each data set, reconstruction, pattern,
acceleration, method and test subject (virtual) or test position (romeo), with the minutes of a scan whose repetition time is 8 ms.
``dimensions.py gains`` prints points minus lines, paired, with intervals of 95 %.

- "virtual": simulated brains, coils (8, two rings), phase and noise; 42 x 96 x 96, read out across the slices, so that ky-kz is 96 x 96.
  Masks are made with six subjects and scored on four others, all at the same positions of the readout. Intervals are over subjects.
- "romeo": a 3D gradient-echo scan of one brain at three echo times, magnitude and phase as measured (a crop of 51 x 51 x 41; the stored
  phase, of no unit, spans 2 pi). Read out along its first axis, so that ky-kz is 51 x 41. Masks are made with the first echo at even
  positions of the readout, and scored on the other two echoes at odd positions: echoes and positions are unseen, the subject is not. With
  SENSE its coils are emulated (8 in two rings around the crop), and their noise is simulated. Intervals are over positions.

With "sense" all coils and the prior of the training images; with "zero-filled" one coil. "repulsion" with SENSE and the order of mean power
("energy") with zero-filling are the closed forms of chapters 1 and 10; "exchange" improves the lines of the first by learning, at x8.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import nibabel
import numpy as np
import pandas as pd
import torch
from coils import append, recorded, rows_of
from scipy.stats import t as student
from tqdm import tqdm

import prom
from prom import SliceDataset, baselines
from prom.datasets import mni_brain, volumes
from prom.errors import InputError
from prom.kspace.coils import simulated
from prom.kspace.fourier import fft2c
from prom.learn.exchange import exchange
from prom.masks import commit
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named
from prom.runs.golden import processor

KEY = ["data", "reconstruction", "pattern", "acceleration", "method"]
FOLDER = Path(__file__).parent
PATTERNS = ("points", "columns", "rows")  # columns: all kz of some ky; rows: all ky of some kz
ACCELERATIONS = (4, 8, 12)
METHODS = {"sense": ("repulsion", "exchange"), "zero-filled": ("energy",)}
REPETITION_TIME = 8e-3  # s, of each ky-kz
SEEN = {"train": 6, "test": 4}  # virtual subjects
POSITIONS = range(10, 34, 4)  # of the readout, of virtual subjects: through the brain
EXCHANGED, EXCHANGED_AT = 6, 8  # slices that an exchange of lines learns from, and the acceleration at which it is recorded
NOISE = {"virtual": 0.005, "romeo": 0.01}  # of a sample of k-space, for images up to 1
COILS = 8


@dataclass(frozen=True)
class Case:
    train: SliceDataset
    test: SliceDataset


@cache
def virtual(coils: int, root: Path | None) -> Case:
    how = {"size": 96, "slices": range(-4, 164, 4), "volume": True, "readout": 0, "phase": True, "noise": NOISE["virtual"]}
    parts = {split: mni_brain.load(split, subjects=count, coils=coils, **how) for split, count in SEEN.items()}
    at = {split: [place for place, position in enumerate(data.slices) if position in POSITIONS] for split, data in parts.items()}
    return Case(*(data.select(at[split]) for split, data in parts.items()))


@cache
def romeo(coils: int, root: Path | None) -> Case:
    if root is None:
        raise InputError("romeo: is read from files; give --root, the folder that holds the data sets")
    folder = root / "romeo_3d_multiecho"
    magnitude, phase = (np.asanyarray(nibabel.load(folder / f"{name}.nii").dataobj) for name in ("Mag", "Phase"))
    measured = magnitude / magnitude.max() * np.exp(1j * np.pi * phase / np.abs(phase).max())
    echoes = measured.transpose(3, 2, 0, 1).astype(np.complex64)  # echo, N, H, W: the third axis of the file is N
    maps = (
        volumes.turned(simulated(coils, echoes.shape[1:]).transpose(0, 1).numpy(), 1)
        if coils > 1
        else np.ones((51, 1, 41, 51), np.complex64)
    )
    slices = np.concatenate([volumes.turned(echo[:, None], 1) for echo in echoes])
    entries = [(echo, position) for echo in range(3) for position in range(slices.shape[0] // 3)]
    parts = {"train": [e == 0 and p % 2 == 0 for e, p in entries], "test": [e > 0 and p % 2 == 1 for e, p in entries]}
    made = []
    for seed, (split, chosen) in enumerate(parts.items()):
        images, own = (torch.from_numpy(np.ascontiguousarray(array[chosen])) for array in (slices, np.concatenate([maps] * 3)))
        generator = torch.Generator().manual_seed(seed)
        samples = fft2c(own * images)
        samples += NOISE["romeo"] * torch.randn(samples.shape, dtype=samples.dtype, generator=generator)
        names = [f"echo {echo + 1}, position {position:02d}" for (echo, position), take in zip(entries, chosen, strict=True) if take]
        numbers = [position for (_, position), take in zip(entries, chosen, strict=True) if take]
        made.append(SliceDataset("romeo", split, images, names, numbers, sensitivities=own, kspace=samples, noise=NOISE["romeo"]))
    return Case(*made)


SETS = {"virtual": virtual, "romeo": romeo}


def runs(name: str) -> Iterator[tuple[str, str, int, str]]:
    """What is recorded, the quick ones first."""
    for method in ("energy", "repulsion", "exchange"):
        for reconstruction, methods in METHODS.items():
            for acceleration in ACCELERATIONS:
                for pattern in PATTERNS:
                    exchanged = pattern != "points" and acceleration == EXCHANGED_AT
                    if method in methods and (method != "exchange" or exchanged):
                        yield reconstruction, pattern, acceleration, method


@cache
def closed_form(name: str, root: Path | None, reconstruction: str, pattern: str, acceleration: int, method: str) -> torch.Tensor:
    case = SETS[name](COILS if reconstruction == "sense" else 1, root)
    if pattern == "points":
        rows, columns = case.train.shape
        count = min(columns // acceleration * rows, rows // acceleration * columns)
        return baselines.get(method)(case.train, rows * columns / (count + 0.5))  # floor(D / alpha) of this is the count
    return baselines.get(method)(case.train, acceleration, pattern)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Points minus the better lines of each kind, in dB, paired by subject or position: mean and interval of 95 %."""
    best = table.groupby([*KEY[:4], "subject"])[["psnr"]].max().reset_index()
    rows = []
    for (data, reconstruction, acceleration), group in best.groupby(["data", "reconstruction", "acceleration"]):
        wide = group.pivot(index="subject", columns="pattern", values="psnr")
        for lines in ("columns", "rows"):
            gain = wide["points"] - wide[lines]
            half = student.ppf(0.975, len(gain) - 1) * gain.std() / np.sqrt(len(gain))
            rows.append(
                {"data": data, "reconstruction": reconstruction, "acceleration": acceleration, "against": lines, "count": len(gain)}
            )
            rows[-1] |= {"points": wide["points"].mean(), "lines": wide[lines].mean(), "gain": gain.mean(), "half": half}
            minutes = table[(table[["data", "acceleration"]] == [data, acceleration]).all(axis=1)].groupby("pattern")["minutes"].first()
            rows[-1] |= {
                "minutes": minutes["points"],
                "minutes of lines": minutes[lines],
                "minutes of all": minutes["points"] * acceleration,
            }
    return pd.DataFrame(rows).round(3)


@click.group(help=__doc__)
def main() -> None:
    torch.set_num_threads(1)


@main.command("volumes")
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="These data alone.")
@click.option("--output", default=FOLDER / "dimensions_volumes.csv", type=click.Path(dir_okay=False, path_type=Path))
def volumes_command(root: Path | None, only: tuple[str, ...], output: Path) -> None:
    """Points of ky-kz against lines."""
    for name in only or SETS:
        for reconstruction, pattern, acceleration, method in tqdm(list(runs(name)), desc=name, disable=None):
            key = dict(zip(KEY, (name, reconstruction, pattern, acceleration, method), strict=True))
            if recorded(output, key):
                continue
            case, start = SETS[name](COILS if reconstruction == "sense" else 1, root), time.perf_counter()
            through = named(reconstruction, case.train)
            if method == "exchange":
                begin, few = closed_form(name, root, reconstruction, pattern, acceleration, "repulsion"), case.train.thinned(EXCHANGED)
                mask = exchange(begin, Reconstructed(few, through, criterion="psnr"), range(len(few)), pattern)
            else:
                mask = closed_form(name, root, reconstruction, pattern, acceleration, method)
            seconds, encodes = round(time.perf_counter() - start, 1), int(mask.sum())
            scores = {"test": prom.evaluate(mask, case.test, reconstruction=through)}
            own = {"encodes": encodes, "minutes": round(encodes * REPETITION_TIME / 60, 4), "commit": commit(), "processor": processor()}
            append(output, rows_of({**key, **own}, mask, seconds, scores, ["psnr", "ssim"]))
            tqdm.write(f"{' '.join(map(str, key.values()))}: {scores['test']['psnr'].mean():.2f} dB, {encodes} encodes, {seconds} s")


@main.command("gains")
@click.option("--output", default=FOLDER / "dimensions_volumes.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def gains_command(output: Path) -> None:
    """Print what points gain over lines."""
    click.echo(gains(pd.read_csv(output)).to_string(index=False))


if __name__ == "__main__":
    main()
