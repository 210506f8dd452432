"""Exercise cells are found by their tags; a file that is no notebook is one line."""

import json

import pytest

from minilpo.course import cells
from minilpo.course.cells import read_cells
from tests.course.notebooks import NAME, cell, notebook

NAMES = (NAME, "entropy")


def read(path):
    return read_cells(path, NAMES)


def test_tags_decide_and_not_the_name_of_the_file_nor_the_place(tmp_path):
    path = notebook(
        tmp_path / "Homework of Zoë (3).txt",
        cell("x", "first = 1", tags=[]),
        cell(NAME, "a\nb", tags=["graded", NAME, "exercise"]),
        cell("entropy", "c"),
    )
    assert read(path).sources == {NAME: "a\nb", "entropy": "c"}


def test_of_two_cells_for_an_exercise_the_last_counts(tmp_path):
    found = read(notebook(tmp_path / "a.ipynb", (NAME, "a"), ("entropy", "x"), (NAME, "b")))
    assert found.sources[NAME] == "b" and found.repeated == {NAME}


@pytest.mark.parametrize(
    "tags", [[NAME], ["exercise"], ["Exercise", NAME], [], None, "x", [[], {}]]
)
def test_a_cell_without_both_tags_is_no_exercise_cell(tmp_path, tags):
    one = cell(NAME, f"x = 1\ndef {NAME}(a): pass\n")
    one["metadata"]["tags"] = tags
    found = read(notebook(tmp_path / "a.ipynb", cell("", "1", tags=[]), one))
    assert not found.sources and found.untagged == {NAME: 2}


def test_what_isnt_made_like_a_cell_is_left_out(tmp_path):
    odd = [
        None,
        1,
        [],
        {},
        {"cell_type": "code"},
        {"cell_type": "code", "metadata": 3, "source": 4},
    ]
    odd += [{**cell(NAME, "x"), "source": source} for source in (None, 1, [1], {"a": "b"})]
    odd += [{**cell(NAME, "x"), "metadata": metadata} for metadata in (None, [], "tags", 3)]
    odd += [cell(NAME, "text", kind="markdown"), cell(NAME, "text", kind=["code"])]
    assert not read(notebook(tmp_path / "a.ipynb", *odd)).sources
    assert read(notebook(tmp_path / "b.ipynb", *odd, (NAME, "good"))).sources == {NAME: "good"}


def test_a_source_may_be_one_text(tmp_path):
    one = {**cell(NAME, ""), "source": "a = 1\nb = 2"}
    assert read(notebook(tmp_path / "a.ipynb", one)).sources == {NAME: "a = 1\nb = 2"}


BROKEN = {
    "empty": (b"", "an empty file"),
    "blank": (b" \n", "an empty file"),
    "text": (b"def f(): pass", "isn't JSON"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\xff", "isn't JSON"),
    "cut": (b'{"cells": [', "isn't JSON"),
    "digits": (b'{"cells": ' + b"9" * 5000 + b"}", "isn't JSON"),
    "deep": (b"[" * 200_000, "brackets never end"),
    "deep dictionary": (b'{"cells":' * 200_000, "brackets never end"),
    "list": (b"[]", "no list of cells"),
    "number": (b"NaN", "no list of cells"),
    "no cells": (b"{}", "no list of cells"),
    "cells are no list": (b'{"cells": {"0": 1}}', "no list of cells"),
    "format 3": (b'{"nbformat": 3, "worksheets": [{"cells": []}]}', "no list of cells"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_notebook_is_one_line(tmp_path, name):
    data, message = BROKEN[name]
    (tmp_path / "a.ipynb").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "a.ipynb")
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = notebook(tmp_path / "a.ipynb", (NAME, "x"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).sources == {NAME: "x"}


def test_a_folder_a_missing_file_and_a_large_one_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="got a folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.ipynb")
    monkeypatch.setattr(cells, "LARGEST_NOTEBOOK", 100)
    path = notebook(tmp_path / "a.ipynb", (NAME, "x" * 100))
    with pytest.raises(ValueError, match="clear its outputs"):
        read(path)


def test_every_lessons_stub_can_be_found_as_jupyter_saves_it(tmp_path):
    text = json.dumps({"cells": [cell(NAME, f"def {NAME}(): ...")]}, indent=1)
    (tmp_path / "a.ipynb").write_text(text + "\n")
    assert list(read(tmp_path / "a.ipynb").sources) == [NAME]
