"""Whole commands in processes of their own: the demo by phases, the memory of `minilpo train`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.benchmarks.measure import Sizes, observe, print_row

DEMO_RATIO, DEMO_MEGABYTES = 1.3, 500  # the targets
LEAN = "--samples 8 --epochs 2 --validation-prompts 16".split()


def print_demo(
    folder: Path, sizes: Sizes, peer_step: Callable[[], list[float]], steps: int
) -> None:
    """Prints the demo's phases, beside transformers' seconds for the pretraining steps alone.

    These are measured just before and just after.
    """
    before = peer_step()
    seconds, megabytes = observe("demo", "--seed", "0", "--out", str(folder), *sizes.demo)
    needed = steps * median(before + peer_step())
    phases = json.loads((folder / "metrics.json").read_text())["seconds"]
    rest = seconds - phases.pop("total")
    numbers = f"{seconds:.0f}", f"{needed:.0f}", f"{seconds / needed:.2f}"
    note = f"target: at most {DEMO_RATIO}; transformers: {steps:,} pretraining steps alone"
    print_row("whole demo, s (ours / theirs)", *numbers, note)
    said = ", ".join(f"{name} {spent:.1f} s" for name, spent in phases.items())
    print_row("  its phases", note=f"{said}, start and the rest {rest:.1f} s")
    print_row("  peak memory, MB", f"{megabytes:.0f}", note=f"target: under {DEMO_MEGABYTES}")


def print_memory(folder: Path, sizes: Sizes) -> None:
    """Prints the peak memory of training a head: for more rounds, and for ten times the prompts.

    The language model is pretrained for a fifth of the demo's steps.
    """
    for level in sizes.levels:
        untrained = folder / level
        steps = "--steps", str(sizes.steps_of_writer)
        observe("pretrain", "--run", str(untrained), "--level", level, *steps, *sizes.model)
        for rounds, prompts in sizes.memory:
            run = folder / f"{level}_{rounds}_{prompts}"
            shutil.copytree(untrained, run)
            size = "--rounds", str(rounds), "--prompts", str(prompts)
            _, megabytes = observe("train", "--run", str(run), *size, *LEAN)
            what = f"train, {level}, {rounds} x {prompts:,} prompts"
            note = "MB at the peak" + ("; target: flat in rounds" if rounds > 1 else "")
            print_row(what, f"{megabytes:.0f}", note=note)
