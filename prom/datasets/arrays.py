"""From an array as a file has it to slices: named axes, k-space, coils."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prom.datasets import measured
from prom.datasets.reading import check_declared
from prom.errors import InputError
from prom.kspace.coils import (
    CALIBRATION,
    CROP,
    CROPS,
    LEAST_EXPLAINED,
    combine,
    compression,
    estimated,
    explained,
    mixed,
    noise_level,
    root_sum_of_squares,
    with_phase,
)
from prom.kspace.fourier import fft2c, ifft2c

FIRST = ("HW", "NHW", "NCHW")  # what the axes are, by their number, unless they are named: where slices come first
LAST = ("HW", "HWN", "HWNC")  # and where they come last
LETTERS = "HWNCKRT1"
LEAST = 8  # rows or columns; what has fewer is more likely another axis
LONGEST = 4  # times the shorter side: likewise
AIR = 2.0  # times the noise's energy in the centre of k-space: less is no object
MOST_COILS = 128  # what there are more of is slices
Spacing = tuple[float, float] | None  # (row, column) size of a pixel in mm, where known
# A letter for each axis, or what finds them from the path, the shape and the usual ones, or None for the usual ones.
Axes = str | Callable[[Path, Sequence[int], str], str] | None


@dataclass(frozen=True)
class Content:
    """An array as it is stored, what each of its axes is, labels (N, H, W) uint8 and pixel size in mm where the file has them.

    ``domain`` "image" or "kspace" where the format or the array's name says it, else None; ``known_by`` what says that it is k-space.
    ``keep`` (rows, columns) to which images are cut, around their centre, where the file says that the rest is readout oversampling.
    ``thickness``: mm from one slice to the next, where known. ``volume``: whether the format says that N is an axis of one volume, of
    k-space its partitions, of raw data its lines; ``readout``: 0, 1 or 2 where it says that the readout of a volume is along N, H or W,
    else 0. ``guessed``: whether the axes are the usual ones, which neither the file nor anybody named. ``steps``: the least and the
    greatest distance of neighbouring slices, where positions are known, and their unit. ``name``: of the array, where the file has names.
    """

    array: np.ndarray
    axes: str
    labels: np.ndarray | None = None
    spacing: Spacing = None
    domain: str | None = None
    keep: tuple[int, int] | None = None
    known_by: str = "its name"
    thickness: float | None = None
    volume: bool = False
    readout: int = 0
    guessed: bool = False
    steps: tuple[float, float, str] | None = None
    name: str = ""

    @property
    def frames(self) -> int:
        """Of a series in time how many frames it has, T; else 0."""
        return self.array.shape[self.axes.index("T")] if "T" in self.axes else 0


def check_axes(path: Path, shape: Sequence[int], dtype: np.dtype, axes: Axes, default: Sequence[str], stored: int | None = None) -> str:
    """A letter for each axis: ``axes`` if given, else what is usual (``default``: `FIRST` or `LAST`). Looks at the header alone.

    What is usual is taken where it makes slices, no side below 8 or four times the other, and where of three axes the first two make no
    square (of `LAST` the last two, at least twice as long as the first); of four axes a last one of 3 or 4 is channels, and a last one of 1
    is none.
    Else the axes must be named, for there is more than one way to understand them.

    Raises
    ------
    InputError
        Where it cannot be images (see :func:`prom.datasets.reading.check_declared`), has other axes than were named, or unclear ones.

    >>> check_axes(Path("a.npy"), (3, 8, 8), np.dtype("f4"), None, FIRST, stored=768)
    'NHW'
    >>> check_axes(Path("a.npy"), (3, 8, 9, 2), np.dtype("f4"), None, FIRST, stored=1728)
    Traceback (most recent call last):
    prom.errors.InputError: a.npy: array of shape (3, 8, 9, 2): as N, C, H, W it had slices of 9 x 2; name its axes, e.g. axes='NHWR' \
