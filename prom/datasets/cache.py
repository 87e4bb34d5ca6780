"""From a plan to a data set: read into memory, or preprocessed once into a store on disk that is mapped piece by piece.

A store is a folder: ``images.bin`` and ``labels.bin``, of coils also ``kspace.bin`` and ``sensitivities.bin``, raw arrays in C order,
and ``index.json``, which says what they are. It is written under another name and renamed when complete, so that a killed build leaves no
store behind, and its name holds a key of everything that it depends on, so that no other data, option or version of the code can take it
for theirs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import numpy as np
import torch
from filelock import FileLock
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.reduction import dumps
from torch import Tensor
from tqdm import tqdm

from prom.datasets.base import Part, Plan, SliceDataset
from prom.datasets.reading import sha256
from prom.engine.workers import call
from prom.errors import InputError
from prom.files import replacing

FORMAT = "prom store 1"
FOLDER = ".prom-cache"
BUILDING = ".building-"  # then the key, then what makes the name unique
DIGESTS = "digests.json"
COARSE = 2 * 10**9  # nanoseconds; FAT counts in steps of two seconds
LARGE = 64 * 2**20  # bytes of source files above which a data set goes through a store, which several processes make
IN_MEMORY = 2**29  # bytes up to which a store is read into memory; learning adds k-space, so that it is 2 GiB at most, which a laptop has
NUMPY = {"float32": np.float32, "complex64": np.complex64, "uint8": np.uint8}


class StoredRows:
    """Rows of an array on disk, indexed like a tensor: ``rows[3]``, ``rows[2:5]`` and ``rows[[7, 1]]`` are tensors in memory.

    Only what is needed is mapped, and only while it is copied: what was read does not stay in the process's memory.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.arange(12, dtype=np.float32).tofile(f"{folder}/a.bin")
    ...     rows = StoredRows(Path(folder, "a.bin"), "float32", (6, 2))
    ...     rows[[5, 0]], rows.select([4, 2, 0])[1:].shape
    (tensor([[10., 11.],
            [ 0.,  1.]]), torch.Size([2, 2]))
    """

    def __init__(self, path: Path, dtype: str, shape: Sequence[int], rows: np.ndarray | None = None) -> None:
        self.path = path
        self._dtype = np.dtype(NUMPY[dtype])
        self._rows = np.arange(shape[0]) if rows is None else rows
        self.dtype = getattr(torch, dtype)
        self.shape = torch.Size((len(self._rows), *shape[1:]))
        self.ndim = len(self.shape)
        self._row_bytes = int(np.prod(shape[1:])) * self._dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Tensor:
        chosen = self._rows[index]
        if chosen.ndim == 0:
            return self._read(int(chosen))
        if len(chosen) > 1 and (np.diff(chosen) == 1).all():  # one piece of the file
            count = len(chosen) * self._row_bytes // self._dtype.itemsize
            found = np.fromfile(self.path, self._dtype, count=count, offset=int(chosen[0]) * self._row_bytes)
            return torch.from_numpy(found).reshape(len(chosen), *self.shape[1:])
        found = torch.empty(len(chosen), *self.shape[1:], dtype=self.dtype)
        for target, row in zip(found, chosen, strict=True):
            self._read(int(row), target)
        return found

    def _read(self, row: int, target: Tensor | None = None) -> Tensor:
        mapped = np.memmap(self.path, self._dtype, mode="c", offset=row * self._row_bytes, shape=tuple(self.shape[1:]))
        target = torch.empty(self.shape[1:], dtype=self.dtype) if target is None else target
        return target.copy_(torch.from_numpy(mapped))

    def select(self, indices: Sequence[int]) -> StoredRows | Tensor:
        """These rows only, in this order: read into memory where they are few enough (``IN_MEMORY``), else not read."""
        if len(indices) * self._row_bytes <= IN_MEMORY:
            return self[indices]
        selected = StoredRows.__new__(StoredRows)
        selected.__dict__.update(self.__dict__)
        selected._rows = self._rows[np.asarray(indices, dtype=int)]
        selected.shape = torch.Size((len(selected._rows), *self.shape[1:]))
        return selected

    def is_complex(self) -> bool:
        """As a tensor's."""
        return self.dtype.is_complex


