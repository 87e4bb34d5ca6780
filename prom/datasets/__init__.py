"""Data sets by name or by folder."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prom.datasets import acdc, folder, mni_brain
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown

__all__ = ["REGISTRY", "SliceDataset", "data_root", "load"]


@dataclass(frozen=True)
class Entry:
    """What ``prom datasets`` tells of a registered data set."""

    summary: str
    folder: str | None  # its official folder name below data/, None where nothing needs to be downloaded
    obtain: str


REGISTRY = {
    "mni_brain": Entry(
        "virtual subjects made from the MNI152 averaged brain; comes with the installation", None, "nothing to do: it comes with nilearn"
    ),
    "acdc": Entry(
        "cardiac MRI, 100 + 50 patients (Bernard et al. 2018)",
        acdc.FOLDER,
        "register for ACDC at creatis.insa-lyon.fr (non-commercial use), unpack so that ACDC/database/training exists",
    ),
}


def data_root(name: str) -> Path:
    """Where a registered data set is looked for: ``$PROM_DATA/<folder>``, or ``data/<folder>`` below the current folder.

    >>> os.environ.pop("PROM_DATA", None) and None
    >>> data_root("acdc").as_posix()
    'data/ACDC'
    """
    return Path(os.environ.get("PROM_DATA") or "data") / (REGISTRY[name].folder or "")


def load(name: str | os.PathLike, split: str = "train", root: str | os.PathLike | None = None, **options) -> SliceDataset:
    """Read a data set: a registered name ("mni_brain", "acdc"), or the path of a folder or file of your own images.

    Parameters
    ----------
    name
        A registered name, or a path. A name that is neither is an error with the nearest known name.
    split
        "train", "test" or, where the set has them, "validation" and "all". A subject is in one split only.
    root
        Where a registered data set lies; default ``data/<official folder name>``, or below ``PROM_DATA``.
    options
        Passed to the reader: see :func:`prom.datasets.mni_brain.load`, :func:`prom.datasets.acdc.load`,
        :func:`prom.datasets.folder.load`.

    Raises
    ------
    InputError
        Where it cannot be read; the message names the file.

    >>> load("acdcc")
    Traceback (most recent call last):
    prom.errors.InputError: data set 'acdcc' is not known; did you mean 'acdc'? (known: acdc, mni_brain)
    """
    name = os.fspath(name)
    if root is not None and (name not in REGISTRY or not REGISTRY[name].folder):
        raise InputError(f"root {root}: {name} has none; a folder of your own is given as the data set itself")
    if name not in REGISTRY and os.sep not in name and not Path(name).exists():
        raise unknown("data set", name, REGISTRY)
    reader = {"mni_brain": mni_brain.load, "acdc": acdc.load}.get(name) or partial(folder.load, name)
    known = set(inspect.signature(reader).parameters) - {"split", "root"}
    for option in options.keys() - known:
        raise unknown(f"option of data set {name}", option, known)
    if name in REGISTRY and REGISTRY[name].folder:
        options["root"] = data_root(name) if root is None else root
    return reader(split=split, **options)
