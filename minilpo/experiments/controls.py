"""Not in the paper: two tasks on which the head can't help. If it seemed to, something would be wrong."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import best_constants
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab

PAPER = "(not in the paper) a task where no temperature helps, and one whose prompts hide which would"
TASKS = ("coin_flip", "hidden_wish")


def measure(lab: Lab) -> Numbers:
    """The head trained and tested on each control task, beside the best constant."""
    numbers = {}
    for task in TASKS:
        selection, test = lab.fixed("train", (task,)), lab.fixed("test", (task,))
        constant, _ = best_constants(selection)
        head = lab.head("sequence", (task,), prompts=lab.quarter_of_the_prompts())
        _, rewards = lab.adaptive(head, test)
        numbers[task] = {
            "fixed": test.fixed_rewards.mean(0).tolist(),
            "best_constant": float(test.fixed_rewards[:, constant].mean()),
            "reward": float(rewards.mean()),
        }
    return {"temperatures": list(lab.config.temperatures), **numbers}


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """The gain on each task, which has to be none."""
    rows, gains = [], []
    for task in TASKS:
        gains.append(
            Row(f"{task}: head - best constant", [seed[task]["reward"] - seed[task]["best_constant"] for seed in seeds])
        )
        rows += [
            Row(f"{task}: best constant", [seed[task]["best_constant"] for seed in seeds]),
            Row(f"{task}: head", [seed[task]["reward"] for seed in seeds]),
            gains[-1],
        ]
    gained = [row.label.split(":")[0] for row in gains if row.sign() > 0]
    sentence = (
        f"The head gains on {' and '.join(gained)}, where nothing can be gained: don't trust these results."
        if gained
        else "As it must be: where temperature can't help, the head gains nothing."
    )
    return Finding(rows, not gained, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Reward by temperature and with the head."""
    fig, axes = plots.figure(1, len(TASKS))
    for ax, task in zip(axes.flat, TASKS, strict=True):
        mean, half = mean_and_half([seed[task]["fixed"] for seed in seeds])
        ax.errorbar(
            seeds[0]["temperatures"], mean, yerr=half, fmt="o-", color=plots.BLUE, capsize=3, markersize=4, label="fixed"
        )
        head, half = mean_and_half([seed[task]["reward"] for seed in seeds])
        ax.axhline(float(head), color=plots.ORANGE, label="head")
        ax.axhspan(float(head - half), float(head + half), color=plots.ORANGE, alpha=0.2)
        gain = np.mean([seed[task]["reward"] - seed[task]["best_constant"] for seed in seeds])
        ax.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02))
        ax.set_title(f"{task}: gain {gain:+.3f}")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return fig
