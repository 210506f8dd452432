"""The exercise cells of a notebook, read as plain JSON: anybody may have written it.

An exercise cell is a code cell with the tags `exercise` and the exercise's name. Where it stands,
and what the file is called, doesn't matter.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minilpo.machine.files import read_bytes
from minilpo.machine.text import one_line

LARGEST_NOTEBOOK = 50_000_000  # bytes; lessons with their figures have less than one million
LONGEST_CELL = 100_000  # characters
TAG = "exercise"
REMEDY = "hand in the notebook as it was saved, a file ending in .ipynb"


class Cells(NamedTuple):
    """What a notebook has of the exercises that were asked for."""

    sources: dict[str, str]  # of each exercise with a tagged cell: of the last one, if several
    repeated: set[str]  # exercises with more than one tagged cell
    untagged: dict[str, int]  # number of a code cell that defines the name, but lacks the tags


def read_cells(path: Path, names: Collection[str]) -> Cells:
    """Finds the exercise cells of a notebook by their tags.

    Args:
        path: the notebook.
        names: of the exercises.

    Raises:
        ValueError: if the file is no notebook.
        OSError: if it can't be read.
    """
    found = Cells({}, set(), {})
    for number, source, tags in _code_cells(path, _content(path)):
        tagged = [name for name in names if TAG in tags and name in tags]
        for name in tagged:
            if name in found.sources:
                found.repeated.add(name)
            found.sources[name] = source
        for name in _defined(source):
            if name in names and name not in tagged:
                found.untagged.setdefault(name, number)
    return found


def _content(path: Path) -> dict[str, Any]:
    """The JSON of a notebook, as far as it must be a notebook's."""
    if path.is_dir():
        raise ValueError(f"must be a notebook, got a folder; name the notebooks in it: {path}/*")
    if path.stat().st_size > LARGEST_NOTEBOOK:
        raise ValueError(
            f"must have at most {LARGEST_NOTEBOOK:,} bytes, got {path.stat().st_size:,}; "
            "clear its outputs and save it"
        )
    data = read_bytes(path)
    if not data.strip():
        raise ValueError(f"must be a notebook, got an empty file; {REMEDY}")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"must be a notebook, but its brackets never end; {REMEDY}") from None
    except ValueError as error:  # not UTF-8, not JSON, a number with too many digits
        reason = one_line(str(error), 80)
        raise ValueError(f"must be a notebook, but it isn't JSON ({reason}); {REMEDY}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise ValueError(f"must be a notebook of format 4, but has no list of cells; {REMEDY}")
    return content


def _code_cells(path: Path, content: dict[str, Any]) -> Iterator[tuple[int, str, list[Any]]]:
    """Number, source and tags of each code cell; what isn't made like a cell is left out."""
    for number, cell in enumerate(content["cells"], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        metadata = cell.get("metadata")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        source = cell.get("source")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if isinstance(source, str):
            yield number, source, tags if isinstance(tags, list) else []


def _defined(source: str) -> list[str]:
    """Names of the functions and classes that a source defines, as far as its first look says."""
    return re.findall(r"^(?:def|class) +(\w+)", source[:LONGEST_CELL], re.MULTILINE)
