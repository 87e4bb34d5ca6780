"""Which files of a folder are read, and in which split each lies: by its sub-folders where those exist, by patient where not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from prom.datasets import dicom, formats, layout, roles
from prom.datasets.formats import SUPPORTED
from prom.datasets.reading import inside, sha256
from prom.datasets.roles import File
from prom.errors import InputError


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
    splits = split_folders(root)
    # Of a file and links to it one is read: the one in a split's sub-folder first, then the file itself.
    found.sort(key=lambda e: (_split_of(e, root, splits) is None, e.is_symlink(), formats.natural(e.as_posix())))
    chosen: dict[Path, Path] = {}
    for entry in found:
        other = chosen.setdefault(entry.resolve(), entry)
        if _split_of(entry, root, splits) not in (None, _split_of(other, root, splits)):
            raise InputError(f"{entry}: is the same file as {other}; a file can be in one split only")
    return list(chosen.values())


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error


def split_folders(root: Path) -> dict[str, str]:
    """The split of each sub-folder of the root that is named after one."""
    try:
        names = [f.name for f in sorted(root.iterdir()) if f.is_dir()]
    except OSError as error:
        _unreadable(error)
    found = {name: layout.SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in layout.SPLIT_FOLDERS}
    if not found and {"imagesTr", "imagesTs"} <= set(names):
        found = {f"{what}{side}": split for what in ("images", "labels") for side, split in (("Tr", "train"), ("Ts", "test"))}
    return {name: split for name, split in found.items() if name in names}


def _split_of(file: Path, root: Path, folders: dict[str, str]) -> str | None:
    """The split whose sub-folder the file lies in, or None."""
    return folders.get(file.relative_to(root).parts[0])


def recognised(
    path: Path,
    folders: dict[str, str],
    maps: Path | None,
    patient: str | None,
    labels: str,
    contrast: str | None,
    channels: Sequence[str] | None,
    series: str | int | None,
    part: str | None,
) -> tuple[list[File], list[roles.LeftOut], list[str]]:
    """All files that can be read but ``maps``, those left out, each with the reason, and notes. ``folders``: those that are splits."""
    root = path if path.is_dir() else path.parent
    paths = [file for file in (_walk(path) if path.is_dir() else [path]) if maps is None or not file.samefile(maps)]
    if not paths:
        raise InputError(f"{path}: is an empty folder; supported are {SUPPORTED}")
    kinds = {file: formats.recognise(file) for file in paths}
    headed = [file for file, kind in kinds.items() if kind == "DICOM"]
    others = [(file, kind) for file, kind in kinds.items() if kind not in (None, "DICOM")]
    of_headers, of_names = (patient if patient not in unfit else None for unfit in (layout.OF_NAMES, dicom.PATIENTS))
    if patient is not None and ((of_headers is None and not others) or (of_names is None and not headed)):
        what = "not of DICOM files" if of_headers is None else "of DICOM files, and there are none"
        raise InputError(f"patient {patient!r}: {what}; give folder, or the number of a folder on the path, from 1")
    frames, notes = dicom.organise(root, headed, folders, series, part, of_headers)
    files = [File(one.path, "DICOM", one.subject, one.order, one.subject, second=one.second) for one in frames]
    found, left_out = roles.assigned(root, others, of_names, labels, contrast, channels) if others else ([], [])
    files += found
    pairs = {other for file, kind in others for other in formats.companions(file, kind)}
    left_out = [(file, "not a format that is read") for file, kind in kinds.items() if kind is None and file not in pairs] + left_out
    if not files and others:
        raise InputError(f"{path}: no image among {len(paths)} file(s); {left_out[-1][0].name!r} is {left_out[-1][1]}")
    if not files:
        why = "".join(f" ({note})" for note in notes)
        raise InputError(f"{path}: no file of a supported type among {len(paths)}, e.g. {paths[0].name!r}{why}; supported are {SUPPORTED}")
    saved: dict[Path, Path] = {}
    for file in files:
        if file.kind != "DICOM":
            other = saved.setdefault(formats.without_extension(file.path), file.path)
            if other != file.path:
                raise InputError(
                    f"{other} and {file.path}: have one name except for the ending; if it is one image saved twice, remove one"
                )
    return files, left_out, notes


def sides_by_split(path: Path, files: list[File], folders: dict[str, str]) -> dict[str, list[File]]:
    """The files of each split: by sub-folder where those exist, by patient where not."""
    if folders:
        sides: dict[str, list[File]] = {split: [] for split in folders.values()}
        where: dict[str, str] = {}
        for file in files:
            split = _split_of(file.path, path, folders)
            if split is None:
                continue
            sides[split].append(file)
            if file.sure and where.setdefault(file.patient, split) != split:
                raise InputError(
                    f"{file.path}: patient {file.patient!r} is in {where[file.patient]} and in {split}; leave each patient in one of them"
                )
        return {split: chosen for split, chosen in sides.items() if chosen}
    patients = sorted({file.patient for file in files}, key=formats.natural)
    test = set(patients[1::5])
    sides = {"train": [file for file in files if file.patient not in test], "test": [file for file in files if file.patient in test]}
    return {split: chosen for split, chosen in sides.items() if chosen}


def refuse_copies(sides: dict[str, list[File]]) -> None:
    """The same bytes under two names, in two splits. Pictures may well be equal, all black; DICOM files say whose they are."""
    alike: dict[object, list[tuple[str, Path]]] = {}
    for split, files in sides.items():
        for file in files:
            if file.kind not in ("image", "DICOM"):
                alike.setdefault(file.path.stat().st_size, []).append((split, file.path))
    for key in (_middle, sha256):  # little of a file is read, unless another one has that too
        groups, alike = [group for group in alike.values() if len({split for split, _ in group}) > 1], {}
        for number, group in enumerate(groups):
            for split, file in group:
                alike.setdefault((number, key(file)), []).append((split, file))
    for group in alike.values():
        (split, first), *others = sorted(group, key=lambda one: formats.natural(one[1].as_posix()))
        for other, second in others:
            if other != split:
                raise InputError(f"{first} in {split} and {second} in {other}: are the same, byte by byte; remove one")


def _middle(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            opened.seek(file.stat().st_size // 2)
            return opened.read(4096)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check its permissions") from error


def of_split(path: Path, split: str, files: list[File], folders: dict[str, str], sides: dict[str, list[File]]) -> list[File]:
    """The files of the split."""
    if split == "all":
        return files
    if split in sides:
        return sides[split]
    if folders:
        raise InputError(f"{path}: no files for split {split!r}; sub-folders found: {', '.join(folders)}")
    if split == "validation":
        raise InputError(f"{path}: has no sub-folder 'validation' or 'val', and the split by patient makes train and test only; make one")
    raise InputError(
        f"{path}: has one patient, {files[0].patient!r}, who is all in train; use split='all', add patients, or say who is one (patient=)"
    )
