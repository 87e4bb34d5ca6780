"""Masks for other programs: NumPy, MATLAB, BART, lists of phase encodes, and pictures.

Masks of volumes, ``(D, H, W)``, and of series in time, ``(T, H, W)``, have the same formats, but for pictures.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from prom import options
from prom.errors import InputError, unknown
from prom.files import atomic
from prom.kspace.patterns import AXES
from prom.masks import MaskResult

BART_DIMENSIONS = 16  # of every BART array; those that are not used have length 1
BART_TIME = 10  # the one of frames


def to_npy(result: MaskResult, path: Path) -> None:
    """The mask as an npy file: ``(H, W)`` bool, DC at [H // 2, W // 2]; of a volume ``(D, H, W)``, of a series ``(T, H, W)``."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, result.mask.numpy(), allow_pickle=False)


def to_png(result: MaskResult, path: Path) -> None:
    """The mask as an 8-bit grey picture, one pixel a sample: 255 is measured, DC at row H // 2, column W // 2.

    Raises
    ------
    InputError
        Where it has three axes.
    """
    if result.mask.ndim != 2:
        raise InputError(f"output {path}: a picture has no room for a mask of {tuple(result.mask.shape)}; export it as .npy, .mat or .csv")
    with atomic(path) as temporary:
        Image.fromarray(result.mask.numpy().astype(np.uint8) * 255).save(temporary, format="PNG")


def to_h5(result: MaskResult, path: Path) -> None:
    """Everything: another mask file of prom, with probabilities, history and provenance."""
    result.save(path)


def to_mat(result: MaskResult, path: Path) -> None:
    """A MATLAB v5 file: ``mask`` (H, W) logical, ``probabilities`` (H, W) single, ``acceleration``, ``pattern``, and ``layout`` in words.

    Of a volume both are (D, H, W), of a series (T, H, W). MATLAB counts from 1, so that DC is at (floor(H/2) + 1, floor(W/2) + 1), where
    its fftshift puts it.
    """
    names = [*({"frame": "T"} if result.lines.frames else {"partition": "D"}).items(), ("row", "H"), ("column", "W")][-result.mask.ndim :]
    centre = [str(n // 2 + 1) for n in result.mask.shape]
    formula = [f"floor({letter}/2)+1" for _, letter in names]
    if result.lines.frames:
        centre[0], formula[0] = "t", "t"
    variables = {
        "mask": result.mask.numpy(),
        "probabilities": result.probabilities.numpy(),
        "acceleration": float(result.acceleration),
        "pattern": result.pattern,
        "layout": f"mask({', '.join(name for name, _ in names)}), centred: DC at ({','.join(formula)}) = ({', '.join(centre)})",
    }
    from scipy.io import savemat  # here: the other formats need no SciPy

    with atomic(path) as temporary, open(temporary, "wb") as file:
        savemat(file, variables, do_compression=True)


def to_cfl(result: MaskResult, path: Path) -> None:
    """A BART pair: complex float32, 1 or 0, column-major in ``.cfl``, its dimensions H W 1 1 ... in ``.hdr`` beside it.

    Of a volume the dimensions are H W D 1 ..., of a series H W 1 ... with its T frames as dimension 10, BART's time. DC is in the
    middle, as in BART's own k-space. Source: https://bart-doc.readthedocs.io/en/latest/data.html.
    """
    # Both are written in full before either gets its name, and an error leaves neither. The inner one gets its name first: should the
    # process be killed in between, numbers without a header remain, which no program reads; the header is the sign of completeness.
    with atomic(path.with_suffix(".hdr")) as header, atomic(path) as values:
        mask = result.mask.numpy()
        mask = mask if mask.ndim == 2 else mask.transpose(1, 2, 0)
        dimensions = [*mask.shape[:2], *[1] * (BART_DIMENSIONS - 2)]
        if mask.ndim == 3:
            dimensions[BART_TIME if result.lines.frames else 2] = mask.shape[2]
        header.write_text(f"# Dimensions\n{' '.join(map(str, dimensions))}\n", encoding="ascii", newline="\n")
        values.write_bytes(mask.astype("<c8").tobytes(order="F"))


def to_csv(result: MaskResult, path: Path) -> None:
    """The list for a scanner: one line a measured column, row or point, in increasing order.

    Each has its index, counted from 0, and its offset: the signed phase-encode number, index - n // 2, which is 0 at DC. Columns are
    ``column, column_offset``, or ``row, row_offset``, or for points ``row, column, row_offset, column_offset``. Of a volume ``partition``
    comes first, ``partition_offset`` too; of a series ``frame``, which has no offset. What is the same in all frames is listed once.

    Raises
    ------
    InputError
        Where a mask of columns or rows has a line that is measured in part, which no such list can say.
    """
    lines = result.lines
    selected = lines.select(result.mask)
    names = {axis: "frame" if axis == -3 and lines.frames else AXES[axis] for axis in lines.axes}
    encodes = pd.DataFrame(selected.nonzero().numpy(), columns=list(names.values()))
    for axis, name in names.items():
        if name != "frame":
            encodes[f"{name}_offset"] = encodes[name] - lines.samples[axis] // 2
    with atomic(path) as temporary:
        encodes.to_csv(temporary, index=False, lineterminator="\n")


FORMATS = {ending: globals()[f"to_{ending[1:]}"] for ending in options.FORMATS}


def export(result: MaskResult, path: str | os.PathLike) -> None:
    """Write a mask in the format that the ending of ``path`` names; each is described at its function above.

    On any error no file is left behind, and an older one of that name stays as it was.

    Raises
    ------
    InputError
        Where the ending is not known or the file cannot be written.

    >>> export(None, "mask.docx")
    Traceback (most recent call last):
    prom.errors.InputError: output format '.docx' is not known (known: .cfl, .csv, .h5, .mat, .npy, .png)
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise unknown("output format", path.suffix, FORMATS)
    FORMATS[path.suffix.lower()](result, path)
