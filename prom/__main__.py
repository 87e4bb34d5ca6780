"""``python -m prom``, and the program ``prom``: the command line, and ^C while that is still being imported."""

import _thread
import os
import signal
import sys
import threading
from types import FrameType

SOON = 0.05  # seconds


def main() -> None:
    """Run the command line; ^C ends it in silence, with exit code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = ignored
    try:
        from prom.cli import main as run

        run()
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one, while libraries clean up, would be a traceback
            signal.signal(number, signal.SIG_IGN)
        sys.exit(130)


def interrupt(number: int, frame: FrameType | None) -> None:
    """What ^C does: raise KeyboardInterrupt, as always; but while a module is being imported, end at once, and in Numba's compiler soon.

    PyTorch and NumPy crash, or cannot be imported again, where an exception stops them half-way. Nothing has been written then. What C code
    calls back, as that compiler does, loses exceptions, and so do objects that end.
    """
    while frame:
        if frame.f_code.co_name.startswith(("_raw_object_cache", "__del__")):
            return _later(number)
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def ignored(lost: object) -> None:
    """What happens to exceptions that are lost, as in callbacks of weak references: ^C comes once more, after them; others are told."""
    if lost.exc_type is KeyboardInterrupt:
        _later(signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)


def _later(number: int) -> None:
    timer = threading.Timer(SOON, _repeat, (number,))
    timer.daemon = True
    timer.start()


def _repeat(number: int) -> None:
    """The signal once more, to the main thread, which it wakes where that waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, number)
    else:
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
