"""Which recorded results come from code that makes the golden masks of today: those that name the golden hash of this installation.

Tables (.csv), records and measurements (.json) and masks (.h5) name the versions that they were computed with. The golden hash among these
stands for the masks that methods make of one small input (:mod:`prom.runs.golden`); results of before there was one name none. Where a
recipe's settings have changed since, its method makes other masks by the same code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import pandas as pd

from prom.errors import InputError
from prom.learn import recipes
from prom.masks import golden
from prom.runs import results

COUNTS = ["rows", "current", "other hash", "no hash", "other recipe"]
ENDINGS = (".csv", ".json", ".h5")
BESIDE = ("slices.csv", "sweep.json")  # scores of slices, of which the table names the versions; what a sweep is to run


def survey(folder: str | os.PathLike) -> pd.DataFrame:
    """How many results of every file below a folder are of the golden hash of this installation.

    Records of single runs are counted together where they lie in one folder, and so are masks. The mask and the scores that lie beside
    the record of a run belong to it, and are not counted.

    Returns
    -------
    pandas.DataFrame
        One row a file, or a folder of single runs: ``file``, relative to ``folder``; ``rows``; how many of these are ``current``, name an
        ``other hash``, or ``no hash``, or were learnt by a recipe of other settings than those of today; and ``processor``, the names of
        those that are recorded, of graphics cards too.

    Raises
    ------
    InputError
        Where there is no such folder, it has no results, or one cannot be read.

    >>> import tempfile
    >>> from prom.masks import versions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "speed.json").write_text(json.dumps({"versions": versions(), "processor": "znver4"}))
    ...     _ = Path(folder, "runs.csv").write_text('psnr,versions\\n30.5,"{""golden"": ""0""}"\\n31.5,{}\\n')
    ...     survey(folder).values.tolist()
    [['runs.csv', 2, 0, 1, 1, 0, ''], ['speed.json', 1, 1, 0, 0, 0, 'znver4']]
    """
    if not os.fspath(folder):
        raise InputError("folder '': must be that of records; the folder at hand is '.'")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder {folder}: does not exist; name the folder of records, such as the one 'prom sweep' was given as --output")
    every = []
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder)
        if path.suffix not in ENDINGS or path.name.endswith(BESIDE) or any(part.startswith(".") for part in where.parts):
            continue
        if path.suffix != ".json" and path.with_suffix(".json").exists():
            continue
        try:
            found, single = _read(path)
            values = [{"hash": _hash(one), "other recipe": other_recipe(one), "processor": _processor(one)} for one in found]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot be read as a record ({reason}); remove it, or name another folder") from error
        every += [{"file": str(where.with_name(f"*{path.suffix}") if single else where), **value} for value in values]
    if not every:
        raise InputError(f"folder {folder}: has no records (.csv, .json) and no masks (.h5); name another")
    table, here = pd.DataFrame(every), golden()["golden"]
    same = ~table["other recipe"]
    table["rows"], table["current"], table["no hash"] = 1, same & (table["hash"] == here), same & (table["hash"] == "")
    table["other hash"] = same & ~(table["current"] | table["no hash"])
    files = table.groupby("file", sort=False)
    names = files["processor"].agg(lambda names: ", ".join(sorted(set(names) - {""})))
    return files[COUNTS].sum().assign(processor=names).reset_index()


def report(table: pd.DataFrame) -> str:
    """A table of :func:`survey` as text, with the names to the left.

    >>> counts = dict(zip(COUNTS, (2, 0, 1, 1, 0)))
    >>> print(report(pd.DataFrame([{"file": "runs.csv", **counts, "processor": "znver4"}])))
    file      rows  current  other hash  no hash  other recipe  processor
    runs.csv     2        0           1        1             0  znver4
    """
    rows = [list(table.columns), *table.astype(str).values.tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = ("file", "processor")
    aligned = [
        [text.ljust(width) if name in left else text.rjust(width) for name, text, width in zip(table.columns, row, widths, strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def _read(path: Path) -> tuple[list[dict[str, object]], bool]:
    """The results in a file, and whether it is that of a single run."""
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"), False
    if path.suffix == ".json":
        record = json.loads(path.read_text(encoding="utf-8"))
        return [record], isinstance(record.get("versions"), str)
    with h5py.File(path) as file:
        made = file.attrs.get("provenance")  # which no other HDF5 files have
        return ([] if made is None else [{**json.loads(made), "recipe": file.attrs.get("recipe")}]), True


def _hash(result: dict[str, object]) -> str:
    """The golden hash that a result names, else ""."""
    versions = result.get("versions") or {}
    return (json.loads(versions) if isinstance(versions, str) else versions).get("golden", "")


def other_recipe(result: dict[str, object]) -> bool:
    """Whether a recipe that is known by this name has other settings today."""
    used, method = json.loads(result.get("recipe") or "{}"), result.get("method")
    if not method or used.get("name") not in recipes.RECIPES:
        return False
    try:
        today = results.recipe_of(":".join(filter(None, (method, result.get("variant")))))
    except InputError:  # refused today
        return True
    today.pop("members", None)  # of an average of several runs: as many as there were
    return any(today[field] != value for field, value in used.items() if field in today)


def _processor(result: dict[str, object]) -> str:
    """The processor's name; a device that is called "cpu" has none."""
    name = result.get("processor") or result.get("device") or ""
    return "" if name == "cpu" else str(name)
