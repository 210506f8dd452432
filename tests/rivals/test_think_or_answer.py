"""Think or answer: a calendar by other means, a grader that is itself graded, room for prompts."""

import datetime
import random
import re
from collections import Counter

import pytest

from minilpo.rivals.think_or_answer import ANSWER, KINDS, PRICE, THINK, WEEK, ThinkOrAnswer
from minilpo.tasks.base import draw_demonstrations, draw_prompts

TASK = ThinkOrAnswer()
PROMPT = "On Saturday Mia and Tom slowly left the tiny cave. They ran for 6 days. "
PROMPT += "For 4 days they danced. Which day is today?"


@pytest.fixture(scope="module")
def demonstrations():
    return draw_demonstrations(TASK, 5000, "train", random.Random(0))


def day_by_the_calendar(prompt):
    """The right day, by Python's calendar and by regular expressions alone."""
    [start] = re.findall("|".join(WEEK), prompt)
    days = sum(int(number) for number in re.findall(r"\d+", prompt))
    monday = datetime.date(2024, 1, 1)
    return (monday + datetime.timedelta(days=WEEK.index(start) + days)).strftime("%A")


def test_every_demonstration_is_right_by_the_calendar_and_each_of_its_steps_and_no_other_day(
    demonstrations,
):
    for prompt, response in demonstrations[:300]:
        assert response.split()[-1] == day_by_the_calendar(prompt)
        assert TASK.is_right(prompt, response)
        for day, days, later in re.findall(r"(?=\b(\w+day) (\d) (\w+day))", response):
            assert (WEEK.index(day) + int(days) - WEEK.index(later)) % 7 == 0
        right = [day for day in WEEK if TASK.is_right(prompt, f"#### {day}")]
        assert right == [day_by_the_calendar(prompt)]


def test_half_of_the_demonstrations_think_at_every_length_and_all_lengths_are_as_frequent(
    demonstrations,
):
    forms = Counter((KINDS[p.count(" days") - 1], r.split()[0]) for p, r in demonstrations)
    assert set(forms) == {(kind, first) for kind in KINDS for first in (f"{THINK}:", ANSWER)}
    assert all(n / 5000 == pytest.approx(1 / 6, abs=0.03) for n in forms.values())
    assert all(TASK.kind(p) == KINDS[p.count(" days") - 1] for p, _ in demonstrations[:300])


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
        ("word " * 100 + "#### Tuesday", 50),  # it costs more than it earns
    ],
)
def test_a_right_answer_earns_1_less_the_price_of_its_words_and_marks(response, words):
    assert TASK.reward(PROMPT, response) == pytest.approx(1 - words * PRICE)


def test_a_wrong_or_unfinished_answer_earns_nothing():
    for response in (
        *("", "Tuesday", "####", "#### ", "#### tuesday", "#### Tuesday.", "#### Tuesday "),
        *("#### Tuesday\n", "####Tuesday", "#### Monday", "#### Monday #### Tuesdays"),
        "Think: Saturday 6 Friday 4 Tuesday",
        "Think: Saturday 6 Friday 4 Tuesday #### Monday",
        " ".join(f"#### {day}" for day in reversed(WEEK)),  # all days, one of them right
    ):
        assert TASK.reward(PROMPT, response) == 0, response


def test_a_thought_earns_less_than_the_same_answer_at_once_but_always_something(demonstrations):
    rng = random.Random(0)
    for prompt, _ in demonstrations[:100]:
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


def test_there_are_so_many_prompts_that_those_of_lpo_have_not_been_in_pretraining(demonstrations):
    shown = {prompt for prompt, _ in demonstrations}
    asked = set(draw_prompts(TASK, 1000, "train", random.Random(1)))
    assert len(shown) == 5000 and not shown & asked
