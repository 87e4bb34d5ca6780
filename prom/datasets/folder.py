"""``folder``: a reader's own images, a folder of them or one file, as a `SliceDataset`. One table, `FORMATS`, says what is read and how."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py
import nibabel
import numpy as np
import pydicom
import torch
from PIL import Image, ImageSequence
from pydicom.misc import is_dicom
from pydicom.pixels import apply_rescale
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown

SPLITS = ("train", "validation", "test", "all")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # folder name -> split
HDF5_NAMES = ("images", "reconstruction_esc", "reconstruction_rss")  # first one found is read; the last two are fastMRI's
LARGEST = 64 * 2**30  # bytes a file may declare; more is a damaged header rather than a slice stack
SUPPORTED = (
    "NIfTI (.nii, .nii.gz), NumPy (.npy, .npz), HDF5 (.h5, .hdf5), PNG/TIFF/JPEG (.png, .tif, .tiff, .jpg, .jpeg), "
    "DICOM (.dcm, .dicom or no extension)"
)


@dataclass(frozen=True)
class _File:
    """One recognised file: which reader reads it, whose it is, and where it comes in that subject's slices."""

    path: Path
    kind: str
    subject: str
    order: tuple


def load(
    path: str | os.PathLike,
    split: str | None = None,
    *,
    dataset_name: str | None = None,
    name: str | None = None,
    skip_constant: bool = False,
) -> SliceDataset:
    """Read a folder of images, or one file, of any supported format.

    ==============  ==================================================================================================================
    NIfTI           (H, W), (H, W, N) slices last, or (H, W, N, C) channels last; axis 0 becomes the rows, nothing is reoriented; scaled
                    by the header's slope and intercept
    npy, npz        (H, W), (N, H, W) or (N, C, H, W). npz: the array "images", or the only one; optional "labels", (H, W) or (N, H, W)
    HDF5            shapes as npy: the dataset ``dataset_name``, else "images", "reconstruction_esc" or "reconstruction_rss" (in this
                    order), else the only numeric dataset of two or more axes
    PNG/TIFF/JPEG   grey, or colour with equal channels (an alpha channel is ignored); a TIFF's pages are slices
    DICOM           ``.dcm``, ``.dicom``, or recognised without an extension; single- or multi-frame; rescale slope and intercept applied
    ==============  ==================================================================================================================

    *Subjects.* A file is a subject, named by its path in the folder. Two exceptions: PNG/TIFF/JPEG files in a sub-folder are one subject,
    the sub-folder; DICOM files with the same PatientID are one subject (no PatientID: the folder they lie in is), their slices sorted by
    SeriesNumber, series, InstanceNumber and ImagePositionPatient. Subject names go into results: de-identify DICOM files first.

    *Splits.* If the folder has sub-folders train, test, validation or val, ``split`` picks one of them. If not, subjects are sorted by
    name (numbers by value), and every fifth one, beginning with the second, is "test", the others are "train"; there is no
    "validation". The rule does not depend on the order of files on disk, but adding subjects can move others. A single subject is all
    "train". ``None`` and "all" read everything.

    *Not read.* Hidden files, files of other types, DICOMDIR. Links to files elsewhere in the folder are read once, links out of it refused.

    Parameters
    ----------
    path
        A folder, searched with its sub-folders, or one file.
    split
        "train", "test", "validation", or "all" (the default).
    dataset_name
        Which dataset of HDF5 files to read, e.g. ``"scan/magnitude"``.
    name
        What to call the data set; by default the name of the folder or file.
    skip_constant
        Leave out slices in which all values are equal, which say nothing about k-space, instead of refusing them; ``source`` says how many.

    Returns
    -------
    SliceDataset
        ``images`` (N, C, H, W): complex64 where files are complex, else float32, integers included; intensities as stored.
        ``slices``: the number within the subject, from 0. ``labels`` uint8 where every file is an npz with labels.

    Raises
    ------
    InputError
        One line that names the file: missing, empty, damaged, of the wrong shape or type, slices that differ in size, values that are
        not finite, constant slices, colour, unclear or missing HDF5 dataset, a split without subjects.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         np.save(f"{folder}/scan{i}.npy", np.random.rand(4, 16, 16))
    ...     test = load(folder, "test")
    >>> test.images.shape, set(test.subjects)
    (torch.Size([4, 1, 16, 16]), {'scan1.npy'})
    """
    path = Path(path)
    split = "all" if split is None else split
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if not path.exists():
        raise InputError(f"{path}: does not exist; give a folder of images or one file")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: is neither a folder nor a file; give a folder of images or one file")
    name = name or path.resolve().name
    folders = _split_folders(path) if path.is_dir() else {}
    files = _of_split(path, split, _recognised(path, folders), folders)
    files.sort(key=lambda file: (_natural(file.subject), file.kind, file.order))
    first = files[0]
    if dataset_name is not None and not any(file.kind == "HDF5" for file in files):
        raise InputError(f"{path}: dataset_name {dataset_name!r}: there is no HDF5 file to look in; leave it out")

    stacks: list[np.ndarray] = []
    labels: list[np.ndarray | None] = []
    subjects: list[str] = []
    numbers: list[int] = []
    following: dict[str, int] = {}  # the next slice number of each subject
    skipped = 0
    for file in tqdm(files, desc=f"{name} {split}", unit="file", disable=None, leave=False):
        stack, label = _read(file, dataset_name)
        if stacks and (stack.shape[1:] != stacks[0].shape[1:] or stack.dtype != stacks[0].dtype):
            raise InputError(f"{first.path}: {_describe(stacks[0])}, but {file.path}: {_describe(stack)}; all slices must be alike")
        if labels and (label is None) != (labels[0] is None):
            raise InputError(f"{first.path} and {file.path}: one has labels and the other has none; give labels in every file or in none")
        start = following.get(file.subject, 0)
        following[file.subject] = start + len(stack)
        kept = _informative(file.path, stack, skip_constant)
        skipped += len(stack) - len(kept)
        # A file of which nothing is kept still says which shape the others must have.
        stacks.append(stack if len(kept) == len(stack) else stack[kept])
        labels.append(label if label is None or len(kept) == len(stack) else label[kept])
        subjects += [file.subject] * len(kept)
        numbers += [start + int(i) for i in kept]
    if not subjects:
        raise InputError(f"{path}: all slices of split {split!r} are constant; there is nothing to learn from")

    joined = None if labels[0] is None else torch.from_numpy(np.concatenate(labels))
    kinds = ", ".join(sorted({file.kind for file in files}))
    return SliceDataset(
        name=name,
        split=split,
        images=torch.from_numpy(np.concatenate(stacks)),
        subjects=subjects,
        slices=numbers,
        labels=joined,
        label_names=() if joined is None else ("background", *(f"label {v}" for v in range(1, int(joined.max()) + 1))),
        source=f"{len(files)} {kinds} file(s) of {path.resolve().name!r}, intensities as stored"
        + (f"; {skipped} constant slice(s) left out" if skipped else ""),
    )


