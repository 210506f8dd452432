"""`report.html`: everything is on it, nothing on it is a command, and it says what the numbers say."""

import copy
import dataclasses
import re

import pytest

from minilpo.config import RULES, SECTIONS, LPOConfig, RunConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import SampledHead
from minilpo.show import document, plots
from minilpo.show.document import Html, fill, pictures, table
from minilpo.show.page import MEASURED, best_and_worst, chosen_responses, run_page, settings
from minilpo.show.report import Picture, conclusions, verdict
from minilpo.show.strip import Strip
from tests.conftest import CHOICES, TEMPERATURES, head_of, seeded
from tests.evaluation.test_evaluation import FOUR_TEMPERATURES, measured, with_texts
from tests.show.conftest import FOUR, LPO_LOG, PRETRAIN_LOG, SECONDS
from tests.show.test_strip import NASTY, Reader


def words(text, k=1, prompt="Speak!"):
    """A strip, all of it at temperature k."""
    pieces = [f" {word}" for word in text.split()]
    return Strip(prompt, pieces, [k] * len(pieces), FOUR.names)


def png(width, height):
    """The beginning of a picture's file, which has its size."""
    sizes = [size.to_bytes(4, "big") for size in (width, height)]
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"".join(sizes)


FOUR_PICTURES = [Picture("a.png", "A title", b"", [png(750, 300)], ["A sentence."])] * 4


def page_of(metrics, responses=((), (), ()), log=LPO_LOG, shown=FOUR_PICTURES, **config):
    config = RunConfig(temperatures=tuple(FOUR_TEMPERATURES), **config)
    return run_page(config, metrics, PRETRAIN_LOG, log, shown, responses)


@pytest.fixture(scope="session")
def responses():
    best = [("cow", 1.0, words(f"best {i}")) for i in range(3)]
    worst = [("ant", i / 8, words(f"worst {i}")) for i in range(3)]
    return [("bee", 0.5, words(f"first {i}")) for i in range(3)], best, worst


@pytest.fixture(scope="session")
def whole(metrics, responses, drawn):
    return page_of(metrics, responses, shown=drawn.pictures)


# The contents of the page


def test_verdict_curves_three_responses_and_the_table_come_first_then_chapters_with_links(whole):
    parts = ['class="verdict"', "<img ", "</figure>", "first 2", "<table", "<nav ", "best 0"]
    places = [whole.index(part) for part in [*parts, "--seed"]]
    assert places == sorted(places) and whole.index("</figure>") < whole.index("first 0")
    read = Reader(whole)
    names = [attributes["id"] for attributes in read.all("h2") if "id" in attributes]
    assert [attributes["href"] for attributes in read.all("a")] == [f"#{name}" for name in names]
    assert len(names) == 6 and read.tags.count("h1") == 1


def test_a_chapter_without_numbers_says_so(metrics):
    some = {name: part for name, part in metrics.items() if name not in ("controls", "ood")}
    some["tasks"] = {"ant": metrics["tasks"]["ant"]}
    text = Reader(page_of(some)).text
    assert "<th>sees nothing" not in page_of(some)
    assert "No task of this run has other prompts" in text and "has kinds of prompts" in text


def test_the_table_has_every_number_under_its_task_and_the_best_fixed_ones_are_bold(metrics):
    [block, *_] = re.findall(r"<table.*?</table>", page_of(metrics), re.DOTALL)
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", block)]
    text = [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]
    columns = dict(zip(text[0][1:], zip(*(row[1:] for row in text[1:]), strict=True), strict=True))
    assert list(columns) == [*metrics["tasks"], "mean"]
    for place, (name, column) in enumerate([*metrics["tasks"].items(), ("mean", metrics["mean"])]):
        kinds = [column[key] for key in ("adaptive", "best_per_task", "best_per_kind")]
        shown = [*columns[name][:5], *columns[name][6:8]]
        assert shown == [f"{reward:.3f}" for reward in [*column["fixed"], *kinds]]
        best = column["fixed"].index(max(column["fixed"]))
        assert ["<b>" in row[place + 1] for row in rows[1:5]] == [k == best for k in range(4)]
    for row, control in ((9, "random_head"), (10, "learned_constant")):
        found = metrics["controls"][control]
        expected = [*found["tasks"].values(), found["reward"]]
        assert text[row][1:] == [f"{reward:.3f}" for reward in expected]


