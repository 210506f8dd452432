"""Figure 7: which temperatures are behind the chosen and the rejected responses, and what each loss makes of it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import MIXTURE, Lab

PAPER = "share of each temperature among chosen and among rejected responses: high ones are chosen most, whatever the task"


def measure(lab: Lab) -> Numbers:
    """The shares in the first round, when the head is uniform and every temperature was drawn equally often."""
    first = lab.head().log[0]
    return {
        "temperatures": list(lab.config.temperatures),
        "chosen": {name: first["chosen_share"][name] for name in MIXTURE},
        "rejected": {name: first["rejected_share"][name] for name in MIXTURE},
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """For every task: the share of the highest and the lowest temperature, and the best by count and by ratio."""
    temperatures, rows, warm = np.array(seeds[0]["temperatures"]), [], []
    for name in MIXTURE:
        chosen, rejected = (np.array([seed[kind][name] for seed in seeds]) for kind in ("chosen", "rejected"))
        ratio = (chosen + 1e-3) / (rejected + 1e-3)
        ends = f"share at t={temperatures[-1]:g} minus share at t={temperatures[0]:g}"
        warm.append(Row(f"{name}: chosen, {ends}", (chosen[:, -1] - chosen[:, 0]).tolist()))
        rows += [
            warm[-1],
            Row(f"{name}: rejected, {ends}", (rejected[:, -1] - rejected[:, 0]).tolist()),
            Row(f"{name}: chosen most often", temperatures[chosen.argmax(1)].tolist()),
            Row(f"{name}: most often chosen for once rejected", temperatures[ratio.argmax(1)].tolist()),
        ]
    of_warm = [row.label.split(":")[0] for row in warm if row.sign() > 0]
    agrees = len(of_warm) == len(MIXTURE)
    sentence = (
        "The direction agrees: the highest temperature is chosen more often than the lowest in every task."
        if agrees
        else "The highest temperature is chosen more often than the lowest only in "
        f"{', '.join(of_warm) or 'no task'}: the direction doesn't agree everywhere."
    )
    sentence += " Counting what was chosen (NLL) is not the same as weighing it against what was rejected (Eq. 10)."
    return Finding(rows, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Chosen and rejected side by side for every task."""
    fig, axes = plots.figure(1, len(MIXTURE))
    temperatures = seeds[0]["temperatures"]
    places = np.arange(len(temperatures))
    for ax, name in zip(axes.flat, MIXTURE, strict=True):
        best = []
        for kind, shift, colour in (("chosen", -0.2, plots.BLUE), ("rejected", 0.2, plots.ORANGE)):
            mean, half = mean_and_half([seed[kind][name] for seed in seeds])
            ax.bar(places + shift, 100 * mean, 0.4, yerr=100 * half, color=colour, label=kind, capsize=2)
            best.append(mean)
        ratio = int(np.argmax((best[0] + 1e-3) / (best[1] + 1e-3)))
        ax.set_xticks(places, [f"{t:g}" for t in temperatures])
        ax.set(xlabel="temperature", ylabel="share (%)", ylim=(0, None))
        most = int(np.argmax(best[0]))
        ax.set_title(f"{name}\nmost chosen {temperatures[most]:g}, best odds {temperatures[ratio]:g}")
    axes[0, 0].legend(frameon=False, fontsize=8)
    fig.suptitle("NLL follows the blue bars, LPO weighs blue against orange")
    return fig
