"""Table 5: taking the head's most likely temperature, or drawing one from it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import best_constants
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.statistics import mean_over_tasks

PAPER = "greedy against sampled choice of the temperature: no significant difference"
LEVELS, CHOICES = ("sequence", "token"), ("greedy", "sample")


def measure(lab: Lab) -> Numbers:
    """Mean reward on the mixture for both levels and both ways to choose, and the best constant."""
    selection, test = lab.fixed("train"), lab.fixed("test")
    constant, _ = best_constants(selection)
    rewards = {f"{level}, {choice}": lab.adaptive(lab.head(level), test, choice)[1] for level in LEVELS for choice in CHOICES}
    rewards["best constant"] = test.fixed_rewards[:, constant]
    return {name: float(mean_over_tasks(values, test.names)) for name, values in rewards.items()}


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Differences to the best constant, and between the two ways."""
    rows = [Row(name, [seed[name] for seed in seeds]) for name in seeds[0]]
    gains = [
        Row(f"{level}, {choice} - best constant", [seed[f"{level}, {choice}"] - seed["best constant"] for seed in seeds])
        for level in LEVELS
        for choice in CHOICES
    ]
    between = [
        Row(f"{level}: greedy - sample", [seed[f"{level}, greedy"] - seed[f"{level}, sample"] for seed in seeds])
        for level in LEVELS
    ]
    all_gain = all(row.sign() > 0 for row in gains)
    differing = [row.label.split(":")[0] for row in between if row.sign() != 0]
    sentence = (
        "Both ways are above the best constant at both levels." if all_gain else "Not every way is above the best constant."
    )
    sentence += (
        f" At {' and '.join(differing)} level they differ beyond the interval over seeds, which they don't in the paper."
        if differing
        else " As in the paper, the two ways don't differ beyond the interval over seeds."
    )
    return Finding([*rows, *gains, *between], all_gain and not differing, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Gains over the best constant."""
    fig, axes = plots.figure(1, 1, width=5)
    ax = axes[0, 0]
    places = np.arange(len(LEVELS))
    for choice, shift, colour in (("greedy", -0.2, plots.BLUE), ("sample", 0.2, plots.ORANGE)):
        gains = [[seed[f"{level}, {choice}"] - seed["best constant"] for level in LEVELS] for seed in seeds]
        mean, half = mean_and_half(gains)
        ax.bar(places + shift, mean, 0.4, yerr=half, color=colour, label=f"{choice}", capsize=3)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(places, [f"{level} level" for level in LEVELS])
    ax.set(ylabel="gain over the best constant")
    ax.set_title("How the head's distribution is used")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return fig
