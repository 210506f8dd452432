"""`report.html`: everything is on it, nothing on it is a command, and it says what the numbers say."""

import copy
import dataclasses
import re

import pytest

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import RULES, LPOConfig, RunConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import SampledHead
from minilpo.evaluation.summary import controls, summarize
from minilpo.show import document
from minilpo.show.document import Html, figure, fill, table
from minilpo.show.page import (
    MEASURED,
    SECTIONS,
    Shown,
    best_and_worst,
    chosen_responses,
    run_page,
    settings,
)
from minilpo.show.report import Picture, conclusions, draw_figures, verdict
from minilpo.show.strip import Strip
from tests.conftest import CHOICES, TEMPERATURES, seeded
from tests.evaluation.test_evaluation import (
    FOUR_TEMPERATURES,
    measured,
    random_measured,
    with_texts,
)
from tests.show.test_report import LPO_LOG, PRETRAIN_LOG
from tests.show.test_strip import NASTY, Reader

LOG = [{**entry, "pairs": 7, "dropped_prompts": 2} for entry in LPO_LOG]
SECONDS = {"pretrain": 11.0, "rollout": 22.0, "lpo": 33.0, "evaluate": 44.0, "total": 110.0}


FOUR_NAMES = Temperatures(FOUR_TEMPERATURES).names


def words(text, k=1, prompt="Speak!"):
    """A strip, all of it at temperature k."""
    pieces = [f" {word}" for word in text.split()]
    return Strip(prompt, pieces, [k] * len(pieces), FOUR_NAMES)


def png(width, height):
    """The beginning of a picture's file, which has its size."""
    sizes = [size.to_bytes(4, "big") for size in (width, height)]
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"".join(sizes)


PICTURE = Picture("a.png", "A title", b"", [png(750, 300)], ["A sentence."], "A caption.")


def results(metrics, best=(), worst=(), first=(), log=LOG, pictures=(PICTURE,), **config):
    """What a page is made from, as `run_page` takes it."""
    config = RunConfig(temperatures=tuple(FOUR_TEMPERATURES), **config)
    responses = list(first), list(best), list(worst)
    return {
        **{"config": config, "metrics": metrics, "pretrain_log": PRETRAIN_LOG, "lpo_log": log},
        **{"pictures": list(pictures), "responses": responses},
    }


@pytest.fixture(scope="module")
def metrics():
    selection, test = random_measured(0), random_measured(1)
    found = summarize(selection, test, Temperatures(FOUR_TEMPERATURES), 200, 0)
    other = summarize(selection, random_measured(2), Temperatures(FOUR_TEMPERATURES), 200, 0)
    parts = controls(found["mean"], test, Temperatures(FOUR_TEMPERATURES), 2, 200, 0)
    found |= {"temperatures": FOUR_TEMPERATURES, "controls": parts, "ood": other}
    return found | {"seconds": SECONDS}


@pytest.fixture(scope="module")
def whole(metrics):
    pictures = draw_figures(metrics, PRETRAIN_LOG, LOG)
    best = [Shown("cow", 1.0, words(f"best {i}")) for i in range(3)]
    worst = [Shown("ant", i / 8, words(f"worst {i}")) for i in range(3)]
    first = [Shown("bee", 0.5, words(f"first {i}")) for i in range(3)]
    return results(metrics, best, worst, first, pictures=pictures)


# What is on the page


def test_the_page_has_all_its_chapters_and_a_link_to_each(whole):
    read = Reader(run_page(**whole))
    names = [attributes["id"] for attributes in read.all("h2") if "id" in attributes]
    assert [attributes["href"] for attributes in read.all("a")] == [f"#{name}" for name in names]
    assert len(names) == 6 and read.tags.count("h1") == 1


