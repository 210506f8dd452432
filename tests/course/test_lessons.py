"""What every lesson has; that they run is shown by `run_lessons.py`, which takes minutes."""

import ast
import base64
import json
import re
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import minilpo
from minilpo import exercises
from minilpo.cli import COMMANDS, RUN, make_parser
from minilpo.config import SECTIONS
from minilpo.course.examinee import results
from minilpo.course.lessons import FOR_STUDENTS, FOR_TEACHERS, LESSONS, copy_lessons, folder
from minilpo.flags import given

nbformat = pytest.importorskip("nbformat", reason="lessons are read with the extra `tutorials`")
from tests.course.run_lessons import fingerprint, solved, time_line  # noqa: E402

TUTORIALS = Path(minilpo.__file__).parent.parent / "tutorials"
BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}


def notebook_of(lesson):
    return nbformat.read(TUTORIALS / lesson.file, as_version=4)


def code_cells(notebook, tag=None):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def exercise_cells(notebook):
    """The stubs, by the name of their exercise."""
    cells = {}
    for cell in code_cells(notebook, "exercise"):
        [name] = set(cell.metadata.tags) & set(BY_NAME)
        cells[name] = cell
    return cells


every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


@every_lesson
def test_the_outputs_are_of_this_version_and_of_these_cells(lesson):
    notebook = notebook_of(lesson)
    made = notebook.metadata.minilpo
    assert made == {"version": minilpo.__version__, "sources": fingerprint(notebook)}


@every_lesson
def test_what_a_lesson_prints_of_the_library_is_what_stands_there(lesson):
    files = Path(minilpo.__file__).parent.rglob("*.py")
    there = {
        line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines()
    }
    for cell in code_cells(notebook_of(lesson)):
        if "inspect.getsource" in cell.source:
            text = "".join(out.get("text", "") for out in cell.outputs)
            shown = {line.strip() for line in text.splitlines()}
            assert text.strip() and shown <= {*there, "", "..."}


@every_lesson
def test_every_cell_was_run_in_order_and_none_shows_an_error(lesson):
    cells = code_cells(notebook_of(lesson))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for out in cell.outputs:
            assert out.output_type != "error" and out.get("name") != "stderr"
            assert "Traceback" not in out.get("text", "")


@every_lesson
def test_a_lesson_is_small_and_names_no_machine(lesson):
    path = TUTORIALS / lesson.file
    assert path.stat().st_size < 1_000_000
    notebook = notebook_of(lesson)
    for cell in code_cells(notebook):
        for out in cell.outputs:
            text = out.get("text", "") + str(out.get("data", {}).get("text/plain", ""))
            assert not re.search(r"/tmp/|/home/|/root/|/Users/|ipykernel_", text), text


@every_lesson
def test_every_figure_is_described_in_words(lesson):
    n_figures = 0
    for cell in code_cells(notebook_of(lesson)):
        for out in cell.outputs:
            if "image/png" in out.get("data", {}):
                n_figures += 1
                words = out.metadata["image/png"]["alt"]
                assert len(words) > 40
                printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
                assert words in printed
                assert base64.b64decode(out.data["image/png"])[:4] == b"\x89PNG"
    assert n_figures >= 1


@every_lesson
def test_a_lesson_says_at_its_top_what_it_is_and_how_long_it_takes(lesson):
    top = notebook_of(lesson).cells[0].source
    assert top.startswith(f"# {lesson.number}. {lesson.title}\n")
    assert time_line(lesson) in top.splitlines() and 0 < lesson.seconds <= 120


@every_lesson
def test_a_lesson_has_its_parts(lesson):
    notebook = notebook_of(lesson)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert len(code_cells(notebook, "setup")) == 1
    assert len(code_cells(notebook, "slide")) == 1
    assert len(code_cells(notebook, "misconception")) == 1
    assert len(re.findall(r"^\w*guess\w* = None", text, re.MULTILINE)) >= 2
    assert text.count("compare(") >= 2
    for heading in ("## Summary", "## A misconception", "## Where to read on"):
        assert heading in text


@every_lesson
def test_a_lesson_has_the_exercises_of_its_number(lesson):
    of_lesson = {name for name, exercise in BY_NAME.items() if exercise.lesson == lesson.number}
    notebook = notebook_of(lesson)
    cells = exercise_cells(notebook)
    assert set(cells) == of_lesson and 2 <= len(of_lesson) <= 5
    text = "\n".join(cell.source for cell in code_cells(notebook))
    for name in of_lesson:
        assert f"exercises.{name}.check(" in text


@every_lesson
def test_a_stub_has_the_arguments_of_its_exercise_and_nothing_of_the_solution(lesson):
    for name, cell in exercise_cells(notebook_of(lesson)).items():
        [defined] = [
            node
            for node in ast.parse(cell.source).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        solution = ast.parse(BY_NAME[name].solution_source()).body[-1]
        assert defined.name == solution.name
        if isinstance(defined, ast.FunctionDef):
            assert [a.arg for a in defined.args.args] == [a.arg for a in solution.args.args]
        assert "raise NotImplementedError" in cell.source


@every_lesson
def test_outside_of_exercises_nothing_of_the_library_is_defined_anew(lesson):
    for cell in code_cells(notebook_of(lesson)):
        if "exercise" in cell.metadata.get("tags", []):
            continue
        defined = {
            n.name for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.FunctionDef)
        }
        assert not defined & set(minilpo.__all__) and not defined & set(BY_NAME)


MAP = (TUTORIALS / "README.md").read_text(encoding="utf-8")


