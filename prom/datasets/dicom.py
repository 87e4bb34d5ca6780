"""DICOM: whose a file is, which series it belongs to, magnitude or phase, and its pixels."""

from __future__ import annotations

import math
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from prom.datasets import layout
from prom.datasets.arrays import Content
from prom.datasets.reading import check_declared, decoding, grey, pixel_spacing
from prom.datasets.signatures import check_signature
from prom.errors import InputError, unknown

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

PARTS = ("magnitude", "complex")
PATIENTS = ("id", "study")  # what else than folders may say whose a file is
INFLATED = 256 * 2**20  # bytes of one deflated file, far more than a real one has
NAMED = 12  # series that a message lists

# Storage classes that are no images: the beginnings of their UIDs.
DIRECTORY = "1.2.840.10008.1.3.10"
NO_IMAGES = {
    DIRECTORY: "DICOMDIR",
    "1.2.840.10008.5.1.4.1.1.88.": "structured report",
    "1.2.840.10008.5.1.4.1.1.11.": "presentation state",
    "1.2.840.10008.5.1.4.1.1.104.": "encapsulated document",
    "1.2.840.10008.5.1.4.1.1.9.": "waveform",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectroscopy",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, registration or segmentation",
    "1.2.840.10008.5.1.4.1.1.67": "real world value mapping",
    "1.2.840.10008.5.1.4.1.1.481.": "radiotherapy object",
    "1.3.12.2.1107.5.9.1": "Siemens raw data",
    "1.3.46.670589.11.0.0.12.": "Philips raw data",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PLACEHOLDERS = {  # of PatientID, without signs and without x at the ends
    *("", "anon", "anonymous", "anonymized", "anonymised", "deidentified", "pseudonymized", "pseudonymised", "unknown", "none", "removed"),
    *("redacted", "deleted", "hidden", "withheld", "blank", "empty", "null", "na", "noid", "notavailable", "patient", "patientid", "id"),
}
COMPONENTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
COMPONENTS |= {component.upper(): component for component in COMPONENTS.values()} | {"PHASE MAP": "phase"}
TAGS = (
    "SOPClassUID",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "InstanceNumber",
    "ImageType",
    "ComplexImageComponent",
    "Rows",
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "NumberOfFrames",
    "SliceLocation",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "Manufacturer",
    "AcquisitionMatrix",
    "PercentPhaseFieldOfView",
    "PixelSpacing",
)
GE_COMPONENT = (0x0043, 0x102F)
GE_COMPONENTS = ("magnitude", "phase", "real", "imaginary")


@dataclass(frozen=True)
class Slice:
    """One file to read: whose it is, where it comes among that subject's, and the file with its phase or imaginary part, or None."""

    path: Path
    subject: str
    order: tuple
    second: Path | None = None


@dataclass(frozen=True)
class _Head:
    """What a header says of a file, without its pixels."""

    path: Path
    owner: str  # the sub-folder that may be a patient's, with its split, or ""
    kind: str  # what the file is if not an image, else ""
    patient: str
    study: str
    series: str
    number: int | None
    description: str
    contrast: str  # description, or what stands for it
    size: tuple[int, int]
    mosaic: bool
    part: str | None
    place: tuple[Hashable, ...]
    instance: int | None
    position: float
    measured: tuple[int, int] = (0, 0)  # rows and columns, 0 where unknown

    @property
    def interpolated(self) -> bool:
        """Whether the scanner filled up what it measured, with zeros in k-space or otherwise."""
        return any(0 < measured < stored for measured, stored in zip(self.measured, self.size, strict=True))

    @property
    def order(self) -> tuple:
        return self.number or 0, self.series, math.inf if self.instance is None else self.instance, self.position


def is_dicom(path: Path) -> bool:
    """Whether a file has the marker DICM after its first 128 bytes.

    Raises
    ------
    InputError
        Where it cannot be opened.

    >>> is_dicom(Path(__file__))
    False
    """
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error


def organise(
    root: Path,
    paths: Sequence[Path],
    splits: Collection[str] = (),
    series: str | int | None = None,
    part: str | None = None,
    patient: str | None = None,
) -> tuple[list[Slice], list[str]]:
    """Which of the DICOM files are read, whose they are, and what a reader should know of that.

    Parameters
    ----------
    root, paths
        The data set's folder and the DICOM files in it, in the order that decides where nothing in them does.
    splits
        The names of its sub-folders that are splits, not subjects.
    series
        Which series to read: its SeriesDescription (in any case), SeriesNumber or SeriesInstanceUID. Needed where a patient has several
        that differ in size or description.
    part
        Where magnitude and phase, or real and imaginary part, are both there: "magnitude", or "complex" to join them.
    patient
        Who is one, where headers leave it open: "id" (PatientID), "study" (StudyInstanceUID), "folder" (the innermost), or the number of
        a folder on the path, from 1.

    Returns
    -------
    slices, notes
        The files; and one phrase each for what was left out and for subjects that are not PatientIDs.

    Raises
    ------
    InputError
        Where a file is damaged, the patient or the series to read is unclear, or the images are mosaics, screenshots, or of mixed parts.

    >>> organise(Path("a"), [])
    ([], [])
    """
    if part is not None and part not in PARTS:
        raise unknown("part", part, PARTS)
    heads = [_head(path, root, splits) for path in paths]
    images, left_out = [head for head in heads if not head.kind], Counter(head.kind for head in heads if head.kind)
    notes = []
    if left_out:
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"DICOM files without an image of the scanner left out: {what}")
    subjects, more = _subjects(root, images, patient)
    notes += more
    grouped: dict[str, list[_Head]] = defaultdict(list)
    for head, subject in zip(images, subjects, strict=True):
        grouped[subject].append(head)
    chosen, missing = _choose_series(root, grouped, None if series is None else " ".join(str(series).split()))
    if missing:
        notes.append(f"without series {str(series)!r}, left out: {missing} subject{'' if missing == 1 else 's'}")
    rank = {path: number for number, path in enumerate(paths)}
    slices, single, filled = [], 0, []
    for subject, group in chosen.items():
        if mosaic := next((head for head in group if head.mosaic), None):
            raise InputError(
                f"{mosaic.path}: is a mosaic, the slices of a volume tiled in one image; convert the series to NIfTI with dcm2niix"
            )
        filled += [head for head in group if head.interpolated]
        pairs = _pairs(subject, group, part)
        single += len(group) - sum(1 + (second is not None) for _, second in pairs)
        slices += [Slice(head.path, subject, (*head.order, rank[head.path]), second and second.path) for head, second in pairs]
    if single:
        notes.append(f"{single} DICOM files of other parts than the {part} left out")
    if filled:
        measured, stored = (" x ".join(str(n or "unknown") for n in size) for size in (filled[0].measured, filled[0].size))
        notes.append(
            f"{len(filled)} DICOM files may have been interpolated by the scanner, e.g. from {measured} measured to {stored}; "
            "size= and size_in=kspace cut off what was not measured"
        )
    return slices, notes


