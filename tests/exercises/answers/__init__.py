"""Right and wrong answers to every exercise, each wrong one with the message it must get.

The table of them, `tutorials/graders.md`, is written by `python -m tests.exercises.table`.
"""

from collections.abc import Callable
from typing import NamedTuple


class Wrong(NamedTuple):
    """A wrong answer: its mistake, and a part of the message that is meant for it."""

    name: str
    message: str
    answer: Callable


RIGHT: dict[str, dict[str, Callable]] = {}  # by exercise, then by how it is written
WRONG: dict[str, list[Wrong]] = {}


def right(exercise: str, how: str):
    """Marks a right answer: "vectorised", "with loops"."""

    def mark(answer):
        RIGHT.setdefault(exercise, {})[how] = answer
        return answer

    return mark


def wrong(name: str, message: str):
    """Marks a wrong answer."""

    def mark(answer):
        answer.wrong = Wrong(name, message, answer)
        return answer

    return mark


class WrongAnswers:
    """A subclass has the wrong answers to one exercise: `class WinRate(..., to="win_rate")`."""

    def __init_subclass__(cls, to: str):
        marks = [vars(member).get("wrong") for member in vars(cls).values() if callable(member)]
        WRONG[to] = [mark for mark in marks if mark]
