"""Figure 4 and Table 2: which temperature the sequence-level head chooses for which task."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.tasks import kind_of
from minilpo.tasks.instruct import CLOSED_KINDS

PAPER = "chosen temperatures by task: mathematics low, stories high, instructions in between and widest"
PAPERS_MEANS = {"math": "0", "story": "1"}  # all of GSM8K at 0, all stories at 1


def measure(lab: Lab) -> Numbers:
    """Shares of the chosen temperatures for every task, and their mean for the two sorts of instruction."""
    test = lab.fixed("test")
    rollout, _ = lab.adaptive(lab.head(), test)
    temperatures = np.array(lab.config.temperatures)
    chosen = rollout.temperature_ids[:, 0].numpy()
    shares = {name: np.bincount(chosen[test.names == name], minlength=len(temperatures)) for name in MIXTURE}
    closed = [kind_of(task, prompt) in CLOSED_KINDS for task, prompt in zip(test.task_of, test.prompts, strict=True)]
    closed, instruct = np.array(closed), test.names == "instruct"
    return {
        "temperatures": temperatures.tolist(),
        "shares": {name: (counts / counts.sum()).tolist() for name, counts in shares.items()},
        "one_right_answer": float(temperatures[chosen[instruct & closed]].mean()),
        "open": float(temperatures[chosen[instruct & ~closed]].mean()),
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Mean and spread of the chosen temperature, and whether the order of the tasks is the paper's."""
    temperatures = np.array(seeds[0]["temperatures"])
    means = {name: [float(np.dot(seed["shares"][name], temperatures)) for seed in seeds] for name in MIXTURE}
    spreads = {
        name: [
            float(np.dot(seed["shares"][name], (temperatures - mean) ** 2) ** 0.5)
            for seed, mean in zip(seeds, means[name], strict=True)
        ]
        for name in MIXTURE
    }
    rows = [Row(f"{name}: mean chosen temperature", means[name], PAPERS_MEANS.get(name, "")) for name in MIXTURE]
    rows += [Row(f"{name}: standard deviation", spreads[name]) for name in MIXTURE]
    rows += [
        Row("instruct, one right answer", [seed["one_right_answer"] for seed in seeds]),
        Row("instruct, open", [seed["open"] for seed in seeds]),
    ]
    differences = [
        Row("instruct - math", [a - b for a, b in zip(means["instruct"], means["math"], strict=True)]),
        Row("story - instruct", [a - b for a, b in zip(means["story"], means["instruct"], strict=True)]),
    ]
    widest = max(MIXTURE, key=lambda name: float(np.mean(spreads[name])))
    ordered = all(row.sign() > 0 for row in differences)
    agrees = ordered and widest == "instruct"
    sentence = (
        "The direction agrees: math lowest, instructions in between and widest, stories highest."
        if agrees
        else f"The order of the tasks {'agrees' if ordered else 'does not agree'}, and {widest} is the widest."
    )
    return Finding(rows + differences, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """The histograms, mean over seeds."""
    fig, axes = plots.figure(1, len(MIXTURE))
    temperatures = seeds[0]["temperatures"]
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        shares, _ = mean_and_half([seed["shares"][name] for seed in seeds])
        plots.choice_histogram(ax, name, temperatures, shares.tolist(), float(np.dot(shares, temperatures)))
    fig.suptitle("Which temperature the head chooses, task by task")
    return fig
