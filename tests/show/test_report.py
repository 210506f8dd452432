"""Table, figures, descriptions, examples and strips show the numbers of a run."""

import io
import re

import matplotlib.image
import pytest

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import SampledHead
from minilpo.show import plots
from minilpo.show.report import (
    conclusions,
    draw_figures,
    example_responses,
    figure_files,
    result_table,
    strips_of,
    verdict,
)
from tests.conftest import ending_early, seeded
from tests.evaluation.test_evaluation import Plain, measured, with_texts
from tests.show.conftest import LPO_LOG, PRETRAIN_LOG

# The table


def gain(estimate, low, high):
    return {"estimate": estimate, "ci95": [low, high]}


def task(fixed, adaptive, best, chosen, histogram):
    numbers = {"fixed": fixed, "adaptive": adaptive, "best_per_task": best, "best_per_kind": best}
    return {**numbers, "chosen_temperature": chosen, "histogram": histogram}


ANT = task([0.1, 0.2, 0.3], 0.4, 0.5, 0.6, [0.4, 0, 0.6])
PLACES = {"first_word_temperature": 0.12, "other_temperature": 0.87}
RULE = {"first": 0.0, "first_name": "0", "rest": 1.0, "rest_name": "1", "reward": 0.468}
ELEPHANT = task([0.11, 0.22, 0.33], 0.44, 0.55, 1.0, [0, 0, 1])
MEAN = {
    **{"fixed": [0.105, 0.21, 0.315], "adaptive": 0.42},
    **{"best_per_task": 0.525, "best_per_kind": 0.535},
    **{"gap_closed": 0.25, "gap_closed_ci95": [-0.125, 0.626]},
    "best_fixed": {"temperature": 0.5, "name": "0.5", "reward": 0.385},
    "gain_over_best_fixed": gain(0.035, -0.0125, 0.08251),
    "gain_over_best_per_task": gain(-0.105, -0.15, 0.05),
    "gain_over_best_per_kind": gain(-0.115, -0.16, -0.04),
}
ELSEWHERE = {"best_fixed": {"reward": 0.7}, "adaptive": 0.6}
BY_HAND = {  # numbers that are easy to find again
    "temperatures": [0.0, 0.5, 1.0],
    "choices": ["0", "0.5", "1"],
    "tasks": {"ant": ANT, "elephant": {**ELEPHANT, **PLACES, "two_temperatures": RULE}},
    "mean": MEAN,
    "controls": {
        "random_head": {"reward": 0.1234, "tasks": {"ant": 0.1, "elephant": 0.1}},
        "learned_constant": {"temperature": 1.0, "name": "1", "reward": 0.5678, "tasks": {}},
        "found_a_better_constant": gain(-0.1, -0.2, 0.0),
        "adapted_to_the_context": gain(0.135, 0.1, 0.2),
    },
    "ood": {"mean": {**ELSEWHERE, "gain_over_best_fixed": gain(-0.1, -0.15, -0.05)}},
}
TABLE = """\
mean reward    t=0  t=0.5    t=1   head  best per task  chosen t
ant          0.100  0.200  0.300  0.400          0.500      0.60
elephant     0.110  0.220  0.330  0.440          0.550      1.00
mean         0.105  0.210  0.315  0.420          0.525

It is undecided whether the head is better: it got 0.035 more reward than the best constant \
temperature, but the interval includes 0 (95% interval of the difference: -0.013 to +0.083).
The best constant, chosen on training prompts, is t=0.5: mean reward 0.385. The head gets 0.420.
The head closes 25% of the gap to the best per task (-12% to 63%). Against the best constant per \
task, 0.525, the head gains -0.105 (-0.150 to +0.050); against the best per kind of prompt, 0.535, \
-0.115 (-0.160 to -0.040).
Task by task, the head got more than the best constant in ant (+0.200), elephant (+0.220); \
not more in none.
Temperatures at random get 0.123. A head that sees nothing had the same training with an input \
of zeros: it could only learn a constant, t=1, and gets 0.568.
So the gain over the best constant has two parts: -0.100 (-0.200 to +0.000) for a better constant, \
+0.135 (+0.100 to +0.200) for adapting to the context.
elephant: first words at 0.12, the rest at 0.87; \
the best rule of two temperatures (0 and 1) gets 0.468.
New wordings or subjects: best constant 0.700, head 0.600. The head lost: it got 0.100 less \
reward than the best constant temperature (95% interval of the difference: -0.150 to -0.050)."""


