"""A class of thirty hands in, and is graded in one go: right, wrong, endless, hostile, empty."""

import importlib
import inspect
import itertools
import sys
import time
from pathlib import Path

import pytest

from minilpo import exercises
from minilpo.course.grade import grade
from minilpo.course.gradebook import table
from tests.course.notebooks import BY_NAME, HOSTILE, NAME, RIGHT, notebook
from tests.exercises.answers import RIGHT as RIGHT_ANSWERS
from tests.exercises.answers import WRONG as WRONG_ANSWERS

for file in sorted((Path(__file__).parents[1] / "exercises" / "answers").glob("[a-z]*.py")):
    importlib.import_module(f"tests.exercises.answers.{file.stem}")

LESSONS = sorted({exercise.lesson for exercise in exercises.ALL})
BEGIN = """
found = {}
def right(exercise, how):
    def mark(answer):
        found[exercise, how] = answer
        return answer
    return mark
def wrong(exercise, name, message):
    return right(exercise, name)
"""


def names_of(lesson):
    return [exercise.name for exercise in exercises.ALL if exercise.lesson == lesson]


def solved(lesson):
    return [(name, BY_NAME[name].solution_source()) for name in names_of(lesson)]


def as_cell(name, how, answer):
    """An answer of the tests as a cell: all of its file, and the name at the end."""
    source = inspect.getsource(sys.modules[answer.__module__])
    lines = [line for line in source.splitlines() if not line.startswith("from tests")]
    # In names of its own: a helper there may be called as the exercise is.
    begin = f"names = {{'__name__': 'answers'}}\nexec({BEGIN + chr(10).join(lines)!r}, names)\n"
    return f"{begin}{name} = names['found'][{name!r}, {how!r}]\n"


def right_ones(lesson, way):
    """The answers of the tests to a lesson's exercises, each written in the first or second way."""
    for name in names_of(lesson):
        how = list(RIGHT_ANSWERS[name])[way]
        yield name, as_cell(name, how, RIGHT_ANSWERS[name][how])


def wrong_ones(lesson, number):
    for name in names_of(lesson):
        wrong = WRONG_ANSWERS[name][number]
        yield name, as_cell(name, wrong.name, wrong.answer)


def stubs(lesson):
    for name in names_of(lesson):
        yield name, f"def {name}(*arguments):\n    raise NotImplementedError\n"


def handed_in(folder):
    """Thirty notebooks, and what is to come of each exercise."""
    answered = [
        lesson
        for lesson in LESSONS
        if all(name in RIGHT_ANSWERS and name in WRONG_ANSWERS for name in names_of(lesson))
    ]
    turn = itertools.cycle(answered)
    class_ = {f"solution {lesson}": (solved(lesson), "passed") for lesson in LESSONS}
    for number in range(6):
        class_[f"right {number}"] = (list(right_ones(next(turn), number % 2)), "passed")
    for number in range(4):
        class_[f"wrong {number}"] = (list(wrong_ones(next(turn), number)), "not yet")
    for name in ("endless", "endless outside", "forges", "patches", "escapes", "deaf", "leaves"):
        class_[f"hostile {name}"] = ([(NAME, HOSTILE[name][0])], "not yet")
    class_["stub"] = (list(stubs(3)), "not written")
    for number in range(29 - len(class_)):
        class_[f"last {number}"] = (solved(LESSONS[number % len(LESSONS)]), "passed")
    paths = [notebook(folder / f"{name}.ipynb", *cells) for name, (cells, _) in class_.items()]
    (folder / "empty.ipynb").touch()
    return [*paths, folder / "empty.ipynb"], class_


@pytest.mark.slow
def test_a_class_of_thirty_is_graded_in_one_go(tmp_path):
    paths, class_ = handed_in(tmp_path)
    assert len(paths) == 30
    begun = time.monotonic()
    rows = grade(paths, tmp_path / "grades.csv", seed=0, seconds=20).rows
    seconds = time.monotonic() - begun
    print(table(rows), f"\n{sum(row.seconds > 0 for row in rows)} cells in {seconds:.0f} seconds")
    for row in rows:
        name = Path(row.notebook).stem
        if name == "empty":
            assert row.result == "not readable"
            continue
        cells, result = class_[name]
        expected = result if row.exercise in dict(cells) else "not found"
        assert row.result == expected, row
    assert {Path(row.notebook).stem for row in rows} == {path.stem for path in paths}


@pytest.mark.slow
def test_every_cell_that_does_harm_gets_a_line_of_its_own(tmp_path):
    paths = {
        name: notebook(tmp_path / f"{name}.ipynb", (NAME, source))
        for name, (source, _) in HOSTILE.items()
    }
    paths["right"] = notebook(tmp_path / "right.ipynb", (NAME, RIGHT))
    rows = grade(list(paths.values()), tmp_path / "grades.csv", seconds=12).rows
    by_name = {Path(row.notebook).stem: row for row in rows if row.exercise == NAME}
    assert by_name["right"].result == "passed"
    for name, (_, message) in HOSTILE.items():
        assert by_name[name].result == "not yet" and message in by_name[name].message, by_name[name]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_answers_are_judged_as_they_are_in_the_lesson(tmp_path, lesson):
    """Right ones pass and wrong ones get their message, although they are in another process."""
    expected, paths = {}, []
    for name in names_of(lesson):
        answers = [(how, answer, "passed", "") for how, answer in RIGHT_ANSWERS[name].items()]
        answers += [(one.name, one.answer, "not yet", one.message) for one in WRONG_ANSWERS[name]]
        for how, answer, result, message in answers:
            stem = f"{name} {len(paths)}"
            expected[stem] = (name, result, message)
            cell = (name, as_cell(name, how, answer))
            paths.append(notebook(tmp_path / f"{stem}.ipynb", cell))
    for row in grade(paths, tmp_path / "grades.csv", seed=0, seconds=40).rows:
        name, result, message = expected[Path(row.notebook).stem]
        if row.exercise == name:
            assert row.result == result and message in row.message, row
