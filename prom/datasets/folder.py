"""A user's own images, a folder of them or one file: which files, which subjects, which split. The formats are in `formats`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from prom.datasets import dicom, formats
from prom.datasets.arrays import informative
from prom.datasets.base import Part, Plan
from prom.datasets.formats import ARRAYS, NAMED, SUPPORTED, recognise
from prom.datasets.reading import inside
from prom.errors import InputError, unknown

SPLITS = ("train", "validation", "test", "all")
DOMAINS = ("image", "kspace")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # folder name -> split


@dataclass(frozen=True)
class _File:
    """One recognised file: which reader reads it, whose it is, and where it comes in that subject's slices."""

    path: Path
    kind: str
    subject: str
    order: tuple
    second: Path | None = None  # of DICOM the file with the phase or imaginary part, if they are joined


def plan(
    path: str | os.PathLike,
    split: str = "train",
    *,
    dataset_name: str | None = None,
    axes: str | None = None,
    domain: str = "image",
    sensitivities: str | os.PathLike | None = None,
    name: str | None = None,
    skip_constant: bool = False,
    series: str | int | None = None,
    part: str | None = None,
) -> Plan:
    """Your own images: a folder of them, or one file, of any supported format.

    ==============  ==================================================================================================================
    NIfTI           (H, W), (H, W, N) slices last, or (H, W, N, C) channels last; axis 0 becomes the rows, nothing is reoriented; scaled
                    by the header's slope and intercept
    npy, npz        (H, W), (N, H, W) or (N, C, H, W). npz: the array ``dataset_name``, else "images", else the only one; optional
                    "labels", (H, W) or (N, H, W)
    HDF5            shapes as npy: the dataset ``dataset_name``, else "images", "reconstruction_esc" or "reconstruction_rss" (in this
                    order), else the only numeric one with two axes longer than 1. Links and data in other files are not followed
    MATLAB          versions 5 to 7.3, shapes as NIfTI: the array ``dataset_name``, fields of structs by dots, else the only numeric one
                    with two axes longer than 1
    PNG/TIFF/JPEG   grey, or colour with equal channels (an alpha channel is ignored); a TIFF's pages are slices
    DICOM           recognised by content, whatever the file is called; single- or multi-frame, a frame is a slice, by position; rescale
                    slope and intercept applied; compressed pixels need ``pip install 'prom-mri[dicom]'``
    Analyze, MGH    ``.img`` with its ``.hdr`` (also a NIfTI pair), ``.mgh``, ``.mgz``: as NIfTI
    ISMRMRD, twix   ``.h5`` with a table of lines, Siemens ``.dat``: k-space of slices, coils, lines (rows) and samples (columns), 2D
                    Cartesian and complete; readout oversampling cut off, averages averaged; ``pip install 'prom-mri[scanner]'``
    BART            ``.cfl`` with its ``.hdr``: the two of its first three axes that are longer than 1, coils, slices; k-space where its
                    energy lies in the centre, images where that of its transform does
    ==============  ==================================================================================================================

    *Subjects.* A file is a subject, named by its path in the folder. Two exceptions: PNG/TIFF/JPEG files in a sub-folder are one subject,
    the sub-folder; DICOM files with the same PatientID are one subject, their slices sorted by SeriesNumber, series, InstanceNumber and
    ImagePositionPatient. Where the PatientID was removed (empty, "anonymous", or the same in all files although they are of several
    studies, or of several sub-folders with the same series in each), the StudyInstanceUID takes its place, or the sub-folder where that
    does not differ either; ``source`` says so. Subject names go into results: de-identify DICOM files first.

    *Splits.* If the folder has sub-folders train, test, validation or val, ``split`` picks one of them. If not, subjects are sorted by
    name (numbers by value), and every fifth one, beginning with the second, is "test", the others are "train"; there is no
    "validation". The rule does not depend on the order of files on disk, but adding subjects can move others. A single subject is all
    "train"; "all" is everything.

    *Not read.* Hidden files, files of other types, DICOM files without an image of the scanner (DICOMDIR, reports, presentation states,
    secondary captures; ``source`` counts them). Links to files elsewhere in the folder are read once, links out of it refused.

    Parameters
    ----------
    path
        A folder, searched with its sub-folders, or one file.
    split
        "train", "test", "validation", or "all".
    dataset_name
        Which array of npz, HDF5 and MATLAB files to read, e.g. ``"scan/magnitude"`` (HDF5) or ``"data.images"`` (MATLAB).
    axes
        What the axes of arrays in npy, npz, HDF5, MATLAB and NIfTI files are, a letter for each: H and W (rows, columns), N (slices), C
        (channels: contrasts, echoes, all measured with one mask), K (coils), 1 (one of length 1, to drop). E.g. ``"HWCN"``, or for
        multi-coil fastMRI ``"NKHW"``. An axis of coils must be named: without a name the axes are those of the table, of which none is.
    domain
        "image", or "kspace": arrays are fully sampled k-space with its centre at ``[H // 2, W // 2]``, complex, and the images are
        :func:`prom.fourier.ifft2c` of it, for each coil.
    sensitivities
        A file with the sensitivities of the coils, one for all slices, with the axes of ``axes`` in the same order without N, C and 1;
        the images are then complex, :func:`prom.coils.combine`. Without it the images of coils become the magnitude
        :func:`prom.coils.root_sum_of_squares`.
    name
        What to call the data set; by default the name of the folder or file.
    skip_constant
        Leave out slices in which all values are equal, which say nothing about k-space, instead of refusing them; ``source`` says how many.
    series
        Which DICOM series to read: its SeriesDescription (in any case), SeriesNumber or SeriesInstanceUID. Needed where a patient has
        several that differ in size or description.
    part
        Where DICOM files are magnitude and phase, or real and imaginary part: "magnitude", or "complex", which joins them.

    Returns
    -------
    Plan
        For :func:`prom.datasets.cache.read`, which makes a :class:`SliceDataset` of it. ``images`` (N, C, H, W): complex64 where files
        are complex, else float32, integers included; intensities as stored. ``slices``: the number within the subject, from 0.
        ``labels`` uint8 where every file is an npz with labels. ``spacing`` of NIfTI and DICOM files.

    Raises
    ------
    InputError
        One line that names the file: missing, empty, damaged, of the wrong shape or type, slices that differ in size, values that are
        not finite, constant slices, colour, unclear or missing array, one subject saved twice, a split without subjects.

    >>> import tempfile, prom
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         np.save(f"{folder}/scan{i}.npy", np.random.rand(16, 16, 4))
    ...     test = prom.load(folder, "test", axes="HWN")
    >>> test.images.shape, set(test.subjects)
    (torch.Size([4, 1, 16, 16]), {'scan1.npy'})
    """
    path = Path(path)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    if not path.exists():
        raise InputError(f"{path}: does not exist; give a folder of images or one file")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path}: is neither a folder nor a file; give a folder of images or one file")
    name = name or path.resolve().name
    if name != Path(name).name:
        raise InputError(f"name {name!r}: must not have a {os.sep!r}, for files are called after it")
    maps = None if sensitivities is None else _sensitivities(Path(sensitivities), axes)
    folders = _split_folders(path) if path.is_dir() else {}
    recognised, notes = _recognised(path, folders, maps, series, part)
    files = _of_split(path, split, recognised, folders)
    files.sort(key=lambda file: (_natural(file.subject), file.kind, file.order))
    kinds = sorted({file.kind for file in files})
    for option, value, usable in (
        ("dataset_name", dataset_name, NAMED),
        ("axes", axes, ARRAYS),
        ("series", series, ("DICOM",)),
        ("part", part, ("DICOM",)),
    ):
        if value is not None and not set(usable) & set(kinds):
            raise InputError(f"{path}: {option} {value!r}: there is no {', '.join(usable)} file that it could be of; leave it out")
    what = "intensities as stored" if domain == "image" else "inverse Fourier transform of fully sampled k-space"
    if "K" in (axes or ""):
        what += "; coils combined by " + (f"the sensitivities of {maps.name!r}" if maps else "root sum of squares")
    others = [other for file in files for other in formats.companions(file.path, file.kind) if other.is_file()]
    others += [file.second for file in files if file.second]
    return Plan(
        name=name,
        split=split,
        root=path,
        items=[list(group) for _, group in groupby(files, key=lambda file: file.subject)],
        read=partial(read, dataset_name=dataset_name, axes=axes, domain=domain, sensitivities=maps, skip_constant=skip_constant, part=part),
        files=[*(file.path for file in files), *others, *([maps] if maps else [])],
        options={
            "dataset_name": dataset_name,
            "axes": axes,
            "domain": domain,
            "sensitivities": maps is not None,
            "skip_constant": skip_constant,
            "series": series,
            "part": part,
        },
        source="; ".join([f"{len(files)} {', '.join(kinds)} file(s) of {path.resolve().name!r}, {what}", *notes]),
    )


