"""Right and wrong answers to every exercise, each wrong one with the message it must get.

A right answer is a function. The wrong ones of an exercise stand in a text, as a name, a part of
the message that is meant for it, and below it edits of a right answer, or another body for it:

    WRONG["win_rate"] = '''
    ties lose | ties get no point
        points += 0.5 -> points += 0
    of the other | it is the win-rate of the other
        return 1 - win_rate(rewards, other)
    '''

The table of all, `tutorials/graders.md`, is written by `python -m tests.exercises.table`.
"""

import inspect
import re
import sys
from collections.abc import Callable
from typing import NamedTuple


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
    blocks = re.split(r"^(?=\S)", WRONG[exercise].lstrip("\n"), flags=re.MULTILINE)[1:]
    return [wrong_answer(exercise, *block.split("\n", 1)) for block in blocks]


def wrong_answer(exercise: str, head: str, body: str) -> Wrong:
    """Makes a function of a line with a name and a message, and of the lines below it."""
    name, message = head.split(" | ")
    edits = [line.strip().split(" -> ") for line in body.splitlines() if " -> " in line]
    rights = list(RIGHT[exercise].values())
    if edits:
        source = next(filter(None, (edited(answer, edits) for answer in rights)), None)
        assert source, f"{exercise}, {name}: in no right answer the old text stands exactly once"
    elif inspect.isclass(rights[0]):
        source = f"class wrong({rights[0].__name__}):\n{body}"
    else:
        source = f"def wrong{inspect.signature(rights[0])}:\n{body}"
    names = dict(vars(sys.modules[rights[0].__module__]))
    exec(compile(source, f"<{exercise}: {name}>", "exec"), names)
    return Wrong(name, message, names["wrong"])


def edited(answer: Callable, edits: list[list[str]]) -> str:
    """Returns the source of a right answer with other texts in it; empty if one doesn't fit."""
    source = re.sub("^(@.*\n)+", "", inspect.getsource(answer))
    source = source.replace(answer.__name__, "wrong", 1)
    for old, new in edits:
        if source.count(old) != 1:
            return ""
        source = source.replace(old, new)
    return source
