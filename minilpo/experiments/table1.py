"""Table 1: on free continuations, the token-level head learns to avoid repeats."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.evaluation.measure import learned_constant
from minilpo.experiments.base import (
    Finding,
    Numbers,
    difference,
    direction,
    draw_bars,
    percent,
    percent_at,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "free continuation, token level: share of repeated 3-grams, greedy 0.36%, adaptive 0.22%; "
    "94% of choices not greedy"
)
TASK = "continuation"
TEMPERATURES = (0.0, 0.1, 0.2, 0.4, 0.6)
SAMPLES = 10  # the paper's number


def measure(lab: Lab) -> Numbers:
    """Repeats at every fixed temperature and with the head."""
    test = lab.fixed("test", (TASK,), TEMPERATURES)
    prompts = lab.quarter_of_the_prompts()
    head = lab.head("token", (TASK,), TEMPERATURES, samples=SAMPLES, prompts=prompts)
    rollout, rewards = lab.adaptive(head.greedy, test)
    made = rollout.decisions
    constant = test.fixed_rewards[:, learned_constant(head.constant)]
    return {
        "repeats": (1 - test.fixed_rewards.mean(0)).tolist(),
        "adaptive": float(1 - rewards.mean()),
        "learned_constant": float(1 - constant.mean()),
        "not_greedy": float((made.choice_ids[made.mask] > 0).double().mean()),
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Percentages of repeated 3-grams, and the difference to greedy."""
    head, repeats = values_of(seeds, "adaptive"), values_of(seeds, "repeats")
    greedy, warmest = values_of(seeds, "repeats", 0), values_of(seeds, "repeats", -1)
    to_greedy = difference("head - greedy (points)", head, greedy, "-0.14", scale=100)
    to_warmest = difference("head - warmest (points)", head, warmest, scale=100)
    rows = [
        *percent_at("repeats at", TEMPERATURES, repeats, {0.0: "0.36"}),
        percent("repeats with the head", head, "0.22"),
        percent("repeats with a learned constant", values_of(seeds, "learned_constant")),
        percent("choices that aren't greedy", values_of(seeds, "not_greedy"), "94"),
        to_greedy,
        to_warmest,
    ]
    agrees = to_greedy.sign() < 0
    sentence = direction(
        agrees,
        "the head repeats itself less than greedy.",
        "The direction doesn't agree: the head doesn't repeat itself less than greedy.",
    )
    sentence += (
        " The warmest temperature alone does as well or better: "
        "here variety is all that is asked for."
        if to_warmest.sign() >= 0
        else " It also repeats itself less than the warmest temperature alone."
    )
    return Finding(rows, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Repeats by temperature, and with the head."""
    fig, [[ax]] = plots.figure(1, 1, width=5)
    values = [[*seed["repeats"], seed["adaptive"]] for seed in seeds]
    colours = [plots.BLUE] * len(TEMPERATURES) + [plots.ORANGE]
    mean = draw_bars(ax, np.arange(len(colours)), values, color=colours, width=0.7)
    plots.name_ticks(ax, TEMPERATURES, "head")
    ax.set(xlabel="fixed temperature, or the head", ylabel="repeated 3-grams (%)", ylim=(0, None))
    ax.set_title(f"Repeats: {100 * mean[0]:.0f}% when greedy, {100 * mean[-1]:.1f}% with the head")
    return fig
