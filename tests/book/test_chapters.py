"""Chapters accept other parameters, and refuse misspelt ones. Their default outputs are nbval's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import papermill
import pytest
from click.testing import CliRunner

from prom.runs import notebook

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "notebooks"))
import run  # noqa: E402

CHAPTERS = sorted(p.stem for p in (PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Other data, as files of a user, of six subjects each: 64 x 64 slices with labels, as bright as a scanner writes them; slices that are
    oblong; such with phase; and series in time."""
    folder = tmp_path_factory.mktemp("mine")
    generator = np.random.default_rng(1)
    for name in ("bright", "oblong", "phase", "series"):
        (folder / name).mkdir()
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for i in range(6):
        shapes = [((x - u) ** 2 + (y - v) ** 2 * s < 0.3) * w for u, v, s, w in generator.uniform(0.2, 0.9, (5, 4))]
        images = (sum(shapes) + 0.01 * generator.random((3, 64, 64))).astype(np.float32)
        np.savez(folder / "bright" / f"subject{i}.npz", images=1000 * images, labels=(images > 0.5).astype(np.uint8))
        oblong = images[:, 4:60]
        np.save(folder / "oblong" / f"subject{i}.npy", oblong)
        np.save(folder / "phase" / f"subject{i}.npy", (oblong * np.exp(1j * (x + y * y)[4:60])).astype(np.complex64))
        np.save(folder / "series" / f"subject{i}.npy", np.stack([np.roll(images[:1], t // 2, 1) for t in range(5)], axis=1))
    return folder


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_parameters_are_typed_and_explained(chapter):
    parameters = papermill.inspect_notebook(str(PROJECT / "notebooks" / f"{chapter}.ipynb"))
    assert {"dataset", "root"} <= set(parameters)
    for name, parameter in parameters.items():
        assert parameter["inferred_type_name"] != "None" and parameter["help"], name


OTHER = {
    "01_theory": {"acceleration": 5, "iterations": 30, "members": 2, "seed": 3, "slice_index": 1},
    "02_projection_proof": {"acceleration": 4, "size": 9, "budget": 2.5, "iterations": 12, "trials": 20, "largest": 10_000, "seed": 1},
    "03_gpu_optimization": {
        **{"device": "cpu", "threads": 1, "size": 32, "images_per_step": 3, "samples": 2, "turns": 1, "other_sizes": [16, 24]},
        **{"race_slices": 5, "race_seeds": 1, "seed": 2},
    },
    "04_reconstruction_table": {"accelerations": [3, 6], "seeds": [1, 2], "iterations": 50, "paper_iterations": 20},
    "05_segmentation_table": {
        **{"accelerations": [3, 6], "taken_apart": 6, "steps": 12, "channels": [4, 8, 8], "iterations": 8, "evaluations": 3},
        **{"tuning_steps": 5, "joint_steps": 6, "seed": 2},
    },
    "06_why_prom_breaks": {
        **{"acceleration": 5, "size": 48, "train_slices": 7, "test_slices": 4, "iterations": 12, "batch": 3, "samples": 1, "seed": 3},
        **{"default_iterations": 15, "scales": [1.0, 0.02], "ablation_iterations": 5, "seeds": 2},
    },
    "07_convergence": {
        **{"accelerations": [3], "paper_accelerations": [5], "runs": 2, "iterations": 20, "paper_iterations": 10, "lengths": [10]},
        **{"draws": 100, "seed": 3},
    },
    "08_explorer": {
        "accelerations": [3, 6],
        "shown": 6,
        "slices": [1, 5],
        "steps": 6,
        "channels": [4, 8, 8],
        "evaluations": 2,
        "seed": 2,
    },
    "09_your_own_data": {"acceleration": 4, "pattern": "rows", "iterations": 30, "validation": 0.4, "seed": 2, "size": 64},
    "10_several_coils": {
        **{"accelerations": [5], "line_accelerations": [3], "coils": 4, "noise": 0.01, "size": 32, "train_slices": 6, "test_slices": 4},
        **{"runs": 2, "seed": 3},
    },
    "11_to_the_scanner": {
        **{"size": 48, "coils": 4, "noise": 0.01, "train_slices": 6, "test_slices": 4, "line_acceleration": 3, "point_acceleration": 5},
        **{"calibration": 8, "max_gap": 10, "partial_fourier": 0.8, "segments": 2, "echoes": 4, "fov": 180, "tr": 12, "te": 5, "flip": 15},
        **{"seed": 3},
    },
    "12_dimensions": {
        **{"readout": 0, "size": 32, "frames": 6, "coils": 4, "noise": 0.01, "train_slices": 8, "test_slices": 6, "train_series": 3},
        **{"test_series": 2, "accelerations": [5], "acceleration_in_time": 4, "evaluations": 2, "tr": 5, "seed": 3},
    },
    "13_spokes": {
        **{"size": 32, "candidates": 48, "measured": 6, "frames": 4, "measured_in_time": 3, "coils": 4, "noise": 0.01, "train_slices": 6},
        **{"test_slices": 6, "train_series": 2, "test_series": 2, "iterations": 4, "seed": 3},
    },
}


DATA = {"01_theory": "oblong", "04_reconstruction_table": "phase", "09_your_own_data": "phase", "11_to_the_scanner": "oblong"}
DATA |= {"10_several_coils": "oblong"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_runs_on_other_data_with_other_parameters(chapter, folder, tmp_path):
    """The command's own function: papermill is imported once for all chapters."""
    parameters = {"dataset": str(folder / DATA.get(chapter, "bright")), **OTHER[chapter]}
    if chapter in ("12_dimensions", "13_spokes"):
        parameters |= {"series": str(folder / "series"), "series_options": {"axes": "NTHW"}}
    parameters = json.dumps(parameters)
    done = CliRunner().invoke(run.main, [chapter, str(tmp_path / "run.ipynb"), "-y", parameters])
    assert done.exit_code == 0, f"{done.exception}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize(
    ("chapter", "parameters", "message"), [("01_theory", {"acceleratoin": 4}, "'acceleration'"), ("11_no", {}, "01_theory")]
)
def test_misspelt_names_are_errors(chapter, parameters, message, tmp_path):
    command = [sys.executable, "notebooks/run.py", chapter, str(tmp_path / "run.ipynb"), "-y", json.dumps(parameters)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [("mask.h5", "must end in .ipynb"), ("file/run.ipynb", "create it first"), ("one.ipynb", "would overwrite the notebook")],
)
def test_outputs_that_cannot_be_are_refused_before_anything_runs(output, message, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "execute", None)
    (tmp_path / "file").write_text("")
    source = PROJECT / "prom" / "runs" / "notebooks" / "reconstruction.ipynb"
    (tmp_path / "one.ipynb").write_bytes(source.read_bytes())
    done = CliRunner().invoke(notebook.command(tmp_path, "notebook", ""), ["one", str(tmp_path / output)])
    assert done.exit_code == 2 and message in done.stderr
    assert (tmp_path / "one.ipynb").read_bytes() == source.read_bytes() and (tmp_path / "file").read_text() == ""


def test_words_that_look_like_numbers_stay_words(tmp_path, monkeypatch):
    """A folder can be called 2024, and so can a scan be #2."""
    seen = {}
    monkeypatch.setattr(notebook, "execute", lambda source, output, parameters: seen.update(parameters))
    pairs = {"dataset": "scans #2", "root": "2024", "seed": "3", "method": "'igs'", "command": ""}
    line = ["reconstruction", str(tmp_path / "run.ipynb"), *(word for pair in pairs.items() for word in ("-p", *pair))]
    done = CliRunner().invoke(notebook.command(notebook.FOLDER, "notebook", ""), line)
    assert done.exit_code == 0 and seen == {"dataset": "scans #2", "root": "2024", "seed": 3, "method": "igs", "command": ""}
