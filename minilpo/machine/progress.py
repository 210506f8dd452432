"""Progress bars on standard error, which may be closed, full or gone."""

import contextlib
import os
import sys

from tqdm import tqdm

NOBODY_READS = contextlib.suppress(AttributeError, OSError, ValueError)


class _StandardError:
    """Writes to `sys.stderr` as it is at the moment, and drops text that can't be written."""

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        with NOBODY_READS:
            sys.stderr.write(text)

    def flush(self) -> None:
        with NOBODY_READS:
            sys.stderr.flush()


STDERR = _StandardError()


def say(line: str) -> None:
    """Writes a line above the bars."""
    tqdm.write(line, file=STDERR)
    STDERR.flush()


def bar(what: str, unit: str, total: int, done: int = 0) -> tqdm:
    """Shows a bar of `total` units, of which some are `done`: in a log file, every 10 seconds."""
    tqdm.monitor_interval = 0  # or tqdm starts a thread of its own
    every = 0.2 if os.isatty(2) else 10.0
    options = {"dynamic_ncols": True, "mininterval": every, "file": STDERR}
    return tqdm(desc=what, unit=f" {unit}s", total=total, initial=done, **options)
