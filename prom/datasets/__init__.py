"""Data sets by name or by folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from prom import options
from prom.datasets import acdc, brain_tumour, cache, fastmri_knee, folder, lowfield, mni_brain
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown

__all__ = ["REGISTRY", "SliceDataset", "data_root", "load", "parse_option"]

# Each says what it is and how to obtain it (SUMMARY, FOLDER, OBTAIN, LICENCE, CITATION). Those that lie in a folder make a plan of
# what to read there, and survey what is there; mni_brain is made on the spot.
REGISTRY: dict[str, ModuleType] = {
    "mni_brain": mni_brain,
    "acdc": acdc,
    "brain_tumour": brain_tumour,
    "fastmri_knee": fastmri_knee,
    "lowfield": lowfield,
}


def data_root(name: str) -> Path:
    """Where a registered data set is looked for: ``$PROM_DATA/<folder>``, or ``data/<folder>`` below the current folder.

    >>> os.environ.pop("PROM_DATA", None) and None
    >>> data_root("acdc").as_posix()
    'data/ACDC'
    """
    return Path(os.environ.get("PROM_DATA") or "data") / (REGISTRY[name].FOLDER or "")


def load(
    name: str | os.PathLike,
    /,
    split: str = "train",
    root: str | os.PathLike | None = None,
    validation: float = 0.0,
    store: bool | None = None,
    scale: float = 1.0,
    **settings,
) -> SliceDataset:
    """Read a data set: a registered name ("mni_brain", "acdc", ...), or the path of a folder or file of your own images.

    Parameters
    ----------
    name
        A registered name, or a path. A name that is neither is an error with the nearest known name.
    split
        "train", "test" or, where the set has them, "validation" and "all". A subject is in one split only.
    root
        Where a registered data set lies; default ``data/<official folder name>``, or below ``PROM_DATA``.
    validation
        This share of the *training patients* makes the split "validation", and "train" is the rest, for anything that needs early
        stopping; see :meth:`SliceDataset.hold_out`. By default none: "train" is the whole training part, as in the paper.
    store
        Whether to preprocess once into a memory-mapped store (see :mod:`prom.datasets.cache`), which lies under ``PROM_CACHE`` or
        in the data set's folder. By default where there are more than 64 MiB to read.
    scale
        Multiplies all intensities: to see whether a method depends on the unit of the images.
    settings
        Passed to the reader: see ``plan`` of :mod:`prom.datasets.acdc`, :mod:`prom.datasets.brain_tumour`,
        :mod:`prom.datasets.fastmri_knee`, :mod:`prom.datasets.lowfield` and :mod:`prom.datasets.folder`, and
        :func:`prom.datasets.mni_brain.load`.

    Raises
    ------
    InputError
        Where it cannot be read; the message names the file.

    >>> load("acd")
    Traceback (most recent call last):
    prom.errors.InputError: data set 'acd' is not known; did you mean 'acdc'? (known: acdc, brain_tumour, fastmri_knee, lowfield, mni_brain)
    """
    name = os.fspath(name)
    if root is not None and (name not in REGISTRY or not REGISTRY[name].FOLDER):
        raise InputError(f"root {root}: {name} has none; a folder of your own is given as the data set itself")
    if name not in REGISTRY and {"/", os.sep}.isdisjoint(name) and not Path(name).exists():
        raise unknown("data set", name, REGISTRY)
    known = _options(name)
    for option in settings:
        if option not in known:
            raise unknown(f"option of data set {name}", option, known)
    if name == "mni_brain":
        if validation or store:
            raise InputError(f"{name}: has a validation split of its own, and nothing to store; leave out validation and store")
        return mni_brain.load(split, **settings).scaled(scale)
    if name in REGISTRY:
        settings["root"] = data_root(name) if root is None else Path(root)
    whole = cache.read(_plan_of(name)(split="train" if validation and split == "validation" else split, **settings), store).scaled(scale)
    if not validation or split not in ("train", "validation"):
        return whole
    rest, held = whole.hold_out(validation)
    return held if split == "validation" else rest


def _plan_of(name: str) -> Callable:
    return REGISTRY[name].plan if name in REGISTRY else partial(folder.plan, name)


def _options(name: str) -> dict[str, str]:
    """The options that a data set takes in addition to split and root, each with its type."""
    return {"scale": "float"} | options.names(mni_brain.load if name == "mni_brain" else _plan_of(name), without=("split", "root"))


def parse_option(name: str, text: str) -> tuple[str, object]:
    """``option=value`` as typed, for a data set: the option and its value in the type that the reader takes.

    Raises
    ------
    InputError
        Where the option is not known or the value is of another type.

    >>> parse_option("acdc", "all_slices=true"), parse_option("mni_brain", "slices=60,80")
    (('all_slices', True), ('slices', [60, 80]))
    """
    return options.parse(text, _options(name), f"data set {name}")
