"""Writes `tutorials/graders.md`: `python -m tests.exercises.table`.

Every answer of `tests/exercises/answers` is graded as in a lesson, with seed 0.
"""

import importlib
import re
from pathlib import Path

from minilpo import exercises
from minilpo.exercises.trial import observe
from minilpo.machine.files import write_bytes
from tests.exercises.answers import RIGHT, wrong_answers

for file in sorted((Path(__file__).parent / "answers").glob("[a-z]*.py")):
    importlib.import_module(f"tests.exercises.answers.{file.stem}")

BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
WRONG = {name: wrong_answers(name) for name in BY_NAME}
PAGE = Path(__file__).parents[2] / "tutorials" / "graders.md"
HEADER = """# What the graders accept and what they reject

Every exercise of the lessons has a grader: `exercises.NAME.check(NAME)` calls the function that a learner has written.
It compares the results with those of the right function on about fifteen random inputs, of every sign and several
shapes: first type, shape, dtype and device, then the values. It calls the function twice on each input. It also reports
a function that changes its input, depends on random numbers that everybody shares, calls the library's own, prints
instead of returning, or never ends. If the results are those of one mistake that the grader knows, or of two, it names
them.

Who grades the graders? This page is the result of running them on known answers. They must accept all right ones,
however they are written, and reject all wrong ones with the message that is meant for them. The tests repeat this with
other random inputs.

{totals}
"""
ABOUT_VALUES = re.compile(
    r"wrong for \d+ of \d+ inputs; here .* is right, got .*?(?:; likely mistake: |$)"
)


def judged(exercise, answer, seed=0):
    """Judges an answer without printing anything."""
    return exercise.examine(
        lambda case: observe(answer, exercise.entry, case, exercise.may_use), seed
    )


def page(sections: dict[str, str]) -> str:
    """Puts the sections of the exercises together, lesson by lesson."""
    n_right, n_wrong = (sum(len(answers[name]) for name in BY_NAME) for answers in (RIGHT, WRONG))
    totals = (
        f"Of {len(BY_NAME)} exercises, all {n_right} right answers were accepted and all {n_wrong} "
        "wrong ones rejected."
    )
    parts = [HEADER.format(totals=totals)]
    for lesson in sorted({exercise.lesson for exercise in BY_NAME.values()}):
        parts.append(f"## Lesson {lesson}\n")
        parts += [sections[name] for name in BY_NAME if BY_NAME[name].lesson == lesson]
    return "\n".join(parts)


def section(name: str, seed: int = 0) -> str:
    """Grades the answers to one exercise, and writes the messages of the wrong ones.

    Raises:
        AssertionError: a right answer isn't accepted, or a wrong one gets another message.
    """
    exercise, ways = BY_NAME[name], RIGHT[name]
    for how, answer in ways.items():
        verdict = judged(exercise, answer, seed)
        assert verdict.passed, f"{name}, {how}: {verdict.text}"
    lines = [f"### `{exercise.signature}`\n", f"Accepted: {'; '.join(ways)}.\n"]
    lines += ["| rejected | what the learner is told |", "|---|---|"]
    for wrong in WRONG[name]:
        verdict = judged(exercise, wrong.answer, seed)
        meant = verdict.passed is False and wrong.message in verdict.message
        assert meant, f"{name}, {wrong.name}: {verdict.text}"
        lines.append(f"| {escaped(wrong.name)} | {escaped(shortened(verdict.message))} |")
    return "\n".join([*lines, ""])


def shortened(message: str) -> str:
    """Leaves out the parts of a message that may differ on another machine."""
    error = re.match(r"it raised \w+", message)
    if error:
        return f"{error[0]} (and why, and where)"
    rest = re.sub(r" \(line \d+\)", "", ABOUT_VALUES.sub("", message, count=1))
    return rest or "some values are wrong (and which, and what is right)"


def escaped(text: str) -> str:
    """Escapes a text for a cell of a table."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    write_bytes(PAGE, page({name: section(name) for name in BY_NAME}).encode())
    print(f"written: {PAGE}")
