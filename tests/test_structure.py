"""The floors of the house: a module imports only from the floors below its own."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import minilpo
from minilpo.experiments import EXPERIMENTS

PACKAGE = Path(__file__).parent.parent / "minilpo"
FLOORS = [
    ["setting"],
    ["config", "seeds"],
    ["machine"],
    ["adaptive_decoder", "losses", "tasks", "lm", "flags"],
    ["preferences", "decoding", "exercises"],
    ["training", "evaluation", "huggingface"],
    ["lpo"],
    ["constant_control"],
    ["rivals"],
    ["show"],
    ["run"],
    ["experiments", "play", "course"],
    ["doctor"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
CORE = [
    *("adaptive_decoder", "losses", "preferences", "lpo", "training", "constant_control"),
    *("config", "setting", "seeds", "lm", "decoding", "tasks", "evaluation"),
]
AROUND_THE_CORE = {
    *("rivals", "experiments", "run", "show", "play", "course", "exercises", "huggingface"),
    *("doctor", "cli", "flags"),
}
EXERCISES_OF_LESSONS = [
    *("transformer", "temperature", "rewards", "choosing", "preferring"),
    *("losses", "judging", "by_word", "voting", "own"),
]
# In the folders, the same: a file imports only from those before it.
WITHIN = {
    "machine": ["text", "signals", "files", "device", "progress", "threads"],
    "lm": ["kv_cache", "model", "tokenizer", "pretraining", "language_model"],
    "decoding": ["sampling", "choices", "policies", "rollout", "generate"],
    "huggingface": ["language_model", "own_prompts", "head_file", "in_generate"],
    "evaluation": ["statistics", "measure", "summary", "evaluate", "rehearse"],
    "rivals": [
        *("rules", "optimum", "think_or_answer", "controls"),
        *("reward_rules", "joint", "by_config"),
    ],
    "show": ["plots", "document", "strip", "report", "samples", "page"],
    "exercises": ["trial", "verdict", "examination", "exercise", *EXERCISES_OF_LESSONS],
    "course": ["notebook", "home", "lessons", "cells", "examinee", "gradebook", "grade"],
    "play": ["table", "server"],
    "run": ["workers", "processes", "folder", "begin", "steps"],
}


def imports_of(path: Path) -> set[str]:
    """First-level minilpo modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which this test can't read"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names if name.startswith("minilpo.")]
        found |= {second for _, second, *_ in parts if second != "__version__"}
    return found


def room_of(path: Path) -> str:
    """The first-level module or folder that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_a_module_imports_only_from_floors_below():
    for path in PACKAGE.rglob("*.py"):
        if (room := room_of(path)) != "__init__":
            others = imports_of(path) - {room}
            up = {name for name in others if FLOOR_OF[name] >= FLOOR_OF[room]}
            assert not up, f"{path.relative_to(PACKAGE)} imports {up}, which isn't below it"


def test_the_core_imports_nothing_of_what_is_built_around_it():
    files = [path for path in PACKAGE.rglob("*.py") if room_of(path) in CORE]
    assert {room_of(path) for path in files} == set(CORE)
    for path in files:
        around = imports_of(path) & AROUND_THE_CORE
        assert not around, f"{path.relative_to(PACKAGE)} imports {around}, which the core must not"


@pytest.mark.parametrize("folder", WITHIN)
def test_in_a_folder_a_file_imports_only_from_those_before_it(folder):
    order = WITHIN[folder]
    stems = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    assert stems == set(order)
    for place, stem in enumerate(order):
        for node in ast.walk(ast.parse((PACKAGE / folder / f"{stem}.py").read_text())):
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and module.startswith(f"minilpo.{folder}"):
                names = module.split(".")[2:] or [alias.name for alias in node.names]
                assert order.index(names[0]) < place, f"{folder}/{stem}.py imports {names[0]}"


@pytest.mark.parametrize("folder", WITHIN)
def test_a_folder_says_in_a_line_what_each_of_its_files_is(folder):
    contents = (PACKAGE / folder / "__init__.py").read_text().split("\n\n")[1]
    named = re.findall(r"^ *(\w+)  +\w", contents, re.MULTILINE)
    assert sorted(named) == sorted(WITHIN[folder])


def test_the_core_knows_nothing_of_processes():
    """They come in by `respond` and `add_gradients`, from outside."""
    for path in PACKAGE.rglob("*.py"):
        if room_of(path) in CORE:
            assert "torch.distributed" not in path.read_text()
            assert "torchrun" not in path.read_text()


def test_the_losses_import_nothing_of_ours():
    assert imports_of(PACKAGE / "losses.py") == set()


def test_tasks_know_nothing_but_tasks():
    for path in (PACKAGE / "tasks").glob("*.py"):
        assert imports_of(path) <= {"tasks", "machine", "seeds"}
        assert "minilpo.machine" not in path.read_text().replace("minilpo.machine.text", "")


def test_an_experiment_imports_no_other_experiment():
    names = set(EXPERIMENTS)
    for path in (PACKAGE / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.stem in names and isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[-1] not in names


def test_every_module_has_its_floor():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(FLOOR_OF)


def test_importing_the_package_imports_nothing_heavy():
    code = "import minilpo, minilpo.cli, sys; assert not {'torch', 'numpy', 'matplotlib', 'tokenizers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_of_the_package_are_those_that_its_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(minilpo.__all__) <= set(dir(minilpo))
    for name, module in seen.items():
        assert getattr(minilpo, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minilpo.nothing  # noqa: B018
