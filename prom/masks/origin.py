"""Where a mask comes from: its data, what it was optimised for, and the software that made it."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prom.datasets.base import SliceDataset

GOLDEN = Path(__file__).with_name("golden.json")
PROJECT = Path(__file__).parents[2]


def provenance(data: SliceDataset, objective: dict[str, str], device: object) -> dict[str, object]:
    """What a result was made from, and with: everything needed to make it again. ``objective``: its own description."""
    return {
        "dataset": data.name,
        "split": data.split,
        "source": data.source,
        "slices": len(data),
        "subjects": data.number_of_subjects,
        "patients": len(data.patient_names()),
        "shape": list(data.images.shape),
        **({} if data.kind == "slices" else {"kind": data.kind}),
        "fingerprint": data.fingerprint(),
        **objective,
        "device": str(device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Versions of what computes: Python, its libraries, this package, and the golden hash of what its methods make (`prom.runs.golden`).

    >>> sorted(versions())
    ['golden', 'numba', 'numpy', 'prom-mri', 'python', 'scipy', 'torch']
    """
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "numba", "prom-mri")}
    return {"python": platform.python_version(), **packages, "golden": golden()["golden"]}


@cache
def golden() -> dict[str, Any]:
    """What `prom.runs.golden` has written down: hashes and scores of masks that every method makes of a small input."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@cache
def commit() -> str:
    """The commit of this package's repository, with a plus where its sources have changed since; empty where it was installed without.

    >>> isinstance(commit(), str)
    True
    """
    if not (PROJECT / ".git").exists() or not shutil.which("git"):
        return ""
    found = [_git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "prom")]
    return "" if None in found else found[0][:12] + ("+" if found[1] else "")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
