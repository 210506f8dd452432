"""The course's commands, run from outside."""

import pytest

from minilpo.cli import main
from minilpo.course.lessons import LESSONS
from tests.outside import fails

pytest.importorskip("nbformat")


def test_lessons_are_copied_and_the_learners_own_work_is_kept(tmp_path, capsys):
    place = tmp_path / "mine"
    assert main(["tutorials", str(place)]) == 0
    assert "jupyter lab" in capsys.readouterr().out
    (place / LESSONS[1].file).write_text("solved")
    assert main(["tutorials", str(place)]) == 0
    said = capsys.readouterr().out
    assert f"kept yours: {LESSONS[1].file}" in said and said.startswith("0 files copied")
    assert (place / LESSONS[1].file).read_text() == "solved"
    assert not (place / "grading.md").exists()
    assert main(["tutorials", str(place), "--teacher"]) == 0
    assert (place / "grading.md").is_file()


def test_grading_prints_a_table_and_says_what_stood_between(tmp_path, capsys):
    assert main(["tutorials", str(tmp_path / "class")]) == 0
    capsys.readouterr()
    notebook = tmp_path / "class" / LESSONS[4].file
    assert main(["grade", str(notebook), "--out", str(tmp_path / "grades.csv"), "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert "0 / 2" in said and "best_worst_pairs not written" in said
    assert "graded with --seed 1, " in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "argument --jobs: must be from 1 to 64, got 0"),
        (["--seconds", "0"], "argument --seconds: must be from 1 to 3,600, got 0"),
        (["--out", "grades.txt"], "must be a name ending in .csv"),
        (["missing.ipynb"], "NOTEBOOK must be a file that is there, got missing.ipynb"),
    ],
)
def test_bad_words_are_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ipynb").touch()
    assert message in fails(capsys, "grade", "a.ipynb", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]


def test_the_doctors_verdict_is_the_exit_status(monkeypatch, capsys):
    for status in (0, 1):
        monkeypatch.setattr("minilpo.doctor.report", lambda *_, status=status: status)
        assert main(["doctor"]) == status


def test_a_solved_lesson_runs_as_a_notebook_program_would(tmp_path):
    """The sixth needs no language model. All lessons, unsolved too, take minutes: `.ci/run`."""
    from tests.course.run_lessons import run

    assert main(["tutorials", str(tmp_path)]) == 0
    said = run(tmp_path, LESSONS[5], True, write=False)
    assert not said.startswith("failed"), said
