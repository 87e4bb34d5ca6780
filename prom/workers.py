"""Processes that work for another one, and must not outlive it."""
# No recorded result depends on this file.

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@cache
def end_with(parent: int) -> None:
    """This process, a worker, ends as soon as its parent, of this number, does, however that ends; ^C is for the parent.

    Linux is asked to see to it; elsewhere a thread looks twice a second.

    >>> end_with(os.getppid()) is None
    True
    """
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = False
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            told = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    if not told:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this began
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