# ---------------------------------------------------------------------------------------------------------------- which files, which split


def _natural(text: str) -> tuple:
    """Sort key in which slice2 comes before slice10; the text itself decides between 'a1' and 'a01'."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)), text


def _walk(root: Path) -> list[Path]:
    """The folder's visible files, each real file once, and none from outside."""
    inside = root.resolve()
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_unreadable):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        entries = [Path(folder, f) for f in subfolders + files if not f.startswith(".")]
        for entry in entries:
            if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
                raise InputError(f"{entry}: is a link to {entry.resolve()}, outside the folder; copy what it points to into the folder")
        found += [entry for entry in entries if entry.is_file()]
    splits = _split_folders(root)
    # Of a file and links to it one is read: the one in a split's sub-folder first, then the file itself.
    found.sort(key=lambda e: (_split_of(e, root, splits) is None, e.is_symlink(), _natural(e.as_posix())))
    chosen: dict[Path, Path] = {}
    for entry in found:
        other = chosen.setdefault(entry.resolve(), entry)
        if _split_of(entry, root, splits) not in (None, _split_of(other, root, splits)):
            raise InputError(f"{entry}: is the same file as {other}; a file can be in one split only")
    return list(chosen.values())


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error


def _split_folders(root: Path) -> dict[str, str]:
    """The split of each sub-folder of the root that is named after one."""
    return {f.name: SPLIT_FOLDERS[f.name.lower()] for f in sorted(root.iterdir()) if f.is_dir() and f.name.lower() in SPLIT_FOLDERS}


