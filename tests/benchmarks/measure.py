"""Times two ways in turns, so that a machine that slows down slows both; and whole commands."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch

from minilpo.config import ModelConfig, PretrainConfig
from minilpo.lm.pretraining import POOL

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
class Sizes:
    """The amount of work that is measured."""

    demonstrations: int = PretrainConfig.demonstrations  # of the corpus
    repeats: int = 7  # turns per median
    steps: int = 3 * POOL  # pretraining steps per turn
    steps_of_writer: int = 600  # of the language model that writes
    rows: tuple[int, ...] = (256, 2048)  # sampled at once
    prompts: int = 64  # per task, twice as many for LPO
    points: int = 5  # sizes at which growth is measured, at most
    repeats_of_point: int = 5  # turns per median there
    # Levels, and rounds and prompts, of the training whose memory is measured.
    levels: tuple[str, ...] = ("sequence", "token")
    memory: tuple[tuple[int, int], ...] = ((1, 512), (2, 512), (8, 512), (1, 5120))
    shape: ModelConfig = ModelConfig()
    learning_rate: float = PretrainConfig.learning_rate  # of the language model that writes
    model: tuple[str, ...] = ()  # flags of the run whose memory is measured
    demo: tuple[str, ...] = ()  # flags of the demo

    @property
    def block(self) -> int:
        """The demonstrations of one turn."""
        return self.steps * PretrainConfig().batch_size

    @property
    def n_examples(self) -> int:
        """The demonstrations of all turns and of one to warm up."""
        return (self.repeats + 1) * self.block


MODEL = "--tasks instruct story --demonstrations 4000 --n-layer 1 --n-embd 32 --n-head 2 "
MODEL += "--steps 250 --batch-size 16 --learning-rate 0.006 --warmup-steps 5"
HEAD = "--rounds 1 --prompts 64 --samples 4 --epochs 2 --validation-prompts 2 --test-prompts 4 "
HEAD += "--selection-prompts 4 --ood-prompts 2"
QUICK = Sizes(
    demonstrations=8000,
    repeats=1,
    steps=1,
    shape=ModelConfig(n_layer=2, n_embd=32, n_head=2),
    learning_rate=0.006,
    steps_of_writer=200,  # with less, few responses are rewarded and none is in a pair
    rows=(16,),
    prompts=2,
    points=2,
    repeats_of_point=1,
    levels=("sequence",),
    memory=((1, 64),),
    model=tuple(MODEL.split()),
    demo=tuple(f"{MODEL} {HEAD}".split()),
)


@dataclass(frozen=True)
class Timed:
    """Seconds of two ways to do the same work, turn by turn."""

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

    def per(self, ours: Sequence[float], theirs: Sequence[float]) -> "Timed":
        """Divides the seconds of each turn by the work that was done in it."""
        pairs = zip((self.ours, self.theirs), (ours, theirs), strict=True)
        return Timed(*([s / n for s, n in zip(*pair, strict=True)] for pair in pairs))


def seconds_of(work: Callable[[], object]) -> float:
    """Measures the wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(
    ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int
) -> Timed:
    """Times both `repeats` times, after one turn to warm up.

    They take turns at going first. Both get the number of the turn.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for which in ((0, 1), (1, 0))[turn % 2]:
            seconds[which].append(seconds_of(partial((ours, theirs)[which], turn)))
    return Timed(seconds[0][1:], seconds[1][1:])


def matmul_peak(size: int = 1024, repeats: int = 20) -> float:
    """Operations per second of the fastest fp32 product of two (size, size) matrices."""
    a, b = torch.rand(2, size, size)
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))


def observe(*arguments: str) -> tuple[float, float]:
    """Runs a minilpo command in a process of its own: its seconds and peak memory in MB (2^20)."""
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


def print_timed(what: str, unit: str, timed: Timed, target: str, work: float = 1) -> None:
    """Prints both rates, units of `work` per second, the median ratio and its spread."""
    rates = [f"{work / median(seconds):,.0f}" for seconds in (timed.ours, timed.theirs)]
    spread = f"{target}; turns {min(timed.ratios):.2f} to {max(timed.ratios):.2f}"
    print_row(f"{what}, {unit}", *rates, f"{timed.ratio:.2f}", spread)
