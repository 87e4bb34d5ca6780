"""Record coils.csv: python data/recorded/coils.py virtual [--root FOLDER], which goes on where it was stopped.

One row for each method, seed, reconstruction and test subject. Densities are tuned, and repulsion chooses its strength, on eight training
slices through SENSE. "virtual" are simulated brains and coils. "lowfield" are measured images of 0.055 T, seen through measured coils,
those of a brain scan (images and coils were not measured together), which is a test of its own there: no mask has seen that brain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

import prom
from prom import SliceDataset, baselines
from prom.datasets import mni_brain
from prom.files import atomic
from prom.learn.exchange import exchange
from prom.learn.polish import polish
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction.sense import Sense

CASES = [("points", 4), ("points", 8), ("columns", 4), ("columns", 6)]
TUNING_SLICES = 8
OUTPUT = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class Case:
    """What every method gets: the same training slices, and the reconstruction that it will be judged by."""

    train: SliceDataset
    pattern: str
    acceleration: float
    sense: Sense
    seed: int

    @property
    def few(self) -> SliceDataset:
        return self.train.thinned(TUNING_SLICES)

    def score(self, mask: Tensor, data: SliceDataset) -> pd.DataFrame:
        return prom.evaluate(mask, data, reconstruction=self.sense)

    def make(self, name: str, **options: object) -> Tensor:
        return baselines.get(name)(self.train, self.acceleration, self.pattern, self.seed, **options)


def tuned(name: str, settings: Callable[[Case], list[dict[str, object]]]) -> Callable[[Case], tuple[Tensor, str]]:
    """A density with those of its settings that serve a few training slices best."""

    def make(case: Case) -> tuple[Tensor, str]:
        choices = settings(case)
        tried = [case.score(case.make(name, **setting), case.few)["psnr"].mean() for setting in choices]
        best = choices[int(np.argmax(tried))]
        return case.make(name, **best), str(best)

    return make


def plain(name: str) -> Callable[[Case], tuple[Tensor, str]]:
    return lambda case: (case.make(name), "")


def best_strength(case: Case) -> tuple[Tensor, str]:
    return case.make("repulsion"), "strength chosen by training slices"


def learnt_from(criterion: str, evaluations: int) -> Callable[[Case], tuple[Tensor, str]]:
    """The closed form, and from there a search for swaps, or for exchanges of lines, on all training slices through SENSE."""

    def make(case: Case) -> tuple[Tensor, str]:
        begin = case.make("repulsion")
        sense = Sense(case.sense.penalty, iterations=30)  # with fewer it has not converged for lines, and learns to make it converge
        objective = Reconstructed(case.train, sense, criterion=criterion)
        if case.pattern == "points":
            return polish(begin, case.train, case.pattern, objective, evaluations), f"{criterion}, {evaluations} evaluations"
        return exchange(begin, objective, range(len(case.train)), case.pattern), criterion

    return make


def prom_through_sense(case: Case) -> tuple[Tensor, str]:
    """The optimiser of chapter 6, straight through SENSE, from a flat start."""
    objective = Reconstructed(case.train, Sense(case.sense.penalty, iterations=10))
    recipe = replace(prom.DEFAULT, iterations=300, batch_size=8)
    return prom.optimize(case.train, case.acceleration, case.pattern, recipe, objective, case.seed).mask, "300 iterations of 8 images"


WIDTHS = (0.08, 0.12, 0.16, 0.2, 0.3)
METHODS: dict[str, tuple[tuple[str, ...], Callable[[Case], tuple[Tensor, str]]]] = {
    "energy": (("points", "columns"), plain("energy")),
    "gaussian": (
        ("points", "columns"),
        tuned("gaussian", lambda case: [{"sigma": share * max(case.train.shape), "protect_centre": True} for share in WIDTHS]),
    ),
    "poisson_disc": (("points",), tuned("poisson_disc", lambda _: [{"calibration": side} for side in (0, 4, 8, 12, 16, 24)])),
    "equispaced": (("columns",), tuned("equispaced", lambda _: [{"centre_fraction": share} for share in (0.02, 0.04, 0.08, 0.12, 0.16)])),
    "repulsion": (("points", "columns"), best_strength),
    "repulsion, swaps (mse)": (("points",), learnt_from("mse", 40)),
    "repulsion, swaps (psnr)": (("points",), learnt_from("psnr", 40)),
    "repulsion, exchange (psnr)": (("columns",), learnt_from("psnr", 0)),
    "default through SENSE": (("points", "columns"), prom_through_sense),
}
RANDOM = ("gaussian", "poisson_disc", "equispaced", "default through SENSE")


def virtual(root: Path | None) -> tuple[SliceDataset, dict[str, SliceDataset]]:
    """Simulated brains, coils, phase and noise."""
    how = {"size": 128, "coils": 8, "phase": True, "noise": 0.005, "slices": (72, 92)}
    return mni_brain.load("train", subjects=12, **how), {"test": mni_brain.load("test", subjects=6, **how)}


def lowfield(root: Path | None) -> tuple[SliceDataset, dict[str, SliceDataset]]:
    """Three patients to learn from and two to test on, 64 x 56, each volume divided by its largest value; and the measured brain."""
    size, noise, brain_file = (64, 56), 0.01, root / "espirit_brain_8ch" / "full.cfl"
    how = {"coils": "keep", "crop": 0}  # maps of all pixels: the patients' heads are larger
    brain = prom.load(brain_file, "all", size=size, size_in="kspace", **how)
    maps = prom.load(brain_file, "all", **how).sensitivities[0]
    images = prom.load("lowfield", "all", root / "lowfield_055T", contrast="FSE,FLAIR,GRE", size=size)
    largest = images.images.abs().amax((1, 2, 3)).view(-1, 4).amax(1).repeat_interleave(4)[:, None, None, None]  # volumes of four slices
    images = replace(images, images=images.images / largest, kspace=images.kspace / largest)
    sides = {"train": ("Figure6A", "Figure6B", "SupplementaryFigure6A"), "test": ("Figure7B", "SupplementaryFigure6B")}
    parts = []
    for seed, subjects in enumerate(sides.values()):
        part = images.select([place for place, subject in enumerate(images.subjects) if subject in subjects])
        parts.append(part.with_coils(maps, noise=noise, seed=seed))
    return parts[0], {"test": parts[1], "brain": brain.scaled(1 / float(brain.images.abs().max()))}


SETS = {"virtual": virtual, "lowfield": lowfield}


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(SETS)))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--seeds", default=3, show_default=True, help="Masks of what is random.")
@click.option("--output", default=OUTPUT, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(METHODS)), help="These methods alone.")
@click.option("--masks", type=click.Path(file_okay=False, path_type=Path), help="Keep the masks here, as .npy.")
def main(name: str, root: Path | None, seeds: int, output: Path, only: tuple[str, ...], masks: Path | None) -> None:
    train, tests = SETS[name](root)
    sense = Sense.of(train)
    for pattern, acceleration in tqdm(CASES, disable=None):
        for method, (patterns, make) in METHODS.items():
            if pattern not in patterns or (only and method not in only):
                continue
            for seed in range(seeds if method in RANDOM else 1):
                known = pd.read_csv(output) if output.exists() else pd.DataFrame(columns=["data"])
                key = {"data": name, "pattern": pattern, "acceleration": acceleration, "method": method, "seed": seed}
                if len(known) and known[list(key)].eq(pd.Series(key)).all(axis=1).any():
                    continue
                case, start = Case(train, pattern, acceleration, sense, seed), time.perf_counter()
                mask, setting = make(case)
                seconds = round(time.perf_counter() - start, 1)
                few = case.score(mask, case.few)["psnr"].mean()
                rows = []
                for test, data in tests.items():
                    by_subject = case.score(mask, data).groupby("subject")["psnr"].mean()
                    for subject, psnr in by_subject.items():
                        scored = {"test": test, "subject": subject, "psnr": round(psnr, 4), "psnr_train": round(few, 4)}
                        rows.append({**key, "setting": setting, **scored, "samples": int(mask.sum()), "seconds": seconds})
                table = pd.concat([known, pd.DataFrame(rows)], ignore_index=True) if len(known) else pd.DataFrame(rows)
                with atomic(output) as temporary:
                    table.to_csv(temporary, index=False)
                if masks:
                    masks.mkdir(parents=True, exist_ok=True)
                    np.save(masks / f"{name}-{pattern}-{acceleration}-{method.replace(' ', '_')}-{seed}.npy", mask.numpy())
                tqdm.write(
                    f"{name} {pattern} x{acceleration} {method} {seed}: {np.mean([row['psnr'] for row in rows]):.2f} dB, {seconds} s"
                )


if __name__ == "__main__":
    main()
