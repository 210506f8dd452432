"""Chooses how many threads PyTorch computes with, by a short measurement.

Threads wait for each other at the end of every operation, and ours are short: if another program
holds up one of two threads, the other one waits too, thousands of times a second. Then one thread
alone is much faster. Only a measurement can tell.
"""

import os
from collections.abc import Callable, Sequence
from time import perf_counter

from minilpo.config import MAX_THREADS

CANDIDATES = (1, 2, 4, 8)  # among more threads, small matrices cost more waiting than they save
# More threads must be this many times faster than fewer: they lose more to other programs.
MARGIN = 1.3
GIVE_UP = 2.0  # times slower than the fastest: not worth measuring further


def pick(
    asked: int | None = None, stored: int | None = None, say: Callable[[str], object] | None = None
) -> int:
    """Sets how many threads compute: as asked for, as stored, by OMP_NUM_THREADS, or as measured.

    A run goes on with the number that it stored when it began, because its bytes depend on it.
    `say` gets one line if something was measured. Raises ValueError if the number makes no sense.
    """
    import torch

    n = asked if asked is not None else stored
    if n is None and os.environ.get("OMP_NUM_THREADS"):
        n = torch.get_num_threads()  # PyTorch has read the variable
    if n is None:
        seconds = measure(candidates())
        n = choose(seconds)
        if say:
            say(f"minilpo: computing with {explain(n, seconds)}")
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(
            f"--threads must be between 1 and {MAX_THREADS}, got {n}; "
            "without it the fastest is measured"
        )
    torch.set_num_threads(n)
    return n


def candidates() -> list[int]:
    """Returns the numbers worth measuring: `CANDIDATES` up to the cores this process may use."""
    return [n for n in CANDIDATES if n <= cores()]


def cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure(
    candidates: Sequence[int],
    seconds: float = 0.35,
    clock: Callable[[], float] = perf_counter,
    work: Callable[[], object] | None = None,
) -> dict[int, float]:
    """Times a small piece of work like ours; returns its mean seconds by number of threads.

    The candidates take turns for so many seconds, at least two each, so that other programs disturb
    all alike. A mean, not a median: a run pays for each burst of theirs.
    """
    import torch

    before, started = torch.get_num_threads(), clock()
    work = work or piece_of_work()
    times: dict[int, list[float]] = {n: [] for n in candidates}
    racing = list(candidates)
    try:
        while clock() - started < seconds or len(times[racing[0]]) < 2:
            for n in racing:
                torch.set_num_threads(n)
                begun = clock()
                work()
                times[n].append(clock() - begun)
            # The first turn starts threads and fills caches: it doesn't count.
            means = {n: sum(turns[1:]) / max(1, len(turns) - 1) for n, turns in times.items()}
            if len(times[racing[0]]) > 3:
                racing = [n for n in racing if means[n] <= GIVE_UP * min(means.values())]
        return means
    finally:
        torch.set_num_threads(before)


def choose(seconds: dict[int, float]) -> int:
    """Returns the number with the shortest time; more threads only if `MARGIN` times faster.

    >>> choose({1: 1.0, 2: 0.6}), choose({1: 1.0, 2: 0.9}), choose({1: 1.0, 2: 4.0})
    (2, 1, 1)
    """
    return min(n for n, needed in seconds.items() if needed <= MARGIN * min(seconds.values()))


def explain(n: int, seconds: dict[int, float]) -> str:
    """Says in one line what was chosen and measured.

    >>> explain(2, {1: 1.0, 2: 0.5})
    '2 threads: 2.0 times as fast as 1 just now (--threads overrules this)'
    """
    if len(seconds) < 2:
        return f"{in_words(n)}: one core is all there is"
    rival = n if n > 1 else min((m for m in seconds if m > 1), key=lambda m: seconds[m])
    ratio = seconds[1] / seconds[rival]
    compared = f"{ratio:.1f} times as fast as 1"
    if n == 1:
        of_rival = (
            f"only {ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
        )
        compared = f"{rival} were {of_rival}"
    return f"{in_words(n)}: {compared} just now (--threads overrules this)"


def in_words(n: int) -> str:
    """Writes a number of threads: "1 thread", "2 threads"."""
    return f"{n} thread" if n == 1 else f"{n} threads"


def piece_of_work() -> Callable[[], object]:
    """Makes some milliseconds of work like ours: long operations, and many short ones."""
    import torch
    import torch.nn.functional as F

    def numbers(*shape: int) -> torch.Tensor:  # not random ones: the generators belong to the run
        return torch.ones(shape, dtype=torch.float32, device="cpu").cumsum(-1) / 10_000

    many, few = numbers(1500, 128), numbers(128, 128)
    queries, keys = numbers(512, 1, 32), numbers(512, 32, 48)
    up, down = numbers(128, 512), numbers(512, 128)

    def feed_forward(rows: torch.Tensor) -> torch.Tensor:
        return F.gelu(F.layer_norm(rows, (128,)) @ up, approximate="tanh") @ down

    @torch.inference_mode()
    def work() -> None:
        feed_forward(many).softmax(-1)
        for _ in range(4):
            (queries @ keys).softmax(-1) @ keys.mT
            (feed_forward(few) @ few).softmax(-1)

    return work
