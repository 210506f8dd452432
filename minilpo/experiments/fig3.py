"""Figure 3 and Tables 6 to 11: the head, trained on all tasks, against every fixed temperature."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.measure import evenly, learned_constant
from minilpo.evaluation.statistics import mean_over_tasks, win_points
from minilpo.evaluation.summary import best_constants
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    difference,
    direction,
    mean_and_half,
    percent_at,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "win-rate of the head against each fixed temperature, mean over tasks, sequence and token level"
)
LEVELS = ("sequence", "token")
PAPERS_WIN_RATES = {
    "sequence": {0.0: "54.2", 0.2: "53.9", 0.4: "53.0", 0.6: "53.4", 0.8: "52.9", 1.0: "52.9"},
    "token": {0.0: "51.2", 0.2: "51.4", 0.4: "51.0", 0.6: "50.8", 0.8: "50.3", 1.0: "50.5"},
}


def measure(lab: Lab) -> Numbers:
    """Rewards and win-rates of both levels, and every control, on the same test prompts."""
    test = lab.fixed("test")
    names, fixed = test.names, test.fixed_rewards
    _, of_task = best_constants(lab.fixed("train"))
    per_task = fixed[np.arange(len(names)), [of_task[name] for name in names]]

    def mean(rewards: np.ndarray) -> float:
        return float(mean_over_tasks(rewards, names))

    numbers: Numbers = {
        "temperatures": list(lab.config.temperatures),
        "best_constant": mean(lab.constant_rewards()),
        "oracle": mean(per_task),
    }
    for level in LEVELS:
        head = lab.head(level)
        rewards = lab.adaptive(head.greedy, test)[1]
        random_rewards = lab.adaptive(evenly(head.head, head.choices), test, "sample")[1]
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
    rows: list[Row] = []
    numbers = {name: values_of(seeds, name) for name in ("best_constant", "oracle")}
    for level in LEVELS:
        label, win_rates = f"{level}: win-rate against", values_of(seeds, level, "win_rates")
        rows += percent_at(label, seeds[0]["temperatures"], win_rates, PAPERS_WIN_RATES[level])
        numbers[level] = values_of(seeds, level, "reward")
        for control in ("random_head", "learned_constant"):
            numbers[f"{level} {control}"] = values_of(seeds, level, control)
    wins = sum(row.ci95 is not None and row.ci95[0] > 50 for row in rows)
    losses = sum(row.ci95 is not None and row.ci95[1] < 50 for row in rows)

    rewards = []
    for name, values in numbers.items():
        # The numbers' own name is older than what it is called now.
        words = "best per task" if name == "oracle" else name.replace("_", " ")
        rewards.append(Row(f"reward: {words}", values))
    token = difference("token - sequence", numbers["token"], numbers["sequence"])
    differences = [token]
    for level in LEVELS:
        head, constant = numbers[level], numbers["best_constant"]
        learned = numbers[f"{level} learned_constant"]
        differences += [
            difference(f"{level} - random head", head, numbers[f"{level} random_head"]),
            difference(f"{level} - best per task", head, numbers["oracle"]),
            difference(f"{level} - best constant", head, constant),
            difference(f"{level}: found a better constant", learned, constant),
            difference(f"{level}: adapted to the context", head, learned),
        ]
    agrees = wins == len(rows)
    sentence = direction(
        agrees,
        "of the win-rates against each fixed temperature at both levels, "
        f"{wins} of {len(rows)} intervals are above 50%, {losses} below. ",
    )
    sentence += token.told(
        "But the paper's token level gains less than its sequence level; "
        f"here it gains more ({token.text()}).",
        f"As in the paper, the token level gains less than the sequence level ({token.text()}).",
        "The paper's token level gains less than its sequence level; "
        f"here they don't clearly differ ({token.text()}).",
    )
    return Finding([*rows, *rewards, *differences], agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Win-rates with their intervals over seeds."""
    fig, axes = plots.figure(1, 2, width=4.2)
    names = Temperatures(seeds[0]["temperatures"]).names
    for ax, level in zip(axes.flat, LEVELS, strict=True):
        mean, half = mean_and_half(values_of(seeds, level, "win_rates"))
        intervals = np.stack([mean - half, mean + half], 1)
        plots.win_rates(ax, names, mean.tolist(), intervals.tolist())
        ax.set_title(f"{level} level\n{ax.get_title()}")
    return fig
