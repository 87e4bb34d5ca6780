"""Exports, read back by other programs' rules: SciPy for MATLAB, pandas for tables, and a reader of BART's pair as its manual has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from PIL import Image

from prom import InputError, load_mask
from prom.baselines import as_result
from prom.cli import main
from prom.kspace.patterns import make
from prom.masks import MaskResult, mask_files
from prom.masks.demands import Demands
from prom.masks.export import FORMATS, export

GRIDS = [(6, 10), (7, 9), (8, 5), (1, 4)]  # no two axes alike, even and odd: a swapped or shifted axis shows
PATTERNS = ["points", "columns", "rows"]


def random_mask(pattern: str, shape: tuple[int, int]) -> MaskResult:
    """A third of the parameters measured, DC among them."""
    grid = make(pattern, shape)
    generator = torch.Generator().manual_seed(sum(shape))
    theta = torch.rand(grid.shape, generator=generator)
    theta[tuple(n // 2 for n in grid.shape)] = 2.0
    count = max(1, grid.size // 3)
    chosen = torch.zeros(grid.size, dtype=torch.bool)
    chosen[theta.flatten().topk(count).indices] = True
    result = as_result(grid.forward(chosen.reshape(grid.shape)).contiguous(), "random", grid.size / count, pattern)
    assert int(result.mask.sum()) == count * (result.mask.numel() // grid.size)
    theta = theta / 2
    return replace(result, probabilities=grid.forward(theta).contiguous(), theta=theta, provenance={"dataset": "drawn"})


def read_cfl(name: Path) -> np.ndarray:
    """BART's manual: the line after "# Dimensions" in .hdr has the dimensions; .cfl is complex float, the first dimension fastest."""
    lines = name.with_suffix(".hdr").read_text(encoding="ascii").splitlines()
    dimensions = [int(word) for word in lines[lines.index("# Dimensions") + 1].split()]
    assert len(dimensions) == 16
    pairs = np.frombuffer(name.with_suffix(".cfl").read_bytes(), dtype="<f4").reshape(-1, 2)
    assert len(pairs) == np.prod(dimensions)
    values = np.empty(dimensions, dtype=complex)
    for number, (real, imaginary) in enumerate(pairs):
        values[np.unravel_index(number, dimensions, order="F")] = complex(real, imaginary)
    return values


@pytest.fixture(params=PATTERNS)
def pattern(request) -> str:
    return request.param


@pytest.fixture(params=GRIDS, ids=str)
def result(pattern, request) -> MaskResult:
    return random_mask(pattern, request.param)


def test_matlab(result, tmp_path):
    export(result, tmp_path / "mask.mat")
    read = scipy.io.loadmat(tmp_path / "mask.mat")
    assert ("mask", tuple(result.mask.shape), "logical") in scipy.io.whosmat(tmp_path / "mask.mat")
    np.testing.assert_array_equal(read["mask"], result.mask.numpy())
    np.testing.assert_array_equal(read["probabilities"], result.probabilities.numpy())
    assert read["mask"].sum() == int(result.mask.sum()) and read["probabilities"].dtype == np.float32
    assert read["acceleration"].item() == result.acceleration and read["pattern"].item() == result.pattern
    row, column = (int(number) for number in read["layout"].item().split("= (")[1].rstrip(")").split(", "))
    centred = np.fft.fftshift(np.fft.fft2(np.ones(result.mask.shape)))  # all of it is at DC
    assert (row - 1, column - 1) == np.unravel_index(np.abs(centred).argmax(), centred.shape)


