"""Record coils.csv: python data/recorded/coils.py virtual [--root FOLDER], which goes on where it was stopped.

One row for each method, seed, reconstruction and subject. Densities are tuned, and repulsion chooses its strength, on eight training slices
through SENSE. "virtual" are simulated brains and coils. "lowfield" are measured images of 0.055 T, seen through measured coils,
those of a brain scan (images and coils were not measured together), which is a test of its own there: no mask has seen that image,
but its sensitivities are those that the masks were made with.
pygrappa interpolates k-space and fits its weights to lines that lie together: every mask for it has eight such lines in the centre.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from pygrappa import grappa
from sigpy.mri.app import L1WaveletRecon, SenseRecon
from torch import Tensor
from tqdm import tqdm

import prom
from prom import SliceDataset, baselines
from prom.baselines.repulsion import STRENGTHS, greedy, reach
from prom.baselines.tuned import tuned
from prom.datasets import mni_brain
from prom.errors import InputError
from prom.files import atomic
from prom.kspace.encoding import Coils
from prom.kspace.patterns import make
from prom.learn.batches import ShuffledBatches
from prom.learn.exchange import exchange
from prom.learn.layer import MaskLayer
from prom.learn.networks import train_network
from prom.learn.polish import polish
from prom.learn.steps import QuantileStep
from prom.masks import versions
from prom.masks.demands import Demands
from prom.objectives import whole_set
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named
from prom.reconstruction.sense import Sense, spectrum
from prom.reconstruction.through import Through
from prom.reconstruction.unrolled import Unrolled
from prom.reconstruction.zero_filled import Reconstruction

CASES = [("points", 4), ("points", 8), ("columns", 4), ("columns", 6)]
SPARSE_CASES = [("points", 8)]
TUNING_SLICES = 8
SWAP_EVALUATIONS = 30
NETWORK_STEPS = 300
SIGPY = ("sigpy-sense", "sigpy-wavelet")
OUTSIDE = (*SIGPY, "grappa")
WEIGHTS, JUDGING_SLICES = (0.0005, 0.001, 0.002, 0.004, 0.008), 4
STEPS = {"sigpy-sense": (8, 15, 30), "sigpy-wavelet": (60,)}
GRAPPA_CASES = {"virtual": [("columns", 4), ("columns", 6)], "lowfield": [("columns", 4)]}  # at x6 low field has nine lines
GRAPPA_LINES, KERNELS, RIDGES = 8, ((5, 5), (5, 7)), (0.001, 0.01, 0.1)
KEY = ["data", "reconstruction", "pattern", "acceleration", "method", "seed"]
OUTPUT = Path(__file__).with_suffix(".csv")


def no_way_back(gradient: Tensor) -> Tensor:
    raise InputError("reconstructions of other libraries have no gradient by the mask; learn through sense, and score with them")


class SigPy:
    """A reconstruction of another library, to judge masks that were made for ours: its CG-SENSE, or wavelets by FISTA."""

    def __init__(self, name: str, weight: float, steps: int) -> None:
        self.app = {"sigpy-sense": SenseRecon, "sigpy-wavelet": L1WaveletRecon}[name]
        self.weight, self.options = weight, {"max_iter": steps}

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Image by image. What was not measured it takes from the zeros."""
        measured = (samples * mask).numpy()
        maps = encoding.maps.expand(samples.shape).numpy()
        weights = mask.expand(samples.shape[-2:]).float().numpy()
        shape = samples.shape[:-3]
        found = [
            self.app(y, s, self.weight, weights=weights, show_pbar=False, **self.options).run()
            for y, s in zip(measured.reshape(-1, *samples.shape[-3:]), maps.reshape(-1, *samples.shape[-3:]), strict=True)
        ]
        return torch.from_numpy(np.stack(found)).reshape(*shape, *samples.shape[-2:]), no_way_back


