"""Arrays and attributes out of an HDF5 file that is not believed: nothing outside it is read, and no declared size is trusted."""

from __future__ import annotations

import math

import h5py
import numpy as np

EXPANSION = 1100  # deflate shrinks by 1032 at most, so that whatever declares more than this many times its bytes on disk is damaged
LARGEST_TEXT = 2**20  # bytes
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}  # others would be looked for as plugins


def array(group: h5py.Group, name: str, dtype: type | np.dtype, largest: int) -> np.ndarray:
    """The dataset ``name`` (``a/b`` in a group a), whose type must be ``dtype``, in either byte order, and its size at most ``largest``.

    Raises
    ------
    KeyError, ValueError, OSError
        Where it is missing, a link, stored elsewhere, of another type, larger, or damaged.

    >>> with h5py.File("x", "w", driver="core", backing_store=False) as file:
    ...     file["a/b"] = np.arange(3.0)
    ...     array(file, "a/b", float, largest=10)
    array([0., 1., 2.])
    """
    *groups, last = name.split("/")
    for inner in groups:
        group = _linked(group, inner, h5py.Group)
    dataset = _linked(group, last, h5py.Dataset)
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{name} is stored in another file")
    dtype = np.dtype(dtype)
    if dataset.dtype.newbyteorder("=") != dtype or dataset.shape is None:
        raise ValueError(f"{name} is of type {dataset.dtype}, not {dtype}")
    size, stored = math.prod(dataset.shape), min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    if size > largest or size * dtype.itemsize > EXPANSION * stored:
        raise ValueError(f"{name} declares the shape {dataset.shape}, more than its {stored} bytes can hold")
    if dataset.chunks:
        used = {layout.get_filter(number)[0] for number in range(layout.get_nfilters())}
        if not used <= FILTERS:
            raise ValueError(f"{name} is packed by filter {min(used - FILTERS)}, which is not of HDF5 itself")
        if any(part > whole for part, whole in zip(dataset.chunks, dataset.shape, strict=True)):
            raise ValueError(f"{name} declares chunks of {dataset.chunks}, larger than it is itself")
    found = dataset[()].astype(dtype, copy=False)
    if dtype.kind == "b" and (found.view(np.uint8) > 1).any():
        raise ValueError(f"{name} has values that are neither true nor false")
    return found


def is_text(stored: h5py.Dataset | h5py.h5a.AttrID) -> bool:
    """Whether it is one string. HDF5 does not survive other types of variable length where they are damaged."""
    return stored.shape == () and h5py.check_string_dtype(stored.dtype) is not None and stored.dtype.itemsize <= LARGEST_TEXT


def text_attribute(file: h5py.File, name: str) -> str | None:
    """An attribute of the file, or None where it has none of this name that is text, or an empty one."""
    if name not in file.attrs or not is_text(file.attrs.get_id(name)):
        return None
    value = file.attrs[name]
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).strip() or None


def overlap(kind: np.dtype) -> bool:
    """Whether fields lie on each other, or beyond the end: what the library would write elsewhere in memory.

    >>> overlap(np.dtype({"names": "ab", "formats": ["<f8", "<f4"], "offsets": [0, 4], "itemsize": 8}))
    True
    """
    if kind.subdtype:
        return overlap(kind.subdtype[0])
    fields = sorted(((kind.fields[name][1], kind.fields[name][0]) for name in kind.names or ()), key=lambda field: field[0])
    ends = [*(begin for begin, _ in fields[1:]), kind.itemsize]
    return any(begin + of.itemsize > end or overlap(of) for (begin, of), end in zip(fields, ends, strict=False))


def _linked(group: h5py.Group, name: str, kind: type) -> h5py.Group | h5py.Dataset:
    link = group.get(name, getlink=True)
    if link is None:
        raise KeyError(f"{name} is missing")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link to another place")
    found = group[name]
    if not isinstance(found, kind):
        raise ValueError(f"{name} is a {type(found).__name__}, not a {kind.__name__}")
    return found


def number(group: h5py.Group, name: str, kinds: str) -> int | float:
    """The attribute ``name``, one number whose type is one of NumPy's ``kinds``: ``"iu"`` for whole numbers, ``"f"`` for others."""
    identity = _attribute(group, name)
    if identity.dtype.kind not in kinds:
        raise ValueError(f"{name} is of type {identity.dtype}, not a number")
    return group.attrs[name].item()


def text(group: h5py.Group, name: str, longest: int) -> str:
    """The attribute ``name``, text of at most ``longest`` bytes."""
    identity = _attribute(group, name)
    if h5py.check_string_dtype(identity.dtype) is None or identity.get_storage_size() > longest:
        raise ValueError(f"{name} is of type {identity.dtype}, not text of at most {longest} bytes")
    value = group.attrs[name]
    value = value.decode() if isinstance(value, bytes) else str(value)
    if len(value) > longest:
        raise ValueError(f"{name} has {len(value)} characters; at most {longest} are possible")
    return value


def _attribute(group: h5py.Group, name: str) -> h5py.h5a.AttrID:
    if name not in group.attrs:
        raise KeyError(f"attribute {name} is missing")
    identity = group.attrs.get_id(name)
    if identity.shape != ():
        raise ValueError(f"attribute {name} is an array")
    return identity
