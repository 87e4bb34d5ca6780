"""What each file of a folder is: an image, a label of one, or nothing that is read, and why."""

from __future__ import annotations

import warnings
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from prom.datasets import formats, hdf5, layout, raw
from prom.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

LABELS = ("auto", "only", "none")
MOST_LABELS = 24  # different values; a picture of an anatomy has more
LARGEST_MASK = 2**22  # samples; enough of a larger file to see that it is none
PARTLY = ("NIfTI", "MGH", "Analyze", "npy")  # formats that can be read in part
WHOLE = ("HDF5", "MATLAB", "npz")  # that cannot, and are read where they are not large
LARGE = 2**26  # bytes
NO_IMAGES = {"derivatives": "of the derivatives of BIDS", "fmap": "of the field maps of BIDS"}
BLACK_AND_WHITE = "a picture in black and white: a mask or a label"

LeftOut = tuple[Path, str]


@dataclass(frozen=True)
class File:
    """One file that is read as images: by which reader, whose it is, and where it comes in that subject's slices.

    ``sure``: the patient's name means the same one in every folder. ``parts``: the words for session, echo and the like. ``side``: the
    split that its folders name, or "". ``label``: the
    file with its labels. ``others``: the files with the further channels. ``second``: of DICOM the file with the phase or imaginary part,
    if they are joined. ``positions``: of a volume that is read in pieces, the first position along the readout and that after the last.
    """

    path: Path
    kind: str
    subject: str
    order: tuple
    patient: str
    sure: bool = True
    contrast: str = ""
    volume: str = ""
    label: Path | None = None
    others: tuple[Path, ...] = ()
    second: Path | None = None
    positions: tuple[int, int] | None = None
    parts: frozenset[str] = frozenset()
    side: str = ""


def assigned(
    root: Path, paths: Sequence[tuple[Path, str]], patient: str | None, labels: str, contrast: str | None, channels: Sequence[str] | None
) -> tuple[list[File], list[LeftOut]]:
    """The files to read as images, from all that have a format (``paths``: each with its kind, none of them DICOM), and what is left out.

    A mask of this package is not read, nor another picture in black and white that does not say what it is a label of. A label is known
    by its name, its folder (see
    :mod:`prom.datasets.layout`), or by its values: few whole ones, beside an image of the same grid of the same patient. ``labels``:
    "auto" reads the label of an image where there is one; "only" leaves out images without; "none" reads none. ``contrast`` reads one of
    the contrasts, ``channels`` several as channels of one image.

    Raises
    ------
    InputError
        Where all files are labels, a contrast is missing, an image has two labels, or (with "only") none has one.
    """
    left_out: list[LeftOut] = []
    readable, shades = [], set()
    for path, kind in paths:
        where = path.relative_to(root)
        reason = next((why for folder, why in NO_IMAGES.items() if folder in where.parts[:-1]), None) or _not_an_image(path, kind)
        if reason == BLACK_AND_WHITE and layout.says_label_of(where):
            shades.add(path)  # of one region, or of a slice with one: known as a label by its name alone
            reason = None
        (left_out.append((path, reason)) if reason else readable.append((path, kind)))
    relative = [path.relative_to(root) for path, _ in readable]
    names = layout.names(relative, [formats.without_extension(path).name for path in relative], patient)
    if patient is None:
        names = [_named(path, kind, name) for (path, kind), name in zip(readable, names, strict=True)]
    found, labelled, said = [], [], []
    for (path, kind), where, name in zip(readable, relative, names, strict=True):
        if name.unread and not name.label:
            left_out.append((path, name.unread))
            continue
        subject = where.as_posix()
        if kind == "image" and any(not layout.says_what(part) for part in where.parts[:-1]):
            subject = where.parent.as_posix()  # the pictures of a folder are slices of one volume
        order = formats.natural(where.name) if kind == "image" else ()
        file = File(path, kind, subject, order, name.patient, name.sure, name.contrast, name.volume, parts=name.parts, side=name.side)
        if kind == "image" and layout.says_label(where) and not name.label:
            said.append(path)
        if path in shades and not name.label:
            left_out.append((path, BLACK_AND_WHITE))
        else:
            (labelled if name.label else found).append(file)
    if labels != "none" and said and not {file.path for file in found} <= set(said):
        raise InputError(
            f"{said[0]}: its name says that it is a label, but not at its end; call it as its image is called, with _label at the end "
            "(NAME_label.png of NAME.png), or give labels=none where it is none"
        )
    _refuse_empty_slices(root, found, [path for path, reason in left_out if reason == BLACK_AND_WHITE])
    _refuse_twice(root, found)
    if labelled and not found:
        if all(file.path in shades or _values_are_labels(file) for file in labelled):
            one = labelled[0].path.name
            raise InputError(f"{root}: all {len(labelled)} file(s), e.g. {one!r}, are labels; give a folder that has their images too")
        found, labelled = labelled, []  # gt: ground truth, which may be an image
    more = _labels_by_value(found)
    found, labelled = [file for file in found if file.path not in more], labelled + [file for file in found if file.path in more]
    found = _chosen(root, found, contrast, channels, left_out)
    paired = _paired(root, found, labelled, labels, left_out)
    if patient == "file":  # only now: the label of a file, and its other contrasts, are files too
        paired = [replace(file, patient=file.path.relative_to(root).as_posix()) for file in paired]
    return paired, left_out


