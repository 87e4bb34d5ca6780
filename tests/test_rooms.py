"""The package's folders are rooms of one house: a few files at the door, and imports that point downwards only."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import prom

ROOT = Path(prom.__file__).parent
# From the ground up. What is in one line may import what is in a line above it, and within a room what makes no circle.
FLOORS = [
    ("errors",),
    ("options", "methods"),
    ("files",),
    ("engine",),
    ("kspace",),
    ("datasets",),
    ("reconstruction",),
    ("objectives",),
    ("masks",),
    ("scanner",),
    ("problem",),
    ("learn",),
    ("baselines",),
    ("evaluation",),
    ("runs",),
    ("show",),
    ("cli",),
    ("__main__",),
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in ROOT.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports anywhere, functions included, without its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "prom":
            home = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{home}.{alias.name}".strip(".")
                found.add(inner if inner in MODULES else home)
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("prom.")}
    return found - {"", "__init__"}


def test_few_files_are_at_the_door():
    assert len(list(ROOT.glob("*.py"))) <= 8
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(FLOOR)


def test_imports_never_point_upwards():
    wrong = {
        (name, other)
        for name, path in MODULES.items()
        for other in imported(path)
        if name not in ("", "__init__") and FLOOR[other.partition(".")[0]] > FLOOR[name.partition(".")[0]]
    }
    assert wrong == set()


def test_imports_make_no_circle():
    """Packages stand for what their own file imports, and a module in one needs none of it."""
    graph = {name: imported(path) - {name, name.rpartition(".")[0]} for name, path in MODULES.items() if name != "__init__"}
    graphlib.TopologicalSorter(graph).prepare()