def read(plan: Plan, store: bool | None = None, processes: int | None = None) -> SliceDataset:
    """Carry out a plan.

    Parameters
    ----------
    plan
        What to read.
    store
        True: through a store, which is made if there is none; False: into memory; None: through a store where the source files have
        more than 64 MiB. Of a store, up to 512 MiB of images, with their k-space and sensitivities, are read into memory, more stay on
        disk (:class:`StoredRows`).
    processes
        How many read at a time while a store is made; default: one a core, or one alone where there is little to read.

    Raises
    ------
    InputError
        Where a file cannot be used, changes while a store is made of it, or parts do not fit each other (the message names the file),
        or the store cannot be written.
    """
    size = sum(file.stat().st_size for file in plan.files if file.exists())
    if store or (store is None and size > LARGE):
        return _open(_stored(plan, processes or (joblib.cpu_count() if size > LARGE else 1)))
    collected = _Collected(plan)
    arrays: dict[str, list[Tensor]] = {}
    for part in _progress(plan.parts(), plan):
        collected.add(part)
        for name, array in _arrays(part, first=not arrays).items():
            arrays.setdefault(name, []).append(torch.from_numpy(np.ascontiguousarray(array)))
    entries = collected.finish()
    entries.pop("shape"), entries.pop("dtype")
    return SliceDataset(**{name: torch.cat(pieces) for name, pieces in arrays.items()}, **entries)


def _arrays(part: Part, first: bool) -> dict[str, np.ndarray]:
    """What is joined along the first axis, by name. Sensitivities that all parts share are those of the first one."""
    arrays = {name: getattr(part, name) for name in ("images", "labels", "kspace", "sensitivities")}
    if part.sensitivities is not None and part.sensitivities.ndim == 3 and not first:
        arrays["sensitivities"] = None
    return {name: array for name, array in arrays.items() if array is not None}


