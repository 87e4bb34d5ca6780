"""What scanners write: k-space of ISMRMRD, Siemens twix and BART files, 2D Cartesian and fully sampled, else refused."""

from __future__ import annotations

import math
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from prom.datasets import twix
from prom.datasets.arrays import Content, check_axes
from prom.datasets.reading import check_declared, read_text
from prom.errors import InputError

if TYPE_CHECKING:
    import ismrmrd

AXES = "NKHW"  # slices, coils, lines, samples of a line
BLOCK = 256  # lines that are read at once
TWIX_MARK, TWIX_HEAD = b"<XProtocol>", 2**19  # what begins the protocol, and the bytes of the file within which it does
BART_AXES = {3: "K", 13: "N"}  # coils, slices; the first three are readout and the two phase-encoding axes
CENTRE = 8  # a 1/8 of each axis is its centre
CERTAIN = 5  # so many times the share of energy makes it certain which domain has its energy in the centre


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


def read_ismrmrd(path: Path, group: str, axes: str | None = None) -> Content:
    """Fully sampled k-space (slices, coils, lines, samples) complex64 of one ISMRMRD group.

    Readout oversampling is cut off in image space, averages are averaged; noise, calibration and navigator scans are left out.

    Raises
    ------
    InputError
        Where it is not 2D Cartesian and complete, or has several contrasts, phases, repetitions, sets or segments.
    """
    _check_library(path, "ISMRMRD raw data", "ismrmrd")
    with warnings.catch_warnings():  # the library makes every warning of the process show when it is imported
        import ismrmrd

    _check_own_axes(path, axes)
    _check_sizes(path, group)
    with h5py.File(path, "r") as file:
        table, text = file[group]["data"], file[group].get("xml")
        try:
            [encoding] = ismrmrd.xsd.CreateFromDocument(text[0] if text.shape else text[()]).encoding
            width, centre = _geometry(path, encoding)
        except InputError:
            raise
        except Exception as error:  # of several XML libraries, and of whatever is not there
            raise InputError(
                f"{path}: {group}/xml is no ISMRMRD header of one encoding with encodedSpace and reconSpace; export it again"
            ) from error
        lines = _Lines(path, encoding.encodedSpace.matrixSize.y, centre)
        for number, row in enumerate(row for begin in range(0, len(table), BLOCK) for row in table[begin : begin + BLOCK]):
            if row["data"].size != 2 * int(row["head"]["active_channels"]) * int(row["head"]["number_of_samples"]):
                raise InputError(f"{path}: line {number} holds {row['data'].size} values, its head says otherwise; it is damaged")
            acquisition = ismrmrd.Acquisition(row["head"])  # the library's own Dataset reads each row three times
            if not _is_image(acquisition, ismrmrd):
                continue
            samples = acquisition.number_of_samples
            if acquisition.is_flag_set(ismrmrd.ACQ_IS_REVERSE):
                raise InputError(f"{path}: has lines that were measured backwards (EPI); reconstruct it with a tool that corrects them")
            if acquisition.trajectory_dimensions:
                raise InputError(f"{path}: has lines with a trajectory of their own, so it is not Cartesian; grid it first")
            cut = acquisition.discard_pre or acquisition.discard_post or acquisition.center_sample not in (0, samples // 2)
            if samples != encoding.encodedSpace.matrixSize.x or cut:
                raise InputError(
                    f"{path}: line {number} has {samples} samples with the centre at {acquisition.center_sample}, discarded "
                    f"{acquisition.discard_pre} and {acquisition.discard_post}; must be {encoding.encodedSpace.matrixSize.x} with it in "
                    "the middle (no asymmetric echo)"
                )
            index = acquisition.idx
            lines.check_one(
                partition=index.kspace_encode_step_2,
                contrast=index.contrast,
                phase=index.phase,
                repetition=index.repetition,
                set=index.set,
                segment=index.segment,
                encoding=acquisition.encoding_space_ref,
            )
            data = row["data"].view(np.complex64).reshape(acquisition.active_channels, samples)
            lines.add(index.slice, index.kspace_encode_step_1, data)
    return _without_oversampling(lines.complete(), width, "ISMRMRD raw data")


def _check_sizes(path: Path, group: str) -> None:
    """Refuse a table that declares more than there is, which the library would ask memory for."""
    with h5py.File(path, "r") as file:
        table = file[group]["data"]
        check_declared(path, (table.size, table.dtype.itemsize), np.dtype("u1"), table.id.get_storage_size(), axes=(2,))
        fields = table.dtype["head"].names or ()
        if not {"active_channels", "number_of_samples", "trajectory_dimensions"} <= set(fields):
            raise InputError(f"{path}: {group}/data is no table of ISMRMRD lines, whose heads have other fields; export it again")
        if table.chunks is None or table.id.get_create_plist().get_nfilters():
            return  # nothing writes it so; what can be seen of it without reading it is too little
        for begin in range(0, len(table), table.chunks[0]):
            _check_lines(path, table, begin)


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


def _geometry(path: Path, encoding: ismrmrd.xsd.encodingType) -> tuple[int, int]:
    """Samples of a line without oversampling, and the number of the line in the centre."""
    kind = str(getattr(encoding.trajectory, "value", encoding.trajectory)).lower()
    if kind != "cartesian":
        raise InputError(f"{path}: its trajectory is {kind}; only cartesian raw data are read, grid it first")
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    if encoded.matrixSize.z != 1:
        raise InputError(f"{path}: is 3D raw data ({encoded.matrixSize.z} partitions); save slices, transformed along one axis")
    width = encoded.matrixSize.x * recon.fieldOfView_mm.x / encoded.fieldOfView_mm.x
    if abs(width - round(width)) > 0.01 * width or not recon.matrixSize.x >= round(width) <= encoded.matrixSize.x:
        raise InputError(
            f"{path}: its readout oversampling is unclear: {encoded.matrixSize.x} samples over {encoded.fieldOfView_mm.x:g} mm encoded, "
            f"{recon.matrixSize.x} over {recon.fieldOfView_mm.x:g} mm reconstructed; mend the header"
        )
    limits = encoding.encodingLimits and encoding.encodingLimits.kspace_encoding_step_1
    return round(width), limits.center if limits else encoded.matrixSize.y // 2


def _is_image(acquisition: ismrmrd.Acquisition, library: object) -> bool:
    others = (
        "NOISE_MEASUREMENT NAVIGATION_DATA PHASECORR_DATA HPFEEDBACK_DATA DUMMYSCAN_DATA RTFEEDBACK_DATA SURFACECOILCORRECTIONSCAN_DATA"
    )
    flags = [getattr(library, f"ACQ_IS_{name}") for name in others.split()]
    flags += [library.ACQ_IS_PHASE_STABILIZATION, library.ACQ_IS_PHASE_STABILIZATION_REFERENCE]
    calibration = acquisition.is_flag_set(library.ACQ_IS_PARALLEL_CALIBRATION)
    both = acquisition.is_flag_set(library.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    return not any(acquisition.is_flag_set(flag) for flag in flags) and (both or not calibration)


# ---------------------------------------------------------------------------------------------------------------------------------- twix


def is_twix(path: Path) -> bool:
    """Whether a file has the protocol of Siemens raw data near its beginning.

    >>> is_twix(Path(__file__).parent / "cache.py")
    False
    """
    with open(path, "rb") as file:
        return TWIX_MARK in file.read(TWIX_HEAD)


def read_twix(path: Path, axes: str | None = None) -> Content:
    """Fully sampled k-space (slices, coils, lines, samples) complex64 of Siemens raw data; as :func:`read_ismrmrd`."""
    _check_library(path, "Siemens raw data (twix)", "twixtools")
    _check_own_axes(path, axes)
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
    lines = _Lines(path, max(int(found["rows"]), int(found["line"].max()) + 1), int(found["centre_line"][0]))
    alike = ("partition", "contrast", "phase", "repetition", "set", "segment", "centre_line")
    for number, data in enumerate(found["data"]):
        lines.check_one(**{name: int(found[name][number]) for name in alike})
        lines.add(int(found["slice"][number]), int(found["line"][number]), data)
    return _without_oversampling(lines.complete(), width, "Siemens raw data")


# ---------------------------------------------------------------------------------------------------------------------------------- BART


def read_cfl(path: Path, axes: str | None = None) -> Content:
    """The array of a BART file, .cfl with its .hdr: the two of the first three axes that are longer than 1 as rows and columns, coils,
    slices. A letter for each axis in ``axes`` names others.

    It is k-space where its energy lies in the centre, and images where that of its Fourier transform does.

    Raises
    ------
    InputError
        Where the header is missing or does not fit, the axes are unclear, or which of both it is.
    """
    text = read_text(path.with_suffix(".hdr"), "header of a BART file").splitlines()
    try:
        shape = [int(word) for word in text[text.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError) as error:
        raise InputError(f"{path.with_suffix('.hdr')}: has no '# Dimensions' with their lengths; it is not of a BART file") from error
    if min(shape, default=0) < 1 or len(shape) > 16 or math.prod(shape) * 8 != path.stat().st_size:
        raise InputError(f"{path}: holds {path.stat().st_size} bytes, but its header declares {shape}, complex64; one of both is damaged")
    while len(shape) > max(2, len(axes or "")) and shape[-1] == 1:
        shape.pop()
    if axes is None:
        image = [axis for axis in range(min(3, len(shape))) if shape[axis] > 1]
        letters = BART_AXES | dict(zip(image, "HW", strict=False))
        if len(image) != 2 or any(length > 1 and axis not in letters for axis, length in enumerate(shape)):
            raise InputError(
                f"{path}: what the axes of shape {tuple(shape)} are is unclear; name each, e.g. axes={'HW1KN1'[: len(shape)]!r}"
            )
        axes = "".join("1" if length == 1 else letters[axis] for axis, length in enumerate(shape))
    axes = check_axes(path, shape, np.dtype(np.complex64), axes, ())
    array = np.memmap(path, np.dtype("<c8"), "r", shape=tuple(shape), order="F")
    return Content(array, axes, domain=_domain(path, array, axes), known_by="its energy at the centre")


def _domain(path: Path, array: np.ndarray, axes: str) -> str:
    middle = array[tuple(slice(None) if letter in "HW" else length // 2 for letter, length in zip(axes, array.shape, strict=True))]
    if "K" in axes:
        coils = [slice(None) if letter in "HWK" else length // 2 for letter, length in zip(axes, array.shape, strict=True)]
        middle = np.moveaxis(array[tuple(coils)], [letter for letter in axes if letter in "HWK"].index("K"), 0)
    transformed = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(middle, axes=(-2, -1))), axes=(-2, -1))
    itself, other = _central_share(middle), _central_share(transformed)
    if max(itself, other) < CERTAIN * min(itself, other) or not math.isfinite(itself * other):
        raise InputError(
            f"{path}: whether it is k-space or images is unclear, the centre has {itself:.0%} of its energy and {other:.0%} of its "
            "transform's; save it as npy and name the domain"
        )
    return "kspace" if itself > other else "image"


def _central_share(array: np.ndarray) -> float:
    energy = np.abs(array.astype(np.complex128)) ** 2
    centre = tuple(slice(n // 2 - n // (2 * CENTRE), n // 2 + n // (2 * CENTRE) + 1) for n in array.shape[-2:])
    return float(energy[(..., *centre)].sum() / max(energy.sum(), np.finfo(float).tiny))


# ------------------------------------------------------------------------------------------------------------------------- what all share


def _check_library(path: Path, what: str, name: str) -> None:
    if find_spec(name) is None:
        raise InputError(f"{path}: is {what}; {name}, which reads it, is not installed: pip install 'prom-mri[scanner]'")


def _check_own_axes(path: Path, axes: str | None) -> None:
    if axes not in (None, AXES):
        raise InputError(f"{path}: axes {axes!r}: raw data say themselves what their axes are; leave it out")


class _Lines:
    """The lines of k-space as they come, each put in its place.

    ``rows``: how many there should be; ``centre``: the number of the one that is in the middle, which comes to ``rows // 2``.
    """

    def __init__(self, path: Path, rows: int, centre: int) -> None:
        self.path, self.rows, self.centre = path, rows, centre
        self.first: dict[str, int] = {}
        self.slices: dict[int, np.ndarray] = {}
        self.counts: dict[int, np.ndarray] = {}

    def check_one(self, **counters: int) -> None:
        """Refuse a file in which some lines are, e.g., of another contrast."""
        self.first = self.first or counters
        for name, value in counters.items():
            if value != self.first[name]:
                raise InputError(f"{self.path}: has several {name}s ({self.first[name]}, {value}, ...); save one of them alone")

    def add(self, number: int, line: int, data: np.ndarray) -> None:
        """One line (coils, samples) of slice ``number``; what is measured again is added."""
        row = line + self.rows // 2 - self.centre
        if not 0 <= row < self.rows:
            raise InputError(
                f"{self.path}: line {line} of {self.rows} with the centre at {self.centre}: k-space is not symmetric (partial Fourier); "
                "reconstruct it first"
            )
        if number not in self.slices:
            shape = (len(data), self.rows, data.shape[-1])
            check_declared(self.path, (len(self.slices) + 1, *shape), np.dtype(np.complex64))
            self.slices[number], self.counts[number] = np.zeros(shape, np.complex64), np.zeros(self.rows, int)
        if (place := self.slices[number][:, row]).shape != data.shape:
            raise InputError(f"{self.path}: has lines of shape {place.shape} and {data.shape} (coils, samples); must be alike")
        place += data
        self.counts[number][row] += 1

    def complete(self) -> np.ndarray:
        """K-space (slices, coils, lines, samples), averaged."""
        if not self.slices:
            raise InputError(f"{self.path}: has no lines of an image")
        for number in sorted(self.slices):
            if missing := int((self.counts[number] == 0).sum()):
                raise InputError(
                    f"{self.path}: slice {number} has {self.rows - missing} of {self.rows} lines: it is undersampled, and masks are "
                    "learned from complete k-space"
                )
        shapes = {array.shape for array in self.slices.values()}
        if len(shapes) > 1:
            raise InputError(f"{self.path}: has slices of shapes {sorted(shapes)}; must be alike")
        return np.stack([self.slices[number] / self.counts[number][:, None] for number in sorted(self.slices)]).astype(np.complex64)


def _without_oversampling(kspace: np.ndarray, width: int, kind: str) -> Content:
    """K-space of the middle ``width`` columns of the images."""
    known_by = f"its format, {kind}" + (", readout oversampling cut off" if width < kspace.shape[-1] else "")
    begin = kspace.shape[-1] // 2 - width // 2
    for number, coils in enumerate(kspace if width < kspace.shape[-1] else ()):
        image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(coils, axes=-1), norm="ortho"), axes=-1)[..., begin : begin + width]
        kspace[number, ..., :width] = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=-1), norm="ortho"), axes=-1)
    return Content(kspace[..., :width], AXES, domain="kspace", known_by=known_by)
