"""Grades the graders: right answers pass however they are written, wrong ones get their message."""

import importlib
import inspect
import textwrap
from pathlib import Path

import pytest
import torch

from minilpo import exercises
from minilpo.exercises.trial import observe
from tests.exercises.answers import RIGHT, WRONG

for file in sorted((Path(__file__).parent / "answers").glob("[a-z]*.py")):
    importlib.import_module(f"tests.exercises.answers.{file.stem}")

BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
RIGHT_ANSWERS = [(name, how) for name in RIGHT for how in RIGHT[name]]
WRONG_ANSWERS = [(name, wrong) for name in WRONG for wrong in WRONG[name]]


def judged(exercise, answer, seed=0):
    """Judges an answer without printing anything."""
    return exercise.examine(
        lambda case: observe(answer, exercise.entry, case, exercise.may_use), seed
    )


def solution_of(exercise):
    """Runs the solution as a learner would paste it into a cell."""
    names = {"torch": torch, "math": __import__("math"), "random": __import__("random")}
    names["F"] = torch.nn.functional
    exec(exercise.solution_source(), names)
    return names[exercise.name]


def test_there_are_answers_to_every_exercise_and_to_no_other():
    assert set(RIGHT) == set(WRONG) == set(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_two_right_answers_are_known_and_six_wrong_ones(name):
    assert len(RIGHT[name]) >= 2 and len(WRONG[name]) >= 6
    sources = {inspect.getsource(answer) for answer in RIGHT[name].values()}
    assert len(sources) == len(RIGHT[name])


@pytest.mark.parametrize(("name", "how"), RIGHT_ANSWERS)
def test_a_right_answer_passes_however_it_is_written(name, how):
    verdict = judged(BY_NAME[name], RIGHT[name][how], seed=1)  # `test_table` tries seed 0
    assert verdict.passed, verdict.text


@pytest.mark.parametrize(
    ("name", "wrong"), WRONG_ANSWERS, ids=lambda value: getattr(value, "name", value)
)
def test_a_wrong_answer_gets_the_message_meant_for_it(name, wrong):
    verdict = judged(BY_NAME[name], wrong.answer, seed=1)  # `test_table` tries seed 0
    assert verdict.passed is False
    assert wrong.message in verdict.message, verdict.text


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
def test_every_mistake_that_is_known_differs_from_the_right_answer(name):
    exercise = BY_NAME[name]
    for message, mistake in exercise.mistakes.items():
        source = textwrap.dedent(inspect.getsource(mistake))
        assert "def right(" not in source
        said = [wrong for wrong in WRONG[name] if wrong.message in message]
        assert said, f"no wrong answer of the tests is meant for {message!r}"


@pytest.mark.parametrize("name", BY_NAME)
def test_an_exercise_says_all_that_a_learner_may_ask_for(name, capsys):
    exercise = BY_NAME[name]
    assert len(exercise.question) > 80 and len(set(exercise.hints)) == 3
    assert exercise.explanation and exercise.follow_up and 1 <= exercise.lesson <= 10
    exercise.solution()
    assert f"{name}" in capsys.readouterr().out
