"""Think or answer: a calendar by other means, a grader that is itself graded, room for prompts."""

import datetime
import random
import re
from collections import Counter

import pytest

from minilpo.rivals.controls import ALL_TASKS, CORPUS
from minilpo.rivals.think_or_answer import (
    ANSWER,
    DAYS,
    KINDS,
    LEGS,
    OPENINGS,
    PRICE,
    QUESTIONS,
    SLOTS,
    THINK,
    WEEK,
    ThinkOrAnswer,
)
from minilpo.tasks import load_tasks
from minilpo.tasks.base import draw_demonstrations, draw_prompts

TASK = ThinkOrAnswer()
PROMPT = "On Saturday Mia and Tom slowly left the tiny cave. They ran for 6 days. "
PROMPT += "For 4 days they danced. Which day is today?"


def day_by_the_calendar(prompt):
    """The right day, by Python's calendar and by regular expressions alone."""
    [start] = re.findall("|".join(WEEK), prompt)
    days = sum(int(number) for number in re.findall(r"\d+", prompt))
    monday = datetime.date(2024, 1, 1)
    return (monday + datetime.timedelta(days=WEEK.index(start) + days)).strftime("%A")


def prompts(n=300):
    rng = random.Random(0)
    return [TASK.prompt(rng) for _ in range(n)]


def test_every_demonstration_is_right_by_the_calendar_and_each_of_its_steps_too():
    rng = random.Random(0)
    for prompt in prompts():
        response = TASK.demonstration(prompt, rng)
        assert response.split()[-1] == day_by_the_calendar(prompt)
        assert TASK.is_right(prompt, response)
        for day, days, later in re.findall(r"(?=\b(\w+day) (\d) (\w+day))", response):
            assert (WEEK.index(day) + int(days) - WEEK.index(later)) % 7 == 0


def test_half_of_the_demonstrations_think_at_every_length_and_all_lengths_are_as_frequent():
    pairs = draw_demonstrations(TASK, 3000, "train", random.Random(1))
    forms = Counter((TASK.kind(prompt), response.split()[0]) for prompt, response in pairs)
    assert set(forms) == {(kind, first) for kind in KINDS for first in (f"{THINK}:", ANSWER)}
    assert all(n / 3000 == pytest.approx(1 / 6, abs=0.03) for n in forms.values())


def test_who_thinks_shows_every_day_on_the_way():
    prompt = PROMPT.replace("4 days", "2 days")
    written = {TASK.demonstration(prompt, random.Random(seed)) for seed in range(20)}
    assert written == {"#### Sunday", "Think: Saturday 6 Friday 2 Sunday #### Sunday"}


@pytest.mark.parametrize(
    "response, words",
    [
        ("#### Tuesday", 2),
        ("Think: Saturday 6 Friday 4 Tuesday #### Tuesday", 9),
        ("Think:Saturday6 4 #### Tuesday", 6),  # a mark is paid for too, and no space needed
        ("I think so. #### Tuesday", 6),
    ],
)
def test_a_right_answer_earns_1_less_the_price_of_its_words_and_marks(response, words):
    assert TASK.reward(PROMPT, response) == pytest.approx(1 - words * PRICE)


def test_a_wrong_or_unfinished_or_endless_answer_earns_nothing():
    for response in (
        *("", "Tuesday", "####", "#### ", "#### tuesday", "#### Tuesday.", "#### Tuesday "),
        *("#### Tuesday\n", "####Tuesday", "#### Monday", "#### Monday #### Tuesdays"),
        "Think: Saturday 6 Friday 4 Tuesday",
        "Think: Saturday 6 Friday 4 Tuesday #### Monday",
        " ".join(f"#### {day}" for day in reversed(WEEK)),  # all days, one of them right
        "word " * 100 + "#### Tuesday",  # right, but it costs more than it earns
    ):
        assert TASK.reward(PROMPT, response) == 0, response


def test_the_kind_is_the_number_of_legs():
    for n, kind in enumerate(KINDS, 1):
        legs = "For 4 days they danced. " * n
        prompt = f"Kim and Leo boldly left the tiny cave on Monday. {legs}What day is it?"
        assert TASK.kind(prompt) == kind


def test_of_all_days_only_one_is_right():
    for prompt in prompts(100):
        right = [day for day in WEEK if TASK.is_right(prompt, f"#### {day}")]
        assert right == [day_by_the_calendar(prompt)]


def test_more_words_never_earn_more():
    for n in range(60):
        longer, long = (TASK.reward(PROMPT, "so " * m + "#### Tuesday") for m in (n + 1, n))
        assert longer < long or longer == long == 0


def test_thinking_pays_where_an_answer_at_once_is_wrong_and_costs_where_it_is_right():
    rng = random.Random(0)
    for prompt in prompts(100):
        texts = {TASK.demonstration(prompt, rng) for _ in range(30)}
        at_once, thought = sorted(texts, key=len)
        assert 0.7 < TASK.reward(prompt, thought) < TASK.reward(prompt, at_once) < 1


def test_a_prompt_of_another_wording_is_not_known_and_named_in_the_error():
    for prompt in (
        *("", "What day is it?"),
        "On Saturday Mia and Tom slowly left the tiny cave. What day is it?",
        PROMPT.replace("Saturday", "Yesterday"),
        PROMPT.replace("Which day is today?", "Why?"),
        PROMPT.replace("ran", "slept"),
        PROMPT.replace("They ran for 6 days. ", "They ran for 6 days. " * 3),
    ):
        assert not TASK.knows(prompt) and TASK.knows(PROMPT)
        with pytest.raises(ValueError, match="known wording, got "):
            TASK.reward(prompt, "#### Monday")


def test_there_are_so_many_prompts_that_those_of_lpo_have_not_been_in_pretraining():
    n = {slot: len(words) for slot, words in SLOTS.items()}
    openings = len(OPENINGS) * n["day"] * n["person"] * (n["person"] - 1)
    openings *= n["manner"] * n["adjective"] * n["place"]
    of_the_shortest_kind = openings * len(LEGS) * n["moved"] * len(DAYS) * len(QUESTIONS)
    assert of_the_shortest_kind > 500e6
    shown = {p for p, _ in draw_demonstrations(TASK, 5000, "train", random.Random(0))}
    asked = set(draw_prompts(TASK, 1000, "train", random.Random(1)))
    assert len(shown) == 5000 and not shown & asked


def test_it_can_be_named_but_is_not_in_the_corpus_of_the_others():
    [task] = load_tasks(["think_or_answer"], ALL_TASKS)
    assert type(task) is ThinkOrAnswer not in CORPUS
