"""Chapters run once for the book and for the comparison with their committed outputs; one that fails is named, and stops no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

pytestmark = pytest.mark.slow

SANITIZE = ("--nbval-sanitize-with", "nbval_sanitize.cfg")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def write(path: Path, *cells: tuple[str, str]) -> None:
    """A committed chapter: code, and what it has printed."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for count, (source, text) in enumerate(cells, 1):
        outputs = [new_output("stream", text=text)] if text else []
        notebook.cells.append(new_code_cell(source, execution_count=count, outputs=outputs))
    nbformat.write(notebook, path)


def called(project: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], cwd=project, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of three chapters: one is right, one fails in its second cell, one prints something else than
    what is committed."""
    project = tmp_path_factory.mktemp("project")
    (project / "notebooks").mkdir()
    for name in ("conftest.py", "run.py", "run_all.py"):
        shutil.copy(NOTEBOOKS / name, project / "notebooks")
    count = "open('../runs', 'a').write(__name__[:1]);"  # one character a run
    write(project / "notebooks" / "01_right.ipynb", (f"{count} print(2 + 2)", "4\n"))
    write(project / "notebooks" / "02_fails.ipynb", (f"{count} print(1)", "1\n"), ("x = 1\nassert x > 2", ""), ("print(3)", "3\n"))
    differs = [
        (f"{count} print('now')", "then\n"),
        ("print('2.50, -0.01')", "2.51, +0.00\n"),
        ("print('2.50')", "2.52\n"),
        ("print(3)", "4\n"),
        ("print('TE 4 ms')", "TE 9 ms\n"),
    ]
    write(project / "notebooks" / "03_differs.ipynb", *differs)
    shutil.copy(NOTEBOOKS.parent / "tests" / "nbval_sanitize.cfg", project)
    return project


@pytest.fixture(scope="module")
def first(project) -> subprocess.CompletedProcess:
    return called(project, "notebooks/run_all.py")


def test_a_failing_cell_is_one_line_with_chapter_cell_and_reason(project, first):
    assert first.returncode == 1
    assert (project / "_build" / "failures.txt").read_text() == "02_fails, cell 1: AssertionError: assert x > 2\n"


@pytest.mark.parametrize("death", ["os._exit(1)", "time.sleep(0.5); os._exit(1)"])
@pytest.mark.parametrize("last", [False, True])
def test_a_kernel_that_dies_is_named_by_its_cell(project, tmp_path, last, death):
    cells = [("x = 1", ""), (f"import os, time; {death}", "")] + [("x = 3", "")] * (not last)
    write(tmp_path / "chapter.ipynb", *cells)
    run = "import sys, pathlib; sys.path.insert(0, 'notebooks'); import run_all; run_all.run(pathlib.Path(sys.argv[1]))"
    done = called(project, "-c", run, str(tmp_path / "chapter.ipynb"))
    assert "chapter: cell 1: DeadKernelError" in done.stdout and done.returncode == 0


def test_the_comparison_runs_no_chapter_again_but_what_failed(project, first):
    assert len((project / "runs").read_text()) == 3
    done = called(project, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *SANITIZE, "notebooks")
    assert len((project / "runs").read_text()) == 4  # the one that failed
    assert "5 failed, 3 passed, 1 skipped" in done.stdout  # of chapter 3 passes what rounding may have done
    assert "AssertionError" in done.stdout and "an earlier cell of the chapter failed" in done.stdout
    assert "then" in done.stdout and "now" in done.stdout


def test_other_sources_or_settings_run_them_again(project, first, monkeypatch):
    before = len((project / "runs").read_text())
    assert called(project, "notebooks/run_all.py").returncode == 1
    assert len((project / "runs").read_text()) == before + 1  # the one that failed
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert called(project, "notebooks/run_all.py").returncode == 1
    assert len((project / "runs").read_text()) == before + 4
    (project / "constraints.txt").write_text("torch==0\n")
    assert called(project, "notebooks/run_all.py").returncode == 1
    assert len((project / "runs").read_text()) == before + 7


def test_what_ran_while_sources_changed_is_not_kept(project, first):
    """The outputs may come from the old sources, the new ones, or both."""
    change = "open('../constraints.txt', 'a').write('x')"
    write(project / "notebooks" / "04_changes.ipynb", (f"_ = {change}; open('../changed', 'a').write('x')", ""))
    for count in (1, 2):
        called(project, "-c", "import sys; sys.path.insert(0, 'notebooks'); import run_all; run_all.executed(run_all.CHAPTERS[-1])")
        assert len((project / "changed").read_text()) == count