def _named(path: Path, kind: str, name: layout.Name) -> layout.Name:
    """With the patient that an HDF5 file itself names, as those of fastMRI do."""
    if kind != "HDF5":
        return name
    try:
        with h5py.File(path, "r") as file:
            owner = hdf5.text_attribute(file, "patient_id")
    except Exception:  # which its reader says better
        return name
    return name if owner is None else replace(name, patient=owner, sure=True)


def _refuse_empty_slices(root: Path, found: Sequence[File], left_out: Sequence[Path]) -> None:
    """0 and 1 may be a mask, and the noise of a slice beside the object, where the other pictures of the folder are slices."""
    from PIL import Image

    folders = {file.path.parent for file in found if root / file.subject == file.path.parent}
    for path in left_out:
        if path.parent in folders and not layout.says_label(path.relative_to(root)):
            with Image.open(path) as image:
                if image.mode == "L" and image.getextrema() == (0, 1):
                    raise InputError(
                        f"{path}: has the values 0 and 1 alone, as a mask and a slice without an object have, among the slices of a "
                        "folder; name it ..._mask, or remove it"
                    )


def _refuse_twice(root: Path, found: Sequence[File]) -> None:
    """P1.cfl and P1_image.nii: of one volume, as where the one was reconstructed from the other."""
    known: dict[tuple[str, str, str, str], File] = {}
    for file in found:
        other = known.setdefault((file.side, file.patient, file.volume, file.contrast), file)
        names = [formats.without_extension(one.path).name.lower() for one in (other, file)]
        if any(name.startswith(start) and name[len(start) :].strip("-_. ") in layout.IMAGE_WORDS for start, name in (names, names[::-1])):
            raise InputError(
                f"{other.path.relative_to(root)} and {file.path.relative_to(root)}: seem to be one image, once reconstructed; remove one"
            )


def _not_an_image(path: Path, kind: str) -> str | None:
    """Why a file is no image by itself, or None. One that cannot be opened is left to its reader, which says what is wrong."""
    try:
        if kind == "HDF5":
            return "a mask of this package" if is_mask(path) else "headers of raw data, without samples" if raw.is_empty(path) else None
        if kind == "npy":
            return "a mask: true and false" if np.load(path, mmap_mode="r", allow_pickle=False).dtype == bool else None
        if kind == "MATLAB":
            return "a mask: true and false" if _starts_with_a_mask(path) else None
        if kind == "BART":
            part = np.fromfile(path, "<c8", count=LARGEST_MASK)
            return "a mask: ones and zeros" if set(np.unique(part)) <= {0, 1} else None
        if kind == "image":
            return _of_picture(path)
    except Exception:
        return None
    return None


def is_mask(path: Path) -> bool:
    """Whether an HDF5 file is a mask of this package. Raises OSError for another file."""
    with h5py.File(path, "r") as file:
        return "prom mask" in str(file.attrs.get("format"))