def in_time(paths: Sequence[Path]) -> list[list[int]]:
    """The files of a series, one frame each, by position and there by time: of each position the indices of its frames.

    The time is the TemporalPositionIdentifier, or the TriggerTime, where every file has it and no two at a position have the same.

    Raises
    ------
    InputError
        Where a file does not say its position, no time orders the frames, two times order them differently, or positions differ in the
        number of their frames.
    """
    places: dict[float, list[int]] = defaultdict(list)
    headers = [open_file(path, pixels=False) for path in paths]
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{path}: has several frames in one file; save the series as npy or NIfTI, and name its axes, e.g. axes='HWNT'"
            )
        position = header.get("ImagePositionPatient")
        if not position:
            raise InputError(f"{path}: does not say its position (ImagePositionPatient), so which frames are of one slice is unclear")
        places[round(_along(header.get("ImageOrientationPatient"), position), 3)].append(index)
    counts = {len(indices) for indices in places.values()}
    where = f"{paths[0].parent}: {len(paths)} DICOM files at {len(places)} positions"
    if len(counts) > 1 or counts == {1}:
        each = "one frame each" if counts == {1} else f"{min(counts)} to {max(counts)} frames each"
        raise InputError(f"{where} have {each}; a series needs equally many, and more than one: choose with series=, or leave out time")
    orders = []
    for name in ("TemporalPositionIdentifier", "TriggerTime"):
        times = [header.get(name) for header in headers]
        if None in times or any(len({float(times[index]) for index in indices}) < len(indices) for indices in places.values()):
            continue
        orders.append([sorted(places[place], key=lambda index, times=times: float(times[index])) for place in sorted(places)])
    if not orders or orders.count(orders[0]) != len(orders):
        why = "order them differently" if orders else "do not order the frames"
        raise InputError(
            f"{where}: TemporalPositionIdentifier and TriggerTime {why}, so time is not certain; save the series as npy or NIfTI"
        )
    return orders[0]


