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
    difference,
    direction,
    draw_bars,
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
        chosen, rejected = (np.array(values_of(seeds, key, name)) for key in ("chosen", "rejected"))
        most = temperatures[chosen.argmax(1)].tolist()
        for_one = temperatures[_odds(chosen, rejected).argmax(1)].tolist()
        warm.append(Row(f"{name}: chosen, {ends}", (chosen[:, -1] - chosen[:, 0]).tolist()))
        rows += [
            warm[-1],
            Row(f"{name}: rejected, {ends}", (rejected[:, -1] - rejected[:, 0]).tolist()),
            Row(f"{name}: chosen most often", most),
            Row(f"{name}: most often chosen for once rejected", for_one),
        ]
        other.append(difference(f"{name}: difference of these two", most, for_one))
    agrees = all(row.sign() > 0 for row in warm)
    often = compared(
        {row.subject: row for row in warm},
        "more often than the lowest in {}",
        "less often than the lowest in {}",
        "not clearly more or less often than the lowest in {}",
    )
    how = f"the highest temperature is chosen {often}. {_what_differs(other)}"
    return Finding([*rows, *other], agrees, direction(agrees, how))


def _what_differs(other: Sequence[Row]) -> str:
    """Where counting the chosen leads elsewhere than weighing them against the rejected."""
    names = [row.subject for row in other if row.sign() != 0]
    if not names:
        return (
            "Counting what was chosen (NLL) and weighing it against what was rejected (Eq. 10) "
            "don't clearly point to different temperatures in any task."
        )
    return (
        "Counting what was chosen (NLL) points to another temperature than weighing it against "
        f"what was rejected (Eq. 10) in {in_words(names)}."
    )


def _odds(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """How often a temperature was chosen for once rejected, also if it never was."""
    return (chosen + 1e-3) / (rejected + 1e-3)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Chosen and rejected side by side for every task."""
    fig, axes = plots.figure(1, len(MIXTURE))
    temperatures = seeds[0]["temperatures"]
    places = np.arange(len(temperatures))
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        shares = {}
        for kind, shift, colour in (("chosen", -0.2, plots.BLUE), ("rejected", 0.2, plots.ORANGE)):
            options = {"color": colour, "label": kind, "capsize": 2}
            values = values_of(seeds, kind, name)
            shares[kind] = draw_bars(ax, places + shift, values, 100, **options)
        most = temperatures[int(np.argmax(shares["chosen"]))]
        odds = temperatures[int(np.argmax(_odds(shares["chosen"], shares["rejected"])))]
        plots.name_ticks(ax, Temperatures(temperatures).names)
        ax.set(xlabel="temperature", ylabel="share (%)", ylim=(0, None))
        ax.set_title(f"{name}\nmost chosen {most:g}, best odds {odds:g}")
    plots.legend(axes[0, 0])
    fig.suptitle("NLL follows the blue bars, LPO weighs blue against orange")
    return fig
