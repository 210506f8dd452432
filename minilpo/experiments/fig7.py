"""Figure 7: which temperatures wrote the chosen and the rejected responses."""

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, in_words
from minilpo.experiments.figures import draw_bars
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.show import plots

PAPER = (
    "share of each temperature among chosen and among rejected responses: "
    "high ones are chosen most, whatever the task"
)


def measure(lab: Lab) -> Numbers:
    """Takes the shares of the first round, in which every temperature was drawn equally often."""
    first = lab.head().log[0]
    numbers: Numbers = {"temperatures": list(lab.config.temperatures)}
    for kind in ("chosen", "rejected"):
        numbers[kind] = {name: first[f"{kind}_share"][name] for name in MIXTURE}
    return numbers


def odds(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Computes how often a temperature was chosen per rejection; finite for one never rejected."""
    return (chosen + 1e-3) / (rejected + 1e-3)


def conclude(found: Numbers) -> Finding:
    """Compares the highest temperature with the lowest, and the best by count with that by odds."""
    temperatures = found["temperatures"][0]
    ends = f"share at t={temperatures[-1]:g} minus share at t={temperatures[0]:g}"
    rows, warm, other = [], {}, {}
    for name in MIXTURE:
        chosen, rejected = found["chosen"][name], found["rejected"][name]
        most = temperatures[chosen.argmax(1)]
        for_one = temperatures[odds(chosen, rejected).argmax(1)]
        warm[name] = Row(f"{name}: chosen, {ends}", chosen[:, -1] - chosen[:, 0])
        other[name] = Row(f"{name}: difference of these two", most - for_one)
        rows += [
            warm[name],
            Row(f"{name}: rejected, {ends}", rejected[:, -1] - rejected[:, 0]),
            Row(f"{name}: chosen most often", most),
            Row(f"{name}: most often chosen for once rejected", for_one),
        ]
    agrees = all(row.sign() > 0 for row in warm.values())
    kinds = "more often", "less often", "not clearly more or less often"
    often = compared(warm, *(f"{kind} than the lowest in {{}}" for kind in kinds))
    differing = [name for name, row in other.items() if row.sign() != 0]
    counting = "Counting what was chosen (NLL)"
    if differing:
        counting += " points to another temperature than weighing it against what was rejected "
        counting += f"(Eq. 10) in {in_words(differing)}."
    else:
        counting += " and weighing it against what was rejected (Eq. 10) don't clearly point to "
        counting += "different temperatures in any task."
    how = f"the highest temperature is chosen {often}. {counting}"
    return Finding([*rows, *other.values()], agrees, direction(agrees, how))


def draw(found: Numbers) -> plots.Figure:
    """Draws chosen and rejected side by side for every task."""
    fig, axes = plots.figure(1, len(MIXTURE))
    temperatures = found["temperatures"][0]
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        shares = {kind: found[kind][name] for kind in ("chosen", "rejected")}
        names, colours = Temperatures(temperatures).names, (plots.BLUE, plots.ORANGE)
        chosen, rejected = draw_bars(ax, names, shares, colours)
        most = temperatures[chosen.argmax()]
        best = temperatures[odds(chosen, rejected).argmax()]
        title = f"{name}\nmost chosen {most:g}, best odds {best:g}"
        ax.set(xlabel="temperature", ylabel="share (%)", ylim=(0, None), title=title)
    plots.legend(axes[0, 0])
    fig.suptitle("NLL follows the blue bars, LPO weighs blue against orange")
    return fig