def _text(value: object) -> str:
    return " ".join(str(value if value is not None else "").split())


def _head(path: Path, root: Path, splits: Collection[str]) -> _Head:
    relative = path.relative_to(root)
    split = (relative.parts[0],) if relative.parts[0] in splits else ()
    if path.name.lower() == "dicomdir":
        return _Head(path, "", NO_IMAGES[DIRECTORY], "", "", "", None, "", "", (0, 0), False, None, (), None, 0)
    with decoding(path, "DICOM"):
        check_signature(path)
        header = open_file(path, pixels=False)
        kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
        description = _text(header.get("SeriesDescription"))
        times = [_text(header.get(name)) for name in ("RepetitionTime", "EchoTime", "InversionTime")]
        contrast = description or _text(header.get("ProtocolName")) or _text(header.get("SequenceName")) or " ".join(times).strip()
        position, number, instance = header.get("ImagePositionPatient"), header.get("SeriesNumber"), header.get("InstanceNumber")
        place = [tuple(round(float(x), 3) for x in position) if position else _text(header.get("SliceLocation"))]
        place += [_text(header.get(name)) for name in ("EchoNumbers", "TemporalPositionIdentifier", "TriggerTime")]
        size = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        matrix, field, spacing = (header.get(name) for name in ("AcquisitionMatrix", "PercentPhaseFieldOfView", "PixelSpacing"))
        return _Head(
            path=path,
            owner="/".join((*split, owner)) if (owner := layout.patient_folder(relative)) else "",
            kind=next((name for beginning, name in NO_IMAGES.items() if kind.startswith(beginning)), "")
            or ("secondary capture" if kind == SECONDARY_CAPTURE or kind.startswith(SECONDARY_CAPTURE + ".") else ""),
            patient=_text(header.get("PatientID")),
            study=_text(header.get("StudyInstanceUID")),
            series=_text(header.get("SeriesInstanceUID")),
            number=None if number is None else int(number),
            description=description,
            contrast=contrast.casefold(),
            size=size,
            mosaic="MOSAIC" in _image_type(header),
            part=_component(header) or ("mixed" if int(header.get("NumberOfFrames") or 1) > 1 else None),
            place=tuple(place),
            instance=None if instance is None else int(instance),
            position=_along(header.get("ImageOrientationPatient"), position),
            measured=_measured(matrix, field, size, spacing),
        )


def _measured(
    matrix: Sequence[int] | None, field: float | None, size: tuple[int, int], spacing: Sequence[float] | None = None
) -> tuple[int, int]:
    """How many rows and columns of what is stored were measured, by an AcquisitionMatrix; 0 where unknown.

    Lines are encoded over this share of the readout's field of view, in %, and the image may have more than that, up to a square.

    >>> _measured([0, 64, 48, 0], None, (64, 64)), _measured([0, 64, 48, 0], 75, (64, 64)), _measured([0, 64, 48, 0], 75, (48, 64))
    ((48, 64), (64, 64), (48, 64))
    >>> _measured(None, None, (64, 64))
    (0, 0)
    """
    if matrix is None or np.size(matrix) != 4:
        return 0, 0
    share = 1.0
    if field and float(field) > 0 and min(size) > 0:
        pixels = pixel_spacing(*spacing) if np.size(spacing) == 2 and all(spacing) else None
        height, width = (n * pixel for n, pixel in zip(size, pixels or (1, 1), strict=True))
        share = (height / width if matrix[2] else width / height) * 100 / float(field)
    return int(matrix[0] or round(matrix[2] * share)), int(matrix[1] or round(matrix[3] * share))


