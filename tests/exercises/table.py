"""Writes `tutorials/graders.md`: `python -m tests.exercises.table`.

Every answer of `tests/exercises/answers` is graded as in a lesson, with seed 0.
"""

import re
from pathlib import Path

from minilpo.machine.files import write_bytes
from tests.exercises.answers import RIGHT, WRONG
from tests.exercises.test_graders import BY_NAME, judged

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


def page() -> str:
    """Writes the page from grading every answer once."""
    parts, n_right, n_wrong = [], 0, 0
    for lesson in sorted({exercise.lesson for exercise in BY_NAME.values()}):
        parts.append(f"## Lesson {lesson}\n")
        for exercise in BY_NAME.values():
            if exercise.lesson == lesson:
                parts.append(section(exercise))
                n_right += len(RIGHT[exercise.name])
                n_wrong += len(WRONG[exercise.name])
    totals = (
        f"Of {len(BY_NAME)} exercises, all {n_right} right answers were accepted and all {n_wrong} "
        "wrong ones rejected."
    )
    return "\n".join([HEADER.format(totals=totals), *parts])


def section(exercise) -> str:
    """Writes one exercise: the ways of its right answers, the messages of its wrong ones."""
    ways = RIGHT[exercise.name]
    for how, answer in ways.items():
        assert judged(exercise, answer).passed, f"{exercise.name}, {how}: isn't accepted"
    lines = [f"### `{exercise.signature}`\n", f"Accepted: {'; '.join(ways)}.\n"]
    lines += ["| rejected | what the learner is told |", "|---|---|"]
    for wrong in WRONG[exercise.name]:
        verdict = judged(exercise, wrong.answer)
        assert verdict.passed is False, f"{exercise.name}, {wrong.name}: isn't rejected"
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
    write_bytes(PAGE, page().encode())
    print(f"written: {PAGE}")
