"""Processes that work for another one, and must not outlive it."""

from __future__ import annotations

import ctypes
import os
import pickle
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from tempfile import TemporaryFile
from typing import Any, BinaryIO

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@cache
def end_with(parent: int) -> None:
    """This process, a worker, ends as soon as its parent, of this number, does, however that ends; ^C is for the parent.

    Linux takes care of it; elsewhere a thread checks every half second.

    >>> from concurrent.futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(1, initializer=end_with, initargs=[os.getpid()]) as workers:
    ...     workers.submit(sum, [1, 2]).result()
    3
    """
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    bound = False
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            bound = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    if not bound:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this began
        os._exit(1)


def call(parent: int, task: bytes) -> Any:
    """What a pickled function without arguments returns, in a worker that ends with its parent, of this number.

    The function comes pickled, so that the libraries it needs are imported when this process already ends with its parent.

    >>> from concurrent.futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(1) as workers:
    ...     workers.submit(call, os.getpid(), pickle.dumps(list)).result()
    []
    """
    end_with(parent)
    return pickle.loads(task)()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def output(program: str, *arguments: str, library: str, seconds: float, memory: int) -> Iterator[BinaryIO]:
    """What a Python program writes to ``sys.__stdout__``, as an open file. The program is a process of its own and ends with this one.

    The file has no name, so that nothing of it is left behind however this process ends. ``library`` names what the program uses;
    ``memory`` is bytes of address space. The program can import libraries, and no module that lies beside it.

    Raises
    ------
    ValueError, TimeoutError
        Where the program raises an error, crashes, or takes too much memory or time.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile("w", suffix=".py") as program:
    ...     print("import sys; print('hello', sys.argv[1], file=sys.__stdout__)", file=program, flush=True)
    ...     with output(program.name, "world", library="Python", seconds=60, memory=2**32) as file:
    ...         file.read().decode().strip()
    'hello world'
    """
    command = [sys.executable, "-P", __file__, str(os.getpid()), str(memory), program, *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads would take address space
    with TemporaryFile() as file:
        try:
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{library} took more than {seconds:.3g} s") from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raised = done.returncode == 1 and lines  # an exception, whose traceback ends with its message
            raise ValueError(lines[-1] if raised else f"{library} crashed on it, exit status {done.returncode}")
        file.seek(0)
        yield file


def _run(parent: str, memory: str, *command: str) -> None:
    """The process of :func:`output`."""
    end_with(int(parent))
    with suppress(ImportError, OSError, ValueError):  # Windows has no limits, macOS may refuse them
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    sys.argv, sys.stdout = list(command), sys.stderr  # what a library prints is no output
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _run(*sys.argv[1:])
