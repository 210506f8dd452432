"""Whole commands in processes of their own: the demo by phases, the memory of `minilpo train`."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from minilpo.machine.files import write_sealed_json
from minilpo.run.folder import Run, read_config
from tests.benchmarks.measure import observe, print_row

DEMO_RATIO, DEMO_MEGABYTES = 1.3, 500  # the targets
LEAN = "--samples 8 --epochs 2 --validation-prompts 16".split()


def print_demo(folder: Path, peer_step: Callable[[], list[float]], steps: int) -> None:
    """The demo's phases, against what transformers needs for its pretraining steps alone.

    That is timed just before and just after.
    """
    before = peer_step()
    seconds, megabytes = observe("demo", "--seed", "0", "--out", str(folder))
    needed = steps * median(before + peer_step())
    phases = Run.open(folder).seconds()
    note = f"target: at most {DEMO_RATIO}; transformers: {steps:,} pretraining steps alone"
    print_row(
        "whole demo, s (ours / theirs)",
        f"{seconds:.0f}",
        f"{needed:.0f}",
        f"{seconds / needed:.2f}",
        note,
    )
    said = ", ".join(f"{name} {spent:.1f} s" for name, spent in phases.items())
    print_row(
        "  its phases", note=f"{said}, start and the rest {seconds - sum(phases.values()):.1f} s"
    )
    print_row("  peak memory, MB", f"{megabytes:.0f}", note=f"target: under {DEMO_MEGABYTES}")


def print_memory(folder: Path) -> None:
    """Peak memory of training the head of the demo's run: more rounds, ten times the prompts."""
    log = Run.open(folder).log("pretrain")
    for level in ("sequence", "token"):
        for rounds, prompts in ((1, 512), (2, 512), (8, 512), (1, 5120)):
            run = folder.parent / f"{level}_{rounds}_{prompts}"
            run.mkdir()
            for name in ("tokenizer.json", "model.pt"):
                shutil.copy(folder / name, run / name)
            config = read_config(folder / "config.json")
            config = replace(config, level=level, lpo=replace(config.lpo, loss="default"))
            write_sealed_json(run / "config.json", config.to_dict())
            Run.open(run).finish("pretrain", log, ["model.pt"])  # of these settings now
            size = "--rounds", str(rounds), "--prompts", str(prompts)
            _, megabytes = observe("train", "--run", str(run), *size, *LEAN)
            what = f"train, {level}, {rounds} x {prompts:,} prompts"
            print_row(
                what,
                f"{megabytes:.0f}",
                note="MB at the peak" + ("; target: flat in rounds" if rounds > 1 else ""),
            )
