"""Writing files so that nothing half-written is ever left behind, and nothing but a file is ever written to."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from prom.errors import InputError

NAME_MAX = 255  # bytes of a file's name, where the file system does not report it
ENDING_MAX = 20  # bytes up to which a temporary file has the ending of the file itself
FORGOTTEN = 7 * 24 * 3600  # seconds after which a temporary file is left over, whoever made it; writing one takes seconds
WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it would be larger than the file system or 'ulimit -f' allows",
}


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it replaces ``path`` in one step, on any error it is removed.

    Where ``path`` is a link, what it points to is replaced, and the link stays.

    Raises
    ------
    InputError
        Where :func:`check_writable` raises one, or the file cannot be written, e.g. because the disk is full.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(f"{folder}/note.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     os.listdir(folder)
    ['note.txt']
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"output {os.fspath(path)}: cannot be written ({reason(error)}); name another file or folder") from error


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """:func:`atomic`, except that an operating system's error is passed on, for callers that describe it better."""
    target = _target(Path(path))
    _remove_left_over(target.parent)
    ending = target.suffix if len(os.fsencode(target.suffix)) <= ENDING_MAX else ""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".prom-{_machine()}-{os.getpid()}-", suffix=ending)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; a result is as readable as any other file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Raise InputError now, before any long computation, where :func:`atomic` would fail later.

    Raises
    ------
    InputError
        Where the folder does not exist or may not be written to, the name is too long, or there is something of that name which is no
        file (a folder, a pipe, a device), or which may not be written to.

    >>> check_writable("/no/such/folder/mask.h5")
    Traceback (most recent call last):
    prom.errors.InputError: output /no/such/folder/mask.h5: folder /no/such/folder does not exist; create it first
    """
    folder = _target(Path(path)).parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"output {path}: folder {folder} may not be written to ({reason(error)}); name another") from error


def reason(error: OSError) -> str:
    """Why the operating system refused, in words.

    >>> reason(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    """
    return WHY.get(error.errno) or error.strerror or " ".join(str(error).split())


def _target(path: Path) -> Path:
    """The file that is to be replaced, or the new one: of a link what it points to."""
    label = f"output {path}"
    try:
        linked = path.is_symlink()
        target = Path(os.path.realpath(path)) if linked else path
        if linked and target.is_symlink():
            raise InputError(f"{label}: is a link that leads back to itself; name a file")
        label += f" (a link to {target})" if linked else ""
        kind = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = None
    except (OSError, ValueError) as error:  # ValueError: a byte 0 in the name
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"output {str(path)[:100]!r}: cannot be the name of a file ({why}); name another") from error
    if kind is not None and stat.S_ISDIR(kind):
        raise InputError(f"{label}: is a folder; give a file name")
    if kind is not None and not stat.S_ISREG(kind):
        raise InputError(f"{label}: is no file, but {_kind(kind)}; give another name")
    if kind is not None and not os.access(target, os.W_OK):
        raise InputError(f"{label}: may not be written to; change its permissions, or give another name")
    if not target.parent.is_dir():
        raise InputError(f"{label}: folder {target.parent} does not exist; create it first")
    longest = _longest_name(target.parent)
    if len(os.fsencode(target.name)) > longest:
        raise InputError(f"output {str(path)[:100]}...: its name has over {longest} bytes, the most that is possible here; shorten it")
    return target


def _kind(mode: int) -> str:
    names = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return names.get(stat.S_IFMT(mode), "something else")


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no pathconf
        return NAME_MAX


@cache
def _machine() -> str:
    """8 hex digits of where a process number means this process: the machine, and on Linux the container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose process was killed. Only files of this user that are named as ours are."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = re.fullmatch(r"\.prom-([0-9a-f]{8})-([0-9]{1,10})-[a-z0-9_]{8}(\..*)?", entry.name, re.ASCII)
            if found is None:
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                own = stat.S_ISREG(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())
                gone = found[1] == _machine() and not _runs(int(found[2]))
                if own and (gone or time.time() - status.st_mtime > FORGOTTEN):
                    os.unlink(entry.path)


def _runs(process: int) -> bool:
    """Whether there is such a process on this machine; also where this is unknown."""
    if os.name != "posix":
        return True  # on Windows the signal 0 is not harmless
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
