"""Figure 3 and Tables 6 to 11: the head, trained on all tasks, against every fixed temperature."""

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.measure import evenly, learned_constant
from minilpo.evaluation.statistics import mean_over_tasks, win_points
from minilpo.evaluation.summary import best_constants
from minilpo.experiments.base import Finding, Numbers, Row, direction, percent_at
from minilpo.experiments.figures import mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "win-rate of the head against each fixed temperature, mean over tasks, sequence and token level"
)
PAPERS_WIN_RATES = {
    "sequence": {0.0: "54.2", 0.2: "53.9", 0.4: "53.0", 0.6: "53.4", 0.8: "52.9", 1.0: "52.9"},
    "token": {0.0: "51.2", 0.2: "51.4", 0.4: "51.0", 0.6: "50.8", 0.8: "50.3", 1.0: "50.5"},
}


def measure(lab: Lab) -> Numbers:
    """Measures both levels and every control on the same test prompts."""
    test = lab.fixed("test")
    names, fixed = test.names, test.fixed_rewards
    _, of_task = best_constants(lab.fixed("train"))
    per_task = fixed[np.arange(len(names)), [of_task[name] for name in names]]

    def mean(rewards: np.ndarray) -> float:
        return float(mean_over_tasks(rewards, names))

    numbers: Numbers = {
        "temperatures": list(lab.config.temperatures),
        "best_constant": mean(lab.constant_rewards()),
        "oracle": mean(per_task),  # the best temperature per task
    }
    for level in PAPERS_WIN_RATES:
        head = lab.head(level)
        rewards = lab.adaptive(head.greedy, test)[1]
        numbers[level] = {
            "reward": mean(rewards),
            "tasks": {name: float(rewards[names == name].mean()) for name in of_task},
            "random_head": mean(lab.adaptive(evenly(head.head, head.choices), test)[1]),
            "learned_constant": mean(fixed[:, learned_constant(head.constant)]),
            "win_rates": [mean(win_points(rewards, fixed[:, k])) for k in range(fixed.shape[1])],
        }
    return numbers


def conclude(found: Numbers) -> Finding:
    """Says on which side of 50% the win-rates are, and which level gains more."""
    constant, per_task = found["best_constant"], found["oracle"]
    rewards = [Row("reward: best constant", constant), Row("reward: best per task", per_task)]
    win_rates, differences = [], []
    for level, papers in PAPERS_WIN_RATES.items():
        numbers, label = found[level], f"{level}: win-rate against"
        win_rates += percent_at(label, found["temperatures"][0], numbers["win_rates"], papers)
        head, learned = numbers["reward"], numbers["learned_constant"]
        rewards += [
            Row(f"reward: {level}", head),
            Row(f"reward: {level} random head", numbers["random_head"]),
            Row(f"reward: {level} learned constant", learned),
        ]
        differences += [
            Row(f"{level} - random head", head - numbers["random_head"]),
            Row(f"{level} - best per task", head - per_task),
            Row(f"{level} - best constant", head - constant),
            Row(f"{level}: found a better constant", learned - constant),
            Row(f"{level}: adapted to the context", head - learned),
        ]
    token = Row("token - sequence", found["token"]["reward"] - found["sequence"]["reward"])
    sides = [row.sign(50) for row in win_rates]
    agrees = all(side > 0 for side in sides)
    how = "of the win-rates against each fixed temperature at both levels, "
    how += f"{sides.count(1)} of {len(sides)} intervals are above 50%, {sides.count(-1)} below. "
    papers_less = "paper's token level gains less than its sequence level; here"
    how += token.told(
        f"But the {papers_less} it gains more ({token.text()}).",
        f"As in the paper, the token level gains less than the sequence level ({token.text()}).",
        f"The {papers_less} they don't clearly differ ({token.text()}).",
    )
    return Finding([*win_rates, *rewards, token, *differences], agrees, direction(agrees, how))


def draw(found: Numbers) -> plots.Figure:
    """Draws the win-rates with their intervals over seeds."""
    fig, axes = plots.figure(1, 2, width=4.2)
    names = Temperatures(found["temperatures"][0]).names
    for ax, level in zip(axes.flat, PAPERS_WIN_RATES, strict=True):
        mean, half = mean_and_half(found[level]["win_rates"])
        intervals = np.stack([mean - half, mean + half], 1)
        plots.win_rates(ax, names, mean.tolist(), intervals.tolist())
        ax.set_title(f"{level} level\n{ax.get_title()}")
    return fig
