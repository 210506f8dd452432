"""Progress bars on standard error, and one word of advice when another program slows everything down."""

import contextlib
import sys
from collections.abc import Callable
from time import perf_counter

from tqdm import tqdm

from minilpo.threads import Threads, in_words, measure

EVERY = 5.0  # seconds between two looks at the machine
LOOK = 0.03  # seconds that a look takes, a little more if a piece of work is slow
SLOW = 2.0  # times slower than at the start: worth a word
HELPS = 1.3  # times faster with one thread: worth a new start


class _StandardError:
    """Whatever `sys.stderr` is at the moment. What can't be written is dropped: a closed terminal must not end a run."""

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
    """Writes a line to standard error, above the bars; if nobody is there to read it, nothing happens."""
    tqdm.write(line, file=STDERR)
    STDERR.flush()


class Watch:
    """Repeats the measurement of `threads` now and then, to notice another program that has begun to slow everything down.

    Args:
        threads: those in use. If nothing was measured for them, the first look is what later ones are compared with.
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
            # One thread can't be held up by another: what it needs is normal even if the run's own number is slow already.
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
                f"minilpo: another program keeps the processor busy, and {in_words(self.n)}, which wait for each other, are "
                f"{factor:.1f} times slower than 1; close it, or stop with Ctrl-C and repeat the command with --threads 1"
            )
        return (
            f"minilpo: everything takes {now / self.normal:.1f} times as long as at the start, "
            "probably because another program keeps the processor busy; close it"
        )


class Bar(tqdm):
    """A progress bar on standard error; in a log file, a line every ten seconds.

    Args:
        what: is being done.
        total: how many units there are.
        unit: in the singular.
        initial: how many were done before.
        watch: gives advice while the bar moves.
    """

    def __init__(self, what: str, total: int, unit: str, initial: int = 0, watch: Watch | None = None):
        self.watch = watch
        interval = 0.2 if STDERR.isatty() else 10.0
        options = {"file": STDERR, "mininterval": interval, "dynamic_ncols": True}
        super().__init__(total=total, desc=what, unit=f" {unit}s", initial=initial, **options)

    def update(self, n: float | None = 1) -> bool | None:
        """Moves the bar by n units, and passes on what the watch has to say."""
        shown = super().update(n)
        advice = self.watch.advice() if self.watch else None
        if advice:
            say(advice)
        return shown
