"""Writing files so that nothing half-written is ever left behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prom.errors import InputError


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it replaces ``path`` in one step, on any error it is removed.

    Raises
    ------
    InputError
        Where the folder does not exist or may not be written to, or ``path`` is a folder.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(f"{folder}/note.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     os.listdir(folder)
    ['note.txt']
    """
    path = Path(path)
    check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; a result is as readable as any other file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Raise InputError now, before any long computation, where :func:`atomic` would fail later.

    >>> check_writable("/no/such/folder/mask.h5")
    Traceback (most recent call last):
    prom.errors.InputError: output /no/such/folder/mask.h5: folder /no/such/folder does not exist; create it first
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {path}: is a folder; give a file name")
    if not path.parent.is_dir():
        raise InputError(f"output {path}: folder {path.parent} does not exist; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"output {path}: folder {path.parent} may not be written to ({error.strerror})") from error