def test_the_table_says_what_was_measured_and_what_it_comes_to():
    assert result_table(BY_HAND) == TABLE
    plain = {name: part for name, part in BY_HAND.items() if name not in ("controls", "ood")}
    said = result_table(plain | {"tasks": {"ant": ANT}})  # it leaves out the rest
    assert not re.search("at random|New wordings|elephant|collapsed", said)


def test_the_share_of_the_gap_that_was_closed_has_an_interval_or_a_reason_to_have_none():
    for closed, interval, says in (
        (0.98, [0.76, 1.12], "closes 98% of the gap to the best per task (76% to 112%)."),
        (-0.5, [-0.9, -0.1], "closes -50% of the gap to the best per task (-90% to -10%)."),
        (7.5, None, "closes 750% of the gap to the best per task, which may be 0: no interval"),
        (None, None, "The best per task isn't above the best constant: there is no gap to close."),
    ):
        mean = MEAN | {"gap_closed": closed, "gap_closed_ci95": interval}
        assert says in conclusions(BY_HAND | {"mean": mean})[2]


def test_the_verdict_is_won_or_lost_only_if_the_interval_is_on_one_side_of_0():
    for estimate, low, high, says in (
        (0.05, 0.04, 0.06, "The head won: it got 0.050 more reward"),
        (-0.05, -0.06, -0.04, "The head lost: it got 0.050 less reward"),
        (0.05, -0.01, 0.11, "undecided whether the head is better: it got 0.050 more"),
        (-0.05, -0.11, 0.01, "undecided whether the head is better: it got 0.050 less"),
        (0.0, -0.0004, 0.0, "difference: +0.000 to +0.000"),
    ):
        said = verdict(gain(estimate, low, high))
        assert says in said and f" to {high:+.3f}" in said
        assert ("won" in said, "lost" in said) == (low > 0, high < 0)


def test_a_task_where_the_head_got_less_and_a_head_that_collapsed_are_said():
    mixed = {"ant": ANT | {"adaptive": 0.1}, "bee": ANT}
    said = conclusions(BY_HAND | {"tasks": mixed})[3]
    assert said.endswith("in bee (+0.200); not more in ant (-0.100).")
    always = {name: {**task, "histogram": [0, 1, 0]} for name, task in BY_HAND["tasks"].items()}
    said = result_table(BY_HAND | {"tasks": always})
    assert "The head chose t=0.5 every single time: it collapsed" in said
    mixed = {**always, "ant": {**ANT, "histogram": [0.01, 0.99, 0]}}
    assert "collapsed" not in result_table(BY_HAND | {"tasks": mixed})


# Examples


def test_examples_show_the_first_prompts_of_each_task_with_the_head_and_both_ends():
    rewards, heads = [[0.125, 0.5, 0.25], [1, 0, 0.75], [0, 0, 0]], [0.625, 0.375, 1]
    three = Temperatures([0.0, 0.5, 1.0])
    drawn, is_word = [[0, 2], [1, 0], [2, 2]], [[True, True], [True, False], [True, True]]
    test = measured([Plain("cow"), Plain("ant")], [2, 1], rewards, heads, drawn, is_word)
    test.fixed.responses[:] = [f"fixed {i}" for i in range(9)]
    test.adaptive.responses[:] = ["one", "two", "three"]
    test = with_texts(test, ["Moo?", "Two\x1b[2J", "Three"])
    assert example_responses(test, three, 2).strip().split("\n\n") == [
        "[cow] Moo?\n  head, t=0.5 on average, reward 0.62: one\n"
        "  fixed t=0, reward 0.12: fixed 0\n  fixed t=1, reward 0.25: fixed 2",
        "[cow] Two\\x1b[2J\n  head, t=0.5, reward 0.38: two\n"
        "  fixed t=0, reward 1.00: fixed 3\n  fixed t=1, reward 0.75: fixed 5",
        "[ant] Three\n  head, t=1 on average, reward 1.00: three\n"
        "  fixed t=0, reward 0.00: fixed 6\n  fixed t=1, reward 0.00: fixed 8",
    ]
    assert example_responses(test, three, 1).count("[cow]") == 1


