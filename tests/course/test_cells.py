"""Cells are found as a student would find them; a file that is no notebook is one line."""

import ast

import pytest

from minilpo.course.cells import answer_to, definitions, parse, read_cells, touched
from tests.course.notebooks import NAME, RIGHT, STUB, WRONG, cell, notebook


def read(path):
    return read_cells(path.read_bytes())


def found(folder, *cells):
    return answer_to(NAME, read(notebook(folder / "a.ipynb", *cells)))


def test_a_cell_is_found_by_its_tags_then_by_the_name_it_defines_and_a_stub_comes_last(tmp_path):
    for cells, number in (
        ([STUB, (NAME, RIGHT), WRONG], 2),
        ([(NAME, RIGHT), (NAME, WRONG), (NAME, STUB)], 2),
        ([(NAME, STUB), WRONG, RIGHT, STUB], 3),
        ([(NAME, "def other(): return 1"), RIGHT], 2),
        ([(NAME, "x = 1"), (NAME, "# emptied")], 1),
        ([(NAME, "def f(:"), "y = 2"], 1),
        ([(NAME, STUB), (NAME, STUB)], 2),
        ([f"if True:\n    {NAME} = lambda l, t: 1", (NAME, f"if True:\n    {NAME} = len")], 2),
        ([f"{NAME} = lambda logits, t: logits"], 1),
    ):
        assert found(tmp_path, *cells).number == number, cells
    assert found(tmp_path, f"{NAME} = 0.5", f"x = {NAME}") is None
    assert found(tmp_path, f"{NAME} = exercises.{NAME}.check({NAME}).function") is None


@pytest.mark.parametrize("tags", [[NAME], ["exercise"], ["Exercise", NAME], []])
def test_a_cell_without_both_tags_answers_only_by_what_it_defines(tmp_path, tags):
    assert found(tmp_path, cell(NAME, "x = 1", tags)) is None
    assert found(tmp_path, cell(NAME, RIGHT, tags)).tags == tags


def test_a_source_may_be_one_text_and_a_text_cell_is_no_answer(tmp_path):
    assert found(tmp_path, cell(NAME, RIGHT, kind="markdown")) is None
    assert found(tmp_path, {**cell(NAME, ""), "source": RIGHT}).body


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("%%time\nx = 1", "pass\nx = 1"),
        ("%%html\n<b>", ""),
        ("if x:\n    %matplotlib inline\n    y = 1", "if x:\n    pass\n    y = 1"),
        ("x = (10\n% 3)", "x = 10 % 3"),
        ("!ls 'it is\nx??\n?x\n%time x", "pass\npass\npass\npass"),
        ("!pip install \\\n  a \\\n  b\nx = 1", "pass\nx = 1"),
        ("a, b = %who_ls\r\nx = '''\r\n% 3 ?'''", "pass\nx = '\\n% 3 ?'"),
    ],
)
def test_magic_is_dropped_and_what_only_looks_like_it_stays(source, kept):
    body, problem = parse(source)
    assert (ast.unparse(body), problem) == (kept, "")


def test_definitions_are_imports_functions_and_constants_but_nothing_that_may_take_long(tmp_path):
    lines = {
        "import math": True,
        "import unused": False,
        "from somewhere import *": True,
        "from minilpo import train": True,
        "def f(x): return math.sin(x + g(train))": True,
        "class A: pass": True,
        "N, M = 2 ** 10, [1, -1]": True,
        "DIGITS: object = re.compile('[0-9]').match": True,
        "try:\n    import math\nexcept ImportError:\n    math = None": True,
        "run = train(3)": False,
        "y = [f(3)]": False,
        "N = exercises.f.check(f).function": False,
        "N += 1": False,
        "print(N)": False,
        "for i in range(3):\n    N = i": False,
    }
    cells = read(notebook(tmp_path / "a.ipynb", *lines))
    kept = definitions(cells)
    assert [bool(kept[one.number]) for one in cells] == list(lines.values())


def test_what_could_tamper_with_a_check_is_named():
    for source, words in {
        "import ctypes as c": "ctypes",
        "import os\nos._exit(0)": "_exit",
        "def f(x):\n    inspect.stack()": "inspect",
        "from minilpo.exercises import trial": "minilpo.exercises",
        "import minilpo.course.examinee": "minilpo.course.examinee",
        "exercises.entropy.solution_source()": "solution_source",
        "from minilpo.tasks import Task\nx = 'inspect'": "",
        "exercises.entropy.hint()": "",
    }.items():
        assert touched(ast.parse(source).body) == words


BROKEN = {
    "empty": (b"", "an empty file"),
    "blank": (b" \n", "an empty file"),
    "text": (b"def f(): pass", "other bytes"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\xff", "other bytes"),
    "digits": (b'{"cells": ' + b"9" * 5000 + b"}", "other bytes"),
    "deep": (b"[" * 200_000, "other bytes"),
    "number": (b"NaN", "other bytes"),
    "cells are no list": (b'{"cells": {"0": 1}}', "other bytes"),
    "a cell is a text": (b'{"cells": ["x"]}', "other bytes"),
    "format 3": (b'{"nbformat": 3, "worksheets": [{"cells": []}]}', "other bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_notebook_is_one_line(name):
    data, message = BROKEN[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_cells(data)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = notebook(tmp_path / "a.ipynb", (NAME, "x"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path)[0].tags == ["exercise", NAME]
