"""Figure 5 and Table 12: at token level, the head is cold where a sentence must begin with a letter, and warm elsewhere."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import best_constants, by_place_in_sentence, sentence_starts, two_temperatures
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.statistics import win_points

PAPER = "constrained stories, token level: mean temperature at the first token of a sentence and after it; win-rates"
TASK = "constrained_story"
PAPERS_WIN_RATES = (51.8, 59.7)  # the range over fixed temperatures


def measure(lab: Lab) -> Numbers:
    """The token-level head of the mixture on constrained stories, beside the best rule of two temperatures."""
    selection, test = lab.fixed("train", (TASK,)), lab.fixed("test", (TASK,))
    head, [task], starts = lab.head("token"), lab.tasks([TASK]), sentence_starts(lab.tokenizer)
    rollout, rewards = lab.adaptive(head, test)
    temperatures = list(lab.config.temperatures)
    rule = two_temperatures(lab.model, lab.tokenizer, task, temperatures, selection, test, starts, lab.seed)
    constant, _ = best_constants(selection)
    return {
        "temperatures": temperatures,
        "fixed": test.fixed_rewards.mean(0).tolist(),
        "best_constant": float(test.fixed_rewards[:, constant].mean()),
        "two_temperatures": rule,
        "reward": float(rewards.mean()),
        "win_rates": win_points(rewards[:, None], test.fixed_rewards).mean(0).tolist(),
        **by_place_in_sentence(rollout, starts),
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Where it is cold, where it is warm, and how far it gets towards the best rule."""
    rows = [
        Row("temperature at the first word", [seed["first_word_temperature"] for seed in seeds], "0.21"),
        Row("temperature after it", [seed["other_temperature"] for seed in seeds], "0.55"),
        Row("difference", [seed["other_temperature"] - seed["first_word_temperature"] for seed in seeds], "0.34"),
        Row("reward: best constant", [seed["best_constant"] for seed in seeds]),
        Row("reward: best two temperatures", [seed["two_temperatures"]["reward"] for seed in seeds]),
        Row("reward: head", [seed["reward"] for seed in seeds]),
        Row("share of the way to the two temperatures", [_way(seed) for seed in seeds]),
    ]
    rows += [
        Row(f"win-rate against t={t:g} (%)", [100 * seed["win_rates"][k] for seed in seeds])
        for k, t in enumerate(seeds[0]["temperatures"])
    ]
    gain = Row("head - best constant", [seed["reward"] - seed["best_constant"] for seed in seeds])
    agrees = rows[2].sign() > 0 and gain.sign() > 0
    sentence = (
        f"The direction agrees: colder by {rows[2].mean:.2f} at the first word of a sentence, and above the best constant."
        if agrees
        else "The direction doesn't agree beyond the interval over seeds."
    )
    return Finding([*rows, gain], agrees, sentence)


def _way(seed: Numbers) -> float:
    """How far the head gets from the best constant to the best rule of two temperatures; 1 is all the way."""
    gain, span = seed["reward"] - seed["best_constant"], seed["two_temperatures"]["reward"] - seed["best_constant"]
    return gain / span if span else float(gain >= 0)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Temperatures by place, and rewards."""
    fig, axes = plots.figure(1, 2, width=4.2)
    places = ["first_word_temperature", "other_temperature"]
    mean, half = mean_and_half([[seed[place] for place in places] for seed in seeds])
    axes[0, 0].bar([0, 1], mean, yerr=half, color=[plots.BLUE, plots.ORANGE], capsize=3, width=0.6)
    axes[0, 0].set_xticks([0, 1], ["first word\nof a sentence", "all others"])
    axes[0, 0].set(ylabel="mean chosen temperature", ylim=(0, 1))
    axes[0, 0].set_title(f"Cold at the first word: {mean[0]:.2f} against {mean[1]:.2f}")
    fixed, _ = mean_and_half([seed["fixed"] for seed in seeds])
    axes[0, 1].plot(seeds[0]["temperatures"], fixed, "o-", color=plots.BLUE, markersize=4, label="one temperature")
    lines = {
        "head": ([seed["reward"] for seed in seeds], plots.ORANGE, "-"),
        "two temperatures": ([seed["two_temperatures"]["reward"] for seed in seeds], plots.GREEN, "--"),
    }
    for label, (values, colour, style) in lines.items():
        axes[0, 1].axhline(float(np.mean(values)), color=colour, linestyle=style, label=label)
    axes[0, 1].legend(frameon=False, fontsize=8, loc="lower left")
    axes[0, 1].set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02))
    axes[0, 1].set_title("What no single temperature can do")
    return fig