def test_bart(result, tmp_path):
    export(result, tmp_path / "my.mask.cfl")
    read = read_cfl(tmp_path / "my.mask.cfl")
    height, width = result.mask.shape
    assert read.shape == (height, width, *[1] * 14) and read.sum() == int(result.mask.sum())
    np.testing.assert_array_equal(read.reshape(height, width), result.mask.numpy().astype(complex))
    assert read[(height // 2, width // 2, *[0] * 14)] == 1  # DC in the middle
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.mask.cfl", "my.mask.hdr"]


def test_list_for_a_scanner(result, tmp_path):
    """Rebuilt from the offsets alone, and from the indices alone, the mask is what it was."""
    export(result, tmp_path / "mask.csv")
    read = pd.read_csv(tmp_path / "mask.csv")
    axes = {"points": ["row", "column"], "columns": ["column"], "rows": ["row"]}[result.pattern]
    assert read.columns.tolist() == axes + [f"{axis}_offset" for axis in axes]
    per_line = {"points": 1, "columns": result.mask.shape[0], "rows": result.mask.shape[1]}[result.pattern]
    assert len(read) * per_line == int(result.mask.sum())
    lines = read[axes].to_numpy().tolist()
    assert lines == sorted(lines) and all((read[f"{axis}_offset"] == 0).any() for axis in axes)
    for kind in ("index", "offset"):
        rebuilt = np.zeros(result.mask.shape, dtype=bool)
        for _, entry in read.iterrows():
            place = [slice(None), slice(None)]
            for number, axis in enumerate(("row", "column")):
                if axis in axes:
                    centre = result.mask.shape[number] // 2
                    place[number] = entry[axis] if kind == "index" else entry[f"{axis}_offset"] + centre
            rebuilt[tuple(place)] = True
        np.testing.assert_array_equal(rebuilt, result.mask.numpy())


def test_list_for_a_scanner_to_the_letter(tmp_path):
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, [0, 3, 5]] = True
    export(as_result(mask, "three", 2, "columns"), tmp_path / "lines.csv")
    assert (tmp_path / "lines.csv").read_bytes() == b"column,column_offset\n0,-3\n3,0\n5,2\n"
    mask[1] = False
    export(as_result(mask, "three", 4, "points"), tmp_path / "points.csv")
    assert (tmp_path / "points.csv").read_bytes() == b"row,column,row_offset,column_offset\n0,0,-1,-3\n0,3,-1,0\n0,5,-1,2\n"


def test_a_line_measured_in_part_is_no_line(tmp_path):
    result = random_mask("columns", (6, 10))
    mask = result.mask.clone()
    mask[0, 5] = False
    with pytest.raises(InputError, match="columns that are measured in part"):
        export(replace(result, mask=mask), tmp_path / "lines.csv")
    assert not list(tmp_path.iterdir())


def test_numpy_and_picture(result, tmp_path):
    export(result, tmp_path / "mask.npy")
    export(result, tmp_path / "mask.png")
    read = np.load(tmp_path / "mask.npy", allow_pickle=False)
    assert read.dtype == bool and np.array_equal(read, result.mask.numpy())
    picture = np.asarray(Image.open(tmp_path / "mask.png"))
    assert picture.dtype == np.uint8 and np.array_equal(picture, 255 * result.mask.numpy().astype(int))


def test_another_mask_file(result, tmp_path):
    export(result, tmp_path / "copy.h5")
    read = load_mask(tmp_path / "copy.h5")
    for name in ("mask", "probabilities", "theta"):
        assert torch.equal(getattr(read, name), getattr(result, name))
    assert (read.pattern, read.acceleration, read.recipe, read.provenance) == (
        result.pattern,
        result.acceleration,
        result.recipe,
        result.provenance,
    )


@pytest.mark.parametrize("ending", FORMATS)
def test_capital_endings_and_older_files(ending, tmp_path):
    export(random_mask("rows", (7, 9)), tmp_path / f"mask{ending}")
    export(random_mask("points", (6, 10)), tmp_path / f"again{ending}")
    export(random_mask("points", (6, 10)), tmp_path / f"mask{ending}")  # over the older one
    if ending != ".mat":  # whose header has the time in it
        assert (tmp_path / f"mask{ending}").read_bytes() == (tmp_path / f"again{ending}").read_bytes()
    export(random_mask("points", (6, 10)), tmp_path / f"MASK{ending.upper()}")
    assert (tmp_path / f"MASK{ending.upper()}").stat().st_size > 0


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("place", ["missing/mask", "folder"])
def test_where_nothing_can_be_written(ending, place, tmp_path):
    (tmp_path / f"folder{ending}").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        export(random_mask("points", (6, 10)), tmp_path / f"{place}{ending}")
    assert "\n" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_bart_has_both_files_or_none(tmp_path, monkeypatch):
    result = random_mask("points", (6, 10))
    (tmp_path / "mask.hdr").mkdir()
    with pytest.raises(InputError, match="mask.hdr: is a folder"):
        export(result, tmp_path / "mask.cfl")
    assert [p.name for p in tmp_path.iterdir()] == ["mask.hdr"]
    (tmp_path / "mask.hdr").rmdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="the disk is full"):
        export(result, tmp_path / "mask.cfl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mask.docx", "mask", "mask.hdr", ".npy"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="known: .cfl, .csv, .h5, .mat, .npy, .png"):
        export(random_mask("points", (6, 10)), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", FORMATS)
def test_on_the_command_line(ending, tmp_path, monkeypatch, capsys):
    random_mask("columns", (6, 10)).save(tmp_path / "mask.h5")
    monkeypatch.setattr("sys.argv", ["prom", "export", str(tmp_path / "mask.h5"), "--output", str(tmp_path / f"out{ending}")])
    main()
    assert f"out{ending}" in capsys.readouterr().out and (tmp_path / f"out{ending}").stat().st_size > 0


def test_help_names_every_ending(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prom", "export", "--help"])
    main()
    assert ", ".join(FORMATS) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("ending", [".npy", ".mat", ".png", ".h5"])
def test_exported_masks_are_read_again(result, ending, tmp_path):
    export(result, tmp_path / f"mask{ending}")
    read = mask_files.read(tmp_path / f"mask{ending}")
    assert read.dtype == torch.bool and torch.equal(read, result.mask)


def write_wrong(path: Path, what: str) -> Path:
    """A file that is no mask, though its ending is that of one."""
    grey = np.tile(np.arange(8, dtype=np.uint8) * 36, (8, 1))
    match what:
        case "255.npy":
            np.save(path, grey // 252 * 255)
        case "half.npy":
            np.save(path, np.full((8, 8), 0.5))
        case "empty.npy":
            np.save(path, np.zeros((8, 8), bool))
        case "line.npy":
            np.save(path, np.ones(8, bool))
        case "objects.npy":
            np.save(path, np.full((2, 2), None), allow_pickle=True)
        case "archive.npy":
            np.savez(path.with_suffix(".npz"), mask=np.ones((8, 8)))
            path.with_suffix(".npz").rename(path)
        case "huge.npy":
            np.lib.format.write_array_header_1_0(path.open("wb"), {"descr": "|b1", "fortran_order": False, "shape": (2**20, 2**20)})
        case "other.mat":
            scipy.io.savemat(path, {"images": np.ones((8, 8))})
        case "grey.png":
            Image.fromarray(grey).save(path)
        case "colour.png":
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        case "jpeg.png":
            Image.fromarray(grey // 252 * 255).save(path, format="JPEG")
        case _:
            path.write_bytes(b"no mask at all")
    return path


WRONG = {
    "255.npy": "other values than 0 and 1",
    "half.npy": "other values than 0 and 1",
    "empty.npy": "measures nothing",
    "line.npy": "the shape (8,)",
    "objects.npy": "is no mask",
    "archive.npy": "npz archive",
    "huge.npy": "is no mask",
    "other.mat": "no variable mask, only images",
    "grey.png": "grey pixels",
    "colour.png": "of mode RGB",
    "jpeg.png": "is no mask",
    "text.npy": "is no mask",
    "text.mat": "is no mask",
    "text.png": "is no mask",
    "text.txt": "is of no format that masks are read from; give prom's own .h5, or .npy, .mat, .png",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_mask_is_refused_in_one_line(what, tmp_path):
    with pytest.raises(InputError) as caught:
        mask_files.read(write_wrong(tmp_path / what, what))
    assert WRONG[what] in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        mask_files.read(tmp_path / f"missing{what}")


# --------------------------------------------------------------------------------------------------------------------------- three axes

THREE = [
    (pattern, kind)
    for kind, names in (
        ("series", ("points", "columns", "rows", "still-points", "still-columns", "still-rows")),
        ("volumes", ("points", "columns", "rows")),
    )
    for pattern in names
]


@pytest.fixture(params=THREE, ids=str)
def deep(request) -> MaskResult:
    """A mask of a volume or of a series: 5 x 6 x 7, a third of its parameters measured, that in the middle among them."""
    pattern, kind = request.param
    grid = make(pattern, (5, 6, 7), kind == "series")
    theta = torch.rand(grid.shape, generator=torch.Generator().manual_seed(len(pattern)))
    theta[tuple(n // 2 for n in grid.shape)] = 1.0
    count = grid.size // 3
    chosen = torch.zeros(grid.size, dtype=torch.bool)
    chosen[theta.flatten().topk(count).indices] = True
    mask = grid.forward(chosen.reshape(grid.shape)).contiguous()
    theta = theta.contiguous()
    provenance = {"dataset": "drawn", **({"kind": kind} if kind == "series" else {})}
    return MaskResult(
        mask, grid.forward(theta).contiguous(), theta, pattern, grid.size / count, {"name": "random"}, 0, provenance=provenance
    )


@pytest.mark.parametrize("ending", [".npy", ".mat", ".h5"])
def test_masks_with_three_axes_are_read_again(deep, ending, tmp_path):
    export(deep, tmp_path / f"mask{ending}")
    assert torch.equal(mask_files.read(tmp_path / f"mask{ending}"), deep.mask)
    read, pattern = mask_files.read_with_pattern(tmp_path / f"mask{ending}")
    assert pattern in (deep.pattern, deep.pattern.removeprefix("still-")) and torch.equal(read, deep.mask)
    if ending == ".h5":
        again = load_mask(tmp_path / "mask.h5")
        assert again.lines == deep.lines and torch.equal(again.theta, deep.theta)
    if ending == ".mat":
        layout = scipy.io.loadmat(tmp_path / "mask.mat")["layout"].item()
        first = "(t, 4, 4)" if deep.lines.frames else "(3, 4, 4)"
        assert layout.startswith(f"mask({'frame' if deep.lines.frames else 'partition'}, row, column)") and layout.endswith(first)


def test_bart_has_time_as_dimension_10_and_partitions_as_2(deep, tmp_path):
    export(deep, tmp_path / "mask.cfl")
    read = read_cfl(tmp_path / "mask.cfl")
    place = 10 if deep.lines.frames else 2
    assert read.shape[:2] == (6, 7) and read.shape[place] == 5 and read.size == 210
    np.testing.assert_array_equal(np.moveaxis(read, place, 0).reshape(5, 6, 7), deep.mask.numpy().astype(complex))


def test_lists_with_three_axes(deep, tmp_path):
    """Rebuilt from offsets, the frame's from its number, the mask is what it was."""
    export(deep, tmp_path / "mask.csv")
    read = pd.read_csv(tmp_path / "mask.csv")
    names = ["frame" if deep.lines.frames else "partition", "row", "column"]
    listed = [name for name in names if name in read]
    assert len(read) == int(deep.lines.select(deep.mask).sum())
    assert read.columns.tolist() == listed + [f"{name}_offset" for name in listed if name != "frame"]
    rebuilt = np.zeros((5, 6, 7), dtype=bool)
    for _, entry in read.iterrows():
        place = [slice(None)] * 3
        for axis, name in enumerate(names):
            if name in listed:
                place[axis] = entry[name] if name == "frame" else entry[f"{name}_offset"] + rebuilt.shape[axis] // 2
        rebuilt[tuple(place)] = True
    np.testing.assert_array_equal(rebuilt, deep.mask.numpy())


def test_a_mask_with_three_axes_is_no_picture(deep, tmp_path):
    with pytest.raises(InputError, match=r"a picture has no room for a mask of \(5, 6, 7\); export it as .npy"):
        export(deep, tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [lambda mask: mask.to(torch.uint8) * 255, lambda mask: mask.float() * 0.5])
def test_masks_of_other_values_than_0_and_1_are_refused(wrong):
    mask = random_mask("points", (8, 8)).mask
    with pytest.raises(InputError, match="must have 0 and 1 only"):
        as_result(wrong(mask), "mine", 3)
    assert torch.equal(as_result(mask.numpy().astype(np.uint8), "mine", 3).mask, mask)


def test_masked_arrays_are_no_masks():
    hidden = np.ma.array(np.ones((8, 8)), mask=np.eye(8))
    with pytest.raises(InputError, match="is a masked array"):
        as_result(hidden, "mine", 1)
    with pytest.raises(InputError, match="require: is a masked array"):
        Demands(require=np.ma.array(np.eye(8, dtype=bool), mask=np.eye(8)))