def _along(orientation: Sequence[float] | None, position: Sequence[float] | None) -> float:
    """The position along the normal of the slice, 0 where there is none."""
    x, y = np.reshape(np.array(orientation or (1, 0, 0, 0, 1, 0), dtype=float), (2, 3))
    return float(np.cross(x, y) @ np.array(position or (0, 0, 0), dtype=float))


# ---------------------------------------------------------------------------------------------------------------------- patients, series


def _subjects(root: Path, heads: Sequence[_Head], how: str | None) -> tuple[list[str], list[str]]:
    """The subject of each file, and notes where it is not the PatientID: as ``how`` says, or as far as the headers leave no doubt.

    PatientID, unless it was removed, that is empty or a placeholder. Then the StudyInstanceUID where it differs, or the sub-folder where
    each has series of its own, of the same kinds. Studies that share a sub-folder may be one patient's, and one PatientID for several
    studies may stand for several patients; the reader asks for a choice in both cases.

    Raises
    ------
    InputError
        Where it is not clear who is a patient, or ``how`` does not fit.
    """
    if how is not None:
        return [_chosen(root, head, how) for head in heads], []
    subjects = {head.path: head.patient for head in heads}
    ids = set(subjects.values())
    hidden = heads if len(ids) == 1 and min(ids).strip("0") == "" else [head for head in heads if _is_placeholder(head.patient)]
    if not hidden:
        studies = {head.study for head in heads}
        if len(ids) == 1 and (len(studies) > 1 or _same_series_everywhere(heads)):
            where = f"{len(studies)} studies" if len(studies) > 1 else "several sub-folders with the same series in each"
            raise _unclear(root, f"all DICOM files have the PatientID {min(ids)!r}, but are of {where}")
        return list(subjects.values()), []
    studies = {head.study for head in hidden}
    owners: dict[str, set[str]] = defaultdict(set)
    for head in hidden:
        owners[head.owner].add(head.study)
    if len(studies) > 1 and "" not in studies:
        if shared := next((owner for owner, inside in owners.items() if owner and len(inside) > 1), None):
            raise _unclear(root, f"{shared} has DICOM files of {len(owners[shared])} studies without a PatientID")
        by, names = "StudyInstanceUID", [head.study for head in hidden]
    elif len(owners) > 1:
        if not _same_series_everywhere(hidden):
            raise _unclear(root, f"DICOM files in {len(owners)} sub-folders have no PatientID, and their series differ")
        if all(layout.is_session(owner) for owner in owners):
            raise _unclear(root, f"DICOM files without a PatientID lie in sub-folders of sessions, e.g. {min(owners)!r}")
        by, names = "sub-folder", [head.owner or "subject" for head in hidden]
    else:
        by, names = "", [head.patient or head.owner or "subject" for head in hidden]
    subjects |= {head.path: name for head, name in zip(hidden, names, strict=True)}
    notes = [f"the PatientID of {len(hidden)} DICOM files does not tell patients apart: subjects by {by}"] if by else []
    return [subjects[head.path] for head in heads], notes


def _is_placeholder(patient: str) -> bool:
    return "".join(c for c in patient.casefold() if c.isalnum()).strip("x") in PLACEHOLDERS


def _unclear(root: Path, what: str) -> InputError:
    return InputError(
        f"{root}: {what}; whether that is one patient or several is unclear: give patient=id (PatientID), patient=study "
        "(StudyInstanceUID), or patient=1, 2, ... (the first, second, ... folder on the path)"
    )


