"""What several commands share: options, examples for help, and JSON."""

from __future__ import annotations

import json as jsonlib
import math
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import click

from prom.cli.types import whole
from prom.files import check_writable
from prom.options import FILES, FORMATS, SCANNER_FORMATS


def example(*lines: str) -> str:
    """An example for --help that click does not re-wrap."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def threads_option(command: Callable) -> Callable:
    """The option for the number of threads that PyTorch uses in ``command``."""

    @wraps(command)
    def limited(threads, **rest):
        if threads:
            import torch

            torch.set_num_threads(threads)
        return command(**rest)

    text = "The number of CPU threads. [default: one per core, or OMP_NUM_THREADS]"
    return click.option("--threads", type=whole("[1, 1024]"), help=text)(limited)


def check_output(output: str, *read: str | None, option: str = "--output") -> None:
    """Refuse, before anything is computed, an output that would overwrite what is read."""
    check_writable(output)
    for name in read:
        if name and Path(name).exists() and Path(output).exists() and Path(output).samefile(name):
            raise click.UsageError(f"{option} {output}: would overwrite a file that is read; name another file")


def read_by(settings: Iterable[str]) -> list[str]:
    """The files that options of a reader name.

    >>> read_by(["maps=a.npy", "size=64"])
    ['a.npy']
    """
    pairs = (setting.partition("=") for setting in settings)
    return [value for name, _, value in pairs if name in FILES]


def check_outside(output: str, read: str, option: str = "--output") -> None:
    """Refuse an output among the images that are read, one of which it would replace, or become."""
    place, target = Path(read).resolve(), Path(output).resolve()
    if place.exists() and (target == place or place in target.parents):
        raise click.UsageError(f"{option} {output}: lies among the files that are read; name one elsewhere")


def check_mask_output(output: str, *read: str | None) -> None:
    """Likewise of a mask, which overwrites nothing but a mask, and is not called as an image or an export."""
    check_output(output, *read)
    ending = Path(output).suffix.lower()
    exported = ending in (*FORMATS, *SCANNER_FORMATS)
    if ending not in ("", ".h5", ".hdf5") and (exported or _is_of_images(output)):  # among which it would be taken for one of them
        more = f", and prom export makes {ending}" if exported else ""
        raise click.UsageError(f"--output {output}: a mask file is HDF5; name it {Path(output).stem}.h5{more}")
    if Path(output).is_file() and not _is_mask(output):
        raise click.UsageError(f"--output {output}: exists and is no mask; name another file")


def _is_of_images(path: str) -> bool:
    from prom.datasets.formats import kind_of  # here: help does not wait for it

    return kind_of(Path(path)) is not None


def _is_mask(path: str) -> bool:
    from prom.datasets.roles import is_mask  # here: help does not wait for it

    try:
        return is_mask(Path(path))
    except OSError:
        return False


json_option = click.option("--json", "json", is_flag=True, help="Print one JSON object instead of text.")


def strict_json(value: object) -> str:
    """A value as JSON that every program reads: where a number is NaN or infinite, which JSON does not have, null.

    >>> strict_json({"loss": float("nan"), "scores": [1.0, float("inf")]})
    '{"loss": null, "scores": [1.0, null]}'
    """

    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {name: finite(entry) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [finite(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return jsonlib.dumps(finite(value), allow_nan=False)


def people(subjects: int, patients: int) -> str:
    """How many subjects, and how many patients where some have several.

    >>> people(1, 1), people(8, 2)
    ('1 subject', '8 subjects, 2 patients')
    """
    count = f"{subjects} subject{'' if subjects == 1 else 's'}"
    return count if patients == subjects else f"{count}, {patients} patient{'' if patients == 1 else 's'}"
