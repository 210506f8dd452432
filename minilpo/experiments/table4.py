"""Table 4: the losses compared, on mathematics alone, at sequence level."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    direction,
    draw_side_by_side,
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
LPO = ("eq10", "eq11")  # those that the paper compares with the NLL
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
        head = lab.head("sequence", (TASK,), **rule)
        rollout, greedy = lab.adaptive(head.greedy, test)
        _, sampled = lab.adaptive(head.sampled, test)
        numbers[loss] = {
            "greedy": float(greedy.mean()),
            "sampled": float(sampled.mean()),
            "probabilities": head.head(rollout.decisions.features).softmax(-1).mean(0).tolist(),
            "chosen_share": head.log[0]["chosen_share"][TASK],
        }
    return numbers


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Accuracies beside the paper's, then what the NLL loses, and whether the others find t=0."""
    temperatures, fixed = seeds[0]["temperatures"], values_of(seeds, "fixed")
    rows = percent_at("fixed", temperatures, fixed, PAPERS_FIXED)
    for choice, papers in {"greedy": PAPERS, "sampled": {}}.items():
        for loss, name in LOSSES.items():
            right = 100 * values_of(seeds, loss, choice)
            rows.append(Row(f"{name}, {choice} choice (%)", right, papers.get(loss, "")))
    nll, sampled = (values_of(seeds, "nll", choice) for choice in ("greedy", "sampled"))
    cold, coldest = f"fixed t={temperatures[0]:g}", fixed[:, 0]
    by_greedy = _minus_lpo(seeds, "NLL", nll, "greedy", "-2.67")
    by_sampled = _minus_lpo(seeds, "NLL", sampled, "sampled")
    by_cold = _minus_lpo(seeds, cold, coldest, "greedy")
    nll_is_below = all(row.sign() < 0 for row in by_greedy.values())
    agrees = nll_is_below and all(row.sign() <= 0 for row in by_cold.values())
    how = (
        f"by greedy choice the NLL is {_with_sizes(by_greedy)}, and {cold} is "
        f"{_with_sizes(by_cold)}; by sampled choice the NLL is {_with_sizes(by_sampled)}."
    )
    differences = [*by_greedy.values(), *by_sampled.values(), *by_cold.values()]
    return Finding([*rows, *differences], agrees, direction(agrees, how))


def _minus_lpo(
    seeds: Sequence[Numbers], name: str, right: np.ndarray, choice: str, paper: str = ""
) -> dict[str, Row]:
    """An accuracy minus those of LPO's losses, in points, by the names of these."""
    minus = {}
    for loss in LPO:
        label = f"{name} - {LOSSES[loss]}, {choice} choice (points)"
        points = 100 * (right - values_of(seeds, loss, choice))
        minus[LOSSES[loss]] = Row(label, points, paper)
    return minus


def _with_sizes(differences: dict[str, Row]) -> str:
    # The sizes in the order in which `compared` names them.
    rows = sorted(differences.values(), key=lambda row: (1, -1, 0).index(row.sign()))
    sizes = ", ".join(row.text(1) for row in rows)
    return f"{compared(differences)} ({sizes} points)"


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Accuracy, and the reason: what each loss has learned, beside what was chosen."""
    fig, [[left, right]] = plots.figure(1, 2, width=5)
    _draw_accuracy(left, seeds)
    _draw_probabilities(right, seeds)
    return fig


def _draw_accuracy(ax: Axes, seeds: Sequence[Numbers]) -> None:
    values = {}
    for choice in ("greedy", "sampled"):
        of_losses = [values_of(seeds, loss, choice) for loss in LOSSES]
        values[f"{choice} choice"] = np.column_stack(of_losses)
    draw_side_by_side(ax, values, (plots.BLUE, plots.GREY))
    best = 100 * values_of(seeds, "fixed").mean(0).max()
    line: dict[str, Any] = {"color": plots.ORANGE, "linestyle": "--", "linewidth": 1}
    ax.axhline(best, label="best fixed temperature", **line)
    names = [name.replace(", ", ",\n") for name in LOSSES.values()]
    ax.set_xticks(np.arange(len(names)), names)
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
        share = 100 * values.mean(0)
        ax.plot(seeds[0]["temperatures"], share, style, color=colour, label=label, markersize=4)
    ax.set(xlabel="temperature", ylabel="probability (%)", ylim=(0, None))
    nll, eq10 = (
        np.abs(values_of(seeds, loss, "probabilities") - values_of(seeds, loss, "chosen_share"))
        for loss in ("nll", "eq10")
    )
    words = Row("", nll.sum(1) - eq10.sum(1)).told(  # who is further from what was chosen
        "Eq. 10 copies what was chosen\nmore than the NLL does",
        "the NLL copies what was chosen\nmore than Eq. 10 does",
        "the NLL and Eq. 10 are about as far\nfrom what was chosen",
    )
    ax.set_title(f"Learned: {words}")
    plots.legend(ax)
