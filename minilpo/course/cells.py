"""Reads a student's notebook: its cells, the one that answers an exercise, what the others define.

Everything is found in the syntax tree; no line of the notebook runs here.
"""

import ast
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from minilpo.machine.text import named, one_line

# %time f(x), !pip install, ?f, f?, files = !ls
MAGIC = re.compile(r"\s*[%!?]|.*\?\s*$|[\w\s,]+=\s*[%!]")
RUN_AS_PYTHON = ("%%time", "%%timeit", "%%capture", "%%prun")  # other cell magics: no Python
IMPORT, FUNCTION = (ast.Import, ast.ImportFrom), (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINED = (*FUNCTION, ast.ClassDef)
ANSWERS = (*DEFINED, ast.Lambda, ast.Name)
WATCHED = re.compile(  # names with which a cell could tamper with the check
    r"inspect|ctypes|gc|importlib|_exit|_getframe|__globals__|examine|solution_source"
    r"|minilpo\.(exercises|course|machine)\b.*"
)


class Cell(NamedTuple):
    """Code cell: its tags, and its statements without magic and checks."""

    number: int
    tags: list[str]
    body: list[ast.stmt]
    problem: str  # why it isn't Python, or an empty text


def read_cells(data: bytes) -> list[Cell]:
    """Reads the code cells of a notebook; raises ValueError if the data isn't one."""
    try:
        found = enumerate(json.loads(data.decode("utf-8-sig"))["cells"], 1)
        code = [(number, cell) for number, cell in found if cell["cell_type"] == "code"]
        return [
            Cell(number, cell["metadata"].get("tags", []), *parse("".join(cell["source"])))
            for number, cell in code
        ]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        came = f"{len(data):,} other bytes" if data.strip() else "an empty file"
        raise ValueError(
            f"must be a notebook of format 4, got {came}; hand in the file as it was saved"
        ) from None


def parse(source: str) -> tuple[list[ast.stmt], str]:
    r"""Parses a cell after dropping its lines of magic, as IPython does, and its checks.

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
            return [node for node in ast.parse("\n".join(lines)).body if not is_check(node)], ""
        except SyntaxError as error:
            # Only a line that Python can't read is magic: "% 2" may continue a calculation.
            place = (error.lineno or 0) - 1
            if not (0 <= place < len(lines) and MAGIC.match(lines[place])):
                problem = one_line(str(error.msg), 100)
                return [], f"the cell isn't Python: {problem} (line {place + 1})"
            line = lines[place]
            lines[place] = line[: len(line) - len(line.lstrip())] + "pass"
            while line.endswith("\\") and place + 1 < len(lines):
                place += 1
                line, lines[place] = lines[place], ""
        except Exception as error:  # null bytes, half characters, too many brackets
            return [], f"the cell isn't Python: {named(error)}"


def is_check(node: ast.stmt) -> bool:
    """Tells if a line checks or asks for a hint: `f = exercises.f.check(f).function`.

    Such a line would put the right function in the place of a wrong one.
    """
    return isinstance(node, (ast.Assign, ast.Expr)) and "exercises" in _used(node)


def _used(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def answer_to(name: str, cells: list[Cell]) -> Cell | None:
    """Finds the cell that answers an exercise.

    A tagged cell that defines the name comes first, then any that defines it, then a tagged cell.
    A stub comes last of all. Of equals the last counts, as in a notebook run from top to bottom.
    """
    best = max([_rank(name, cell) for cell in cells], default=0)
    found = [cell for cell in cells if _rank(name, cell) == best > 0]
    return found[-1] if found else None


def _rank(name: str, cell: Cell) -> int:
    made = [node for node in cell.body if name in names_of(node)]
    is_tagged = "exercise" in cell.tags and name in cell.tags
    if (made or (is_tagged and not cell.problem and not cell.body)) and all(map(is_stub, made)):
        return 1
    if is_tagged:
        return 4 if made else 2
    # Without a tag, `entropy = 0.7` is no answer to the exercise `entropy`.
    return 3 if any(isinstance(getattr(n, "value", n), ANSWERS) for n in made) else 0


def names_of(node: ast.AST) -> set[str]:
    """Names that a statement binds.

    >>> sorted(names_of(ast.parse("if x: import os.path, re as r").body[0]))
    ['os', 'r']
    """
    if isinstance(node, DEFINED):
        return {node.name}
    if isinstance(node, IMPORT):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    return set().union(*map(names_of, ast.iter_child_nodes(node)))


def is_stub(node: ast.AST) -> bool:
    """Tells if a function has nothing but a docstring, `pass`, `...` or NotImplementedError."""
    if isinstance(node, ast.ClassDef):
        methods = [part for part in node.body if isinstance(part, FUNCTION)]
        return bool(methods) and all(map(is_stub, methods))
    return isinstance(node, FUNCTION) and all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or (isinstance(part, ast.Raise) and "NotImplementedError" in ast.dump(part))
        for part in node.body
    )


def definitions(cells: list[Cell]) -> dict[int, list[ast.stmt]]:
    """Finds what the cells import and define, by number of the cell.

    Those are imports, functions, classes, and constants: `N = 3`, `DIGITS = re.compile("[0-9]+")`.
    A value that minilpo or the student's own function computes is no constant: it may take minutes.
    """
    nodes = [node for cell in cells for node in cell.body]
    used, slow = {"*"}.union(*map(_used, nodes)), set[str]()
    for node in nodes:
        is_ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minilpo")
        slow |= names_of(node) if is_ours or isinstance(node, DEFINED) else set()

    def is_definition(node: ast.AST) -> bool:
        if isinstance(node, IMPORT):  # matplotlib is slow, and few functions need it
            return bool(names_of(node) & used)
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            calls = [
                ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)
            ]
            return not slow.intersection(re.split(r"\W", call)[0] for call in calls)
        if isinstance(node, (ast.If, ast.Try, ast.ExceptHandler)):  # around an import, say
            inner = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]
            return all(map(is_definition, inner))
        return isinstance(node, (*DEFINED, ast.Pass))

    return {cell.number: list(filter(is_definition, cell.body)) for cell in cells}


def touched(nodes: Iterable[ast.stmt]) -> str:
    r"""Lists what could tamper with a check.

    >>> touched(ast.parse("import gc\nfrom minilpo.exercises import trial\nos._exit(0)").body)
    '_exit, gc, minilpo.exercises'
    """
    parts = [part for node in nodes for part in ast.walk(node)]
    words = {str(getattr(p, at, "")) for p in parts for at in ("id", "attr", "module", "name")}
    return ", ".join(sorted(filter(WATCHED.fullmatch, words)))
