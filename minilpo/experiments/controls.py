"""Not in the paper: two tasks on which the head can't gain; if it seems to, something is wrong."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from minilpo.experiments.base import Finding, Numbers, Row, difference, mean_and_half, values_of
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "(not in the paper) a task where no temperature helps, and one whose prompts hide which would"
)
TASKS = ("coin_flip", "hidden_wish")


def measure(lab: Lab) -> Numbers:
    """The head trained and tested on each control task, beside the best constant."""
    numbers = {}
    for task in TASKS:
        test = lab.fixed("test", (task,))
        head = lab.head("sequence", (task,), prompts=lab.quarter_of_the_prompts())
        _, rewards = lab.adaptive(head.greedy, test)
        numbers[task] = {
            "fixed": test.fixed_rewards.mean(0).tolist(),
            "best_constant": float(lab.constant_rewards((task,)).mean()),
            "reward": float(rewards.mean()),
        }
    return {"temperatures": list(lab.config.temperatures), **numbers}


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """The gain on each task, which has to be none."""
    rows, gains = [], []
    for task in TASKS:
        constant, head = values_of(seeds, task, "best_constant"), values_of(seeds, task, "reward")
        gains.append(difference(f"{task}: head - best constant", head, constant))
        rows += [Row(f"{task}: best constant", constant), Row(f"{task}: head", head), gains[-1]]
    gained = [row.subject for row in gains if row.sign() > 0]
    sentence = (
        f"The head gains on {' and '.join(gained)}, where nothing can be gained: "
        "don't trust these results."
        if gained
        else "As it must be: where temperature can't help, the head gains nothing."
    )
    return Finding(rows, not gained, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Reward by temperature and with the head."""
    fig, axes = plots.figure(1, len(TASKS))
    options = {"fmt": "o-", "color": plots.BLUE, "capsize": 3, "markersize": 4}
    for ax, task in zip(axes.flat, TASKS, strict=True):
        mean, half = mean_and_half(values_of(seeds, task, "fixed"))
        ax.errorbar(seeds[0]["temperatures"], mean, yerr=half, label="fixed", **options)
        rewards = values_of(seeds, task, "reward")
        gain = difference("gain", rewards, values_of(seeds, task, "best_constant"))
        head, half = mean_and_half(rewards)
        ax.axhline(float(head), color=plots.ORANGE, label="head")
        ax.axhspan(float(head - half), float(head + half), color=plots.ORANGE, alpha=0.2)
        ax.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02))
        ax.set_title(f"{task}: gain {gain.mean:+.3f}")
    plots.legend(axes[0, 0])
    return fig