class _Collected:
    """What the parts say apart from images and labels, and the check that they fit each other."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.first: Part | None = None
        self.lists: dict[str, list] = {name: [] for name in ("subjects", "slices", "spacing", "patients")}
        self.skipped = self.largest_label = 0
        self.subjects: dict[str, Path] = {}
        self.values: list[str] = []
        self.variance = 0.0  # of the noise, summed over the slices

    def add(self, part: Part) -> None:
        if self.first is None:
            self.first = part
        first, count = self.first, len(part.images)
        if part.images.shape[1:] != first.images.shape[1:] or part.images.dtype != first.images.dtype:
            raise InputError(
                f"{first.path}: {_describe(first.images)}, but {part.path}: {_describe(part.images)}; all slices must be alike; "
                f"size= cuts or fills them to one size{', frames= takes the first frames' if self.plan.kind == 'series' else ''}"
            )
        if (part.labels is None) != (first.labels is None):
            raise InputError(f"{first.path} and {part.path}: one has labels and the other has none; give labels in every file or in none")
        self._check_coils(part)
        if part.subject in self.subjects and not part.continued:
            raise InputError(f"{self.subjects[part.subject]} and {part.path}: are both subject {part.subject!r}; rename or remove one")
        self.subjects[part.subject] = part.path
        entries = (part.subject, part.spacing, part.patient or part.subject)
        for name, entry in zip(("subjects", "spacing", "patients"), entries, strict=True):
            self.lists[name] += [entry] * count
        self.lists["slices"] += [int(number) for number in part.slices]
        self.skipped += part.skipped
        self.values += [value for value in part.values if value not in self.values]
        if part.labels is not None and count:
            self.largest_label = max(self.largest_label, int(part.labels.max()))

    def _check_coils(self, part: Part) -> None:
        first = self.first
        for what in ("kspace", "sensitivities"):
            one, other = getattr(first, what), getattr(part, what)
            axes = 4 if self.plan.kind == "series" and what == "kspace" else 3
            if (one is None) != (other is None) or (one is not None and one.shape[-axes:] != other.shape[-axes:]):
                letters = "coils, H, W" if axes == 3 else "coils, T, H, W"
                shapes = ["none" if array is None else f"({letters}) = {array.shape[-axes:]}" for array in (one, other)]
                raise InputError(
                    f"{first.path}: {what} {shapes[0]}, but {part.path}: {shapes[1]}; all slices must have as many coils, which compress= "
                    "does, and be of one size"
                )
        shared = first.sensitivities is not None and 3 in (first.sensitivities.ndim, part.sensitivities.ndim)
        if shared and not np.array_equal(first.sensitivities, part.sensitivities):
            raise InputError(f"{first.path} and {part.path}: have different sensitivities, each for all slices; give them for every slice")
        if (first.noise is None) != (part.noise is None):
            raise InputError(f"{first.path} and {part.path}: the noise of one is known and that of the other is not; give noise=")
        self.variance += len(part.images) * (part.noise or 0.0) ** 2

    def finish(self) -> dict[str, Any]:
        """The fields of a data set, and shape and dtype of its images. The noise is the root mean square over the slices."""
        plan, lists = self.plan, self.lists
        if not lists["subjects"]:
            raise InputError(f"{plan.root}: all slices of split {plan.split!r} are constant; there is nothing to learn from")
        names = plan.label_names if self.first.labels is not None else ()
        known = {} if self.first.noise is None else {"noise": math.sqrt(self.variance / len(lists["subjects"]))}
        if self.first.labels is not None and not names:
            names = ("background", *(f"label {value}" for value in range(1, self.largest_label + 1)))
        return {
            "name": plan.name,
            "split": plan.split,
            "subjects": lists["subjects"],
            "slices": lists["slices"],
            "label_names": tuple(names),
            "source": plan.source_with(self.values) + (f"; {self.skipped} {plan.skipping} left out" if self.skipped else ""),
            "spacing": lists["spacing"] if any(lists["spacing"]) else (),
            "patients": lists["patients"] if lists["patients"] != lists["subjects"] else (),
            "shape": [len(lists["subjects"]), *self.first.images.shape[1:]],
            "dtype": str(self.first.images.dtype),
            "kind": plan.kind,
            **known,
        }


def _describe(images: np.ndarray) -> str:
    what = "slices" if images.ndim == 4 else f"series of {images.shape[2]} frames"
    return f"{images.dtype} {what} of {images.shape[-2]} x {images.shape[-1]} with {images.shape[1]} channel(s)"


def _progress(parts: Iterator[Part], plan: Plan) -> Iterator[Part]:
    return tqdm(parts, total=len(plan.items), desc=f"read {plan.name} {plan.split}", disable=None, leave=False)


# ------------------------------------------------------------------------------------------------------------------------- where it lies


def folder_for(root: Path) -> Path:
    """Where the stores of a data set in ``root`` lie: under ``PROM_CACHE``, else in the data set's own folder, else in the user's cache.

    The last where the data's folder is read-only, as shared data often are.

    >>> os.environ["PROM_CACHE"] = "/fast/disk"; folder_for(Path("/data/ACDC")).as_posix()
    '/fast/disk'
    """
    if os.environ.get("PROM_CACHE"):
        return Path(os.environ["PROM_CACHE"])
    beside = (root if root.is_dir() else root.parent) / FOLDER
    writable = os.access(beside if beside.exists() else beside.parent, os.W_OK)
    try:
        user = user_folder()
    except InputError:
        if writable:
            return beside
        raise
    return root if root == user else beside if writable else user


def user_folder() -> Path:
    """The user's cache. It is also the root of data sets that have no folder of their own.

    Raises
    ------
    InputError
        Where the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prom"
    except RuntimeError as error:
        if os.environ.get("PROM_CACHE"):
            return Path(os.environ["PROM_CACHE"])
        raise InputError("home folder: this user has none; name a folder for preprocessed data with PROM_CACHE") from error


