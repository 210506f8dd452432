"""Table 4: the losses compared, on mathematics alone, at sequence level."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilpo.experiments.base import (
    DISAGREES,
    Finding,
    Numbers,
    difference,
    draw_bars,
    mean_and_half,
    percent,
    percent_at,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "mathematics, sequence level: "
    "Eq. 10 and Eq. 11 find greedy's 81.59%, the NLL baseline only 78.92%"
)
TASK = "math"
LOSSES = {"eq10": "Eq. 10", "eq11": "Eq. 11", "eq11_marginal": "Eq. 11, exact", "nll": "NLL"}
PAPERS = {"eq10": "81.59", "eq11": "81.59", "nll": "78.92"}  # all by greedy choice
PAPERS_FIXED = {0.0: "81.59", 0.6: "79.15", 1.0: "78.32"}


def measure(lab: Lab) -> Numbers:
    """By loss: accuracy of the greedy and the sampled choice, and what the head has learned."""
    test = lab.fixed("test", (TASK,))
    numbers: Numbers = {
        "temperatures": list(lab.config.temperatures),
        "fixed": test.fixed_rewards.mean(0).tolist(),
    }
    for loss in LOSSES:
        rule: dict[str, Any] = {"pairs": "nll"} if loss == "nll" else {"loss": loss}
        head = lab.head("sequence", (TASK,), prompts=lab.quarter_of_the_prompts(), **rule)
        rollout, greedy = lab.adaptive(head.greedy, test)
        _, sampled = lab.adaptive(head.sampled, test, "sample")
        numbers[loss] = {
            "greedy": float(greedy.mean()),
            "sampled": float(sampled.mean()),
            "probabilities": head.head(rollout.decisions.features).softmax(-1).mean(0).tolist(),
            "chosen_share": head.log[0]["chosen_share"][TASK],
        }
    return numbers


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Accuracies beside the paper's, then what the NLL loses."""
    fixed = values_of(seeds, "fixed")
    rows = percent_at("fixed", seeds[0]["temperatures"], fixed, PAPERS_FIXED)
    differences, is_below = [], {}
    for choice, papers, lost in (("greedy", PAPERS, "-2.67"), ("sampled", {}, "")):
        right = {loss: values_of(seeds, loss, choice) for loss in LOSSES}
        for loss, name in LOSSES.items():
            rows.append(percent(f"{name}, {choice} choice", right[loss], papers.get(loss, "")))
        to_nll = []
        for loss in ("eq10", "eq11"):
            label = f"NLL - {LOSSES[loss]}, {choice} choice (points)"
            to_nll.append(difference(label, right["nll"], right[loss], lost, scale=100))
        is_below[choice] = all(row.sign() < 0 for row in to_nll)
        differences += to_nll
    sentence = DISAGREES
    if is_below["greedy"]:
        sentence = "The direction agrees: the NLL stays below Eq. 10 and Eq. 11."
    elif is_below["sampled"]:
        sentence = (
            "The direction agrees in what the heads have learned: "
            "sampled from, the NLL's is below those of Eq. 10 and Eq. 11. "
            "The most likely choice alone hides it: "
            "here it is nearly always the right one under the NLL too."
        )
    return Finding([*rows, *differences], is_below["greedy"] or is_below["sampled"], sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Accuracy, and the reason: what each loss has learned, beside what was chosen."""
    fig, [[left, right]] = plots.figure(1, 2, width=5)
    _draw_accuracy(left, seeds)
    _draw_probabilities(right, seeds)
    return fig


def _draw_accuracy(ax: Axes, seeds: Sequence[Numbers]) -> None:
    places = np.arange(len(LOSSES))
    for choice, shift, colour in (("greedy", -0.2, plots.BLUE), ("sampled", 0.2, plots.GREY)):
        values = np.transpose([values_of(seeds, loss, choice) for loss in LOSSES])
        draw_bars(ax, places + shift, values, color=colour, label=f"{choice} choice")
    fixed, _ = mean_and_half(values_of(seeds, "fixed"))
    line: dict[str, Any] = {"color": plots.ORANGE, "linestyle": "--", "linewidth": 1}
    ax.axhline(100 * fixed.max(), label="best fixed temperature", **line)
    ax.set_xticks(places, [name.replace(", ", ",\n") for name in LOSSES.values()])
    ax.set(ylabel="right answers (%)", ylim=(0, 130))
    ax.set_title("What each loss reaches")
    plots.legend(ax, loc="upper left", ncols=2)


def _draw_probabilities(ax: Axes, seeds: Sequence[Numbers]) -> None:
    lines = {}
    for loss in ("eq10", "eq11", "nll"):
        lines[f"{LOSSES[loss]}: learned"] = values_of(seeds, loss, "probabilities")
    lines["share among chosen responses"] = values_of(seeds, "nll", "chosen_share")
    styles = [("o-", plots.BLUE), ("s--", plots.GREEN), ("^-", plots.ORANGE), (":", plots.GREY)]
    for (label, values), (style, colour) in zip(lines.items(), styles, strict=True):
        share = 100 * np.mean(values, 0)
        ax.plot(seeds[0]["temperatures"], share, style, color=colour, label=label, markersize=4)
    ax.set(xlabel="temperature", ylabel="probability (%)", ylim=(0, None))
    ax.set_title("Why: the NLL copies what was chosen")
    plots.legend(ax)
