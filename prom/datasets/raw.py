"""What scanners write: k-space of ISMRMRD, Siemens twix and BART files, Cartesian and fully sampled, else refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from prom.datasets import hdf5, twix
from prom.datasets.acquisitions import Geometry, Grid, Line, Lines, by_place
from prom.datasets.arrays import Content, check_axes
from prom.datasets.measured import CERTAIN, central_shares
from prom.datasets.reading import check_declared, pixel_spacing, read_text
from prom.errors import InputError

if TYPE_CHECKING:
    import ismrmrd

AXES = "NKHW"  # slices, coils, lines, samples of a line
SERIES = "NTKHW"  # with frames in time
VOLUME = "KNHW"  # coils, lines, partitions, samples of a line: a mask has lines as rows, as that of prom.scanner
FRAMES = ("phase", "repetition")  # counters of which one may be time
BLOCK = 256  # lines that are read at once
TWIX_MARK, TWIX_HEAD = b"<XProtocol>", 2**19  # what begins the protocol, and the bytes of the file within which it does
RECEIVER = 0.793  # the relative noise bandwidth of Siemens receivers: what siemens_to_ismrmrd writes into every header
BART_AXES = {3: "K", 13: "N"}  # coils, slices; the first three are readout and the two phase-encoding axes
PATTERNS = ("columns", "rows", "points")  # what prom writes of its masks


# ------------------------------------------------------------------------------------------------------------------------------- ISMRMRD


def ismrmrd_groups(file: h5py.File) -> list[str]:
    """The groups of an open HDF5 file that are ISMRMRD raw data: a table of heads, trajectories and samples.

    >>> with h5py.File("demo.h5", "w", driver="core", backing_store=False) as file:
    ...     ismrmrd_groups(file)
    []
    """
    groups = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group)]
    tables = {name: file[name].get("data") for name in groups if isinstance(file[name].get("data", getlink=True), h5py.HardLink)}
    return [
        name
        for name, table in tables.items()
        if isinstance(table, h5py.Dataset) and {"head", "traj", "data"} <= set(table.dtype.names or ())
    ]


def is_empty(path: Path) -> bool:
    """Whether an HDF5 file is ISMRMRD raw data in which no acquisition has samples of a channel, as :func:`prom.export` writes them.

    Raises OSError for another file, and InputError for a damaged one.
    """
    with h5py.File(path, "r") as file:
        groups = ismrmrd_groups(file)
        for group in groups:
            _check_types(path, group, file[group]["data"])
        heads = [file[group]["data"].fields("head") for group in groups]
        parts = (slice(1), slice(None))  # the first line of a scan shows that it has samples, and the others need not be read
        return bool(heads) and not any((head[part]["active_channels"] > 0).any() for part in parts for head in heads)


def is_mask_or_trajectory(path: Path) -> bool:
    """Whether a BART file is what :func:`prom.export` writes: ones and zeros, or points of three real numbers.

    Raises InputError where it is damaged.
    """
    shape = cfl_shape(path)
    array = cfl_array(path, shape)
    return bool(np.isin(array, (0, 1)).all()) or (shape[0] == 3 and not np.asarray(array).imag.any())


def read_ismrmrd(path: Path, group: str, axes: str | None = None, volume: bool = False, time: bool = False) -> Content:
    """Fully sampled k-space (slices, coils, lines, samples) complex64 of one ISMRMRD group; with ``volume`` that of a 3D scan,
    (coils, lines, partitions, samples).

    Readout oversampling is cut off in image space, averages are averaged; noise, calibration and navigator scans are left out.

    Raises
    ------
    InputError
        Where it is not Cartesian and complete, 2D or with ``volume`` 3D, or has several contrasts, phases, repetitions, sets or segments.
    """
    check_library(path, "ISMRMRD raw data", "ismrmrd")
    _check_own_axes(path, axes)
    return _complete(path, *ismrmrd_lines(path, group), volume, time)


def ismrmrd_lines(path: Path, group: str) -> tuple[Geometry, Lines]:
    """Geometry and lines of one ISMRMRD group: of images, of noise and reference scans; navigators and the like are left out.

    Raises
    ------
    InputError
        Where the library is not installed, the file is damaged, or it is not Cartesian; of a line when that is reached.
    """
    check_library(path, "ISMRMRD raw data", "ismrmrd")
    with warnings.catch_warnings():  # the library makes every warning of the process show when it is imported
        import ismrmrd

    _check_sizes(path, group)
    with h5py.File(path, "r") as file:
        text = file[group].get("xml")
        try:
            if h5py.check_string_dtype(text.dtype) is None:  # whose pointers the library would follow
                raise ValueError("no text")
            header = ismrmrd.xsd.CreateFromDocument(text[0] if text.shape else text[()])
            [encoding] = header.encoding
            geometry = _geometry(path, encoding, header)
        except InputError:
            raise
        except Exception as error:  # of several XML libraries, and of whatever is not there
            raise InputError(
                f"{path}: {group}/xml is no ISMRMRD header of one encoding with encodedSpace and reconSpace; export it again"
            ) from error
    return geometry, _ismrmrd_lines(path, group, geometry)


def _ismrmrd_lines(path: Path, group: str, geometry: Geometry) -> Lines:
    import ismrmrd

    with h5py.File(path, "r") as file:
        table = file[group]["data"]
        for number, row in enumerate(row for begin in range(0, len(table), BLOCK) for row in table[begin : begin + BLOCK]):
            if row["data"].size != 2 * int(row["head"]["active_channels"]) * int(row["head"]["number_of_samples"]):
                raise InputError(f"{path}: line {number} holds {row['data'].size} values, its head says otherwise; it is damaged")
            acquisition = ismrmrd.Acquisition(row["head"])  # the library's own Dataset reads each row three times
            purpose = _purpose(acquisition, ismrmrd)
            if purpose is None:
                continue
            samples = acquisition.number_of_samples
            wrong = _wrong_readout(path, number, acquisition, geometry.matrix[0], ismrmrd)
            if wrong and purpose == "image":
                raise InputError(wrong)
            if wrong and purpose == "reference":
                purpose = "unfit"
            index = acquisition.idx
            counters = {name: getattr(index, name) for name in ("contrast", "phase", "repetition", "set")}
            flags = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
            yield Line(
                row["data"].view(np.complex64).reshape(acquisition.active_channels, samples),
                purpose,
                any(acquisition.is_flag_set(flag) for flag in flags),
                index.slice,
                index.kspace_encode_step_1,
                index.kspace_encode_step_2,
                index.segment,
                {**counters, "encoding": acquisition.encoding_space_ref},
                float(acquisition.sample_time_us),
                tuple(float(value) for value in acquisition.position),
            )


def acquired_trajectories(path: Path, group: str, most: int) -> np.ndarray:
    """The trajectories that the acquisitions of images carry, ``(acquisitions, samples, axes)`` float32, as the file has them: x first.

    Raises
    ------
    InputError
        Where the library is not installed, the file is damaged, acquisitions have none or differ in their shape, samples are to be
        discarded, or there are more than ``most``.
    """
    check_library(path, "ISMRMRD raw data", "ismrmrd")
    with warnings.catch_warnings():
        import ismrmrd

    _check_sizes(path, group)
    found, shape, total = [], None, 0
    with h5py.File(path, "r") as file:
        table = file[group]["data"]
        for number, row in enumerate(row for begin in range(0, len(table), BLOCK) for row in table[begin : begin + BLOCK]):
            acquisition = ismrmrd.Acquisition(row["head"])
            if _purpose(acquisition, ismrmrd) != "image":
                continue
            own = acquisition.number_of_samples, acquisition.trajectory_dimensions
            shape = shape or own
            if own[1] not in (2, 3) or own != shape or row["traj"].size != own[0] * own[1]:
                raise InputError(
                    f"{path}: acquisition {number} has {own[0]} samples with a trajectory of {own[1]} axes and {row['traj'].size} numbers, "
                    f"the first {shape[0]} of {shape[1]}; all must be alike, with 2 or 3 axes"
                )
            if acquisition.discard_pre or acquisition.discard_post:
                raise InputError(
                    f"{path}: acquisition {number} has samples to discard, {acquisition.discard_pre} and {acquisition.discard_post}; cut "
                    "them off first"
                )
            total += own[0]
            if total > most:
                raise InputError(f"{path}: has more than {most} samples; save one of its slices or repetitions alone")
            found.append(np.array(row["traj"], np.float32).reshape(own))
    if not found:
        raise InputError(f"{path}: has no acquisitions of an image")
    return np.stack(found)


def _wrong_readout(path: Path, number: int, acquisition: ismrmrd.Acquisition, expected: int, library: object) -> str | None:
    """Why a line has no place on the grid, or None."""
    samples, centre = acquisition.number_of_samples, acquisition.center_sample
    if acquisition.is_flag_set(library.ACQ_IS_REVERSE):
        return f"{path}: has lines that were measured backwards (EPI); reconstruct it with a tool that corrects them"
    if acquisition.trajectory_dimensions:
        return f"{path}: has lines with a trajectory of their own, so it is not Cartesian; grid it first"
    if samples != expected or acquisition.discard_pre or acquisition.discard_post or centre not in (0, samples // 2):
        return (
            f"{path}: line {number} has {samples} samples with the centre at {centre}, discarded {acquisition.discard_pre} and "
            f"{acquisition.discard_post}; must be {expected} with it in the middle (no asymmetric echo)"
        )
    return None


def _check_sizes(path: Path, group: str) -> None:
    """Refuse a table that declares more than there is, which the library would ask memory for."""
    with h5py.File(path, "r") as file:
        table = file[group]["data"]
        check_declared(path, (table.size, table.dtype.itemsize), np.dtype("u1"), table.id.get_storage_size(), axes=(2,))
        _check_types(path, group, table)
        if table.chunks is None or table.id.get_create_plist().get_nfilters():
            return  # nothing writes it so; what can be seen of it without reading it is too little
        for begin in range(0, len(table), table.chunks[0]):
            _check_lines(path, table, begin)


def _check_types(path: Path, group: str, table: h5py.Dataset) -> None:
    """Refuse a table whose types are not those of lines, before anything of it is read: HDF5 believes them."""
    fields = table.dtype["head"].names or ()
    if not {"active_channels", "number_of_samples", "trajectory_dimensions"} <= set(fields):
        raise InputError(f"{path}: {group}/data is no table of ISMRMRD lines, whose heads have other fields; export it again")
    if hdf5.overlap(table.dtype) or not all(_numbers_of_any_length(table, name) for name in ("data", "traj")):
        raise InputError(f"{path}: {group}/data has fields that overlap or are no numbers of ISMRMRD; it is damaged, copy it again")


def _numbers_of_any_length(table: h5py.Dataset, name: str) -> bool:
    """Whether a field holds sequences of float32, to the last bit of its type: the library believes what a damaged one says."""
    kind = table.id.get_type()
    kind = kind.get_member_type(kind.get_member_index(name.encode()))
    if h5py.check_vlen_dtype(table.dtype[name]) != np.float32 or not isinstance(kind, h5py.h5t.TypeVlenID):
        return False
    return kind.encode() == h5py.h5t.vlen_create(kind.get_super()).encode()


def _check_lines(path: Path, table: h5py.Dataset, begin: int) -> None:
    """Refuse lines with other numbers of values than their heads say, from the bytes as stored: HDF5 would ask for memory first."""
    kind = table.id.get_type()
    rows = np.frombuffer(table.id.read_direct_chunk((begin,))[1], np.uint8).reshape(-1, kind.get_size())[: len(table) - begin]

    def stored(name: str, dtype: np.dtype) -> np.ndarray:
        at = kind.get_member_offset(kind.get_member_index(name.encode()))
        return rows[:, at : at + dtype.itemsize].copy().view(dtype)[:, 0]

    heads = stored("head", table.dtype["head"])
    channels, samples, axes = (heads[name].astype(int) for name in ("active_channels", "number_of_samples", "trajectory_dimensions"))
    for name, expected in (("data", 2 * channels * samples), ("traj", axes * samples)):
        lengths = stored(name, np.dtype("<u4"))  # of a list, whose place in the file follows
        for number in np.flatnonzero(lengths != expected):
            raise InputError(f"{path}: line {begin + number} holds {lengths[number]} values of {name}, its head says {expected[number]}")


def _geometry(path: Path, encoding: ismrmrd.xsd.encodingType, header: ismrmrd.xsd.ismrmrdHeader) -> Geometry:
    """What the header of an encoding says."""
    kind = str(getattr(encoding.trajectory, "value", encoding.trajectory)).lower()
    if kind != "cartesian":
        raise InputError(f"{path}: its trajectory is {kind}; only cartesian raw data are read, grid it first")
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrix = encoded.matrixSize.x, encoded.matrixSize.y, encoded.matrixSize.z
    if min(matrix) < 1:
        raise InputError(f"{path}: declares an encoded matrix of {' x '.join(map(str, matrix))}; mend the header")
    width = encoded.matrixSize.x * recon.fieldOfView_mm.x / encoded.fieldOfView_mm.x
    if abs(width - round(width)) > 0.01 * width or not recon.matrixSize.x >= round(width) <= encoded.matrixSize.x:
        raise InputError(
            f"{path}: its readout oversampling is unclear: {encoded.matrixSize.x} samples over {encoded.fieldOfView_mm.x:g} mm encoded, "
            f"{recon.matrixSize.x} over {recon.fieldOfView_mm.x:g} mm reconstructed; mend the header"
        )
    limits = encoding.encodingLimits
    limits = [limits and getattr(limits, f"kspace_encoding_step_{number}") for number in (1, 2)]
    extent = recon.fieldOfView_mm.x, encoded.fieldOfView_mm.y, encoded.fieldOfView_mm.z
    known = extent if all(0 < length < math.inf for length in extent) else None
    centres = tuple(limit.center if limit else None for limit in limits)
    return Geometry("ISMRMRD raw data", matrix, round(width), centres, known, _pattern(header), _receiver(header))


def _receiver(header: ismrmrd.xsd.ismrmrdHeader) -> float:
    """The relative noise bandwidth of the receiver, where the header has one that can be."""
    system = header.acquisitionSystemInformation
    told = system.relativeReceiverNoiseBandwidth if system else None
    return told if told and 0 < told <= 1 else 1.0


def _pattern(header: ismrmrd.xsd.ismrmrdHeader) -> str | None:
    """What prom wrote of the mask, where it wrote the header."""
    named = header.userParameters.userParameterString if header.userParameters else ()
    return next((parameter.value for parameter in named if parameter.name == "pattern" and parameter.value in PATTERNS), None)


def _purpose(acquisition: ismrmrd.Acquisition, library: object) -> str | None:
    """Of a line: image, reference or noise; None of what is neither."""
    others = "NAVIGATION_DATA PHASECORR_DATA HPFEEDBACK_DATA DUMMYSCAN_DATA RTFEEDBACK_DATA SURFACECOILCORRECTIONSCAN_DATA"
    flags = [getattr(library, f"ACQ_IS_{name}") for name in others.split()]
    flags += [library.ACQ_IS_PHASE_STABILIZATION, library.ACQ_IS_PHASE_STABILIZATION_REFERENCE]
    if any(acquisition.is_flag_set(flag) for flag in flags):
        return None
    if acquisition.is_flag_set(library.ACQ_IS_NOISE_MEASUREMENT):
        return "noise"
    calibration = acquisition.is_flag_set(library.ACQ_IS_PARALLEL_CALIBRATION)
    both = acquisition.is_flag_set(library.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    return "reference" if calibration and not both else "image"


# ---------------------------------------------------------------------------------------------------------------------------------- twix


def is_twix(path: Path) -> bool:
    """Whether a file has the protocol of Siemens raw data near its beginning.

    >>> is_twix(Path(__file__).parent / "cache.py")
    False
    """
    with open(path, "rb") as file:
        return TWIX_MARK in file.read(TWIX_HEAD)


def read_twix(path: Path, axes: str | None = None, volume: bool = False, time: bool = False) -> Content:
    """Fully sampled k-space (slices, coils, lines, samples) complex64 of Siemens raw data; as :func:`read_ismrmrd`."""
    check_library(path, "Siemens raw data (twix)", "twixtools")
    _check_own_axes(path, axes)
    return _complete(path, *twix_lines(path), volume, time)


def twix_lines(path: Path) -> tuple[Geometry, Lines]:
    """Geometry and lines of Siemens raw data; as :func:`ismrmrd_lines`.

    Raises
    ------
    InputError
        Where the library is not installed, or it is not Cartesian or has asymmetric echoes.
    ValueError, TimeoutError
        As :func:`prom.datasets.twix.lines`.
    """
    check_library(path, "Siemens raw data (twix)", "twixtools")
    found = twix.lines(path)
    samples, width = found["data"].shape[-1], int(found["columns"])
    if found["trajectory"] != 1:
        raise InputError(f"{path}: its trajectory is not Cartesian (ucTrajectory {found['trajectory']}); grid it first")
    if found["backwards"].any():
        raise InputError(f"{path}: has lines that were measured backwards (EPI); reconstruct it with a tool that corrects them")
    if width < 1 or samples % width or (found["centre_sample"] != samples // 2).any() or found["cut"].any():
        raise InputError(
            f"{path}: has lines of {samples} samples with the centre at {found['centre_sample'][0]}; must be a multiple of {width} with it "
            "in the middle (no asymmetric echo)"
        )
    rows = max(int(found["rows"]), int(found["line"].max()) + 1)
    partitions = max(int(found["partitions"]), int(found["partition"].max()) + 1) if found["partitions"] > 1 else 1
    extent = tuple(float(length) for length in found["extent"])
    centres = int(found["centre_line"][0]), int(found["centre_partition"][0])
    known = extent if all(0 < length < math.inf for length in extent) else None
    return Geometry("Siemens raw data", (samples, rows, partitions), width, centres, known, receiver=RECEIVER), _twix_lines(found)


def _twix_lines(found: dict[str, np.ndarray]) -> Lines:
    alike = ("contrast", "phase", "repetition", "set", "centre_line", "centre_partition")
    dwell = float(found["dwell"])
    for number, data in enumerate(found["data"]):
        counters = {name: int(found[name][number]) for name in ("slice", "line", "partition", "segment")}
        purpose = "reference" if found["reference"][number] else "image"
        if purpose == "reference":  # a scan of its own counts from its own centre
            for name in ("line", "partition"):
                counters[name] += int(found[f"centre_{name}"][0] - found[f"centre_{name}"][number])
        shared = {name: int(found[name][number]) for name in alike}
        place = tuple(float(value) for value in found["position"][number])
        yield Line(data, purpose, bool(found["calibration"][number]), **counters, alike=shared, dwell=dwell, position=place)
    for data in found["noise"]:
        yield Line(data, "noise", dwell=float(found["noise_dwell"]))


# ---------------------------------------------------------------------------------------------------------------------------------- BART


def read_cfl(path: Path, axes: str | None = None, volume: bool = False) -> Content:
    """The array of a BART file, .cfl with its .hdr: the two of the first three axes that are longer than 1 as rows and columns, coils,
    slices; with ``volume`` the first three as samples of a line (H), lines (N) and partitions (W). A letter for each axis in ``axes`` names
    others.

    It is k-space where its energy lies in the centre, and images where that of its Fourier transform does.

    Raises
    ------
    InputError
        Where the header is missing or does not fit, the axes are unclear, or which of both it is.
    """
    shape, found = cfl_shape(path), False
    while len(shape) > max(2, len(axes or "")) and shape[-1] == 1:
        shape.pop()
    if axes is None:
        image = [axis for axis in range(min(3, len(shape))) if shape[axis] > 1]
        found = volume and len(image) == 3 and max(shape[4:], default=1) == 1
        letters = {3: "K", **dict(enumerate("HNW"))} if found else BART_AXES | dict(zip(image, "HW", strict=False))
        if len(image) != (3 if found else 2) or any(length > 1 and axis not in letters for axis, length in enumerate(shape)):
            raise InputError(
                f"{path}: what the axes of shape {tuple(shape)} are is unclear; name each, e.g. axes={'HW1KN1'[: len(shape)]!r}"
            )
        axes = "".join("1" if length == 1 else letters[axis] for axis, length in enumerate(shape))
    axes = check_axes(path, shape, np.dtype(np.complex64), axes, ())
    array = cfl_array(path, shape)
    readout = max(0, "NHW".find(axes[0]))  # its first axis is the one that is read out
    return Content(array, axes, domain=_domain(path, array, axes), known_by="its energy at the centre", volume=found, readout=readout)


def cfl_shape(path: Path) -> list[int]:
    """The lengths that the header beside a BART file declares, and that its size must have.

    Raises
    ------
    InputError
        Where the header is missing or does not fit.
    """
    text = read_text(path.with_suffix(".hdr"), "header of a BART file").splitlines()
    try:
        shape = [int(word) for word in text[text.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError) as error:
        raise InputError(f"{path.with_suffix('.hdr')}: has no '# Dimensions' with their lengths; it is not of a BART file") from error
    if min(shape, default=0) < 1 or len(shape) > 16 or math.prod(shape) * 8 != path.stat().st_size:
        raise InputError(f"{path}: holds {path.stat().st_size} bytes, but its header declares {shape}, complex64; one of both is damaged")
    return shape


def cfl_array(path: Path, shape: Sequence[int]) -> np.ndarray:
    """The numbers of a BART file, mapped."""
    return np.memmap(path, np.dtype("<c8"), "r", shape=tuple(shape), order="F")


def _domain(path: Path, array: np.ndarray, axes: str) -> str:
    kept = [letter for letter in axes if letter in "HWK"]
    looped = [axis for axis, letter in enumerate(axes) if letter not in "HWK"]
    places = np.ndindex(*(array.shape[axis] for axis in looped))
    for place in sorted(places, key=lambda at: sum(abs(i - array.shape[axis] // 2) for i, axis in zip(at, looped, strict=True))):
        chosen = dict(zip(looped, place, strict=True))
        middle = array[tuple(chosen.get(axis, slice(None)) for axis in range(array.ndim))]
        if middle.any():  # an empty slice says nothing
            break
    itself, other = central_shares(np.moveaxis(middle, kept.index("K"), 0) if "K" in kept else middle)
    if max(itself, other) <= CERTAIN * min(itself, other) or not math.isfinite(itself * other):
        raise InputError(
            f"{path}: whether it is k-space or images is unclear, the centre has {itself:.0%} of its energy and {other:.0%} of its "
            "transform's; save it as npy and name the domain"
        )
    return "kspace" if itself > other else "image"


# ------------------------------------------------------------------------------------------------------------------------- what all share


def check_library(path: Path, what: str, name: str) -> None:
    """Raise InputError where the library ``name``, which reads ``what``, is not installed."""
    if find_spec(name) is None:
        raise InputError(f"{path}: is {what}; {name}, which reads it, is not installed: pip install 'prom-mri[scanner]'")


def _check_own_axes(path: Path, axes: str | None) -> None:
    if axes not in (None, AXES):
        raise InputError(f"{path}: axes {axes!r}: raw data say themselves what their axes are; leave it out")


def _complete(path: Path, geometry: Geometry, lines: Lines, volume: bool = False, time: bool = False) -> Content:
    """K-space of the lines of an image, which must be all there are; with ``volume`` of one in 3D, with ``time`` of a series of frames."""
    partitions = geometry.matrix[2]
    if partitions != 1 and not volume:
        raise InputError(
            f"{path}: is 3D raw data ({partitions} partitions); give volume=true (--volume), which makes slices of it, or save slices, "
            "transformed along one axis"
        )
    if partitions == 1 and volume:
        raise InputError(f"{path}: is raw data of 2D slices, no volume; leave out volume")
    grid = Grid(
        path,
        geometry if volume else replace(geometry, centres=(geometry.centres[0], 0)),
        "k-space is not symmetric (partial Fourier); reconstruct it first",
        "give time=true, which makes series of them, or ",
    )
    places: dict[int, tuple[float, float, float] | None] = {}
    with closing(lines):  # or the file stays open where an error is kept
        for line in lines:
            if line.purpose == "image":
                own = {"slab": line.slice} if volume else {"partition": line.partition}
                counters = {name: value for name, value in line.alike.items() if not time or name not in FRAMES}
                grid.check_one({**own, "segment": line.segment, **counters})
                key = (line.slice, *(line.alike.get(name, 0) for name in FRAMES)) if time else line.slice
                grid.add(replace(line, slice=key) if volume else replace(line, slice=key, partition=0))
                places[line.slice] = line.position
    frames = _frames(path, grid.counts) if time else 1
    kspace, counts = grid.averaged()
    for number, count in zip(sorted(grid.counts), counts.reshape(len(counts), -1), strict=True):
        if missing := int((count == 0).sum()):
            what = "volume" if volume else f"slice {number[0]}, frame {max(number[1:])}," if time else f"slice {number}"
            raise InputError(
                f"{path}: {what} has {len(count) - missing} of {len(count)} lines: it is "
                "undersampled, and masks are learned from complete k-space"
            )
    known_by = f"its format, {geometry.kind}" + (", readout oversampling cut off" if geometry.width < kspace.shape[-1] else "")
    kspace = without_oversampling(kspace, geometry.width)
    if (order := by_place([place for _, place in sorted(places.items())])) is not None:
        kspace = kspace.reshape(len(order), -1, *kspace.shape[1:])[order].reshape(kspace.shape)
        known_by += ", slices in the order of their places"
    if time:
        return Content(kspace[:, :, :, 0].reshape(-1, frames, *np.delete(kspace.shape[1:], 2)), SERIES, domain="kspace", known_by=known_by)
    if not volume:
        return Content(kspace[:, :, :, 0], AXES, domain="kspace", known_by=known_by)
    lengths = None if geometry.extent is None else np.divide(geometry.extent, (geometry.width, kspace.shape[2], partitions))
    return Content(
        kspace[0],
        VOLUME,
        spacing=None if lengths is None else pixel_spacing(lengths[2], lengths[0]),
        domain="kspace",
        known_by=known_by,
        thickness=None if lengths is None else float(lengths[1]),
        volume=True,
        readout=2,
    )


def _frames(path: Path, found: Collection[tuple[int, int, int]]) -> int:
    """How many frames there are of each slice, by the counters (slice, phase, repetition) that were found."""
    slices, *counters = (sorted(set(column)) for column in zip(*found, strict=True)) if found else ([], [], [])
    moving = [(name, values) for name, values in zip(FRAMES, counters, strict=True) if len(values) > 1]
    if len(moving) > 1:
        what = " and ".join(f"{len(values)} {name}s" for name, values in moving)
        raise InputError(f"{path}: has {what}, and which of them is time is unclear; save one of them alone")
    if not moving:
        raise InputError(f"{path}: has one phase and one repetition, so it is no series in time; leave out time")
    [(name, values)] = moving
    if len(found) != len(slices) * len(values):
        raise InputError(f"{path}: has {len(found)} frames of {len(slices)} slices with {len(values)} {name}s; every slice must have all")
    return len(values)


def without_oversampling(kspace: np.ndarray, width: int) -> np.ndarray:
    """K-space ``(slices, ..., samples)`` of the middle ``width`` columns of the images; overwrites what it is given."""
    for number, coils in enumerate(kspace if width < kspace.shape[-1] else ()):
        kspace[number, ..., :width] = _transformed(readout_image(coils, width), inverse=False)
    return kspace[..., :width]


def readout_image(lines: np.ndarray, width: int) -> np.ndarray:
    """The inverse transform along the last axis, and of it the middle ``width``: what lies in the field of view."""
    begin = lines.shape[-1] // 2 - width // 2
    return _transformed(lines, inverse=True)[..., begin : begin + width]


def _transformed(array: np.ndarray, inverse: bool) -> np.ndarray:
    """The centred, orthonormal transform along the last axis."""
    transform = np.fft.ifft if inverse else np.fft.fft
    return np.fft.fftshift(transform(np.fft.ifftshift(array, axes=-1), norm="ortho"), axes=-1)
