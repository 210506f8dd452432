"""Not in the paper: two tasks on which the head can't gain; if it seems to, something is wrong."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.evaluation.summary import best_constants
from minilpo.experiments.base import Finding, Numbers, Row, draw_line, mean_and_half, values_of
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "(not in the paper) a task where no temperature helps, and one whose prompts hide which would"
)
TASKS = ("coin_flip", "hidden_wish")


def measure(lab: Lab) -> Numbers:
    """The head trained and tested on each control task, beside the best constant."""
    numbers: Numbers = {}
    temperatures = np.array(lab.config.temperatures)
    for task in TASKS:
        test = lab.fixed("test", (task,))
        head = lab.head("sequence", (task,))
        rollout, rewards = lab.adaptive(head.greedy, test)
        constant, _ = best_constants(lab.fixed("train", (task,)))
        numbers[task] = {
            "fixed": test.fixed_rewards.mean(0).tolist(),
            "best_constant": float(lab.constant_rewards((task,)).mean()),
            "best_temperature": float(temperatures[constant]),
            "reward": float(rewards.mean()),
            "chosen_temperature": float(temperatures[rollout.decisions.choice_ids[:, 0]].mean()),
        }
    return {"temperatures": temperatures.tolist(), **numbers}


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """The gain on each task, which has to be none."""
    rows, gains = [], {}
    for task in TASKS:
        constant, head = values_of(seeds, task, "best_constant"), values_of(seeds, task, "reward")
        gains[task] = Row(f"{task}: head - best constant", head - constant)
        best, chosen = (values_of(seeds, task, f"{key}_temperature") for key in ("best", "chosen"))
        rows += [
            Row(f"{task}: best constant", constant),
            Row(f"{task}: head", head),
            gains[task],
            Row(f"{task}: temperature of the best constant", best),
            Row(f"{task}: mean chosen temperature", chosen),
        ]
    coin, wish = (gains[task].sign() for task in TASKS)
    sentence = ". ".join(f"On {task} the head {_verdict(gain)}" for task, gain in gains.items())
    if max(coin, wish) > 0:
        sentence += ". Nothing can be gained there: don't trust these results."
    elif coin < 0:
        sentence += ". No temperature can help or hurt with a coin: don't trust these results."
    elif wish < 0:
        sentence += (
            ". It may: LPO doesn't maximise the mean reward. It prefers the temperatures behind "
            "the best responses to those behind the worst, which need not have the highest mean."
        )
    else:
        sentence += ". Nothing can be gained there, and nothing clearly was."
    return Finding(rows, len(seeds) > 1 and coin == 0 and wish <= 0, sentence)


def _verdict(gain: Row) -> str:
    words = gain.told("gains", "loses", "neither clearly gains nor loses")
    return f"{words} ({gain.text()})"


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Reward by temperature and with the head."""
    fig, axes = plots.figure(1, len(TASKS), width=4.4)
    for ax, task in zip(axes.flat, TASKS, strict=True):
        fixed, temperatures = values_of(seeds, task, "fixed"), seeds[0]["temperatures"]
        draw_line(ax, temperatures, fixed, color=plots.BLUE, label="fixed")
        rewards = values_of(seeds, task, "reward")
        gain = Row("gain", rewards - values_of(seeds, task, "best_constant"))
        head, half = mean_and_half(rewards)
        ax.axhline(float(head), color=plots.ORANGE, label="head")
        ax.axhspan(float(head - half), float(head + half), color=plots.ORANGE, alpha=0.2)
        ax.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02))
        ax.set_title(f"{task}: the head\n{_verdict(gain)}")
    plots.legend(axes[0, 0])
    return fig
