"""Slices and series of any data set as several coils would have measured them: virtual ones as made, others through simulated coils."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import torch
from tqdm import tqdm

from prom import options
from prom.datasets import load
from prom.datasets.base import SliceDataset
from prom.datasets.seeded import generator
from prom.errors import InputError, unknown
from prom.kspace.coils import CALIBRATION, combine, estimated, simulated, with_phase
from prom.kspace.fourier import ifft2c

MAPS = ("known", "estimated")
MIDDLE = (72, 92)  # slices of the virtual brains with much of the brain in them


def by_coils(
    dataset: str,
    split: str = "train",
    most: int = 24,
    size: int = 64,
    coils: int = 8,
    noise: float = 0.005,
    root: str | None = None,
    maps: str = "known",
    **settings: object,
) -> SliceDataset:
    """At most ``most`` slices of a split, of at most size x size points, with a ring of simulated coils and noise.

    Virtual brains get a smooth phase and their measurement (:func:`prom.datasets.mni_brain.load`), two slices of each subject. Of others
    the magnitude of the first channel is taken, scaled so that its largest value is 1.

    Parameters
    ----------
    dataset
        A registered name, or a folder or file.
    split
        ``train`` or ``test``.
    most, size, coils
        Slices, points of an axis, coils.
    noise
        Standard deviation of a complex sample, sqrt(E|n|^2), of images up to 1.
    root
        Where a registered data set lies; of no use to virtual ones.
    maps
        "known": the sensitivities are those of the simulation, everywhere. "estimated": of each slice by ESPIRiT from its own k-space
        (:func:`prom.kspace.coils.estimated`), so that they are 0 outside the object, as those of a scanner's data are.
    settings
        Of the reader. With ``volume=True`` the slices are those perpendicular to a readout, of one virtual brain for every eight slices.

    Raises
    ------
    InputError
        Where the data set cannot be read, has series, or an option is out of range.

    >>> data = by_coils("mni_brain", most=2, size=32, coils=4)
    >>> data.images.shape, data.sensitivities.shape
    (torch.Size([2, 1, 32, 32]), torch.Size([4, 32, 32]))
    """
    if maps not in MAPS:
        raise unknown("maps", maps, MAPS)
    most, size = _sizes(most, size)
    if maps == "estimated":
        return estimated_maps(by_coils(dataset, split, most, size, coils, noise, root, **settings))
    if dataset == "mni_brain":
        settings = (
            {"slices": range(0, 160, 4), "subjects": ceil(most / 8), **settings}
            if settings.get("volume")
            else {"slices": MIDDLE, "subjects": ceil(most / 2), **settings}
        )
        return load(dataset, split, size=size, coils=coils, noise=noise, **{"phase": True, **settings}).thinned(most)
    data = load(dataset, split, root or None, **settings)
    if data.kind != "slices":
        raise InputError(f"{data.name}: has {data.kind}, not slices{'; hearts_by_coils takes these' if data.kind == 'series' else ''}")
    return _in_a_ring(data, most, size, coils, noise)


def hearts_by_coils(
    dataset: str,
    split: str = "train",
    most: int = 8,
    size: int = 64,
    frames: int = 12,
    coils: int = 8,
    noise: float = 0.005,
    root: str | None = None,
    reader: Mapping[str, object] | None = None,
) -> SliceDataset:
    """At most ``most`` series of a split, of at most size x size points, with a ring of simulated coils and noise in every frame.

    Virtual hearts get a smooth phase and their measurement (:func:`prom.datasets.virtual_heart.load`). Of others, which their
    ``reader`` makes series, the magnitude of the first channel is taken, scaled so that its largest value is 1.

    Parameters
    ----------
    frames
        Of a virtual heart's cycle.
    dataset, split, most, size, coils, noise, root
        As :func:`by_coils`, ``most`` series.
    reader
        Options of the data set's reader, such as ``{"axes": "HWNT"}``.

    Raises
    ------
    InputError
        Where the data set cannot be read, is not one of series, or an option is out of range.

    >>> data = hearts_by_coils("virtual_heart", most=1, size=32, frames=4, coils=4)
    >>> data.images.shape, data.sensitivities.shape
    (torch.Size([1, 1, 4, 32, 32]), torch.Size([4, 32, 32]))
    """
    most, size = _sizes(most, size)
    if dataset == "virtual_heart":
        virtual = {"size": size, "frames": frames, "coils": coils, "phase": True, "noise": noise, "subjects": most}
        return load(dataset, split, **virtual | dict(reader or {})).thinned(most)
    data = load(dataset, split, root or None, **(reader or {}))
    if data.kind != "series":
        raise InputError(f"{data.name}: has {data.kind}, no series in time; name the axis of time, e.g. axes=HWNT")
    return _in_a_ring(data, most, size, coils, noise)


def estimated_maps(data: SliceDataset) -> SliceDataset:
    """The same slices with sensitivities by ESPIRiT, from their own k-space, and the images that these make of it.

    >>> data = estimated_maps(by_coils("mni_brain", most=2, size=32, coils=4))
    >>> data.sensitivities.shape, bool((data.images[0, 0, 0, :2] == 0).all())                 # nothing outside the head
    (torch.Size([2, 4, 32, 32]), True)
    """
    if data.kind != "slices":
        raise InputError(f"{data.name}: has {data.kind}, and sensitivities are estimated of slices")
    kspace = data.samples(range(len(data)))
    bar = tqdm(kspace, desc="sensitivities", delay=2, disable=None, leave=False)
    calibration = min(CALIBRATION, *kspace.shape[-2:])
    first = with_phase(kspace, calibration)
    maps = torch.stack([estimated(samples, calibration, first=first) for samples in bar])
    source = f"{data.source}; sensitivities by ESPIRiT"
    images = torch.stack([combine(ifft2c(samples), own) for samples, own in zip(kspace, maps, strict=True)]).unsqueeze(1)
    return replace(data, images=images, sensitivities=maps, kspace=kspace, source=source)


def _sizes(most: int, size: int) -> tuple[int, int]:
    return options.check("most", most, "[1, 1e9]", whole=True), options.check("size", size, "[8, 16384]", whole=True)


def _in_a_ring(data: SliceDataset, most: int, size: int, coils: int, noise: float) -> SliceDataset:
    """Magnitudes of the first channel of at most ``most`` entries, up to 1, with simulated sensitivities and this level of noise."""
    data = data.thinned(most)
    data = replace(data, images=data.images[:][:, :1]).cropped(size)
    data = data.scaled(1 / float(data.images.abs().max()))
    source = f"{data.source}; {coils} simulated coils with noise {noise:g}"
    maps = simulated(coils, data.shape[-2:])
    data = replace(data, images=data.images.to(torch.complex64), sensitivities=maps, noise=noise, source=source)
    if not noise:
        return data
    drawn = [data.samples([number], generator("noise", data.split, number)) for number in range(len(data))]
    return replace(data, kspace=torch.cat(drawn))
