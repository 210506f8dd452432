"""How many threads PyTorch computes with: what a short measurement finds best.

Threads wait for each other at the end of every operation, and ours are short: if another program
holds up one of two threads, the other one waits too, thousands of times a second. Then one thread
alone is much faster. Only a measurement can tell.
"""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

from minilpo.config import MAX_THREADS

CANDIDATES = (1, 2, 4, 8)  # among more threads, small matrices cost more waiting than they save
# More threads must be this many times faster than fewer: they lose more to other programs.
MARGIN = 1.3
GIVE_UP = 2.0  # times slower than the fastest: not worth measuring further


@dataclass(frozen=True)
class Threads:
    """A number of threads and where it comes from.

    >>> Threads(2, "2 threads: asked for with --threads").seconds
    {}
    """

    n: int
    why: str  # one line for the user
    # For a piece of work, by number of threads; empty if not measured.
    seconds: dict[int, float] = field(default_factory=dict)


def pick(asked: int | None = None, stored: int | None = None) -> Threads:
    """Sets how many threads compute: as asked for, as stored, by OMP_NUM_THREADS, or as measured.

    Args:
        asked: the value of --threads.
        stored: the number that the run was begun with. Its bytes depend on it, so a run goes on as
            it began.

    Raises:
        ValueError: if the number is no sensible one.

    >>> pick(asked=1)
    Threads(n=1, why='1 thread: asked for with --threads', seconds={})
    """
    import torch

    if asked is not None:
        threads = Threads(asked, f"{in_words(asked)}: asked for with --threads")
    elif stored is not None:
        why = f"{in_words(stored)}: the run was begun so, and its results depend on it"
        threads = Threads(stored, why)
    elif os.environ.get("OMP_NUM_THREADS"):
        n = torch.get_num_threads()  # PyTorch has read the variable
        threads = Threads(n, f"{in_words(n)}: set by OMP_NUM_THREADS")
    else:
        seconds = measure(candidates())
        n = choose(seconds)
        threads = Threads(n, explain(n, seconds), seconds)
    if not 1 <= threads.n <= MAX_THREADS:
        raise ValueError(
            f"--threads must be between 1 and {MAX_THREADS}, got {threads.n}; "
            "without it the fastest is measured"
        )
    torch.set_num_threads(threads.n)
    return threads


def candidates() -> list[int]:
    """The numbers of threads worth measuring: `CANDIDATES` up to the cores this process may use."""
    return [n for n in CANDIDATES if n <= cores()]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure(
    candidates: Sequence[int],
    seconds: float = 0.35,
    *,
    clock: Callable[[], float] = perf_counter,
    work: Callable[[], None] | None = None,
) -> dict[int, float]:
    """Times a small piece of work like ours with several numbers of threads.

    The number in use stays as it is. The candidates take turns, so that what else the machine does
    meets all of them. The mean counts and not the median: another program holds threads up in
    bursts, and a run pays for every burst. A number that is clearly slower leaves before the time
    is over.

    Args:
        candidates: numbers of threads.
        seconds: how long to measure, all together; each number gets at least two turns.
        clock: tells the time.
        work: what to time; by default `piece_of_work`.

    Returns:
        Mean seconds of a piece of work for each candidate.

    >>> sorted(measure([1, 2], seconds=0.01))
    [1, 2]
    """
    import torch

    before = torch.get_num_threads()
    started = clock()
    work = work or piece_of_work()
    times: dict[int, list[float]] = {n: [] for n in candidates}
    racing = list(candidates)
    try:
        while True:
            for n in racing:
                torch.set_num_threads(n)
                begun = clock()
                work()
                times[n].append(clock() - begun)
                # The first turn starts threads and fills caches: it doesn't count, so there must be
                # a second.
                if clock() - started >= seconds and all(len(turns) > 1 for turns in times.values()):
                    return {n: statistics.fmean(turns[1:]) for n, turns in times.items()}
            means = {n: statistics.fmean(times[n][1:] or times[n]) for n in racing}
            if len(times[racing[0]]) > 3:
                racing = [n for n in racing if means[n] <= GIVE_UP * min(means.values())]
    finally:
        torch.set_num_threads(before)


def choose(seconds: dict[int, float]) -> int:
    """The number of threads with the shortest time; more only if they are `MARGIN` times faster.

    >>> choose({1: 1.0, 2: 0.6}), choose({1: 1.0, 2: 0.9}), choose({1: 1.0, 2: 4.0})
    (2, 1, 1)
    """
    enough = MARGIN * min(seconds.values())
    return min(n for n, needed in seconds.items() if needed <= enough)


def explain(n: int, seconds: dict[int, float]) -> str:
    """One line for the user: what was chosen and what was measured.

    >>> explain(2, {1: 1.0, 2: 0.5})
    '2 threads: 2.0 times as fast as 1 just now (--threads overrules this)'
    """
    if len(seconds) < 2:
        return f"{in_words(n)}: one core is all there is"
    if n > 1:
        ratio = seconds[1] / seconds[n]
        return f"{in_words(n)}: {ratio:.1f} times as fast as 1 just now (--threads overrules this)"
    rival = min((other for other in seconds if other > 1), key=lambda other: seconds[other])
    ratio = seconds[1] / seconds[rival]
    compared = f"only {ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    return f"1 thread: {rival} were {compared} just now (--threads overrules this)"


def in_words(n: int) -> str:
    """How many threads, for a reader.

    >>> in_words(1), in_words(2)
    ('1 thread', '2 threads')
    """
    return f"{n} thread" if n == 1 else f"{n} threads"


@cache
def piece_of_work() -> Callable[[], None]:
    """Some milliseconds of work like ours: long operations, and many short ones."""
    import torch
    import torch.nn.functional as F

    def numbers(*shape: int) -> torch.Tensor:  # not random ones: the generators belong to the run
        count = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu")
        return count.sin_().view(shape)

    batch, rows = numbers(1500, 128), numbers(128, 128)
    queries, keys = numbers(512, 1, 32), numbers(512, 32, 48)
    # Divided so that numbers keep their size.
    up, down, out = numbers(128, 512) / 11, numbers(512, 128) / 22, numbers(128, 128) / 11

    @torch.inference_mode()
    def work() -> None:
        (F.gelu(F.layer_norm(batch, (128,)) @ up, approximate="tanh") @ down).softmax(-1)
        for _ in range(4):
            h = F.layer_norm(rows, (128,))
            (queries @ keys).softmax(-1) @ keys.mT
            (F.gelu(h @ up, approximate="tanh") @ down @ out).softmax(-1)

    return work