def _chosen(root: Path, head: _Head, how: str) -> str:
    if how in PATIENTS:
        attribute, value = ("PatientID", head.patient) if how == "id" else ("StudyInstanceUID", head.study)
        if not value:
            raise InputError(f"{head.path}: has no {attribute}; say in another way than patient={how} whose it is")
        return value
    return layout.by_folder(PurePath(head.path.relative_to(root)), how)


def _kinds_of_series(heads: Iterable[_Head]) -> frozenset[Hashable]:
    return frozenset(head.description.casefold() or head.number for head in heads)


def _same_series_everywhere(group: Sequence[_Head]) -> bool:
    """Whether each of several sub-folders has its own series, of the same kinds as all others: copies of a protocol, so patients."""
    folders: dict[str, list[_Head]] = defaultdict(list)
    for head in group:
        folders[head.owner].append(head)
    uids = [{head.series for head in heads} - {""} for heads in folders.values()]
    own = all(sum(uid in others for others in uids) == 1 for uid in set().union(*uids))
    return len(folders) > 1 and own and len({_kinds_of_series(heads) for heads in folders.values()}) == 1


def _choose_series(root: Path, grouped: dict[str, list[_Head]], wanted: str | None) -> tuple[dict[str, list[_Head]], int]:
    """Of each subject the files of the series to read, and how many subjects have none."""
    if wanted is not None:
        found = {subject: [head for head in heads if _is_series(head, wanted)] for subject, heads in grouped.items()}
        chosen = {subject: heads for subject, heads in found.items() if heads}
        if not chosen:
            every = [head for heads in grouped.values() for head in heads]
            raise InputError(f"{root}: has no DICOM series {wanted!r}; there are: {_listing(every)}")
    else:
        chosen = grouped
    for subject, heads in chosen.items():
        series: dict[Hashable, set] = defaultdict(set)
        for head in heads:
            series[head.series or head.number].add((head.size, head.contrast))
        if len(series) > 1 and len(set().union(*series.values())) > 1:
            raise InputError(
                f"{root}: subject {subject!r} has {len(series)} DICOM series{'' if wanted is None else f' {wanted!r}'} that differ in size "
                f"or description; choose one by number, description or UID, e.g. series={_choice(heads)!r}: {_listing(heads)}"
            )
    return chosen, len(grouped) - len(chosen)


def _is_series(head: _Head, wanted: str) -> bool:
    return wanted in (head.series, str(head.number)) or wanted.casefold() == head.description.casefold() != ""


def _choice(heads: Sequence[_Head]) -> str:
    """What to give for the largest of the series, the last of several (the first is the localiser): its description if only it has that."""
    counts = Counter((head.number or 0, head.series, head.description) for head in heads)
    number, uid, description = max(counts, key=lambda series: (counts[series], series))
    alone = len({head.series for head in heads if head.description.casefold() == description.casefold()}) == 1
    return description if description and alone else str(number) if number else uid


def _listing(heads: Sequence[_Head]) -> str:
    """The series, each with number, description, size and how many files."""
    counts = Counter((head.number or 0, head.description, head.size, head.mosaic) for head in heads)
    lines = [
        f"{number} {description!r} {'mosaic ' if mosaic else ''}{size[0]} x {size[1]} ({count} file{'' if count == 1 else 's'})"
        for (number, description, size, mosaic), count in sorted(counts.items())
    ]
    return ", ".join(lines[:NAMED]) + (f" and {len(lines) - NAMED} more" if len(lines) > NAMED else "")


# -------------------------------------------------------------------------------------------------------------------- magnitude and phase


def _image_type(header: Dataset) -> list[str]:
    value = header.get("ImageType") or []
    return [str(item).strip().upper() for item in ([value] if isinstance(value, str) else value)]


def _component(header: Dataset) -> str | None:
    """ "magnitude", "phase", "real", "imaginary", "mixed", or None where the header does not say."""
    stated = str(header.get("ComplexImageComponent") or "").strip().lower()
    if stated in (*GE_COMPONENTS, "mixed"):
        return stated
    found = {COMPONENTS.get(item, COMPONENTS.get(item[:1]) if item[1:2] == "_" else None) for item in _image_type(header)[2:]} - {None}
    if not found and GE_COMPONENT in header and "GE" in str(header.get("Manufacturer", "")).upper():
        number = header[GE_COMPONENT].value
        found = {GE_COMPONENTS[number]} if isinstance(number, int) and 0 <= number < len(GE_COMPONENTS) else set()
    return "mixed" if len(found) > 1 else next(iter(found), None)


