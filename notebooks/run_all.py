"""Run the chapters, several at a time: python notebooks/run_all.py

As many run at a time as there are cores, each in one thread and the longest first,
which halves the time on two cores. A chapter that measures times runs alone, after
the others, unless PROM_ROUGH_TIMES=1 says that nobody will read them.

What the chapters show is kept in a cache, so that the book (``make book``) and the
comparison with the committed outputs (``make test``) need one run between them. The
cache is emptied when anything changes that results come from. A chapter in which a
cell fails does not stop the others; it is kept as far as it came, and run again the
next time. At the end there is one line for each failure, in _build/failures.txt too,
and exit code 1.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from filelock import FileLock
from joblib import Parallel, cpu_count, delayed
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

from prom.engine.workers import end_with
from prom.runs.notebook import kernel_of_its_own

NOTEBOOKS = Path(__file__).parent
PROJECT = NOTEBOOKS.parent
CACHE = PROJECT / "_build" / ".jupyter_cache"
FAILURES = PROJECT / "_build" / "failures.txt"
CHAPTERS = sorted(NOTEBOOKS.glob("*.ipynb"))
ALONE = ("03_gpu_optimization",)  # measures times
# Begin first, or one of them would run alone at the end, beside an idle core.
LONGEST = ("04_reconstruction_table", "08_explorer", "05_segmentation_table")
LONGEST += ("03_gpu_optimization", "06_why_prom_breaks", "12_dimensions", "13_spokes")
SECONDS = 600  # that a cell may take
SOURCES = ("constraints.txt", "prom", "benchmarks", "data/paper", "data/recorded")
# Of the environment: they choose another processor's code, and so the last bits.
SETTINGS = ("NUMBA_CPU_NAME", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
SETTINGS += ("PROM_ROUGH_TIMES",)  # and this one, times


def executed(path: Path) -> NotebookNode:
    """A chapter with the outputs of this machine: from the cache, else run now."""
    found = kept(path)
    return found if found is not None else run(path)


def executed_for(parent: int, path: Path) -> NotebookNode:
    """As :func:`executed`, in a worker that ends with its parent, and its kernel."""
    end_with(parent)
    return executed(path)


def kept(path: Path) -> NotebookNode | None:
    """A chapter with its outputs from the cache; None where it has to be run."""
    cache, notebook = cache_of(ingredients()), nbformat.read(path, 4)
    try:
        _, found = cache.merge_match_into_notebook(notebook)
    except KeyError:
        return None
    return None if failure(found) else found


def run(path: Path) -> NotebookNode:
    """Run a chapter in a process of its own, and keep it as far as it came."""
    notebook, start = nbformat.read(path, 4), time.perf_counter()
    before = ingredients()
    for cell in code_cells(notebook):  # what stays empty in the end was not run
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory(prefix="prom-") as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            record_timing=False,  # would make the chapter another one for the cache
            resources={"metadata": {"path": str(NOTEBOOKS)}},
            config=kernel_of_its_own(folder),
        )
        try:
            client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
        except CellExecutionError:
            pass  # the cell's outputs have it
        except (CellTimeoutError, DeadKernelError) as error:
            cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
            cell = cells[max(client.code_cells_executed - 1, 0)]
            name, text = type(error).__name__, str(error).splitlines()[0]
            output = new_output("error", ename=name, evalue=text, traceback=[text])
            cell.outputs.append(output)
    seconds = time.perf_counter() - start
    if ingredients() == before:  # else nobody knows which of them it ran with
        bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
        cache = cache_of(before)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    print(f"{path.stem}: {failure(notebook) or f'{seconds:.0f} s'}", flush=True)
    return notebook


def failure(notebook: NotebookNode) -> str | None:
    """The first cell that failed, and why, in one line; None where all ran."""
    for number, cell in enumerate(code_cells(notebook)):
        expected = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "error" and not expected:
                return f"cell {number}: {reason(output)}"
    return None


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that run, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def reason(error: NotebookNode) -> str:
    """The error in words; where it has none, the line of code that failed."""
    words = " ".join(error.evalue.split())
    if not words:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        lines = re.findall(r"^-+> +\d+ (.*)$", trace, re.MULTILINE)
        words = lines[-1].strip() if lines else "no message"
    return f"{error.ename}: {words}"


def ingredients() -> str:
    """A digest of all that results come from but a chapter's own code."""
    digest = hashlib.sha256(repr([os.environ.get(name) for name in SETTINGS]).encode())
    for source in SOURCES:
        for path in sorted([PROJECT / source, *(PROJECT / source).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(PROJECT).as_posix()
                digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def cache_of(digest: str) -> JupyterCacheBase:
    """The cache, emptied if its results come from other ingredients."""
    key = CACHE / "ingredients"
    CACHE.parent.mkdir(exist_ok=True)
    with FileLock(f"{CACHE}.lock"):
        CACHE.mkdir(exist_ok=True)
        if not key.exists() or key.read_text() != digest:
            shutil.rmtree(CACHE)
            CACHE.mkdir()
            key.write_text(digest)
        cache = get_cache(str(CACHE))
        _ = cache.db  # makes the tables, which two processes must not do at once
    return cache


def main() -> None:
    FAILURES.unlink(missing_ok=True)  # not known until the end
    stems = () if os.environ.get("PROM_ROUGH_TIMES") == "1" else ALONE
    together = [path for path in CHAPTERS if path.stem not in stems]
    together.sort(key=lambda path: path.stem not in LONGEST)
    alone = [path for path in CHAPTERS if path.stem in stems]
    workers = min(cpu_count(), len(together))
    work = (delayed(executed_for)(os.getpid(), path) for path in together)
    chapters = Parallel(n_jobs=workers)(work)
    chapters += [executed(path) for path in alone]
    failures = [
        f"{path.stem}, {found}"
        for path, chapter in sorted(zip(together + alone, chapters, strict=True))
        if (found := failure(chapter))
    ]
    FAILURES.write_text("".join(f"{line}\n" for line in failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
