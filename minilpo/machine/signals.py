"""Ctrl-C and SIGTERM end the process at once, at any moment, and one line says so.

Nothing is lost: files are written whole or not at all, so a process may even be killed. An
exception would do worse: some libraries swallow it, and imports of PyTorch wrap it in another one.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAREWELL = "minilpo: {}; what was finished is kept, the same command goes on from there"


def leave_when_told() -> None:
    """Lets both signals end this process. Of several of torchrun's only the first one speaks."""

    def leave(number: int, frame: FrameType | None) -> None:
        if os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1":
            with contextlib.suppress(OSError):  # not `print`, amid which the signal may have come
                os.write(2, f"\n{farewell(number)}\n".encode())  # below the bar and the ^C
        os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, leave)


def farewell(number: int = signal.SIGINT) -> str:
    """Returns the line for a signal."""
    return FAREWELL.format("told to end" if number == signal.SIGTERM else "interrupted")


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Lets the first signal raise KeyboardInterrupt(number), where others have to be ended too."""

    def stop(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
