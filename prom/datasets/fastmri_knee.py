"""fastMRI single-coil knee with the boxes of fastMRI+, as the paper uses it (Zbontar et al. 2018, arXiv:1811.08839)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np
import torch

from prom.datasets import hdf5
from prom.datasets.base import Part, Plan
from prom.datasets.reading import check_declared, check_values, damaged, decoding, inside, read_text
from prom.errors import InputError, unknown
from prom.kspace.fourier import ifft2c

FOLDER = "knee_fastmri"
SUMMARY = "single-coil knee MRI, k-space combined from measured coils, 973 + 199 volumes, boxes around findings (fastMRI+)"
OBTAIN = (
    "register at fastmri.med.nyu.edu (knee, single-coil train and val), unpack so that knee_fastmri/singlecoil_train and singlecoil_val "
    "exist, and put knee.csv of fastMRI+ (github.com/microsoft/fastmri-plus, Annotations) beside them"
)
LICENCE = "fastMRI data sharing agreement (NYU Langone): research and education, not to be passed on; fastMRI+ annotations: MIT"
CITATION = (
    "Zbontar et al., arXiv:1811.08839; Knoll et al., Radiology: Artificial Intelligence 2(1):e190007, 2020, "
    "doi:10.1148/ryai.2020190007; Zhao et al., Scientific Data 9:152, 2022, doi:10.1038/s41597-022-01255-z"
)
SPLITS = {"train": "singlecoil_train", "test": "singlecoil_val"}
OFFICIAL = {"train": 973, "test": 199}  # files
UNSAMPLED = "singlecoil_test"
SIGNALS = {
    "magnitude": "magnitude images; k-space emulated by their Fourier transform",
    "complex": "complex images, centre 320 x 320 of what fastMRI's emulated single-coil k-space gives",
}
SIZE = 320
ANNOTATIONS = ("knee.csv", "annotations.csv", "fastmri_plus/knee.csv")
COLUMNS = ("file", "slice", "x", "y", "width", "height", "label")
STUDY_LEVEL = "artifact"  # a remark on the whole volume, without a box
LONGEST = 4096  # slices, rows or columns of a file; fastMRI's have at most some 50, 770 and 410
LARGEST_CHUNK = 2**30  # bytes that HDF5 has to unpack at once to give a single slice


class Box(NamedTuple):
    """A row of knee.csv: line in the file, slice, box in pixels of the flipped 320 x 320 image, and class (1, 2, ...)."""

    line: int
    number: int
    x: int
    y: int
    width: int
    height: int
    value: int


def plan(
    split: str = "train",
    root: str | Path = "data/knee_fastmri",
    signal: str = "magnitude",
    annotated: bool = True,
    annotations: str | Path | None = None,
    labels: bool = True,
) -> Plan:
    """The slices of the paper: those with a box in fastMRI+, 320 x 320, intensities as measured (1e-6 to 1e-3).

    The paper's rule, as its code has it: of the annotations those of files in ``singlecoil_train`` (train) or ``singlecoil_val``
    (test), without the label "artifact" (a remark on a whole volume), and each (file, slice) that is left once, sorted. The 16,167 rows
    of knee.csv are 16,154 without artifacts, which name 9,581 slices of 969 files: the paper's 8,057 + 1,524. An image is the centre
    320 x 320 of the inverse Fourier transform of the slice's k-space; its magnitude is fastMRI's ``reconstruction_esc``.

    Parameters
    ----------
    split
        "train" (973 files) or "test" (199 files). The official ``singlecoil_test`` has no fully sampled k-space and cannot be used.
    root
        The folder with ``singlecoil_train`` and ``singlecoil_val``.
    signal
        "magnitude": images float32 without phase, as in the paper; k-space is then the Fourier transform of the magnitude, and
        Hermitian: half of it tells the other half. "complex": images complex64 with their phase; k-space is not Hermitian, so a sample
        no longer determines the one opposite to it, and measuring one of each pair does not give the other for nothing. It is
        fastMRI's emulated single-coil k-space, combined from measured coils, up to the crop. Where a file has zeros in place of outer phase
        encodes, they count as samples that can be measured.
    annotated
        False: every slice of every file.
    annotations
        fastMRI+'s knee.csv; by default ``knee.csv``, ``annotations.csv`` or ``fastmri_plus/knee.csv`` in the root. Not needed where
        ``annotated`` and ``labels`` are False.
    labels
        Paint the boxes: 0 background and slices without a box, 1, 2, ... the labels of knee.csv in alphabetical order. A later row
        paints over an earlier one. The boxes were drawn on the image flipped up/down; here they lie where they belong in the unflipped
        image (the authors painted them without the flip). What sticks out of the image is cut off.

    Raises
    ------
    InputError
        Where the folder or the annotations are missing, or a file is damaged, multi-coil, undersampled, or smaller than 320 x 320.
    """
    if split not in SPLITS:
        raise InputError(
            f"split {split!r}: fastMRI knee has 'train' and 'test' (singlecoil_val: the official test and challenge files have no fully "
            "sampled k-space), and 'validation' where a share of the training part is held out"
        )
    if signal not in SIGNALS:
        raise unknown("signal", signal, SIGNALS)
    root = Path(root)
    files = _files(root, split)
    table, boxes, label_names = None, {}, ()
    if annotated or labels:
        table = _table(root) if annotations is None else Path(annotations)
        if table is None:
            raise InputError(
                f"{root}: has no {ANNOTATIONS[0]}; take it from fastMRI+ (github.com/microsoft/fastmri-plus, Annotations), "
                "or read all slices without: annotated=False, labels=False"
            )
        boxes, label_names = read_annotations(table)
    if annotated:
        files = {name: path for name, path in files.items() if name in boxes}
        if not files:
            raise InputError(f"{table}: has no box in any file of {root / SPLITS[split]}; read all slices with annotated=False")
    return Plan(
        name="fastmri_knee",
        split=split,
        root=root,
        items=[(path, tuple(boxes.get(name, ()))) for name, path in files.items()],
        read=partial(read, root=root, signal=signal, annotated=annotated, table=table, labels=labels),
        files=[*files.values(), *([table] if table else [])],
        options={"signal": signal, "annotated": annotated, "labels": labels},
        label_names=("background", *label_names) if labels else (),
        source=f"fastMRI single-coil knee (Zbontar et al. 2018), {'slices annotated in fastMRI+' if annotated else 'all slices'}, "
        + SIGNALS[signal],
    )


def read(item: tuple[Path, Sequence[Box]], root: Path, signal: str, annotated: bool, table: Path | None, labels: bool) -> Part:
    """One file: the wanted slices of its k-space, transformed to images and cropped."""
    path, boxes = item
    with decoding(path, "HDF5"), h5py.File(inside(path, root), "r") as file:
        kspace = _kspace(path, file)
        for box in boxes:
            if box.number >= len(kspace):
                raise InputError(
                    f"{table}, line {box.line}: slice {box.number} of {path}, which has {len(kspace)} (from 0); "
                    "take both from the official source"
                )
        numbers = sorted({box.number for box in boxes}) if annotated else list(range(len(kspace)))
        images = np.empty((len(numbers), SIZE, SIZE), np.complex64 if signal == "complex" else np.float32)
        for image, number in zip(images, numbers, strict=True):
            image[:] = _image(kspace[number], signal)
        patient, spacing = hdf5.text_attribute(file, "patient_id"), _spacing(file)  # some patients have several volumes
    check_values(path, images, numbers)
    classes = None
    if labels:
        classes = np.zeros(images.shape, np.uint8)
        for box in boxes:
            paint(classes[numbers.index(box.number)], box)
    return Part(path, path.stem, images[:, None], numbers, classes, spacing, patient)


def survey(root: Path) -> dict[str, object]:
    """What of it lies in ``root``, without opening the files: for ``prom datasets``. "slices": those with a box, None without knee.csv."""
    listed, missing, found = _listed(root), [], {}
    table = _table(root)
    boxes = read_annotations(table)[0] if table else {}
    for split, name in SPLITS.items():
        files = listed[split]
        pairs = {(file, box.number) for file in files for box in boxes.get(file, ())}
        found[split] = {"subjects": len(files), "slices": len(pairs) if table else None}
        if len(files) < OFFICIAL[split]:
            missing.append(f"{OFFICIAL[split] - len(files)} of {OFFICIAL[split]} files in {name}")
    if not table:
        missing.append(f"{ANNOTATIONS[0]} of fastMRI+")
    return {"found": found, "missing": missing}


# ------------------------------------------------------------------------------------------------------------------- which files there are


def _listed(root: Path) -> dict[str, dict[str, Path]]:
    """Of every split the files by name."""
    name = root.resolve().name
    if name == UNSAMPLED:
        raise InputError(f"{root}: has no fully sampled k-space; use singlecoil_train and singlecoil_val, and give the folder they lie in")
    if name in SPLITS.values():
        raise InputError(f"{root}: is one part of the data; give the folder above it, and the part as split 'train' or 'test'")
    if not any((root / folder).is_dir() for folder in SPLITS.values()):
        only = f" ({UNSAMPLED} has no fully sampled k-space)" if (root / UNSAMPLED).is_dir() else ""
        raise InputError(f"{root}: no {' or '.join(SPLITS.values())} there{only}; {OBTAIN}, and give its folder with --root or PROM_DATA")
    return {
        split: {path.stem: path for path in sorted((root / folder).glob("*.h5")) if not path.name.startswith(".")}
        for split, folder in SPLITS.items()
    }


def _files(root: Path, split: str) -> dict[str, Path]:
    """The files of a split by name, in order."""
    listed = _listed(root)
    if not listed[split]:
        raise InputError(f"{root / SPLITS[split]}: no files file1000001.h5, ... there; {OBTAIN}")
    both = sorted(set(listed["train"]) & set(listed["test"]))
    if both:
        raise InputError(f"{listed['train'][both[0]]} and {listed['test'][both[0]]}: two subjects with one name; unpack the archives again")
    return listed[split]


def _table(root: Path) -> Path | None:
    """The annotations in the root, if there are any."""
    return next((inside(root / name, root) for name in ANNOTATIONS if (root / name).is_file()), None)


# ------------------------------------------------------------------------------------------------------------------------ the annotations


def read_annotations(path: Path) -> tuple[dict[str, list[Box]], tuple[str, ...]]:
    """The boxes of a knee.csv by file, in the order of its rows, and the sorted labels: class 1 is the first of them.

    Rows with the label "artifact" are left out. Boxes are as in the csv: x and width along the columns, y and height along the rows of
    the 320 x 320 image flipped up/down.

    Raises
    ------
    InputError
        Where it is not such a table; the message names the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "knee.csv")
    ...     _ = path.write_text("file,slice,study_level,x,y,width,height,label\\nfile1000001,14,No,90,173,35,10,Meniscus Tear\\n")
    ...     read_annotations(path)
    ({'file1000001': [Box(line=2, number=14, x=90, y=173, width=35, height=10, value=1)]}, ('Meniscus Tear',))
    """
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(path, "fastMRI+ annotations"), newline=""))
    try:
        absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if absent:
            raise InputError(f"{path}: has no column {', '.join(absent)}; take it from github.com/microsoft/fastmri-plus")
        for row in reader:
            name, label = (row["file"] or "").strip(), (row["label"] or "").strip()
            if label == STUDY_LEVEL:
                continue
            if not name or not label:
                raise InputError(f"{path}, line {reader.line_num}: names no {'label' if name else 'file'}; correct or remove the line")
            lowest = {"slice": 0, "x": -SIZE, "y": -SIZE, "width": 0, "height": 0}
            numbers = [_whole(row, column, low, f"{path}, line {reader.line_num}") for column, low in lowest.items()]
            rows.append((name, label, reader.line_num, numbers))
    except csv.Error as error:
        raise damaged(path, "CSV", error) from error
    names = sorted({label for _, label, _, _ in rows})
    if len(names) > 255:
        raise InputError(f"{path}: has {len(names)} different labels, and there can be 255; take it from github.com/microsoft/fastmri-plus")
    values = {label: value for value, label in enumerate(names, start=1)}
    boxes: dict[str, list[Box]] = {}
    for name, label, line, numbers in rows:
        boxes.setdefault(name, []).append(Box(line, *numbers, values[label]))
    return boxes, tuple(names)


def _whole(row: dict[str, str | None], column: str, lowest: int, where: str) -> int:
    """A whole number; "90.0" is one, as tables that were saved again have it."""
    try:
        number = float(row[column] or "")
        if number == int(number) and number >= lowest:
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{where}: {column} {row[column]!r:.40} must be a whole number >= {lowest}; correct or remove the line")


def paint(label: np.ndarray, box: Box) -> None:
    """Fill the box in a label image, (320, 320) uint8, with its class: the rows counted from below, as the boxes were drawn.

    >>> label = np.zeros((320, 320), np.uint8)
    >>> paint(label, Box(line=2, number=14, x=90, y=173, width=35, height=10, value=5))
    >>> np.argwhere(label == 5)[[0, -1]].tolist()
    [[137, 90], [146, 124]]
    """
    top, bottom = max(0, SIZE - box.y - box.height), max(0, SIZE - box.y)
    left, right = max(0, box.x), max(0, box.x + box.width)
    label[top:bottom, left:right] = box.value


# ------------------------------------------------------------------------------------------------------------------------- inside a file


def _kspace(path: Path, file: h5py.File) -> h5py.Dataset:
    """The file's k-space, checked by its header: (slices, rows, columns), complex, and stored in this file."""
    if "mask" in list(file):  # list: asking for the name itself would follow a link
        raise InputError(f"{path}: has no fully sampled k-space (there is a mask in it); use singlecoil_train and singlecoil_val")
    link = file.get("kspace", getlink=True)
    if link is None:
        raise InputError(f"{path}: has no 'kspace'; take it from fastMRI's single-coil archives")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{path}: its 'kspace' is a link; it must be stored in the file itself, copy it into the file")
    kspace = file["kspace"]
    if not isinstance(kspace, h5py.Dataset):
        raise InputError(f"{path}: its 'kspace' is not an array; take it from fastMRI's single-coil archives")
    if kspace.is_virtual or kspace.external:
        raise InputError(f"{path}: its 'kspace' lies in other files; it must be stored in the file itself, copy it into the file")
    shape, dtype = kspace.shape or (), kspace.dtype
    if len(shape) == 4:
        raise InputError(f"{path}: k-space of shape {shape} is multi-coil, and single-coil is needed; take the single-coil archives")
    if dtype.kind != "c" or dtype.itemsize > 16:
        raise InputError(
            f"{path}: k-space of type {dtype!s:.60}; must be complex64 or complex128, take it from fastMRI's single-coil archives"
        )
    stored = min(kspace.id.get_storage_size(), path.stat().st_size)
    check_declared(path, shape, dtype, stored, axes=(3,))
    if max(shape) > LONGEST or math.prod(kspace.chunks or ()) * dtype.itemsize > LARGEST_CHUNK:
        raise InputError(f"{path}: declares k-space of shape {shape}, chunks {kspace.chunks}, more than any knee has; it is damaged")
    if min(shape[1:]) < SIZE:
        raise InputError(f"{path}: k-space of {shape[1]} x {shape[2]}; must have at least {SIZE} x {SIZE}, leave this file out")
    return kspace


