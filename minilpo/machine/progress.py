"""Progress bars on standard error, which may be closed, full or gone."""

import contextlib
import sys

from tqdm import tqdm


class _StandardError:
    """Writes to `sys.stderr` as it is at the moment, and drops what can't be written."""

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return sys.stderr.isatty()
        return False


STDERR = _StandardError()


def say(line: str) -> None:
    """Writes a line to standard error, above the bars."""
    tqdm.write(line, file=STDERR)
    STDERR.flush()


def bar(what: str, unit: str, total: int, done: int = 0) -> tqdm:
    """Shows a progress bar: of `total` units, some were `done` before.

    A terminal sees it move; a log file gets a line every ten seconds.
    """
    tqdm.monitor_interval = 0  # or tqdm starts a thread of its own
    every = 0.2 if STDERR.isatty() else 10.0
    options = {"dynamic_ncols": True, "mininterval": every, "file": STDERR}
    return tqdm(desc=what, unit=f" {unit}s", total=total, initial=done, **options)
