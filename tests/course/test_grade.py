"""Grading: right answers get their points, and no notebook costs another anything."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from minilpo.course import grade as grading
from minilpo.course.examinee import results
from minilpo.course.grade import NO_SANDBOX, SANDBOX, grade, sandbox
from minilpo.course.gradebook import Row, as_csv, points, table, texts_of, write
from minilpo.course.lessons import LESSONS, copy_lessons
from minilpo.machine.files import work_in
from tests.course.notebooks import (
    BY_NAME,
    ESCAPED,
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
    inside,
    notebook,
)

LESSON = [name for name, exercise in BY_NAME.items() if exercise.lesson == 2]
SOLVED = [(name, BY_NAME[name].solution_source()) for name in LESSON]


@pytest.fixture(scope="module")
def in_a_folder_of_ours(tmp_path_factory):
    """Temporary folders of this module lie in a folder of its own: its processes are known by it."""
    folder, before = tmp_path_factory.mktemp("temporary"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


def left_behind(folder):
    """Processes that were started with a folder of ours, and files in it, ten seconds later."""
    for _ in range(100):  # the system ends processes in its own time
        found = list(folder.iterdir())
        for place in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended, or isn't ours
                found += [place] if str(folder).encode() in place.read_bytes() else []
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def graded(tmp_path_factory, in_a_folder_of_ours):
    """A small class, graded once: its rows, the sentence, the folder."""
    folder = tmp_path_factory.mktemp("class")
    curious = f"def {LESSON[1]}(probs):\n    import os\n    raise ValueError('SECRET_OF_THE_TEACHER' in os.environ)"
    paths = [
        notebook(folder / "ann" / "2.ipynb", *SOLVED),
        notebook(folder / "bob" / "2.ipynb", (NAME, WRONG), *SOLVED[1:]),
        notebook(folder / "stub.ipynb", (NAME, STUB), (LESSON[1], "# emptied\n")),
        notebook(folder / "without.ipynb", "x = 1"),
        notebook(folder / "=cmd.ipynb", (NAME, f"import gc\n{RIGHT}"), (LESSON[1], curious)),
        notebook(folder / "harm.ipynb", (NAME, HOSTILE["leaves"][0]), *SOLVED[1:]),
        notebook(folder / "late.ipynb", *SOLVED[:2], (LESSON[2], "import os\nos._exit(3)")),
    ]
    (folder / "empty.ipynb").touch()
    os.environ["SECRET_OF_THE_TEACHER"] = "1234"
    paths += [folder / "empty.ipynb", folder / "ann" / ".." / "ann" / "2.ipynb"]
    rows, how = grade(paths, folder / "grades.csv", seconds=30)
    del os.environ["SECRET_OF_THE_TEACHER"]
    return rows, how, folder


def of(graded, file, exercise=NAME):
    rows = [row for row in graded[0] if row.notebook.endswith(file) and row.exercise == exercise]
    assert len(rows) == 1
    return rows[0]


def test_each_exercise_gets_its_result_and_a_process_that_ends_costs_only_one(graded):
    expected = {
        "ann/2": [PASSED] * 3,
        "bob/2": [NOT_YET, PASSED, PASSED],
        "stub": [NOT_WRITTEN, NOT_WRITTEN, "not found"],
        "harm": [NOT_YET, PASSED, PASSED],
        "late": [PASSED, PASSED, NOT_YET],
        "without": ["not found"],
        "empty": ["not readable"],
    }
    for name, of_each in expected.items():
        rows = [row for row in graded[0] if row.notebook.endswith(f"{name}.ipynb")]
        assert [row.result for row in rows] == of_each
    for name, message in {
        "bob/2": "multiplied by the temperature",
        "stub": "isn't written yet",
        "harm": "ended with status 0 instead of answering",
    }.items():
        assert message in of(graded, f"{name}.ipynb").message
    assert "an empty file" in of(graded, "empty.ipynb", "").message


def test_a_cell_that_touches_what_could_tamper_with_the_check_is_named(graded):
    row = of(graded, "=cmd.ipynb")
    assert (row.result, row.touches) == (PASSED, "gc")
    assert f"look at {NAME}: touches gc" in table(graded[0])
    assert of(graded, "ann/2.ipynb").touches == ""


def test_a_cell_finds_no_secrets_in_the_environment_and_nothing_is_left_behind(
    graded, in_a_folder_of_ours
):
    assert "it raised ValueError: False" in of(graded, "=cmd.ipynb", LESSON[1]).message
    assert left_behind(in_a_folder_of_ours) == []


def test_the_files_say_the_same_in_the_order_of_the_arguments(graded):
    rows, how, folder = graded
    text = (folder / "grades.csv").read_text(encoding="utf-8-sig")
    assert [row["result"] for row in csv.DictReader(io.StringIO(text))] == [r.result for r in rows]
    assert re.fullmatch(r"with --seed \d+, (in bubblewrap|without a sandbox).*", how)
    order = [Path(row.notebook).parent.name for row in rows if row.notebook.endswith("/2.ipynb")]
    assert order == ["ann"] * 3 + ["bob"] * 3


def test_each_student_has_a_row_with_points_and_a_text(graded):
    _, _, folder = graded
    text = (folder / "grades_students.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    counts = [(row["points"], row["exercises"]) for row in rows[:3]]
    assert counts == [("3", "3"), ("2", "3"), ("0", "3")]
    texts = {path.stem[-5:]: path.read_text() for path in (folder / "grades_texts").iterdir()}
    assert len(texts) == len(rows) and "3 of 3 passed" in texts["ann_2"]
    assert "multiplied by the temp" in texts["bob_2"] and "entropy: passed" in texts["bob_2"]


# What the notebook sees


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Grades cells in this process: the row of an exercise."""
    monkeypatch.setitem(sys.modules, "__main__", None)

    def judge(*cells, name=NAME, seed=1):
        first, *graded = results(notebook(tmp_path / "a.ipynb", *cells).read_bytes(), seed)
        one = graded[first["exercises"].index(name)]
        return one["result"], one["message"]

    return judge


