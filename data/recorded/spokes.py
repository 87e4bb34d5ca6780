"""Record spokes.csv: python data/recorded/spokes.py brain|brain64|hearts|kooshball|lines|spirals|phantom [--root FOLDER], which goes on.

Which of K readouts off the grid are measured, through SENSE with sensitivities by ESPIRiT: one row for each method and subject that no mask
has seen. Whatever a method has to be tuned is tuned on training slices, through the same reconstruction.

- "brain": virtual brains, 128 x 128, 8 simulated coils; 256 spokes, of which 16, 24 or 32 are measured. 8 subjects for training, 20 others
  for testing, two slices of each.
- "brain64": the same at 64 x 64, of which 12, with 8 slices for training; here masks are learnt too, and exchanged through the
  reconstruction.
- "hearts": virtual hearts, 12 frames of 64 x 64, 8 simulated coils; 128 spokes, of which 4 or 6 in each frame. 4 subjects for training,
  6 others for testing.
- "kooshball": heads in 3D, magnitudes cut to 20 x 20 x 20 in k-space, 8 simulated coils; 400 directions, of which 25 or 50. 3 subjects for
  training, 8 others for testing. Rivals have directions of their own, those of a sunflower, and golden means and others of mri-nufft.
- "lines": what lasts as long, on the grid: columns, and points, which need a third direction; 128 x 128, x8 and x4.
- "spirals": 128 x 128, 256 arms, of which 16 are a full scan; 2 or 4 are measured.
- "phantom": a measured phantom, 3 slices of 33 spokes with 17 coils, compressed to 8, of which 8, 12 or 16; the reference is the image of
  all 33. Each slice is held out once, and the two others choose.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import mrinufft.trajectories
import torch
from coils import append, recorded, rows_of
from torch import Tensor
from tqdm import tqdm

import prom
from prom import SliceDataset, baselines
from prom.baselines.repulsion import STRENGTHS as ON_GRID
from prom.baselines.repulsion_off_grid import STRENGTHS
from prom.baselines.tuned import tuned
from prom.datasets.emulated import by_coils, hearts_by_coils
from prom.errors import InputError
from prom.kspace.coils import simulated
from prom.kspace.trajectories import Trajectory, kooshball, spirals, spokes
from prom.learn.exchange import exchange_lines
from prom.masks.demands import Demands
from prom.problem import Problem
from prom.reconstruction.sense import Sense

KEY = ["data", "held_out", "count", "pattern", "method", "seed"]
OUTPUT = Path(__file__).with_suffix(".csv")
CANDIDATES, SEEDS, ITERATIONS = 256, 3, 100
VOLUME = 20  # points of a side
DIRECTIONS = ("sunflower", "golden_means", "phyllotaxis", "wong")
TUNING = {"slices": 16, "series": 2, "volumes": 2}  # of them choose
MISFIT = 10  # times the receiver's noise: what the phantom's images leave unexplained (radial_phantom.py)
TRAINED, TESTED = 16, 40  # slices, two of each subject

Setting = dict[str, object]
STARTS = [{"start": eighth / 8} for eighth in range(0, 8, 2)]
MU = [{"strength": strength} for strength in STRENGTHS]
CLOSED: dict[str, list[Setting]] = {
    "equal_angles": STARTS,
    "golden_angle": [{"start": eighth / 8, "order": order} for order in (1, 2, 7) for eighth in (0, 4)],
    "anisotropic_angles": STARTS,
    "repulsion": MU,
    "repulsion, greedy": [{**one, "passes": 0} for one in MU],
}
RANDOM, LEARNT, EXCHANGED = "random_readouts", "default", "repulsion, exchanged"
ON_THE_GRID = {"columns": {"repulsion": ON_GRID, "equispaced": (0, 0.04, 0.08)}, "points": {"repulsion": ON_GRID}}


def brains(size: int) -> tuple[SliceDataset, SliceDataset]:
    return tuple(by_coils("mni_brain", split, most, size, maps="estimated") for split, most in (("train", TRAINED), ("test", TESTED)))


def volumes(split: str, subjects: int) -> SliceDataset:
    """Magnitudes of virtual heads in 3D, with simulated coils."""
    given = {"size": 32, "slices": range(16, 144, 4), "volume": True, "readout": 0}
    data = prom.load("mni_brain", split, subjects=subjects, **given).as_volumes().cropped(VOLUME)
    return replace(data, images=data.images.to(torch.complex64), sensitivities=simulated(8, data.shape), noise=0.005)


def directions(method: str, count: int) -> Trajectory:
    """So many spokes in 3D in directions that are a rival's own."""
    if method == "sunflower":
        return kooshball(count, VOLUME)
    ends = torch.from_numpy(getattr(mrinufft.trajectories, f"initialize_3D_{method}_radial")(count, VOLUME, in_out=True)[:, -1]).double()
    radius = torch.arange(VOLUME) - VOLUME // 2
    return Trajectory(radius[:, None] * (ends / ends.norm(dim=-1, keepdim=True))[:, None], "kooshball", VOLUME**2)