(R: real and imaginary part) or 'NHWC'
    """
    if axes is None:
        if len(shape) > len(default) + 1 and dtype.kind in "biufc":
            raise InputError(f"{path}: array of shape {tuple(shape)}; must have 2, 3 or 4 axes, or named ones, e.g. axes='HWNKC'")
        check_declared(path, shape, dtype, stored)
        return _usual(path, tuple(shape), dtype, default)
    axes = axes(path, shape, default[-1]) if callable(axes) else axes
    once = [axes.count(letter) for letter in "HWNCKRT"]
    if (
        once[:2] != [1, 1]
        or max(once) > 1
        or set(axes) - set(LETTERS)
        or len(axes) != len(shape)
        or any(letter == "1" and length != 1 for letter, length in zip(axes, shape, strict=True))
    ):
        example = default[len(shape) - 2] if default and 2 <= len(shape) <= 4 else "HWNKC".ljust(len(shape), "1")
        raise InputError(
            f"{path}: axes {axes!r} for an array of shape {tuple(shape)}; name every axis, each once: H, W, N (slices), T (frames in "
            f"time), C (channels), K (coils), R (real and imaginary part), or 1 for one of length 1, e.g. {example!r}"
        )
    if "R" in axes and (shape[axes.index("R")] != 2 or dtype.kind == "c"):
        raise InputError(f"{path}: axes {axes!r}: R, of {dtype}, has length {shape[axes.index('R')]}; must be 2, of real numbers")
    check_declared(path, shape, dtype, stored, axes=(len(axes),))
    return axes


def _usual(path: Path, shape: tuple[int, ...], dtype: np.dtype, default: Sequence[str]) -> str:
    first, axes = default is FIRST, default[len(shape) - 2]
    if first and len(shape) > 2 and shape[-1] == 1 and _sides_fit(shape[-3:-1]):
        return "NHW1"[-len(shape) :]
    if first and len(shape) == 4 and shape[-1] in (3, 4) and dtype.kind != "c" and _sides_fit(shape[1:3]):
        return "NHWC"
    sides = shape[axes.index("H")], shape[axes.index("W")]
    turned = len(shape) == 3 and max(shape) >= 2 * LEAST  # a square of the two axes that would not be the sides: they rather are
    turned = turned and (shape[0] == shape[1] != shape[2] if first else shape[1] == shape[2] >= 2 * shape[0])
    if _sides_fit(sides) and not turned:
        return axes
    letters = "NHWR"[-len(shape) :]
    if shape[-1] == 2 and dtype.kind != "c" and len(shape) > 2:
        example = f"axes={letters!r} (R: real and imaginary part) or {letters[:-1] + 'C'!r}"
    else:
        example = "axes=" + repr({3: LAST if first else FIRST, 4: ("", "", "NHWC")}.get(len(shape), default)[len(shape) - 2])
    raise InputError(
        f"{path}: array of shape {shape}: as {', '.join(axes)} it had slices of {sides[0]} x {sides[1]}; name its axes, e.g. {example}"
    )


def _sides_fit(sides: Sequence[int]) -> bool:
    return min(sides) >= LEAST and max(sides) < LONGEST * min(sides)


def arranged(content: Content) -> np.ndarray:
    """A view with the axes (N, C, K, H, W), of length 1 where there was none; a copy where real and imaginary part are joined.

    The frames of a series are slices here, those of one series one after the other: N times T of them.

    >>> arranged(Content(np.zeros((9, 7, 1, 4, 3)), "HW1CN")).shape
    (3, 4, 1, 9, 7)
    >>> arranged(Content(np.arange(6).reshape(1, 1, 3, 2), "HWNT"))[:, 0, 0, 0, 0].tolist()            # T = 2
    [0, 1, 2, 3, 4, 5]
    """
    array, letters = content.array, content.axes
    if "R" in letters:
        pair = np.moveaxis(array, letters.index("R"), 0)
        joined = np.empty(pair.shape[1:], np.result_type(array.dtype, np.complex64))
        joined.real, joined.imag = pair
        array, letters = joined, letters.replace("R", "")
    array = array.squeeze(tuple(i for i, letter in enumerate(letters) if letter == "1"))
    letters = letters.replace("1", "")
    array = array.transpose([letters.index(letter) for letter in "NTCKHW" if letter in letters])
    array = array[tuple(slice(None) if letter in letters else None for letter in "NTCKHW")]
    return array[:, 0] if "T" not in letters else array.reshape(-1, *array.shape[2:])


def numbers(array: np.ndarray) -> np.ndarray:
    """complex64 where complex, float32 where not."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused with its slice number
        return np.ascontiguousarray(array, dtype=np.complex64 if np.iscomplexobj(array) else np.float32)


