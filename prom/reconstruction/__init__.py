"""From samples to an image, and the registry of reconstructions. It imports nothing heavy, so that help and errors do not wait for PyTorch.

A new reconstruction is a class with ``__call__`` as :class:`prom.reconstruction.zero_filled.ZeroFilled` has it, and an entry here; or,
from outside, ``register("mine", lambda train, mask: Mine())``. Optimisation and the command line then know it by its name,
and :func:`prom.evaluate` takes what :func:`named` makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from prom.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from prom.datasets.base import SliceDataset
    from prom.reconstruction.zero_filled import Reconstruction

    Maker = Callable[[SliceDataset, Tensor | None], Reconstruction | None]


def _sense(train: SliceDataset, mask: Tensor | None) -> Reconstruction:
    return import_module("prom.reconstruction.sense").Sense.of(train)


def _wavelet(train: SliceDataset, mask: Tensor | None) -> Reconstruction:
    return import_module("prom.reconstruction.sparse").Sparse.of(train, "wavelet", mask)


def _tv(train: SliceDataset, mask: Tensor | None) -> Reconstruction:
    return import_module("prom.reconstruction.sparse").Sparse.of(train, "tv", mask)


def _gridding(train: SliceDataset, mask: Tensor | None) -> Reconstruction:
    if train.trajectory is None:
        raise InputError(f"reconstruction gridding: is for readouts off the grid, and {train.name} is on it; use zero-filled or sense")
    return import_module("prom.reconstruction.gridding").Gridding()


def _view_sharing(train: SliceDataset, mask: Tensor | None) -> Reconstruction:
    if train.kind != "series":
        raise InputError(f"reconstruction view-sharing: is of series in time, and {train.name} has {train.kind}; use sense")
    if train.trajectory is not None:
        raise InputError(f"reconstruction view-sharing: is for the grid, and {train.name} is off it; use sense or gridding")
    return import_module("prom.reconstruction.view_sharing").ViewSharing()


# How each is made of training slices, and for a mask where one is known. Zero-filling is what there is without a reconstruction.
RECONSTRUCTIONS: dict[str, Maker] = {
    "zero-filled": lambda train, mask: None,
    "sense": _sense,
    "wavelet": _wavelet,
    "tv": _tv,
    "view-sharing": _view_sharing,
    "gridding": _gridding,
}


def register(name: str, make: Maker) -> None:
    """Add a reconstruction, which from then on is known by its name.

    Raises
    ------
    InputError
        Where the name is taken.

    >>> register("sense", lambda train, mask: None)
    Traceback (most recent call last):
    prom.errors.InputError: reconstruction 'sense': exists already; choose another name
    """
    if name in RECONSTRUCTIONS:
        raise InputError(f"reconstruction {name!r}: exists already; choose another name")
    RECONSTRUCTIONS[name] = make


def check(name: str) -> str:
    """The name, which must be known.

    Raises
    ------
    InputError
        Where it is not.

    >>> check("sens")                                                                # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prom.errors.InputError: reconstruction 'sens' is not known; did you mean 'sense'? (known: gridding, sense, ...)
    """
    if name not in RECONSTRUCTIONS:
        raise unknown("reconstruction", name, RECONSTRUCTIONS)
    return name


def named(name: str, train: SliceDataset, mask: Tensor | None = None) -> Reconstruction | None:
    """The reconstruction of that name, for images like these: what it weighs samples against is chosen on them. None for zero-filling.

    ``mask``, ``(H, W)``: what the images will be undersampled with. The strength of "wavelet" and "tv" is then the best for it.

    Raises
    ------
    InputError
        Where the name is not known, or the slices lack what it needs, as their noise for SENSE.

    >>> import torch
    >>> from prom.datasets.base import SliceDataset
    >>> train = SliceDataset("demo", "train", torch.rand(2, 1, 16, 16), ["a", "b"], [0, 0], noise=0.01)
    >>> type(named("sense", train)).__name__, named("zero-filled", train)
    ('Sense', None)
    """
    return RECONSTRUCTIONS[check(name)](train, mask)
