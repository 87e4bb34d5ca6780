"""The container that every data set is read into, and the checks that every reader shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prom.errors import InputError


@dataclass(frozen=True, eq=False)
class SliceDataset:
    """Fully sampled slices, with the subject and the slice number that each came from.

    Attributes
    ----------
    name, split
        What it is called and which part of it this is, e.g. ``"acdc"`` and ``"train"``.
    images
        ``(N, C, H, W)``, float32 (magnitude images) or complex64 (images with phase). Intensities in the units of the reader
        that made them; the readers say which. All C channels of a slice are measured with one mask.
    subjects, slices
        Length N: the subject's name and the number of the slice in the subject's volume. A subject is in one split only.
    labels
        ``(N, H, W)`` uint8, or None. ``label_names[v]`` names the class of value v, background first.
    source
        One sentence for figures and records: where the data come from and what they are.

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

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape:
            raise InputError(f"{self.name}: images of shape {tuple(self.images.shape)}: must be (N, C, H, W), none of them 0")
        if self.images.dtype not in (torch.float32, torch.complex64):
            raise InputError(f"{self.name}: images of type {self.images.dtype}: must be float32 or complex64")
        if not (len(self.subjects) == len(self.slices) == len(self.images)):
            raise InputError(
                f"{self.name}: {len(self.images)} images, {len(self.subjects)} subjects, {len(self.slices)} slice numbers: must be equal"
            )
        if self.labels is not None and self.labels.shape != (len(self.images), *self.shape):
            raise InputError(f"{self.name}: labels of shape {tuple(self.labels.shape)}: must be {(len(self.images), *self.shape)}")
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

    def describe(self, index: int) -> str:
        """``name, subject s, slice i`` of one entry, for messages."""
        return f"{self.name}, subject {self.subjects[index]}, slice {self.slices[index]}"

    def fingerprint(self) -> str:
        """What identifies the data of a result: 16 hex digits of the SHA-256 over shape, dtype, subjects, slices, images and labels."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), str(self.images.dtype), list(self.subjects), list(self.slices))).encode())
        for image in self.images:
            digest.update(torch.view_as_real(image).numpy().tobytes() if image.is_complex() else image.contiguous().numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def select(self, indices: Sequence[int]) -> SliceDataset:
        """The data set of these entries only, in this order."""
        indices = [int(i) for i in indices]
        return SliceDataset(
            self.name,
            self.split,
            self.images[indices],
            [self.subjects[i] for i in indices],
            [self.slices[i] for i in indices],
            None if self.labels is None else self.labels[indices],
            self.label_names,
            self.source,
        )