def domain_of(path: Path, content: Content, domain: str | None = None, sure: bool = True) -> str:
    """ "image" or "kspace": what was given, else what the file says, else what its values look like.

    ``sure``: whether complex values must be those of one domain beyond doubt; a single slice of a volume may hold none.

    Raises
    ------
    InputError
        Where nothing says it and the values may be k-space, where they are not what was said, or where k-space is not centred.
    """
    if domain == "kspace" and content.domain == "image":
        raise InputError(f"{path}: domain 'kspace', but it is images; leave it out")
    known = domain or content.domain
    if known == "image":
        return "image"
    array = arranged(content)
    where = measured.looks_like_kspace(array)
    if where in ("corner", "edge"):
        place = "in the corners" if where == "corner" else "at two edges"
        raise InputError(
            f"{path}: has its energy {place}, as k-space that is not centred; move DC to [H // 2, W // 2] (numpy.fft.fftshift) "
            "and give domain=kspace, or, if these are images, domain=image"
        )
    if where and not known:
        raise InputError(f"{path}: has its energy at the centre, as k-space has; give domain=kspace, or, if these are images, domain=image")
    if sure and array.dtype.kind == "c":
        seems = measured.surely(array)
        wrong = seems == "image" if known else seems != "image"
        if wrong:
            for number, image in enumerate(array):
                _finite(path, number, image)  # which would hide what they are
        if wrong and known:
            why = "" if domain else f", which {content.known_by} says that it is"
            raise InputError(f"{path}: has its energy all over, as images have, not k-space{why}; give domain=image")
        if wrong and array.any():
            raise InputError(f"{path}: whether its complex numbers are images or k-space is unclear; give domain=image or domain=kspace")
    return known or "image"


def without_nan(content: Content, nan: float | None) -> Content:
    """The same with ``nan`` in place of values that are NaN, unless that is None.

    >>> without_nan(Content(np.array([[1, np.nan]]), "HW"), 0).array
    array([[1., 0.]])
    """
    array = content.array
    if nan is None or array.dtype.kind not in "fc":
        return content
    return replace(content, array=np.where(np.isnan(array), np.asarray(nan, array.dtype), array))


def check_axes_of_kspace(path: Path, content: Content, slices: int = 1) -> None:
    """Refuse k-space whose axes nobody named where ``slices``, or channels, may be coils.

    >>> check_axes_of_kspace(Path("a.npy"), Content(np.ones((4, 9, 8), np.complex64), "NHW", guessed=True), 4)
    Traceback (most recent call last):
    prom.errors.InputError: a.npy: k-space of shape (4, 9, 8): whether it is of slices or of coils is unclear; give axes=NHW or axes=KHW
    """
    axes = content.axes
    channels = arranged(content).shape[1]
    if content.guessed and (channels > 1 or 1 < slices <= MOST_COILS):
        letter, what = ("C", "channels") if channels > 1 else ("N", "slices")
        raise InputError(
            f"{path}: k-space of shape {content.array.shape}: whether it is of {what} or of coils is unclear; give axes={axes} or "
            f"axes={axes.replace(letter, 'K')}" + (f" or axes={axes.replace('N', 'K').replace('C', 'N')}" if channels > 1 else "")
        )


def slices(
    path: Path,
    content: Content,
    domain: str | None = None,
    maps: Tensor | None = None,
    empty: str = "refuse",
    nan: float | None = None,
) -> np.ndarray:
    """Images (N, C, H, W), float32 or complex64: of k-space its inverse Fourier transform, of coil images one image.

    ``domain`` None: see :func:`domain_of`. ``maps``: coil sensitivities (K, H, W) or (N, K, H, W), or None. ``empty``: see
    :func:`prom.datasets.measured.checked`. ``nan``: what takes the place of values that are NaN. Raises InputError where k-space is not
    complex, a value that is to be combined not finite, or the sensitivities of another shape.
    """
    coils = "K" in content.axes
    array, domain, sides = _checked(path, content, domain, empty, nan)
    if domain == "image" and not coils:
        stack = numbers(array[:, :, 0])
        return stack if stack.flags.writeable else stack.copy()  # of a mapped file
    result = np.empty((*array.shape[:2], *sides), np.float32 if coils and maps is None else np.complex64)
    for number, stored in enumerate(array):  # slice by slice: with coils, a subject's memory should not be needed twice
        _finite(path, number, stored)  # a combination could hide it
        images = torch.tensor(numbers(stored))
        images = centred(ifft2c(images) if domain == "kspace" else images, sides)
        if coils:
            try:
                images = root_sum_of_squares(images) if maps is None else combine(images, maps if maps.ndim == 3 else maps[number])
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        result[number] = (images if coils else images[:, 0]).numpy()
    return result


