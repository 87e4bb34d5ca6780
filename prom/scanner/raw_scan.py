"""What a scanner measured with a mask: undersampled k-space of ISMRMRD, Siemens twix and BART files, and the mask that it shows."""

from __future__ import annotations

import math
import os
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from prom.datasets import raw
from prom.datasets.acquisitions import EVEN, Geometry, Grid, Line, Lines, by_place
from prom.datasets.measured import CERTAIN, GAPS, central_shares
from prom.datasets.reading import decoding
from prom.datasets.signatures import check_signature
from prom.errors import InputError, unknown
from prom.masks.difference import lines_of

ENDINGS = {".h5": "ISMRMRD", ".hdf5": "ISMRMRD", ".mrd": "ISMRMRD", ".dat": "twix", ".cfl": "BART"}
PATTERNS = ("columns", "rows", "points")
COILS, SLICES = 3, 13  # BART's axes; the first three are those of the image


@dataclass(frozen=True, eq=False)
class RawScan:
    """Undersampled k-space.

    Attributes
    ----------
    kspace
        ``(N, K, H, W)`` complex64, centred and orthonormal, averaged, without readout oversampling, 0 where nothing was measured. Of 3D
        data each slice is one position along the readout, after the inverse transform along it; lines are rows and partitions columns.
    mask
        ``(H, W)`` bool: what was measured.
    pattern
        What was switched on: ``columns``, ``rows`` or ``points``.
    kind
        The format, in words.
    voxel
        mm along the rows' index, the columns' and from slice to slice, or None where the file does not say it.
    averages
        How often each line was measured: the harmonic mean, which is what the noise goes by.
    reference, reference_mask
        As ``kspace`` and ``mask``, what was marked as calibration data where some of it is no part of the image; else None.
    noise
        ``(K, n)`` complex64: a scan of noise alone, scaled to the bandwidth of the image, or None.
    notes
        What was left out, or put into another order, in words.
    """

    kspace: Tensor
    mask: Tensor
    pattern: str
    kind: str
    voxel: tuple[float, float, float] | None = None
    averages: float = 1.0
    reference: Tensor | None = None
    reference_mask: Tensor | None = None
    noise: Tensor | None = None
    notes: tuple[str, ...] = ()


def read(path: str | os.PathLike, group: str | None = None, pattern: str | None = None) -> RawScan:
    """Read the raw data in a file; its ending says the format: .h5, .hdf5 or .mrd (ISMRMRD), .dat (twix), .cfl (BART).

    A mask of columns has the readout along the rows' index. Of ISMRMRD, in which the readout is x, the header says whether prom wrote it
    for columns; else lines are columns where ``pattern`` says so, and rows otherwise; of partitions they are points. Of BART files what is
    0 in all coils was not measured; with three axes the first is the readout, as BART has it.

    Parameters
    ----------
    group
        Of an HDF5 file, where it has several measurements.
    pattern
        Of the mask that was asked for: ``columns``, ``rows`` or ``points``. Of no use to BART files.

    Raises
    ------
    InputError
        Where the file is missing or damaged, it is not Cartesian, has asymmetric echoes, or several contrasts, phases, repetitions, sets
        or slabs, slices were measured with different masks, or its header does not say which line is the centre.
    """
    given, path = os.fspath(path) or repr(""), Path(path)
    kind = ENDINGS.get(path.suffix.lower())
    if pattern not in (None, *PATTERNS):
        raise unknown("pattern", pattern, PATTERNS)
    if kind is None:
        raise InputError(f"raw data {given}: must be {', '.join(ENDINGS)}: ISMRMRD, Siemens twix or BART")
    if not path.is_file():
        raise InputError(f"raw data {path}: no such file")
    if group is not None and kind in ("BART", "twix"):
        raise InputError(f"key {group!r}: names a measurement of an HDF5 file, and {path} is {kind}; leave it out")
    with decoding(path, kind):
        check_signature(path)
        if kind == "BART":
            scan = _bart(path)
        elif kind == "twix":
            if not raw.is_twix(path):
                raise InputError(f"{path}: has no protocol of Siemens raw data near its beginning; export it again")
            scan = assembled(path, *raw.twix_lines(path), pattern)
        else:
            scan = assembled(path, *raw.ismrmrd_lines(path, _group(path, group)), pattern)
    for number, samples in enumerate(scan.kspace):
        if not bool(samples.isfinite().all()):
            raise InputError(f"{path}: slice {number} has NaN or infinite values; measure or export it again")
    if not bool(scan.kspace.any()):
        raise InputError(f"{path}: its samples are all 0; measure or export it again")
    return scan


