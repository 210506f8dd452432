"""Progress bars on standard error, and advice when another program slows everything down."""

import contextlib
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from tqdm import tqdm

from minilpo.machine.threads import Threads, in_words, measure

EVERY = 5.0  # seconds between two looks at the machine
LOOK = 0.03  # seconds that a look takes, a little more if a piece of work is slow
SLOW = 2.0  # times slower than at the start: worth a word
HELPS = 1.3  # times faster with one thread: worth a new start


class _StandardError:
    """Whatever `sys.stderr` is at the moment; what can't be written, as if closed, is dropped."""

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)

    def isatty(self) -> bool:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, gone, closed
            return sys.stderr.isatty()
        return False

    def write(self, text: str) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()


STDERR = _StandardError()


def say(line: str) -> None:
    """Writes a line to standard error, above the bars, if it is open."""
    tqdm.write(line, file=STDERR)
    STDERR.flush()


class Watch:
    """Repeats the measurement of `threads` now and then, to notice when everything gets slower.

    Args:
        threads: those in use. If nothing was measured for them, the first look is what later ones
            are compared with.
        clock: tells the time.
        measure: times a piece of work with each of some numbers of threads.
    """

    def __init__(
        self,
        threads: Threads,
        clock: Callable[[], float] = perf_counter,
        measure: Callable[..., dict[int, float]] = measure,
    ):
        self.n, self.clock, self.measure = threads.n, clock, measure
        self.normal = min(threads.seconds.values(), default=None)
        self.next_look = clock() + EVERY
        self.slow_looks = 0
        self.has_spoken = False

    def advice(self) -> str | None:
        """A line about what would help, once, after two slow looks in a row; else None."""
        if self.has_spoken or self.clock() < self.next_look:
            return None
        if self.normal is None:
            # One thread can't be held up by another: what it needs is normal even if the run's own
            # number is slow already.
            self.normal = min(self.measure(sorted({1, self.n}), 2 * LOOK).values())
        now = self.measure([self.n], LOOK)[self.n]
        self.slow_looks = self.slow_looks + 1 if now > SLOW * self.normal else 0
        self.next_look = self.clock() + EVERY
        if self.slow_looks < 2:
            return None
        self.has_spoken = True
        seconds = self.measure([1, self.n], 2 * LOOK) if self.n > 1 else {1: now}
        factor = seconds[self.n] / seconds[1]
        if factor >= HELPS:
            return (
                f"minilpo: another program keeps the processor busy, and {in_words(self.n)}, "
                f"which wait for each other, are {factor:.1f} times slower than 1; "
                "close it, or stop with Ctrl-C and repeat the command with --threads 1"
            )
        return (
            f"minilpo: everything takes {now / self.normal:.1f} times as long as at the start, "
            "probably because another program keeps the processor busy; close it"
        )


class Bar:
    """A progress bar on standard error; in a log file, a line every ten seconds.

    Args:
        what: is being done.
        unit: in the singular.
        watch: gives advice while the bar moves.
    """

    def __init__(self, what: str, unit: str, watch: Watch | None = None):
        self.what, self.unit, self.watch = what, unit, watch
        self.bar: tqdm | None = None

    def begin(self, total: int, done: int = 0) -> None:
        """Shows the bar: of `total` units, some were done before."""
        options: dict[str, Any] = {"file": STDERR, "dynamic_ncols": True, "unit": f" {self.unit}s"}
        options["mininterval"] = 0.2 if STDERR.isatty() else 10.0
        self.bar = tqdm(total=total, desc=self.what, initial=done, **options)

    def advance(self, n: int = 1) -> None:
        """Moves the bar by n units, and passes on what the watch has to say."""
        if self.bar is not None:
            self.bar.update(n)
        advice = self.watch.advice() if self.watch else None
        if advice:
            say(advice)

    def say_now(self, what: str) -> None:
        """Says beside the bar what is being done."""
        if self.bar is not None:
            self.bar.set_postfix_str(what)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *raised: object) -> None:
        if self.bar is not None:
            self.bar.close()