def _components(where: str, found: set[str | None], part: str | None) -> tuple[str | None, str | None]:
    """Which of the components that are there to read, and which to join with it."""
    if found == {"mixed"}:
        return "mixed", None  # the frames of a file: distinguished when it is read
    names = ", ".join(sorted(name or "not stated" for name in found))
    for first, second in (("magnitude", "phase"), ("real", "imaginary")):
        if part == "complex" and found == {first, second}:
            return first, second
    if part == "complex":
        raise InputError(f"{where}: part='complex' needs magnitude and phase, or real and imaginary part; its images are: {names}")
    if len(found) == 1 and not found & {"phase", "imaginary"}:
        return next(iter(found)), None
    if part == "magnitude" and "magnitude" in found:
        return "magnitude", None
    way = "choose part='magnitude' or part='complex'" if found >= {"magnitude", "phase"} else "keep one kind"
    way = "choose part='complex' to join them" if found == {"real", "imaginary"} else way
    raise InputError(f"{where}: its images are of mixed or unsuitable parts ({names}); {way}")


def _pairs(subject: str, heads: list[_Head], part: str | None) -> list[tuple[_Head, _Head | None]]:
    """The files to read of one subject, each with the one to join."""
    found = {head.part for head in heads}
    first, second = _components(f"{heads[0].path.parent}, subject {subject!r}", found, part)
    firsts = [head for head in heads if head.part == first]
    if second is None:
        return [(head, None) for head in firsts]
    seconds = [head for head in heads if head.part == second]
    for key in (lambda head: head.place, lambda head: (head.place, head.instance)):
        partner = {key(head): head for head in seconds}
        if len(partner) == len(seconds) == len(firsts) and partner.keys() == {key(head) for head in firsts}:
            return [(head, partner[key(head)]) for head in firsts]
    raise InputError(
        f"{heads[0].path.parent}, subject {subject!r}: {len(firsts)} {first} and {len(seconds)} {second} images, which belong together is "
        f"unclear from position, echo, time and InstanceNumber; use part='magnitude' or convert with dcm2niix"
    )


def _radians(path: Path, phase: np.ndarray, rescale: Dataset) -> np.ndarray:
    """Phase in radians, where the header makes it certain what the values are. ``phase``: already rescaled."""
    slope, intercept = float(rescale.get("RescaleSlope", 1)), float(rescale.get("RescaleIntercept", 0))
    low, high = float(phase.min()), float(phase.max())
    if (slope, intercept) == (2, -4096) and -4096 <= low <= high <= 4094:
        return phase * (math.pi / 4096)
    for unit in (1.0, 1e-3):
        if abs(intercept * unit + math.pi) < 0.01 and max(-low, high) * unit < math.pi + 0.01:
            return phase * unit
    if (slope, intercept) == (1, 0) and 0 <= low < 512 and 3583 < high <= 4095:
        return (phase - 2048) * (math.pi / 2048)
    raise InputError(
        f"{path}: what its phase values {low:g} to {high:g} are in radians is unclear (RescaleSlope {slope:g}, RescaleIntercept "
        f"{intercept:g}); use part='magnitude', or convert it and save complex npy files"
    )


# ---------------------------------------------------------------------------------------------------------------------------- one file


def open_file(path: Path, pixels: bool = True) -> FileDataset:
    """The file's elements, without pixels only those that :func:`organise` needs; a deflated file only if it stays within `INFLATED`."""
    from pydicom import dcmread  # here: a tenth of the time that importing prom takes
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        _check_inflated(path)
    if pixels:
        return dcmread(path)
    return dcmread(path, stop_before_pixels=True, specific_tags=[*TAGS, GE_COMPONENT])


