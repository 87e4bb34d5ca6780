"""Masks out of files: prom's own, and those that :mod:`prom.masks.export` writes as .npy, .mat and .png."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prom.datasets import matlab
from prom.errors import InputError
from prom.kspace.patterns import LARGEST_MASK
from prom.kspace.trajectories import Trajectory
from prom.masks import MaskResult, load_mask
from prom.masks.difference import lines_of


def _npy(path: Path) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # nothing is read before its size is known
    if not isinstance(array, np.ndarray):
        raise ValueError("is an npz archive")
    return array


def _mat(path: Path) -> np.ndarray:
    if h5py.is_hdf5(path):
        raise ValueError("is of MATLAB 7.3; save it with -v7")
    with matlab.unpacked(path, "mask") as (arrays, load):
        if "mask" not in arrays:
            raise ValueError(f"has no variable mask, only {', '.join(sorted(arrays)[:10]) or 'none that is numeric'}")
        if "trajectory" in arrays:
            raise ValueError("chooses among readouts off the grid; give prom's own .h5")
        return load("mask")


def _png(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG",)) as image:
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ValueError(f"has {frames} pictures; give one")
            if image.mode not in ("1", "L"):
                raise ValueError(f"is no picture in grey of 8 bits or 1, but of mode {image.mode}")
            picture = np.asarray(image.convert("L"))
    if not np.isin(picture, (0, 255)).all():
        raise ValueError("has grey pixels; a picture of a mask is black (0) and white (255)")
    return picture == 255


READERS: dict[str, Callable[[Path], np.ndarray]] = {".npy": _npy, ".mat": _mat, ".png": _png}


def read(path: str | os.PathLike) -> Tensor:
    """The mask in a file, ``(H, W)`` bool, centred, of volumes ``(D, H, W)`` and of series ``(T, H, W)``; the ending says what it is.

    ``.npy`` holds an array of 0 and 1, ``.mat`` a variable ``mask`` of 0 and 1, ``.png`` a picture in which white is measured. Any other
    file must be one of prom (:func:`prom.load_mask`). Of readouts off the grid an ``.npy`` file cannot say that it is; others do.

    Raises
    ------
    InputError
        Where the file is missing or damaged, or what it holds is no mask: other values, neither 2D nor 3D, or nothing measured; or where
        the mask chooses among readouts off the grid.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/mask.npy", np.eye(2))
    ...     read(f"{folder}/mask.npy")
    tensor([[ True, False],
            [False,  True]])
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        return _on_grid(path).mask
    if not path.is_file():
        raise InputError(f"mask {path}: no such file; make one with 'prom export'")
    try:
        array = reader(path)
        if array.ndim not in (2, 3) or not 0 < array.size <= LARGEST_MASK:
            raise ValueError(f"has the shape {array.shape}, where (H, W), (D, H, W) or (T, H, W) is expected")
        if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
            raise ValueError("has other values than 0 and 1")
        if not array.any():
            raise ValueError("measures nothing")
    except Exception as error:  # a damaged file fails in any of many ways
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"mask {path}: is no mask as 'prom export' writes it ({cause})") from error
    return torch.from_numpy(array.astype(bool))


def _own(path: str | os.PathLike) -> MaskResult:
    if os.path.isfile(path) and not h5py.is_hdf5(path) and Path(path).suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"mask {path}: is of no format that masks are read from; give prom's own .h5, or {', '.join(READERS)}")
    return load_mask(path)


def _on_grid(path: str | os.PathLike) -> MaskResult:
    result = _own(path)
    if result.trajectory is not None:
        raise InputError(f"mask {path}: chooses among {result.pattern}, which are off the grid; give one of points or lines")
    return result


def read_with_trajectory(path: str | os.PathLike) -> tuple[Tensor, Trajectory | None]:
    """As :func:`read`, with the candidates of readouts off the grid that the mask chooses from; None for masks on the grid.

    Raises
    ------
    InputError
        As :func:`read`.
    """
    if Path(path).suffix.lower() in READERS:
        return read(path), None
    result = _own(path)
    return result.mask, result.trajectory


def read_with_pattern(path: str | os.PathLike) -> tuple[Tensor, str]:
    """As :func:`read`, with what was switched on: columns, rows or points, which files of other programs show by their lines.

    Raises
    ------
    InputError
        As :func:`read`.
    """
    if Path(path).suffix.lower() not in READERS:
        result = _on_grid(path)
        return result.mask, result.pattern
    mask = read(path)
    return mask, lines_of(mask)
