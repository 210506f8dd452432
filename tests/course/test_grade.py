"""Grading: every notebook gets its grades, and none can do more than fail."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from minilpo.course import grade as grading
from minilpo.course import sitting
from minilpo.course.grade import difference, grade
from minilpo.course.gradebook import Gradebook, Row, as_csv, summary, table
from tests.course.notebooks import (
    BY_NAME,
    ESCAPED,
    FORGED,
    HOSTILE,
    NAME,
    PATCHED,
    RIGHT,
    WRONG,
    cell,
    inside,
    notebook,
)

LESSON = [name for name, exercise in BY_NAME.items() if exercise.lesson == 2]
QUICK = (
    "not Python",
    "raises",
    "leaves later",
    "other name",
    "crashes",
    "memory",
    "writes everywhere",
)


@pytest.fixture(scope="module")
def in_a_folder_of_ours(tmp_path_factory):
    """Temporary folders of this module lie in a folder of its own: its processes are known by it."""
    folder, before = tmp_path_factory.mktemp("temporary"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


def left_behind(folder):
    """Processes that were started with a folder of ours, and files in it, ten seconds later."""
    until = time.monotonic() + 10  # the system ends processes in its own time
    while (found := _left_now(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _left_now(folder):
    processes = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (place / "environ").read_bytes():
                processes.append(place.name)
        except OSError:  # it has ended, or isn't ours
            pass
    return processes + list(folder.iterdir())


@pytest.fixture(scope="module")
def graded(tmp_path_factory, in_a_folder_of_ours):
    """A small class, graded once: its rows by notebook, the two files, the isolation."""
    folder = tmp_path_factory.mktemp("class")
    solved = [(name, BY_NAME[name].solution_source()) for name in LESSON]
    paths = [
        notebook(folder / "right.ipynb", *solved),
        notebook(folder / "renamed.txt", *solved),
        notebook(folder / "wrong.ipynb", (NAME, WRONG)),
        notebook(
            folder / "stub.ipynb", (NAME, f"def {NAME}(l, t):\n    raise NotImplementedError")
        ),
        notebook(folder / "emptied.ipynb", (NAME, "# nothing\n\n")),
        notebook(folder / "twice.ipynb", (NAME, WRONG), (NAME, RIGHT)),
        notebook(folder / "untagged.ipynb", cell(NAME, RIGHT, tags=[])),
        notebook(folder / "half.ipynb", cell(LESSON[0], RIGHT, tags=[]), solved[1]),
        notebook(folder / "without.ipynb"),
        notebook(folder / "=cmd.ipynb", (NAME, f"{NAME} = 3")),
        notebook(folder / "long.ipynb", (NAME, "x = 1\n" * 50_000)),
        folder / "missing.ipynb",
        folder,
        folder / "right.ipynb",
        notebook(folder / "forged.ipynb", (NAME, FORGED + RIGHT)),
        notebook(folder / "patched.ipynb", (NAME, PATCHED)),
        *(notebook(folder / f"{one}.ipynb", (NAME, HOSTILE[one][0])) for one in QUICK),
    ]
    (folder / "empty.ipynb").touch()
    paths.append(folder / "empty.ipynb")
    os.environ["SECRET_OF_THE_TEACHER"] = "1234"
    reading = "import os, pathlib\nseen = [*os.environ]\nfor place in pathlib.Path('/proc').glob('[0-9]*'):\n"
    reading += "    try: seen.append((place / 'environ').read_bytes().count(b'SECRET_OF'))\n"
    reading += "    except OSError: pass\nraise ValueError(f\"{'SECRET_OF_THE_TEACHER' in seen} {sum(x for x in seen if type(x) is int)}\")"
    paths.append(notebook(folder / "curious.ipynb", (NAME, inside(reading))))
    result = grade(paths, folder / "grades.csv", seconds=30)
    del os.environ["SECRET_OF_THE_TEACHER"]
    return result, folder


def result_of(graded, file, exercise=NAME):
    [row] = [
        row
        for row in graded[0].rows
        if Path(row.notebook).name == file and row.exercise == exercise
    ]
    return row.result, row.message


def test_right_answers_pass_whatever_the_file_is_called(graded):
    for name in LESSON:
        assert result_of(graded, "right.ipynb", name)[0] == "passed"
        assert result_of(graded, "renamed.txt", name)[0] == "passed"


def test_a_wrong_answer_gets_its_message(graded):
    result, message = result_of(graded, "wrong.ipynb")
    assert result == "not yet" and "multiplied by the temperature" in message


def test_what_isnt_written_or_was_emptied_is_called_so(graded):
    assert result_of(graded, "stub.ipynb") == ("not written", "isn't written yet")
    assert result_of(graded, "emptied.ipynb") == ("not written", "isn't written yet")


def test_of_two_cells_the_last_counts_and_that_is_said(graded):
    result, message = result_of(graded, "twice.ipynb")
    assert result == "passed" and "the last of the cells with its tag" in message


def test_an_exercise_of_the_lesson_without_its_cell_isnt_found(graded):
    result, message = result_of(graded, "half.ipynb", LESSON[0])
    assert result == "not found" and "cell 1 defines it: give it the tags" in message
    assert result_of(graded, "half.ipynb", LESSON[1])[0] == "passed"
    assert result_of(graded, "wrong.ipynb", LESSON[2])[0] == "not found"


def test_a_notebook_without_exercise_cells_is_one_row(graded):
    assert result_of(graded, "without.ipynb", "")[0] == "not found"
    result, message = result_of(graded, "untagged.ipynb", "")
    assert result == "not found" and f"cells without tags define {NAME}" in message


def test_what_is_no_notebook_is_one_row(graded):
    assert result_of(graded, "missing.ipynb", "") == (
        "not readable",
        "can't be read: No such file or directory",
    )
    assert "got a folder" in result_of(graded, graded[1].name, "")[1]
    assert "an empty file" in result_of(graded, "empty.ipynb", "")[1]


def test_a_cell_that_is_too_long_isnt_run(graded):
    result, message = result_of(graded, "long.ipynb")
    assert result == "not yet" and "at most 100,000 characters" in message


def test_a_notebook_that_is_named_twice_is_graded_once(graded):
    rows = [row for row in graded[0].rows if row.notebook.endswith("right.ipynb")]
    assert [row.exercise for row in rows] == LESSON


@pytest.mark.parametrize("name", QUICK)
def test_a_cell_that_does_harm_gets_a_line_of_its_own(graded, name):
    result, message = result_of(graded, f"{name}.ipynb")
    assert result == "not yet" and HOSTILE[name][1] in message and "\n" not in message


def test_forged_answers_and_patched_checks_pass_nothing(graded):
    assert result_of(graded, "forged.ipynb")[0] == "not yet"
    assert result_of(graded, "patched.ipynb")[0] == "not yet"


def test_a_cell_finds_no_secrets_in_the_environment(graded):
    assert "it raised ValueError: False 0" in result_of(graded, "curious.ipynb")[1]


def test_nothing_is_left_behind(graded, in_a_folder_of_ours):
    assert left_behind(in_a_folder_of_ours) == []


def test_the_files_say_the_same_in_the_order_of_the_arguments(graded):
    result, folder = graded
    text = (folder / "grades.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    content = json.loads((folder / "grades.json").read_text())
    assert [row["result"] for row in rows] == [row.result for row in result.rows]
    assert [tuple(row.values()) for row in content["grades"]] == result.rows
    order = dict.fromkeys(Path(row.notebook).name for row in result.rows)
    assert list(order)[:4] == ["right.ipynb", "renamed.txt", "wrong.ipynb", "stub.ipynb"]
    assert content["isolation"] == result.isolation and content["seed"] >= 0
    assert content["limits"]["seconds_per_exercise"] == 30 and content["version"]
    [entry] = [one for one in content["notebooks"] if one["notebook"].endswith("right.ipynb")]
    assert entry["passed"] == entry["exercises"] == len(LESSON)


def test_the_table_says_how_many_passed(graded):
    text = table(graded[0].rows)
    assert f"{len(LESSON)} / {len(LESSON)}" in text and f"{NAME} not yet" in text


# One at a time


def test_a_process_that_flees_is_ended(tmp_path, in_a_folder_of_ours):
    path = notebook(tmp_path / "a.ipynb", (NAME, ESCAPED))
    rows = grade([path], tmp_path / "grades.csv", seconds=2).rows
    assert rows[0].result == "not yet"
    walls = "its own user" in json.loads((tmp_path / "grades.json").read_text())["isolation"]
    if walls:  # without, a process that leaves its group can't be found
        assert left_behind(in_a_folder_of_ours) == []


def test_a_cell_that_hears_no_alarm_is_ended(tmp_path):
    path = notebook(tmp_path / "a.ipynb", (NAME, HOSTILE["deaf"][0]))
    begun = time.monotonic()
    row = grade([path], tmp_path / "grades.csv", seconds=2).rows[0]
    assert (row.result, row.message) == (
        "not yet",
        "it took longer than 2 seconds in all and was stopped",
    )
    assert time.monotonic() - begun < 60


def test_without_walls_it_is_said_and_a_cell_that_kills_its_parent_stops_nobody(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sitting.Exam, "_try_walls", lambda self: None)
    killing = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"
    paths = [
        notebook(tmp_path / "a.ipynb", (NAME, killing + "while True: pass")),
        notebook(tmp_path / "b.ipynb", (NAME, RIGHT)),
    ]
    result = grade(paths, tmp_path / "grades.csv", seconds=20)
    assert result.isolation == sitting.NO_WALLS
    by_file = {Path(row.notebook).name: row for row in result.rows if row.exercise == NAME}
    assert "its process ended" in by_file["a.ipynb"].message
    assert by_file["b.ipynb"].result == "passed"


def test_where_nothing_can_be_forked_each_process_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "CAN_FORK", False)
    paths = [
        notebook(tmp_path / "a.ipynb", (NAME, RIGHT)),
        notebook(tmp_path / "b.ipynb", (NAME, HOSTILE["leaves later"][0])),
    ]
    result = grade(paths, tmp_path / "grades.csv", seconds=30)
    rows = [row for row in result.rows if row.exercise == NAME]
    assert rows[0].result == "passed"
    assert "its process ended, with status 3" in rows[1].message


def test_a_seed_repeats_everything_and_without_one_inputs_are_new(tmp_path):
    telling = "if logits.dim() == 2: raise ValueError(logits.sum().item())\nreturn right(logits, temperature)"
    path, out = notebook(tmp_path / "a.ipynb", (NAME, inside(telling))), tmp_path / "grades.csv"
    messages, seeds = [], [None, None]
    for place in range(3):
        messages.append(grade([path], out, seed=seeds[place]).rows[0].message)
        drawn = json.loads((tmp_path / "grades.json").read_text())["seed"]
        seeds = [*seeds, drawn] if place == 1 else seeds
    assert messages[1] == messages[2] != messages[0]


def test_changed_files_of_ours_stop_everything(tmp_path, monkeypatch):
    prints = iter([{"a.py": "1"}, {"a.py": "1"}, {"a.py": "2"}])
    monkeypatch.setattr(grading, "fingerprint", lambda: next(prints))
    paths = [notebook(tmp_path / f"{one}.ipynb", (NAME, "")) for one in "ab"]
    with pytest.raises(ValueError, match="a.py was changed while .*b.ipynb"):
        grade(paths, tmp_path / "grades.csv")
    assert "a.ipynb" in (tmp_path / "grades.csv").read_text()
    assert difference({"a.py": "1"}, {"a.py": "1", "b.py": "1"}) == "b.py"
    assert difference({"a.pyc": "1"}, {"a.pyc": "2"}) == "a.pyc"


def test_an_own_file_cant_be_changed_by_a_cell(tmp_path):
    body = "import minilpo, pathlib\nfile = pathlib.Path(minilpo.__file__)\nfile.write_text(file.read_text())"
    path = notebook(tmp_path / "a.ipynb", (NAME, inside(body)))
    result = grade([path], tmp_path / "grades.csv")
    if "files that it can't change" not in result.isolation:
        pytest.skip("this system has no such walls")
    assert "Read-only file system" in result.rows[0].message


@pytest.mark.parametrize("told", ["the main thread", "another thread"])
def test_ctrl_c_ends_all_and_keeps_what_was_written(tmp_path, in_a_folder_of_ours, told):
    """The system tells whichever thread it likes, while the main one waits."""
    done = notebook(tmp_path / "done.ipynb", (NAME, RIGHT))
    endless = notebook(tmp_path / "endless.ipynb", (NAME, HOSTILE["deaf"][0]))
    code = (
        "import sys; from pathlib import Path; from minilpo.course.grade import grade\n"
        "import signal, threading\n"
        "signal.signal(2, signal.default_int_handler)\n"  # a job in the background inherits deafness
        "def tell(): sys.stdin.read(1); signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        "try: grade([Path(one) for one in sys.argv[2:]], Path(sys.argv[1]), seconds=500)\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    out = tmp_path / "grades.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", code, out, done, endless],
        env={**os.environ, "TMPDIR": str(in_a_folder_of_ours)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and not (out.exists() and "passed" in out.read_text()):
        time.sleep(0.1)
    if told == "the main thread":
        process.send_signal(signal.SIGINT)
    else:
        process.stdin.write(b"!")
        process.stdin.flush()
    assert process.wait(timeout=60) == 130
    assert "done.ipynb" in out.read_text() and "endless.ipynb" not in out.read_text()
    assert left_behind(in_a_folder_of_ours) == []


# The files


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"paths": []}, "one notebook or more"),
        ({"jobs": 0}, "--jobs must be"),
        ({"seconds": 0.1}, "--seconds must be"),
        ({"seconds": float("nan")}, "--seconds must be"),
        ({"seed": -1}, "--seed must be"),
        ({"out": Path("grades.txt")}, "ending in .csv"),
        ({"out": Path("nowhere/grades.csv")}, "make the folder"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, changed, message):
    arguments = {"paths": [tmp_path / "a.ipynb"], "out": tmp_path / "grades.csv", **changed}
    with pytest.raises(ValueError, match=message):
        grade(**arguments)


def test_files_of_others_are_left_alone(tmp_path):
    for name in ("grades.csv", "grades.json"):
        (tmp_path / name).write_text("notebook,mine\n")
        with pytest.raises(ValueError, match="no file of grades; choose another name"):
            Gradebook(tmp_path / "grades.csv", {})
        assert (tmp_path / name).read_text() == "notebook,mine\n"
        (tmp_path / name).unlink()
    Gradebook(tmp_path / "grades.csv", {"seed": 1}).write([])
    Gradebook(tmp_path / "grades.csv", {"seed": 2}).write([])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="no file of grades"):
        Gradebook(tmp_path / "folder.csv", {})


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n@x"])
def test_no_field_is_a_formula(text):
    row = Row(text, 2, text, "passed", text, 1.0)
    [fields] = list(csv.reader(io.StringIO(as_csv([row]).decode("utf-8-sig"))))[1:]
    assert fields[0][0] == fields[2][0] == fields[4][0] == "'"
    assert not any("\n" in field or "\r" in field or "\t" in field for field in fields)


def test_half_characters_and_control_characters_can_be_written():
    text = as_csv([Row("\ud800\x1b[2J", None, "", "not found", 'a "quote", and\nmore', 0.0)])
    assert b"\x1b" not in text and b'"a ""quote"", and more"' in text


def test_a_notebook_of_nothing_counts_no_exercise():
    rows = [Row("a", None, "", "not readable", "", 0.0), Row("b", 2, "entropy", "passed", "", 1.0)]
    assert [(one["passed"], one["exercises"]) for one in summary(rows)] == [(0, 0), (1, 1)]