class Grappa:
    """pygrappa's, of columns: what was not measured is a sum of its measured neighbours (Griswold et al. 2002, doi:10.1002/mrm.10171).

    The coils' images are joined by their maps, which GRAPPA itself does without.
    """

    def __init__(self, kernel: tuple[int, int], ridge: float) -> None:
        self.kernel, self.ridge = kernel, ridge

    def __call__(self, samples: Tensor, mask: Tensor, encoding: Coils) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Slice by slice."""
        first = (samples.shape[-1] - GRAPPA_LINES) // 2
        measured = (samples * mask).movedim(-3, -1)
        found = []
        for kspace in measured.reshape(-1, *measured.shape[-3:]).numpy():
            centre = kspace[:, first : first + GRAPPA_LINES].copy()
            found.append(torch.from_numpy(grappa(kspace, centre, kernel_size=self.kernel, lamda=self.ridge)))
        filled = torch.stack(found).reshape(measured.shape).movedim(-1, -3).to(samples.dtype)
        return encoding.adjoint(filled) / encoding.maps.abs().square().sum(dim=-3), no_way_back


def outside(name: str) -> list[SigPy | Grappa]:
    """A reconstruction of another library, with each of the settings to choose from."""
    if name == "grappa":
        return [Grappa(kernel, ridge) for kernel, ridge in product(KERNELS, RIDGES)]
    return [SigPy(name, weight, steps) for weight, steps in product(WEIGHTS, STEPS[name])]  # few steps regularise too


@dataclass(frozen=True)
class Case:
    """What every method gets: the same training slices, and the reconstruction that its masks are made for."""

    train: SliceDataset
    pattern: str
    acceleration: float
    name: str  # of the reconstruction
    reconstruction: Reconstruction
    seed: int
    demands: Demands | None = None

    def make(self, name: str, **options: object) -> Tensor:
        return baselines.get(name)(self.train, self.acceleration, self.pattern, self.seed, demands=self.demands, **options)

    def objective(self, criterion: str = "psnr") -> Reconstructed:
        """On all training slices; lines need converged solves, else what is learnt is to make the solver converge."""
        quick = (
            Sense(self.reconstruction.penalty, iterations=30) if self.pattern == "points" and self.name == "sense" else self.reconstruction
        )
        return Reconstructed(self.train, quick, criterion=criterion)

    def judge(self, mask: Tensor) -> Reconstruction:
        """The reconstruction for a mask: the strength of sparsity is chosen, and a network is trained, for each, on training slices."""
        if self.name == "network":
            network = Unrolled.of(self.train, seed=self.seed)
            return Through(train_network(network, self.train, mask, steps=NETWORK_STEPS, seed=self.seed, device="cpu"))
        if self.name in OUTSIDE:
            few, judges = self.train.thinned(JUDGING_SLICES), outside(self.name)
            return max(judges, key=lambda judge: prom.evaluate(mask, few, reconstruction=judge)["psnr"].mean())
        return self.reconstruction if self.name == "sense" else named(self.name, self.train, mask)


Maker = Callable[[Case], tuple[Tensor, str]]


def plain(name: str, **options: object) -> Maker:
    return lambda case: (case.make(name, **options), str(options) if options else "")


def best_of(name: str, settings: Callable[[Case], list[dict[str, object]]]) -> Maker:
    """A baseline with those of its settings that serve eight training slices best."""

    def make(case: Case) -> tuple[Tensor, str]:
        mask, setting = tuned(partial(case.make, name), settings(case), case.train, case.reconstruction)
        return mask, str(setting)

    return make


def swapped(criterion: str) -> Maker:
    """The closed form, and from there a search for swaps on the training slices, through the reconstruction."""

    def make(case: Case) -> tuple[Tensor, str]:
        begin, few = case.make("repulsion"), None if case.name == "sense" else TUNING_SLICES
        mask = polish(begin, case.train, case.pattern, case.objective(criterion), SWAP_EVALUATIONS, slices=few)
        return mask, f"{criterion}, {SWAP_EVALUATIONS} evaluations, {few or len(case.train)} slices"

    return make


class Damped:
    """The closed form of a case, with the strength that serves training slices best, and its view of a derivative by the mask."""

    def __init__(self, case: Case) -> None:
        train = case.train
        choices = [{"strength": strength} for strength in STRENGTHS]
        self.mask, setting = tuned(partial(case.make, "repulsion"), choices, train, case.reconstruction)
        self.power, self.strength = spectrum(train), setting["strength"] / train.noise**2
        self.kernel = reach(train.sensitivities, make(case.pattern, train.shape))
        self.transformed = torch.fft.fft2(torch.fft.ifftshift(self.kernel))

    def derivative(self, gradient: Tensor, mask: Tensor, power: Tensor) -> Tensor:
        """What each sample is worth by the derivative, less where it is not measured, and more where it is: by what is not known of it."""
        known = torch.fft.ifft2(torch.fft.fft2(mask.double()) * self.transformed).real
        there, without = (power / (1 + self.strength * power * part.clamp(min=0)) for part in (known, known - 1))
        return torch.where(mask, gradient * (1 + self.strength * without), gradient / (1 + self.strength * there))


def damped(case: Case) -> tuple[Tensor, str]:
    """Swaps whose gains are damped by what is not known yet at each sample, kept apart by K; the number halves where the loss rises."""
    form, shape = Damped(case), case.train.shape

    def apart(gains: Tensor, count: int) -> list[int]:
        """The largest, each lowering those near it."""
        chosen = []
        for _ in range(count):
            place = int(gains.argmax())
            chosen.append(place)
            near = form.kernel.roll([i - n // 2 for i, n in zip(divmod(place, shape[1]), shape, strict=True)], (0, 1))
            gains = torch.where(gains > 0, gains / (1 + 5 * near) ** 2, gains * (1 + 5 * near))
            gains.view(-1)[place] = -torch.inf
        return chosen

    objective, everything, mask = case.objective("mse"), range(len(case.train)), form.mask
    count, used = int(mask.sum()) // 16, 1
    loss, gradient = whole_set(objective, everything, mask.float())
    while count and used < SWAP_EVALUATIONS:
        worth = form.derivative(gradient, mask, form.power)
        candidate = mask.clone()
        candidate.view(-1)[apart(torch.where(mask, -torch.inf, -worth), count)] = True
        candidate.view(-1)[apart(torch.where(mask, worth, -torch.inf), count)] = False
        new_loss, new_gradient = whole_set(objective, everything, candidate.float())
        used += 1
        if new_loss < loss:
            mask, loss, gradient, count = candidate, new_loss, new_gradient, 2 * count
        else:
            count //= 2
    return mask, f"mse, {used} evaluations"


def repulsive(iterations: int) -> Maker:
    """A distribution of masks with repulsion: the closed form of a perturbed spectrum, whose logarithm is learnt by damped derivatives.

    Gumbel noise on the logarithms makes the choice of the first sample that of the spectrum as probabilities; each further one repels. The
    noise falls to 0, and the step is that of our default recipe.
    """

    def make(case: Case) -> tuple[Tensor, str]:
        form, shape, objective = Damped(case), case.train.shape, case.objective()
        generator, count = torch.Generator().manual_seed(case.seed), int(form.mask.sum())
        moved = torch.zeros(shape, dtype=torch.float64)
        step = QuantileStep(prom.DEFAULT, moved, case.acceleration)
        batches = ShuffledBatches(len(case.train), 8, generator)

        def drawn(logarithms: Tensor) -> Tensor:
            power = (form.power * logarithms.exp())[..., None].numpy()
            return torch.from_numpy(greedy(power, form.kernel.numpy(), form.strength, count))

        for iteration in range(iterations):
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
            noise = -torch.log(-torch.log(uniform)) * 0.5 * (1 - iteration / iterations)
            mask = drawn(moved + noise)
            gradient = objective.loss_and_gradient(next(batches), mask.float()[None])[1].reshape(shape).double()
            moved = step(moved, form.derivative(gradient, mask, form.power * moved.exp()))
        return drawn(moved), f"{iterations} iterations of 8 images"

    return make


def exchanged(begin: str) -> Maker:
    """A closed form, and from there lines exchanged one by one."""
    return lambda case: (exchange(case.make(begin), case.objective(), range(len(case.train)), case.pattern), "psnr")


def learnt(case: Case) -> tuple[Tensor, str]:
    """The optimiser of chapter 6 without its second-order term, through ten steps of SENSE's solver, from a flat start."""
    objective = Reconstructed(case.train, Sense(case.reconstruction.penalty, iterations=10))
    recipe = replace(prom.DEFAULT, iterations=300, batch_size=8, exploration=0.1, exploitation=0.1)
    return prom.optimize(case.train, case.acceleration, case.pattern, recipe, objective, case.seed).mask, "300 iterations of 8 images"


