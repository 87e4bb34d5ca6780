"""MATLAB files of versions 4 to 7: the numeric arrays in them, in structs too, and nothing else. (7.3 is HDF5: see `formats`.)

``scipy.io.loadmat`` reads them. A damaged file can make it crash or ask for any amount of memory, so it runs in a process of its own,
with this file as the program, which therefore imports nothing of the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SECONDS = 300  # for one file
MEMORY, MEMORY_PER_BYTE = 4 * 2**30, 100  # bytes of address space that the process gets, and how many more for each byte of the file

_Arrays = dict[str, tuple[tuple[int, ...], np.dtype]]


@contextmanager
def unpacked(path: Path, wanted: str | None = None) -> Iterator[tuple[_Arrays, Callable[[str], np.ndarray]]]:
    """Shape and type of every numeric array, by name, and what loads one of them; with ``wanted``, only that one can be loaded.

    Field x of a struct s is ``"s.x"``. Structs of several elements are left out, as are cells, text, objects and sparse arrays. Arrays
    have MATLAB's order of axes and the type they are stored in, complex64 where they are complex.

    Raises
    ------
    ValueError, TimeoutError
        Where SciPy cannot read the file, crashes on it, or takes too much memory or time.

    >>> from tempfile import TemporaryDirectory
    >>> from scipy.io import savemat
    >>> with TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/a.mat", {"s": {"x": np.ones((2, 3))}})
    ...     with unpacked(Path(folder, "a.mat")) as (arrays, load):
    ...         print(arrays, load("s.x").sum())
    {'s.x': ((2, 3), dtype('float64'))} 6.0
    """
    from prom.engine import workers  # here, where it is no program

    memory = MEMORY + MEMORY_PER_BYTE * path.stat().st_size
    with (
        workers.output(__file__, str(path), wanted or "", library="SciPy", seconds=SECONDS, memory=memory) as file,
        np.load(file, allow_pickle=False) as saved,
    ):
        arrays = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in json.loads(str(saved["arrays"])).items()}
        yield arrays, lambda name: saved[str(list(arrays).index(name))]


def _unpack(path: str, wanted: str) -> None:
    """The program: shape and type of each array by name, then the wanted one, or all, under their numbers."""
    from scipy.io import loadmat  # slow to import, and only needed here

    arrays = dict(_numeric(loadmat(path, appendmat=False)))
    for name, array in arrays.items():
        arrays[name] = array.astype(np.complex64) if array.dtype.kind == "c" else array
    described = json.dumps({name: (array.shape, array.dtype.str) for name, array in arrays.items()})
    saved = {str(number): array for number, (name, array) in enumerate(arrays.items()) if wanted in ("", name)}
    np.savez(sys.__stdout__.buffer, arrays=described, **saved)


def _numeric(variables: dict[str, object], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in variables.items():
        plain = type(value) is np.ndarray and not name.startswith("__")  # objects are of derived types; SciPy adds names with __
        if plain and value.dtype.kind in "biufc":
            yield prefix + name, value
        elif plain and value.dtype.names and value.size == 1:
            yield from _numeric(dict(zip(value.dtype.names, value.item(), strict=True)), f"{prefix}{name}.")


if __name__ == "__main__":
    _unpack(*sys.argv[1:])