def _group(path: Path, name: str | None) -> str:
    with h5py.File(path, "r") as file:
        groups = raw.ismrmrd_groups(file)
    if not groups:
        raise InputError(f"{path}: has no ISMRMRD raw data (a group with a table 'data' of head, traj and data); convert it to ISMRMRD")
    if name is None and len(groups) > 1:
        raise InputError(f"{path}: has several ISMRMRD measurements, name one with --key: {', '.join(groups)}")
    if name is not None and name not in groups:
        raise InputError(f"{path}: has no ISMRMRD measurement {name!r}; measurements in it: {', '.join(groups)}")
    return name or groups[0]


# ------------------------------------------------------------------------------------------------------------------ ISMRMRD and twix


def assembled(path: Path, geometry: Geometry, lines: Lines, pattern: str | None = None) -> RawScan:
    """Lines of a file put together; ``pattern`` as of :func:`read`. ``path`` is for messages.

    Raises
    ------
    InputError
        As by :func:`read`.
    """
    pattern = _pattern(path, geometry, pattern)
    _check_centre(path, geometry)
    image = Grid(path, geometry, "is outside; mend the header")
    reference = Grid(path, geometry, "is outside; leave out the reference scan")
    noise, others, unfit, dwell, positions = [], [], 0, 0.0, {}
    with closing(lines):  # or the file stays open where an error is kept
        for line in lines:
            if line.purpose in ("image", "reference") and not line.data.size:
                raise InputError(f"{path}: its lines have no samples, only headers; give what the scanner measured")
            if line.purpose == "noise":
                noise.append(line)
            elif line.purpose == "unfit":
                unfit += 1
            elif line.purpose == "reference":
                reference.add(line)
            else:
                image.check_one(line.alike)
                image.add(line)
                positions[line.slice], dwell = line.position, line.dwell
                others += [(line.slice, line.line, line.partition)] if line.calibration else []
    numbers = sorted(image.slices)
    places = [positions[number] for number in numbers]
    order = None if pattern == "points" else by_place(places)
    kspace, counts = image.averaged()
    measured = counts > 0
    _check_alike(path, numbers, measured)
    found, notes = _references(path, reference, geometry, numbers, kspace, others)  # before k-space is overwritten
    scan = RawScan(
        *_arranged(path, kspace, measured[0], geometry, pattern),
        pattern,
        geometry.kind,
        _voxel(geometry, pattern, places if order is None else [places[number] for number in order]),
        averages=float(1 / (1 / counts[measured]).mean()),
        notes=(*notes, *([f"{unfit} reference lines of another length than the image's were left out"] if unfit else [])),
    )
    if found is not None:
        samples, mask = _arranged(path, *found, geometry, pattern)
        if samples.shape != scan.kspace.shape or not bool(samples.isfinite().all()):
            raise InputError(
                f"{path}: its reference lines have other coils than the image's, or values that are not finite; leave them out"
            )
        scan = replace(scan, reference=samples, reference_mask=mask)
    scan = scan if order is None else _reordered(scan, order)
    receiver = geometry.receiver if geometry.matrix[0] > geometry.width else 1.0
    return _with_noise(scan, noise, dwell, receiver) if noise else scan


