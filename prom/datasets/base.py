"""The container that every data set is read into, and what a reader knows of its files before they are read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prom.errors import InputError
from prom.kspace.fourier import fft2c, ifft2c


@dataclass(frozen=True, eq=False)
class SliceDataset:
    """Fully sampled slices, with the subject and the slice number that each came from.

    Attributes
    ----------
    name, split
        What it is called and which part of it this is, e.g. ``"acdc"`` and ``"train"``.
    images
        ``(N, C, H, W)``, float32 (magnitude images) or complex64 (images with phase). Intensities in the units of the reader
        that made them; the readers say which. All C channels of a slice are measured with one mask. A tensor, or, for a set too
        large for memory, :class:`prom.datasets.cache.StoredRows`: indexed in the same way, it reads from disk what is indexed.
    subjects, slices
        Length N: the subject's name and the number of the slice in the subject's volume. A subject is in one split only.
    labels
        ``(N, H, W)`` uint8 (likewise a tensor or stored), or None. ``label_names[v]`` names the class of value v, background first.
    source
        One sentence for figures and records: where the data come from and what they are.
    spacing
        Length N: (row, column) size of a pixel in mm, None where it is not known; or empty.
    patients
        Length N, where a patient has several volumes, each of them a subject; else empty, and a patient is a subject.
    known_fingerprint
        Of data that come from a store, which has it written down.

    Raises
    ------
    InputError
        Where the images are not 4D, empty, of another dtype or not finite, or where lengths disagree.

    >>> data = SliceDataset("demo", "train", torch.rand(2, 1, 8, 8), ["a", "a"], [0, 1])
    >>> len(data), data.shape, data.number_of_subjects
    (2, (8, 8), 1)
    """

    name: str
    split: str
    images: Tensor
    subjects: Sequence[str]
    slices: Sequence[int]
    labels: Tensor | None = None
    label_names: Sequence[str] = field(default_factory=tuple)
    source: str = ""
    spacing: Sequence[tuple[float, float] | None] = ()
    patients: Sequence[str] = ()
    known_fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise InputError(f"{self.name}: images of shape {tuple(self.images.shape)}: must be (N, C, H, W), none of them 0")
        if self.images.dtype not in (torch.float32, torch.complex64):
            raise InputError(f"{self.name}: images of type {self.images.dtype}: must be float32 or complex64")
        if not (len(self.subjects) == len(self.slices) == len(self.images)):
            raise InputError(
                f"{self.name}: {len(self.images)} images, {len(self.subjects)} subjects, {len(self.slices)} slice numbers: must be equal"
            )
        for what in ("spacing", "patients"):
            if len(getattr(self, what)) not in (0, len(self.images)):
                raise InputError(f"{self.name}: {len(self.images)} images, but {len(getattr(self, what))} entries of {what}: must be equal")
        if self.labels is not None and tuple(self.labels.shape) != (len(self.images), *self.shape):
            raise InputError(f"{self.name}: labels of shape {tuple(self.labels.shape)}: must be {(len(self.images), *self.shape)}")
        if not isinstance(self.images, Tensor):
            return  # a store was checked when it was made
        for index, image in enumerate(self.images):  # slice by slice: a mask of all of them would double the memory
            if not torch.isfinite(image).all():
                raise InputError(f"{self.describe(index)}: has NaN or infinite values; repair or leave out this slice")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""
        return tuple(self.images.shape[-2:])

    @property
    def number_of_subjects(self) -> int:
        """How many different subjects the slices come from."""
        return len(set(self.subjects))

    def patient_names(self) -> list[str]:
        """The patients, sorted; subjects where nothing is known of patients."""
        return sorted(set(self.patients or self.subjects))

    def describe(self, index: int) -> str:
        """``name, subject s, slice i`` of one entry, for messages."""
        return f"{self.name}, subject {self.subjects[index]}, slice {self.slices[index]}"

    def summary(self) -> str:
        """One line for a page: name, split, how many slices of how many subjects, and their size.

        >>> SliceDataset("demo", "train", torch.ones(2, 1, 4, 6), ["a", "a"], [0, 1]).summary()
        'demo, train: 2 slices of 1 subject, 4 x 6'
        """
        count = self.number_of_subjects
        subjects = f"{count} subject{'' if count == 1 else 's'}"
        return f"{self.name}, {self.split}: {len(self)} slices of {subjects}, {self.shape[0]} x {self.shape[1]}"

    def fingerprint(self) -> str:
        """What identifies the data of a result: 16 hex digits of the SHA-256 over shape, dtype, subjects, slices, images and labels."""
        if self.known_fingerprint:
            return self.known_fingerprint
        digest = hashlib.sha256(repr((tuple(self.images.shape), str(self.images.dtype), list(self.subjects), list(self.slices))).encode())
        for array in (self.images, self.labels):
            for index in range(0 if array is None else len(array)):
                row = array[index]
                digest.update((torch.view_as_real(row) if row.is_complex() else row).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def scaled(self, factor: float) -> SliceDataset:
        """The same slices with all intensities times ``factor``.

        Raises
        ------
        InputError
            Where the factor is not positive, or the slices stay on disk.

        >>> SliceDataset("demo", "train", torch.ones(1, 1, 2, 2), ["a"], [0]).scaled(0.5).images.max()
        tensor(0.5000)
        """
        if factor == 1:
            return self
        if not 0 < factor < float("inf"):
            raise InputError(f"scale {factor}: must be > 0")
        if not isinstance(self.images, Tensor):
            raise InputError(f"scale {factor:g}: {self.name} is too large for memory, and is read from disk as it is")
        return replace(self, images=self.images * factor, source=f"{self.source}; intensities times {factor:g}", known_fingerprint=None)

    def select(self, indices: Sequence[int]) -> SliceDataset:
        """The data set of these entries only, in this order. Stored images and labels stay where they are."""
        indices = [int(i) for i in indices]

        def picked(entries: Any) -> Any:
            if isinstance(entries, Tensor):
                return entries[indices]
            return entries.select(indices) if hasattr(entries, "select") else [entries[i] for i in indices] if entries else entries

        per_slice = ("images", "subjects", "slices", "labels", "spacing", "patients")
        return replace(self, **{name: picked(getattr(self, name)) for name in per_slice}, known_fingerprint=None)

    def thinned(self, count: int) -> SliceDataset:
        """At most ``count`` slices, spread evenly over the data set.

        >>> data = SliceDataset("demo", "train", torch.rand(5, 1, 8, 8), list("abcde"), [0] * 5)
        >>> data.thinned(3).subjects, data.thinned(9).subjects
        (['a', 'c', 'e'], ['a', 'b', 'c', 'd', 'e'])
        """
        return self.select(torch.linspace(0, len(self) - 1, min(count, len(self))).long().tolist())

    def cropped(self, size: int) -> SliceDataset:
        """Magnitudes at a lower resolution: k-space cropped to its central ``size`` x ``size`` points, or fewer where it has fewer.

        The grey value of a uniform region stays as it is. Labels are left out, since they have the old resolution.

        >>> SliceDataset("demo", "train", torch.ones(1, 1, 8, 6), ["a"], [0]).cropped(4).images.mean().round(decimals=4)
        tensor(1.)
        """
        new = tuple(min(n, size) for n in self.shape)
        rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(self.shape, new, strict=True))
        scale = math.sqrt(math.prod(new) / math.prod(self.shape))  # of the orthonormal transform
        images = ifft2c(fft2c(self.images)[..., rows, columns]).abs() * scale
        return replace(self, images=images, labels=None, label_names=(), known_fingerprint=None)

    def hold_out(self, fraction: float) -> tuple[SliceDataset, SliceDataset]:
        """Split off whole patients, for anything that needs early stopping: (the rest, the held-out part, called "validation").

        The patients, sorted by name, are cut into as many equal runs as patients are wanted, and the middle one of each is held
        out: no randomness, and evenly over groups that follow one another (in ACDC the diagnoses).

        Parameters
        ----------
        fraction
            Of the patients, between 0 and 1; at least one is held out.

        Raises
        ------
        InputError
            Where the fraction is out of range, or one of the two parts would be empty.

        >>> data = SliceDataset("demo", "train", torch.rand(10, 1, 8, 8), list("aabbccddee"), [0, 1] * 5)
        >>> [sorted(set(part.subjects)) for part in data.hold_out(0.4)]
        [['a', 'c', 'e'], ['b', 'd']]
        """
        rest, held = self.held_out(fraction)
        return self.select(rest), replace(self.select(held), split="validation")

    def held_out(self, fraction: float) -> tuple[list[int], list[int]]:
        """The entries of the two parts that :meth:`hold_out` makes."""
        patients = self.patients or self.subjects
        names = sorted(set(patients))
        count = max(1, round(fraction * len(names))) if 0 < fraction < 1 else 0
        if not 0 < count < len(names):
            raise InputError(f"validation {fraction}: of {len(names)} patient(s) of {self.name} it must leave some on both sides")
        held = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
        return [i for i, name in enumerate(patients) if name not in held], [i for i, name in enumerate(patients) if name in held]


@dataclass(frozen=True)
class Part:
    """What one subject's files hold. Values are finite, and no slice is constant: the reader has checked.

    ``images`` (n, C, H, W) float32 or complex64, ``slices`` n numbers, ``labels`` (n, H, W) uint8 or None, ``path`` the file to
    name where this part does not fit the others, ``skipped`` how many slices were left out for being constant, ``values`` what the
    values are, as found while reading, for the source. For the other fields see :class:`SliceDataset`.
    """

    path: Path
    subject: str
    images: np.ndarray
    slices: Sequence[int]
    labels: np.ndarray | None = None
    spacing: tuple[float, float] | None = None
    patient: str | None = None
    skipped: int = 0
    values: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """A data set before it is read: what it consists of, and how to read one piece of it. Items and ``read`` can be pickled.

    ``files`` are all files whose content decides what is read, ``options`` whatever else does. ``root`` is the data set's own folder.
    ``sides`` are the patients of each split, and ``left_out`` the files that are not read, each with the reason, where that is known.
    """

    name: str
    split: str
    root: Path
    items: Sequence[Any]
    read: Callable[[Any], Part]
    files: Sequence[Path]
    options: dict[str, Any] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    source: str = ""
    sides: dict[str, Sequence[str]] = field(default_factory=dict)
    left_out: Sequence[tuple[Path, str]] = ()

    def source_with(self, values: Iterable[str]) -> str:
        """The source, with what the parts say of their values, each once."""
        return "; ".join([self.source, *dict.fromkeys(values)])

    def parts(self) -> Iterator[Part]:
        """Read one item after the other."""
        return map(self.read, self.items)