def read(
    item: list[_File],
    dataset_name: str | None,
    axes: str | None,
    domain: str,
    sensitivities: Path | None,
    skip_constant: bool,
    part: str | None,
) -> Part:
    """One subject: the slices of its files, numbered through."""
    first = item[0].path
    maps = None if sensitivities is None else formats.read_sensitivities(sensitivities, axes)
    stacks, labels, numbers, spacings = [], [], [], set()
    following = 0
    for file in item:
        stack, label, spacing = formats.read(file.path, file.kind, dataset_name, axes, domain, maps, part, file.second)
        if stacks and (stack.shape[1:] != stacks[0].shape[1:] or stack.dtype != stacks[0].dtype):
            shapes = [f"{images.dtype}, (channels, H, W) = {images.shape[1:]}" for images in (stacks[0], stack)]
            raise InputError(f"{first}: {shapes[0]}, but {file.path}: {shapes[1]}; all slices of a subject must be alike")
        kept = informative(file.path, stack, skip_constant)
        numbers += [following + int(i) for i in kept]
        following += len(stack)
        # A file of which nothing is kept still says which shape the others must have.
        stacks.append(stack if len(kept) == len(stack) else stack[kept])
        labels.append(label if label is None or len(kept) == len(stack) else label[kept])
        spacings.add(spacing)
    if len({label is None for label in labels}) > 1:
        raise InputError(f"{first}: is of subject {item[0].subject!r}, of whose files some have labels and others none")
    return Part(
        path=first,
        subject=item[0].subject,
        images=stacks[0] if len(stacks) == 1 else np.concatenate(stacks),
        slices=numbers,
        labels=None if labels[0] is None else np.concatenate(labels),
        spacing=spacings.pop() if len(spacings) == 1 else None,
        skipped=following - len(numbers),
    )


