"""Table 5: taking the head's most likely temperature, or drawing one from it."""

import numpy as np
from matplotlib.figure import Figure

from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction
from minilpo.experiments.figures import draw_side_by_side
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = "greedy against sampled choice of the temperature: no significant difference"
LEVELS, CHOICES = ("sequence", "token"), ("greedy", "sample")


def measure(lab: Lab) -> Numbers:
    """Measures the mean reward for both levels and both ways to choose, and the best constant."""
    test, rewards = lab.fixed("test"), {}
    for level in LEVELS:
        head = lab.head(level)
        for choice, policy in (("greedy", head.greedy), ("sample", head.sampled)):
            rewards[f"{level}, {choice}"] = lab.adaptive(policy, test)[1]
    rewards["best constant"] = lab.constant_rewards()
    return {name: float(mean_over_tasks(values, test.names)) for name, values in rewards.items()}


def conclude(found: Numbers) -> Finding:
    """Compares both ways with the best constant and with each other."""
    gains, between = {}, {}
    for level in LEVELS:
        greedy, sample = (found[f"{level}, {choice}"] for choice in CHOICES)
        for choice, rewards in (("greedy", greedy), ("sample", sample)):
            label = f"{level}, {choice} - best constant"
            gains[f"{level}-level {choice}"] = Row(label, rewards - found["best constant"])
        between[level] = Row(f"{level}: greedy - sample", greedy - sample)
    gained = compared(
        gains,
        "{} choice above the best constant",
        "{} choice below the best constant",
        "{} choice not clearly different from the best constant",
    )
    no_difference = not any(row.sign() for row in between.values())
    agrees = all(row.sign() > 0 for row in gains.values()) and no_difference
    sentences = [direction(agrees, f"{gained}.")]
    for level, row in between.items():
        verdict = row.told("is better than", "is worse than", "does not clearly differ from")
        sentences.append(f"At {level} level greedy choice {verdict} sampled ({row.text()}).")
    rows = [Row(name, rewards) for name, rewards in found.items()]
    return Finding([*rows, *gains.values(), *between.values()], agrees, " ".join(sentences))


def draw(found: Numbers) -> Figure:
    """Draws the gains over the best constant."""
    fig, [[ax]] = plots.figure(1, 1, width=5)
    gains = {}
    for choice in CHOICES:
        of_levels = [found[f"{level}, {choice}"] - found["best constant"] for level in LEVELS]
        gains[choice] = np.column_stack(of_levels)
    draw_side_by_side(ax, gains, (plots.BLUE, plots.ORANGE), scale=1)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks([0, 1], [f"{level} level" for level in LEVELS])
    title = "How the head's distribution is used"
    ax.set(ylabel="gain over the best constant", title=title)
    plots.legend(ax, loc="upper left")
    return fig
