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

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "notebooks"))
import run  # noqa: E402

CHAPTERS = sorted(p.stem for p in (PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Another data set: six subjects of 64 x 64 slices with labels, as files of a user."""
    folder = tmp_path_factory.mktemp("mine")
    generator = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for i in range(6):
        shapes = [((x - u) ** 2 + (y - v) ** 2 * s < 0.3) * w for u, v, s, w in generator.uniform(0.2, 0.9, (5, 4))]
        images = (sum(shapes) + 0.01 * generator.random((3, 64, 64))).astype(np.float32)
        np.savez(folder / f"subject{i}.npz", images=images, labels=(images > 0.5).astype(np.uint8))
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


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_runs_on_other_data_with_other_parameters(chapter, folder, tmp_path):
    """The command's own function: papermill is imported once for all chapters."""
    parameters = json.dumps({"dataset": str(folder), **OTHER[chapter]})
    done = CliRunner().invoke(run.main, [chapter, str(tmp_path / "run.ipynb"), "-y", parameters])
    assert done.exit_code == 0, f"{done.exception}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize(
    ("chapter", "parameters", "message"), [("01_theory", {"acceleratoin": 4}, "'acceleration'"), ("11_no", {}, "01_theory")]
)
def test_misspelt_names_are_errors(chapter, parameters, message, tmp_path):
    command = [sys.executable, "notebooks/run.py", chapter, str(tmp_path / "run.ipynb"), "-y", json.dumps(parameters)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())
