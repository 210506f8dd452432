"""How things are timed: side by side in turns, so that a machine that slows down slows both."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch

# Runs a command and prints its seconds and its peak memory. It stands between us and the command
# because a process starts out with the peak of the one it was forked from: our own memory,
# transformers included, would be counted as the command's.
OBSERVER = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Timed:
    """Seconds of two ways to do the same work, measured in turns."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Theirs / ours, turn by turn: how many times as fast we are."""
        return [b / a for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return median(self.ratios)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(
    ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int
) -> Timed:
    """Times both `repeats` times, after one turn to warm up.

    They take turns at going first and are given the turn's number.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for which in ((0, 1), (1, 0))[turn % 2]:
            seconds[which].append(seconds_of(partial((ours, theirs)[which], turn)))
    return Timed(seconds[0][1:], seconds[1][1:])


def matmul_peak(size: int = 1024, repeats: int = 20) -> float:
    """Operations a second of the fastest fp32 product of two (size, size) matrices."""
    a, b = torch.rand(2, size, size)
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))


def observe(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory in MB (2^20 bytes) of a minilpo command in a process of its own."""
    command = [sys.executable, "-c", OBSERVER, sys.executable, "-m", "minilpo", *arguments]
    observed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak = map(float, observed.split())
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes
    return seconds, peak / unit


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of a straight line through the points of a log-log figure: 1 is linear growth.

    >>> round(exponent([1, 10, 100], [2, 20, 200]), 3)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def print_row(what: str, ours: str = "", theirs: str = "", ratio: str = "", note: str = "") -> None:
    """Prints a line of the table."""
    print(f"{what:<40}{ours:>10}{theirs:>14}{ratio:>8}   {note}".rstrip(), flush=True)


def print_timed(
    what: str, timed: Timed, unit: str, ours: float, theirs: float, target: str
) -> None:
    """Prints a comparison: what each of them reaches, the median ratio and its spread."""
    spread = f"{target}; turns {min(timed.ratios):.2f} to {max(timed.ratios):.2f}"
    print_row(f"{what}, {unit}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{timed.ratio:.2f}", spread)