def _split_of(file: Path, root: Path, folders: dict[str, str]) -> str | None:
    """The split whose sub-folder the file lies in, or None."""
    return folders.get(file.relative_to(root).parts[0])


def _kind(path: Path) -> str | None:
    """Which format a file has by its name, or None for one that is not read."""
    lower = path.name.lower()
    for kind, (extensions, _) in FORMATS.items():
        if lower.endswith(extensions):
            return kind
    # DICOM exports name files IM0001, or by UID, 1.2.840.113619: no extension, or one of digits.
    no_extension = not path.suffix or path.suffix[1:].isdecimal()
    return "DICOM" if no_extension and lower != "dicomdir" and _looks_like_dicom(path) else None


def _looks_like_dicom(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error


def _recognised(path: Path, folders: dict[str, str]) -> list[_File]:
    """All files that can be read, each with its subject. ``folders``: the sub-folders that are splits, not subjects."""
    root = path if path.is_dir() else path.parent
    paths = _walk(path) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path}: is an empty folder; supported are {SUPPORTED}")
    files = []
    for file in paths:
        kind = _kind(file)
        relative = file.relative_to(root)
        if kind == "DICOM":
            files.append(_dicom_file(file, relative))
        elif kind == "image" and relative.parent.as_posix() not in (".", *folders):
            files.append(_File(file, kind, relative.parent.as_posix(), _natural(file.name)))
        elif kind:
            files.append(_File(file, kind, relative.as_posix(), ()))
    if not files:
        raise InputError(f"{path}: no file of a supported type among {len(paths)}, e.g. {paths[0].name!r}; supported are {SUPPORTED}")
    return files


def _of_split(path: Path, split: str, files: list[_File], folders: dict[str, str]) -> list[_File]:
    """The files of the split, by sub-folder where those exist and by subject where not."""
    if split == "all":
        return files
    if folders:
        chosen = [file for file in files if _split_of(file.path, path, folders) == split]
        if not chosen:
            raise InputError(f"{path}: no files for split {split!r}; sub-folders found: {', '.join(folders)}")
        subjects = {file.subject for file in chosen}
        for file in files:
            other = _split_of(file.path, path, folders)
            if file.subject in subjects and other not in (None, split):
                raise InputError(f"{file.path}: subject {file.subject!r} is in {split} and in {other}; leave each subject in one")
        return chosen
    if split == "validation":
        raise InputError(f"{path}: has no sub-folder 'validation' or 'val', and the split by subject makes train and test only; make one")
    subjects = sorted({file.subject for file in files}, key=_natural)
    test = set(subjects[1::5])
    if split == "test" and not test:
        raise InputError(f"{path}: has one subject, {subjects[0]!r}, which is all in train; use split='all' or add subjects")
    return [file for file in files if (file.subject in test) == (split == "test")]


# ------------------------------------------------------------------------------------------------------------------- what is in a file


