"""Grades the graders: right answers pass however they are written, wrong ones get their message."""

import inspect
import math
import random
import re

import pytest
import torch
import torch.nn.functional as F

from minilpo.exercises.exercise import variant
from tests.exercises import table
from tests.exercises.answers import RIGHT, WRONG
from tests.exercises.table import BY_NAME, judged


def solution_of(exercise):
    """Runs the solution as a learner would paste it into a cell."""
    names = {"torch": torch, "math": math, "random": random, "F": F}
    exec(exercise.solution_source(), names)
    return names[exercise.name]


SECTIONS = {  # of the page, as they are
    re.search(r"`(class )?(\w+)", part)[2]: part.strip() + "\n"
    for part in re.split(r"^(?=##)", table.PAGE.read_text(), flags=re.MULTILINE)
    if part.startswith("### ")
}


def test_the_page_about_the_graders_has_every_exercise_and_no_other():
    assert set(RIGHT) == set(WRONG) == set(BY_NAME) == set(SECTIONS)
    assert table.PAGE.read_text() == table.page(SECTIONS), "run python -m tests.exercises.table"


@pytest.mark.parametrize("name", BY_NAME)
def test_right_answers_pass_and_wrong_ones_get_the_message_on_the_page_on_other_inputs_too(name):
    assert len(RIGHT[name]) >= 2 and len(table.WRONG[name]) >= 6
    assert table.section(name, seed=1) == SECTIONS[name]


def test_an_edit_is_made_in_the_solution_in_which_the_old_text_stands_once_else_it_is_an_error():
    solutions = list(RIGHT["win_rate"].values())
    assert variant(solutions, "points += 0.5 -> points += 0")(*2 * [torch.ones(4)]) == 0.0
    assert variant(solutions, "    return 2 * right(rewards, other)")(*2 * [torch.ones(4)]) == 1.0
    for twice_or_never in ("points += -> points -=", "nowhere -> here"):
        with pytest.raises(ValueError, match="must stand once in one of the solutions"):
            variant(solutions, twice_or_never)


def test_a_message_is_shortened_to_what_every_machine_says():
    assert table.shortened("wrong for 3 of 9 inputs; here 0.1 is right, got 0.2") == (
        "some values are wrong (and which, and what is right)"
    )
    many_lines = "wrong for 3 of 9 inputs; here 1 is right, got 2; likely mistake: a; b"
    assert table.shortened(many_lines) == "a; b"
    assert "line" not in table.shortened("it raised KeyError: 2 (line 7); likely mistake: c")
    assert table.escaped("|a| < 1") == r"\|a\| < 1"


@pytest.mark.parametrize("name", BY_NAME)
def test_the_solution_stands_for_itself_and_passes(name):
    verdict = judged(BY_NAME[name], solution_of(BY_NAME[name]), seed=3)
    assert verdict.passed, verdict.text


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_wrong_with_any_function_is_said(name):
    exercise, answer = BY_NAME[name], next(iter(RIGHT[name].values()))
    if inspect.isclass(answer):
        pytest.skip("a class is to be written")

    def printing(*arguments):
        print(answer(*arguments))

    def raising(*arguments):
        raise IndexError("list index out of range")

    def leaving(*arguments):
        raise SystemExit

    said = {
        printing: "it prints its result",
        raising: "it raised IndexError: list index out of range (line",
        leaving: "it raised SystemExit",
        (lambda: 0): "it raised TypeError",
        (lambda *arguments: ...): "isn't written yet",
        exercise.right: "calls minilpo's own",
    }
    for broken, message in said.items():
        verdict = judged(exercise, broken)
        assert not verdict.passed
        assert message in verdict.text, verdict.text


@pytest.mark.parametrize("name", BY_NAME)
def test_of_every_mistake_that_is_known_a_wrong_answer_is_told(name):
    for message in BY_NAME[name].known_mistakes:
        assert any(wrong.message in message for wrong in table.WRONG[name]), message


@pytest.mark.parametrize("name", BY_NAME)
def test_an_exercise_says_all_that_a_learner_may_ask_for(name, capsys):
    exercise = BY_NAME[name]
    assert len(exercise.question) > 80 and len(set(exercise.hints)) == 3
    assert exercise.explanation and exercise.follow_up and 1 <= exercise.lesson <= 10
    exercise.solution()
    assert f"{name}" in capsys.readouterr().out