def test_every_table_has_a_caption_and_every_cell_of_it_headings(whole):
    blocks = re.findall(r"<table.*?</table>", whole, re.DOTALL)
    assert len(blocks) == whole.count("<table") >= 8
    for block in blocks:
        assert re.search(r"^<table[^>]*><caption><span>\w", block)
        head, *rows = re.findall(r"<tr>.*?</tr>", block)
        assert head.count("<th") == head.count('<th scope="col"') and "<td" not in head
        assert all(row.count('<th scope="row"') == row.count("<th") == 1 for row in rows)
        assert {row.count("<t") for row in [head, *rows]} == {head.count("<t")}


def test_the_page_says_what_the_terminal_says(whole, metrics):
    text = Reader(whole).text
    assert all(line in text for line in conclusions(metrics))
    assert verdict(metrics["ood"]["mean"]["gain_over_best_fixed"]) in text


def test_the_steps_are_told_with_the_runs_own_numbers(metrics):
    text = Reader(page_of(metrics, level="token")).text
    assert "from 5.50 nats per token after 0 steps to 2.50 after 300" in text
    assert "before every word" in text and "21 pairs in all; 6 prompts gave none" in text
    assert "0.512, 0.575, 0.637; the head of round 3 was kept" in text
    assert "zebra, cow, ant" in text and "512 test prompts per task" in text
    log = [{**LPO_LOG[0], "validation_reward": 0.9}, *LPO_LOG[1:]]
    assert "the head of round 1 was kept" in Reader(page_of(metrics, log=log)).text


@pytest.mark.parametrize("rule", RULES)
def test_the_page_names_the_rule_that_the_head_learned_by(metrics, rule):
    text = Reader(page_of(metrics, lpo=LPOConfig(rule=rule))).text
    names = {"lpo": "(Latent Preference Optimization)", "reinforce": "(REINFORCE)"}
    names |= {"grpo": "(Group Relative", "regression": "predict each temperature's reward"}
    trained = re.search(r"head was trained to (.*?)\. It decides", text)[1]
    assert [name for name in RULES if names[name] in trained] == [rule]
    assert ("21 pairs in all" in text) == (rule == "lpo") and f"by rule {rule}," in text
    assert ("6 prompts with equal rewards" in text) == (rule in ("reinforce", "grpo"))


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


def test_every_picture_is_in_the_page_with_an_alternative_text_that_says_what_it_shows(
    whole, drawn
):
    images = Reader(whole).all("img")
    assert [image["alt"] for image in images] == sum(drawn.said.values(), [])
    assert len(images) == 3 + 1 + 3 + 4
    for image in images:
        assert len(image["alt"]) > 40 and image["src"].startswith("data:image/png;base64,")
        assert int(image["width"]) < 600  # each panel alone: it fits beside or below the others


def test_a_picture_says_how_large_it_is_and_a_broad_one_has_more_room():
    for width, is_wide in ((750, False), (1980, True)):
        shown = pictures([png(width, 300)], ["words"])
        assert f'width="{width * 96 // 150}" height="192"' in shown and ("wide" in shown) == is_wide
    assert plots.figure(1, 1)[0].dpi == 96 * document.SHARPER


# Responses


def test_every_response_stands_there_with_its_task_its_reward_its_prompt_and_its_temperatures(
    whole, responses, metrics
):
    rows = re.findall(r'<li><p class="quiet">.*?</li>', whole, re.DOTALL)
    for row, (task, reward, strip) in zip(rows, sum(responses, []), strict=True):
        text = Reader(row).text
        assert f"{task}, reward {reward:.2f}" in text and "Speak!" in text
        assert "t=0.3 " + "".join(strip.pieces).strip() in text
    assert "(no word)" in page_of(metrics, [[], [("cow", 0.0, words(""))], []])


def test_the_best_and_the_worst_are_picked_in_turn_from_every_task():
    names = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    rewards = [0.1, 0.9, 0.9, 0.5, 0.2, 0.2, 0.2, 0.2, 1.0, 0.0, 0.6, 0.4]
    # a: 1 2 3 0; b: 4 5 6 7; c: 8 10 11 9
    assert best_and_worst(names, rewards, 8) == ([1, 4, 8, 2], [0, 5, 9, 3])
    names = ["a"] * 9 + ["b"] * 2  # none is picked twice, and small tasks leave room to others
    for n in (2, 7, 11, 12, 30):
        best, worst = best_and_worst(names, [i / 11 for i in range(11)], n)
        assert len(best) == len(worst) == min(n, 11) // 2
        assert len({*best, *worst}) == len(best) + len(worst)