def _checked(path: Path, content: Content, domain: str | None, empty: str, nan: float | None) -> tuple[np.ndarray, str, Sequence[int]]:
    """The array (N, C, K, H, W), its domain, and the rows and columns of its images."""
    content = without_nan(content, nan)
    array, domain = arranged(content), domain_of(path, content, domain)
    if domain == "kspace" and array.dtype.kind != "c":
        two = any(content.array.shape[content.axes.index(letter)] == 2 for letter in "CN" if letter in content.axes)
        pair = f", give axes={_as_parts(content.axes, array)} where the two are real and imaginary part" * two
        raise InputError(f"{path}: values of type {array.dtype}; k-space must be complex, leave out domain or choose another array{pair}")
    refuse_parts(path, content, domain, array)
    sides = content.keep or array.shape[3:]
    if domain == "kspace":
        whole, array = array.shape[3:], measured.checked(path, array, empty)
        check_axes_of_kspace(path, content, len(array))
        sides = [round(side * left / before) for side, left, before in zip(sides, array.shape[3:], whole, strict=True)]
    return array, domain, sides


def refuse_parts(path: Path, content: Content, domain: str, array: np.ndarray) -> None:
    """Raise InputError where two channels, or two slices, with negative values may be the parts of complex numbers: (N, C, K, H, W)."""
    if domain == "image" and content.guessed and 2 in array.shape[:2] and array.dtype.kind in "if" and (array < 0).any():
        what = "channels" if array.shape[1] == 2 else "slices"
        way = f"give axes={content.axes} or axes={_as_parts(content.axes, array)}"
        raise InputError(f"{path}: whether 2 with negative values are {what} or real and imaginary part is unclear; {way}")


def _as_parts(axes: str, array: np.ndarray) -> str:
    """The axes of an array (N, C, K, H, W), of which two channels, or else two slices, are real and imaginary part."""
    return axes.replace("C", "R") if array.shape[1] == 2 else axes.replace("N", "R").replace("C", "1" if array.shape[1] == 1 else "N")


def coil_kspace(path: Path, content: Content, domain: str | None = None, empty: str = "refuse", nan: float | None = None) -> Tensor:
    """k-space of each coil, (N, K, H, W) complex64: of k-space as it is stored, without readout oversampling; of images their transform.

    For the arguments see :func:`slices`. k-space without an axis of coils is that of one.

    Raises
    ------
    InputError
        Where there are several channels, images without coils or without a phase, or a value is not finite.
    """
    array, domain, sides = _checked(path, content, domain, empty, nan)
    if array.shape[1] != 1:
        raise InputError(f"{path}: has {array.shape[1]} channels; coils=keep is for one, choose it or leave out coils")
    if domain == "image" and ("K" not in content.axes or array.dtype.kind != "c"):
        what = f"{array.dtype} images" + ("" if "K" in content.axes else " without an axis of coils, K")
        raise InputError(
            f"{path}: has {what}; coils=keep needs k-space or complex images of coils: name the array that has them, or leave it out"
        )
    result = torch.empty(len(array), array.shape[2], *sides, dtype=torch.complex64)
    for number, stored in enumerate(array):  # slice by slice, for memory
        _finite(path, number, stored)
        samples = torch.tensor(numbers(stored[0]))
        if domain == "image":
            samples = fft2c(samples)
        elif tuple(sides) != samples.shape[-2:]:
            samples = fft2c(centred(ifft2c(samples), sides))
        result[number] = samples
    return result


@dataclass(frozen=True)
class Coils:
    """What coils measured. ``images`` (N, 1, H, W), ``kspace`` (N, K, H, W), ``maps`` (K, H, W) or (N, K, H, W), all complex64.

    ``noise``: standard deviation of a complex sample of k-space. ``values`` says how the maps and the noise are known, for the source.
    """

    images: Tensor
    kspace: Tensor
    maps: Tensor
    noise: float
    values: str


