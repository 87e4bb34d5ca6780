"""ACDC: short-axis cardiac MRI, end-diastolic frame, as the paper uses it (Bernard et al. 2018, doi:10.1109/TMI.2018.2837502)."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from prom.datasets.base import SliceDataset
from prom.errors import InputError

FOLDER = "ACDC"
SPLITS = {"train": "training", "test": "testing"}
SIZE = 256
LABELS = ("background", "right ventricle", "myocardium", "left ventricle")
SOURCE = "ACDC (Bernard et al. 2018), end-diastolic frames; k-space emulated by Fourier transform of the magnitude images"


def load(
    split: str = "train", root: str | Path = "data/ACDC", all_slices: bool = False, labels: bool = True, progress: bool | None = None
) -> SliceDataset:
    """The slices of the paper: 548 for training, 338 for testing, 256 x 256, each scaled to [0, 1] by its own minimum and maximum.

    The paper's rule, as its code has it: frame 01 of every patient, without the first two and the last two slices of each stack;
    shorter edge resized to 256 (bilinear, no antialiasing), then the centre 256 x 256. That rule misses patient090, whose
    end-diastolic frame is number 4. Labels are resized with nearest neighbours (the authors' bilinear resizing invents classes).

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
    progress
        False: no bar; None: a bar where the output is a terminal.

    Raises
    ------
    InputError
        Where the folder, a patient's file or a label is missing or unreadable.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: ACDC has 'train' and 'test'")
    folder = _database(Path(root)) / SPLITS[split]
    patients = sorted(p for p in folder.iterdir() if re.fullmatch(r"patient\d{3}", p.name)) if folder.is_dir() else []
    if not patients:
        raise InputError(f"{folder}: no folders patient001, patient002, ...; unpack the official ACDC archive there")
    images, masks, subjects, slices = [], [], [], []
    for patient in tqdm(patients, desc=f"read ACDC {split}", disable=None if progress is None else not progress, leave=False):
        frame = _end_diastole(patient) if all_slices else "01"
        path = patient / f"{patient.name}_frame{frame}.nii.gz"
        if not path.exists() and not all_slices:
            continue  # patient090, by the paper's rule
        volume = _read(path, np.float32)
        segmentation = _read(path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz")), np.uint8) if labels else None
        if segmentation is not None and segmentation.shape != volume.shape:
            raise InputError(f"{path}: image of {volume.shape}, but labels of {segmentation.shape}; take both from the official archive")
        depth = volume.shape[2]
        for index in range(depth) if all_slices else range(2, depth - 2):
            images.append(_resize(_unit_range(volume[:, :, index], path, index), "bilinear"))
            if segmentation is not None:
                masks.append(_resize(torch.from_numpy(segmentation[:, :, index]).float(), "nearest").to(torch.uint8))
            subjects.append(patient.name)
            slices.append(index)
    if not images:
        raise InputError(f"{folder}: no end-diastolic frames (patient001_frame01.nii.gz, ...) found")
    stacked = torch.stack(images)[:, None]
    return SliceDataset("acdc", split, stacked, subjects, slices, torch.stack(masks) if labels else None, LABELS, SOURCE)


def _database(root: Path) -> Path:
    for candidate in (root / "database", root):
        if (candidate / "training").is_dir() or (candidate / "testing").is_dir():
            return candidate
    raise InputError(
        f"{root}: no ACDC data there (database/training, database/testing); register for ACDC at creatis.insa-lyon.fr, unpack it, "
        "and give its folder with --root or PROM_DATA"
    )


def _end_diastole(patient: Path) -> str:
    try:
        found = re.search(r"^ED:\s*(\d+)", (patient / "Info.cfg").read_text(), re.MULTILINE)
        return f"{int(found[1]):02d}"
    except (OSError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{patient / 'Info.cfg'}: does not name the end-diastolic frame ('ED: 1')") from error


def _read(path: Path, dtype: type) -> np.ndarray:
    if not path.exists():
        raise InputError(f"{path}: is missing; take it from the official ACDC archive")
    try:
        volume = np.asanyarray(nibabel.load(path).dataobj).astype(dtype)
    except Exception as error:  # nibabel raises a dozen kinds for a damaged file
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy it again") from error
    if volume.ndim != 3:
        raise InputError(f"{path}: has {volume.ndim} dimensions, expected 3 (x, y, slice)")
    return volume


def _unit_range(image: np.ndarray, path: Path, index: int) -> Tensor:
    low, high = image.min(), image.max()
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path}: slice {index} has NaN or infinite values")
    if low == high:
        raise InputError(f"{path}: slice {index} is constant")
    return torch.from_numpy((image - low) / (high - low))


def _resize(image: Tensor, how: str) -> Tensor:
    """(h, w) to (SIZE, SIZE): shorter edge to SIZE, then the centre."""
    height, width = image.shape
    short = min(height, width)
    size = [int(SIZE * height / short), int(SIZE * width / short)]
    options = {"align_corners": False} if how == "bilinear" else {}
    resized = functional.interpolate(image[None, None], size=size, mode=how, **options)[0, 0]
    top, left = round((size[0] - SIZE) / 2), round((size[1] - SIZE) / 2)
    return resized[top : top + SIZE, left : left + SIZE].contiguous()
