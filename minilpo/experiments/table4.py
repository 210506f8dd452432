"""Table 4: the losses compared, on mathematics alone, at sequence level."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab

PAPER = "mathematics, sequence level: Eq. 10 and Eq. 11 find greedy's 81.59%, the NLL baseline only 78.92%"
TASK = "math"
LOSSES = {"eq10": "Eq. 10", "eq11": "Eq. 11", "eq11_marginal": "Eq. 11, exact", "nll": "NLL"}
PAPERS = {"eq10": "81.59", "eq11": "81.59", "nll": "78.92"}
PAPERS_FIXED = {0.0: "81.59", 0.6: "79.15", 1.0: "78.32"}


def measure(lab: Lab) -> Numbers:
    """Accuracy of the head under every loss, decided greedily and by sampling, and what it thinks of each temperature."""
    test = lab.fixed("test", (TASK,))
    numbers: Numbers = {"temperatures": list(lab.config.temperatures), "fixed": test.fixed_rewards.mean(0).tolist()}
    for loss in LOSSES:
        head = lab.head("sequence", (TASK,), loss=loss, prompts=lab.quarter_of_the_prompts())
        rollout, greedy = lab.adaptive(head, test)
        _, sampled = lab.adaptive(head, test, "sample")
        numbers[loss] = {
            "greedy": float(greedy.mean()),
            "sampled": float(sampled.mean()),
            "probabilities": head.head(rollout.hidden_states).softmax(-1).mean(0).tolist(),
            "chosen_share": head.log[0]["chosen_share"][TASK],
        }
    return numbers


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Accuracies beside the paper's, then what the NLL loses."""
    rows = [
        Row(f"fixed t={t:g} (%)", [100 * seed["fixed"][k] for seed in seeds], PAPERS_FIXED.get(t, ""))
        for k, t in enumerate(seeds[0]["temperatures"])
    ]
    for choice in ("greedy", "sampled"):
        rows += [
            Row(
                f"{said}, {choice} choice (%)",
                [100 * seed[loss][choice] for seed in seeds],
                PAPERS.get(loss, "") if choice == "greedy" else "",
            )
            for loss, said in LOSSES.items()
        ]
    differences = {
        (loss, choice): Row(
            f"NLL - {LOSSES[loss]}, {choice} choice (points)",
            [100 * (seed["nll"][choice] - seed[loss][choice]) for seed in seeds],
            "-2.67" if choice == "greedy" else "",
        )
        for choice in ("greedy", "sampled")
        for loss in ("eq10", "eq11")
    }
    below = {choice: all(differences[loss, choice].sign() < 0 for loss in ("eq10", "eq11")) for choice in ("greedy", "sampled")}
    if below["greedy"]:
        sentence = "The direction agrees: the NLL stays below Eq. 10 and Eq. 11."
    elif below["sampled"]:
        sentence = (
            "The direction agrees in what the heads have learned: sampled from, the NLL's is below those of Eq. 10 and Eq. 11. "
            "The most likely choice alone hides it: here it is nearly always the right one under the NLL too."
        )
    else:
        sentence = "The direction doesn't agree beyond the interval over seeds."
    return Finding([*rows, *differences.values()], below["greedy"] or below["sampled"], sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Accuracy, and the reason: what each loss has learned, beside how often each temperature was chosen."""
    fig, axes = plots.figure(1, 2, width=5)
    fixed, _ = mean_and_half([seed["fixed"] for seed in seeds])
    places = np.arange(len(LOSSES))
    for choice, shift, colour in (("greedy", -0.2, plots.BLUE), ("sampled", 0.2, plots.GREY)):
        mean, half = mean_and_half([[seed[loss][choice] for loss in LOSSES] for seed in seeds])
        axes[0, 0].bar(places + shift, 100 * mean, 0.4, yerr=100 * half, color=colour, label=f"{choice} choice", capsize=3)
    axes[0, 0].axhline(100 * fixed.max(), color=plots.ORANGE, linestyle="--", linewidth=1, label="best fixed temperature")
    axes[0, 0].set_xticks(places, [said.replace(", ", ",\n") for said in LOSSES.values()])
    axes[0, 0].set(ylabel="right answers (%)", ylim=(0, 130))
    axes[0, 0].set_title("What each loss reaches")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    temperatures = seeds[0]["temperatures"]
    shown = {f"{LOSSES[loss]}: learned": [seed[loss]["probabilities"] for seed in seeds] for loss in ("eq10", "eq11", "nll")}
    shown["share among chosen responses"] = [seed["nll"]["chosen_share"] for seed in seeds]
    styles = [("o-", plots.BLUE), ("s--", plots.GREEN), ("^-", plots.ORANGE), (":", plots.GREY)]
    for (label, values), (style, colour) in zip(shown.items(), styles, strict=True):
        axes[0, 1].plot(temperatures, 100 * np.mean(values, 0), style, color=colour, label=label, markersize=4)
    axes[0, 1].set(xlabel="temperature", ylabel="probability (%)", ylim=(0, None))
    axes[0, 1].set_title("Why: the NLL copies what was chosen")
    axes[0, 1].legend(frameon=False, fontsize=8)
    return fig
