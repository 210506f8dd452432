"""Right and wrong answers to every exercise, each wrong one with the message it must get.

A right answer is a function. The wrong ones of an exercise stand in a text: a name, a part of the
message that is meant for it, and an edit of a right answer. What doesn't fit on the line stands
below it: edits, one a line, or another body for the function.

    WRONG["win_rate"] = '''
    ties lose | ties get no point | points += 0.5 -> points += 0
    of the other | it is the win-rate of the other
        return 1 - win_rate(rewards, other)
    '''

The table of all, `tutorials/graders.md`, is written by `python -m tests.exercises.table`.
"""

from collections.abc import Callable
from typing import NamedTuple

from minilpo.exercises.exercise import blocks, variant


class Wrong(NamedTuple):
    """A wrong answer: its mistake, and a part of the message that is meant for it."""

    name: str
    message: str
    answer: Callable


RIGHT: dict[str, dict[str, Callable]] = {}  # by exercise, then by how it is written
WRONG: dict[str, str] = {}  # by exercise


def right(exercise: str, how: str):
    """Marks a right answer: "vectorised", "with loops"."""

    def mark(answer):
        RIGHT.setdefault(exercise, {})[how] = answer
        return answer

    return mark


def wrong_answers(exercise: str) -> list[Wrong]:
    """Makes functions of the text about an exercise."""
    solutions = list(RIGHT[exercise].values())
    return [
        Wrong(*head.split(" | "), variant(solutions, body))
        for head, body in blocks(WRONG[exercise])
    ]