def usable(folder: Path) -> bool:
    """Whether stores can be kept in ``folder``, which is made if need be.

    >>> usable(Path(tempfile.gettempdir())), usable(Path(os.devnull, "never"))
    (True, False)
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def clear(roots: Sequence[Path]) -> list[Path]:
    """Remove all stores of the data sets in these folders, and those under ``PROM_CACHE`` and in the user's cache; nothing else.

    A store that another process is building is left to it. Returns the folders of the removed stores.
    """
    removed = []
    named = [Path(os.environ["PROM_CACHE"])] if os.environ.get("PROM_CACHE") else []
    for folder in [*named, *(root / FOLDER for root in roots), user_folder()]:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.name.startswith(BUILDING):
                if not _abandoned(entry):
                    continue
            elif not _is_store(entry):
                continue
            shutil.rmtree(entry)
            removed.append(entry)
        (folder / DIGESTS).unlink(missing_ok=True)
    return removed


def _abandoned(building: Path) -> bool:
    """Whether no process holds the lock under which a store is built."""
    try:
        with FileLock(building.parent / f"{building.name.removeprefix(BUILDING).split('-')[0]}.lock", timeout=0):
            return True
    except TimeoutError:
        return False


def _is_store(folder: Path) -> bool:
    try:
        return json.loads((folder / "index.json").read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


# ------------------------------------------------------------------------------------------------------------------ what it depends on


def _key(plan: Plan, digests: Sequence[tuple[Path, str]]) -> str:
    """16 hex digits of everything that decides what is read: contents of the files, options, this code, torch (which resizes)."""
    root = plan.root.resolve()
    contents = [(os.path.relpath(file.resolve(), root), digest) for file, digest in digests]
    what = (plan.name, plan.split, plan.kind, sorted(plan.options.items()), contents, list(plan.label_names), plan.source)
    return hashlib.sha256(repr((FORMAT, *what, _code(), torch.__version__)).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """The SHA-256 of the sources that turn files into slices."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), *(here.parent / "kspace" / name for name in ("coils.py", "fourier.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _digests(files: Sequence[Path], folder: Path) -> list[tuple[Path, str]]:
    """The SHA-256 of every file. What was read once is not read again while its stamp is the same, as git does it."""
    known = _known_digests(folder)
    fresh, result = dict(known), []
    for file in tqdm(files, desc="check source files", disable=None, leave=False):
        name, stamp = str(file.resolve()), _stamp(file)
        entry = known.get(name)
        if not entry or entry[:-1] != stamp:
            entry = [*stamp, sha256(file)]
            if _stamp(file) != stamp:
                raise _changed(file)
            fresh[name] = entry
            if _recent(stamp):  # it may change again without a change of its stamp
                fresh.pop(name)
        result.append((file, entry[-1]))
    if fresh != known:
        with _explained(folder), replacing(folder / DIGESTS) as temporary:
            temporary.write_text(json.dumps(fresh))
    return result


def _stamp(file: Path) -> list[int]:
    """What changes with a file: its size, when its content and anything else of it changed, and its place on disk."""
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); take it from the official archive") from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _recent(stamp: Sequence[int]) -> bool:
    """Whether the file was changed so recently that another change could get the same times; clocks of file systems are coarse."""
    return max(stamp[1:3]) > time.time_ns() - COARSE


def _changed(file: Path) -> InputError:
    return InputError(f"{file}: was changed while it was read; run this again when it is complete")


def _check_unchanged(stamps: Sequence[tuple[Path, list[int], bool]], digests: Sequence[tuple[Path, str]]) -> None:
    """Refuse a store one of whose files has changed since its digest was taken."""
    for (file, stamp, recent), (_, digest) in zip(stamps, digests, strict=True):
        if _stamp(file) != stamp or (recent and sha256(file) != digest):
            raise _changed(file)


def _known_digests(folder: Path) -> dict[str, list]:
    try:
        known = json.loads((folder / DIGESTS).read_text())
        return {str(name): list(entry) for name, entry in known.items() if len(entry) == 5}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


# -------------------------------------------------------------------------------------------------------------------- making and opening