def of_second_order(case: Case) -> tuple[Tensor, str]:
    """The default recipe as it is today, through thirty steps of the solver, from a flat start; the curvature is at the closed form."""
    objective = Reconstructed(case.train, Sense(case.reconstruction.penalty, iterations=30), criterion="psnr", near=case.make("repulsion"))
    recipe = replace(prom.DEFAULT, batch_size=8)
    return prom.optimize(case.train, case.acceleration, case.pattern, recipe, objective, case.seed).mask, "300 iterations of 8 images"


def by_loupe(case: Case) -> tuple[Tensor, str]:
    """LOUPE's mask layer through SENSE, whose weights its soft masks are; how soft they are is tuned, and 12 is its authors'."""
    make = partial(case.make, "loupe", objective=case.objective("mse"), iterations=300, batch_size=8)
    mask, setting = tuned(make, [{"sample_slope": slope} for slope in (12.0, 50.0, 200.0)], case.train, case.reconstruction)
    return mask, f"{setting}, 300 iterations of 8 images"


def for_zero_filling(case: Case) -> tuple[Tensor, str]:
    """What is learnt for the zero-filled image of the same slices."""
    return prom.optimize(case.train, case.acceleration, case.pattern, prom.POLISHED, seed=case.seed).mask, "POLISHED"


