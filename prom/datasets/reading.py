"""What every reader does before it trusts a file: stay in the folder, believe no header, and say which file is at fault."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prom.errors import InputError

if TYPE_CHECKING:
    from nibabel import Nifti1Image

LARGEST = 64 * 2**30  # bytes a file may declare; more is a damaged header rather than a slice stack
EXPANSION = 1100  # deflate shrinks by 1032 at most, so whatever declares more than this many times its bytes on disk is damaged
SUSPICIOUS, DENSE = 512 * 2**20, 100  # more bytes than these in memory must be no more than DENSE times those on disk
SMALL_TEXT = 64 * 2**20  # bytes of a text file (json, csv, cfg)


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); take it from the official archive") from error


def inside(path: Path, root: Path) -> Path:
    """The path itself, where what it points to lies in the folder ``root`` (which may itself be a link).

    Raises
    ------
    InputError
        Where a link leads out of the folder or nowhere, as one of git-annex whose content was not downloaded.

    >>> inside(Path("/data/ACDC/a.nii"), Path("/data/ACDC")).as_posix()
    '/data/ACDC/a.nii'
    """
    target = Path(os.path.realpath(path))  # of links in a circle too, for which Path.resolve has an error of its own
    if "annex/objects" in target.as_posix() and not path.exists():
        raise InputError(f"{path}: is a link of git-annex, the file itself was not downloaded; run git annex get")
    if not target.is_relative_to(root.resolve()):
        raise InputError(f"{path}: is a link to {target}, outside the folder; copy what it points to into the folder")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a link to {os.readlink(path)}, which is not there; restore that file or remove the link")
    return path


def damaged(path: Path, kind: str, error: Exception) -> InputError:
    """The error for a file that its library cannot read: one line, whatever the library said.

    >>> damaged(Path("a.nii.gz"), "NIfTI", EOFError("ended early"))
    InputError('a.nii.gz: cannot be read as NIfTI (ended early); it may be damaged, replace or remove it')
    """
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{path}: cannot be read as {kind} ({cause}); it may be damaged, replace or remove it")


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """What a library raises within, a dozen kinds for a damaged file, becomes :func:`damaged`; our own errors pass.

    >>> with decoding(Path("a.nii.gz"), "NIfTI"):
    ...     raise EOFError("ended early")
    Traceback (most recent call last):
    prom.errors.InputError: a.nii.gz: cannot be read as NIfTI (ended early); it may be damaged, replace or remove it
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, kind, error) from error


def check_declared(path: Path, shape: Sequence[int], dtype: np.dtype, stored: int | None = None, axes: Sequence[int] = (2, 3, 4)) -> None:
    """Refuse what cannot be images by the header alone, before memory is allocated.

    Parameters
    ----------
    path
        For the message.
    shape, dtype
        What the file declares.
    stored
        How many bytes there are of it, compressed or not; by default the size of the file.
    axes
        The numbers of axes that are allowed.

    Raises
    ------
    InputError
        Where it is not numbers, has another number of axes, is empty, or declares more than it can hold.
    """
    if dtype.kind not in "biufc":
        raise InputError(f"{path}: values of type {dtype}; must be real or complex numbers")
    if len(shape) not in axes:
        allowed = " or ".join(", ".join(map(str, axes)).rsplit(", ", 1))
        raise InputError(f"{path}: array of shape {tuple(shape)}; must have {allowed} axes")
    if min(shape) <= 0:
        raise InputError(f"{path}: array of shape {tuple(shape)} is empty; remove it")
    size = math.prod(int(n) for n in shape) * dtype.itemsize
    stored = path.stat().st_size if stored is None else stored
    in_memory = size // dtype.itemsize * max(dtype.itemsize, 4)  # float32
    if size > min(LARGEST, EXPANSION * stored + 2**20) or (in_memory > SUSPICIOUS and size > DENSE * stored):
        raise InputError(
            f"{path}: declares shape {tuple(shape)}, {size / 2**30:.3g} GiB, but holds {stored / 2**20:.3g} MiB; "
            f"it is damaged{', or split it' if size > LARGEST else ' or almost empty'}"
        )


