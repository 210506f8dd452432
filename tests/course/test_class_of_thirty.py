"""A class of thirty hands in, and is graded in one go: right, wrong, endless, harmful, empty."""

import json
import time
from pathlib import Path

import pytest

from minilpo.course.grade import grade
from minilpo.course.gradebook import table
from minilpo.course.lessons import LESSONS, copy_lessons
from tests.course.notebooks import (
    BY_NAME,
    EVERYDAY,
    HARM,
    HOSTILE,
    NAME,
    NOT_WRITTEN,
    NOT_YET,
    PASSED,
    RIGHT,
    STUB,
    WRONG,
    cell,
    notebook,
)

# Lesson 9 by its hint and by its own import.
BY_HINT = {
    "final_answer": "def final_answer(response):\n"
    "    numbers = re.findall('[0-9]+', response)\n"
    "    return numbers[-1] if numbers else None\n",
    "majority_vote": "def majority_vote(answers):\n"
    "    votes = Counter(answer for answer in answers if answer is not None)\n"
    "    return votes.most_common(1)[0][0] if votes else None\n",
}
RIGHT_WAYS = (
    *("tags lost", "Windows line ends", "right, then the stub again", "%%time", "!pip"),
    *("a trial at the end", "a helper above", "split"),
)
OTHERS = {
    "wrong": (WRONG, NOT_YET),
    "stub": (STUB, NOT_WRITTEN),
    "emptied": ("# later\n", NOT_WRITTEN),
    "renamed": (RIGHT.replace(NAME, "softmax"), NOT_YET),
}


def solved_lesson(path):
    """The lesson's own notebook with the solutions in their cells."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"].insert(0, cell("", "import re", tags=[]))
    for one in content["cells"]:
        for name in set(one["metadata"].get("tags", [])) & set(BY_NAME):
            source = BY_HINT.get(name) or BY_NAME[name].solution_source()
            one["source"] = source.splitlines(keepends=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def handed_in(folder):
    """The notebooks, each with the result of its exercises that are there."""
    copy_lessons(folder)
    class_ = {solved_lesson(folder / lesson.file): PASSED for lesson in LESSONS}
    for name in RIGHT_WAYS:
        class_[notebook(folder / f"{name}.ipynb", *EVERYDAY[name])] = PASSED
    for name, (source, result) in OTHERS.items():
        class_[notebook(folder / f"{name}.ipynb", (NAME, source))] = result
    for name in HARM:
        class_[notebook(folder / f"{name}.ipynb", (NAME, HOSTILE[name][0]))] = NOT_YET
    (folder / "empty.ipynb").touch()
    return {**class_, folder / "empty.ipynb": "not readable"}


@pytest.mark.slow
def test_a_class_of_thirty_is_graded_in_one_go_and_no_right_answer_fails(tmp_path):
    class_ = handed_in(tmp_path)
    assert len(class_) >= 30
    begun = time.monotonic()
    rows, isolation = grade(list(class_), tmp_path / "grades.csv", seed=0, seconds=12)
    seconds = time.monotonic() - begun
    print(table(rows), f"\n{len(class_)} notebooks in {seconds:.0f} seconds, {isolation}")
    assert {row.notebook for row in rows} == set(map(str, class_))
    for row in rows:
        if row.result != "not found":  # the other exercises of the lesson
            assert row.result == class_[Path(row.notebook)], row
    assert sum(row.result == PASSED for row in rows) == len(BY_NAME) + len(RIGHT_WAYS)
    messages = {Path(row.notebook).stem: row.message for row in rows if row.exercise == NAME}
    for name in HARM:
        assert HOSTILE[name][1] in messages[name], messages[name]
