"""Right and wrong answers to every exercise, each with what must be said about it.

The table of them, `tutorials/graders.md`, is written by `python -m tests.exercises.table`.
"""

from collections.abc import Callable
from typing import NamedTuple


class Wrong(NamedTuple):
    """A wrong answer: what is wrong with it, and a part of the message that is meant for it."""

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


def wrong(exercise: str, name: str, message: str):
    """Marks a wrong answer."""

    def mark(answer):
        WRONG.setdefault(exercise, []).append(Wrong(name, message, answer))
        return answer

    return mark