def grey(path: Path, array: np.ndarray) -> np.ndarray:
    """A colour image (..., channels) with equal channels as a grey one (...).

    Raises
    ------
    InputError
        Where the channels differ.

    >>> grey(Path("a.png"), np.ones((4, 6, 3))).shape
    (4, 6)
    """
    if (array != array[..., :1]).any():
        raise InputError(f"{path}: is a colour image whose channels differ; convert it to grey")
    return array[..., 0]


def pixel_spacing(row: float, column: float) -> tuple[float, float] | None:
    """(row, column) size of a pixel in mm, or None where the numbers are none.

    >>> pixel_spacing(0.5, 2), pixel_spacing(0, 2)
    ((0.5, 2.0), None)
    """
    row, column = float(row), float(column)
    return (row, column) if 0 < row < math.inf and 0 < column < math.inf else None


def read_text(path: Path, what: str) -> str:
    """A small UTF-8 text file.

    Raises
    ------
    InputError
        Where it is missing, unreadable, not text, or larger than any such file.
    """
    try:
        if path.stat().st_size > SMALL_TEXT:
            raise InputError(f"{path}: has {path.stat().st_size / 2**20:.0f} MiB, too much for {what}; replace it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: cannot be read as {what} ({cause})") from error


def read_nifti(path: Path, axes: Sequence[int], slices: slice = slice(None)) -> tuple[np.ndarray, tuple[float, ...]]:
    """The voxels of a NIfTI file, scaled by its slope and intercept, and the voxel sizes (mm).

    ``slices`` picks along axis 2 before memory is allocated.

    Raises
    ------
    InputError
        Where the file is missing, damaged, or not of a number of axes in ``axes``.
    """
    image = _open_nifti(path, axes)
    picked = (slice(None), slice(None), slices)[: len(image.shape)]
    with decoding(path, "NIfTI"):
        return np.asanyarray(image.dataobj[picked]), tuple(float(zoom) for zoom in image.header.get_zooms())


def nifti_shape(path: Path, axes: Sequence[int]) -> tuple[int, ...]:
    """The shape that a NIfTI file declares, without reading its voxels. Raises as :func:`read_nifti`."""
    return tuple(_open_nifti(path, axes).shape)


def _open_nifti(path: Path, axes: Sequence[int]) -> Nifti1Image:
    import nibabel  # here: a third of a second, which every command would pay

    if not path.is_file():
        raise InputError(f"{path}: is missing; take it from the official archive")
    with decoding(path, "NIfTI"):
        image = nibabel.load(path)
        check_declared(path, image.shape, image.get_data_dtype(), axes=axes)
    return image


def check_values(path: Path, images: np.ndarray, numbers: Sequence[int]) -> None:
    """Refuse slices that are not finite, or constant, by their number in the file. ``images``: (N, ...), ``numbers``: N."""
    for index, image in zip(numbers, torch.as_tensor(images), strict=True):
        if not torch.isfinite(image).all():
            raise InputError(f"{path}: slice {index} has NaN or infinite values; repair or remove it")
        if (image == image.flatten()[0]).all():
            raise InputError(f"{path}: slice {index} is constant, it has no information; remove it")


def resize_and_crop(image: Tensor, size: int, mode: str) -> Tensor:
    """(C, h, w) to (C, size, size) as torchvision's ``Resize(size), CenterCrop(size)`` does, which the authors use.

    The shorter edge becomes ``size`` without antialiasing, then the centre is cut out. ``mode``: "bilinear", or "nearest-exact" for labels
    (PyTorch's "nearest" takes the pixel at the corner, and so moves them by half a pixel).

    >>> resize_and_crop(torch.rand(1, 20, 30), 40, "bilinear").shape
    torch.Size([1, 40, 40])
    """
    height, width = image.shape[-2:]
    short = min(height, width)
    resized = [int(size * height / short), int(size * width / short)]
    options = {"align_corners": False} if mode == "bilinear" else {}
    with one_thread():
        image = functional.interpolate(image[None], size=resized, mode=mode, **options)[0]
    top, left = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return image[:, top : top + size, left : left + size].contiguous()


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch works in one thread within. Interpolation rounds otherwise with another number of threads, and data must be the same bits
    whoever reads them: the fingerprints of all results hang on it.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
