"""Figure 5 and Table 12: the token-level head is cold where a letter is asked for, else warm."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.evaluation.measure import TwoTemperatures
from minilpo.evaluation.statistics import win_points
from minilpo.evaluation.summary import by_place_in_sentence
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    direction,
    draw_bars,
    percent_at,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "constrained stories, token level: "
    "mean temperature at the first token of a sentence and after it; win-rates"
)
TASK = "constrained_story"


def measure(lab: Lab) -> Numbers:
    """The mixture's token-level head on constrained stories, beside the best two temperatures."""
    selection, test = lab.fixed("train", (TASK,)), lab.fixed("test", (TASK,))
    head, temperatures = lab.head("token"), lab.config.temperatures
    rollout, rewards = lab.adaptive(head.greedy, test)
    search = TwoTemperatures(lab.lm, head.choices, selection, test, lab.seed)
    return {
        "temperatures": list(temperatures),
        "fixed": test.fixed_rewards.mean(0).tolist(),
        "best_constant": float(lab.constant_rewards((TASK,)).mean()),
        "two_temperatures": search.search(),
        "reward": float(rewards.mean()),
        "win_rates": win_points(rewards[:, None], test.fixed_rewards).mean(0).tolist(),
        **by_place_in_sentence(rollout, temperatures, lab.lm.sentence_starts),
    }


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Where it is cold, where it is warm, and how far it gets towards the best rule."""
    first, other = values_of(seeds, "first_word_temperature"), values_of(seeds, "other_temperature")
    constant, head = values_of(seeds, "best_constant"), values_of(seeds, "reward")
    warmer = Row("difference", other - first, "0.34")
    gain = Row("head - best constant", head - constant)
    rows = [
        Row("temperature at the first word", first, "0.21"),
        Row("temperature after it", other, "0.55"),
        warmer,
        Row("reward: best constant", constant),
        Row("reward: best two temperatures", values_of(seeds, "two_temperatures", "reward")),
        Row("reward: head", head),
        Row("share of the way to the two temperatures", [_way(seed) for seed in seeds]),
    ]
    shares = values_of(seeds, "win_rates")
    win_rates = percent_at("win-rate against", seeds[0]["temperatures"], shares)
    wins = sum(row.sign(50) > 0 for row in win_rates)
    agrees = warmer.sign() > 0 and gain.sign() > 0 and wins == len(win_rates)
    how = (
        f"{_place(warmer)} at the first word of a sentence than after it ({warmer.text(2)}); "
        f"in reward {compared({'the best constant': gain})} ({gain.text()}); "
        f"{wins} of {len(win_rates)} win-rates are above 50%, beyond their intervals."
    )
    return Finding([*rows, *win_rates, gain], agrees, direction(agrees, how))


def _place(warmer: Row) -> str:
    return warmer.told("colder", "warmer", "neither clearly colder nor warmer")


def _way(seed: Numbers) -> float:
    """How far the head gets from the best constant to the best two temperatures; 1 is all."""
    gain = seed["reward"] - seed["best_constant"]
    span = seed["two_temperatures"]["reward"] - seed["best_constant"]
    return gain / span if span > 0 else float(gain >= 0)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Temperatures by place, and rewards."""
    fig, [[left, right]] = plots.figure(1, 2, width=4.2)
    keys = "first_word_temperature", "other_temperature"
    places = np.stack([values_of(seeds, key) for key in keys], 1)  # (seeds, 2)
    colours = [plots.BLUE, plots.ORANGE]
    first, other = draw_bars(left, [0, 1], places, scale=1, color=colours, width=0.6)
    left.set_xticks([0, 1], ["first word\nof a sentence", "all others"])
    left.set(ylabel="mean chosen temperature", ylim=(0, 1))
    where = _place(Row("difference", places[:, 1] - places[:, 0])).capitalize()
    left.set_title(f"{where} at the first word:\n{first:.2f} against {other:.2f}")

    temperatures, fixed = seeds[0]["temperatures"], values_of(seeds, "fixed")  # (seeds, K)
    head = values_of(seeds, "reward")
    options = {"color": plots.BLUE, "markersize": 4, "label": "one temperature"}
    right.plot(temperatures, fixed.mean(0), "o-", **options)
    right.axhline(head.mean(), color=plots.ORANGE, label="head")
    two = values_of(seeds, "two_temperatures", "reward").mean()
    right.axhline(two, color=plots.GREEN, linestyle="--", label="two temperatures")
    plots.legend(right, loc="lower left")
    right.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02))
    above = sum(Row("", head - of_one).sign() > 0 for of_one in fixed.T)
    right.set_title(f"The head is above {above} of {len(temperatures)}\nsingle temperatures")
    return fig
