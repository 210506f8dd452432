"""Chooses how many threads PyTorch computes with, by one short measurement.

Threads wait for each other at the end of every operation, and ours are short. If another program
holds up one of two threads, the other one waits too: then one thread alone is much faster.
"""

import os
from collections.abc import Callable
from time import perf_counter

import torch

MOST = 8  # among more threads, small matrices cost more waiting than they save
MARGIN = 1.3  # so many times as fast all threads must be: they lose more to other programs
SECONDS = 0.35  # of the measurement


def pick(
    asked: int | None = None, stored: int | None = None, say: Callable[[str], object] | None = None
) -> int:
    """Sets how many threads compute: as asked for, as stored, by OMP_NUM_THREADS, or as measured.

    A run goes on with the number that it stored when it began, because its bytes depend on it.
    `say` gets one line if something was measured.
    """
    n = asked or stored
    if not n and os.environ.get("OMP_NUM_THREADS"):
        n = torch.get_num_threads()  # PyTorch has read the variable
    if not n:
        n, found = fastest()
        if say:
            say(f"minilpo: computing with {found} (--threads overrules this)")
    torch.set_num_threads(n)
    return n


def cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fastest() -> tuple[int, str]:
    """Times `work` with one thread and with all, in turns; returns a number and a sentence."""
    most = min(cores(), MOST)
    if most == 1:
        return 1, "1 thread: one core is all there is"
    before, seconds = torch.get_num_threads(), {1: 0.0, most: 0.0}
    is_first = True
    while sum(seconds.values()) < SECONDS:
        for n in seconds:
            torch.set_num_threads(n)
            begun = perf_counter()
            work()
            if not is_first:  # the first turn starts threads and fills caches
                seconds[n] += perf_counter() - begun
        is_first = False
    torch.set_num_threads(before)
    ratio = seconds[1] / seconds[most]
    n, counted = (most, f"{most} threads") if ratio > MARGIN else (1, "1 thread")
    return n, f"{counted}: {most} are {ratio:.1f} times as fast as 1 just now"


def work() -> None:
    """Computes a little as our transformer does: long operations, and many short ones."""
    # No random numbers: the generators belong to the run.
    long, short = (torch.ones(n, 128, dtype=torch.float32, device="cpu") for n in (1500, 128))
    for rows in (long, *[short] * 16):
        ((rows @ short).softmax(-1) @ short).softmax(-1)