def test_verdict_curves_three_responses_and_the_table_come_first_in_this_order(whole):
    page = run_page(**whole)
    parts = ['class="verdict"', "<img ", "first 2", "<table", "<nav ", "best 0", "--seed"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert page.index("</figure>") < page.index("first 0") and page.count("first ") >= 3


def test_a_chapter_without_numbers_says_so(metrics):
    some = {name: part for name, part in metrics.items() if name not in ("controls", "ood")}
    text = Reader(run_page(**results(some))).text
    assert "sees nothing" not in re.sub("and with a head that sees nothing;", "", text)
    assert "No task of this run has other prompts" in text


def test_the_table_has_every_number_under_its_task_and_the_best_fixed_ones_are_bold(metrics):
    page = run_page(**results(metrics))
    [block, *_] = re.findall(r"<table.*?</table>", page, re.DOTALL)
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", block)]
    text = [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]
    columns = dict(zip(text[0][1:], zip(*(row[1:] for row in text[1:]), strict=True), strict=True))
    assert list(columns) == [*metrics["tasks"], "mean"]
    for name, column in [*metrics["tasks"].items(), ("mean", metrics["mean"])]:
        expected = [*column["fixed"], column["adaptive"]]
        assert list(columns[name][:5]) == [f"{reward:.3f}" for reward in expected]
        assert columns[name][6] == f"{column['best_per_task']:.3f}"
        assert columns[name][7] == f"{column['best_per_kind']:.3f}"
    for row, control in ((8, "random_head"), (9, "learned_constant")):
        found = metrics["controls"][control]
        expected = [*found["tasks"].values(), found["reward"]]
        assert text[row + 1][1:] == [f"{reward:.3f}" for reward in expected]
    bold = [[column for column, cell in enumerate(row) if "<b>" in cell] for row in rows[1:5]]
    for place, column in enumerate([*metrics["tasks"].values(), metrics["mean"]], 1):
        best = column["fixed"].index(max(column["fixed"]))
        assert [place in row for row in bold] == [k == best for k in range(4)]


def test_every_table_has_a_caption_and_every_cell_of_it_headings(whole):
    page = run_page(**whole)
    blocks = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(blocks) == page.count("<table") >= 8
    for block in blocks:
        assert re.search(r"^<table[^>]*><caption><span>\w", block)
        head, *rows = re.findall(r"<tr>.*?</tr>", block)
        assert head.count("<th") == head.count('<th scope="col"') and "<td" not in head
        assert all(row.count('<th scope="row"') == row.count("<th") == 1 for row in rows)
        assert {row.count("<t") for row in [head, *rows]} == {head.count("<t")}
        assert "<th></th>" not in re.sub('<th scope="..."', "<th", block)


def test_the_page_says_what_the_terminal_says(whole):
    text = Reader(run_page(**whole)).text
    assert all(line in text for line in conclusions(whole["metrics"]))
    assert verdict(whole["metrics"]["ood"]["mean"]["gain_over_best_fixed"]) in text


def test_the_steps_are_told_with_the_runs_own_numbers(metrics):
    text = Reader(run_page(**results(metrics, level="token"))).text
    assert "from 5.50 nats per token after 0 steps to 2.50 after 300" in text
    assert "before every word" in text and "21 pairs in all; 6 prompts gave none" in text
    assert "0.512, 0.575, 0.637; the head of round 3 was kept" in text
    assert "zebra, cow, ant" in text and "512 test prompts per task" in text


@pytest.mark.parametrize("rule", RULES)
def test_the_page_names_the_rule_that_the_head_learned_by(metrics, rule):
    text = Reader(run_page(**results(metrics, lpo=LPOConfig(rule=rule)))).text
    names = {"lpo": "Latent Preference Optimization (LPO)", "reinforce": "REINFORCE"}
    names |= {"grpo": "GRPO (Group Relative", "regression": "predicting rewards"}
    assert [name for name in RULES if f"head was trained by {names[name]}" in text] == [rule]
    assert ("21 pairs in all" in text) == (rule == "lpo")
    said = "Nothing was learned from 6 prompts with equal rewards." in text
    assert said == (rule in ("reinforce", "grpo"))


def test_the_head_that_is_said_to_be_kept_is_that_of_the_best_round(metrics):
    log = copy.deepcopy(LOG)
    log[0]["validation_reward"] = 0.9
    text = Reader(run_page(**results(metrics, log=log))).text
    assert "the head of round 1 was kept" in text


def test_every_setting_is_there_with_its_value_and_its_meaning():
    config = RunConfig(temperatures=(0.25, 0.75), digests={"tokenizer.json": "abc123"}, threads=3)
    text = Reader(settings(config)).text
    sections = [config, *[getattr(config, name) for name in SECTIONS]]
    fields = [field for section in sections for field in dataclasses.fields(section)]
    shown = [field for field in fields if field.name not in SECTIONS]
    for field in shown:
        meaning = field.metadata.get("help") or MEASURED[field.name]
        flag = f"--{field.name.replace('_', '-')}" if "help" in field.metadata else field.name
        assert flag in text and meaning in text
    assert "0.25, 0.75" in text and "tokenizer.json: abc123" in text and "48,000" in text
    assert set(MEASURED) == {field.name for field in shown if "help" not in field.metadata}


# Figures


def test_every_picture_is_in_the_page_with_an_alternative_text_that_says_what_it_shows(whole):
    images = Reader(run_page(**whole)).all("img")
    sentences = [sentence for shown in whole["pictures"] for sentence in shown.sentences]
    assert [image["alt"] for image in images] == sentences and len(sentences) == 3 + 1 + 3 + 4
    for image in images:
        assert len(image["alt"]) > 40 and image["src"].startswith("data:image/png;base64,")
        assert int(image["width"]) < 600  # each panel alone: it fits beside or below the others


def test_a_picture_says_how_large_it_is_and_a_broad_one_has_more_room():
    for width, is_wide in ((750, False), (1980, True)):
        shown = figure([png(width, 300)], ["words"], "caption")
        assert f'width="{width * 96 // 150}" height="192"' in shown and ("wide" in shown) == is_wide


# Responses


def test_every_response_stands_there_with_its_task_its_reward_its_prompt_and_its_temperatures(
    whole,
):
    page = run_page(**whole)
    rows = re.findall(r'<li class="response">.*?</li>', page, re.DOTALL)
    shown = sum(whole["responses"], [])
    assert len(rows) == len(shown) == 9
    for row, response in zip(rows, shown, strict=True):
        text = Reader(row).text
        assert f"{response.task}, reward {response.reward:.2f}" in text and "Speak!" in text
        assert "t=0.3 " + "".join(response.strip.pieces).strip() in text


def test_an_empty_response_is_said(metrics):
    assert "(no word)" in run_page(**results(metrics, [Shown("cow", 0.0, words(""))]))


def test_the_best_and_the_worst_are_picked_in_turn_from_every_task():
    names = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    rewards = [0.1, 0.9, 0.9, 0.5, 0.2, 0.2, 0.2, 0.2, 1.0, 0.0, 0.6, 0.4]
    # a: 1 2 3 0; b: 4 5 6 7; c: 8 10 11 9
    assert best_and_worst(names, rewards, 8) == ([1, 4, 8, 2], [0, 5, 9, 3])


@pytest.mark.parametrize("n", [2, 7, 11, 12, 30])
def test_no_response_is_picked_twice_and_small_tasks_leave_room_to_others(n):
    names = ["a"] * 9 + ["b"] * 2
    best, worst = best_and_worst(names, [i / 11 for i in range(11)], n)
    assert len(best) == len(worst) == min(n, 11) // 2
    assert len({*best, *worst}) == len(best) + len(worst)


def test_the_responses_are_those_of_the_head_with_their_own_rewards_and_words(lm):
    head = AdaptiveDecoder(16, len(CHOICES), "token", n_hidden=8, generator=seeded(1))
    prompts = ["Mia has 7 apples.", "Tell me a story.", "Mia has 9 apples.", "Tell me of a fox."]
    tasks = [type("T", (), {"name": name})() for name in ("math", "story")]
    policy = SampledHead(head, Temperatures(TEMPERATURES))
    rollout = generate(lm, prompts, policy, seeded(0), max_new_tokens=6)
    made = measured(tasks, [2, 2], [[0.0, 1.0]] * 4, [0.25, 0.75, 1.0, 0.5])
    test = dataclasses.replace(with_texts(made, prompts), adaptive=rollout)
    first, best, worst = chosen_responses(test, lm, Temperatures(TEMPERATURES).names)
    for shown, rows in ((first, [0, 2, 1]), (best, [1, 2]), (worst, [0, 3])):
        assert [response.strip.prompt for response in shown] == [prompts[row] for row in rows]
        assert [response.reward for response in shown] == [[0.25, 0.75, 1.0, 0.5][r] for r in rows]
        for response, row in zip(shown, rows, strict=True):
            assert "".join(response.strip.pieces).strip() == rollout.responses[row]


def test_a_single_prompt_is_too_few_for_a_good_and_a_bad_response(lm, head):
    prompts = ["Mia has 7 apples."]
    rollout = generate(lm, prompts, SampledHead(head, CHOICES), seeded(0))
    made = measured([type("T", (), {"name": "math"})()], [1], [[0.0, 1.0]])
    test = dataclasses.replace(with_texts(made, prompts), adaptive=rollout)
    first, *others = chosen_responses(test, lm, Temperatures(TEMPERATURES).names)
    assert len(first) == 1 and others == [[], []]


# What is concluded


def losing(metrics):
    """The same numbers, but the head got less than the best constant, everywhere."""
    lost = copy.deepcopy(metrics)
    for numbers in (lost, lost["ood"]):
        numbers["mean"]["gain_over_best_fixed"] = {"estimate": -0.2, "ci95": [-0.3, -0.1]}
        for task in numbers["tasks"].values():
            task["adaptive"] = min(task["fixed"]) - 0.1
    return lost


def test_a_run_that_lost_says_so_and_nowhere_that_it_won(metrics):
    text = Reader(run_page(**results(losing(metrics)))).text
    assert text.count("The head lost: it got 0.200 less reward") == 2  # on test and on new prompts
    assert "The head won" not in text and "got more than the best constant in none" in text


def test_a_kind_of_one_prompt_has_no_interval(metrics):
    few = copy.deepcopy(metrics)
    for kind in few["tasks"]["cow"]["kinds"].values():
        kind["ci95"] = None
    assert "Kinds of prompts" in run_page(**results(few))


# Safety


def test_hostile_text_stays_text(metrics):
    hostile = "".join(NASTY) + "\x1b[2J\u202e\ud800"
    renamed = copy.deepcopy(metrics)
    task = renamed["tasks"].pop("cow")
    task["kinds"] = {hostile: next(iter(task["kinds"].values()))}
    renamed["tasks"][hostile] = task
    renamed["controls"]["random_head"]["tasks"][hostile] = 0.0
    strip = Strip(hostile, [hostile, " b"], [0, 1], FOUR_NAMES)
    run = results(renamed, [Shown(hostile, 1.0, strip)], tasks=(hostile,))
    plain = run_page(
        **results(metrics, [Shown("cow", 1.0, Strip("", ["a", "b"], [0, 1], FOUR_NAMES))])
    )
    page = run_page(**run)
    page.encode()
    read = Reader(page)
    assert set(read.tags) == set(Reader(plain).tags)
    assert {name for _, attributes in read.attributes for name in attributes} == {
        name for _, attributes in Reader(plain).attributes for name in attributes
    }
    assert all(text in read.text for text in NASTY) and "\\x1b[2J\\u202e\\ud800" in read.text
    assert not re.search("[\x1b\u202e\ud800]", page)


def test_the_page_has_no_script_uses_no_network_and_its_policy_forbids_both(whole):
    read = Reader(run_page(**whole))
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(read.tags)
    attributes = [pair for _, found in read.attributes for pair in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    for name, value in attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#"))
    without_pictures = re.sub('src="data:.*?"', "", run_page(**whole))
    assert not re.search(r"https?:|//|url\(|@import", without_pictures)
    [policy] = [found["content"] for found in read.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    assert read.tags.count("style") == 1


def test_the_same_run_gives_the_same_bytes_apart_from_the_paragraph_of_times(whole):
    slower = {**whole["metrics"], "seconds": {name: 3 * spent for name, spent in SECONDS.items()}}
    pages = [run_page(**whole), run_page(**whole | {"metrics": slower})]
    assert pages[0] == run_page(**whole) != pages[1]
    assert "It took 110 seconds: 11 for pretraining" in pages[0]
    times = re.compile('<p id="times".*?</p>', re.DOTALL)
    assert times.sub("", pages[0]) == times.sub("", pages[1])


# The parts


def test_a_template_escapes_texts_and_leaves_html_alone():
    parts = ["<", fill("<b>{}</b>", "{&}"), Html("<i>")]
    assert fill('<p class="{name}">{}</p>', parts, name='"') == (
        '<p class="&quot;">&lt;<b>{&amp;}</b><i></p>'
    )


def test_a_broad_table_scrolls_alone_and_by_keys_too():
    assert re.match(
        r'<div class="scroll" role="region" aria-label="Of 1 &lt; 2." tabindex="0"><table class="',
        table("Of 1 < 2.", ["a", "b"], [["1", "2"]]),
    )


def test_figures_have_as_many_dots_per_pixel_as_they_are_drawn_with():
    from minilpo.show import plots

    assert plots.figure(1, 1)[0].dpi == 96 * document.SHARPER
