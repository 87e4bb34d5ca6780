"""What does not need PyTorch does not wait for it: ``import prom``, help, and errors about arguments. And names stay what they are."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import permutations
from pathlib import Path

import pytest

import prom
from prom import baselines, cli, methods, options
from prom.evaluation import metrics
from prom.learn import recipes
from prom.masks import export

ROOT = Path(prom.__file__).parent
SLOW = {
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "numba",
    "matplotlib",
    "PIL",
    "monai",
    "nilearn",
    "nibabel",
    "sigpy",
    "h5py",
    "pydicom",
    "pywt",
}
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def fresh(program: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """A new process that runs ``program``."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, env={**os.environ, **environment})


def evaluated(program: str) -> object:
    """What ``program`` prints last, as JSON, in a new process."""
    done = fresh(program)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOADED = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def test_import_brings_no_other_package():
    assert SLOW & set(evaluated(f"import prom, prom.cli; dir(prom); {LOADED}")) == set()


@pytest.mark.slow
def test_a_name_brings_no_more_than_it_needs():
    """Recipes and errors need no package, transforms only PyTorch, data sets no pandas; learning a mask needs nothing to read or draw."""
    program = """
import json, sys
import prom

def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules})

found = []
prom.PAPER, prom.InputError, prom.patterns.make
found.append(loaded())
prom.fft2c
found.append(loaded())
prom.load
found.append(loaded())
import torch
prom.optimize(torch.rand(3, 8, 8), 4)
found.append(loaded())
print(json.dumps(found))
"""
    light, transform, read, learn = (SLOW & set(found) for found in evaluated(program))
    assert light == set() and transform == {"torch", "numpy"}
    assert read.isdisjoint({"pandas", "scipy", "numba"})
    assert "pandas" in learn and learn.isdisjoint({"matplotlib", "monai", "nilearn", "nibabel", "sigpy", "pydicom", "pywt"})


# ------------------------------------------------------------------------------------------------------------------- the command line

COMMANDS = sorted({"", *cli.cli.commands, *(f"segment {name}" for name in cli.segment_group.commands)})
WRONG = [
    "optimise mine",
    "--nope",
    "segment trian",
    "optimize",
    "optimize mine -o mask.h5",
    "optimize mine -a 4",
    "optimize mine -a four -o mask.h5",
    "optimize mine --acceleratoin 4 -o mask.h5",
    "optimize mine --threads 0 -a 4 -o mask.h5",
    "optimize mine --threads 2 -o mask.h5",
    "optimize mine -a 4 -o mask.h5 --recipe defalt",
    "optimize mine -a 4 -o no/folder/mask.h5",
    "optimize mine -a 4 -o mask.h5 --reconstruction sens",
    "evaluate mask.h5 mine --reconstruction sens",
    "baseline",
    "average",
    "evaluate mask.h5",
    "export mask.h5",
    "export mask.h5 --ouput mask.npy",
    "reconstruct raw.h5",
    "reconstruct raw.h5 -o image.docx",
    "reconstruct raw.h5 -o no/folder/image.nii",
    "reconstruct raw.h5 -o image.nii --reconstruction sens",
    "reconstruct raw.h5 -o image.nii --phase hard",
    "reconstruct raw.h5 -o image.nii --set coils=keep",
    "datasets folder",
    "segment train mine",
    "sweep reconstruction",
    "sweep reconstruction --dataset mine --jobs two",
]
LINE = f"""
import sys
from prom.cli import main
sys.argv[0] = "prom"
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
else:
    code = 0
print()
{LOADED}
sys.exit(code)
"""


@pytest.mark.parametrize("line", ["--version", "", *(f"{command} --help".strip() for command in COMMANDS)])
def test_help_does_not_wait_for_pytorch(line):
    done = fresh(LINE, *line.split())
    text, loaded = done.stdout.rstrip().rsplit("\n", 1)
    assert SLOW & set(json.loads(loaded)) == set()
    expected = version("prom-mri") if line == "--version" else "Usage: prom"
    assert done.returncode == (0 if line else 2) and expected in text + done.stderr


@pytest.mark.parametrize("line", WRONG)
def test_errors_about_arguments_do_not_wait_for_pytorch(tmp_path, line):
    done = fresh(LINE, *line.split(), cwd=tmp_path)
    assert SLOW & set(json.loads(done.stdout.splitlines()[-1])) == set()
    assert done.returncode == 2 and done.stderr.startswith("prom: ") and done.stderr.count("\n") == 1


def test_help_lists_what_there_is():
    assert [*methods.baselines(), *recipes.RECIPES] == list(methods.METHODS)
    assert tuple(export.FORMATS) == options.FORMATS and metrics.CONVENTIONS == options.CONVENTIONS
    assert all(method.__name__ == name for name, method in baselines.BASELINES.items())
    assert all(write.__name__ == f"to_{ending[1:]}" for ending, write in export.FORMATS.items())


@pytest.mark.slow
def test_threads_of_the_command_line(tmp_path):
    """What --threads says holds while the command runs; without it PyTorch is left alone."""
    program = """
import click, sys, torch
from prom import cli
torch.set_num_threads(3)
@click.command()
@cli.threads_option
def show(): print(torch.get_num_threads())
show(sys.argv[1:])
"""
    assert [fresh(program, *given).stdout for given in (("--threads", "2"), ())] == ["2\n", "3\n"]