# Strips


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_strip_has_the_words_of_the_response_and_the_choice_that_wrote_each(lm, level):
    choices, lm = Temperatures([0.0, 0.2, 1.0]), ending_early(lm)
    head = AdaptiveDecoder(16, 3, level, n_hidden=8, generator=seeded(1)).double()
    prompts = ["Mia has 7 apples.", "Tell me a story of three sentences about a fox in the forest."]
    policy = SampledHead(head, choices)
    rollout = generate(lm, prompts, policy, seeded(0), n_samples=3, max_new_tokens=9)
    strips = strips_of(rollout, choices.names, lm)
    assert len(strips) == 6 and len({len(strip.pieces) for strip in strips}) > 2
    for row, strip in enumerate(strips):
        assert strip.prompt == prompts[row // 3] and strip.names == choices.names
        assert "".join(strip.pieces) == " " * bool(strip.pieces) + rollout.responses[row]
        chosen = rollout.decisions.choice_ids[row].tolist()
        chosen *= 9 if level == "sequence" else 1
        assert strip.choice_ids == chosen[: len(strip.pieces)]


# Figures


def test_the_figures_are_png_files_and_each_panel_has_a_sentence(drawn):
    names = ["reward_by_temperature.png", "win_rate.png", "chosen_temperatures.png", "training.png"]
    assert list(drawn.files) == [*names, "descriptions.txt"]
    assert all(drawn.files[name].startswith(b"\x89PNG\r\n\x1a\n") for name in names)
    assert [len(drawn.said[name]) for name in names] == [3, 1, 3, 4]
    texts = [[name, *drawn.said[name]] for name in names]
    assert drawn.files["descriptions.txt"].decode().split() == " ".join(sum(texts, [])).split()


def test_every_panel_is_cut_out_whole(drawn):
    picture = drawn.pictures[-1]
    pixels = matplotlib.image.imread(io.BytesIO(picture.png))
    parts = [matplotlib.image.imread(io.BytesIO(part)) for part in picture.panels]
    assert len(parts) == 4
    for part in parts:  # white all around: nothing was cut through
        edges = [part[0], part[-1], part[:, 0], part[:, -1]]
        assert all((edge == 1).all() for edge in edges)
    ink = [int((part[..., :3] < 1).any(-1).sum()) for part in parts]
    title = int((pixels[:40, :, :3] < 1).any(-1).sum())
    assert sum(ink) >= (pixels[..., :3] < 1).any(-1).sum() - title


def test_the_same_results_give_the_same_bytes(drawn, metrics):
    assert figure_files(draw_figures(metrics, PRETRAIN_LOG, LPO_LOG)) == drawn.files


def test_descriptions_mention_the_numbers(drawn, metrics):
    on_rewards, [on_wins], on_choices, on_training = drawn.said.values()
    rows = zip(metrics["tasks"].values(), on_rewards, on_choices, strict=True)
    for task, reward, choice in rows:
        heads = task["adaptive"], task["chosen_temperature"]
        for number in (max(task["fixed"]), min(task["fixed"]), *heads):
            assert f"{number:.2f}" in reward
        assert all(f"{100 * s:.0f}%" in choice for s in task["histogram"] if s >= 0.005)
    assert all(f"{100 * rate:.1f}%" in on_wins for rate in metrics["win_rate"].values())
    losses, scores = ((5.25, 2.25), (5.5, 2.5)), ((0.125, 0.625), (1.5, 0.875))
    for first, last in (*losses, *scores, (0.4625, 0.5875), (0.5125, 0.6375)):
        assert f"from {first:.3g} to {last:.3g}" in " ".join(on_training)


def test_panels_have_titles_named_axes_legends_and_begin_at_zero(drawn):
    for name, fig in drawn.figures.items():
        for ax in fig.axes:
            assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel()
            low, high = ax.get_ylim()
            may_be_close = name == "training.png" and ax.get_ylabel()[:4] in ("marg", "mean")
            assert low == 0 or may_be_close
            curves = [line for line in ax.lines if line.get_linestyle() != ":"]
            assert high >= max((max(line.get_ydata()) for line in curves), default=0)
    for name in ("reward_by_temperature.png", "training.png"):
        assert drawn.figures[name].axes[0].get_legend()


def test_the_heading_of_the_rewards_agrees_with_them(metrics, monkeypatch):
    monkeypatch.setattr(plots, "png", lambda fig: b"")
    monkeypatch.setattr(plots, "panels", lambda fig, whole: [])
    ant, bee = ANT | {"fixed": [0, 0, 1, 0]}, ANT | {"fixed": [0, 1, 0, 0]}
    for tasks, says in (((ant, bee), "No single temperature"), ((ant, ant), "One temperature")):
        of_tasks = {f"task {i}": task | {"histogram": [0, 0, 0, 1]} for i, task in enumerate(tasks)}
        [shown, *_] = draw_figures(metrics | {"tasks": of_tasks}, PRETRAIN_LOG, LPO_LOG)
        assert shown.title.startswith(says)


# One plot at a time


@pytest.fixture
def ax():
    return plots.figure(1, 1)[1][0, 0]


def test_the_curve_of_a_task_shows_its_rewards_and_the_heads_point(ax):
    given = [0.0, 0.5, 1.0], [0.5, 0.75, 0.25], 0.4, 0.8
    said = plots.reward_by_temperature(ax, "math", *given)
    fixed, head = ax.lines
    assert fixed.get_xydata().tolist() == [[0, 0.5], [0.5, 0.75], [1, 0.25]]
    assert head.get_xydata().tolist() == [[0.4, 0.8]]
    assert ax.get_title() == "math: best at 0.5"
    assert re.findall(r"\d\.?\d*", said) == ["0.5", "0.75", "1", "0.25", "0.80", "0.40"]


def test_rewards_of_choices_with_rules_are_bars_under_their_names_and_the_head_is_a_line(ax):
    given, names = ([0.0, 1.0, 1.0], [0.5, 0.75, 0.25], 0.4, 0.8), ["0", "1", "1, top-k 2"]
    said = plots.reward_by_temperature(ax, "math", *given, names)
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.75, 0.25]
    assert list(ax.lines[0].get_ydata()) == [0.8, 0.8]
    assert ax.get_xticklabels()[2].get_text() == "1\ntop-k 2"
    assert "lowest at 1, top-k 2 (0.25); the head gets 0.80." in said


