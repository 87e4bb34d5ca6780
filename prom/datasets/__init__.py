"""Data sets by name or by folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from torch import Tensor

from prom import options
from prom.datasets import acdc, brain_tumour, cache, fastmri_knee, folder, lowfield, mni_brain, virtual_heart
from prom.datasets.base import SliceDataset
from prom.datasets.formats import kind_of, read_sensitivities
from prom.errors import InputError, unknown

__all__ = ["REGISTRY", "SliceDataset", "data_root", "load", "parse_option"]

# Each says what it is and how to obtain it (SUMMARY, FOLDER, OBTAIN, LICENCE, CITATION). Those that lie in a folder make a plan of
# what to read there, and survey what is there; mni_brain and virtual_heart are made on the spot.
REGISTRY: dict[str, ModuleType] = {
    "mni_brain": mni_brain,
    "virtual_heart": virtual_heart,
    "acdc": acdc,
    "brain_tumour": brain_tumour,
    "fastmri_knee": fastmri_knee,
    "lowfield": lowfield,
}
MADE = ("mni_brain", "virtual_heart")


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
    maps: str | os.PathLike | None = None,
    maps_noise: float = 0.0,
    grid: bool = False,
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
        in the data set's folder. By default where there are more than 64 MiB to read. Virtual sets keep what they made, above 32 MiB.
    scale
        Multiplies all intensities: to see whether a method depends on the unit of the images.
    maps, maps_noise
        A file with sensitivities of another scan, and the noise of a sample, in the units of the images after ``scale``: the data are then
        as these coils would have measured them, emulated; see :meth:`SliceDataset.with_coils`. Axes: BART's own; (H, W, K) in MATLAB
        files; (K, H, W) in npy, npz and HDF5 files. The noise of each split has a seed of its own.
    grid
        Whether the slices of each subject become one volume of which a mask chooses single points of all three axes
        (:meth:`SliceDataset.as_volumes`), as in spectroscopic imaging; they must fit into memory. DICOM files go by position. For 3D
        scans with a readout see the reader's ``volume``.
    settings
        Passed to the reader: see ``plan`` of :mod:`prom.datasets.acdc`, :mod:`prom.datasets.brain_tumour`,
        :mod:`prom.datasets.fastmri_knee`, :mod:`prom.datasets.lowfield` and :mod:`prom.datasets.folder`, and
        :func:`prom.datasets.mni_brain.load` and :func:`prom.datasets.virtual_heart.load`.

    Raises
    ------
    InputError
        Where it cannot be read; the message names the file.

    >>> load("acd")                                                                  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prom.errors.InputError: data set 'acd' is not known; did you mean 'acdc'? (known: acdc, brain_tumour, fastmri_knee, ...)
    """
    name = os.fspath(name)
    if not name:
        raise InputError("data set '': must be a registered name, or the path of a folder or file")
    if root is not None and (name not in REGISTRY or not REGISTRY[name].FOLDER):
        raise InputError(f"root {root}: {name} has none; a folder of your own is given as the data set itself")
    _check_name(name)
    known = _options(name)
    for option in settings:
        if option not in known:
            raise unknown(f"option of data set {name}", option, known)
    if maps is None and maps_noise:
        raise InputError(f"maps_noise {maps_noise}: is of coils that are put on the images; give maps=")
    if grid and name not in REGISTRY:
        settings["stacked"] = True
    coils = None if maps is None else _read_maps(Path(maps))  # first, for the data may take long
    finished = partial(_finished, maps=coils, noise=maps_noise, grid=grid)
    if name in MADE:
        if validation or store is not None:
            raise InputError(
                f"{name}: has a validation split of its own, and decides itself what it stores; leave out validation and store"
            )
        return finished(REGISTRY[name].load(split, **settings).scaled(scale))
    if name in REGISTRY:
        settings["root"] = data_root(name) if root is None else Path(root)
    whole = cache.read(_plan_of(name)(split="train" if validation and split == "validation" else split, **settings), store).scaled(scale)
    if not validation or split not in ("train", "validation"):
        return finished(whole)
    rest, held = whole.hold_out(validation)
    return finished(held if split == "validation" else rest)


def _check_name(name: str) -> None:
    if name not in REGISTRY and {"/", os.sep}.isdisjoint(name) and not Path(name).exists():
        raise unknown("data set", name, REGISTRY)


def _read_maps(path: Path) -> Tensor:
    if not path.is_file():
        raise InputError(f"maps {path}: is no file; give one with coil sensitivities")
    found = read_sensitivities(path, {"MATLAB": "HWK", "BART": None}.get(kind_of(path), "KHW"), layout="(K, H, W)")
    if len(found) > min(found.shape[1:]):
        raise InputError(f"maps {path}: {tuple(found.shape)} as (coils, H, W) has more coils than rows or columns; save (K, H, W) as npy")
    return found


def _finished(data: SliceDataset, maps: Tensor | None, noise: float, grid: bool) -> SliceDataset:
    data = data if maps is None else data.with_coils(maps, noise)
    return data.as_volumes() if grid else data


def _plan_of(name: str) -> Callable:
    return REGISTRY[name].plan if name in REGISTRY else partial(folder.plan, name)


def _options(name: str) -> dict[str, str]:
    """The options that a data set takes in addition to split and root, each with its type."""
    of_reader = options.names(REGISTRY[name].load if name in MADE else _plan_of(name), without=("split", "root", "stacked"))
    return {"scale": "float", "maps": "str", "maps_noise": "float", "grid": "bool"} | of_reader


def parse_option(name: str, text: str) -> tuple[str, object]:
    """``option=value`` as typed, for a data set: the option and its value in the type that the reader takes.

    Raises
    ------
    InputError
        Where the option is not known or the value is of another type.

    >>> parse_option("acdc", "all_slices=true"), parse_option("mni_brain", "slices=60,80")
    (('all_slices', True), ('slices', [60, 80]))
    """
    _check_name(name)
    return options.parse(text, _options(name), f"data set {name}")
