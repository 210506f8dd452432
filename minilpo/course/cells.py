"""Reads a student's notebook: its cells, the one that answers an exercise, what the others define.

Everything is found in the syntax tree; no line of the notebook runs here.
"""

import ast
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from minilpo.machine.text import named, one_line

REMEDY = "hand in the notebook as it was saved, a file ending in .ipynb"
# %time f(x), !pip install, ?f, f?, files = !ls
MAGIC = re.compile(r"\s*[%!?]|.*\?\s*$|[\w\s,]+=\s*[%!]")
RUN_AS_PYTHON = ("%%time", "%%timeit", "%%capture", "%%prun")  # other cell magics: no Python
IMPORT = (ast.Import, ast.ImportFrom)
# Words that could tamper with a check; the names of modules and of an exercise's own members.
WATCHED = re.compile(
    r"inspect|ctypes|gc|importlib|_exit|_getframe|__globals__|examine|solution_source"
    r"|minilpo\.(exercises|course|machine)\b.*"
)


class Cell(NamedTuple):
    """One code cell: its source without magic, its tags, its statements."""

    number: int
    source: str
    tags: list
    body: list[ast.stmt]
    problem: str  # why it isn't Python, or an empty text


def read_cells(data: bytes) -> list[Cell]:
    """Reads the code cells of a notebook. Parts that aren't made like a cell are left out.

    Raises:
        ValueError: if the data isn't a notebook.
    """
    if not data.strip():
        raise ValueError(f"must be a notebook, got an empty file; {REMEDY}")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, brackets without end
        raise ValueError(
            f"must be a notebook, but isn't JSON ({named(error, 80)}); {REMEDY}"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise ValueError(f"must be a notebook of format 4, but has no list of cells; {REMEDY}")
    cells = []
    for number, cell in enumerate(content["cells"], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        metadata, source = cell.get("metadata"), cell.get("source")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        if isinstance(source, list):
            source = "".join(map(str, source))
        if isinstance(source, str):
            tags = tags if isinstance(tags, list) else []
            cells.append(Cell(number, source, tags, *parse(source)))
    return cells


def parse(source: str) -> tuple[list[ast.stmt], str]:
    r"""Parses a cell after dropping its lines of magic, as IPython does.

    Returns:
        Its statements, and the reason if it isn't Python.

    >>> [type(node).__name__ for node in parse("%%time\n!pip install x\ny = 1\ny?")[0]]
    ['Pass', 'Pass', 'Assign', 'Pass']
    """
    lines = re.split(r"\r\n|\r|\n", source)
    first = next((line.split()[0] for line in lines if line.strip()), "")
    if first.startswith("%%") and first not in RUN_AS_PYTHON:
        return [], ""
    while True:
        try:
            return ast.parse("\n".join(lines)).body, ""
        except SyntaxError as error:
            # Only a line that Python can't read is magic: "% 2" may continue a calculation.
            place = (error.lineno or 0) - 1
            if not (0 <= place < len(lines) and MAGIC.match(lines[place])):
                where = f" (line {place + 1})" if place >= 0 else ""
                return [], f"the cell isn't Python: {one_line(str(error.msg), 100)}{where}"
            line = lines[place]
            lines[place] = line[: len(line) - len(line.lstrip())] + "pass"
            while line.endswith("\\") and place + 1 < len(lines):
                place += 1
                line, lines[place] = lines[place], ""
        except Exception as error:  # null bytes, half characters, too many brackets
            return [], f"the cell isn't Python: {named(error)}"


def answer_to(name: str, cells: Iterable[Cell]) -> tuple[Cell | None, str]:
    """Finds the cell that answers an exercise, and a note if it is one of several.

    A tagged cell that defines the name comes first, then any that defines it, then a tagged cell.
    A stub comes last of all. Of equals the last counts, as in a notebook run from top to bottom.
    """
    ranks = [(_rank(name, cell), cell) for cell in cells]
    best = max((rank for rank, _ in ranks), default=0)
    found = [cell for rank, cell in ranks if rank == best > 0]
    note = f"(cell {found[-1].number}, the last of {len(found)}) " if len(found) > 1 else ""
    return (found[-1] if found else None), note


def _rank(name: str, cell: Cell) -> int:
    made = [node for node in cell.body if name in names_of(node) and not is_check(node)]
    is_tagged = "exercise" in cell.tags and name in cell.tags
    if (made and all(map(is_stub, made))) or (is_tagged and not cell.body and not cell.problem):
        return 1
    if is_tagged:
        return 4 if made else 2
    # Without a tag, `entropy = 0.7` is no answer to the exercise `entropy`.
    answers = (ast.Lambda, ast.Name)
    values = [getattr(node, "value", None) for node in made]
    return 3 if any(map(_is_function, made)) or any(isinstance(v, answers) for v in values) else 0


def names_of(node: ast.AST) -> set[str]:
    """Names that a statement binds.

    >>> sorted(names_of(ast.parse("if x: import os.path, re as r").body[0]))
    ['os', 'r']
    """
    if _is_function(node):
        return {node.name}  # type: ignore[attr-defined]
    if isinstance(node, IMPORT):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    return set().union(*map(names_of, ast.iter_child_nodes(node)))


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def is_check(node: ast.stmt) -> bool:
    """Tells if a line checks or asks for a hint: `f = exercises.f.check(f).function`.

    The grader leaves such lines out: they put the right function in the place of a wrong one.
    """
    return isinstance(node, (ast.Assign, ast.Expr)) and "exercises" in _used(node)


def _used(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def is_stub(node: ast.AST) -> bool:
    """Tells if a function has nothing but a docstring, `pass`, `...` or NotImplementedError."""
    if isinstance(node, ast.ClassDef):
        methods = list(filter(_is_function, node.body))
        return bool(methods) and all(map(is_stub, methods))
    return _is_function(node) and all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or (isinstance(part, ast.Raise) and "NotImplementedError" in ast.dump(part))
        for part in node.body  # type: ignore[attr-defined]
    )


def definitions(cells: Iterable[Cell]) -> dict[int, list[ast.stmt]]:
    """Finds what the cells import and define, by number of the cell.

    Those are imports, functions, classes, and constants: `N = 3`, `DIGITS = re.compile("[0-9]+")`.
    A value that minilpo or the student's own function computes is no constant: it may take minutes.
    """
    nodes = [node for cell in cells for node in cell.body if not is_check(node)]
    slow, used = set(), set().union(*map(_used, nodes))
    for node in nodes:
        is_ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minilpo")
        if _is_function(node) or is_ours:
            slow |= names_of(node)

    def is_definition(node: ast.AST) -> bool:
        if isinstance(node, IMPORT):  # matplotlib is slow, and few functions need it
            return bool(names_of(node) & {*used, "*"})
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
            return not {_root(call.func) for call in calls} & slow
        if isinstance(node, (ast.If, ast.Try, ast.ExceptHandler)):  # around an import, say
            inner = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]
            return all(map(is_definition, inner))
        return _is_function(node) or isinstance(node, ast.Pass)

    return {
        cell.number: [node for node in cell.body if not is_check(node) and is_definition(node)]
        for cell in cells
    }


def _root(node: ast.expr) -> str:
    """The name that an expression begins with: `re` for `re.compile("x").match`."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def touched(nodes: Iterable[ast.stmt]) -> str:
    r"""Lists what could tamper with a check.

    >>> touched(ast.parse("import gc\nfrom minilpo.exercises import trial\nos._exit(0)").body)
    '_exit, gc, minilpo.exercises'
    """
    found = set()
    for node in (part for statement in nodes for part in ast.walk(statement)):
        words = [getattr(node, place, None) for place in ("id", "attr", "module", "name")]
        found |= {word for word in words if isinstance(word, str) and WATCHED.fullmatch(word)}
    return ", ".join(sorted(found))
