"""Ctrl-C and SIGTERM: the work ends once, with a word, and the impatient get no traceback."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

ENOUGH = 3.0  # seconds to put everything in order


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody wants this process to end."""


class LostError(ValueError):
    """Another process of the same command has ended: see `processes`."""


@contextlib.contextmanager
def answering_signals(leave: Callable[[KeyboardInterrupt], NoReturn]) -> Iterator[None]:
    """Ends the work at the first Ctrl-C or SIGTERM, by an exception; further ones change nothing.

    Some libraries swallow the exception, and so does Python at the end of an object's life. If the
    work still goes on after `ENOUGH` seconds, `leave` ends it.

    Args:
        leave: ends the process. In the middle of an import it is called at once: there an exception
            may abort the process in a library's own code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        wanted = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if _is_importing(frame):
            leave(wanted)
        sys.unraisablehook = lambda lost: None  # a report of the exception that Python swallowed
        if hasattr(signal, "setitimer"):  # not on Windows
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: leave(wanted))
            signal.setitimer(signal.ITIMER_REAL, ENOUGH)
        raise wanted

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    report = sys.unraisablehook
    try:
        yield
    finally:
        sys.unraisablehook = report
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Tells whether a module is being imported, somewhere below a frame."""
    while frame is not None and frame.f_globals.get("__name__") != "importlib._bootstrap":
        frame = frame.f_back
    return frame is not None