def jointly(case: Case) -> tuple[Tensor, str]:
    """A mask learnt together with a network, from the closed form on: straight-through, as the paper's outlook has it."""
    layer = MaskLayer(case.train.shape, case.acceleration, start=case.make("repulsion").float(), seed=case.seed)
    train_network(Unrolled.of(case.train, seed=case.seed), case.train, layer, steps=NETWORK_STEPS, seed=case.seed, device="cpu")
    return layer.mask(), f"{NETWORK_STEPS} steps"


SHARES = (0.05, 0.08, 0.12, 0.16, 0.2, 0.3)
BOTH, SPARSE = ("points", "columns"), ("sense", "wavelet", "tv")
DRAWN = ("sense", *OUTSIDE)
ALL = (*SPARSE, "network", *OUTSIDE)
WIDTHS = best_of("gaussian", lambda case: [{"sigma": share * max(case.train.shape), "protect_centre": True} for share in SHARES])
POWERS = best_of(
    "polynomial",
    lambda _: [{"power": power, "centre_share": share} for power in (1, 2, 3, 5, 8) for share in (0, 0.02, 0.05, 0.15)],
)
SQUARES = best_of("poisson_disc", lambda _: [{"calibration": side} for side in (0, 4, 8, 12, 16, 24)])
CENTRES = best_of("equispaced", lambda _: [{"centre_fraction": share} for share in (0, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25)])
METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Maker]] = {
    "energy": (BOTH, ALL, plain("energy")),
    "gaussian": (BOTH, DRAWN, WIDTHS),
    "polynomial": (BOTH, DRAWN, POWERS),
    "poisson_disc": (("points",), ALL, SQUARES),
    "equispaced": (("columns",), DRAWN, CENTRES),
    "lattice": (("points",), ("sense",), plain("lattice")),
    "best_candidate": (BOTH, ("sense",), plain("best_candidate")),
    "bass": (BOTH, ("sense",), plain("bass")),
    "igs": (("columns",), ("sense", "grappa"), lambda case: (case.make("igs", objective=case.objective("mse")), "through SENSE")),
    "repulsion": (BOTH, ALL, plain("repulsion")),
    "polished": (("points",), SPARSE, for_zero_filling),
    "default": (BOTH, ("sense",), learnt),
    "default (second order)": (BOTH, ("sense",), of_second_order),
    "loupe": (("points",), ("sense",), by_loupe),
    "a_optimal": (("columns",), ("sense",), plain("a_optimal")),
    "exchange": (("columns",), ("sense", *SIGPY), exchanged("repulsion")),
    "exact, exchange": (("columns",), ("sense",), exchanged("a_optimal")),
    "swaps (psnr)": (("points",), SPARSE, swapped("psnr")),
    "joint": (("points",), ("network",), jointly),
    "swaps (damped)": (("points",), ("sense",), damped),
    "swaps (mse)": (("points",), ("sense",), swapped("mse")),
    "distribution": (("points",), ("sense",), repulsive(15)),  # as many as served a patient held out of training
    "distribution, longer": (("points",), ("sense",), repulsive(60)),
}
RANDOM = (
    "gaussian",
    "polynomial",
    "poisson_disc",
    "equispaced",
    "bass",
    "default",
    "default (second order)",
    "loupe",
    "distribution",
    "distribution, longer",
    "joint",
)


def virtual(root: Path | None) -> tuple[SliceDataset, dict[str, SliceDataset]]:
    """Simulated brains, coils, phase and noise."""
    how = {"size": 128, "coils": 8, "phase": True, "noise": 0.005, "slices": (72, 92)}
    return mni_brain.load("train", subjects=12, **how), {"test": mni_brain.load("test", subjects=6, **how)}