class _explained:
    """Turns a full or read-only disk into one line that says what to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, InputError):
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
            raise InputError(f"cache {self.folder}: cannot be written ({why}); name another folder with PROM_CACHE") from error


def _stored(plan: Plan, processes: int) -> Path:
    """The folder of the plan's store, which is made where it does not exist."""
    folder = folder_for(plan.root)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stamps = [(file, stamp := _stamp(file), _recent(stamp)) for file in plan.files]  # before the digests
    digests = _digests(plan.files, folder)
    key = _key(plan, digests)
    target = folder / f"{plan.name}-{plan.split}-{key}"
    if _is_store(target):
        return target
    with _explained(folder), FileLock(folder / f"{key}.lock"):  # a second process waits here, and then finds the store
        if not _is_store(target):
            for left in folder.glob(f"{BUILDING}{key}-*"):  # of a build that was killed: whoever makes one holds the lock
                shutil.rmtree(left)
            temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f"{BUILDING}{key}-"))
            try:
                _build(plan, processes, temporary)
                _check_unchanged(stamps, digests)
                temporary.chmod(0o755)
                os.replace(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return target


def _build(plan: Plan, processes: int, folder: Path) -> None:
    collected = _Collected(plan)
    files: dict[str, BinaryIO] = {}
    with ExitStack() as opened:
        for part in _progress(_parts(plan, processes), plan):
            collected.add(part)
            for name, array in _arrays(part, first=not files).items():
                if name not in files:
                    files[name] = opened.enter_context(open(folder / f"{name}.bin", "wb"))
                _write(files[name], array)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    first = collected.first
    index = {"format": FORMAT, **collected.finish(), "labelled": first.labels is not None}
    if first.sensitivities is not None:
        shape, per_slice = list(first.sensitivities.shape), first.sensitivities.ndim == 4
        index["sensitivities"] = [index["shape"][0], *shape[1:]] if per_slice else shape
        index["measured"] = first.kspace is not None
    index["known_fingerprint"] = _dataset(folder, index, lazy=True).fingerprint()
    with open(folder / "index.json", "w") as file:  # last: a folder without it is no store
        json.dump(index, file)
        file.flush()
        os.fsync(file.fileno())


def _parts(plan: Plan, processes: int) -> Iterator[Part]:
    """The parts in order, read by several processes. Those need no ``if __name__ == "__main__"`` in the caller's script."""
    if processes == 1 or len(plan.items) == 1:
        yield from plan.parts()
        return
    work = joblib.Parallel(n_jobs=min(processes, len(plan.items)), return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    try:
        tasks = (bytes(dumps(partial(_read_alone, plan.read, item))) for item in plan.items)
        yield from work(joblib.delayed(call)(os.getpid(), task) for task in tasks)
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)  # they would keep their memory


def _read_alone(read: Any, item: Any) -> Part:
    torch.set_num_threads(1)  # each process has a core
    return read(item)


def _write(file: BinaryIO, array: np.ndarray) -> None:
    file.write(np.ascontiguousarray(array).data)


def _open(folder: Path) -> SliceDataset:
    try:
        index = json.loads((folder / "index.json").read_text())
        maps, images = index.get("sensitivities", ()), np.prod(index["shape"]) * np.dtype(NUMPY[index["dtype"]]).itemsize
        coils = maps[-3] * (index["measured"] + (len(maps) == 4)) if maps else 0  # coil data of the size of the images
        lazy = images * (1 + coils) > IN_MEMORY
        return _dataset(folder, index, lazy)
    except (OSError, KeyError, TypeError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"cache {folder}: is damaged ({cause}); remove it, or run 'prom datasets --clear-cache'") from error


def _dataset(folder: Path, index: dict[str, Any], lazy: bool) -> SliceDataset:
    shape = index["shape"]
    arrays = {"images": StoredRows(folder / "images.bin", index["dtype"], shape)}
    if index["labelled"]:
        arrays["labels"] = StoredRows(folder / "labels.bin", "uint8", [shape[0], *shape[2:]])
    if maps := index.get("sensitivities"):
        arrays["sensitivities"] = StoredRows(folder / "sensitivities.bin", "complex64", maps)
        if index["measured"]:
            arrays["kspace"] = StoredRows(folder / "kspace.bin", "complex64", [shape[0], maps[-3], *shape[2:]])
    for rows in arrays.values():
        size, expected = rows.path.stat().st_size, int(np.prod(rows.shape)) * rows._dtype.itemsize
        if size != expected:
            raise ValueError(f"{rows.path.name} has {size} bytes, not {expected}")
    spacing = [None if entry is None else tuple(entry) for entry in index["spacing"]]
    fields = {name: index[name] for name in ("name", "split", "subjects", "slices", "source", "patients", "kind")}
    fields["label_names"], fields["noise"] = tuple(index["label_names"]), index.get("noise")
    whole = {name for name, rows in arrays.items() if not lazy or (name == "sensitivities" and rows.ndim == 3)}  # those of all slices
    data = SliceDataset(**{name: rows[:] if name in whole else rows for name, rows in arrays.items()}, spacing=spacing, **fields)
    return data.knowing(index.get("known_fingerprint"))