def with_maps(
    path: Path,
    kspace: Tensor,
    maps: Tensor | None = None,
    count: int | None = None,
    noise: float | None = None,
    size: Sequence[int] | None = None,
    size_in: str = "image",
    calibration: int = CALIBRATION,
    crop: float = CROP,
    frames: int = 1,
) -> Coils:
    """Images and sensitivities of k-space (N, K, H, W), fully sampled.

    In this order: ``count`` virtual coils; the level of the noise, unless it is given; ``size``, which may only cut; ``maps`` (K, H, W) or,
    but of series, (N, K, H, W), by default estimated for each slice (:func:`prom.kspace.coils.estimated`), those of one coil being 1; the
    images by them. The noise is that of the k-space that results. Of series N counts all frames, with so many ``frames`` in each, which
    share the sensitivities that are estimated from their mean: (N / frames, K, H, W).

    Raises
    ------
    InputError
        Where these do not fit each other, or noise or sensitivities cannot be estimated.
    """
    try:
        coils, values = kspace.shape[1], []
        if maps is not None and maps.ndim > 3 and frames > 1:
            raise InputError(f"sensitivities of shape {tuple(maps.shape)}: of series they are (coils, H, W), the same for all frames")
        if maps is not None and (maps.shape[-3:] != kspace.shape[1:] or maps.shape[:-3] not in ((), (len(kspace),))):
            raise InputError(f"sensitivities of shape {tuple(maps.shape[-3:])} (coils, H, W) for k-space of {tuple(kspace.shape[1:])}")
        if count is not None and count != coils:
            matrix = compression(kspace, count)
            kspace = mixed(kspace, matrix)
            maps = None if maps is None else mixed(maps, matrix).expand(len(kspace) // frames, -1, -1, -1)
            values.append(f"{coils} coils compressed to {count}")
        else:
            values.append(f"{coils} coil{'' if coils == 1 else 's'}")
        values.append("noise " + ("estimated in the corners of k-space" if noise is None else f"given as {noise:g}"))
        filled = [number for number, samples in enumerate(kspace) if samples.any()]  # an empty slice says nothing, and can be skipped
        if noise is None:
            noise = noise_level(kspace[filled]) if filled else 0.0
        if size:
            kspace, maps, noise = _cut(kspace, maps, noise, size, size_in)
        if maps is not None:
            values.append("sensitivities of a file")
        elif kspace.shape[1] == 1:
            maps = torch.ones(kspace.shape[1:], dtype=torch.complex64)
        else:
            calibration = min(calibration, *kspace.shape[-2:]) if calibration == CALIBRATION else calibration
            means = kspace if frames == 1 else kspace.reshape(-1, frames, *kspace.shape[1:]).mean(dim=1)
            first = with_phase(means, calibration)
            found = [_estimated(one, calibration, crop, first, noise / frames**0.5) for one in means]
            maps, smaller = torch.stack([own for own, _ in found]), [used for _, used in found if used != crop]
            values.append(
                f"sensitivities by ESPIRiT from the central {calibration} x {calibration} samples"
                + ("" if frames == 1 else " of the mean over frames")
                + ("" if crop == CROP else f", crop {crop:g}")
                + (f", crop down to {min(smaller):g} in {len(smaller)} of {len(means)}, which more would cut off" if smaller else "")
            )
        per_slice = maps.repeat_interleave(frames, dim=0) if maps.ndim == 4 else maps.expand(len(kspace), -1, -1, -1)
        images = torch.stack([combine(ifft2c(samples), one) for samples, one in zip(kspace, per_slice, strict=True)])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Coils(images[:, None], kspace, maps, noise, ", ".join(values))


def _estimated(kspace: Tensor, calibration: int, crop: float, first: int, noise: float) -> tuple[Tensor, float]:
    """Sensitivities of one slice, and the crop: a smaller one where the usual one cuts off the object, as the centre is small. In a slice
    of noise alone there is none."""
    if not kspace.any():
        return torch.zeros_like(kspace), crop
    maps = estimated(kspace, calibration, crop, first)
    kept, whole = explained(maps, kspace, calibration)
    if crop != CROP or kept >= LEAST_EXPLAINED * whole or whole < AIR * len(kspace) * (calibration * noise) ** 2:
        return maps, crop
    uncut = estimated(kspace, calibration, CROPS[-1], first)  # what these do not explain is noise
    most = explained(uncut, kspace, calibration)[0]
    for smaller in CROPS[1:]:
        if kept >= LEAST_EXPLAINED * most:
            break
        maps, crop = uncut if smaller == CROPS[-1] else estimated(kspace, calibration, smaller, first), smaller
        kept = explained(maps, kspace, calibration)[0]
    return maps, crop


def _cut(kspace: Tensor, maps: Tensor | None, noise: float, size: Sequence[int], size_in: str) -> tuple[Tensor, Tensor | None, float]:
    """As :func:`fitted`, of k-space, sensitivities and noise."""
    if any(new > old for new, old in zip(size, kspace.shape[-2:], strict=True)):
        raise InputError(
            f"size {tuple(size)}: larger than {tuple(kspace.shape[-2:])}; k-space with its noise may only be cut, zeros have no noise"
        )
    if size_in == "image":
        maps = None if maps is None else centred(maps, size).contiguous()
        return fft2c(centred(ifft2c(kspace), size)), maps, noise
    if maps is not None:
        raise InputError("size_in 'kspace': sensitivities of a file cannot be resized; give size_in=image or maps of that size")
    scale = math.sqrt(math.prod(size) / math.prod(kspace.shape[-2:]))
    return centred(kspace, size) * scale, None, noise * scale


def sides_of(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """The option ``size``, rows and columns or one number for both, as a pair; None stays None.

    Raises
    ------
    InputError
        Where it is anything else, or a side is not from 8 to 16384.

    >>> sides_of(64), sides_of([64, 56])
    ((64, 64), (64, 56))
    """
    sides = () if size is None else tuple(size) if isinstance(size, Iterable) else (size,)
    if size is not None and (len(sides) not in (1, 2) or not all(isinstance(side, Integral) and 8 <= side <= 2**14 for side in sides)):
        raise InputError(f"size {size}: must be rows and columns, or one number for both, each from 8 to {2**14}, e.g. 256,256")
    return tuple(int(side) for side in (sides * 2)[:2]) or None


def centred(images: Tensor, sides: Sequence[int]) -> Tensor:
    """(..., H, W) cut, or filled up with zeros, to ``sides`` around the centre, [H // 2, W // 2].

    >>> centred(torch.arange(1.0, 6)[None], (1, 3)), centred(torch.ones(1, 2), (1, 4))
    (tensor([[2., 3., 4.]]), tensor([[0., 1., 1., 0.]]))
    """
    for axis, new in zip((-2, -1), sides, strict=True):
        old = images.shape[axis]
        start = old // 2 - new // 2
        if new <= old:
            images = images.narrow(axis, start, new)
        else:
            shape = list(images.shape)
            shape[axis] = new
            larger = images.new_zeros(shape)
            larger.narrow(axis, -start, old).copy_(images)
            images = larger
    return images


def informative(path: Path, stack: np.ndarray, skip_constant: bool, frames: int = 1) -> np.ndarray:
    """The numbers of the slices that are not constant. Raises InputError for one that is, unless to be skipped, or is not finite.

    Of series, with so many ``frames`` each, the numbers of the frames of those that have none that is constant.

    >>> informative(Path("a.npy"), np.stack([np.eye(4)[None]] * 3 + [np.ones((1, 4, 4))]), True, frames=2)
    array([0, 1])
    """
    kept = np.zeros(len(stack), dtype=bool)
    for i, image in enumerate(stack):
        _finite(path, i, image)
        kept[i] = (image != image[:, :1, :1]).any()
        if not kept[i] and not skip_constant:
            what = f"slice {i}" if frames == 1 else f"frame {i % frames} of series {i // frames}"
            raise InputError(f"{path}: {what} is constant, it has no information; remove it or use skip_constant=True")
    return np.flatnonzero(kept.reshape(-1, frames).all(axis=1).repeat(frames))


def _finite(path: Path, number: int, image: np.ndarray) -> None:
    """Raises the error for a slice with values that are not."""
    if not np.isfinite(image).all():
        raise InputError(
            f"{path}: slice {number} has NaN or infinite values, or numbers above 3.4e38; repair or remove it, or give nan=0 to replace NaN"
        )


def fitted(images: np.ndarray, size: Sequence[int], where: str) -> np.ndarray:
    """Images (..., H, W) of ``size``, cut or filled up with zeros around the centre, in "image" space or in "kspace".

    In image space the pixels stay what they are and the field of view changes; in k-space the field of view stays, the pixels change, and
    the grey value of a uniform region does not. Magnitude images stay magnitude images, and real ones with negative values stay real.

    >>> fitted(np.ones((1, 4, 4), np.float32), (2, 6), "kspace").round(3).tolist()
    [[[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]]
    """
    stack = torch.from_numpy(images)
    if where == "image":
        return centred(stack, size).contiguous().numpy()
    scale = math.sqrt(math.prod(size) / math.prod(stack.shape[-2:]))  # of the orthonormal transform
    changed = ifft2c(centred(fft2c(stack), size)) * scale
    return (changed if stack.is_complex() else changed.real.contiguous() if (stack < 0).any() else changed.abs()).numpy()
