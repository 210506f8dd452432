"""Figure 4 and Table 2: which temperature the sequence-level head chooses for which task."""

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.show import plots
from minilpo.tasks.instruct import CLOSED_KINDS

PAPER = (
    "chosen temperatures by task: mathematics low, stories high, instructions in between and widest"
)
PAPERS_MEANS = {"math": "0", "story": "1"}  # all of GSM8K at 0, all stories at 1


def measure(lab: Lab) -> Numbers:
    """Counts each temperature by task; takes the mean for the two sorts of instruction."""
    test, temperatures = lab.fixed("test"), np.array(lab.config.temperatures)
    rollout, _ = lab.adaptive(lab.head().greedy, test)
    chosen = rollout.decisions.choice_ids[:, 0].numpy()
    shares = {}
    for name in MIXTURE:
        counts = np.bincount(chosen[test.names == name], minlength=len(temperatures))
        shares[name] = (counts / counts.sum()).tolist()
    closed, instruct = np.isin(test.kinds, CLOSED_KINDS), test.names == "instruct"
    return {
        "temperatures": temperatures.tolist(),
        "shares": shares,
        "one_right_answer": float(temperatures[chosen[instruct & closed]].mean()),
        "open": float(temperatures[chosen[instruct & ~closed]].mean()),
    }


def conclude(found: Numbers) -> Finding:
    """Says whether the tasks' mean temperatures are in the paper's order, and which is widest."""
    temperatures = found["temperatures"][0]
    means, spreads = {}, {}
    for name in MIXTURE:
        shares = found["shares"][name]  # (S, K)
        means[name] = shares @ temperatures
        away = temperatures - means[name][:, None]
        spreads[name] = (shares * away**2).sum(1) ** 0.5
    rows = [
        *(Row(f"{n}: mean chosen temperature", means[n], PAPERS_MEANS.get(n, "")) for n in MIXTURE),
        *(Row(f"{name}: standard deviation", spreads[name]) for name in MIXTURE),
        Row("instruct, one right answer", found["one_right_answer"]),
        Row("instruct, open", found["open"]),
    ]
    to_math = Row("instruct - math", means["instruct"] - means["math"])
    to_instruct = Row("story - instruct", means["story"] - means["instruct"])
    wider = {}
    for name in MIXTURE:
        if name != "instruct":
            label = f"standard deviation, instruct - {name}"
            wider[name] = Row(label, spreads["instruct"] - spreads[name])
    differences = [to_math, to_instruct, *wider.values()]
    agrees = all(row.sign() > 0 for row in differences)
    how = (
        f"the mean temperature of instruct is {compared({'math': to_math})}, "
        f"that of story {compared({'instruct': to_instruct})}; "
        f"the spread of instruct is {compared(wider)}."
    )
    return Finding([*rows, *differences], agrees, direction(agrees, how))


def draw(found: Numbers) -> plots.Figure:
    """Draws the histograms, mean over seeds."""
    fig, axes = plots.figure(1, len(MIXTURE))
    choices = Temperatures(found["temperatures"][0])
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        shares = found["shares"][name].mean(0)
        mean = float(np.dot(shares, choices.temperatures))
        plots.choice_histogram(ax, name, choices.names, shares.tolist(), mean)
    fig.suptitle("Which temperature the head chooses, task by task")
    return fig