def _check_inflated(path: Path) -> None:
    from pydicom.filereader import read_file_meta_info

    with open(path, "rb") as file:
        file.seek(132)
        file.seek(144 + read_file_meta_info(path).FileMetaInformationGroupLength)
        inflate, size, pending = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        while not inflate.eof and (block := pending or file.read(2**16)):
            size += len(inflate.decompress(block, 2**20))
            pending = inflate.unconsumed_tail
            if size > INFLATED:
                raise InputError(f"{path}: is deflated DICOM that expands to more than {INFLATED // 2**20} MiB; save it uncompressed")


def read(path: Path, part: str | None = None, second: Path | None = None) -> Content:
    """The images of one file (N, H, W), rescaled, float32, or complex64 where they are joined with the phase or imaginary part.

    ``second``: the file to join. Frames of a multi-frame file come in the order of their positions. Raises InputError.
    """
    from pydicom.pixels import apply_modality_lut

    data = open_file(path)
    stored = _stored(path, data)
    frames = []
    for number, frame in enumerate(stored):
        transformation = _of_frame(data, number, "PixelValueTransformationSequence") or data
        frames.append((np.asarray(apply_modality_lut(frame, transformation), dtype=np.float32), transformation))
    places = _places(path, data, len(stored))
    components = [component for _, component in places]
    if "mixed" in components:
        raise InputError(f"{path}: does not say clearly whether it is magnitude or phase; split it, e.g. to NIfTI with dcm2niix")
    first, other = _components(str(path), set(components), None if second else part) if len(places) > 1 else (components[0], None)
    chosen = [number for number, component in enumerate(components) if component == first]
    chosen = _ordered(path, chosen, places)
    images = np.stack([frames[number][0] for number in chosen])
    if other is not None:
        seconds = _ordered(path, [number for number, component in enumerate(components) if component == other], places)
        if [places[n][0] for n in seconds] != [places[n][0] for n in chosen]:
            raise InputError(f"{path}: its {first} and {other} frames are not at the same positions; use part='magnitude'")
        images = _joined(path, images, other, [frames[number] for number in seconds])
    elif second is not None:
        images = _join_file(path, images, second)
    spacing = (_of_frame(data, 0, "PixelMeasuresSequence") or data).get("PixelSpacing")
    in_space = "ImagePositionPatient" in (_of_frame(data, 0, "PlanePositionSequence") or ())
    known = len(chosen) > 1 and places[chosen[0]][0] is not None
    apart = np.diff([places[number][0] for number in chosen]) if known else None
    return Content(
        images,
        "NHW",
        spacing=pixel_spacing(*spacing) if np.size(spacing) == 2 else None,
        domain="image",
        steps=None if apart is None else (float(apart.min()), float(apart.max()), "mm" if in_space else "numbers in the stack"),
    )


def _join_file(path: Path, images: np.ndarray, second: Path) -> np.ndarray:
    with decoding(second, "DICOM"):
        data = open_file(second)
        component, stored = _component(data), _stored(second, data)
        if len(stored) != 1 or stored.shape != images.shape:
            raise InputError(f"{path}: shape {images.shape}, but its {component} {second.name!r} {stored.shape}; must be one equal image")
        from pydicom.pixels import apply_modality_lut

        frame = np.asarray(apply_modality_lut(stored[0], data), dtype=np.float32)
        return _joined(second, images, component, [(frame, data)])


def _joined(path: Path, images: np.ndarray, component: str | None, others: Sequence[tuple[np.ndarray, Dataset]]) -> np.ndarray:
    """Complex images of magnitude and phase, or of real and imaginary parts."""
    if component == "phase":
        phases = np.stack([_radians(path, frame, rescale) for frame, rescale in others])
        return (images * np.exp(1j * phases)).astype(np.complex64)
    return (images + 1j * np.stack([frame for frame, _ in others])).astype(np.complex64)