def _reordered(scan: RawScan, order: list[int]) -> RawScan:
    note = f"slices lie in another order than their numbers, and were put into that of their places: {', '.join(map(str, order))}"
    reference = None if scan.reference is None else scan.reference[order]
    return replace(scan, kspace=scan.kspace[order], reference=reference, notes=(*scan.notes, note))


def _pattern(path: Path, geometry: Geometry, asked: str | None) -> str:
    points = geometry.matrix[2] > 1 or geometry.pattern == "points"  # of one partition, where a volume has no more
    if geometry.pattern is not None and (geometry.pattern == "points") != points:
        raise InputError(f"{path}: its header has the pattern {geometry.pattern} and {geometry.matrix[2]} partitions; mend the header")
    if points:
        return "points"
    return geometry.pattern or (asked if asked == "columns" else "rows")


def _check_centre(path: Path, geometry: Geometry) -> None:
    names = ("kspace_encoding_step_1", "kspace_encoding_step_2")
    for name, length, centre in zip(names, geometry.matrix[1:], geometry.centres, strict=True):
        if length > 1 and centre is None:
            raise InputError(f"{path}: its header does not say which number is the centre (encodingLimits, {name}); mend the header")


def _check_alike(path: Path, numbers: list[int], measured: np.ndarray) -> None:
    for number, one in zip(numbers, measured, strict=True):
        if (one != measured[0]).any():
            raise InputError(
                f"{path}: slices {numbers[0]} and {number} were measured with different masks, {measured[0].sum()} and {one.sum()} of "
                f"{one.size}; save slices of one mask alone"
            )


def _arranged(path: Path, kspace: np.ndarray, measured: np.ndarray, geometry: Geometry, pattern: str) -> tuple[Tensor, Tensor]:
    """K-space ``(slices, coils, lines, partitions, samples)`` and what was measured, ``(lines, partitions)``, as slices and mask."""
    width = geometry.width
    if pattern == "points":
        if len(kspace) > 1:
            raise InputError(f"{path}: is 3D raw data of {len(kspace)} slabs; save one of them alone")
        images = np.stack([raw.readout_image(coil, width) for coil in kspace[0]])  # coil by coil, for memory
        return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 0, 1, 2), np.complex64)), torch.from_numpy(measured)
    cut = raw.without_oversampling(kspace[:, :, :, 0], width)
    mask = np.repeat(measured, width, axis=1)
    if pattern == "columns":
        cut, mask = cut.swapaxes(-2, -1), mask.T
    return torch.from_numpy(np.ascontiguousarray(cut)), torch.from_numpy(np.ascontiguousarray(mask))


def _voxel(geometry: Geometry, pattern: str, positions: list[tuple[float, float, float] | None]) -> tuple[float, float, float] | None:
    """mm along rows' and columns' index and from slice to slice: the distance of their positions where that is even, else the thickness."""
    if geometry.extent is None:
        return None
    readout, lines, partitions = (length / n for length, n in zip(geometry.extent, (geometry.width, *geometry.matrix[1:]), strict=True))
    if pattern == "points":
        return lines, partitions, readout
    if len(positions) > 1 and None not in positions:
        steps = [math.dist(one, other) for one, other in zip(positions, positions[1:], strict=False)]
        if 0 < max(steps) <= (1 + EVEN) * min(steps):
            partitions = sum(steps) / len(steps)
    return (readout, lines, partitions) if pattern == "columns" else (lines, readout, partitions)


