"""Files of networks that are not believed: whole, without anything that runs, and with no size that is merely declared."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prom.errors import InputError
from prom.files import atomic

LARGEST_RECORD = 2**24  # bytes of what is no weights: names, shapes, and the metadata of the training
ENTRIES = 10_000  # of the archive, and of everything that is in the metadata
# All that a file of plain tensors, numbers and text calls for.
NAMES = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
NAMES |= {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")}
CALLS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"}  # ways to call for more


@contextmanager
def refusing(path: str | os.PathLike, remedy: str) -> Iterator[None]:
    """Inside this context, whatever fails is the fault of the file, and the message names it and the remedy in one line.

    Raises
    ------
    InputError
        Where the file is missing, or anything fails.

    >>> with refusing("none.pt", "train one first"):
    ...     read("none.pt")
    Traceback (most recent call last):
    prom.errors.InputError: network none.pt: no such file; train one first
    """
    if not Path(path).is_file():
        raise InputError(f"network {os.fspath(path) or repr('')}: no such file; {remedy}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in any of many ways, and PyTorch's advice is to run what is in it
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"network {path}: is not a network file of prom ({cause}); {remedy}") from error


def write(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write dictionaries and lists of tensors, numbers and text: the whole file, or none."""
    packed = io.BytesIO()  # PyTorch turns a full disk into an error that does not name it
    torch.save(content, packed)
    with atomic(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def fingerprint(network: torch.nn.Module, metadata: Any) -> str:
    """16 hex digits of the SHA-256 of a network's weights and of metadata that JSON can hold. Those of frozen TorchScript are constants.

    >>> fingerprint(torch.nn.Identity(), {"steps": 3})
    '6f35973e41fd89bc'
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    weights = network.state_dict() | {f"constant {place}": value for place, value in enumerate(_constants(network))}
    for name, value in sorted(weights.items()):
        if not isinstance(value, Tensor):  # of get_extra_state, or packed by a quantisation
            packed = io.BytesIO()
            torch.save(value, packed)
            digest.update(name.encode() + packed.getvalue())
            continue
        bits = value.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
        digest.update(name.encode() + bits.numpy().tobytes())
    return digest.hexdigest()[:16]


def _constants(network: torch.nn.Module) -> Iterator[Tensor]:
    """Tensors that are constants of TorchScript in a network."""
    if not isinstance(network, torch.jit.ScriptModule):
        for child in network.children():
            yield from _constants(child)
    elif hasattr(network, "forward"):
        graph = network.inlined_graph
        for node in graph.findAllNodes("prim::Constant"):
            yield from _tensors(node.output().toIValue())


def _tensors(value: object) -> Iterator[Tensor]:
    """Those in lists, tuples and dictionaries, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def read(path: str | os.PathLike) -> Any:
    """What ``torch.save`` wrote, where that is dictionaries and lists of tensors, numbers and text.

    Raises
    ------
    Exception
        Of any kind, where the file is damaged (its archive has a checksum for every part), or holds anything else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weights": torch.ones(2)}, f"{folder}/a.pt")
    ...     read(Path(folder, "a.pt"))
    {'weights': tensor([1., 1.])}
    """
    parts = checked_parts(path)
    folder = {name.split("/")[0] for name in parts}
    if len(folder) != 1 or parts.get(f"{min(folder)}/byteorder") not in (b"little", b"big"):
        raise ValueError("it is no archive as PyTorch writes it")
    record = parts[f"{min(folder)}/data.pkl"]
    if len(record) > LARGEST_RECORD:
        raise ValueError("its record is too long")
    for code, what, _ in pickletools.genops(record):
        if code.name in CALLS or (code.name == "GLOBAL" and what not in NAMES):
            raise ValueError(f"it calls for {what or code.name}")
    content = torch.load(_archive(parts), map_location="cpu", weights_only=True)
    for count, _ in enumerate(_entries(content)):
        if count > ENTRIES:
            raise ValueError("it has too many entries, or contains itself")
    return content


def checked_parts(path: str | os.PathLike) -> dict[str, bytes]:
    """The parts of a file of ``torch.save`` by name; the checksum of each was right, and none is compressed.

    Raises
    ------
    ValueError, OSError, zipfile.BadZipFile
        Where the file is damaged, or no such archive.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or len(parts) > ENTRIES or sum(part.file_size for part in parts) > os.path.getsize(path):
            raise ValueError("it is no archive as PyTorch writes it")
        return {part.filename: archive.read(part) for part in parts}


def checked(path: str | os.PathLike) -> io.BytesIO:
    """The same as a file for ``torch.load``, which looks at no checksum, and finds parts in a damaged file that others do not see."""
    return _archive(checked_parts(path))


def _archive(parts: dict[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    packed.seek(0)
    return packed


def _entries(value: Any) -> Iterator[Any]:
    """Everything in nested dictionaries and lists, which may contain themselves: without end then."""
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        yield entry
        if isinstance(entry, dict):
            if not all(isinstance(name, str) for name in entry):
                raise ValueError("it has names that are no text")
            waiting.extend(entry.values())
        elif isinstance(entry, list | tuple):
            waiting.extend(entry)
        elif not isinstance(entry, str | int | float | None | Tensor):
            raise ValueError(f"it has a value of type {type(entry).__name__}")


def described(content: Any, format: str) -> tuple[dict[str, tuple[int, ...]], dict[str, Any], dict[str, Tensor]]:
    """Regions, metadata and weights of what a file of this format holds, each checked by itself.

    Raises
    ------
    ValueError
        Where one of them cannot be what it is called.
    """
    if not isinstance(content, dict) or set(content) != {"format", "regions", "story", "weights"}:
        raise ValueError("it does not have format, regions, story and weights")
    if content["format"] != format:
        raise ValueError(f"it is of format {str(content['format'])[:40]!r}, not {format!r}")
    regions, metadata, weights = content["regions"], content["story"], content["weights"]
    if not all(isinstance(part, dict) for part in (regions, metadata, weights)) or not 0 < len(regions) < 256:
        raise ValueError("its regions, metadata and weights are no dictionaries")
    for name, values in regions.items():
        if not isinstance(values, list | tuple) or not values or not all(_whole(value, 0, 255) for value in values):
            raise ValueError(f"its region {name[:40]!r} is no list of labels")
    channels = metadata.get("channels")
    if not isinstance(channels, list | tuple) or not 2 <= len(channels) <= 10 or not all(_whole(value, 1, 4096) for value in channels):
        raise ValueError("its channels are no list of 2 to 10 numbers up to 4096")
    if not _whole(metadata.get("in_channels"), 1, 1024):
        raise ValueError("its in_channels is no number up to 1024")
    if any(isinstance(value, Tensor) or (isinstance(value, float) and math.isnan(value)) for value in _entries(metadata)):
        raise ValueError("its metadata has NaN or tensors")
    return {name: tuple(values) for name, values in regions.items()}, metadata, weights


def single(network: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of a network as its file has them: on the CPU, in single precision.

    >>> single(torch.nn.Linear(2, 1).double())["weight"].dtype
    torch.float32
    """
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def check_weights(weights: dict[str, Tensor], network: torch.nn.Module) -> None:
    """Whether these are the weights of a network, which may be on the device "meta", where its size costs no memory.

    Raises
    ------
    ValueError
        Where a weight is no plain tensor, names, shapes or types differ, or a weight is not finite.
    """
    for name, value in weights.items():
        if type(value) is not Tensor or value.layout != torch.strided:
            raise ValueError(f"its weights {name[:80]!r} are no plain tensor")
    expected = network.state_dict()
    if set(expected) != set(weights):
        raise ValueError("its weights are of another network")
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            known, found = (f"{tuple(one.shape)} of {one.dtype}" for one in (expected[name], value))
            raise ValueError(f"its weights {name} are {found}, not {known}")
        if not value.isfinite().all():
            raise ValueError(f"its weights {name} have NaN or infinite values")


def _whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