def _image(kspace: np.ndarray, signal: str) -> np.ndarray:
    """The centre 320 x 320 of a slice's image, cut out as fastMRI does."""
    with np.errstate(over="ignore"):  # what is too large for complex64 becomes infinite, and is refused
        image = ifft2c(torch.from_numpy(kspace.astype(np.complex64)))
    top, left = ((length - SIZE) // 2 for length in image.shape)
    image = image[top : top + SIZE, left : left + SIZE]
    return (image if signal == "complex" else image.abs()).numpy()


def _spacing(file: h5py.File) -> tuple[float, float] | None:
    """(row, column) size of a pixel in mm by the ISMRMRD header, x of which is the readout: the rows. None where it has none."""
    text = header(file)
    return None if text is None else pixel_size(text)  # images do not depend on it


def header(file: h5py.File) -> bytes | None:
    """The ISMRMRD header of a file, or None where there is none that can be read."""
    if not isinstance(file.get("ismrmrd_header", getlink=True), h5py.HardLink):
        return None
    stored = file["ismrmrd_header"]
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external or not hdf5.is_text(stored):
        return None
    try:
        return stored[()]
    except OSError:
        return None


def without_oversampling(text: bytes | None, rows: int, columns: int) -> tuple[int, int] | None:
    """(rows, columns) of an image of k-space whose rows are the readout, without its oversampling; None where the header knows of none.

    >>> spaces = "<encodedSpace><matrixSize><x>640</x><y>368</y></matrixSize></encodedSpace>"
    >>> spaces += "<reconSpace><matrixSize><x>320</x><y>320</y></matrixSize></reconSpace>"
    >>> without_oversampling(f"<h><encoding>{spaces}</encoding></h>".encode(), 640, 368)
    (320, 368)
    """
    encoding = None if text is None else _encoding(text)
    if encoding is None:
        return None
    try:
        encoded, wanted = (int(encoding.findtext(f"{{*}}{space}Space/{{*}}matrixSize/{{*}}x")) for space in ("encoded", "recon"))
    except (ValueError, TypeError):
        return None
    return (wanted, columns) if encoded == rows and 0 < wanted < encoded else None


def pixel_size(text: bytes) -> tuple[float, float] | None:
    """Field of view by matrix size of the reconstructed space, mm: (x, y), or None where the header is damaged.

    >>> matrix, field = "<matrixSize><x>320</x><y>320</y></matrixSize>", "<fieldOfView_mm><x>160</x><y>144</y></fieldOfView_mm>"
    >>> pixel_size(f"<h><encoding><reconSpace>{matrix}{field}</reconSpace></encoding></h>".encode())
    (0.5, 0.45)
    """
    encoding = _encoding(text)
    try:
        space = encoding.find("{*}reconSpace")
        field, matrix = ([float(space.findtext(f"{{*}}{what}/{{*}}{axis}")) for axis in "xy"] for what in ("fieldOfView_mm", "matrixSize"))
        sizes = field[0] / matrix[0], field[1] / matrix[1]
    except (ValueError, TypeError, AttributeError, ZeroDivisionError):
        return None
    return sizes if all(math.isfinite(size) and size > 0 for size in sizes) else None


def _encoding(text: bytes) -> ElementTree.Element | None:
    """The first encoding of an ISMRMRD header, or None where it is damaged."""
    try:
        decoded = text.decode()
        if len(text) > hdf5.LARGEST_TEXT or "<!DOCTYPE" in decoded or "<!ENTITY" in decoded:  # entities can expand to gigabytes
            return None
        return ElementTree.fromstring(decoded).find("{*}encoding")
    except (ValueError, AttributeError, ElementTree.ParseError):
        return None
