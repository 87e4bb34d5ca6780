"""MATLAB files of versions 5 to 7: the numeric arrays in them, in structs too, and nothing else. (7.3 is HDF5: see `formats`.)

After MathWorks' "MAT-File Format". ``scipy.io.loadmat`` reads a struct whole, whatever is asked for, and follows nesting without
bound: a damaged file of 400 kB ends the interpreter with a segmentation fault. This reads headers, and then the one array wanted.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

MATRIX, COMPRESSED = 14, 15  # types of elements that hold others
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
STRUCT, NUMERIC = 2, range(6, 16)  # classes of arrays
DEEPEST = 20  # structs in structs
LONGEST = 2**20  # bytes of a name, a list of names or of dimensions
PIECE = 2**14  # bytes read or decompressed at a time; zlib copies what is left over of it

_Entry = tuple[str, tuple[int, ...], np.dtype, Callable[[], np.ndarray]]


def survey(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every numeric array, by name: ``"x"``, or ``"s.x"`` for field x of a struct s (one struct, no array of them).

    Reads headers only. Of arrays that MATLAB stored in a smaller type (whole numbers of type double), the type is the stored one.

    Raises
    ------
    Exception
        Of many kinds, where the file is damaged.
    """
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    with open(path, "rb") as file:
        for name, shape, dtype, _ in _entries(file):
            found.setdefault(name, (shape, dtype))
    return found


def read(path: Path, name: str) -> np.ndarray:
    """The array of this name in MATLAB's order of axes; complex64 where it is complex. Raises as :func:`survey`."""
    with open(path, "rb") as file:
        return next(load for entry, _, _, load in _entries(file) if entry == name)()


class _Stream:
    """The bytes of one element, decompressed piece by piece: nothing is held that was not asked for."""

    def __init__(self, file: BinaryIO, compressed: bool) -> None:
        self.position = 0
        self._file = file
        self._inflate = zlib.decompressobj() if compressed else None

    def pieces(self, count: int) -> Iterator[bytes]:
        while count > 0:
            if self._inflate is None:
                given = piece = self._file.read(min(count, PIECE))
            else:
                given = b"" if self._inflate.eof else self._inflate.unconsumed_tail or self._file.read(PIECE)
                piece = self._inflate.decompress(given, min(count, PIECE))
            if not given and not piece:
                raise EOFError("it ends early")
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        if count > LONGEST:
            raise ValueError(f"a header of {count} bytes")
        return b"".join(self.pieces(count))

    def skip(self, count: int) -> None:
        for _ in self.pieces(count):
            pass

    def tag(self, order: str) -> tuple[int, int, bool]:
        """Type and length of the next element, and whether its data fill the rest of the tag's eight bytes."""
        (first,) = struct.unpack(order + "I", self.read(4))
        if first >> 16:
            return first & 0xFFFF, first >> 16, True
        return first, *struct.unpack(order + "I", self.read(4)), False

    def values(self, order: str, tag: tuple[int, int, bool]) -> np.ndarray:
        """The numbers of the element whose tag was read last."""
        kind, length, small = tag
        values = np.empty(length // np.dtype(TYPES[kind]).itemsize, order + TYPES[kind])
        target, at = values.view(np.uint8), 0
        for piece in self.pieces(target.size):
            target[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        self.skip(-length % (4 if small else 8))
        return values

    def header(self, order: str) -> np.ndarray:
        """The numbers of the next element, which is a short one."""
        tag = self.tag(order)
        if tag[1] > LONGEST:
            raise ValueError(f"a header of {tag[1]} bytes")
        return self.values(order, tag)


def _entries(file: BinaryIO) -> Iterator[_Entry]:
    """Every numeric array of the file: name, shape, type, and what reads it until the next one is asked for."""
    size = file.seek(0, 2)
    file.seek(0)
    order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
    if order is None:
        raise ValueError("it is of no version from 5 to 7.3; save it with -v7 or -v7.3")
    while (start := file.tell()) < size:
        stream = _Stream(file, compressed=False)
        kind, length, _ = stream.tag(order)
        end = start + 8 + length
        if end > size:
            raise EOFError("it ends early")
        if kind == COMPRESSED:
            stream = _Stream(file, compressed=True)
            kind, length, _ = stream.tag(order)
        if kind == MATRIX and length:
            yield from _matrix(stream, order)
        file.seek(end)


def _matrix(stream: _Stream, order: str, path: tuple[str, ...] = ()) -> Iterator[_Entry]:
    """The arrays of one matrix element, the tag of which was read. ``path``: the struct and field that it is, or empty."""
    flags = int(stream.header(order)[0])
    shape = tuple(int(length) for length in stream.header(order))
    own_name = stream.header(order).tobytes().decode("latin-1")
    path = path or (own_name,)
    if flags & 0xFF in NUMERIC:
        tag, is_complex = stream.tag(order), bool(flags & 0x800)
        stored = np.dtype(TYPES[tag[0]])
        yield (
            ".".join(path),
            shape,
            np.result_type(stored, np.complex64) if is_complex else stored,
            partial(_load, stream, order, tag, shape, is_complex),
        )
    elif flags & 0xFF == STRUCT and math.prod(shape) == 1 and len(path) <= DEEPEST:
        width = int(stream.header(order)[0])
        names = stream.header(order).tobytes()
        for at in range(0, len(names), width):
            field = names[at : at + width].split(b"\0")[0].decode("latin-1")
            kind, length, _ = stream.tag(order)
            if kind != MATRIX:
                raise ValueError(f"field {field!r} is no array")
            end = stream.position + length
            if length:
                yield from _matrix(stream, order, (*path, field))
            if stream.position > end:
                raise ValueError(f"field {field!r} is longer than it says")
            stream.skip(end - stream.position)


def _load(stream: _Stream, order: str, tag: tuple[int, int, bool], shape: tuple[int, ...], is_complex: bool) -> np.ndarray:
    values = _numbers(stream, order, tag, shape)
    if is_complex:
        result = np.empty(values.shape, np.complex64)
        with np.errstate(over="ignore"):  # becomes infinite, which the reader of images refuses with its slice
            result.real = values
            del values
            result.imag = _numbers(stream, order, stream.tag(order), shape)
        values = result
    return values.reshape(shape, order="F")


def _numbers(stream: _Stream, order: str, tag: tuple[int, int, bool], shape: tuple[int, ...]) -> np.ndarray:
    if tag[1] != math.prod(shape) * np.dtype(TYPES[tag[0]]).itemsize:
        raise ValueError(f"{tag[1]} bytes for shape {shape}")
    return stream.values(order, tag)