def test_win_rates_are_bars_in_percent_with_their_intervals_and_a_line_at_even(ax):
    said = plots.win_rates(ax, ["0", "1"], [0.75, 0.5], [[0.625, 0.875], [0.375, 0.5625]])
    assert [bar.get_height() for bar in ax.patches] == [75, 50]
    spans = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == [[62.5, 87.5], [37.5, 56.25]]
    assert any(list(line.get_ydata()) == [50, 50] for line in ax.lines)
    assert ax.get_ylim() == (0, 100) and "1 of 2" in ax.get_title()
    assert "75.0%" in said and "50.0%" in said and "1 interval" in said


def test_the_histogram_shows_every_share_in_percent_and_says_which_were_chosen(ax):
    said = plots.choice_histogram(ax, "math", ["0", "0.5", "1"], [0.75, 0.25, 0.0], 0.125)
    assert [bar.get_height() for bar in ax.patches] == [75, 25, 0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.5", "1"]
    assert "75%" in said and "25%" in said and re.search(r"\b0%", said) is None


def test_a_curve_draws_each_line_with_its_own_colour_and_style(ax):
    plots.curve(ax, [1, 2], {"a": [3.0, 4.0], "b": [5.0, 6.0]}, "step", "loss", "Two lines")
    a, b = ax.lines
    assert (list(a.get_ydata()), list(b.get_ydata())) == ([3, 4], [5, 6])
    assert a.get_color() != b.get_color() and a.get_linestyle() != b.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
