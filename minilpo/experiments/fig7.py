"""Figure 7: which temperatures wrote the chosen and the rejected responses."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    direction,
    draw_side_by_side,
    in_words,
    values_of,
)
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.show import plots

PAPER = (
    "share of each temperature among chosen and among rejected responses: "
    "high ones are chosen most, whatever the task"
)


def measure(lab: Lab) -> Numbers:
    """The shares in the first round, in which every temperature was drawn equally often."""
    first = lab.head().log[0]
    return {
        "temperatures": list(lab.config.temperatures),
        "chosen": {name: first["chosen_share"][name] for name in MIXTURE},
        "rejected": {name: first["rejected_share"][name] for name in MIXTURE},
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """By task: the highest temperature against the lowest, the best by count and by ratio."""
    temperatures = np.array(seeds[0]["temperatures"])
    ends = f"share at t={temperatures[-1]:g} minus share at t={temperatures[0]:g}"
    rows, warm, other = [], [], []
    for name in MIXTURE:
        chosen, rejected = values_of(seeds, "chosen", name), values_of(seeds, "rejected", name)
        most = temperatures[chosen.argmax(1)]
        for_one = temperatures[_odds(chosen, rejected).argmax(1)]
        warm.append(Row(f"{name}: chosen, {ends}", chosen[:, -1] - chosen[:, 0]))
        rows += [
            warm[-1],
            Row(f"{name}: rejected, {ends}", rejected[:, -1] - rejected[:, 0]),
            Row(f"{name}: chosen most often", most),
            Row(f"{name}: most often chosen for once rejected", for_one),
        ]
        other.append(Row(f"{name}: difference of these two", most - for_one))
    agrees = all(row.sign() > 0 for row in warm)
    often = compared(
        {row.subject: row for row in warm},
        "more often than the lowest in {}",
        "less often than the lowest in {}",
        "not clearly more or less often than the lowest in {}",
    )
    differing = [row.subject for row in other if row.sign() != 0]
    if differing:
        what_differs = (
            "Counting what was chosen (NLL) points to another temperature than weighing it against "
            f"what was rejected (Eq. 10) in {in_words(differing)}."
        )
    else:
        what_differs = (
            "Counting what was chosen (NLL) and weighing it against what was rejected (Eq. 10) "
            "don't clearly point to different temperatures in any task."
        )
    how = f"the highest temperature is chosen {often}. {what_differs}"
    return Finding([*rows, *other], agrees, direction(agrees, how))


def _odds(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """How often a temperature was chosen for once rejected, also if it never was."""
    return (chosen + 1e-3) / (rejected + 1e-3)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Chosen and rejected side by side for every task."""
    fig, axes = plots.figure(1, len(MIXTURE))
    temperatures, colours = seeds[0]["temperatures"], (plots.BLUE, plots.ORANGE)
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        shares = {kind: values_of(seeds, kind, name) for kind in ("chosen", "rejected")}
        chosen, rejected = draw_side_by_side(ax, shares, colours, capsize=2)
        most = temperatures[int(chosen.argmax())]
        odds = temperatures[int(_odds(chosen, rejected).argmax())]
        plots.name_ticks(ax, Temperatures(temperatures).names)
        ax.set(xlabel="temperature", ylabel="share (%)", ylim=(0, None))
        ax.set_title(f"{name}\nmost chosen {most:g}, best odds {odds:g}")
    plots.legend(axes[0, 0])
    fig.suptitle("NLL follows the blue bars, LPO weighs blue against orange")
    return fig
