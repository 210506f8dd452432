"""Table 5: taking the head's most likely temperature, or drawing one from it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    direction,
    draw_side_by_side,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = "greedy against sampled choice of the temperature: no significant difference"
LEVELS, CHOICES = ("sequence", "token"), ("greedy", "sample")


def measure(lab: Lab) -> Numbers:
    """Mean reward on the mixture for both levels and both ways to choose, and the best constant."""
    test = lab.fixed("test")
    rewards = {}
    for level in LEVELS:
        head = lab.head(level)
        for choice, policy in (("greedy", head.greedy), ("sample", head.sampled)):
            rewards[f"{level}, {choice}"] = lab.adaptive(policy, test)[1]
    rewards["best constant"] = lab.constant_rewards()
    return {name: float(mean_over_tasks(values, test.names)) for name, values in rewards.items()}


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Differences to the best constant, and between the two ways."""
    gains, between = [], []
    constant = values_of(seeds, "best constant")
    for level in LEVELS:
        ways = {choice: values_of(seeds, f"{level}, {choice}") for choice in CHOICES}
        for choice, rewards in ways.items():
            gains.append(Row(f"{level}, {choice} - best constant", rewards - constant))
        between.append(Row(f"{level}: greedy - sample", ways["greedy"] - ways["sample"]))
    agrees = all(row.sign() > 0 for row in gains) and not any(row.sign() for row in between)
    gained = compared(
        {row.label.split(" - ")[0].replace(", ", "-level "): row for row in gains},
        "{} choice above the best constant",
        "{} choice below the best constant",
        "{} choice not clearly different from the best constant",
    )
    sentence = direction(agrees, f"{gained}. ")
    for row in between:
        verdict = row.told("is better than", "is worse than", "does not clearly differ from")
        sentence += f"At {row.subject} level greedy choice {verdict} sampled ({row.text()}). "
    rows = [Row(name, values_of(seeds, name)) for name in seeds[0]]
    return Finding([*rows, *gains, *between], agrees, sentence.strip())


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Gains over the best constant."""
    fig, [[ax]] = plots.figure(1, 1, width=5)
    constant, gains = values_of(seeds, "best constant"), {}
    for choice in CHOICES:
        of_levels = [values_of(seeds, f"{level}, {choice}") - constant for level in LEVELS]
        gains[choice] = np.column_stack(of_levels)
    draw_side_by_side(ax, gains, (plots.BLUE, plots.ORANGE), scale=1)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks([0, 1], [f"{level} level" for level in LEVELS])
    ax.set(ylabel="gain over the best constant")
    ax.set_title("How the head's distribution is used")
    plots.legend(ax, loc="upper left")
    return fig