def test_the_responses_are_those_of_the_head_with_their_own_rewards_and_words(lm):
    prompts = ["Mia has 7 apples.", "Tell me a story.", "Mia has 9 apples.", "Tell me of a fox."]
    tasks = [type("T", (), {"name": name})() for name in ("math", "story")]
    policy, names = SampledHead(head_of("token"), CHOICES), Temperatures(TEMPERATURES).names
    rewards = [0.25, 0.75, 1.0, 0.5]

    def picked(n, counts):
        rollout = generate(lm, prompts[:n], policy, seeded(0), max_new_tokens=6)
        made = measured(tasks[: len(counts)], counts, [[0.0, 1.0]] * n, rewards[:n])
        test = dataclasses.replace(with_texts(made, prompts[:n]), adaptive=rollout)
        return chosen_responses(test, lm, names), rollout

    parts, rollout = picked(4, [2, 2])
    for shown, rows in zip(parts, ([0, 2, 1], [1, 2], [0, 3]), strict=True):
        for (_, reward, strip), row in zip(shown, rows, strict=True):
            assert (strip.prompt, reward) == (prompts[row], rewards[row])
            assert "".join(strip.pieces).strip() == rollout.responses[row]
    [first, *others], _ = picked(1, [1])  # too few for a good and a bad one
    assert len(first) == 1 and others == [[], []]


def test_a_run_that_lost_says_so_and_nowhere_that_it_won(metrics):
    lost = copy.deepcopy(metrics)
    for numbers in (lost, lost["ood"]):
        numbers["mean"]["gain_over_best_fixed"] = {"estimate": -0.2, "ci95": [-0.3, -0.1]}
        for task in numbers["tasks"].values():
            task["adaptive"] = min(task["fixed"]) - 0.1
    text = Reader(page_of(lost)).text
    assert text.count("The head lost: it got 0.200 less reward") == 2  # on test and on new prompts
    assert "The head won" not in text and "got more than the best constant in none" in text


# Safety


def test_hostile_text_stays_text(metrics):
    hostile = "".join(NASTY) + "\x1b[2J\u202e\ud800{config}"
    renamed = copy.deepcopy(metrics)
    task = renamed["tasks"].pop("cow")
    # A kind of a single prompt has no interval.
    task["kinds"] = {hostile: next(iter(task["kinds"].values())) | {"ci95": None}}
    renamed["tasks"][hostile] = task
    renamed["controls"]["random_head"]["tasks"][hostile] = 0.0
    strip = Strip(hostile, [hostile, " b"], [0, 1], FOUR.names)
    harmless = Strip("", ["a", "b"], [0, 1], FOUR.names)
    page = page_of(renamed, [[], [(hostile, 1.0, strip)], []], tasks=(hostile,))
    page.encode()
    read, plain = Reader(page), Reader(page_of(metrics, [[], [("cow", 1.0, harmless)], []]))
    assert set(read.tags) == set(plain.tags)
    assert {name for _, attributes in read.attributes for name in attributes} == {
        name for _, attributes in plain.attributes for name in attributes
    }
    assert all(text in read.text for text in NASTY)
    assert "\\x1b[2J\\u202e\\ud800{config}" in read.text
    assert not re.search("[\x1b\u202e\ud800]", page)


def test_the_page_has_no_script_uses_no_network_and_its_policy_forbids_both(whole):
    read = Reader(whole)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(read.tags)
    for name, value in [pair for _, found in read.attributes for pair in found.items()]:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"https?:|//|url\(|@import", re.sub('src="data:.*?"', "", whole))
    [policy] = [found["content"] for found in read.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    assert read.tags.count("style") == 1


def test_the_same_run_gives_the_same_bytes_apart_from_the_paragraph_of_times(metrics):
    slower = {**metrics, "seconds": {name: 3 * spent for name, spent in SECONDS.items()}}
    pages = [page_of(metrics), page_of(slower)]
    assert pages[0] == page_of(metrics) != pages[1]
    assert "It took 110 seconds: 11 for pretraining" in pages[0]
    times = re.compile('<p id="times".*?</p>', re.DOTALL)
    assert times.sub("", pages[0]) == times.sub("", pages[1])


def test_a_template_escapes_texts_and_leaves_html_alone():
    parts = ["<", fill("<b>{}</b>", "{&}"), Html("<i>")]
    filled = fill('<p class="{name}">{}</p>', parts, name='"')
    assert filled == '<p class="&quot;">&lt;<b>{&amp;}</b><i></p>'
    scrolling = '<div class="scroll" role="region" aria-label="Of 1 &lt; 2." tabindex="0"><table'
    assert table("Of 1 < 2.", ["a", "b"], [["1", "2"]]).startswith(scrolling)
