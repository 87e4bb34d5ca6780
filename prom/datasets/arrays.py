"""From an array as a file has it to slices: named axes, k-space, coils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prom.coils import combine, root_sum_of_squares
from prom.datasets.reading import check_declared
from prom.errors import InputError
from prom.fourier import ifft2c

FIRST = ("HW", "NHW", "NCHW")  # what the axes are, by their number, unless they are named: where slices come first
LAST = ("HW", "HWN", "HWNC")  # and where they come last
Spacing = tuple[float, float] | None  # (row, column) size of a pixel in mm, where known


@dataclass(frozen=True)
class Content:
    """An array as it is stored, what each of its axes is, labels (N, H, W) uint8 and pixel size in mm where the file has them.

    ``domain``: "image" or "kspace" where the file itself says which, else None.
    """

    array: np.ndarray
    axes: str
    labels: np.ndarray | None = None
    spacing: Spacing = None
    domain: str | None = None


def check_axes(
    path: Path, shape: Sequence[int], dtype: np.dtype, axes: str | None, default: Sequence[str], stored: int | None = None
) -> str:
    """A letter for each axis: ``axes`` if given, else what is usual (``default``: `FIRST` or `LAST`). Judges by the header alone.

    Raises
    ------
    InputError
        Where it cannot be images (see :func:`prom.datasets.reading.check_declared`), or has other axes than were named.

    >>> check_axes(Path("a.npy"), (3, 8, 8), np.dtype("f4"), None, FIRST, stored=768)
    'NHW'
    """
    if axes is None:
        if len(shape) > len(default) + 1 and dtype.kind in "biufc":
            raise InputError(f"{path}: array of shape {tuple(shape)}; must have 2, 3 or 4 axes, or named ones, e.g. axes='HWNKC'")
        check_declared(path, shape, dtype, stored)
        return default[len(shape) - 2]
    once = [axes.count(letter) for letter in "HWNCK"]
    if (
        once[:2] != [1, 1]
        or max(once) > 1
        or set(axes) - set("HWNCK1")
        or len(axes) != len(shape)
        or any(letter == "1" and length != 1 for letter, length in zip(axes, shape, strict=True))
    ):
        example = default[len(shape) - 2] if 2 <= len(shape) <= 4 else "HWNKC".ljust(len(shape), "1")
        raise InputError(
            f"{path}: axes {axes!r} for an array of shape {tuple(shape)}; name every axis, each once: H, W, N (slices), C (channels), "
            f"K (coils), or 1 for one of length 1, e.g. {example!r}"
        )
    check_declared(path, shape, dtype, stored, axes=(len(axes),))
    return axes


def arranged(content: Content) -> np.ndarray:
    """A view with the axes (N, C, K, H, W), of length 1 where there was none.

    >>> arranged(Content(np.zeros((9, 7, 1, 4, 3)), "HW1CN")).shape
    (3, 4, 1, 9, 7)
    """
    array = content.array.squeeze(tuple(i for i, letter in enumerate(content.axes) if letter == "1"))
    letters = content.axes.replace("1", "")
    array = array.transpose([letters.index(letter) for letter in "NCKHW" if letter in letters])
    return array[tuple(slice(None) if letter in letters else None for letter in "NCKHW")]


def numbers(array: np.ndarray) -> np.ndarray:
    """complex64 where complex, float32 where not."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused with its slice number
        return np.ascontiguousarray(array, dtype=np.complex64 if np.iscomplexobj(array) else np.float32)


def slices(path: Path, content: Content, domain: str, maps: Tensor | None) -> np.ndarray:
    """Images (N, C, H, W), float32 or complex64: of k-space its inverse Fourier transform, of coil images one image.

    ``maps``: coil sensitivities (K, H, W), or None. Raises InputError where k-space is not complex, a value that is to be combined not
    finite, or the sensitivities of another shape.
    """
    array, coils = arranged(content), "K" in content.axes
    if domain == "kspace" and array.dtype.kind != "c":
        raise InputError(f"{path}: values of type {array.dtype}; k-space must be complex, leave out domain or choose another array")
    if domain == "image" and not coils:
        stack = numbers(array[:, :, 0])
        return stack if stack.flags.writeable else stack.copy()  # of a mapped file
    result = np.empty((*array.shape[:2], *array.shape[3:]), np.float32 if coils and maps is None else np.complex64)
    for number, stored in enumerate(array):  # slice by slice: with coils, a subject's memory should not be needed twice
        _finite(path, number, stored)  # a combination could hide it
        images = torch.tensor(numbers(stored))
        images = ifft2c(images) if domain == "kspace" else images
        if coils:
            try:
                images = root_sum_of_squares(images) if maps is None else combine(images, maps)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        result[number] = (images if coils else images[:, 0]).numpy()
    return result


def informative(path: Path, stack: np.ndarray, skip_constant: bool) -> np.ndarray:
    """The numbers of the slices that are not constant. Raises InputError for one that is, unless to be skipped, or is not finite."""
    kept = []
    for i, image in enumerate(stack):
        _finite(path, i, image)
        if (image != image[:, :1, :1]).any():
            kept.append(i)
        elif not skip_constant:
            raise InputError(f"{path}: slice {i} is constant, it has no information; remove it or use skip_constant=True")
    return np.array(kept, dtype=int)


def _finite(path: Path, number: int, image: np.ndarray) -> None:
    """Raises the error for a slice with values that are not."""
    if not np.isfinite(image).all():
        raise InputError(f"{path}: slice {number} has NaN or infinite values; repair or remove it")
