"""Volumes as slices perpendicular to their readout.

A scan in 3D measures whole readouts, so that a mask chooses among the other two axes, ky and kz. After the inverse transform along the
readout every position of it is a problem in 2D of its own, and all of them have the same ky-kz mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from prom import options
from prom.datasets import measured
from prom.datasets.arrays import LEAST, Content, Spacing, arranged, check_axes_of_kspace, domain_of, numbers, refuse_parts, without_nan
from prom.datasets.measured import NEAR, SHARE
from prom.datasets.reading import pixel_spacing
from prom.errors import InputError
from prom.kspace.fourier import ifft2c

READ_OUT = ("read out across the slices", "read out along their columns", "read out along their rows")
SLAB = 64 * 2**20  # bytes of a volume that are worked on at once
EMPTY = 1e-10  # of the mean energy of a slice; single precision leaves 1e-13 of it where there is no object


def check(volume: bool, readout: int | None) -> None:
    """Refuse options that do not fit each other.

    Raises
    ------
    InputError
        Where ``volume`` is neither true nor false, ``readout`` is not 0, 1 or 2, or it is given without a volume.

    >>> check(True, 3)
    Traceback (most recent call last):
    prom.errors.InputError: readout 3: must be >= 0 and <= 2
    """
    if not isinstance(volume, bool):
        raise InputError(f"volume {volume!r}: must be true or false")
    if readout is None:
        return
    options.check("readout", readout, "[0, 2]", whole=True)
    if not volume:
        raise InputError(f"readout {readout}: is of volumes; give volume=true (--volume), or leave it out")


def turned(array: np.ndarray, readout: int) -> np.ndarray:
    """A view of ``(N, ..., H, W)`` with the readout's axis first and the other two last, in the order that they have.

    >>> [turned(np.zeros((3, 2, 5, 7)), readout).shape for readout in (0, 1, 2)]
    [(3, 2, 5, 7), (5, 2, 3, 7), (7, 2, 3, 5)]
    """
    last = array.ndim - 1
    return array.transpose((0, last - 1, last)[readout], *range(1, last - 1), *((last - 1, last), (0, last), (0, last - 1))[readout])


def sizes(spacing: Spacing, thickness: float | None, readout: int) -> Spacing:
    """(row, column) size in mm of a pixel of the slices perpendicular to the readout, or None where it is not known.

    >>> sizes((1.0, 2.0), 3.0, 1), sizes((1.0, 2.0), None, 0), sizes((1.0, 2.0), None, 2)
    ((3.0, 2.0), (1.0, 2.0), None)
    """
    lengths = [thickness, *(spacing or (None, None))]
    row, column = lengths[:readout] + lengths[readout + 1 :]
    return None if row is None or column is None else pixel_spacing(row, column)


def joined(paths: Sequence[Path], contents: Sequence[Content], thickness: float | None = None) -> Content:
    """The volume whose slices, all or one after the other, are in several files. ``thickness``: mm between them, where it is known.

    Raises
    ------
    InputError
        Where they are not images of one size, type, number of channels and size of pixels.
    """
    if len(contents) == 1:
        return contents[0] if thickness is None else replace(contents[0], thickness=thickness)
    arrays = [arranged(content) for content in contents]
    for path, content, array in zip(paths, contents, arrays, strict=True):
        same = array.shape[1:] == arrays[0].shape[1:] and array.dtype == arrays[0].dtype and content.axes == contents[0].axes
        if not same or content.spacing != contents[0].spacing:
            raise InputError(f"{paths[0]} and {path}: differ in size, type or size of pixels; slices of a volume must be alike")
    letters = "NCKHW" if "K" in contents[0].axes else "NCHW"
    stack = np.concatenate(arrays if "K" in letters else [array[:, :, 0] for array in arrays])
    labels = None if any(content.labels is None for content in contents) else np.concatenate([content.labels for content in contents])
    return replace(contents[0], array=stack, axes=letters, labels=labels, thickness=thickness)


def cut(
    path: Path,
    content: Content,
    readout: int | None = None,
    domain: str | None = None,
    empty: str = "refuse",
    nan: float | None = None,
    positions: tuple[int, int] | None = None,
) -> Content:
    r"""The slices of a volume perpendicular to its readout, as another file would have them.

    Images are turned. K-space, which has all three axes, is transformed along the readout,

    .. math:: y(r, k_1, k_2) = \frac{1}{\sqrt n} \sum_k e^{2 \pi i k r / n} \, y(k, k_1, k_2),

    centred and orthonormal, and stays k-space in the other two. A slice with less than 1e-10 of the mean energy of a slice holds rounding
    alone, and becomes 0.

    Parameters
    ----------
    path
        For messages.
    content
        A volume, whose axes are N (partitions; of raw data lines), H and W.
    readout
        0, 1 or 2: along N, H or W; None: what the format says, else 0.
    domain, empty, nan
        As in :func:`prom.datasets.folder.plan`. ``empty`` is of the two axes that stay k-space.
    positions
        From the first of these positions along the readout to before the second; None for all. Memory is needed for these and for
        a piece of the array.

    Returns
    -------
    Content
        ``(positions, C, K, ...)``, k-space as complex64, with what belongs to these slices.

    Raises
    ------
    InputError
        Where it has one slice only, or is k-space of 2D slices, undersampled, not complex or not finite.

    >>> marked = np.zeros((8, 9, 10))
    >>> marked[3, 4, 5] = 1
    >>> found = cut(Path("a.npy"), Content(marked, "NHW"), readout=2)
    >>> found.array.shape, found.axes, np.argwhere(found.array).tolist()
    ((10, 1, 8, 9), 'NCHW', [[5, 0, 3, 4]])
    """
    volume = arranged(content)
    if len(volume) < 2:
        raise InputError(f"{path}: has one slice of {volume.shape[3]} x {volume.shape[4]}, so it is no volume; leave out volume")
    ends = (len(volume) // 2, 0)  # where k-space has its energy, if it is centred and if it is not
    middle, first = (without_nan(replace(content, array=volume[place : place + 1], axes="NCKHW"), nan) for place in ends)
    domain_of(path, first, domain, sure=False)
    domain = domain_of(path, middle, domain)
    readout = content.readout if readout is None else readout
    array = turned(volume, readout)
    begin, end = positions or (0, len(array))
    if domain == "kspace":
        if array.dtype.kind != "c":
            raise InputError(f"{path}: values of type {array.dtype}; k-space must be complex, leave out domain or choose another array")
        check_axes_of_kspace(path, content)
        if not content.volume:
            _check_partitions(path, content, volume)
        array = _transformed(path, _without_empty(path, array, empty), begin, end, nan)
    else:
        refuse_parts(path, content, domain, volume)
        array = array[begin:end]
    return Content(
        array if "K" in content.axes else array[:, :, 0],
        "NCKHW" if "K" in content.axes else "NCHW",
        labels=None if content.labels is None else turned(content.labels, readout)[begin:end],
        spacing=sizes(content.spacing, content.thickness, readout),
        domain=domain,
        known_by=content.known_by,
    )


def _check_partitions(path: Path, content: Content, volume: np.ndarray) -> None:
    """Refuse k-space whose third axis is not of k-space too, as far as its values show it."""
    count = len(volume)
    lines = np.abs(numbers(volume[..., volume.shape[3] // 2, :]).astype(np.complex128))  # one for each partition
    energy = np.square(lines).sum(axis=(1, 2, 3))
    near = max(1, count // NEAR // 2)
    centre = energy[count // 2 - near : count // 2 + near + 1].sum()
    of_slices = content.keep is not None or "ismrmrd_header" in content.known_by
    if of_slices or count < LEAST or (np.isfinite(centre) and not centre > SHARE * energy.sum()):
        raise InputError(
            f"{path}: its k-space is of {count} slices in 2D, as far as can be seen: the centre along N has not most of its energy; "
            "volume=true needs k-space with all three axes, leave it out"
        )


def _without_empty(path: Path, kspace: np.ndarray, empty: str) -> np.ndarray:
    """K-space ``(readout, C, K, ...)`` without what is cut off of its other two axes. A readout is measured as a whole, or not at all."""
    middle = len(kspace) // 2
    left = measured.checked(path, np.ascontiguousarray(kspace[middle : middle + 1]), empty).shape[3:]
    inner = (slice(old // 2 - new // 2, old // 2 - new // 2 + new) for old, new in zip(kspace.shape[3:], left, strict=True))
    return kspace[(..., *inner)]


def _transformed(path: Path, kspace: np.ndarray, begin: int, end: int, nan: float | None) -> np.ndarray:
    """The inverse transform along the first axis at some of its positions, complex64: coil by coil, in pieces of `SLAB`."""
    count, _, _, rows, columns = kspace.shape
    rule = ifft2c(torch.eye(count, dtype=torch.complex128)[:, None])[:, 0].T[begin:end].to(torch.complex64).contiguous()
    result = np.empty((end - begin, *kspace.shape[1:]), np.complex64)
    total, step = 0.0, max(1, SLAB // (8 * count * columns))
    for channel, coil in np.ndindex(kspace.shape[1:3]):
        for row in range(0, rows, step):
            piece = numbers(kspace[:, channel, coil, row : row + step])
            if nan is not None:
                piece = np.where(np.isnan(piece), np.complex64(nan), piece)
            if not np.isfinite(piece).all():
                raise InputError(f"{path}: k-space has NaN or infinite values; repair or remove it, or give nan=0 to replace NaN")
            total += _energy(piece).sum()
            found = rule @ torch.tensor(piece.reshape(count, -1))
            result[:, channel, coil, row : row + step] = found.numpy().reshape(end - begin, *piece.shape[1:])
    for samples in result:
        if _energy(samples[None]) <= EMPTY * total / count:
            samples[...] = 0
    return result


def _energy(arrays: np.ndarray) -> np.ndarray:
    """The energy of each array of a stack, float64."""
    flat = arrays.reshape(len(arrays), -1)
    return np.array([np.vdot(one, one).real for one in flat], dtype=np.float64)


def slabs(content: Content, readout: int | None) -> list[tuple[int, int]]:
    """The pieces of `SLAB` in which a volume that is mapped from its file is read: of each the first position, and that after the last.

    >>> slabs(Content(np.zeros((8, 9, 10), np.float32), "NHW"), 0)
    [(0, 8)]
    """
    array = turned(arranged(content), content.readout if readout is None else readout)
    one = 8 * int(np.prod(array.shape[1:]))
    step = max(1, SLAB // one)
    return [(at, min(at + step, len(array))) for at in range(0, len(array), step)]
