"""Record dimensions_series.csv: python data/recorded/dimensions_series.py hearts|rat|lung|echoes [--root FOLDER], which goes on.

Columns of every frame, equally many in each, at x6 and x10, through k-t SENSE: one row for each method and series that no mask has seen.
Whatever a method has to be tuned is tuned on training series, through the same reconstruction.

- "hearts": virtual hearts, 12 frames of 64 x 64, 8 simulated coils; 8 subjects for training, 6 others for testing.
- "rat": one cine series, magnitudes of 8 frames, cut to 64 x 64 in k-space; its phase and 8 coils are simulated. Masks, and the prior of
  the reconstruction, are made for virtual hearts of that size: there is no second rat.
- "lung": complex images, 5 slices of one person at 5 b-values for frames, 64 x 64, one coil; each slice held out once. Noise is that of the
  corners of k-space.
- "echoes": complex images of one heart, 3 echoes for frames, cut to 80 x 60 in k-space, four acquisitions; each held out once. 8 coils
  are simulated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import scipy.io
import torch
from coils import append, recorded, rows_of
from torch import Tensor
from tqdm import tqdm

import prom
from prom import SliceDataset, baselines
from prom.baselines.in_time import GOLDEN
from prom.baselines.repulsion import STRENGTHS
from prom.baselines.repulsion_in_time import PASSES
from prom.baselines.tuned import tuned
from prom.errors import InputError
from prom.kspace.coils import noise_level, simulated
from prom.kspace.fourier import fftc, ifftc
from prom.learn.polish import polish
from prom.masks.demands import Demands
from prom.objectives.reconstructed import Reconstructed
from prom.reconstruction import named

KEY = ["data", "held_out", "acceleration", "method"]
OUTPUT = Path(__file__).with_suffix(".csv")
ACCELERATIONS = (6, 10)
NOISE, COILS = 0.02, 8  # of images whose largest value is 1; simulated
SIZE, FRAMES, TUNING_SERIES, SWAP_EVALUATIONS = 64, 12, 4, 20
ECHOES = ("PKdata1", "PKdata3", "PKdata10", "PKdata12")

Setting = dict[str, object]
MU = [{"strength": strength} for strength in STRENGTHS]
SHARES = (0.04, 0.07, 0.1, 0.14, 0.2, 0.3)
METHODS: dict[str, tuple[str, Callable[[int], list[Setting]]]] = {  # the name of the baseline, and what is tried for N columns
    "repulsion": ("repulsion", lambda _: [{**one, "passes": passes} for one in MU for passes in (0, PASSES)]),
    "repulsion, exchanged": ("repulsion", lambda _: MU),
    "repulsion, greedy": ("repulsion", lambda _: [{**one, "passes": 0} for one in MU]),
    "repulsion, first order": ("repulsion", lambda _: [{**one, "exact": False, "passes": 0} for one in MU]),
    "repulsion, still": ("repulsion", lambda _: MU),
    "repeated": ("repeated", lambda _: MU),
    "shifted_equispaced": (
        "shifted_equispaced",
        lambda _: [{"centre_share": share, "shift": shift} for share in (0, 0.15, 0.3, 0.5, 0.7) for shift in (None, GOLDEN)],
    ),
    "golden_step": (
        "golden_step",
        lambda _: [{"power": power, "centre_share": share} for power in (0, 0.5, 1, 2, 4, 8) for share in (0, 0.2, 0.4)],
    ),
    "vista": (
        "vista",
        lambda _: [
            {"width": width, "peak": peak, "time": time} for width in (0.05, 0.1, 0.2) for peak in (0.6, 0.9, 0.98) for time in (2, 6)
        ],
    ),
    "gaussian": ("gaussian", lambda n: [{"sigma": share * n, "protect_centre": True} for share in SHARES]),
    "polynomial": ("polynomial", lambda _: [{"power": power, "centre_share": share} for power in (1, 3, 6, 12) for share in (0.05, 0.2)]),
    "equispaced": ("equispaced", lambda _: [{"centre_fraction": share} for share in (0, 0.02, 0.04, 0.06, 0.08)]),
}
STILL = ("repulsion, still", "repeated")
SWAPS = "repulsion, swaps"


def hearts(split: str, subjects: int, frames: int, size: int) -> SliceDataset:
    return prom.load("virtual_heart", split, subjects=subjects, frames=frames, size=size, coils=COILS, phase=True, noise=NOISE)


def series(name: str, images: Tensor, subjects: list[str], source: str) -> SliceDataset:
    """One channel of complex frames ``(N, T, H, W)``."""
    images = images[:, None].to(torch.complex64).contiguous()
    return SliceDataset(name, "all", images, subjects, [0] * len(images), source=source, kind="series")


def cut(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """To the centre of k-space, with 1 as the largest value."""
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(images.shape[-2:], shape, strict=True))
    images = ifftc(fftc(images.to(torch.complex64))[..., rows, columns])
    return images / images.abs().max()


def rat(root: Path) -> SliceDataset:
    frames = torch.from_numpy(scipy.io.loadmat(root / "rat_cine_magnitude/dataCine8fr.mat")["image0"]).permute(2, 0, 1).float()
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, 192),) * 2, indexing="ij")
    phase = 0.9 * y + 0.6 * (2 * x).cos() - 0.8 * x * y  # smooth, the same in all frames
    images = cut(torch.polar(frames, phase.expand_as(frames))[None], (SIZE, SIZE))
    return series("rat", images, ["rat"], "a rat's heart; phase simulated").with_coils(simulated(COILS, (SIZE, SIZE)), NOISE, seed=0)


def lung(root: Path) -> SliceDataset:
    frames = torch.from_numpy(scipy.io.loadmat(root / "lung_kb_complex/DataControl.mat")["uTarget"]).permute(3, 2, 0, 1)
    data = series("lung", frames, [f"slice {number}" for number in range(5)], "lungs, 5 b-values")
    noise = noise_level(fftc(data.images[:, 0], (-2, -1)).flatten(0, 1)[:, None])
    return SliceDataset(**{**vars(data), "noise": noise})


def echoes(root: Path) -> SliceDataset:
    found = []
    for name in ECHOES:
        images = scipy.io.loadmat(root / f"cardiac_complex/{name}.mat", squeeze_me=True)["data"]["images"].item()
        found.append(torch.from_numpy(images).permute(2, 0, 1)[:3])
    images = torch.cat([cut(one[None], (80, 60)) for one in found])
    return series("echoes", images, list(ECHOES), "a heart, 3 echoes").with_coils(simulated(COILS, images.shape[-2:]), NOISE, seed=0)


def folds(name: str, root: Path | None) -> Iterator[tuple[str, SliceDataset, SliceDataset]]:
    """What is held out, the training series, and the test series."""
    if name == "hearts":
        yield "test", hearts("train", 8, FRAMES, SIZE), hearts("test", 6, FRAMES, SIZE)
        return
    if root is None:
        raise InputError(f"{name}: is read from files; give --root, the folder that holds the data sets")
    if name == "rat":
        yield "rat", hearts("train", 8, 8, SIZE), rat(root)
        return
    data = {"lung": lung, "echoes": echoes}[name](root)
    for number, subject in enumerate(data.subjects):
        yield subject, data.select([other for other in range(len(data)) if other != number]), data.select([number])


def mask_of(method: str, train: SliceDataset, acceleration: float, sense: object) -> tuple[Tensor, str]:
    demands = Demands() if method in STILL else Demands(per_frame=True)
    if method == SWAPS:
        begin, _ = mask_of("repulsion", train, acceleration, sense)
        objective = Reconstructed(train, sense, criterion="psnr")
        return polish(begin, train, "columns", objective, SWAP_EVALUATIONS, demands=demands), f"{SWAP_EVALUATIONS} evaluations"
    name, settings = METHODS[method]
    make = partial(baselines.get(name), train, acceleration, "still-columns" if method in STILL else "columns", demands=demands)
    mask, setting = tuned(make, settings(train.shape[-1]), train, sense, TUNING_SERIES)
    return mask, str(setting)


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(["hearts", "rat", "lung", "echoes"]))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder that holds the data sets.")
@click.option("--output", default=OUTPUT, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice([*METHODS, SWAPS]), help="These methods alone.")
def main(name: str, root: Path | None, output: Path, only: tuple[str, ...]) -> None:
    for held_out, train, test in folds(name, root):
        sense = named("sense", train)
        for acceleration in ACCELERATIONS:
            for method in tqdm(only or (*METHODS, SWAPS), disable=None):
                key = dict(zip(KEY, (name, held_out, acceleration, method), strict=True))
                if recorded(output, key):
                    continue
                start = time.perf_counter()
                mask, setting = mask_of(method, train, acceleration, sense)
                seconds = round(time.perf_counter() - start, 1)
                if int(mask[:, 0].sum()) != train.shape[0] * (train.shape[-1] // acceleration):
                    raise InputError(f"{method}: has {int(mask[:, 0].sum())} columns, not the budget")
                scores = {"test": prom.evaluate(mask, test, reconstruction=sense)}
                append(output, rows_of({**key, "setting": setting}, mask, seconds, scores, ["psnr", "ssim"]))
                tqdm.write(f"{' '.join(map(str, key.values()))}: {float(scores['test']['psnr'].mean()):.2f} dB, {seconds} s {setting}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
