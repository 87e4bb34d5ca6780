"""Is it k-space, and was all of it measured? What an array itself says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prom.errors import InputError

NEAR = 16  # the central (1 / NEAR of the height) x (1 / NEAR of the width)
SMALLEST = 16  # rows or columns; fewer are too few to decide
SHARE = 0.5  # of the energy, above which it lies there in k-space only
GAPS = 0.1  # of a slice's points, between its lines, may be 0: of smooth emulated images many are, by rounding
EMPTY = ("refuse", "crop", "keep")
HALVES = (("centre", ()), ("corner", (-2, -1)), ("edge", (-2,)), ("edge", (-1,)))  # where k-space may have its centre, and what moves it
SOME = 16  # slices that are looked at; a file may have thousands
CENTRE = 8  # a 1/8 of each axis is its centre
CERTAIN = 5  # so many times the share of energy makes it certain which domain has its energy in the centre


def looks_like_kspace(array: np.ndarray) -> str | None:
    """Where the energy of most slices has its peak as no image has it: "centre", "edge", "corner", or None.

    ``array``: (..., H, W), real or complex. The peak is at ``[H // 2, W // 2]``, to within two points, or as near to where the FFT begins
    along one axis ("edge") or both ("corner"), and the points around it, one in 256 of all, but 3 x 3 or 5 x 5 at least, hold more than
    half of the energy.

    >>> y, x = np.mgrid[-1:1:64j, -1:1:64j]
    >>> disc = (np.hypot(x, y) < 0.6).astype(float)
    >>> looks_like_kspace(disc), looks_like_kspace(np.fft.fft2(disc)), looks_like_kspace(np.fft.fftshift(np.fft.fft2(disc)))
    (None, 'corner', 'centre')
    """
    height, width = array.shape[-2:]
    if min(height, width) < SMALLEST:
        return None  # the centre of a small picture may well be bright
    votes = {"centre": 0, "corner": 0, "edge": 0}
    chosen = _some(array)
    for image in chosen:
        with np.errstate(over="ignore", invalid="ignore"):
            magnitude = np.abs(image.astype(np.complex128))
        peak = magnitude.max()
        if not 0 < peak < np.inf:
            continue
        energy = (magnitude / peak) ** 2
        total = energy.sum()
        for where, axes in HALVES:
            moved = np.fft.fftshift(energy, axes)
            row, column = np.unravel_index(moved.argmax(), moved.shape)
            near = abs(int(row) - height // 2) <= 2 and abs(int(column) - width // 2) <= 2
            rows, columns = (max(1 if n < 32 else 2, n // NEAR // 2) for n in (height, width))
            centre = moved[height // 2 - rows : height // 2 + rows + 1, width // 2 - columns : width // 2 + columns + 1]
            votes[where] += bool(near and centre.sum() > SHARE * total)
    return next((where for where, count in votes.items() if 2 * count > len(chosen)), None)


def surely(array: np.ndarray) -> str | None:
    """What complex numbers (..., H, W) are: "image" or "kspace", or None where that is not certain.

    K-space has its energy in its centre, wherever the FFT may have put that, and an image in that of its Fourier transform. It is certain
    where the one share is five times the other, of slices of at least 16 rows and columns. They count by their energy, so that empty ones
    do not.

    >>> y, x = np.mgrid[-1:1:64j, -1:1:64j]
    >>> disc = (np.hypot(x, y) < 0.6) * np.exp(3j * x)
    >>> surely(disc), surely(np.fft.fft2(disc)), surely(np.exp(1j * np.random.default_rng(0).random((64, 64))) * (x > 0.9) * (y > 0.9))
    ('image', 'kspace', None)
    """
    found = np.zeros(1 + len(HALVES))
    if min(array.shape[-2:]) < SMALLEST:
        return None
    for image in _some(array):  # one by one, for memory
        if not (energy := np.square(np.abs(image.astype(np.complex128))).sum()) < np.inf:
            continue  # its reader says what is wrong
        found += [energy * central_shares(image)[1], *(energy * _central_share(np.fft.fftshift(image, axes)) for _, axes in HALVES)]
    other, itself = found[0], found[1:].max()
    if max(itself, other) <= CERTAIN * min(itself, other):  # so that nothing but zeros is nothing
        return None
    return "kspace" if itself > other else "image"


def _some(array: np.ndarray) -> np.ndarray:
    """A few slices (..., H, W), one after the other."""
    stack = array.reshape(-1, *array.shape[-2:])
    return stack[:: max(1, len(stack) // SOME)]


def central_shares(array: np.ndarray) -> tuple[float, float]:
    """The share of energy in the centre of ``(..., H, W)``, and in that of its transform: k-space has a high one itself, images the other.

    >>> [round(share, 2) for share in central_shares(np.ones((16, 16)))]
    [0.04, 1.0]
    """
    transformed = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(array, axes=(-2, -1))), axes=(-2, -1))
    return _central_share(array), _central_share(transformed)


def _central_share(array: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.abs(array.astype(np.complex128)) ** 2
        centre = tuple(slice(n // 2 - n // (2 * CENTRE), n // 2 + n // (2 * CENTRE) + 1) for n in array.shape[-2:])
        return float(energy[(..., *centre)].sum() / max(energy.sum(), np.finfo(float).tiny))


def filled(array: np.ndarray) -> np.ndarray:
    """Which points of k-space (N, ..., H, W) have a value that is not 0, in any channel or coil: (N, H, W) bool.

    >>> filled(np.eye(3)[None, None] * 1j).sum()
    np.int64(3)
    """
    points = np.zeros((len(array), *array.shape[-2:]), bool)
    for found, stored in zip(points, array, strict=True):  # one slice at a time: all at once would need as much memory again
        for image in stored.reshape(-1, *array.shape[-2:]):
            found |= image != 0
    return points


def checked(path: Path, array: np.ndarray, empty: str) -> np.ndarray:
    """k-space (N, ..., H, W) that was fully sampled; what is at fault is named with its share.

    ``empty``: "refuse"; "crop" cuts off empty rows and columns at the edges, as zero-padding leaves them, the same number on both sides
    of the centre; "keep" takes zeros for measurements.

    Raises
    ------
    InputError
        Where rows, columns, or more than a tenth of the points of a slice are empty, and they are not to be cut off or kept.

    >>> padded = np.pad(np.ones((1, 6, 8), np.complex64), ((0, 0), (0, 0), (4, 4)))
    >>> checked(Path("a.npy"), padded, "crop").shape
    (1, 6, 8)
    """
    if empty == "keep":
        return array
    points = filled(array)
    if not points.any():
        raise InputError(f"{path}: its k-space is empty; remove it")
    lines = points.any(axis=(0, 2)), points.any(axis=(0, 1))
    inner = tuple(_middle(line) for line in lines)
    slices = [measured[inner] for measured in points if measured.any()]
    gaps = any(1 - one.mean() > GAPS or not (one.any(axis=0).all() and one.any(axis=1).all()) for one in slices)
    counts = [
        f"{int((~line).sum())} of {len(line)} {name}" for line, name in zip(lines, ("rows", "columns"), strict=True) if not line.all()
    ]
    share = f"{', '.join(counts) or 'points in all rows and columns'} empty, {1 - points.mean():.0%} of it"
    if gaps:
        raise InputError(
            f"{path}: k-space with {share}, is undersampled; a mask is learnt from what was fully sampled, use other files "
            "(empty=keep takes the zeros for measurements)"
        )
    if not counts:
        return array
    if empty == "crop":
        return array[(..., *inner)]
    raise InputError(
        f"{path}: k-space with {share}, all at its edges, is zero-padded; empty=crop cuts them off, so that a budget counts what was "
        "measured (empty=keep takes the zeros for measurements)"
    )


def _middle(line: np.ndarray) -> slice:
    """The part that leaves out the empty ends, of m samples of which [m // 2] is the centre, [n // 2], again.

    >>> [_middle(np.isin(np.arange(8), measured)) for measured in ([2, 3, 4, 5], [3, 4, 5], [0, 4], [4, 7])]
    [slice(2, 6, None), slice(3, 6, None), slice(0, 8, None), slice(1, 8, None)]
    """
    centre, (found,) = len(line) // 2, np.nonzero(line)
    before, after = centre - int(found[0]), int(found[-1]) - centre
    return slice(centre - before, centre + before) if before > after else slice(centre - after, centre + after + 1)