@pytest.mark.parametrize("name", EVERYDAY)
def test_whatever_is_right_in_the_lesson_is_right_here(name, judged):
    result, message = judged(*EVERYDAY[name])
    assert result == PASSED, message


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - set(HARM)))
def test_what_is_wrong_with_a_cell_is_one_line(name, judged):
    result, message = judged((NAME, HOSTILE[name][0]))
    assert result == NOT_YET and HOSTILE[name][1] in message and "\n" not in message


def test_a_line_that_raised_is_said(judged):
    _, message = judged(*EVERYDAY["a trial at the end"])
    assert message.startswith("(line ") and "of the cell raised NameError: name 'logits'" in message


def test_a_function_that_calls_an_earlier_exercise_gets_what_the_check_leaves_there(judged):
    """The lesson goes on with the right function where the student's is wrong or missing."""
    calls = f"def entropy(probs):\n    p = {NAME}(probs.log(), 1.0)\n    return torch.special.entr(p).sum(-1)"
    assert judged((NAME, RIGHT), ("entropy", calls), name="entropy")[0] == PASSED
    result, message = judged((NAME, STUB), ("entropy", calls), name="entropy")
    assert result == NOT_YET and "minilpo's own right" in message


# Sandbox and processes


def test_the_sandbox_has_no_network_no_files_of_the_teacher_and_no_sockets(tmp_path):
    if not sandbox()[0]:
        pytest.skip("bubblewrap isn't installed, or doesn't work here")
    import minilpo

    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    body = f"""
    import os, pathlib, socket
    seen = [str(p) for p in ({str(tmp_path)!r}, "/etc/passwd", "/run", "/root") if os.path.exists(p)]
    try:
        pathlib.Path({minilpo.__file__!r}).touch()
    except OSError as error:
        seen.append(error.strerror)
    try:
        socket.create_connection(("127.0.0.1", {port}))
    except OSError as error:
        seen.append(error.strerror)
    seen.append(len([p for p in os.listdir("/proc") if p.isdigit()]) < 5)
    raise ValueError(seen)
    """
    [row, *_], how = grade(
        [notebook(tmp_path / "a.ipynb", (NAME, inside(body)))], tmp_path / "g.csv"
    )
    server.close()
    assert how.endswith(SANDBOX)
    home = "'/root', " if str(sys.base_prefix).startswith("/root") else ""
    assert f"[{home}'Read-only file system', 'Connection refused', True]" in row.message


