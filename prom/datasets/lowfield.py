"""Raw k-space of brains at 0.055 T, one coil, with measured noise and phase (Liu et al. 2021, doi:10.1038/s41467-021-27317-1)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from prom.datasets import formats
from prom.datasets.arrays import coil_kspace, informative, sides_of, with_maps
from prom.datasets.base import Part, Plan
from prom.datasets.reading import inside
from prom.errors import InputError, unknown

FOLDER = "lowfield_055T"
SUMMARY = "brain MRI at 0.055 T, raw k-space of one coil with noise and phase, 6 patients, FSE, FLAIR and GRE"
OBTAIN = (
    "github.com/bispmri/Ultra-low-field-MRI-Scanner, no registration; of 'Data for Figures in the Manuscript' copy the folders "
    "'Figure 6A' to 'Supplementary Figure 6B' there as they are"
)
LICENCE = "CC0 1.0, public domain"
CITATION = "Liu et al., Nature Communications 12:7238, 2021, doi:10.1038/s41467-021-27317-1"
CONTRASTS = ("FSE", "FLAIR", "GRE")  # T2-weighted, FLAIR-like, T1-weighted
# The figure of the paper that shows a patient, one panel each. Its name, without blanks, is the subject's.
SPLITS = {
    "train": ("Figure6A", "Figure6B", "SupplementaryFigure6A", "SupplementaryFigure6B"),
    "test": ("Figure7A", "Figure7B"),
}
NAME = re.compile(r"(?:^|/)((?:Supplementary[ _])?Figure[ _]\d[AB])[/_].*_(FSE|FLAIR|GRE)_kspace_postEMI\.mat$")
ARRAY = "kspace"
AXES = "HWN"


def plan(
    split: str = "train",
    root: str | Path = "data/lowfield_055T",
    contrast: str = "FSE",
    size: int | Sequence[int] | None = None,
) -> Plan:
    """Complex images of single-coil k-space as the scanner left it: four slices a contrast.

    A network has removed interference from it, and the slices have been transformed already. What is left are two axes of a 3D scan.

    ``images`` are the orthonormal inverse transform of ``kspace``, in the units of the files, noise included; ``sensitivities`` are 1.
    ``noise`` is estimated in the corners of k-space for each patient and contrast (:func:`prom.kspace.coils.noise_level`); it is the root
    mean square over all slices. Take it for a lower bound: in air, the images of GRE have 1.1 to 1.3 times this noise, those of FSE and
    FLAIR 2.3 to 4.3 times.

    *Subjects.* A patient is a panel of a figure of the paper, each with lesions of its own. Figures 6 and S6 are for training, Figure 7 for
    testing: 4 and 2 patients where all are there, with 12 slices each in three contrasts. Files of which it is not said whose head they
    show (Figures 4 and S5), or that show phantoms (Figures 8 and S5), are not read.

    Parameters
    ----------
    split
        "train", "test" or "all".
    root
        The folder with these files, e.g. ``Figure 6A/0.055T/0.055T_FSE_kspace_postEMI.mat``, or all in one folder with ``_`` for ``/``.
    contrast
        "FSE" or "FLAIR" (128 x 126), "GRE" (128 x 196), or several, ``"FSE,FLAIR,GRE"``. Slices are numbered
        through, contrast by contrast.
    size
        Rows and columns, (64, 56), or one number for both: k-space is cut to its centre, so that pixels become larger and the field of
        view stays. Contrasts of different sizes need one, of at most 128 x 126.

    Raises
    ------
    InputError
        Where the folder or a patient's file is missing, damaged or of another layout, or sizes differ.
    """
    if split not in (*SPLITS, "all"):
        raise unknown("split", split, (*SPLITS, "all"))
    contrasts = contrast.split(",")
    for name in contrasts:
        if name not in CONTRASTS:
            raise unknown("contrast", name, CONTRASTS)
    if len(set(contrasts)) < len(contrasts):
        raise InputError(f"contrast {contrast!r}: names one twice")
    root, sides = Path(root), sides_of(size)
    found = _found(root)
    by_split = {name: [patient for patient in patients if patient in found] for name, patients in SPLITS.items()}
    chosen = [patient for name in SPLITS if split in (name, "all") for patient in by_split[name]]
    if not chosen:
        raise InputError(f"{root}: no patient of split {split!r}, {', '.join(SPLITS.get(split, ()))}; {OBTAIN}")
    items = []
    for patient in chosen:
        missing = [name for name in contrasts if name not in found[patient]]
        if missing:
            raise InputError(f"{root}: {patient} has no file of {', '.join(missing)} (..._{missing[0]}_kspace_postEMI.mat); copy it there")
        items.append((patient, [inside(found[patient][name], root) for name in contrasts]))
    resized = f", cut to {sides[0]} x {sides[1]} in k-space" if sides else ""
    return Plan(
        name="lowfield",
        split=split,
        root=root,
        items=items,
        read=partial(read, size=sides),
        files=[path for _, paths in items for path in paths],
        options={"contrast": contrast, "size": sides},
        source=f"0.055 T brain MRI (Liu et al. 2021, CC0), {', '.join(contrasts)}, k-space of one coil after the "
        f"scanner's learnt removal of interference{resized}; noise estimated in the corners of k-space",
        sides=by_split,
    )


def read(item: tuple[str, list[Path]], size: tuple[int, int] | None) -> Part:
    """One patient: the slices of the contrasts one after the other."""
    patient, paths = item
    stacks = []
    for path in paths:
        content = formats.content(path, "MATLAB", ARRAY, AXES)
        stacks.append(with_maps(path, coil_kspace(path, content, "kspace"), size=size, size_in="kspace"))
        if stacks[-1].kspace.shape[1:] != stacks[0].kspace.shape[1:]:
            shapes = [f"{path.name} has {one.kspace.shape[-2]} x {one.kspace.shape[-1]}" for path, one in zip(paths, stacks, strict=False)]
            raise InputError(f"{path}: {', '.join(shapes)}; give a size, e.g. size=128,126, or one contrast")
        informative(path, stacks[-1].images.numpy(), skip_constant=False)
    return Part(
        path=paths[0],
        subject=patient,
        images=np.concatenate([one.images.numpy() for one in stacks]),
        slices=list(range(sum(len(one.images) for one in stacks))),
        sensitivities=stacks[0].maps.numpy(),
        kspace=np.concatenate([one.kspace.numpy() for one in stacks]),
        noise=math.sqrt(sum(len(one.images) * one.noise**2 for one in stacks) / sum(len(one.images) for one in stacks)),
    )


def survey(root: Path) -> dict[str, object]:
    """What of it lies in ``root``, by the names of the files: ``{"found": {split: counts}, "missing": [what]}``, for ``prom datasets``.

    Raises
    ------
    InputError
        Where there is no such file.
    """
    found = _found(root)
    missing = [
        f"{contrast} of {patient}"
        for patients in SPLITS.values()
        for patient in patients
        for contrast in CONTRASTS
        if contrast not in found.get(patient, {})
    ]
    counts = {}
    for split, patients in SPLITS.items():
        files = [len(found[patient]) for patient in patients if patient in found]
        counts[split] = {"subjects": len(files), "volumes": sum(files)}
    return {"found": counts, "missing": missing}


def _found(root: Path) -> dict[str, dict[str, Path]]:
    """The file of each contrast of each patient."""
    known = {patient for patients in SPLITS.values() for patient in patients}
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("*_kspace_postEMI.mat")) if root.is_dir() else ():
        named = NAME.search(path.relative_to(root).as_posix())
        patient = re.sub("[ _]", "", named[1]) if named else None
        if patient not in known:
            continue
        other = found.setdefault(patient, {}).setdefault(named[2], path)
        if other != path:
            raise InputError(f"{other} and {path}: are both {named[2]} of {patient}; remove one")
    if not found:
        raise InputError(f"{root}: no file Figure 6A/0.055T/0.055T_FSE_kspace_postEMI.mat or the like; {OBTAIN}, and give it with --root")
    return found
