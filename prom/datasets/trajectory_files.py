"""Trajectories of one's own: NumPy arrays, and those that acquisitions of ISMRMRD raw data carry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from prom.datasets.raw import acquired_trajectories, ismrmrd_groups
from prom.errors import InputError, unknown
from prom.kspace.trajectories import MOST, UNITS, Trajectory, from_array

ENDINGS = (".npy", ".mrd", ".h5")


def read(path: str | os.PathLike, unit: str, image: Sequence[int], full: int | None = None) -> Trajectory:
    """The readouts in a file as candidates of the pattern "readouts", for images of this shape.

    - ``.npy``: a real array ``(K, R, axes)``, rows first, as the axes of an image array and as mri-nufft has them.
    - ``.mrd``, ``.h5``: the acquisitions of images in ISMRMRD raw data, whose trajectory is x first: columns, rows, partitions. Readouts
      that come again, as of several slices or repetitions, are one candidate; a third axis that is 0 everywhere is left out.

    Parameters
    ----------
    unit
        "cycles" per field of view, or "mri-nufft": those over the size of the image, [-0.5, 0.5]. Neither format says it.
    image
        ``(H, W)`` or ``(D, H, W)``.
    full
        How many readouts a full scan takes; by default the lines of a Cartesian scan of the image, H or D H.

    Raises
    ------
    InputError
        Where the file is missing, damaged or of another format, or its numbers do not fit the unit or the image.

    >>> import tempfile
    >>> from prom.kspace.trajectories import spokes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/own.npy", spokes(8, size=4).points)
    ...     made = read(f"{folder}/own.npy", "cycles", (4, 4))
    >>> made.kind, made.points.shape, made.full
    ('readouts', torch.Size([8, 4, 2]), 4)
    """
    path = Path(path)
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if path.suffix.lower() not in ENDINGS:
        raise unknown("format of trajectories", path.suffix, ENDINGS)
    if not path.is_file():
        raise InputError(f"trajectory {path}: no such file; name an array (.npy) or raw data of ISMRMRD (.mrd, .h5)")
    array = _npy(path) if path.suffix.lower() == ".npy" else _ismrmrd(path)
    return from_array(array, unit, tuple(image), full=full, name=f"trajectory {path}")


def _npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # nothing is read before its size is known
        if not isinstance(array, np.ndarray):
            raise ValueError("is an npz archive")
    except Exception as error:  # a damaged file fails in any of many ways
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"trajectory {path}: is no array as numpy.save writes it ({cause})") from error
    return array


def _ismrmrd(path: Path) -> np.ndarray:
    try:
        with h5py.File(path, "r") as file:
            groups = ismrmrd_groups(file)
    except OSError as error:
        raise InputError(f"trajectory {path}: is no HDF5 file, or damaged; name ISMRMRD raw data, or an array (.npy)") from error
    if len(groups) != 1:
        raise InputError(f"trajectory {path}: has {len(groups)} groups of ISMRMRD raw data; must be one")
    rows = acquired_trajectories(path, groups[0], MOST)
    _, first = np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)
    rows = rows[np.sort(first)]
    rows = rows[..., :2] if rows.shape[-1] == 3 and not rows[..., 2].any() else rows
    return rows[..., ::-1]