def _read(file: _File, dataset_name: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (N, C, H, W) float32 or complex64 of one file, and its labels (N, H, W) uint8 or None."""
    reader = FORMATS[file.kind][1]
    try:
        images, labels = reader(file.path, dataset_name)
    except InputError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file.path}: cannot be read as {file.kind} ({cause}); it may be damaged, replace or remove it") from error
    return images, labels


def _describe(stack: np.ndarray) -> str:
    return f"{stack.dtype} slices of {stack.shape[2]} x {stack.shape[3]} with {stack.shape[1]} channel(s)"


def _informative(path: Path, stack: np.ndarray, skip_constant: bool) -> np.ndarray:
    """Which slices are not constant; the error for one that is, or that is not finite."""
    kept = []
    for i, image in enumerate(stack):
        if not np.isfinite(image).all():
            raise InputError(f"{path}: slice {i} has NaN or infinite values; repair or remove it")
        if (image != image[:, :1, :1]).any():
            kept.append(i)
        elif not skip_constant:
            raise InputError(f"{path}: slice {i} is constant, it has no information; remove it or use skip_constant=True")
    return np.array(kept, dtype=int)


def _check_declared(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse what cannot be images by the header alone, before memory is asked for."""
    if dtype.kind not in "biufc":
        raise InputError(f"{path}: values of type {dtype}; must be real or complex numbers")
    if len(shape) not in (2, 3, 4):
        raise InputError(f"{path}: array of shape {tuple(shape)}; must have 2, 3 or 4 axes")
    if 0 in shape:
        raise InputError(f"{path}: array of shape {tuple(shape)} is empty; remove it")
    size = math.prod(int(n) for n in shape) * dtype.itemsize
    if size > LARGEST:
        raise InputError(
            f"{path}: declares shape {tuple(shape)}, {size / 2**30:.0f} GiB, more than {LARGEST / 2**30:.0f}; damaged, or split it"
        )


def _numbers(array: np.ndarray) -> np.ndarray:
    """complex64 where complex, float32 where not."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused with its slice number
        return np.ascontiguousarray(array, dtype=np.complex64 if np.iscomplexobj(array) else np.float32)


def _stacked(array: np.ndarray) -> np.ndarray:
    """(H, W), (N, H, W) or (N, C, H, W) as (N, C, H, W)."""
    return _numbers(array[None, None] if array.ndim == 2 else array[:, None] if array.ndim == 3 else array)


def _grey(path: Path, array: np.ndarray) -> np.ndarray:
    """(..., channels) with equal channels as (...)."""
    if (array != array[..., :1]).any():
        raise InputError(f"{path}: is a colour image whose channels differ; convert it to grey")
    return array[..., 0]


def _read_nifti(path: Path, _: str | None) -> tuple[np.ndarray, None]:
    volume = nibabel.load(path)
    _check_declared(path, volume.shape, volume.get_data_dtype())
    array = np.asanyarray(volume.dataobj)
    array = array[:, :, None, None] if array.ndim == 2 else array[..., None] if array.ndim == 3 else array
    return _numbers(array.transpose(2, 3, 0, 1)), None


def _read_npy(path: Path, _: str | None) -> tuple[np.ndarray, None]:
    with open(path, "rb") as file:
        _check_header(path, file)
    return _stacked(np.load(path, mmap_mode="r", allow_pickle=False)), None  # mapped: a truncated file fails before memory is asked for


def _check_header(path: Path, file: IO[bytes]) -> None:
    """`_check_declared` for an open npy file."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise InputError(f"{path}: npy version {version}; save the array with np.save")
    shape, _, dtype = read[version](file)
    _check_declared(path, shape, dtype)


def _read_npz(path: Path, _: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        candidates = [name for name in names if name != "labels"]
        if "images" not in names and len(candidates) != 1:
            raise InputError(f"{path}: arrays {', '.join(names) or 'none'}; there must be one, or one called 'images'")
        chosen = "images" if "images" in names else candidates[0]
        for name in [name for name in (chosen, "labels") if name in names]:
            with archive.open(f"{name}.npy") as member:
                _check_header(path, member)
    with np.load(path, allow_pickle=False) as arrays:
        images = _stacked(arrays[chosen])
        labels = arrays["labels"] if "labels" in names else None
    if labels is not None:
        labels = labels[None] if labels.ndim == 2 else labels
        if labels.shape != (len(images), *images.shape[2:]):
            raise InputError(f"{path}: labels of shape {labels.shape}; must be {(len(images), *images.shape[2:])}, as the images")
        with np.errstate(invalid="ignore"):
            whole = labels.dtype.kind != "c" and (labels == labels.astype(np.uint8)).all()
        if not whole:
            raise InputError(f"{path}: labels must be whole numbers from 0 to 255")
        labels = labels.astype(np.uint8)
    return images, labels


def _read_hdf5(path: Path, dataset_name: str | None) -> tuple[np.ndarray, None]:
    with h5py.File(path, "r") as file:
        keys: list[str] = []
        file.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
        listing = f"datasets in it: {', '.join(keys) or 'none'}"
        if dataset_name is None:
            candidates = [key for key in keys if file[key].dtype.kind in "biufc" and file[key].ndim >= 2]
            preferred = [key for key in HDF5_NAMES if key in candidates]
            if not preferred and len(candidates) != 1:
                raise InputError(f"{path}: which dataset to read is unclear, give dataset_name; {listing}")
            dataset_name = (preferred or candidates)[0]
        elif not isinstance(file.get(dataset_name), h5py.Dataset):
            raise InputError(f"{path}: has no dataset {dataset_name!r}; {listing}")
        dataset = file[dataset_name]
        _check_declared(path, dataset.shape or (), dataset.dtype)
        return _stacked(dataset[()]), None


def _read_image(path: Path, _: str | None) -> tuple[np.ndarray, None]:
    slices = []
    with Image.open(path) as image:
        for page in ImageSequence.Iterator(image):
            if page.mode in ("P", "PA"):
                page = page.convert("RGBA")
            array = np.asarray(page)
            if page.mode in ("LA", "RGB", "RGBA"):
                array = _grey(path, array[..., : len(page.mode.removesuffix("A"))])
            elif array.ndim != 2:
                raise InputError(f"{path}: is an image of colour mode {page.mode}; convert it to grey")
            if slices and array.shape != slices[0].shape:
                raise InputError(
                    f"{path}: page 0 has shape {slices[0].shape}, page {len(slices)} {array.shape}; save them as separate files"
                )
            slices.append(array)
    return _stacked(np.stack(slices)), None


def _dicom_file(path: Path, relative: Path) -> _File:
    """Whose file it is and where it comes among the subject's: from the header, without pixels."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        subject = str(header.get("PatientID") or "").strip() or (relative.parent.as_posix() if relative.parent.parts else "subject")
        # Position along the slice normal; files without one keep their names' order.
        x, y = np.reshape(np.array(header.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0), dtype=float), (2, 3))
        position = float(np.cross(x, y) @ np.array(header.get("ImagePositionPatient") or (0, 0, 0), dtype=float))
        instance = header.get("InstanceNumber")
        order = (
            int(header.get("SeriesNumber") or 0),
            str(header.get("SeriesInstanceUID", "")),
            math.inf if instance is None else int(instance),
        )
    except Exception as error:  # pydicom raises nearly anything on damaged files
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read as DICOM ({cause}); it may be damaged, replace or remove it") from error
    return _File(path, "DICOM", subject, (*order, position, _natural(relative.as_posix())))


def _read_dicom(path: Path, _: str | None) -> tuple[np.ndarray, None]:
    data = pydicom.dcmread(path)
    if "Rows" not in data or not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(data.dir()):
        raise InputError(f"{path}: is DICOM without an image; remove it from the folder")
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel", 1))
    _check_declared(path, (frames, samples, data.Rows, data.Columns), np.dtype(f"u{max(1, data.BitsAllocated // 8)}"))
    array = data.pixel_array
    array = _grey(path, array) if samples > 1 else array
    array = array if array.ndim == 3 else array[None]
    return _stacked(np.stack([_rescaled(frame, i, data) for i, frame in enumerate(array)])), None


def _rescaled(frame: np.ndarray, number: int, data: pydicom.Dataset) -> np.ndarray:
    """Slope and intercept applied: the file's, or in an enhanced multi-frame file the frame's own or the shared one."""
    groups = [data.PerFrameFunctionalGroupsSequence[number]] if "PerFrameFunctionalGroupsSequence" in data else []
    groups += data.get("SharedFunctionalGroupsSequence") or []
    for group in groups:
        if "PixelValueTransformationSequence" in group:
            return apply_rescale(frame, group.PixelValueTransformationSequence[0])
    return apply_rescale(frame, data)


_Reader = Callable[[Path, str | None], tuple[np.ndarray, np.ndarray | None]]
FORMATS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "NIfTI": ((".nii", ".nii.gz"), _read_nifti),
    "npy": ((".npy",), _read_npy),
    "npz": ((".npz",), _read_npz),
    "HDF5": ((".h5", ".hdf5"), _read_hdf5),
    "image": ((".png", ".tif", ".tiff", ".jpg", ".jpeg"), _read_image),
    "DICOM": ((".dcm", ".dicom"), _read_dicom),
}