@every_lesson
def test_the_map_names_the_lesson_with_its_time_and_its_exercises(lesson):
    [row] = [line for line in MAP.splitlines() if line.startswith(f"| {lesson.number} | [")]
    assert f"[{lesson.title}]({lesson.file})" in row and f"| {lesson.seconds:g} s |" in row
    named = set(re.findall(r"`(\w+)`", row))
    assert named == {name for name, exercise in BY_NAME.items() if exercise.lesson == lesson.number}


def commands_in(text):
    """Those in backticks and those at the beginning of a line in a block of code, as words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`minilpo\s+([^`]+)`", rest)
    for block in blocks:
        found += re.findall(r"^minilpo +(.+)$", block, re.MULTILINE)
    return [shlex.split(command, comments=True) for command in found]


def completed(words):
    """With what a mention may leave out, or shows by a word in capitals: what it works on."""
    words = ["all" if word.isupper() else word for word in words]
    if RUN in COMMANDS[words[0]][2] and "--run" not in words:
        words += ["--run", "all"]
    if words in (["reproduce"], ["grade"]):
        words += ["all"]
    return words


def test_every_minilpo_command_on_the_pages_and_in_the_lessons_is_one_that_the_parser_takes():
    texts = {page.name: page.read_text(encoding="utf-8") for page in TUTORIALS.glob("*.md")}
    for lesson in LESSONS:
        cells = [cell for cell in notebook_of(lesson).cells if cell.cell_type == "markdown"]
        texts[lesson.file] = "\n\n".join(cell.source for cell in cells)
    found = [(where, words) for where, text in texts.items() for words in commands_in(text)]
    assert len(found) >= 30 and {"README.md", LESSONS[9].file} <= {where for where, _ in found}
    for where, words in found:
        assert words[0] in COMMANDS, (where, words)
        try:
            args = make_parser().parse_args(completed(words))
            for name, section in SECTIONS.items():
                section(**given(args, name))  # whether there is a loss of that name, these know
        except (SystemExit, ValueError) as error:
            pytest.fail(f"{where}: minilpo {' '.join(words)}: {error}")


@every_lesson
def test_the_figure_for_the_projector_is_that_of_the_lesson(lesson):
    [cell] = code_cells(notebook_of(lesson), "slide")
    [figure] = [out for out in cell.outputs if "image/png" in out.get("data", {})]
    slide = TUTORIALS / "figures" / f"lesson_{lesson.number:02}.png"
    assert base64.b64decode(figure.data["image/png"]) == slide.read_bytes()


@every_lesson
def test_stubs_are_not_written_and_solutions_in_their_place_pass_when_graded(lesson, monkeypatch):
    """Also a class that begins as its stub does, with its base class."""
    monkeypatch.setitem(sys.modules, "__main__", None)
    notebook = notebook_of(lesson)
    for result in ("not written", "passed"):
        first, *graded = results(nbformat.writes(notebook).encode(), seed=3)
        of_lesson = {name for name, one in BY_NAME.items() if one.lesson == lesson.number}
        assert set(first["exercises"]) == of_lesson and len(graded) == len(of_lesson)
        assert [one["message"] for one in graded if one["result"] != result] == []
        solved(notebook)
        for cell in notebook.cells:
            cell.source = cell.source.replace("class WordCountTask:", "class WordCountTask(Task):")


def test_copied_lessons_hold_no_outputs_and_run_the_same_cells(tmp_path):
    copied = copy_lessons(tmp_path / "lessons")
    assert copied.new == list(FOR_STUDENTS)
    for lesson in LESSONS:
        mine = json.loads((tmp_path / "lessons" / lesson.file).read_text(encoding="utf-8"))
        theirs = json.loads((folder() / lesson.file).read_text(encoding="utf-8"))
        assert [c["source"] for c in mine["cells"]] == [c["source"] for c in theirs["cells"]]
        assert not any(cell.get("outputs") for cell in mine["cells"])


@pytest.mark.parametrize("teacher", [False, True])
def test_what_is_copied_is_a_list_in_which_every_link_of_a_page_leads_somewhere(tmp_path, teacher):
    """And not whatever lies in the folder: checkpoints, a teacher's solved notebook."""
    copy_lessons(tmp_path, teacher)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {*FOR_STUDENTS, *(FOR_TEACHERS if teacher else ())}
    for page in tmp_path.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            is_there = (tmp_path / target).is_file() or target.startswith("https://")
            assert is_there, (page.name, target)


def test_the_wheel_holds_the_lessons_and_pages_of_the_list():
    text = (TUTORIALS.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'^"tutorials/(\S+)" = "minilpo/tutorials/\1"$', text, re.MULTILINE)
    assert listed == [*FOR_STUDENTS, *FOR_TEACHERS]


def test_copying_again_never_touches_what_is_there(tmp_path):
    first = copy_lessons(tmp_path)
    mine, link = tmp_path / LESSONS[0].file, tmp_path / LESSONS[1].file
    mine.write_text("my own work")
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    (tmp_path / LESSONS[2].file).unlink()
    second = copy_lessons(tmp_path)
    assert second.kept == [LESSONS[0].file, LESSONS[1].file] and second.new == [LESSONS[2].file]
    assert len(second.same) == len(first.new) - 3
    assert mine.read_text() == "my own work" and not (tmp_path / "nowhere").exists()


def test_several_may_copy_to_one_folder_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(copy_lessons, [tmp_path / "here"] * 8))
    assert all(not one.kept and len(one.new + one.same) == len(FOR_STUDENTS) for one in copies)


def test_lessons_are_not_copied_into_a_file(tmp_path):
    (tmp_path / "here").write_text("mine")
    with pytest.raises(ValueError, match="must go into a folder, but .* is something else"):
        copy_lessons(tmp_path / "here")
    assert (tmp_path / "here").read_text() == "mine"
