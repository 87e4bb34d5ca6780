"""BrainTumour: brain MRI of the Medical Segmentation Decathlon, four contrasts (Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9)."""

from __future__ import annotations

import json
import os
import random
import re
from functools import partial as bound
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prom.datasets.base import Part, Plan
from prom.datasets.reading import check_values, inside, nifti_shape, read_nifti, read_text, resize_and_crop
from prom.errors import InputError

FOLDER = "Task01_BrainTumour"
SUMMARY = "brain MRI with glioma, 484 patients, FLAIR, T1w, T1gd and T2w as four channels, with labels"
OBTAIN = "medicaldecathlon.com, Task01_BrainTumour.tar (7.1 GB, no registration), unpack so that Task01_BrainTumour/dataset.json exists"
LICENCE = "CC BY-SA 4.0 (Medical Segmentation Decathlon)"
CITATION = (
    "Antonelli et al., Nature Communications 13:4128, 2022, doi:10.1038/s41467-022-30695-9; "
    "Menze et al., IEEE TMI 34(10):1993-2024, 2015; Bakas et al., Scientific Data 4:170117, 2017"
)
SPLITS = ("train", "test")
SUBJECTS = 484  # in the official list
SLICES = range(60, 110)
CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
QUANTILES = (0.001, 0.999)
SIZE = 256
LABELS = ("background", "oedema", "non-enhancing tumour", "enhancing tumour")
ANY = range(1, 8)  # numbers of axes that NIfTI has; what is wrong with the shape is said here
REGIONS = ("whole tumour", "tumour core", "enhancing tumour")


def plan(split: str = "train", root: str | Path = "data/Task01_BrainTumour", labels: bool = True, partial: bool = False) -> Plan:
    """The slices of the paper: 387 subjects for training, 97 for testing, 50 slices of each, 4 channels of 256 x 256 in [0, 1].

    The paper's rule, as its code has it: slices 60 to 109 of every volume; the four channels of a slice (FLAIR, T1w, T1gd, T2w) are
    scaled together, so that their joint quantiles 0.001 and 0.999 become 0 and 1, and clamped to these; then the shorter edge is
    resized to 256 (bilinear, no antialiasing) and the centre 256 x 256 cut out. Labels are resized with nearest neighbours (the
    authors' bilinear resizing invents classes). k-space is emulated: it is the Fourier transform of these magnitude images.

    The split is drawn over the "training" list of dataset.json as it stands, in its order, whatever files exist: shuffled by Python's
    ``random.Random(42)``, the first 80 % train and the rest test. A dataset.json that lists fewer subjects is split in the same way.
    The archive's own test images have no labels and are not used.

    Parameters
    ----------
    split
        "train" or "test".
    root
        The folder with ``dataset.json``.
    labels
        Read the segmentations too: 0 background, 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour; see :func:`regions`.
    partial
        Leave out subjects whose files are listed but missing, instead of refusing the folder. No subject changes sides, and
        ``source`` says how many of how many there are.

    Raises
    ------
    InputError
        Where the folder or dataset.json is missing or unusable, a listed file is missing (the message says how many are), or one
        leads out of the folder.
    """
    if split not in SPLITS:
        raise InputError(
            f"split {split!r}: BrainTumour has 'train' and 'test', and 'validation' where a share of the training part is held out"
        )
    root = Path(root)
    listed = _listed(root)
    chosen = [pair if labels else pair[:1] for pair in _divided(listed)[split]]
    missing = [path for pair in chosen for path in pair if not os.path.isfile(path)]
    if missing and not partial:
        raise InputError(
            f"{root}: {len(missing)} of {sum(map(len, chosen))} files that dataset.json lists for {split} are missing, the first is "
            f"{missing[0]}; unpack the archive again, or read the subjects that are there with partial=True"
        )
    items = [pair for pair in chosen if not set(pair) & set(missing)]
    if not items:
        raise InputError(f"{root}: no subject of split {split!r} is there (of {len(listed)} listed, {len(chosen)} are in it); {OBTAIN}")
    files = [inside(path, root) for pair in items for path in pair]
    source = "Medical Segmentation Decathlon, BrainTumour (Antonelli et al. 2022)"
    if len(listed) != SUBJECTS:
        source += f", a list of {len(listed)} subject(s) (the official one has {SUBJECTS})"
    if len(items) < len(chosen):
        source += f", {len(items)} of the {len(chosen)} subjects of {split}"
    return Plan(
        name="brain_tumour",
        split=split,
        root=root,
        items=items,
        read=bound(read, labels=labels),
        files=[root / "dataset.json", *files],
        options={"labels": labels, "partial": partial},
        label_names=LABELS,
        source=f"{source}; k-space emulated by Fourier transform of the magnitude images",
    )


def read(item: tuple[Path, ...], labels: bool) -> Part:
    """One subject, of the paths of its image and, where they are wanted, its labels: 50 slices, scaled and resized."""
    path = item[0]
    shape = nifti_shape(path, axes=ANY)
    if len(shape) != 4 or shape[0] != shape[1] or shape[2] < SLICES.stop or shape[3] != len(CHANNELS):
        raise InputError(
            f"{path}: array of shape {shape}; must have square slices, {SLICES.stop} or more of them, and {len(CHANNELS)} channels "
            f"({', '.join(CHANNELS)}); take it from the official archive"
        )
    volume, zooms = _slab(path)
    images = np.empty((len(SLICES), len(CHANNELS), *shape[:2]), np.float32)
    for index, number in enumerate(SLICES):
        images[index] = _scaled(path, np.moveaxis(volume[:, :, index], 2, 0).astype(np.float64), number)
    images = resize_and_crop(torch.from_numpy(images).flatten(0, 1), SIZE, "bilinear").unflatten(0, (len(SLICES), len(CHANNELS)))
    classes = _classes(item[1], shape[:3]) if labels else None
    scale = shape[0] / SIZE  # how many pixels of the file one pixel here is
    return Part(path, _subject(path), images.numpy(), list(SLICES), classes, (zooms[0] * scale, zooms[1] * scale))


