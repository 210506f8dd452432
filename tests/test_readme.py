"""What the README says is what there is."""

import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

import minilpo
from minilpo import exercises
from minilpo.cli import COMMANDS, make_parser
from minilpo.experiments import EXPERIMENTS
from minilpo.rivals.controls import ALL_TASKS
from tests.outside import run_of

pytestmark = pytest.mark.usefixtures("figures_undrawn")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "tutorials" / "results.md").read_text(encoding="utf-8")
PAPER = (ROOT / "tutorials" / "paper.md").read_text(encoding="utf-8")


def test_the_two_commands_of_the_set_up_stand_in_the_readme_as_they_are_run():
    lines = README.splitlines()
    assert (
        "pip install . && minilpo demo" in lines
        and 'pip install ".[test]" && pytest -n auto' in lines
    )


def test_every_minilpo_command_in_the_readme_is_one_that_the_parser_takes():
    commands = re.findall(r"^(?:pip install \. && )?minilpo (.+)$", README, re.MULTILINE)
    assert {command.split()[0] for command in commands} == set(COMMANDS)
    for command in commands:
        words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', command)]
        make_parser().parse_args(words)


def test_the_package_lists_every_file_and_folder_at_its_front_and_no_other():
    rows = re.findall(r"^    (\w+(?:, \w+)*)/?  +\w", minilpo.__doc__, re.MULTILINE)
    named = [name for row in rows for name in row.split(", ")]
    front = {path.stem for path in (ROOT / "minilpo").iterdir() if path.suffix in ("", ".py")}
    assert set(named) == front - {"__init__", "__main__", "__pycache__"}
    assert len(named) == len(set(named))


def test_every_experiment_is_named():
    text = PAPER.split("Figures and tables have a file")[1]
    assert all(re.search(rf"\b{name}\b", text) for name in EXPERIMENTS)


def test_the_lines_of_python_train_a_head_and_write_with_it(tmp_path, monkeypatch, capsys):
    """As they stand, on a run of the same tasks that is small."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 13
    run_of(tmp_path / "runs" / "demo", "--tasks", "math", "story", "--block-size", "112")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(code, {})
    reward, text = capsys.readouterr().out.splitlines()
    assert 0 <= float(reward) <= 1 and text.endswith("]") and text.count("'") % 2 == 0


def test_the_readme_is_short_and_begins_with_pictures():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line[:2] for line in lines[3:11] if line] == ["![", "![", "``", "pi", "mi"]


def test_every_task_has_a_row_in_the_table():
    for name in ALL_TASKS:
        assert re.search(rf"^\| `{name}` \| .* \| .* \|$", RESULTS, re.MULTILINE)


def test_the_map_from_the_paper_leads_to_functions_commands_tests_and_exercises_that_exist():
    rows = re.findall(
        r"^\| .* \| `([\w.]+)` \| `minilpo (.+)` \| `(\w+)` \| (.*) \|$", PAPER, re.MULTILINE
    )
    assert len(rows) >= 13
    for function, command, test, to_write in rows:
        assert set(re.findall(r"`(\w+)`", to_write)) <= {e.name for e in exercises.ALL}
        module, found = function.split("."), None
        for depth in range(1, len(module)):
            with suppress(ModuleNotFoundError):
                found = import_module(".".join(["minilpo", *module[:depth]])), module[depth:]
        thing = found[0]
        for name in found[1]:
            thing = getattr(thing, name)
        assert callable(thing)
        assert list((ROOT / "tests").rglob(f"{test}.py"))
        words = command.split()
        flags = {flag for flag in words if flag.startswith("--")}
        help_text = (
            next(iter(make_parser()._subparsers._group_actions)).choices[words[0]].format_help()
        )
        assert all(flag in help_text for flag in flags)


def test_the_figures_are_there():
    for path in re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()


def test_every_page_has_one_title_and_no_heading_within_a_line():
    for page in (ROOT / "README.md", *(ROOT / "tutorials").glob("*.md")):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        headings = re.findall(r"^#+ .*$", text, re.MULTILINE)
        assert text.startswith(headings[0]), page.name
        assert [line for line in headings if line.startswith("# ")] == headings[:1], page.name
        assert not [line for line in headings if "# " in line.lstrip("# ")], page.name