def cases(name: str, root: Path | None) -> Iterator[tuple[str, SliceDataset, SliceDataset, str, tuple[int, ...], tuple[str, ...]]]:
    """What is held out, training and test slices, the pattern, how many readouts are measured, and the methods."""
    closed = (*CLOSED, RANDOM)
    if name in ("brain", "brain64"):
        size = 64 if name == "brain64" else 128
        train, test = (data.along(spokes(CANDIDATES, size)) for data in brains(size))
        train = train.thinned(8) if name == "brain64" else train
        more = (LEARNT, EXCHANGED) if name == "brain64" else ()
        yield "test", train, test, "spokes", (12,) if name == "brain64" else (16, 24, 32), (*closed, *more)
    elif name == "hearts":
        train, test = (
            hearts_by_coils("virtual_heart", split, most, 64, 12, noise=0.02).along(spokes(CANDIDATES // 2, 64))
            for split, most in (("train", 4), ("test", 6))
        )
        yield "test", train, test, "spokes", (4, 6), tuple(method for method in closed if method != "repulsion, greedy")
    elif name == "kooshball":
        train, test = (volumes(split, subjects).along(kooshball(400, VOLUME)) for split, subjects in (("train", 3), ("test", 8)))
        yield "test", train, test, "kooshball", (25, 50), ("repulsion", "repulsion, greedy", RANDOM, *DIRECTIONS)
    elif name == "spirals":
        train, test = (data.along(spirals(CANDIDATES, 128, arms=16)) for data in brains(128))
        few = tuple(method for method in closed if method != "anisotropic_angles")
        yield "test", train, test, "spirals", (2, 4), few
    elif name == "lines":
        train, test = brains(128)
        for pattern, methods in ON_THE_GRID.items():
            yield "test", train, test, pattern, (16, 32), tuple(methods)
    else:
        if root is None:
            raise InputError(f"{name}: is read from a file; give --root, the folder that holds the data sets")
        from radial_phantom import FILE, measured_spokes

        data = measured_spokes(root / FILE)
        data = replace(data, noise=MISFIT * data.noise)
        for number in range(len(data)):
            others = [other for other in range(len(data)) if other != number]
            yield f"slice {number}", data.select(others), data.select([number]), data.trajectory.kind, (8, 12, 16), closed


def mask_of(method: str, train: SliceDataset, acceleration: float, pattern: str, sense: Sense, seed: int) -> tuple[Tensor, str]:
    demands = Demands(per_frame=train.kind == "series")
    if method == RANDOM:
        return baselines.get(method)(train, acceleration, pattern, seed, demands=demands), ""
    if method == LEARNT:
        recipe = replace(prom.DEFAULT, iterations=ITERATIONS, exploration=0.1, exploitation=0.1)
        result = prom.optimize(train, acceleration, pattern, recipe, "magnitude_psnr", seed, reconstruction=sense)
        return result.mask, f"{ITERATIONS} iterations"
    if method == EXCHANGED:
        begin, setting = mask_of("repulsion", train, acceleration, pattern, sense, seed)
        problem = Problem.around(begin, train, pattern, "magnitude_psnr", reconstruction=sense)
        return exchange_lines(begin, problem, range(len(train))), setting
    name = method.split(",")[0]
    option = "strength" if name == "repulsion" else "centre_fraction"
    settings = [{option: value} for value in ON_THE_GRID[pattern][name]] if pattern in ON_THE_GRID else CLOSED[method]
    make = partial(baselines.get(name), train, acceleration, pattern, demands=demands)
    mask, setting = tuned(make, settings, train, sense, TUNING[train.kind])
    return mask, str(setting)


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(["brain", "brain64", "hearts", "kooshball", "lines", "spirals", "phantom"]))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--output", default=OUTPUT, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="These methods alone.")
def main(name: str, root: Path | None, output: Path, only: tuple[str, ...]) -> None:
    for held_out, train, test, pattern, counts, methods in cases(name, root):
        sense, lines = Sense.of(train), train.choices(pattern)
        runs: list[tuple[int, str, int]] = [
            (count, method, seed)
            for method in methods
            if not only or method in only
            for count in counts
            for seed in range(SEEDS if method in (RANDOM, LEARNT) else 1)
        ]
        for count, method, seed in tqdm(runs, disable=None):
            key = dict(zip(KEY, (name, held_out, count, pattern, method, seed), strict=True))
            if recorded(output, key):
                continue
            full = train.shape[-1] if pattern == "points" else lines.full // (train.shape[0] if lines.apart else 1)
            acceleration = full / count  # of every frame
            start = time.perf_counter()
            if method in DIRECTIONS:
                own = replace(test, trajectory=None, kspace=None).along(directions(method, count))
                scores = {"test": prom.evaluate(torch.ones(own.grid), own, reconstruction=sense)}
                append(output, rows_of({**key, "setting": "", "chosen": ""}, torch.ones(own.grid), 0.0, scores, ["psnr", "ssim"]))
                continue
            mask, setting = mask_of(method, train, acceleration, pattern, sense, seed)
            seconds = round(time.perf_counter() - start, 1)
            measured = lines.select(mask)
            if int(measured.sum()) != (budget := lines.budget(acceleration)):
                raise InputError(f"{method}: has {int(measured.sum())} {pattern}, not the budget of {budget}")
            chosen = "" if pattern == "points" else " ".join(map(str, measured.nonzero().flatten().tolist()))
            scores = {"test": prom.evaluate(mask, test, reconstruction=sense)}
            append(output, rows_of({**key, "setting": setting, "chosen": chosen}, mask, seconds, scores, ["psnr", "ssim"]))
            tqdm.write(f"{' '.join(map(str, key.values()))}: {float(scores['test']['psnr'].mean()):.3f} dB, {seconds} s {setting}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
