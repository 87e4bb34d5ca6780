"""One subject of a user's own images: from its files to slices, a volume or a series, with labels and coils."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prom.datasets import dicom, formats, volumes
from prom.datasets.arrays import Coils, Content, arranged, coil_kspace, fitted, informative, numbers, slices, with_maps
from prom.datasets.base import Part
from prom.datasets.reading import decoding
from prom.datasets.roles import File
from prom.errors import InputError
from prom.kspace.coils import CALIBRATION, CROP

EVEN = 0.98  # the least distance of neighbouring slices of a volume, relative to the greatest


def _values(content: Content, domain: str | None, maps: Path | None, coils: Coils | None) -> str:
    """What the values of the images of one file are, for the source."""
    if (domain or content.domain) == "kspace":
        values = "inverse Fourier transform of fully sampled k-space" + ("" if domain else f", recognised by {content.known_by}")
        values += ", readout oversampling cut off" if content.keep else ""
    else:
        values = "intensities as stored"
    if coils is not None:
        values += f", coils kept: {coils.values}"
    elif "K" in content.axes:
        values += ", coils combined by " + (f"the sensitivities of {maps.name!r}" if maps else "root sum of squares")
    return values


def read(
    item: list[File],
    dataset_name: str | None,
    axes: str | None,
    domain: str | None,
    sensitivities: Path | None,
    empty: str,
    size: tuple[int, int] | None,
    size_in: str,
    nan: float | None,
    skip_constant: bool,
    part: str | None,
    coils: str = "combine",
    compress: int | None = None,
    calibration: int = CALIBRATION,
    crop: float = CROP,
    noise: float | None = None,
    volume: bool = False,
    readout: int | None = None,
    time: bool | None = None,
    frames: int | None = None,
    stacked: bool = False,
) -> Part:
    """One subject: the slices of its files, numbered through, a piece of its volume, or its series (``time`` is not None)."""
    first = item[0].path
    for file in item:
        for other in (*file.others, *([file.label] if file.label else [])):
            formats.check_place(file.path, other)
    maps = None if sensitivities is None else formats.read_sensitivities(sensitivities, axes, volume)
    stacks, labels, positions, spacings, values = [], [], [], set(), []
    kept_coils: list[tuple[Coils, np.ndarray, int]] = []
    begin = following = (item[0].positions or (0, 0))[0]
    count = 1
    item = _in_order(item)[0] if stacked else item
    pieces: Iterable[tuple[File, list[Content]]] = ((file, _contents(file, dataset_name, axes, part)) for file in item)
    if time is not None:
        pieces = _series(item, dataset_name, axes, part, frames)
    if volume:
        file, contents, maps, what = _volume(item, dataset_name, axes, part, readout, domain, empty, nan, maps)
        pieces, empty = [(file, contents)], "keep"
        values.append(what)
    for file, contents in pieces:
        channels = [file.path, *file.others]
        if stacked:
            _check_even(str(file.path), contents[0].steps)
        if time is not None:
            count = _frames(channels, contents, count if stacks else None)
        by_coil = None
        if coils == "keep":
            if len(channels) > 1:
                raise InputError(f"{file.path}: has {len(channels)} channels; coils=keep is for one, leave out channels or coils")
            samples = coil_kspace(file.path, contents[0], domain, empty, nan)
            by_coil = with_maps(file.path, samples, maps, compress, noise, size, size_in, calibration, crop, count)
            images = [by_coil.images.numpy()]
        else:
            images = [slices(path, found, domain, maps, empty, nan) for path, found in zip(channels, contents, strict=True)]
        for path, other in zip(channels, images, strict=True):
            if other.shape != images[0].shape or other.dtype != images[0].dtype:
                raise InputError(f"{path}: {_shape(other)}, but {file.path}: {_shape(images[0])}; channels must be on one grid")
        stack = images[0] if len(images) == 1 else np.concatenate(images, axis=1)
        label = contents[0].labels
        grid = (len(samples), *samples.shape[2:]) if by_coil else (len(stack), *stack.shape[2:])  # before size
        if file.label is not None:
            label = formats.read_labels(file.label, grid, contents[0].axes, contents[0].axes == axes)
        if label is not None and label.shape != grid:
            raise InputError(f"{file.path}: labels of {label.shape} for images of {grid}; give labels=none")
        if size:
            stack = stack if by_coil else fitted(stack, size, size_in)
            if label is not None and size_in == "kspace":
                raise InputError(f"{file.path}: has labels, which cannot be resized in k-space; give size_in=image or labels=none")
            label = label if label is None else fitted(label, size, "image")
        if stacks and (stack.shape[1:] != stacks[0].shape[1:] or stack.dtype != stacks[0].dtype):
            raise InputError(f"{first}: {_shape(stacks[0])}, but {file.path}: {_shape(stack)}; all slices of a subject must be alike")
        kept = informative(file.path, stack, skip_constant or volume, count)
        positions += [following + int(i) // count for i in kept[::count]]
        following += len(stack) // count
        # A file that contributes no slice still determines the shape of the others.
        stacks.append(stack if len(kept) == len(stack) else stack[kept])
        labels.append(label if label is None or len(kept) == len(stack) else label[kept])
        spacings.add(contents[0].spacing)
        values += [_values(found, domain, sensitivities, by_coil) for found in contents]
        if by_coil:
            kept_coils.append((by_coil, kept, count))
    if len({label is None for label in labels}) > 1:
        raise InputError(f"{first}: is of subject {item[0].subject!r}, of whose files some have labels and others none")
    images, label = stacks[0] if len(stacks) == 1 else np.concatenate(stacks), None if labels[0] is None else np.concatenate(labels)
    return Part(
        path=first,
        subject=item[0].subject,
        images=images if time is None else _in_time(images, count),
        slices=positions,
        labels=label if label is None or time is None else label.reshape(-1, count, *label.shape[1:]),
        spacing=spacings.pop() if len(spacings) == 1 else None,
        patient=item[0].patient,
        skipped=following - begin - len(positions),
        values=tuple(dict.fromkeys(values)),
        continued=begin > 0,
        **(_joined(first, kept_coils, time is not None) if kept_coils else {}),
    )


def _frames(paths: Sequence[Path], contents: Sequence[Content], before: int | None) -> int:
    """How many frames the series of a file have, which all files of a subject must agree on."""
    for path, content in zip(paths, contents, strict=True):
        if not content.frames:
            raise InputError(f"{path}: has no axis of time; name its axes, with T for the frames, e.g. axes='HWNT'")
        before = content.frames if before is None else before
        if content.frames != before:
            raise InputError(
                f"{paths[0]}: has {content.frames} frames, and others {before}; all series must have as many, which frames= makes of them"
            )
    return before


def _in_time(frames: np.ndarray, count: int) -> np.ndarray:
    """Frames one after the other, (N T, C, H, W), as series (N, C, T, H, W)."""
    return np.ascontiguousarray(frames.reshape(-1, count, *frames.shape[1:]).swapaxes(1, 2))


def _joined(path: Path, files: list[tuple[Coils, np.ndarray, int]], in_time: bool) -> dict[str, Any]:
    """The coils of a subject's files, of each the slices that are kept, as fields of a part."""
    counts = sorted({coils.kspace.shape[1] for coils, _, _ in files})
    if len(counts) > 1:
        raise InputError(f"{path}: is of a subject whose files have {counts[0]} and {counts[-1]} coils; compress= makes them equally many")
    total = sum(len(kept) for _, kept, _ in files)
    variance = sum(len(kept) * coils.noise**2 for coils, kept, _ in files) / max(1, total)
    shared = files[0][0].maps.ndim == 3
    kspace = np.concatenate([coils.kspace.numpy()[kept] for coils, kept, _ in files])
    own = None if shared else np.concatenate([coils.maps.numpy()[kept[::frames] // frames] for coils, kept, frames in files])
    return {
        "kspace": _in_time(kspace, files[0][2]) if in_time else kspace,
        "sensitivities": files[0][0].maps.numpy() if shared else own,
        "noise": math.sqrt(variance),
    }


def _series(
    item: list[File], dataset_name: str | None, axes: str | None, part: str | None, frames: int | None
) -> Iterable[tuple[File, list[Content]]]:
    """The files of a subject, each with the series in it, or its first ``frames``; DICOM files are frames, all together its series."""
    if item[0].kind != "DICOM":
        read = ((file, _contents(file, dataset_name, axes, part, time=True)) for file in item)
        return ((file, [_begin(file.path, content, frames) for content in contents]) for file, contents in read)
    with decoding(item[0].path, "DICOM"):
        order = dicom.in_time([file.path for file in item])
    flat = [number for one in order for number in one]
    found = [content_of(item[number], item[number].path, dataset_name, axes, part) for number in flat]
    for number, frame in zip(flat, found, strict=True):
        if frame.array.shape != (1, *found[0].array.shape[1:]):
            raise InputError(
                f"{item[number].path}: {frame.array.shape}, where the frames of its series have {(1, *found[0].array.shape[1:])}; the "
                "frames of a series must be alike, one in each file"
            )
    stack = np.concatenate([frame.array for frame in found]).reshape(len(order), -1, *found[0].array.shape[1:])
    return [(item[0], [_begin(item[0].path, replace(found[0], array=stack, axes="NTHW"), frames)])]


def _begin(path: Path, content: Content, frames: int | None) -> Content:
    """The first frames of a series."""
    if frames is None or not content.frames:
        return content
    if content.frames < frames:
        raise InputError(f"{path}: has {content.frames} frames, frames={frames} asks for more; leave it out, or take fewer")
    labels = content.labels
    if labels is not None:
        labels = labels.reshape(-1, content.frames, *labels.shape[1:])[:, :frames].reshape(-1, *labels.shape[1:])
    first = tuple(slice(frames) if letter == "T" else slice(None) for letter in content.axes)
    return replace(content, array=content.array[first], labels=labels)


def _contents(
    file: File, dataset_name: str | None, axes: str | None, part: str | None, volume: bool = False, time: bool = False
) -> list[Content]:
    """What the files of an image hold, one for each of its files of channels."""
    return [content_of(file, path, dataset_name, axes, part, volume, time) for path in (file.path, *file.others)]


def content_of(
    file: File,
    path: Path,
    dataset_name: str | None,
    axes: str | None,
    part: str | None,
    volume: bool = False,
    time: bool = False,
) -> Content:
    """What one of the files of an image holds: its own, or one with a further channel. ``volume`` and ``time``: whether raw data may be 3D,
    or series."""
    if file.kind == "DICOM":
        with decoding(path, file.kind):
            return dicom.read(path, part, file.second)
    return formats.content(path, formats.kind_of(path) or file.kind, dataset_name, axes, volume, time)


def _volume(
    item: list[File],
    dataset_name: str | None,
    axes: str | None,
    part: str | None,
    readout: int | None,
    domain: str | None,
    empty: str,
    nan: float | None,
    maps: Tensor | None,
) -> tuple[File, list[Content], Tensor | None, str]:
    """The volume of a subject, cut perpendicular to its readout: one file for all, the slices of each channel, the sensitivities of the
    slices, and what was cut, for the source."""
    item, thickness = _in_order(item)
    file, paths = item[0], [file.path for file in item]
    by_file = [_contents(one, dataset_name, axes, part, volume=True) for one in item]
    for one, contents in zip(item, by_file, strict=True):
        _check_even(str(one.path), contents[0].steps)
    wholes = [volumes.joined(paths, contents, thickness) for contents in zip(*by_file, strict=True)]
    sides = tuple(arranged(wholes[0]).shape[place] for place in (0, 3, 4))
    if file.label is not None:
        found = formats.read_labels(file.label, sides, wholes[0].axes, wholes[0].axes == axes, wholes[0].volume)
        wholes[0] = replace(wholes[0], labels=found)
    along = wholes[0].readout if readout is None else readout
    channels = [file.path, *file.others]
    contents = [volumes.cut(path, whole, along, domain, empty, nan, file.positions) for path, whole in zip(channels, wholes, strict=True)]
    if maps is not None:
        if len(maps) not in (1, sides[0]):
            raise InputError(f"{file.path}: has {sides[0]} slices, but the sensitivities are of {len(maps)}; must be equal, or without N")
        own = volumes.turned(maps.expand(sides[0], -1, -1, -1).numpy(), along)
        maps = torch.from_numpy(numbers(own[slice(*file.positions) if file.positions else slice(None)]))
    what = f"volume of {' x '.join(map(str, sides))} (N, H, W), {volumes.READ_OUT[along]} (readout {along})"
    what += ", its k-space transformed along the readout" if contents[0].domain == "kspace" else ""
    return replace(file, label=None), contents, maps, what


def _in_order(item: list[File]) -> tuple[list[File], float | None]:
    """The files of a volume from one end to the other, and how far apart their slices are in mm, where it is known."""
    if len(item) == 1 or item[0].kind != "DICOM":
        return item, None
    where = f"{item[0].path.parent}, subject {item[0].subject!r}"
    if len({file.order[:2] for file in item}) > 1:
        raise InputError(f"{where}: its {len(item)} DICOM files are of several series, which cannot be one volume; choose one with series=")
    places = np.array([file.order[3] for file in item])
    if (places == places[0]).all():
        if len({file.order[2] for file in item}) < len(item):
            raise InputError(f"{where}: its DICOM files have neither positions nor numbers, so how they make a volume is unclear")
        return item, None
    order = np.argsort(places)
    steps = np.diff(places[order])
    _check_even(where, (steps.min(), steps.max(), "mm"))
    return [item[place] for place in order], float(steps.mean())


def _check_even(where: str, steps: tuple[float, float, str] | None) -> None:
    """Refuse slices whose neighbours are not equally far apart. ``steps``: the least and the greatest distance, and its unit, or None."""
    if steps is not None and steps[0] < EVEN * steps[1]:
        raise InputError(
            f"{where}: its slices are {steps[0]:.3g} to {steps[1]:.3g} {steps[2]} apart; those of a volume must be evenly spaced, one at "
            "each position"
        )


def _shape(images: np.ndarray) -> str:
    return f"{images.dtype}, (channels, H, W) = {images.shape[1:]}"