def _starts_with_a_mask(path: Path) -> bool:
    """Whether the first variable of a MATLAB v5 file is ``mask``, of logical values, as this package writes it."""
    with open(path, "rb") as file:
        start = file.read(128 + 8 + 1024)
    if start[128:132] == (15).to_bytes(4, "little"):  # compressed
        start = start[:128] + zlib.decompressobj().decompress(start[136:], 64)
    matrix = start[128:192]
    return len(matrix) == 64 and bool(matrix[17] & 2) and b"mask" in matrix[40:]


def _of_picture(path: Path) -> str | None:
    """As :func:`_not_an_image`: an exported mask, which says so itself, or pages that all have the values 0 and 255 (or 0 and 1) only."""
    from PIL import Image, ImageSequence

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of sizes that the reader refuses
        with Image.open(path, formats=("PNG", "TIFF", "JPEG")) as image:
            if image.info.get("prom") == "mask":
                return "a mask of this package"
            return BLACK_AND_WHITE if all(_two_values(page) for page in ImageSequence.Iterator(image)) else None


def _two_values(page: Image.Image) -> bool:
    colours = page.getcolors(2) if page.mode in ("1", "L") else None
    return colours is not None and sorted(value for _, value in colours) in ([0, 255], [0, 1])


def _values_are_labels(file: File) -> bool:
    """Whether all values are whole, few, and fit a byte, as labels do. A file that cannot be read has none: its reader says why."""
    try:
        array = _stored(file)
        middle = len(array) // 2
        for part in (array[middle], array):  # a part first, as an image's shows what it is, and need not be read whole
            values = np.unique(np.asanyarray(part))
            if (
                values.dtype.kind not in "biuf"
                or len(values) > MOST_LABELS
                or (values % 1 != 0).any()
                or values.min() < 0
                or values.max() > 255
            ):
                return False
    except Exception:
        return False
    return True


def _stored(file: File) -> np.ndarray:
    """The array of a file, read where it is looked at if the format allows; its first axis is the last of NIfTI, that of slices."""
    if file.kind in ("NIfTI", "MGH", "Analyze"):
        import nibabel

        return _Turned(nibabel.load(file.path).dataobj)
    if file.kind == "npy":
        return np.load(file.path, mmap_mode="r", allow_pickle=False)
    return formats.content(file.path, file.kind).array


class _Turned:
    """A NIfTI volume that is read slice by slice."""

    def __init__(self, stored: object) -> None:
        self.stored, self.shape = stored, stored.shape

    def __len__(self) -> int:
        return self.shape[2] if len(self.shape) > 2 else 1

    def __getitem__(self, number: int) -> np.ndarray:
        return self.stored[:, :, number] if len(self.shape) > 2 else np.asanyarray(self.stored)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.asanyarray(self.stored)


def _labels_by_value(found: Sequence[File]) -> set[Path]:
    """The files with values of labels, where another one of the patient's, on the same grid, has those of an image."""
    patients: dict[str, list[File]] = defaultdict(list)
    for file in found:
        if file.kind in PARTLY or (file.kind in WHOLE and file.path.stat().st_size < LARGE):
            patients[file.patient].append(file)
    labels: set[Path] = set()
    for files in patients.values():
        if len(files) < 2:
            continue
        like = {file.path: _values_are_labels(file) for file in files}
        for file in files:
            near = [other for other in files if not like[other.path] and (other.side == file.side or "" in (other.side, file.side))]
            if like[file.path] and any(_grids(other) & _grids(file) for other in near):
                labels.add(file.path)
    return labels


def _grids(file: File) -> set[tuple[int, ...]]:
    """Height, width and slices, in the order stored: the first three axes, or, of four where slices may come first, all but the second.
    The channels do not matter."""
    try:
        shape = tuple(_stored(file).shape)
    except Exception:
        return set()
    return {shape[:3]} | ({(shape[0], *shape[2:])} if len(shape) == 4 and file.kind in ("npy", "npz", "HDF5") else set())


