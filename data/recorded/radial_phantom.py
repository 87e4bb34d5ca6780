"""A phantom's measured spokes as a data set, and what shows their angles: python data/recorded/radial_phantom.py --root FOLDER.

33 spokes of each of three slices, 17 coils, 256 samples, by a Siemens scanner (github.com/ClinicalDataScience/ML-MRI-Reconstruction,
Apache-2.0). The file states neither the angles nor that the readout is oversampled. Both are determined from the data: the command prints
how well a SENSE image of all spokes explains them, for each hypothesis. A rotation in the other sense or from another angle turns or
mirrors the image and explains the data as well, so these two are a convention.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from prom import SliceDataset
from prom.errors import InputError
from prom.kspace.coils import compress, estimated
from prom.kspace.encoding import Coils
from prom.kspace.fourier import fft2c, ifftc
from prom.kspace.nonuniform import NonUniform
from prom.kspace.trajectories import GOLDEN, Trajectory
from prom.reconstruction.sense import Sense, spectrum

FILE = "radial_phantom_17ch/meas_MID00208_FID07650_BEAT_3slc_GRE_Radial_33.npy"
SHAPE = (3, 33, 17, 256)  # slices, spokes, coils, samples
SIZE = 128  # pixels: the readout covers twice the field of view
KEPT_COILS = 8
CALIBRATION = 20  # 33 spokes are a cycle apart at a radius of 10.5
RIDGE = 1e-2
BACKGROUND = (slice(32, 56), slice(200, 224))  # of the projections: beside the object, and before the receiver's filter falls off
FOLDS = 3
DELAYS = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5)  # samples
RIDGES, MULTIPLES = (1e-3, 1e-2, 3e-2, 1e-1), (1, 3, 10, 30, 100)


def angles() -> dict[str, Tensor]:
    """The angle of each spoke, by hypothesis."""
    index = torch.arange(SHAPE[1], dtype=torch.float64)
    return {
        "2 pi i / 33": 2 * math.pi * index / 33,
        "pi i / 33": math.pi * index / 33,
        "pi i / 33, every other reversed": math.pi * (index / 33 + index % 2),
        "2 pi i / 32": 2 * math.pi * index / 32,
        "2 pi i / 34": 2 * math.pi * index / 34,
        "golden angle, 111.25 degrees": math.pi * GOLDEN * index,
        "golden angle, 222.49 degrees": 2 * math.pi * GOLDEN * index,
        "tiny golden angle, 23.63 degrees": math.radians(23.6281) * index,
    }


def spokes_at(angle: Tensor, delay: float = 0.0) -> Tensor:
    """``(33, 256, 2)`` cycles per field of view. ``delay``: of the gradients, in samples."""
    radius = (torch.arange(SHAPE[3], dtype=torch.float64) - SHAPE[3] // 2 + delay) * SIZE / SHAPE[3]
    points = radius[:, None] * torch.stack([angle.sin(), angle.cos()], dim=-1)[:, None]
    return points.float().clamp(-SIZE / 2, SIZE / 2)


def read(path: Path) -> Tensor:
    """``(3, 17, 33, 256)`` complex64, of root mean square 1."""
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no such file; data/recorded/radial_phantom.py says where it comes from")
    array = np.load(path, allow_pickle=False)
    if array.shape != SHAPE or array.dtype != np.complex64:
        raise InputError(f"{path}: {array.dtype} of shape {array.shape}; must be complex64 {SHAPE}")
    samples = torch.from_numpy(array).movedim(2, 1)
    return samples / samples.abs().square().mean().sqrt()


def levelled(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Each spoke divided by its own value at the centre of k-space, relative to the mean: the samples, and the values ``(3, 33)``.

    All spokes pass the centre, where all must measure the same. They do not: the signal falls to less than a half on its way to the steady
    state of the gradient echoes. One complex number a spoke, of all coils together.
    """
    centre = samples[..., SHAPE[3] // 2]
    level = (centre * centre.mean(dim=-1, keepdim=True).conj()).sum(dim=1)
    level = level / level.abs().mean(dim=-1, keepdim=True)
    return samples / level[:, None, :, None], level


def noise_of(samples: Tensor) -> float:
    """sqrt(E|n|^2) of a sample, from the projections beside the object."""
    projections = ifftc(samples, (-1,))
    return float(torch.cat([projections[..., part] for part in BACKGROUND], dim=-1).abs().square().mean().sqrt())


def maps_of(samples: Tensor, fourier: NonUniform) -> Tensor:
    """Sensitivities ``(K, 128, 128)`` of one slice by ESPIRiT, from the centre of k-space of each coil's ridge image."""
    alone = Coils(torch.ones(1, SIZE, SIZE) + 0j, fourier)
    density = fourier.trajectory.norm(dim=-1).clamp(min=SIZE / SHAPE[3] / 4)
    images, _ = Sense(RIDGE, iterations=20)(samples.unsqueeze(1), density / density.mean(), alone)
    return estimated(fft2c(images), CALIBRATION, crop=0)


def explained(samples: Tensor, points: Tensor) -> list[float]:
    """What a SENSE image leaves unexplained of each slice: the norm of the rest over that of the samples."""
    fourier, found = NonUniform(points, (SIZE, SIZE)), []
    for one in samples:
        encoding = Coils(maps_of(one, fourier), fourier)
        image, _ = Sense(RIDGE)(one, torch.ones(one.shape[1:]), encoding)
        found.append(float((encoding.forward(image) - one).norm() / one.norm()))
    return found


def measured_spokes(path: Path) -> SliceDataset:
    """Three slices of a phantom along their 33 measured spokes, eight virtual coils; ``images`` are the SENSE images of all spokes.

    Spokes are levelled, and 17 coils compressed to 8 by singular values. Sensitivities are ESPIRiT's, from the ridge images of the coils.
    The brightest pixel is 1. ``noise`` is that of the receiver; what the images leave unexplained is more. A full scan of the grid has 128
    lines.

    Parameters
    ----------
    path
        The file, or the folder that holds the data sets.
    """
    samples, _ = levelled(read(path))
    samples = compress(samples, KEPT_COILS)
    turned = angles()["2 pi i / 33"]
    trajectory = Trajectory(spokes_at(turned), "spokes", SIZE, (turned / math.pi).remainder(1))
    fourier = trajectory.encoding((SIZE, SIZE))
    maps = torch.stack([maps_of(one, fourier) for one in samples])
    images = torch.stack(
        [Sense(RIDGE)(one, torch.ones(one.shape[1:]), Coils(coils, fourier))[0] for one, coils in zip(samples, maps, strict=True)]
    )
    return SliceDataset(
        "radial_phantom",
        "all",
        images[:, None],
        ["phantom"] * SHAPE[0],
        list(range(SHAPE[0])),
        source="phantom, 33 measured spokes over a whole turn, each divided by its value at the centre of k-space; 17 coils compressed "
        "to 8; the images are SENSE images of all spokes",
        sensitivities=maps,
        kspace=samples,
        noise=noise_of(samples),
        trajectory=trajectory,
    ).scaled(1 / float(images.abs().max()))


def left_out(data: SliceDataset, sense: Sense) -> float:
    """How badly spokes are predicted by the image of the others, relative to themselves: every third left out, over all slices."""
    rest, total, fold = 0.0, 0.0, torch.arange(SHAPE[1]) % FOLDS
    for index in range(len(data)):
        samples, encoding = data.samples([index])[0], data.encoding(index)
        for number in range(FOLDS):
            mask = (fold != number).float()[:, None].expand(data.grid)
            difference = encoding.forward(sense(samples, mask, encoding)[0]) - samples
            rest += float(((1 - mask) * difference.abs().square()).sum())
            total += float(((1 - mask) * samples.abs().square()).sum())
    return math.sqrt(rest / total)


@click.command(help=__doc__)
@click.option("--root", required=True, type=click.Path(path_type=Path), help="The folder that holds the data sets, or the file.")
def main(root: Path) -> None:
    raw = read(root)
    beside = ifftc(raw, (-1,)).abs().square()
    outside = 1 - beside[..., SHAPE[3] // 4 : -SHAPE[3] // 4].sum() / beside.sum()
    click.echo(f"energy of the projections outside the central half of the readout's field of view: {float(outside):.1e}")
    samples, level = levelled(raw)
    strengths = "; ".join(f"{float(one[0]):.2f} to {float(one[-1]):.2f}" for one in level.abs())
    click.echo(f"centre of k-space, first to last spoke of each slice, relative to their mean: {strengths}")
    few, columns = compress(samples, KEPT_COILS), [f"slice {number}" for number in range(SHAPE[0])]
    cases = {name: (few, spokes_at(angle)) for name, angle in angles().items()}
    cases["2 pi i / 33, spokes not levelled"] = (compress(raw, KEPT_COILS), spokes_at(angles()["2 pi i / 33"]))
    cases |= {f"2 pi i / 33, delay {delay:+.2f} samples": (few, spokes_at(angles()["2 pi i / 33"], delay)) for delay in DELAYS if delay}
    table = {name: explained(*case) for name, case in tqdm(cases.items(), disable=None, delay=2)}
    click.echo("\nunexplained, relative, by a SENSE image of all spokes:")
    click.echo(pd.DataFrame(table, index=columns).T.round(3).to_string())
    data = measured_spokes(root)
    click.echo(
        f"\n{data.summary()}, noise {data.noise:.2e}, {float(data.noise / data.kspace.abs().square().mean().sqrt()):.1e} of a sample"
    )
    power = spectrum(data)
    ways = {f"ridge {ridge:g}": Sense(ridge) for ridge in RIDGES}
    ways |= {f"spectrum, noise times {times}": Sense((times * data.noise) ** 2 / power) for times in MULTIPLES}
    click.echo("\nspokes that are left out, every third, predicted by the image of the others: relative error")
    for name, sense in tqdm(ways.items(), disable=None, delay=2):
        click.echo(f"{name:28}{left_out(data, sense):.3f}")


if __name__ == "__main__":
    main()
