"""Conclusions of the paper's experiments and the controls from given numbers: won, lost, open."""

import numpy as np
import pytest

from minilpo.experiments import (
    controls,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    table1,
    table3,
    table4,
    table5,
)
from minilpo.experiments.base import Row, compared, direction, over_seeds, text_table
from minilpo.experiments.figures import mean_and_half
from minilpo.experiments.lab import MIXTURE
from tests.experiments import around, five, named, titles

FEW = (0.0, 0.001, 0.002)
EVEN = (0.0, 0.001, 0.002, 0.003)  # as many up as down, by `around`


def test_an_interval_over_seeds_is_students_and_a_single_seed_has_none():
    row = Row("x", [1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * np.std([1, 2, 3, 4, 5], ddof=1) / 5**0.5
    assert row.mean == 3 and row.ci95 == pytest.approx([3 - half, 3 + half]) and row.sign() == 1
    assert Row("x", [1.0]).ci95 is None and Row("x", [1.0]).sign() == 0
    assert Row("x", [-1.0, 1.0]).sign() == 0 and Row("x", [-1.0, -1.1]).sign() == -1
    mean, half = mean_and_half([[[1.0, 5.0]], [[3.0, 5.0]]])
    assert mean.tolist() == [[2, 5]] and half[0, 0] == pytest.approx(12.706) and half[0, 1] == 0
    assert mean_and_half([[1.0, 2.0]])[1].tolist() == [0, 0]


def test_numbers_of_seeds_are_stacked_and_what_one_lacks_is_left_out():
    seeds = [{"a": {"x": [1, 2], "y": "b"}, "only": 1}, {"a": {"x": [3, 4], "y": "c"}}]
    found = over_seeds(seeds)
    assert list(found) == ["a"] and found["a"]["x"].tolist() == [[1, 2], [3, 4]]
    assert found["a"]["y"].tolist() == ["b", "c"]
    assert over_seeds([[["p", [1]]], [["q", [1, 2]]]])[0] == [["p", [1]]]


def test_what_is_said_of_a_difference_is_on_which_side_of_zero_its_interval_lies():
    up, down, open_ = Row("a", [0.1, 0.11]), Row("b", [-0.1, -0.11]), Row("c", [-0.1, 0.1])
    told = [row.told("above", "below", "open") for row in (up, down, open_, Row("d", [0.1]))]
    assert told == ["above", "below", "open", "open"]  # a single seed says nothing
    rows = {"A": up, "B": down, "C": open_, "D": down}
    assert compared(rows) == "above A, below B and D, not clearly different from C"
    assert compared({"A": up}, "{} wins", "{} loses", "{} is open") == "A wins"
    assert down.text(3) == f"-0.105 ± {12.706 * 0.005:.3f}" and Row("d", [0.1]).text(1) == "+0.1"
    assert direction(True, "x.") == "The direction agrees: x."
    assert "does not agree" in direction(False, "x.")


# Numbers of a seed, by experiment; a little `noise` tells the seeds apart
LOW_HIGH = {"temperatures": [0.0, 1.0]}


def of_fig3(noise, token=0.9, wins=0.6):
    level = {"tasks": {}, "learned_constant": 0.7 + noise, "random_head": 0.6}
    level["win_rates"] = [wins + noise] * 2
    rewards = {"sequence": 0.82 + noise, "token": token + noise}
    levels = {name: level | {"reward": reward} for name, reward in rewards.items()}
    return LOW_HIGH | {"best_constant": 0.75, "oracle": 0.8} | levels


def of_fig4(noise, math=0.0, instruct=0.5, constrained=0.9):
    warm = {"math": math, "instruct": instruct + noise, "story": 1}
    warm["constrained_story"] = constrained
    shares = {name: [1 - share, share] for name, share in warm.items()}
    return LOW_HIGH | {"shares": shares, "one_right_answer": 0.1, "open": 0.9}


def of_fig5(noise, first=0.1, reward=0.86, win=0.6, two=0.9):
    rewards = {"fixed": [0.4, 0.6], "best_constant": 0.6, "reward": reward + noise}
    rewards |= {"two_temperatures": {"first": 0.0, "rest": 1.0, "reward": two}}
    places = {"first_word_temperature": first, "other_temperature": 0.6 + noise}
    return LOW_HIGH | rewards | places | {"win_rates": [0.7, win + noise]}


def of_fig6(noise, first=0.1):
    places = {"first_word_temperature": first + noise, "other_temperature": 0.6}
    return {name: places | {"strips": []} for name in MIXTURE}


def of_fig7(noise, chosen=(0.3, 0.7), rejected=(0.1, 0.9)):
    chosen = [chosen[0] - noise, chosen[1] + noise]
    kinds = {"chosen": chosen, "rejected": list(rejected)}
    return LOW_HIGH | {kind: dict.fromkeys(MIXTURE, shares) for kind, shares in kinds.items()}


def of_table1(noise, adaptive=0.05, reward=0.8):
    repeats = {"repeats": [0.4, 0.3, 0.2, 0.1, 0.04], "adaptive": adaptive + noise}
    repeats |= {"not_greedy": 0.9, "learned_constant": 0.04}
    rewards = {"fixed_rewards": [0.2, 0.3, 0.5, 0.6, 0.7], "reward": reward + noise}
    return repeats | rewards | {"learned_constant_reward": 0.7}


def of_table3(noise, vote=0.9, single=0.6, greedy=0.1, test=None, loses_on=None):
    rates = {"vote": [greedy, 0.5, 0.8, 0.7, 0.6], "single": [greedy, 0.1, 0.2, 0.55, 0.3]}
    heads = {name: {"vote": vote + noise, "single": single} for name in table3.CHOICES}
    of_task = {"train": rates, "test": test or rates, "best": 3, **heads}
    lost = {"adaptive": {"vote": 0.7, "single": 0.6}}
    return {task: of_task | (lost if task == loses_on else {}) for task in table3.HEADS}


def of_table4(noise, greedy=0.8, sampled=0.7, eq11=0.95, cold=0.95, copied="nll"):
    numbers = LOW_HIGH | {"fixed": [cold, 0.5]}
    for loss in table4.LOSSES:
        right = {"greedy": {"eq11": eq11}.get(loss, 0.95) + noise, "sampled": 0.93 + noise}
        if loss == "nll":
            right = {"greedy": greedy, "sampled": sampled}
        learned = [0.6, 0.4] if loss == copied else [0.9 + noise, 0.1 - noise]
        numbers[loss] = right | {"probabilities": learned, "chosen_share": [0.6, 0.4]}
    return numbers


def of_table5(noise, sampled=0.85):
    names = [f"{level}, {choice}" for level in table5.LEVELS for choice in table5.CHOICES]
    rewards = dict.fromkeys(names, 0.85 + noise * (-1) ** round(1000 * noise))
    return rewards | {"token, sample": sampled, "best constant": 0.75}


def of_controls(noise, coin=0.5, wish=0.5):
    numbers, noise = dict(LOW_HIGH), noise * (-1) ** round(1000 * noise)
    for name, reward in zip(controls.TASKS, (coin, wish), strict=True):
        rewards = {"best_constant": 0.5, "reward": reward + noise, "fixed": [0.5, 0.4]}
        numbers[name] = rewards | {"best_temperature": 0.0, "chosen_temperature": 0.9}
    return numbers


def open_about(make, noises, **values):
    """Seeds whose values are as often well above as below those given."""
    seeds = [make(0.0, **{k: around(v, n) for k, v in values.items()}) for n in noises]
    return over_seeds(seeds)


# Claim, experiment, seeds, whether it agrees, and parts of the sentence; "!" before one that mustn't
# be there
COLD, NEITHER = "that of greedy", "neither clearly gains nor loses"
# fmt: off
CASES = [
    ("fig3: every win-rate above even, token level better", fig3, five(of_fig3), True,
     "4 of 4 intervals are above 50%, 0 below", "But the paper's token level", "+0.080"),
    ("fig3: win-rates below even, token level worse", fig3, five(of_fig3, token=0.8, wins=0.4), False,
     "0 of 4 intervals are above 50%, 4 below", "As in the paper, the token level gains less"),
    ("fig3: open", fig3, open_about(of_fig3, EVEN, token=0.82, wins=0.5), False,
     "0 of 4 intervals are above 50%, 0 below", "don't clearly differ", "!As in the paper"),
    ("fig4: in order and widest", fig4, five(of_fig4), True, "instruct is above math",
     "the spread of instruct is above math, story and constrained_story"),
    ("fig4: math warmer", fig4, five(of_fig4, math=0.9), False, "instruct is below math"),
    ("fig4: not the widest", fig4, five(of_fig4, instruct=0.02), False,
     "the spread of instruct is above math and story, below"),
    ("fig4: widest on average, but not beyond the interval", fig4, over_seeds([of_fig4(0.0, constrained=share) for share in (0.5, 0.9, 0.5, 0.9, 0.5)]), False,
     "not clearly different from constrained_story"),
    ("fig5: colder, above, all win-rates", fig5, five(of_fig5), True, "colder at the first word",
     "above the best constant", "2 of 2 win-rates"),
    ("fig5: warmer, but above", fig5, five(of_fig5, first=0.7), False, "warmer at the first word",
     "above the best constant"),
    ("fig5: colder, but below", fig5, five(of_fig5, reward=0.5, win=0.3), False,
     "colder at the first word", "below the best constant", "1 of 2 win-rates"),
    ("fig5: one win-rate is low", fig5, five(of_fig5, win=0.3), False),
    ("fig5: open", fig5, open_about(of_fig5, FEW, reward=0.6), False,
     "not clearly different from the best constant"),
    ("fig6: colder", fig6, five(of_fig6), True, "is colder than the rest"),
    ("fig6: warmer", fig6, five(of_fig6, first=0.8), False, "is warmer than the rest (-0.20"),
    ("fig6: open", fig6, open_about(of_fig6, FEW, first=0.6), False,
     "not clearly different from the rest"),
    ("fig7: count and odds differ", fig7, five(of_fig7), True, "points to another temperature",
     MIXTURE[0]),
    ("fig7: warm chosen less often", fig7, five(of_fig7, chosen=(0.6, 0.4)), False,
     "less often than the lowest in math, "),
    ("fig7: count and odds point to the same", fig7, five(of_fig7, rejected=(0.9, 0.1)), True,
     "don't clearly point to different temperatures"),
    ("fig7: open", fig7, over_seeds([of_fig7(0.0, (0.5 - x, 0.5 + x)) for x in (0.1, -0.1, 0.1, -0.1)]), False,
     "not clearly more or less often"),
    ("table1: fewer repeats than greedy, more than the warmest", table1, five(of_table1), True,
     f"below {COLD}", "above that of the warmest temperature",
     "it is above a learned constant (+0.102"),
    ("table1: fewer than the warmest too, at a lower reward", table1, five(of_table1, adaptive=0.01, reward=0.5), True,
     "below that of the warmest temperature", "it is below a learned constant"),
    ("table1: more repeats", table1, five(of_table1, adaptive=0.5), False, f"above {COLD}"),
    ("table1: open", table1, open_about(of_table1, FEW, adaptive=0.4, reward=0.7), False,
     f"not clearly different from {COLD}", "it is not clearly different from a learned constant"),
    ("table3: gains by single answers and by voting", table3, five(of_table3), True,
     "+5.0 ± 0.0 by its single answers (better)", "(more)", "above the own single answer (+30.2"),
    ("table3: all of the gain is a better single answer", table3, five(of_table3, vote=0.75, single=0.752), True,
     "above the best fixed one", "(less)"),
    ("table3: loses", table3, five(of_table3, vote=0.5, single=0.4), False, "does not agree",
     "below the best fixed one", "by its single answers (worse)"),
    ("table3: above greedy isn't enough", table3, five(of_table3, vote=0.65), False),
    ("table3: greedy isn't the best single answer", table3, five(of_table3), True,
     "On math greedy is not the best single answer"),
    ("table3: greedy is the best single answer", table3, five(of_table3, greedy=0.8), True,
     "On math greedy is the best single answer"),
    ("table3: greedy, open", table3, open_about(of_table3, EVEN, greedy=0.55), True,
     "greedy is not clearly the best"),
    ("table4: the NLL is below", table4, five(of_table4), True,
     "by greedy choice the NLL is below Eq. 10 and Eq. 11 ("),
    ("table4: the NLL is above one, sizes in the same order", table4, five(of_table4, eq11=0.7), False,
     "greedy choice the NLL is above Eq. 11, below Eq. 10 (+9.8 ± 0.2, -15.2 ± 0.2 points)"),
    ("table4: open about one", table4, over_seeds([of_table4(0.0, eq11=around(0.8, n)) for n in FEW]), False,
     "the NLL is below Eq. 10, not clearly different from Eq. 11"),
    ("table4: the sampled choice isn't the greedy one", table4, five(of_table4, greedy=0.96), False,
     "by greedy choice the NLL is above Eq. 10",
     "by sampled choice the NLL is below Eq. 10 and Eq. 11"),
    ("table4: the others don't find the coldest", table4, five(of_table4, cold=0.99), False,
     "fixed t=0 is above Eq. 10 and Eq. 11"),
    ("table5: both ways gain alike", table5, five(of_table5), True,
     "token-level sample choice above the best constant",
     "At sequence level greedy choice does not clearly differ from sampled",
     "At token level greedy choice does not clearly differ from sampled"),
    ("table5: greedy is better", table5, five(of_table5, sampled=0.8), False,
     "At token level greedy choice is better than sampled (+0.05"),
    ("table5: greedy is worse", table5, five(of_table5, sampled=0.9), False,
     "greedy choice is worse than sampled (-0.05"),
    ("table5: one way loses", table5, five(of_table5, sampled=0.7), False,
     "token-level sample choice below the best constant"),
    ("table5: open", table5, over_seeds([of_table5(n, sampled=around(0.75, n)) for n in EVEN]), False,
     "token-level sample choice not clearly different from the best constant"),
    ("controls: nothing gained", controls, five(of_controls), True,
     f"coin_flip the head {NEITHER}", "!don't trust", f"hidden_wish the head {NEITHER}",
     "nothing clearly was"),
    ("controls: lost where the wish is hidden, which may be", controls, five(of_controls, wish=0.45), True,
     "On hidden_wish the head loses (-0.05", "LPO doesn't maximise the mean reward",
     "On coin_flip the head neither", "!nothing clearly was"),
    ("controls: a coin gains", controls, five(of_controls, coin=0.6), False, "don't trust"),
    ("controls: a hidden wish gains", controls, five(of_controls, wish=0.6), False, "don't trust"),
    ("controls: a coin loses", controls, five(of_controls, coin=0.4), False, "don't trust"),
    ("controls: a single seed says nothing", controls, five(of_controls, (0.0,), wish=0.2), False,
     f"coin_flip the head {NEITHER}", f"hidden_wish the head {NEITHER}"),
]
# fmt: on
for lost_on in table3.HEADS:
    said = "above the best fixed one (+20.2", "not clearly different from the best fixed one (+0.0"
    claim = f"table3: one head alone does not gain, on {lost_on}"
    CASES.append((claim, table3, five(of_table3, loses_on=lost_on), False, *said))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_sentence_says_what_the_numbers_say(case):
    _, module, found, agrees, *said = case
    finding = module.conclude(found)
    assert finding.agrees == agrees
    for part in said:
        assert (part.removeprefix("!") in finding.sentence) == (not part.startswith("!")), part


LUCKY = {"vote": [0.5] * 5, "single": [0.8, 0.1, 0.95, 0.55, 0.3]}
GREEDY_LEAD = "math: single answer, greedy - best other (points)"


@pytest.mark.parametrize(
    "module, found, label, mean",
    [
        (fig3, five(of_fig3), "token - best per task", 0.102),
        (fig3, five(of_fig3), "token - sequence", 0.08),
        (fig3, five(of_fig3), "token: found a better constant", -0.048),
        (fig3, five(of_fig3), "token: adapted to the context", 0.2),
        (fig3, five(of_fig3), "token - best constant", 0.152),  # the sum of both
        (fig5, five(of_fig5), "share of the way to the two temperatures", 0.262 / 0.3),
        (fig5, five(of_fig5, reward=0.4, two=0.5), "share of the way to the two temperatures", 0),
        (fig7, five(of_fig7), "math: chosen most often", 1),
        (fig7, five(of_fig7), "math: most often chosen for once rejected", 0),
        # The fixed temperature that was best on training prompts.
        (table3, five(of_table3), "math_paths: vote at the best fixed (%)", 70),
        (table3, five(of_table3), "math_paths: vote, adaptive - best fixed (points)", 20.2),
        # Of single answers too, not the one that is lucky on the test.
        (table3, five(of_table3, greedy=0.8, test=LUCKY), GREEDY_LEAD, 25),
    ],
)
def test_the_table_has_the_differences(module, found, label, mean):
    assert named(module.conclude(found))[label].mean == pytest.approx(mean)


@pytest.mark.parametrize("found", [five(of_table3), five(of_table3, vote=0.65, single=0.63)])
def test_table3_splits_the_gain_of_a_vote_into_a_better_single_answer_and_what_voting_adds(found):
    rows = named(table3.conclude(found))
    parts = " (points)", ": by the single answer", ": by voting"
    for label in ("math_paths: vote, adaptive with 1.2", "math: vote, adaptive"):
        whole, single, voting = (rows[f"{label} - best fixed{part}"].mean for part in parts)
        assert single + voting == pytest.approx(whole)


@pytest.mark.parametrize(
    "module, found, expected",
    [
        (fig5, five(of_fig5), ["Colder at the first word: 0.10", "is above 2 of 2"]),
        (fig5, five(of_fig5, first=0.7, reward=0.5), ["Warmer at the", "is above 1 of 2"]),
        (fig5, five(of_fig5, (0.0,)), ["Neither clearly colder nor warmer", "is above 0 of 2"]),
        (table4, five(of_table4), ["", "the NLL copies what was chosen more"]),
        (table4, five(of_table4, copied="eq10"), ["", "Eq. 10 copies what was chosen more"]),
        (table4, five(of_table4, copied="none"), ["", "about as far"]),
        (
            *(controls, five(of_controls, wish=0.45)),
            [f"coin_flip: the head {NEITHER}", "hidden_wish: the head loses (-0.05"],
        ),
    ],
)
def test_the_titles_of_the_figure_say_the_same(module, found, expected):
    for title, part in zip(titles(module, found), expected, strict=True):
        assert part in title


def test_a_table_of_one_seed_says_so():
    finding = table5.conclude(five(of_table5, (0.0,)))
    assert text_table("table5", "", finding).count("one seed") == len(finding.rows)