def _chosen(root: Path, found: list[File], contrast: str | None, channels: Sequence[str] | None, left_out: list[LeftOut]) -> list[File]:
    """The images of the chosen contrast, or of several as channels."""
    if contrast is None and channels is None:
        return found
    known = sorted({file.contrast for file in found if file.contrast})
    wanted = [name.lower() for name in ([contrast] if channels is None else channels)]
    for name in wanted:
        if name not in known:
            what = "contrast" if channels is None else "channels"
            raise InputError(f"{what} {name!r}: the names of the files in {root} have {', '.join(known) or 'no contrast'}")
    if channels is None:
        left_out += [(file.path, f"not of contrast {wanted[0]}") for file in found if file.contrast != wanted[0]]
        return [file for file in found if file.contrast == wanted[0]]
    volumes: dict[tuple[str, str, str], dict[str, File]] = defaultdict(dict)
    for file in found:
        of_volume = volumes[file.patient, file.side, file.volume]
        if file.contrast in of_volume:
            other = of_volume[file.contrast].path
            raise InputError(f"{other} and {file.path}: are both {file.contrast or 'without contrast'} of one volume; remove one")
        of_volume[file.contrast] = file
        if file.contrast not in wanted:
            left_out.append((file.path, "not one of the channels"))
    joined = []
    for of_volume in volumes.values():
        there = [name for name in wanted if name in of_volume]
        if there and len(there) < len(wanted):
            missing = ", ".join(name for name in wanted if name not in there)
            raise InputError(f"{of_volume[there[0]].path}: its volume has no {missing}; every volume must have all channels")
        if there:
            first, *others = (of_volume[name] for name in wanted)
            joined.append(replace(first, others=tuple(other.path for other in others)))
    return joined


def _paired(root: Path, found: list[File], labelled: list[File], labels: str, left_out: list[LeftOut]) -> list[File]:
    """The images, each with its label."""
    if labels == "none" or not labelled:
        if labels == "only":
            raise InputError(f"labels 'only': no label of an image was found in {root}; leave it out")
        left_out += [(file.path, "a label") for file in labelled]
        return found
    by_volume: dict[tuple[str, str], list[File]] = defaultdict(list)
    by_patient: dict[str, list[File]] = defaultdict(list)
    volumes: dict[str, set[str]] = defaultdict(set)
    for file in labelled:
        by_volume[file.patient, file.volume].append(file)
        by_patient[file.patient].append(file)
    for file in found:
        volumes[file.patient].add(file.volume)
    used: dict[Path, File] = {}
    paired, without = [], []
    for file in found:
        theirs = _of_side(file, by_volume[file.patient, file.volume])
        theirs = theirs or (_of_side(file, by_patient[file.patient]) if len(volumes[file.patient]) == 1 else [])
        if len(theirs) > 1:
            raise InputError(
                f"{theirs[0].path} and {theirs[1].path}: are both labels of {file.path.name!r}; remove one, or give labels=none"
            )
        if theirs and layout.of_different_parts(file.parts, theirs[0].parts):
            one, other = theirs[0].path.relative_to(root), file.path.relative_to(root)
            raise InputError(f"{one}: whether it is the label of {other}, a part of another name, is unclear; rename it, or labels=none")
        if theirs and used.setdefault(theirs[0].path, file).side != file.side:
            one, other, label = (path.relative_to(root) for path in (used[theirs[0].path].path, file.path, theirs[0].path))
            raise InputError(f"{label}: by its name is the label of {one} and of {other}; put it into the folder of its split")
        (paired if theirs else without).append(replace(file, label=theirs[0].path) if theirs else file)
    left_out += [(file.path, "a label without an image") for file in labelled if file.path not in used]
    if labels == "only":
        left_out += [(file.path, "an image without a label") for file in without]
        return paired
    return paired + without


def _of_side(file: File, labelled: Sequence[File]) -> list[File]:
    """The labels of the split that the image's folders name, or of none where either is in no such folder."""
    same = [label for label in labelled if label.side == file.side]
    return same or [label for label in labelled if not (label.side and file.side)]


def check_labels(files: Sequence[File], split: str) -> None:
    """Raises InputError where some of the images of a split have labels and others have none."""
    without = [file.path for file in files if file.label is None]
    if without and len(without) < len(files):
        raise InputError(
            f"{without[0]}: has no label, as {len(without)} of {len(files)} images of split {split!r}; labels=none reads no labels, "
            "labels=only the images that have one"
        )