def lowfield(
    root: Path | None, size: tuple[int, int] = (64, 56), unseen: tuple[str, ...] = ("Figure7B", "SupplementaryFigure6B")
) -> tuple[SliceDataset, dict[str, SliceDataset]]:
    """Patients to learn from, three of five, and those to test on, each volume divided by its largest value; and the measured brain."""
    if root is None:
        raise InputError("lowfield: is read from files; give --root, the folder that holds the data sets")
    noise, brain_file = 0.01, root / "espirit_brain_8ch" / "full.cfl"
    how = {"coils": "keep", "crop": 0}  # maps of all pixels: the patients' heads are larger
    brain = prom.load(brain_file, "all", size=size, size_in="kspace", **how)
    maps = prom.load(brain_file, "all", **how).sensitivities[0]
    images = prom.load("lowfield", "all", root / "lowfield_055T", contrast="FSE,FLAIR,GRE", size=size)
    largest = images.images.abs().amax((1, 2, 3)).view(-1, 4).amax(1).repeat_interleave(4)[:, None, None, None]  # volumes of four slices
    images = replace(images, images=images.images / largest, kspace=images.kspace / largest)
    parts = []
    for seed, held_out in enumerate((False, True)):
        part = images.select([place for place, subject in enumerate(images.subjects) if (subject in unseen) == held_out])
        parts.append(part.with_coils(maps, noise=noise, seed=seed))
    return parts[0], {"test": parts[1], "brain": brain.scaled(1 / float(brain.images.abs().max()))}


SETS = {"virtual": virtual, "lowfield": lowfield}


def recorded(output: Path, key: dict[str, object]) -> bool:
    """Whether a file has rows of this run."""
    return output.exists() and bool(pd.read_csv(output)[list(key)].eq(pd.Series(key)).all(axis=1).any())


def rows_of(
    run: dict[str, object], mask: Tensor, seconds: float, scores: dict[str, pd.DataFrame], columns: list[str]
) -> list[dict[str, object]]:
    """One row for each part of the data and subject: the means over its slices."""
    own = {"samples": int(mask.sum()), "seconds": seconds, "versions": json.dumps(versions(), sort_keys=True)}
    return [
        {**run, **own, "part": part, "subject": subject, **means.round(4).to_dict()}
        for part, table in scores.items()
        for subject, means in table.groupby("subject", sort=False)[columns].mean().iterrows()
    ]


def append(output: Path, rows: list[dict[str, object]]) -> None:
    """Write rows below those that are there; a stop at any moment leaves the one file or the other."""
    known = [pd.read_csv(output)] if output.exists() else []
    with atomic(output) as temporary:
        pd.concat([*known, pd.DataFrame(rows)], ignore_index=True).to_csv(temporary, index=False)


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(SETS)))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--reconstruction", default="sense", type=click.Choice(ALL), show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Masks of what is random.")
@click.option("--output", default=OUTPUT, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(METHODS)), help="These methods alone.")
@click.option("--masks", type=click.Path(file_okay=False, path_type=Path), help="Keep the masks here, as .npy.")
def main(name: str, root: Path | None, reconstruction: str, seeds: int, output: Path, only: tuple[str, ...], masks: Path | None) -> None:
    train, tests = SETS[name](root)
    cases = GRAPPA_CASES[name] if reconstruction == "grappa" else CASES if reconstruction in DRAWN else SPARSE_CASES
    demands = Demands(calibration=GRAPPA_LINES) if reconstruction == "grappa" else None
    runs = [
        (pattern, acceleration, method, seed)
        for pattern, acceleration in cases
        for method, (patterns, through, _) in METHODS.items()
        if pattern in patterns and reconstruction in through and (not only or method in only)
        for seed in range(seeds if method in RANDOM or reconstruction == "network" else 1)
    ]
    common = named(reconstruction if reconstruction in SPARSE else "sense", train)
    parts = tests if reconstruction in OUTSIDE else {"train": train, **tests}
    for pattern, acceleration, method, seed in tqdm(runs, disable=None):
        key = dict(zip(KEY, (name, reconstruction, pattern, acceleration, method, seed), strict=True))
        if recorded(output, key):
            continue
        case, start = Case(train, pattern, acceleration, reconstruction, common, seed, demands), time.perf_counter()
        mask, setting = METHODS[method][2](case)
        seconds, judge = round(time.perf_counter() - start, 1), case.judge(mask)
        scores = {part: prom.evaluate(mask, data, reconstruction=judge) for part, data in parts.items()}
        append(output, rows_of({**key, "setting": setting}, mask, seconds, scores, ["psnr"]))
        if masks:
            masks.mkdir(parents=True, exist_ok=True)
            np.save(masks / ("-".join(map(str, key.values())).replace(" ", "_") + ".npy"), mask.numpy())
        means = {part: round(float(table["psnr"].mean()), 2) for part, table in scores.items()}
        tqdm.write(f"{' '.join(map(str, key.values()))}: {means} dB, {seconds} s {setting}")


if __name__ == "__main__":
    main()
