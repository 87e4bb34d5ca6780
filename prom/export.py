"""Masks for other programs: NumPy and pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from prom.errors import unknown
from prom.files import atomic
from prom.masks import MaskResult


def to_npy(result: MaskResult, path: Path) -> None:
    """The mask as an npy file: ``(H, W)`` bool, DC at [H // 2, W // 2]."""
    with open(path, "wb") as file:
        np.save(file, result.mask.numpy(), allow_pickle=False)


def to_png(result: MaskResult, path: Path) -> None:
    """The mask as an 8-bit grey picture, one pixel a sample: 255 is measured, DC at row H // 2, column W // 2."""
    Image.fromarray(result.mask.numpy().astype(np.uint8) * 255).save(path, format="PNG")


FORMATS = {".npy": to_npy, ".png": to_png}


def export(result: MaskResult, path: str | os.PathLike) -> None:
    """Write a mask in the format that the ending of ``path`` names (.npy, .png).

    Raises
    ------
    InputError
        Where the ending is not known or the file cannot be written.

    >>> export(None, "mask.docx")
    Traceback (most recent call last):
    prom.errors.InputError: output format '.docx' is not known (known: .npy, .png)
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise unknown("output format", path.suffix, FORMATS)
    with atomic(path) as temporary:
        FORMATS[path.suffix.lower()](result, temporary)
