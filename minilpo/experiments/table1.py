"""Table 1: on free continuations, the token-level head learns to avoid repeats."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import learned_constant
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab

PAPER = "free continuation, token level: share of repeated 3-grams, greedy 0.36%, adaptive 0.22%; 94% of choices not greedy"
TASK = "continuation"
TEMPERATURES = (0.0, 0.1, 0.2, 0.4, 0.6)
SAMPLES = 10  # the paper's number


def measure(lab: Lab) -> Numbers:
    """Repeats at every fixed temperature and with the head."""
    test = lab.fixed("test", (TASK,), TEMPERATURES)
    prompts = lab.quarter_of_the_prompts()
    head = lab.head("token", (TASK,), TEMPERATURES, samples=SAMPLES, prompts=prompts)
    rollout, rewards = lab.adaptive(head, test)
    return {
        "repeats": (1 - test.fixed_rewards.mean(0)).tolist(),
        "adaptive": float(1 - rewards.mean()),
        "learned_constant": float(1 - test.fixed_rewards[:, learned_constant(head.constant)].mean()),
        "not_greedy": float((rollout.temperature_ids[rollout.decision_mask] > 0).double().mean()),
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Percentages of repeated 3-grams, and the difference to greedy."""
    rows = [
        Row(f"repeats at t={t:g} (%)", [100 * seed["repeats"][k] for seed in seeds], "0.36" if t == 0 else "")
        for k, t in enumerate(TEMPERATURES)
    ]
    rows += [
        Row("repeats with the head (%)", [100 * seed["adaptive"] for seed in seeds], "0.22"),
        Row("repeats with a learned constant (%)", [100 * seed["learned_constant"] for seed in seeds]),
        Row("choices that aren't greedy (%)", [100 * seed["not_greedy"] for seed in seeds], "94"),
        Row("head - greedy (points)", [100 * (seed["adaptive"] - seed["repeats"][0]) for seed in seeds], "-0.14"),
        Row("head - warmest (points)", [100 * (seed["adaptive"] - seed["repeats"][-1]) for seed in seeds]),
    ]
    agrees = rows[-2].sign() < 0
    sentence = (
        "The direction agrees: the head repeats itself less than greedy."
        if agrees
        else "The direction doesn't agree: the head doesn't repeat itself less than greedy."
    )
    sentence += (
        " The warmest temperature alone does as well or better: here variety is all that is asked for."
        if rows[-1].sign() >= 0
        else " It also repeats itself less than the warmest temperature alone."
    )
    return Finding(rows, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Repeats by temperature, and with the head."""
    fig, axes = plots.figure(1, 1, width=5)
    ax = axes[0, 0]
    mean, half = mean_and_half([[*seed["repeats"], seed["adaptive"]] for seed in seeds])
    places = np.arange(len(mean))
    ax.bar(places, 100 * mean, yerr=100 * half, color=[plots.BLUE] * (len(mean) - 1) + [plots.ORANGE], capsize=3, width=0.7)
    ax.set_xticks(places, [*[f"{t:g}" for t in TEMPERATURES], "head"])
    ax.set(xlabel="fixed temperature, or the head", ylabel="repeated 3-grams (%)", ylim=(0, None))
    ax.set_title(f"Repeats: {100 * mean[0]:.0f}% when greedy, {100 * mean[-1]:.1f}% with the head")
    return fig
