"""Masks for other programs: NumPy, MATLAB, BART, lists of phase encodes, and pictures.

Masks of volumes, ``(D, H, W)``, and of series in time, ``(T, H, W)``, have the same formats, but for pictures.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from prom import options
from prom.errors import InputError, unknown
from prom.files import atomic
from prom.kspace.patterns import AXES
from prom.kspace.trajectories import Trajectory
from prom.masks import MaskResult

DIRECTIONS = ("x", "y", "z")  # of columns, rows and partitions
BART_DIMENSIONS = 16  # of every BART array; those that are not used have length 1
BART_TIME = 10  # the one of frames


def to_npy(result: MaskResult, path: Path) -> None:
    """The mask as an npy file: ``(H, W)`` bool, DC at [H // 2, W // 2]; of a volume ``(D, H, W)``, of a series ``(T, H, W)``.

    Of readouts off the grid it is ``(K, R)``, whole readouts; :meth:`prom.kspace.trajectories.Trajectory.to_mri_nufft` gives where they
    lie.
    """
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, result.mask.numpy(), allow_pickle=False)


def to_png(result: MaskResult, path: Path) -> None:
    """The mask as an 8-bit grey picture, one pixel a sample: 255 is measured, DC at row H // 2, column W // 2.

    Raises
    ------
    InputError
        Where it has three axes, or chooses among readouts off the grid, of which the picture would show stripes.
    """
    if result.trajectory is not None:
        raise InputError(f"output {path}: a picture of k-space has no place for {result.pattern}; export them as .csv, .npy, .mat or .cfl")
    if result.mask.ndim != 2:
        raise InputError(f"output {path}: a picture has no room for a mask of {tuple(result.mask.shape)}; export it as .npy, .mat or .csv")
    said = PngInfo()
    said.add_text("prom", "mask")  # so that it is not taken for a label among pictures
    with atomic(path) as temporary:
        Image.fromarray(result.mask.numpy().astype(np.uint8) * 255).save(temporary, format="PNG", pnginfo=said)


def to_h5(result: MaskResult, path: Path) -> None:
    """Everything: another mask file of prom, with probabilities, history and provenance."""
    result.save(path)


def to_mat(result: MaskResult, path: Path) -> None:
    """A MATLAB v5 file: ``mask`` (H, W) logical, ``probabilities`` (H, W) single, ``acceleration``, ``pattern``, and ``layout`` in words.

    Of a volume both are (D, H, W), of a series (T, H, W). MATLAB counts from 1, so that DC is at (floor(H/2) + 1, floor(W/2) + 1), where
    its fftshift puts it. Readouts off the grid have their candidates as ``trajectory`` (K, R, axes) single, in cycles per field of view,
    rows first, and a mask of whole readouts, (K, R).
    """
    from scipy.io import savemat  # here: the other formats need no SciPy

    variables = {
        "mask": result.mask.numpy(),
        "probabilities": result.probabilities.numpy(),
        "acceleration": float(result.acceleration),
        "pattern": result.pattern,
    }
    if result.trajectory is None:
        variables["layout"] = _layout(result)
    else:
        lead = "" if result.mask.ndim == 2 else "frame, " if result.lines.frames else "1, "
        variables["trajectory"] = result.trajectory.points.numpy()
        variables["layout"] = (
            f"mask({lead}readout, sample), trajectory(readout, sample, axis): cycles per field of view, rows before columns"
        )
    with atomic(path) as temporary, open(temporary, "wb") as file:
        savemat(file, variables, do_compression=True)


def _layout(result: MaskResult) -> str:
    """Where DC is, in words."""
    names = [*({"frame": "T"} if result.lines.frames else {"partition": "D"}).items(), ("row", "H"), ("column", "W")][-result.mask.ndim :]
    centre = [str(n // 2 + 1) for n in result.mask.shape]
    formula = [f"floor({letter}/2)+1" for _, letter in names]
    if result.lines.frames:
        centre[0], formula[0] = "t", "t"
    return f"mask({', '.join(name for name, _ in names)}), centred: DC at ({','.join(formula)}) = ({', '.join(centre)})"


def to_cfl(result: MaskResult, path: Path) -> None:
    """A BART pair: complex float32, 1 or 0, column-major in ``.cfl``, its dimensions H W 1 1 ... in ``.hdr`` beside it.

    Of a volume the dimensions are H W D 1 ..., of a series H W 1 ... with its T frames as dimension 10, BART's time. DC is in the middle,
    as in BART's own k-space. A mask of points is that of one slice: for a 3D scan, whose readout is BART's dimension 0, move its axes by
    ``bart transpose 1 2`` and then ``bart transpose 0 1``. Source: https://bart-doc.readthedocs.io/en/latest/data.html.

    Of readouts off the grid it is the trajectory of those that are measured, as BART's nufft takes it: dimensions 3 R S 1 ..., in units of
    one over the field of view. Its first number goes with BART's dimension 0, which is prom's rows; of 2D the third is 0.

    Raises
    ------
    InputError
        Where the frames of a series have different numbers of readouts, which one array cannot hold.
    """
    if result.trajectory is None:
        mask = result.mask.numpy()
        mask = mask if mask.ndim == 2 else mask.transpose(1, 2, 0)
        dimensions = [*mask.shape[:2], *[1] * (BART_DIMENSIONS - 2)]
        if mask.ndim == 3:
            dimensions[BART_TIME if result.lines.frames else 2] = mask.shape[2]
    else:
        mask, dimensions = _bart_trajectory(result, path)
    # Both are written in full before either gets its name, and an error leaves neither. The inner one gets its name first: should the
    # process be killed in between, numbers without a header remain, which no program reads; the header is the sign of completeness.
    with atomic(path.with_suffix(".hdr")) as header, atomic(path) as values:
        header.write_text(f"# Dimensions\n{' '.join(map(str, dimensions))}\n", encoding="ascii", newline="\n")
        values.write_bytes(mask.astype("<c8").tobytes(order="F"))


def _bart_trajectory(result: MaskResult, path: Path) -> tuple[np.ndarray, list[int]]:
    masks = result.mask if result.lines.frames else result.mask.reshape(1, *result.mask.shape[-2:])
    counts = {int(mask[:, 0].sum()) for mask in masks}
    if len(counts) > 1:
        raise InputError(
            f"output {path}: BART's array has no room for frames with {min(counts)} to {max(counts)} {result.pattern}; use .csv, .npy or "
            ".mat"
        )
    points = np.stack([result.trajectory.chosen(mask).numpy() for mask in masks])  # (T, S, R, axes)
    volume = points.shape[-1] == 3
    points = points[..., [1, 2, 0]] if volume else np.pad(points, [(0, 0)] * 3 + [(0, 1)])  # rows, columns, partitions
    dimensions = [3, points.shape[2], points.shape[1], *[1] * (BART_DIMENSIONS - 3)]
    dimensions[BART_TIME] = len(masks)
    return points.transpose(3, 2, 1, 0), dimensions


def to_csv(result: MaskResult, path: Path) -> None:
    """The list for a scanner: one line a measured column, row or point, in increasing order.

    Each has its index, counted from 0, and its offset: the signed phase-encode number, index - n // 2, which is 0 at DC. Columns are
    ``column, column_offset``, or ``row, row_offset``, or for points ``row, column, row_offset, column_offset``. Of a volume ``partition``
    comes first, ``partition_offset`` too; of a series ``frame``, which has no offset. What is the same in all frames is listed once.

    Readouts off the grid have the columns of :func:`described`, of a series after ``frame``.

    Raises
    ------
    InputError
        Where a mask of columns or rows has a line that is measured in part, which no such list can say.
    """
    lines = result.lines
    selected = lines.select(result.mask)
    if result.trajectory is not None:
        places = selected.nonzero()
        frame = {"frame": places[:, 0].numpy()} if lines.frames else {}
        encodes = pd.DataFrame({**frame, **described(result.trajectory, places[:, -1])})
        with atomic(path) as temporary:
            encodes.to_csv(temporary, index=False, lineterminator="\n")
        return
    names = {axis: "frame" if axis == -3 and lines.frames else AXES[axis] for axis in lines.axes}
    encodes = pd.DataFrame(selected.nonzero().numpy(), columns=list(names.values()))
    for axis, name in names.items():
        if name != "frame":
            encodes[f"{name}_offset"] = encodes[name] - lines.samples[axis] // 2
    with atomic(path) as temporary:
        encodes.to_csv(temporary, index=False, lineterminator="\n")


def described(trajectory: Trajectory, numbers: Tensor) -> dict[str, np.ndarray]:
    """Columns of a table of readouts: ``candidate``, counted from 0, and what says where it lies.

    That is ``angle`` in degrees of spokes and spirals (:attr:`prom.kspace.trajectories.Trajectory.degrees`), and ``x``, ``y``, ``z`` of
    kooshball, the unit vector from the first sample to the last, along columns, rows and partitions. Other readouts have no single one.

    >>> from prom.kspace.trajectories import spokes
    >>> {name: column.tolist() for name, column in described(spokes(8, size=4), torch.tensor([1, 4])).items()}
    {'candidate': [1, 4], 'angle': [22.5, 90.0]}
    """
    found = {"candidate": numbers.numpy()}
    if trajectory.degrees is not None:
        return {**found, "angle": trajectory.degrees[numbers].numpy()}
    if trajectory.kind == "kooshball":
        ends = trajectory.points[numbers][:, [0, -1]].double()
        direction = torch.nn.functional.normalize(ends[:, 1] - ends[:, 0], dim=-1).flip(-1)
        return {**found, **{name: direction[:, axis].numpy() for axis, name in enumerate(DIRECTIONS)}}
    return found


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
