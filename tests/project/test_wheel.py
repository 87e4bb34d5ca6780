"""The wheel that a release publishes has all that an installation needs, without the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
NOT_SHIPPED = {"ruff.toml"}
CACHES = ("__pycache__", ".ipynb_checkpoints")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    project = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "prom", project / "prom", ignore=shutil.ignore_patterns(*CACHES))
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=project, check=True, capture_output=True)
    [built] = (project / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel as it lies in an environment."""
    place = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(place)
    return place


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "prom").rglob("*") if path.is_file() and path.name not in NOT_SHIPPED}
    own = {name for name in own if not any(folder in name for folder in CACHES)}
    with zipfile.ZipFile(wheel) as file:
        shipped = {name for name in file.namelist() if not name.startswith(f"prom_mri-{VERSION}.dist-info/")}
    assert shipped == own
    assert {f"prom/runs/{name}" for name in ("Snakefile", "notebooks/reconstruction.ipynb", "notebooks/segmentation.ipynb")} <= shipped


@pytest.mark.slow
def test_a_sweep_runs_from_the_wheel(installed, tmp_path):
    (tmp_path / "mine").mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        np.save(tmp_path / "mine" / f"subject{i}.npy", generator.random((2, 16, 16)).cumsum(1).cumsum(2))
    command = [sys.executable, "-P", "-m", "prom", "sweep", "reconstruction", "--dataset", "mine", "--methods", "energy"]
    command += ["--accelerations", "4"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 of 1 runs" in done.stdout, done.stderr
    [record] = tmp_path.glob("results/sweep/*/energy-points-x4-seed0.json")
    found = json.loads(record.read_text())
    assert found["commit"] == "" and json.loads(found["versions"])["prom-mri"] == VERSION  # not the repository's package