def regions(labels: Tensor) -> Tensor:
    """The three regions in which tumours are scored (BraTS): whole (all of the tumour), core (without oedema), enhancing.

    Parameters
    ----------
    labels
        ``(..., H, W)``, integers from 0 to 3 as :func:`plan` gives them.

    Returns
    -------
    ``(..., 3, H, W)`` bool, in the order of ``REGIONS``. Each region lies in the one before it.

    >>> regions(torch.tensor([[0, 1, 2, 3]])).int().squeeze(1)
    tensor([[0, 1, 1, 1],
            [0, 0, 1, 1],
            [0, 0, 0, 1]], dtype=torch.int32)
    """
    return torch.stack([(labels >= first) & (labels < len(LABELS)) for first in (1, 2, 3)], dim=-3)


def survey(root: Path) -> dict[str, object]:
    """What of it lies in ``root``, without reading the images: for ``prom datasets``."""
    found, missing = {}, []
    for split, pairs in _divided(_listed(Path(root))).items():
        there = [pair for pair in pairs if os.path.isfile(pair[0])]
        labelled = sum(os.path.isfile(label) for _, label in there)
        found[split] = {"subjects": len(there), "slices": len(there) * len(SLICES), "labelled subjects": labelled}
    subjects = sum(counts["subjects"] for counts in found.values())
    unlabelled = subjects - sum(counts["labelled subjects"] for counts in found.values())
    if subjects < SUBJECTS:
        missing.append(f"{SUBJECTS - subjects} of {SUBJECTS} subjects")
    if unlabelled:
        missing.append(f"labels of {unlabelled} subjects")
    return {"found": found, "missing": missing}


def _listed(root: Path) -> list[tuple[Path, Path]]:
    """The (image, labels) paths of dataset.json, in its order; they need not exist."""
    path = root / "dataset.json"
    if not path.is_file():
        raise InputError(f"{root}: no BrainTumour data there (dataset.json); {OBTAIN}, and give its folder with --root or PROM_DATA")
    text = read_text(inside(path, root), "BrainTumour's list")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); take it from the official archive") from error
    training = content.get("training") if isinstance(content, dict) else None
    if not isinstance(training, list) or not training:
        raise InputError(f'{path}: has no list of subjects "training"; take it from the official archive')
    pairs = [(_listed_path(path, entry, "image"), _listed_path(path, entry, "label")) for entry in training]
    files, subjects = set(), set()
    for image, _ in pairs:
        if (file := os.path.realpath(image)) in files:  # the same subject would be in training and in testing
            raise InputError(f"{path}: lists the image {image} twice; take it from the official archive")
        if (subject := _subject(image)) in subjects:
            raise InputError(f"{path}: lists two subjects with one name, {subject!r}; take it from the official archive")
        files.add(file)
        subjects.add(subject)
    return pairs


def _listed_path(path: Path, entry: object, key: str) -> Path:
    name = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.isprintable() or not re.search(r"[^/\\]\.nii(\.gz)?$", name):
        shown = repr(entry)[:100]
        raise InputError(f'{path}: an entry of "training" names no {key} (.nii.gz): {shown}; take it from the official archive')
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{path}: names {name!r}, which leaves the folder; take it from the official archive")
    return path.parent / name


def _divided(listed: list[tuple[Path, Path]]) -> dict[str, list[tuple[Path, Path]]]:
    """The authors' split: 80 % of the shuffled list to train, the rest to test."""
    shuffled = list(listed)
    random.Random(42).shuffle(shuffled)
    cut = int(len(shuffled) * 0.8)
    return {"train": shuffled[:cut], "test": shuffled[cut:]}


def _subject(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _slab(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Slices 60 to 109 and the voxel sizes (mm)."""
    voxels, zooms = read_nifti(path, axes=(3, 4), slices=slice(SLICES.start, SLICES.stop))
    if np.iscomplexobj(voxels):
        raise InputError(f"{path}: has complex values; must be real, take it from the official archive")
    return voxels, zooms


def _scaled(path: Path, image: np.ndarray, number: int) -> np.ndarray:
    """All channels of one slice, scaled together by their quantiles to [0, 1]. In float64, as the authors do."""
    check_values(path, image[None], [number])
    low, high = np.quantile(image, QUANTILES)
    if not 0 < high - low < np.inf:
        raise InputError(
            f"{path}: slice {number} has nothing between its quantiles {QUANTILES[0]} and {QUANTILES[1]} ({low:g}, {high:g}); remove it"
        )
    return (image.clip(low, high) - low) / (high - low)


def _classes(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """(50, 256, 256) uint8 of a label file, whose image has this shape."""
    declared = nifti_shape(path, axes=ANY)
    if declared != shape:
        raise InputError(f"{path}: labels of {declared}, but an image of {shape}; take both from the official archive")
    segmentation, _ = _slab(path)
    if not np.isin(segmentation, range(len(LABELS))).all():
        raise InputError(f"{path}: labels other than 0, 1, 2, 3; take it from the official archive")
    chosen = torch.from_numpy(np.moveaxis(segmentation, 2, 0).astype(np.float32))
    return resize_and_crop(chosen, SIZE, "nearest-exact").to(torch.uint8).numpy()
