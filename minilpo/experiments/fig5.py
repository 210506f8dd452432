"""Figure 5 and Table 12: the token-level head is cold where a letter is asked for, else warm."""

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.measure import TwoTemperatures
from minilpo.evaluation.statistics import win_points
from minilpo.evaluation.summary import by_place_in_sentence
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, percent_at
from minilpo.experiments.figures import draw_bars, draw_line
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "constrained stories, token level: "
    "mean temperature at the first token of a sentence and after it; win-rates"
)
TASK = "constrained_story"
PLACE = "colder", "warmer", "neither clearly colder nor warmer"  # for `Row.told`


def measure(lab: Lab) -> Numbers:
    """Measures the mixture's token-level head on constrained stories, and the best two fixed."""
    selection, test = lab.fixed("train", (TASK,)), lab.fixed("test", (TASK,))
    choices = Temperatures(lab.config.temperatures)
    rollout, rewards = lab.adaptive(lab.head("token").greedy, test)
    return {
        "temperatures": list(choices.temperatures),
        **lab.rewards_at(TASK),
        "two_temperatures": TwoTemperatures(lab.lm, choices, selection, test, lab.seed).search(),
        "reward": float(rewards.mean()),
        "win_rates": win_points(rewards[:, None], test.fixed_rewards).mean(0).tolist(),
        **by_place_in_sentence(rollout, choices.temperatures, lab.lm.sentence_starts),
    }


def conclude(found: Numbers) -> Finding:
    """Says where the head is cold, where it is warm, and how near it comes to the best rule."""
    first, other = found["first_word_temperature"], found["other_temperature"]
    constant, head = found["best_constant"], found["reward"]
    two = found["two_temperatures"]["reward"]
    # The share of the way from the best constant to the two temperatures, where that is upwards.
    way = [
        gain / span if span > 0 else float(gain >= 0)
        for gain, span in zip(head - constant, two - constant, strict=True)
    ]
    warmer, gain = (
        Row("difference", other - first, "0.34"),
        Row("head - best constant", head - constant),
    )
    rows = [
        Row("temperature at the first word", first, "0.21"),
        Row("temperature after it", other, "0.55"),
        warmer,
        Row("reward: best constant", constant),
        Row("reward: best two temperatures", two),
        Row("reward: head", head),
        Row("share of the way to the two temperatures", way),
    ]
    win_rates = percent_at("win-rate against", found["temperatures"][0], found["win_rates"])
    wins = sum(row.sign(50) > 0 for row in win_rates)
    agrees = warmer.sign() > 0 and gain.sign() > 0 and wins == len(win_rates)
    how = (
        f"{warmer.told(*PLACE)} at the first word of a sentence than after it ({warmer.text(2)}); "
        f"in reward {compared({'the best constant': gain})} ({gain.text()}); "
        f"{wins} of {len(win_rates)} win-rates are above 50%, beyond their intervals."
    )
    return Finding([*rows, *win_rates, gain], agrees, direction(agrees, how))


def draw(found: Numbers) -> plots.Figure:
    """Draws temperatures by place, and rewards."""
    fig, [[left, right]] = plots.figure(1, 2, width=4.2)
    places = np.stack([found["first_word_temperature"], found["other_temperature"]], 1)  # (S, 2)
    names, colours = ["first word\nof a sentence", "all others"], [[plots.BLUE, plots.ORANGE]]
    [(first, other)] = draw_bars(left, names, {"": places}, colours, scale=1)
    where = Row("", places[:, 1] - places[:, 0]).told(*PLACE).capitalize()
    title = f"{where} at the first word:\n{first:.2f} against {other:.2f}"
    left.set(ylabel="mean chosen temperature", ylim=(0, 1), title=title)

    temperatures, fixed, head = found["temperatures"][0], found["fixed"], found["reward"]
    draw_line(right, temperatures, fixed, color=plots.BLUE, label="one temperature")
    right.axhline(head.mean(), color=plots.ORANGE, label="head")
    two = found["two_temperatures"]["reward"].mean()
    right.axhline(two, color=plots.GREEN, linestyle="--", label="two temperatures")
    plots.legend(right, loc="lower left")
    above = sum(Row("", head - of_one).sign() > 0 for of_one in fixed.T)
    title = f"The head is above {above} of {len(temperatures)}\nsingle temperatures"
    right.set(xlabel="fixed temperature", ylabel="mean reward", ylim=(0, 1.02), title=title)
    return fig