def _stored(path: Path, data: FileDataset) -> np.ndarray:
    """The stored values (N, H, W) of a file of grey images."""
    if "Rows" not in data or not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(data.dir()):
        raise InputError(f"{path}: is DICOM without an image; remove it from the folder")
    photometric = str(data.get("PhotometricInterpretation", "")).strip()
    if photometric in ("MONOCHROME1", "PALETTE COLOR"):
        raise InputError(f"{path}: is an image of {photometric}, whose values are not intensities; convert it to MONOCHROME2")
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel", 1))
    check_declared(path, (frames, samples, data.Rows, data.Columns), np.dtype(f"u{max(1, data.BitsAllocated // 8)}"))
    _check_decoder(path, data)
    array = data.pixel_array
    array = grey(path, array) if samples > 1 else array
    return array if array.ndim == 3 else array[None]


def _check_decoder(path: Path, data: FileDataset) -> None:
    """Refuse compressed pixels that nothing installed can decode: the file is not at fault."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{path}: its pixels are compressed as {syntax.name}, which is not supported; save it uncompressed") from None
    if not decoder.is_available:
        raise InputError(
            f"{path}: its pixels are compressed as {syntax.name}, for which no decoder is installed; pip install 'prom-mri[dicom]'"
        )
    declared = int(data.Rows), int(data.Columns)
    for frame in generate_frames(data.PixelData, number_of_frames=int(data.get("NumberOfFrames") or 1)):
        if (size := _coded_size(frame)) not in (None, declared):
            raise InputError(f"{path}: its compressed pixels are {size[0]} x {size[1]}, but it declares {declared[0]} x {declared[1]}")


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that the beginning of a JPEG, JPEG-LS or JPEG 2000 frame declares, which its decoder asks memory for; or None."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:  # JPEG 2000: SIZ comes first
        width, height, left, top = struct.unpack(">4I", frame[8:24])
        return height - top, width - left
    at = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        kind, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4])
        if kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):  # the start of a frame
            return struct.unpack(">2H", frame[at + 5 : at + 9])
        at += 2 + length
    return None


def _of_frame(data: Dataset, number: int, sequence: str) -> Dataset | None:
    """In an enhanced multi-frame file, what the sequence says of this frame, or of all; else None."""
    groups = [data.PerFrameFunctionalGroupsSequence[number]] if data.get("PerFrameFunctionalGroupsSequence") else []
    groups += data.get("SharedFunctionalGroupsSequence") or []
    return next((group[sequence][0] for group in groups if sequence in group and group[sequence].value), None)


def _places(path: Path, data: FileDataset, frames: int) -> list[tuple[float | None, str | None]]:
    """Of each frame its position along the slice normal, or in its stack, or None, and its component."""
    found, stacks, echoes = [], set(), set()
    for number in range(frames):
        plane, orientation, content, echo, kind = (
            _of_frame(data, number, f"{name}Sequence") or {}
            for name in ("PlanePosition", "PlaneOrientation", "FrameContent", "MREcho", "MRImageFrameType")
        )
        position, direction = plane.get("ImagePositionPatient"), orientation.get("ImageOrientationPatient")
        stacks.add((_text(content.get("StackID")), tuple(round(float(x), 3) for x in direction or ())))
        echoes.add(_text(echo.get("EffectiveEchoTime")))
        place = content.get("InStackPositionNumber") if position is None else round(_along(direction, position), 3)
        found.append((None if place is None else float(place), (_component(kind) if kind else None) or _component(data)))
    for what, values in (("stacks of slices", stacks), ("echoes", echoes)):
        if len(values) > 1:
            raise InputError(f"{path}: has {len(values)} {what} in one multi-frame file; split it, e.g. to NIfTI with dcm2niix")
    return found


def _ordered(path: Path, numbers: Sequence[int], places: Sequence[tuple[float | None, str | None]]) -> list[int]:
    """The frames by position; in the order of the file where it says none."""
    positions = [places[number][0] for number in numbers]
    if set(positions) == {None}:
        return list(numbers)
    if None in positions or len(set(positions)) < len(positions):
        raise InputError(
            f"{path}: has several frames at one position (times, b-values, ...), or none for some; split it, e.g. to NIfTI with dcm2niix"
        )
    return sorted(numbers, key=lambda number: places[number][0])
