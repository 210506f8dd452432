"""Ctrl-C and SIGTERM: the work ends once, with a word, and the impatient get no traceback."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody wants this process to end."""


@contextlib.contextmanager
def answering_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work once; pressing again within a second changes nothing.

    An exception that is raised at a bad moment gets lost: some libraries swallow it while they are
    imported. If the work goes on for another second of computing, it is raised again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -math.inf
    wanted: type[KeyboardInterrupt] = KeyboardInterrupt
    can_repeat = hasattr(signal, "setitimer")

    def stop(signal_number: int, frame: object) -> None:
        nonlocal last, wanted
        now, before = time.monotonic(), last
        last = now
        if now - before > 1:
            wanted = Terminated if signal_number == signal.SIGTERM else KeyboardInterrupt
            if can_repeat:
                signal.setitimer(signal.ITIMER_VIRTUAL, 1.0, 1.0)
            raise wanted

    def again(signal_number: int, frame: object) -> None:
        raise wanted

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    if can_repeat:
        before[signal.SIGVTALRM] = signal.signal(signal.SIGVTALRM, again)
    try:
        yield
    finally:
        if can_repeat:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
