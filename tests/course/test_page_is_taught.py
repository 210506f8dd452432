"""Lesson 7 prints LPO's page and says that every piece is known: here the names on it are counted.

A name counts as taught if lessons 1 to 7 use it in code, or say it in backticks in their text. An
import alone doesn't count, nor does an English word that happens to be spelled alike. What belongs
to one of the `OWNERS` must be taught as theirs: `", ".join` says nothing about `training.join`.
"""

import ast
import builtins
import inspect
import re
from pathlib import Path

import pytest

import minilpo
from minilpo import lpo
from minilpo.course.lessons import LESSONS

nbformat = pytest.importorskip("nbformat", reason="lessons are read with the extra `tutorials`")

TUTORIALS = Path(minilpo.__file__).parent.parent / "tutorials"
PAGE = ("train_lpo", "fit", "lpo_loss", "response_scores")
OWNERS = ("losses", "training", "state")


def names_of(tree: ast.AST) -> set[str]:
    """The names that some code uses: variables, attributes, functions, arguments and keywords.

    Not those in annotations: the types of arguments stand in the signature, and lesson 7 prints
    what is below the docstring.
    """
    if isinstance(tree, ast.Import):
        return set()
    if isinstance(tree, ast.ImportFrom):  # whose it is: it is used by its own name
        owner = (tree.module or "").split(".")[-1]
        return {f"{owner}.{alias.name}" for alias in tree.names} if owner in OWNERS else set()
    found = {getattr(tree, field, None) for field in ("id", "attr", "arg")} - {None}
    if isinstance(tree, ast.FunctionDef | ast.ClassDef):
        found.add(tree.name)
    if isinstance(tree, ast.Attribute) and getattr(tree.value, "id", None) in OWNERS:
        found = {f"{tree.value.id}.{tree.attr}"}
    for field, value in ast.iter_fields(tree):
        if field not in ("annotation", "returns"):
            for part in value if isinstance(value, list) else [value]:
                found |= names_of(part) if isinstance(part, ast.AST) else set()
    return found


def names_in_text(text: str) -> set[str]:
    """Those in backticks."""
    found = set()
    for code in re.findall(r"`([^`\n]+)`", text):
        for dotted in re.findall(r"\w+(?:\.\w+)*", code):
            found |= {dotted, *dotted.split(".")}
    return found


def names_on_the_page(function: str) -> set[str]:
    """Those of one of its functions, without Python's own."""
    [tree] = [node for node in ast.parse(inspect.getsource(lpo)).body if is_named(node, function)]
    return names_of(tree) - set(dir(builtins))


def is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def cells_of_lessons_1_to_7(kind: str) -> list[str]:
    lessons = [nbformat.read(TUTORIALS / lesson.file, as_version=4) for lesson in LESSONS[:7]]
    return [cell.source for lesson in lessons for cell in lesson.cells if cell.cell_type == kind]


def test_lesson_7_prints_the_page():
    cells = cells_of_lessons_1_to_7("code")
    assert all(any(f"getsource({name})" in cell for cell in cells) for name in PAGE[:3])


@pytest.mark.parametrize("function", PAGE)
def test_lessons_1_to_7_teach_every_name_on_the_page_of_lpo(function):
    taught = set()
    for code in cells_of_lessons_1_to_7("code"):
        taught |= names_of(ast.parse(code))
    for text in cells_of_lessons_1_to_7("markdown"):
        taught |= names_in_text(text)
    missing = names_on_the_page(function) - taught
    assert not missing, f"`{function}` uses {sorted(missing)}, which no lesson up to 7 introduces"


def test_names_are_found_where_code_or_backticks_use_them_and_nowhere_else():
    code = """
from a import b
from minilpo.losses import c
def f(x: int, *rest, y=1) -> list:
    z.w(q=u), training.join, ", ".split  # p
    return 'v'
"""
    found = {"f", "x", "rest", "y", "z", "w", "q", "u", "training", "training.join", "losses.c"}
    assert names_of(ast.parse(code)) == found | {"split"}
    assert names_in_text("a `b`, `c.d(e)` and f") == {"b", "c", "c.d", "d", "e"}
