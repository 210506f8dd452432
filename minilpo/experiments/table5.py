"""Table 5: taking the head's most likely temperature, or drawing one from it."""

import numpy as np

from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction
from minilpo.experiments.figures import draw_bars
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = "greedy against sampled choice of the temperature: no significant difference"
LEVELS, CHOICES = ("sequence", "token"), ("greedy", "sample")


def measure(lab: Lab) -> Numbers:
    """Measures the mean reward for both levels and both ways to choose, and the best constant."""
    test, rewards = lab.fixed("test"), {}
    for level in LEVELS:
        head = lab.head(level)
        rewards[f"{level}, greedy"] = lab.adaptive(head.greedy, test)[1]
        rewards[f"{level}, sample"] = lab.adaptive(head.sampled, test)[1]
    rewards["best constant"] = lab.constant_rewards()
    return {name: float(mean_over_tasks(values, test.names)) for name, values in rewards.items()}


def conclude(found: Numbers) -> Finding:
    """Compares both ways with the best constant and with each other."""
    gains, between = {}, {}
    for level in LEVELS:
        for choice in CHOICES:
            gain = found[f"{level}, {choice}"] - found["best constant"]
            gains[f"{level}-level {choice}"] = Row(f"{level}, {choice} - best constant", gain)
        difference = found[f"{level}, greedy"] - found[f"{level}, sample"]
        between[level] = Row(f"{level}: greedy - sample", difference)
    sides = "above", "below", "not clearly different from"
    gained = compared(gains, *(f"{{}} choice {side} the best constant" for side in sides))
    no_difference = not any(row.sign() for row in between.values())
    agrees = all(row.sign() > 0 for row in gains.values()) and no_difference
    sentences = [direction(agrees, f"{gained}.")]
    for level, row in between.items():
        verdict = row.told("is better than", "is worse than", "does not clearly differ from")
        sentences.append(f"At {level} level greedy choice {verdict} sampled ({row.text()}).")
    rows = [Row(name, rewards) for name, rewards in found.items()]
    return Finding([*rows, *gains.values(), *between.values()], agrees, " ".join(sentences))


def draw(found: Numbers) -> plots.Figure:
    """Draws the gains over the best constant."""
    fig, [[ax]] = plots.figure(1, 1, width=5)
    gains = {}
    for choice in CHOICES:
        of_levels = [found[f"{level}, {choice}"] - found["best constant"] for level in LEVELS]
        gains[choice] = np.column_stack(of_levels)
    names = [f"{level} level" for level in LEVELS]
    draw_bars(ax, names, gains, (plots.BLUE, plots.ORANGE), scale=1)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(ylabel="gain over the best constant", title="How the head's distribution is used")
    plots.legend(ax, loc="upper left")
    return fig