# --------------------------------------------------------------------------------------------------------------- names of the package


@pytest.mark.slow
def test_public_names_are_there():
    listed = evaluated("import json, prom; print(json.dumps([sorted(prom.__all__), dir(prom)]))")
    assert set(listed[0]) <= set(listed[1])
    starred = "import json; from prom import *; import prom; names = dir(); "
    assert evaluated(starred + "print(json.dumps([all(globals()[n] is getattr(prom, n) for n in prom.__all__), len(prom.__all__)]))")[0]
    used = "import json, prom; print(json.dumps([prom.baselines.energy.__name__, prom.datasets.load is prom.load, prom.figures.__name__]))"
    assert evaluated(used) == ["energy", True, "prom.show.figures"]


def test_types_are_those_of_the_names():
    """What editors are told under TYPE_CHECKING is what a running program gets."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(typed) == set(prom.__all__)
    assert {name: f"prom.{home}" for name, home in prom.HOMES.items()} == {
        name: home for name, home in typed.items() if home != "prom" and f"{home}.{name}" not in MODULES
    }
    assert all(getattr(prom, name).__name__ == f"{home}.{name}" for name, home in typed.items() if f"{home}.{name}" in MODULES)
    assert set(prom.HOMES) < set(prom.__all__)


def test_unknown_names_are_errors():
    with pytest.raises(AttributeError, match="module 'prom' has no attribute 'optimise'"):
        prom.optimise  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'optimise' from 'prom'"):
        from prom import optimise  # noqa: F401
    assert not hasattr(prom, "__wrapped__") and not hasattr(prom, "__main__")


def test_what_a_module_misses_is_not_called_an_unknown_name():
    done = fresh("import sys; sys.modules['torch'] = None; import prom; print(prom.PAPER.name); prom.optimize")
    assert done.stdout == "paper\n" and "ModuleNotFoundError: import of torch halted" in done.stderr


# Runs each program that it is given as if it were the first to import the package, and prints which left names that are no functions.
AS_FIRST = """
import json, sys, types
MODULES = ("baselines", "curvature", "segmentation")
wrong = []
for program in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "prom"]:
        del sys.modules[name]
    exec(program, {})
    import prom
    wrong += [(program, name) for name in ("evaluate", "optimize", "polish") if not isinstance(getattr(prom, name), types.FunctionType)]
    wrong += [(program, name) for name in prom.__all__ if isinstance(getattr(prom, name), types.ModuleType) is not (name in MODULES)]
print(json.dumps(wrong))
"""


@pytest.mark.slow
def test_functions_stay_functions():
    """prom.optimize is a function, and prom.learn.optimize a module; so are two more. Whatever is imported, in whatever order."""
    ways = ("import prom.{1}", "from prom.{1} import {0} as _", "from prom import {0}", "import prom; prom.{0}")
    orders = permutations(("evaluate", "optimize", "polish"))
    programs = ["\n".join(way.format(name, prom.HOMES[name]) for name in order) for order in orders for way in ways]
    done = fresh(AS_FIRST, *programs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [] and len(programs) == 24


@pytest.mark.slow
def test_every_module_can_be_imported_first():
    done = fresh(AS_FIRST, *(f"import {name}" for name in MODULES))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [] and "prom.learn.optimize" in MODULES and "prom.datasets.base" in MODULES


def test_a_name_can_be_replaced(monkeypatch):
    monkeypatch.setattr(prom, "optimize", len)
    assert prom.optimize is len
    monkeypatch.undo()
    assert prom.optimize.__module__ == "prom.learn.optimize"


# ---------------------------------------------------------------------------------------------------- systems that are not a Unix

# As on Windows: modules that only a Unix has, and the hook for forks. PyTorch goes by the system's name, so it is imported before.
NO_UNIX = """
import os, sys
import torch
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
del os.register_at_fork
"""


@pytest.mark.slow
def test_everything_but_sweeps_runs_without_unix(tmp_path):
    program = """
from pathlib import Path
import numpy as np
import scipy.io
import prom
from prom.datasets import cache

images = np.random.default_rng(0).random((4, 16, 16))
np.save("images.npy", images)
scipy.io.savemat("images.mat", {"images": images.transpose(1, 2, 0)})
stored, direct = (prom.load("images.npy", "all", store=store) for store in (True, False))
assert stored.fingerprint() == direct.fingerprint() and list(Path("cache").glob("images*"))
assert len(prom.load("images.mat", "all")) == 4  # MATLAB's order of axes: H x W x N
result = prom.optimize(stored, 4)
result.save("mask.h5")
for ending in prom.options.FORMATS:
    prom.export.export(prom.load_mask("mask.h5"), f"mask{ending}")
    assert Path(f"mask{ending}").exists()
assert prom.evaluate(result.mask, stored)["psnr"].notna().all() and int(result.mask.sum()) == 64
assert len(cache.clear([])) == 1 and not list(Path("cache").glob("images*"))
"""
    done = fresh(NO_UNIX + program, cwd=tmp_path, PROM_CACHE="cache", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_sweeps_say_that_they_need_a_unix(tmp_path):
    line = ("sweep", "reconstruction", "--dataset", "mni_brain")
    done = fresh(NO_UNIX + "import prom.cli; prom.cli.main()", *line, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and list(tmp_path.iterdir()) == []
    assert done.stderr.splitlines()[-1].startswith("prom: sweep: needs a Unix") and "Traceback" not in done.stderr