def _sensitivities(path: Path, axes: str | None) -> Path:
    if "K" not in (axes or ""):
        raise InputError(f"sensitivities {path}: name the axis of the coils, K, e.g. axes='NKHW'")
    if not path.is_file():
        raise InputError(f"sensitivities {path}: is no file; give one with the axes {''.join(a for a in axes if a in 'HWK')}")
    return path


# ---------------------------------------------------------------------------------------------------------------- which files, which split


def _natural(text: str) -> tuple:
    """Sort key in which slice2 comes before slice10; the text itself decides between 'a1' and 'a01'."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)), text


def _walk(root: Path) -> list[Path]:
    """The folder's visible files, each real file once, and none from outside."""
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_unreadable):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        entries = [Path(folder, f) for f in subfolders + files if not f.startswith(".")]
        for entry in entries:
            if entry.is_symlink():
                inside(entry, root)
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


def _recognised(
    path: Path, folders: dict[str, str], maps: Path | None, series: str | int | None, part: str | None
) -> tuple[list[_File], list[str]]:
    """All files that can be read but ``maps``, each with its subject, and notes. ``folders``: the sub-folders that are splits."""
    root = path if path.is_dir() else path.parent
    paths = [file for file in (_walk(path) if path.is_dir() else [path]) if maps is None or not file.samefile(maps)]
    if not paths:
        raise InputError(f"{path}: is an empty folder; supported are {SUPPORTED}")
    kinds = {file: recognise(file) for file in paths}
    slices, notes = dicom.organise(root, [file for file, kind in kinds.items() if kind == "DICOM"], folders, series, part)
    files = [_File(one.path, "DICOM", one.subject, one.order, one.second) for one in slices]
    for file, kind in kinds.items():
        relative = file.relative_to(root)
        if kind == "DICOM":
            continue
        if kind == "image" and relative.parent.as_posix() not in (".", *folders):
            files.append(_File(file, kind, relative.parent.as_posix(), _natural(file.name)))
        elif kind:
            files.append(_File(file, kind, relative.as_posix(), ()))
    if not files:
        why = "".join(f" ({note})" for note in notes)
        raise InputError(f"{path}: no file of a supported type among {len(paths)}, e.g. {paths[0].name!r}{why}; supported are {SUPPORTED}")
    saved: dict[Path, Path] = {}
    for file in files:
        if file.kind != "DICOM":
            other = saved.setdefault(formats.without_extension(file.path), file.path)
            if other != file.path:
                raise InputError(f"{other} and {file.path}: have one name but for the ending; if it is one image saved twice, remove one")
    return files, notes


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
