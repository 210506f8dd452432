"""Ctrl-C and SIGTERM: the work ends once, with a word, and the impatient get no traceback."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody wants this process to end."""


class LostError(ValueError):
    """Another process of the same command has ended: see `processes`."""


@contextlib.contextmanager
def answering_signals(leave: Callable[[KeyboardInterrupt], NoReturn]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work once; pressing again within a second changes nothing.

    An exception that is raised at a bad moment gets lost: some libraries swallow it, and Python
    itself reports one from the end of an object's life and goes on. If the work goes on for another
    second of computing, it is raised again; the report is left out.

    Args:
        leave: ends the process. It is called in the middle of an import, where an exception may be
            swallowed, wrapped in another one, or abort the process in a library's own code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -math.inf
    wanted: type[KeyboardInterrupt] = KeyboardInterrupt
    can_repeat = hasattr(signal, "setitimer")

    def stop(signal_number: int, frame: FrameType | None) -> None:
        nonlocal last, wanted
        now, before = time.monotonic(), last
        last = now
        if now - before > 1:
            wanted = Terminated if signal_number == signal.SIGTERM else KeyboardInterrupt
            if _is_importing(frame):
                leave(wanted())
            if can_repeat:
                signal.setitimer(signal.ITIMER_VIRTUAL, 1.0, 1.0)
            raise wanted

    def again(signal_number: int, frame: FrameType | None) -> None:
        raise wanted

    def report(lost: "sys.UnraisableHookArgs") -> None:
        if not (can_repeat and issubclass(lost.exc_type, KeyboardInterrupt)):
            report_before(lost)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    if can_repeat:
        before[signal.SIGVTALRM] = signal.signal(signal.SIGVTALRM, again)
    report_before, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        sys.unraisablehook = report_before
        if can_repeat:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported, somewhere below a frame."""
    while frame is not None and frame.f_globals.get("__name__") != "importlib._bootstrap":
        frame = frame.f_back
    return frame is not None
