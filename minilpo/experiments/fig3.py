"""Figure 3 and Tables 6 to 11: the head, trained on the mixture of tasks, against every fixed temperature."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import best_constants, learned_constant
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.statistics import mean_over_tasks, win_points

PAPER = "win-rate of the head against each fixed temperature, mean over tasks, sequence and token level"
LEVELS = ("sequence", "token")
PAPERS_WIN_RATES = {
    "sequence": {0.0: 54.2, 0.2: 53.9, 0.4: 53.0, 0.6: 53.4, 0.8: 52.9, 1.0: 52.9},
    "token": {0.0: 51.2, 0.2: 51.4, 0.4: 51.0, 0.6: 50.8, 0.8: 50.3, 1.0: 50.5},
}


def measure(lab: Lab) -> Numbers:
    """Rewards and win-rates of both levels, and every control, on the same test prompts."""
    selection, test = lab.fixed("train"), lab.fixed("test")
    names, fixed = test.names, test.fixed_rewards
    constant, of_task = best_constants(selection)
    oracle = fixed[np.arange(len(names)), [of_task[name] for name in names]]

    def mean(rewards: np.ndarray) -> float:
        return float(mean_over_tasks(rewards, names))

    numbers: Numbers = {
        "temperatures": list(lab.config.temperatures),
        "best_constant": mean(fixed[:, constant]),
        "oracle": mean(oracle),
    }
    for level in LEVELS:
        head = lab.head(level)
        rewards = lab.adaptive(head, test)[1]
        random_rewards = lab.adaptive(lab.untrained(level), test, "sample")[1]
        numbers[level] = {
            "reward": mean(rewards),
            "tasks": {name: float(rewards[names == name].mean()) for name in of_task},
            "random_head": mean(random_rewards),
            "learned_constant": mean(fixed[:, learned_constant(head.constant)]),
            "win_rates": [mean(win_points(rewards, fixed[:, k])) for k in range(fixed.shape[1])],
        }
    return numbers


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Win-rates beside the paper's, then differences of mean rewards."""
    rows = [
        Row(
            f"{level}: win-rate against t={t:g} (%)",
            [100 * seed[level]["win_rates"][k] for seed in seeds],
            f"{PAPERS_WIN_RATES[level][t]:.1f}" if t in PAPERS_WIN_RATES[level] else "",
        )
        for level in LEVELS
        for k, t in enumerate(seeds[0]["temperatures"])
    ]
    wins = sum(row.ci95 is not None and row.ci95[0] > 50 for row in rows)

    numbers = {name: [seed[name] for seed in seeds] for name in ("best_constant", "oracle")}
    for level in LEVELS:
        numbers[level] = [seed[level]["reward"] for seed in seeds]
        for control in ("random_head", "learned_constant"):
            numbers[f"{level} {control}"] = [seed[level][control] for seed in seeds]

    def difference(label: str, a: str, b: str) -> Row:
        return Row(label, [x - y for x, y in zip(numbers[a], numbers[b], strict=True)])

    rewards = [Row(f"reward: {name.replace('_', ' ')}", values) for name, values in numbers.items()]
    differences = [difference("token - sequence", "token", "sequence")]
    for level in LEVELS:
        differences += [
            difference(f"{level} - random head", level, f"{level} random_head"),
            difference(f"{level} - oracle", level, "oracle"),
            difference(f"{level} - best constant", level, "best_constant"),
            difference(f"{level}: found a better constant", f"{level} learned_constant", "best_constant"),
            difference(f"{level}: adapted to the context", level, f"{level} learned_constant"),
        ]
    agrees = wins == len(rows)
    sentence = (
        f"The direction agrees: the head wins against every fixed temperature at both levels ({wins} of {len(rows)} intervals "
        "are above 50%)."
        if agrees
        else f"Only {wins} of {len(rows)} intervals are above 50%: the direction doesn't agree everywhere."
    )
    token = differences[0]
    sentence += (
        f" But the paper's token level gains less than its sequence level; here it gains {token.mean:+.3f} more."
        if token.sign() > 0
        else " As in the paper, the token level doesn't gain more than the sequence level."
    )
    return Finding([*rows, *rewards, *differences], agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Win-rates with their intervals over seeds."""
    fig, axes = plots.figure(1, 2, width=4.2)
    for ax, level in zip(axes.flat, LEVELS, strict=True):
        mean, half = mean_and_half([seed[level]["win_rates"] for seed in seeds])
        intervals = np.stack([mean - half, mean + half], 1)
        plots.win_rates(ax, seeds[0]["temperatures"], mean.tolist(), intervals.tolist())
        ax.set_title(f"{level} level\n{ax.get_title()}")
    return fig