def test_where_there_is_no_sandbox_that_is_said_and_a_container_named(tmp_path, monkeypatch):
    monkeypatch.setattr(grading.shutil, "which", lambda name: None)
    killing = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"
    path = notebook(tmp_path / "a.ipynb", (NAME, killing), *SOLVED[1:])
    rows, how = grade([path], tmp_path / "grades.csv")
    assert how.endswith(NO_SANDBOX) and "container" in how
    assert "ended by SIGTERM" in rows[0].message and rows[1].result == PASSED


def test_a_sandbox_that_fails_is_said(monkeypatch):
    monkeypatch.setattr(grading.shutil, "which", lambda name: "/bin/bwrap")
    failed = subprocess.CompletedProcess([], 1, "", "No permissions to create a namespace\n")
    monkeypatch.setattr(grading.subprocess, "run", lambda *words, **options: failed)
    assert sandbox() == ([], f"{NO_SANDBOX}, which is there but fails: {failed.stderr.strip()}")


def test_processes_that_flee_are_ended_with_the_sandbox(tmp_path, in_a_folder_of_ours):
    path = notebook(tmp_path / "a.ipynb", (NAME, ESCAPED))
    rows, how = grade([path], tmp_path / "grades.csv", seconds=2)
    assert rows[0].message == "it took longer than 2 seconds in all and was stopped"
    if how.endswith(SANDBOX):  # without, a process that leaves its group can't be found
        assert left_behind(in_a_folder_of_ours) == []


