"""ACDC: short-axis cardiac MRI, as the paper uses it (Bernard et al. 2018, doi:10.1109/TMI.2018.2837502)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch

from prom.datasets.base import Part, Plan
from prom.datasets.reading import check_values, inside, nifti_shape, read_nifti, read_text, resize_and_crop
from prom.errors import InputError, unknown

FOLDER = "ACDC"
SUMMARY = "cardiac MRI, 100 + 50 patients, end-diastolic and end-systolic frames with labels"
OBTAIN = "register for ACDC at creatis.insa-lyon.fr (human-heart-project), unpack so that ACDC/database/training and testing exist"
LICENCE = "CC BY-NC-SA 4.0, for non-commercial research after registration; not to be passed on"
CITATION = "Bernard et al., IEEE Transactions on Medical Imaging 37(11):2514-2525, 2018, doi:10.1109/TMI.2018.2837502"
SPLITS = {"train": "training", "test": "testing"}
COMPLETE = {"train": 100, "test": 50}  # patients
PHASES = {"ED": "end-diastolic", "ES": "end-systolic"}
SIZE = 256
LABELS = ("background", "right ventricle", "myocardium", "left ventricle")


def plan(split: str = "train", root: str | Path = "data/ACDC", all_slices: bool = False, labels: bool = True, phase: str = "ED") -> Plan:
    """The slices of the paper: 548 for training, 338 for testing, 256 x 256, each scaled to [0, 1] by its own minimum and maximum.

    The paper's rule, as its code has it: frame 01 of every patient, without the first two and the last two slices of each stack;
    shorter edge resized to 256 (bilinear, no antialiasing), then the centre 256 x 256. That rule misses patient090, whose
    end-diastolic frame is number 4. Labels are resized with nearest neighbours (the authors' bilinear resizing invents classes).
    k-space is emulated: it is the Fourier transform of these magnitude images.

    Parameters
    ----------
    split
        "train" (100 patients) or "test" (50 patients).
    root
        The folder with ``database/training`` and ``database/testing``, or ``database`` itself.
    all_slices
        Every slice, and patient090 by the frame that its Info.cfg names: 951 for training, 538 for testing.
    labels
        Read the segmentations too: 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle.
    phase
        "ED" (end-diastole; the frame 01 as in the paper, with ``all_slices`` that which Info.cfg names), "ES" (end-systole, by Info.cfg),
        or "both": then a patient has two volumes, called "patient001 ED" and "patient001 ES", but for patient090 without ``all_slices``.

    Raises
    ------
    InputError
        Where the folder, a patient's file or a label is missing or unreadable.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: ACDC has 'train' and 'test', and 'validation' where a share of the training part is held out")
    if phase not in (*PHASES, "both"):
        raise unknown("phase", phase, (*PHASES, "both"))
    root = Path(root)
    folder = _database(root) / SPLITS[split]
    patients = _patients(folder)
    others = {p.name for other in SPLITS.values() if other != SPLITS[split] for p in _patients(folder.parent / other)}
    for patient in patients:
        if patient.name in others:
            raise InputError(f"{patient}: is in training and in testing; a patient can be in one only, unpack the official archive again")
    if not patients:
        raise InputError(f"{folder}: no folders patient001, patient002, ...; unpack the official ACDC archive there")
    items, files = [], []
    for patient in patients:
        for wanted in PHASES if phase == "both" else (phase,):
            by_paper = wanted == "ED" and not all_slices
            frame = "01" if by_paper else _frame(patient, wanted)
            path = patient / f"{patient.name}_frame{frame}.nii.gz"
            if by_paper and not path.exists():
                continue  # patient090, by the paper's rule
            items.append((path, f"{patient.name} {wanted}" if phase == "both" else patient.name))
            files += [path, _label_path(path)] if labels else [path]
    if not items:
        raise InputError(f"{folder}: no {PHASES.get(phase, '')} frames (patient001_frame01.nii.gz, ...) found")
    return Plan(
        name="acdc",
        split=split,
        root=root,
        items=items,
        read=partial(read, root=root, all_slices=all_slices, labels=labels),
        files=files,
        options={"all_slices": all_slices, "labels": labels, "phase": phase},
        label_names=LABELS,
        source=f"ACDC (Bernard et al. 2018), {' and '.join(PHASES.values()) if phase == 'both' else PHASES[phase]} frames; "
        "k-space emulated by Fourier transform of the magnitude images",
    )


def read(item: tuple[Path, str], root: Path, all_slices: bool, labels: bool) -> Part:
    """One volume: its slices by the rule, scaled and resized."""
    path, subject = item
    volume, zooms = read_nifti(inside(path, root), axes=(3,))
    height, width, depth = volume.shape
    numbers = range(depth) if all_slices else range(2, depth - 2)
    if not numbers:
        raise InputError(f"{path}: has {depth} slices, and the paper's rule leaves out the first and last two; use all slices")
    images = np.moveaxis(volume[:, :, numbers].astype(np.float32), 2, 0)
    check_values(path, images, numbers)
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    images = resize_and_crop(torch.from_numpy((images - low) / (high - low)), SIZE, "bilinear")
    classes = None
    if labels:
        segmentation, _ = read_nifti(inside(_label_path(path), root), axes=(3,))
        if segmentation.shape != volume.shape:
            raise InputError(f"{path}: image of {volume.shape}, but labels of {segmentation.shape}; take both from the official archive")
        if not np.isin(segmentation, range(len(LABELS))).all():
            raise InputError(f"{_label_path(path)}: labels other than 0, 1, 2, 3; take it from the official archive")
        chosen = torch.from_numpy(np.moveaxis(segmentation[:, :, numbers].astype(np.float32), 2, 0))
        classes = resize_and_crop(chosen, SIZE, "nearest-exact").to(torch.uint8).numpy()
    scale = min(height, width) / SIZE  # how many pixels of the file one pixel here is
    spacing = (zooms[0] * scale, zooms[1] * scale)
    return Part(path, subject, images[:, None].numpy(), list(numbers), classes, spacing, patient=subject.split()[0])


def survey(root: Path) -> dict[str, object]:
    """What of it lies in ``root``, by the headers alone: ``{"found": {split: counts}, "missing": [what]}``, for ``prom datasets``.

    Raises
    ------
    InputError
        Where a header cannot be read.
    """
    found, missing = {}, []
    for split, name in SPLITS.items():
        patients = _patients(_database(root) / name)
        volumes = [p for patient in patients for p in sorted(patient.glob("patient???_frame??.nii.gz"))]
        slices = {volume: nifti_shape(inside(volume, root), axes=(3,))[2] for volume in volumes}
        labelled = [volume for volume in volumes if _label_path(volume).exists()]
        found[split] = {
            "subjects": len(patients),
            "volumes": len(volumes),
            "slices": sum(slices.values()),
            "slices with labels": sum(slices[volume] for volume in labelled),
        }
        if len(patients) < COMPLETE[split]:
            missing.append(f"{COMPLETE[split] - len(patients)} of {COMPLETE[split]} patients in {name}")
        if len(labelled) < len(volumes):
            missing.append(f"labels (_gt.nii.gz) of {len(volumes) - len(labelled)} volumes in {name}")
        expected = 2 * len(patients)  # end-diastole and end-systole
        if len(volumes) < expected:
            missing.append(f"{expected - len(volumes)} of {expected} volumes, two a patient, in {name}")
    return {"found": found, "missing": missing}


def _database(root: Path) -> Path:
    for candidate in (root / "database", root):
        if (candidate / "training").is_dir() or (candidate / "testing").is_dir():
            return candidate
    raise InputError(
        f"{root}: no ACDC data there (database/training, database/testing); {OBTAIN}, and give its folder with --root or PROM_DATA"
    )


def _patients(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"patient\d{3}", p.name)) if folder.is_dir() else []


def _label_path(path: Path) -> Path:
    return path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz"))


def _frame(patient: Path, phase: str) -> str:
    """The number of the frame, two digits, that Info.cfg names for "ED" or "ES"."""
    found = re.search(rf"^{phase}:\s*(\d{{1,3}})\s*$", read_text(patient / "Info.cfg", "ACDC's Info.cfg"), re.MULTILINE)
    if not found:
        raise InputError(f"{patient / 'Info.cfg'}: does not name the {PHASES[phase]} frame ('{phase}: 1')")
    return f"{int(found[1]):02d}"