def _references(
    path: Path, reference: Grid, geometry: Geometry, numbers: list[int], kspace: np.ndarray, both: list[tuple[int, int, int]]
) -> tuple[tuple[np.ndarray, np.ndarray] | None, list[str]]:
    """The reference lines, with the image's own lines (slice, line, partition) that are marked as calibration data as well; and notes."""
    if not reference.slices:
        return None, []
    if missing := sorted(set(numbers) - set(reference.slices)):
        return None, [f"the reference scan was left out, which lacks slice {missing[0]}"]
    for number in set(reference.slices) - set(numbers):
        del reference.slices[number], reference.counts[number]
    offsets = [n // 2 - (n // 2 if centre is None else centre) for n, centre in zip(geometry.matrix[1:], geometry.centres, strict=True)]
    for number, line, partition in sorted(set(both)):
        row, column = line + offsets[0], partition + offsets[1]
        if not reference.counts[number][row, column] and len(reference.slices[number]) == kspace.shape[1]:
            reference.slices[number][:, row, column] = kspace[numbers.index(number), :, row, column]
            reference.counts[number][row, column] = 1
    found, counts = reference.averaged()
    measured = counts > 0
    if (measured != measured[0]).any():
        return None, ["the reference scan was left out, whose lines differ between slices"]
    return (found, measured[0]), []


def _with_noise(scan: RawScan, noise: list[Line], dwell: float, receiver: float) -> RawScan:
    """With the noise scan: of noise the power goes as the bandwidth, one over the time between samples.

    A noise scan has less than that, since the receiver's filter falls off towards its edges, which images with oversampling are without.
    """
    coils = scan.kspace.shape[1]
    fit = [line.data for line in noise if len(line.data) == coils and np.isfinite(line.data).all()]
    if len(fit) < len(noise):
        return replace(
            scan, notes=(*scan.notes, f"the noise scan was left out: it has other coils than the image, {coils}, or damaged values")
        )
    times = noise[0].dwell, dwell
    scale = math.sqrt((times[0] / times[1] if min(times) > 0 else 1.0) / receiver)
    return replace(scan, noise=torch.from_numpy(scale * np.concatenate(fit, axis=1)).to(torch.complex64))


# --------------------------------------------------------------------------------------------------------------------------------- BART


def _bart(path: Path) -> RawScan:
    shape = raw.cfl_shape(path)
    shape += [1] * (SLICES + 1 - len(shape))
    if any(length > 1 and axis > COILS and axis != SLICES for axis, length in enumerate(shape)):
        raise InputError(f"{path}: of shape {tuple(shape)} has more axes than readout, two phase encodes, coils and slices; save one image")
    image = [axis for axis in range(COILS) if shape[axis] > 1]
    if len(image) < 2 or (len(image) == 3 and shape[SLICES] > 1):
        raise InputError(f"{path}: of shape {tuple(shape)} is neither slices of two axes nor one volume of three; save it so")
    array = np.asarray(raw.cfl_array(path, shape)).reshape(*shape[: COILS + 1], shape[SLICES], order="F")
    if len(image) == 3:
        kspace = array[..., 0].transpose(3, 1, 2, 0)  # coils, lines, partitions, samples
        filled = (kspace != 0).any(axis=0)
        measured = filled.any(axis=2)
        if not filled.any(axis=(0, 1)).all() or (~filled[measured]).mean() > GAPS:  # some samples may be 0 by chance
            raise InputError(f"{path}: has zeros along its first axis, which must be the readout; move the readout there, or save it whole")
        _refuse_images(path, kspace[..., shape[0] // 2])
        kspace = np.stack([raw.readout_image(coil, shape[0]) for coil in kspace]).transpose(3, 0, 1, 2)
    else:
        [single] = set(range(COILS)) - set(image)
        kspace = array.squeeze(single).transpose(3, 2, 0, 1)
        filled = (kspace != 0).any(axis=1)
        _check_alike(path, list(range(len(filled))), filled)
        measured = filled[0]
        _refuse_images(path, kspace[len(kspace) // 2])
    mask = torch.from_numpy(np.ascontiguousarray(measured))
    return RawScan(torch.from_numpy(np.ascontiguousarray(kspace, np.complex64)), mask, lines_of(mask), "BART k-space")


def _refuse_images(path: Path, plane: np.ndarray) -> None:
    itself, other = central_shares(plane)
    if other > CERTAIN * itself:
        raise InputError(f"{path}: is images, which have their energy all over, not k-space; give the raw data")