def test_a_seed_repeats_everything_and_another_one_gives_new_inputs(judged):
    telling = "if logits.dim() == 2: raise ValueError(logits.sum().item())\nreturn right(logits, temperature)"
    first, again, other = (judged((NAME, inside(telling)), seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_ctrl_c_ends_all_and_keeps_what_was_written(tmp_path):
    folder = tmp_path / "of ours"  # and not of processes that have fled above
    folder.mkdir()
    done = notebook(tmp_path / "done.ipynb", (NAME, RIGHT))
    endless = notebook(tmp_path / "endless.ipynb", (NAME, HOSTILE["deaf"][0]))
    code = (
        "import signal, sys\nfrom minilpo.cli import main\n"
        "signal.signal(2, signal.default_int_handler)\n"  # a job in the background is deaf
        "sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "grades.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "grade", done, endless, "--out", out, "--seconds", "500"],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and not (out.exists() and "passed" in out.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "done.ipynb" in out.read_text() and "endless.ipynb" not in out.read_text()
    assert left_behind(folder) == []


# Arguments and files


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"paths": [Path("no*.ipynb")]}, "NOTEBOOK must be a file that is there, got no"),
        ({"paths": [Path(".")]}, "NOTEBOOK must be a file"),
        ({"out": Path("grades.txt")}, "ending in .csv"),
        ({"out": Path("nowhere/grades.csv")}, "in a folder that is there"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, changed, message):
    path = notebook(tmp_path / "a.ipynb")
    with pytest.raises(ValueError, match=message):
        grade(**{"paths": [path], "out": tmp_path / "grades.csv", **changed})
    assert list(tmp_path.iterdir()) == [path]


def test_a_pattern_is_expanded_where_the_shell_did_not(tmp_path):
    paths = [notebook(tmp_path / "in" / f"{name}.ipynb") for name in "ab[1]"]
    pattern = tmp_path / "in" / "*.ipynb"
    assert grading.expanded([pattern, paths[0]]) == sorted(paths)
    assert grading.expanded([paths[2]]) == [paths[2]]


def test_files_of_others_and_links_are_left_alone(tmp_path):
    mine, out, row = tmp_path / "mine", tmp_path / "g.csv", Row("a.ipynb", "", "", "", "", 0.0)
    paths = [Path("a.ipynb")]
    [text] = texts_of(out, paths).values()
    text.parent.mkdir()
    mine.write_text("notebook,mine\n")
    for path in (out, tmp_path / "g_students.csv", text):
        for make in (
            *(lambda p: p.write_text("mine"), Path.mkdir),
            *(lambda p: p.symlink_to(mine), lambda p: p.symlink_to(tmp_path / "nowhere")),
        ):
            make(path)
            with pytest.raises(ValueError, match="no link and nothing that others have written"):
                texts_of(out, paths)
            path.rmdir() if path.is_dir() else path.unlink()
    text.parent.rmdir()
    text.parent.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is; choose another name"):
        texts_of(out, paths)
    text.parent.unlink()
    text.parent.mkdir()
    for _ in range(2):  # our own files are replaced
        write(out, texts_of(out, paths), [row])
    assert mine.read_text() == "notebook,mine\n"


def test_a_second_grading_to_the_same_file_is_told_so_and_nothing_is_run_if_it_cant_be_written(
    tmp_path, monkeypatch
):
    path, out = notebook(tmp_path / "a.ipynb", (NAME, RIGHT)), tmp_path / "grades.csv"
    with work_in(tmp_path / "grades_texts"), pytest.raises(ValueError, match="another one"):
        grade([path], out)

    def full(place, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minilpo.course.gradebook.write_bytes", full)
    monkeypatch.setattr(grading, "rows_of", lambda *words, **named: pytest.fail("it was run"))
    with pytest.raises(OSError, match="No space"):
        grade([path], out)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n@x"])
def test_no_field_is_a_formula(text):
    row = Row(text, 2, text, "passed", text, 1.0)
    [fields] = list(csv.reader(io.StringIO(as_csv([], [row]).decode("utf-8-sig"))))[1:]
    assert fields[0][0] == fields[2][0] == fields[4][0] == "'"
    assert not any("\n" in field or "\r" in field or "\t" in field for field in fields)


def test_half_characters_and_control_characters_can_be_written():
    row = Row("\ud800\x1b[2J", "", "", "not found", 'a "quote", and\nmore', 0.0)
    text = as_csv(Row._fields, [row])
    assert b"\x1b" not in text and b'"a ""quote"", and more"' in text


def test_a_notebook_of_nothing_counts_no_exercise():
    rows = [Row("a", "", "", "not readable", "", 0.0), Row("b", 2, "entropy", "passed", "", 1.0)]
    assert points(rows) == [("a", 0, 0), ("b", 1, 1)]


# A class of thirty: right, wrong, endless, harmful, empty

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
    rows, how = grade(list(class_), tmp_path / "grades.csv", seed=0, seconds=12)
    seconds = time.monotonic() - begun
    print(table(rows), f"\n{len(class_)} notebooks in {seconds:.0f} seconds, {how}")
    assert {row.notebook for row in rows} == set(map(str, class_))
    for row in rows:
        if row.result != "not found":  # the other exercises of the lesson
            assert row.result == class_[Path(row.notebook)], row
    assert sum(row.result == PASSED for row in rows) == len(BY_NAME) + len(RIGHT_WAYS)
    messages = {Path(row.notebook).stem: row.message for row in rows if row.exercise == NAME}
    for name in HARM:
        assert HOSTILE[name][1] in messages[name], messages[name]
