"""Images as files: NIfTI and pictures of the magnitude, NumPy and HDF5 of the complex numbers."""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prom import options
from prom.errors import unknown
from prom.files import atomic

Voxel = tuple[float, float, float] | None
DESCRIPTION = 79  # bytes of a NIfTI header


def ending_of(path: str | os.PathLike) -> str:
    """Which of the formats the name of a file says.

    Raises
    ------
    InputError
        Where it says none.

    >>> ending_of("brain.NII.gz")
    '.nii.gz'
    """
    name = Path(path).name.lower()
    found = next((ending for ending in options.IMAGE_FORMATS if name.endswith(ending)), None)
    if found is None:
        raise unknown("image format", Path(path).suffix, options.IMAGE_FORMATS)
    return found


def write(path: str | os.PathLike, image: Tensor, voxel: Voxel = None, record: dict[str, object] | None = None, **more: Tensor) -> str:
    """Write images, and return what is in the file, in words.

    - ``.nii``, ``.nii.gz``: the magnitude as float32 (rows, columns, slices), with the sizes of voxels. How the head lay is not in the
      file: its qform and sform have the code 0, unknown, since raw data do not say for certain which way their axes point.
    - ``.npy``: complex64 ``(N, H, W)``.
    - ``.h5``: ``image``, complex64 ``(N, H, W)``, each of ``more`` by its name, ``voxel`` in mm as an attribute, and ``record`` as JSON.
    - ``.png``: the magnitude of all slices side by side in 8 bits, 0 black and the largest white.

    Parameters
    ----------
    image
        ``(N, H, W)`` complex.
    voxel
        mm along rows' and columns' index and from slice to slice, or None.
    record, more
        For ``.h5``: provenance, and further arrays. The header of NIfTI has the name of the reconstruction alone.

    Raises
    ------
    InputError
        Where the ending is not known or the file cannot be written.

    >>> write("image.docx", torch.ones(1, 2, 2))
    Traceback (most recent call last):
    prom.errors.InputError: image format '.docx' is not known (known: .h5, .nii, .nii.gz, .npy, .png)
    """
    ending, array = ending_of(path), image.to(torch.complex64).cpu().numpy()
    if ending in (".nii", ".nii.gz"):
        content = nifti(np.abs(array), voxel, str((record or {}).get("reconstruction", "")))
        with atomic(path) as temporary:
            temporary.write_bytes(gzip.compress(content, mtime=0) if ending == ".nii.gz" else content)
        size = " x ".join(f"{length:.3g}" for length in voxel) + " mm" if voxel else "unknown"
        return f"magnitude, voxels {size}, orientation unknown"
    if ending == ".png":
        with atomic(path) as temporary:
            Image.fromarray(side_by_side(np.abs(array))).save(temporary, format="PNG")
        return "magnitude, 0 black and the largest white"
    if ending == ".npy":
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
        return "complex (slices, rows, columns)"
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in {"image": array, **{name: values.cpu().numpy() for name, values in more.items()}}.items():
            file.create_dataset(name, data=values, fletcher32=True)
        file.attrs["record"] = np.bytes_(json.dumps(record or {}))
        if voxel:
            file.attrs["voxel"] = np.array(voxel)
    return f"complex image{''.join(f', {name}' for name in more)} and record"


def is_image(path: Path) -> bool:
    """Whether an HDF5 file was written by :func:`write`."""
    try:
        with h5py.File(path, "r") as file:
            return "record" in file.attrs and "image" in file
    except OSError:
        return False


def nifti(magnitude: np.ndarray, voxel: Voxel, description: str) -> bytes:
    """A NIfTI file of magnitudes (N, H, W)."""
    import nibabel  # here: a third of a second

    volume = nibabel.Nifti1Image(np.ascontiguousarray(magnitude.transpose(1, 2, 0), np.float32), None)
    volume.header.set_zooms(voxel or (1.0, 1.0, 1.0))
    volume.header.set_xyzt_units("mm" if voxel else "unknown")
    volume.header["descrip"] = f"prom {description}".encode()[:DESCRIPTION]
    return volume.to_bytes()


def side_by_side(magnitude: np.ndarray) -> np.ndarray:
    """Slices (N, H, W) in rows and columns, about as many of both, as 8-bit grey.

    >>> side_by_side(np.ones((3, 4, 5))).shape
    (8, 10)
    """
    count, height, width = magnitude.shape
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    cells = np.zeros((down * across, height, width))
    cells[:count] = magnitude / max(float(magnitude.max()), np.finfo(np.float32).tiny)
    sheet = cells.reshape(down, across, height, width).swapaxes(1, 2).reshape(down * height, across * width)
    return np.round(255 * sheet).astype(np.uint8)
