"""Not in the paper: two tasks on which the head can't gain; if it seems to, something is wrong."""

import numpy as np

from minilpo.evaluation.summary import best_constants
from minilpo.experiments.base import Finding, Numbers, Row
from minilpo.experiments.figures import draw_line, mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "(not in the paper) a task where no temperature helps, and one whose prompts hide which would"
)
TASKS = ("coin_flip", "hidden_wish")


def measure(lab: Lab) -> Numbers:
    """Trains and tests the head on each control task, beside the best constant."""
    temperatures = np.array(lab.config.temperatures)
    numbers: Numbers = {"temperatures": temperatures.tolist()}
    for task in TASKS:
        head = lab.head("sequence", (task,))
        rollout, rewards = lab.adaptive(head.greedy, lab.fixed("test", (task,)))
        constant, _ = best_constants(lab.fixed("train", (task,)))
        numbers[task] = {
            **lab.rewards_at(task),
            "best_temperature": float(temperatures[constant]),
            "reward": float(rewards.mean()),
            "chosen_temperature": float(temperatures[rollout.decisions.choice_ids[:, 0]].mean()),
        }
    return numbers


def gains_of(found: Numbers) -> dict[str, Row]:
    """Subtracts the best constant from the head, by task."""
    gains = {task: found[task]["reward"] - found[task]["best_constant"] for task in TASKS}
    return {task: Row(f"{task}: head - best constant", gain) for task, gain in gains.items()}


def conclude(found: Numbers) -> Finding:
    """Says whether the head gains on one of the tasks, which it must not."""
    rows, gains = [], gains_of(found)
    for task, gain in gains.items():
        numbers = found[task]
        rows += [
            Row(f"{task}: best constant", numbers["best_constant"]),
            Row(f"{task}: head", numbers["reward"]),
            gain,
            Row(f"{task}: temperature of the best constant", numbers["best_temperature"]),
            Row(f"{task}: mean chosen temperature", numbers["chosen_temperature"]),
        ]
    coin, wish = (gain.sign() for gain in gains.values())
    distrust = "don't trust these results."
    end = "Nothing can be gained there, and nothing clearly was."
    if max(coin, wish) > 0:
        end = f"Nothing can be gained there: {distrust}"
    elif coin < 0:
        end = f"No temperature can help or hurt with a coin: {distrust}"
    elif wish < 0:
        end = (
            "It may: LPO doesn't maximise the mean reward. It prefers the temperatures behind the "
        )
        end += "best responses to those behind the worst, which need not have the highest mean."
    sentences = [f"On {task} the head {gain.gains}" for task, gain in gains.items()]
    agrees = rows[0].ci95 is not None and coin == 0 and wish <= 0
    return Finding(rows, agrees, ". ".join([*sentences, end]))


def draw(found: Numbers) -> plots.Figure:
    """Draws the reward by temperature and with the head."""
    fig, axes = plots.figure(1, len(TASKS), width=4.4)
    for ax, (task, gain) in zip(axes.flat, gains_of(found).items(), strict=True):
        fixed, temperatures = found[task]["fixed"], found["temperatures"][0]
        draw_line(ax, temperatures, fixed, color=plots.BLUE, label="fixed")
        head, half = mean_and_half(found[task]["reward"])
        ax.axhline(float(head), color=plots.ORANGE, label="head")
        ax.axhspan(float(head - half), float(head + half), color=plots.ORANGE, alpha=0.2)
        title = f"{task}: the head\n{gain.gains}"
        ax.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02), title=title)
    plots.legend(axes[0, 0])
    return fig
