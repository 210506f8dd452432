"""Grades one notebook, in a process of its own that `grade` starts and may end at any moment.

The notebook comes from standard input. Each result is a line of JSON in the file `results`.
"""

import ast
import builtins
import contextlib
import json
import math
import os
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch

from minilpo import exercises
from minilpo.course.cells import IMPORT, Cell, answer_to, definitions, names_of, read_cells, touched
from minilpo.exercises.trial import UNSOLVED, observe
from minilpo.machine.text import named, one_line
from minilpo.tasks import Task
from minilpo.tasks.calling import TimeIsUp, limited

NAMES = {  # the lessons import these at their top; a notebook has `display` and builtins
    **{"torch": torch, "F": torch.nn.functional, "math": math, "random": random, "np": np},
    **{"Task": Task, "display": lambda *values, **options: None, "__builtins__": builtins},
}
BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
TO_DEFINE = 10.0  # seconds for the lines of one cell
LARGEST_FILE = 16 * 2**20  # bytes that a cell may write into one file
MEMORY = 4 * 2**30  # bytes beside PyTorch's own
NO_CELL = "no cell has the tags `exercise` and {} or defines that name"


def main() -> None:
    """Writes the results of a notebook, apart from those that an earlier process has written."""
    file, data = Path("results").absolute(), sys.stdin.buffer.read()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # where `print` and `input` find nobody
        os.dup2(nothing, standard)
    if b"optim" in data:
        # The first one makes PyTorch import 800 modules: not within a call that has 5 seconds.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; a lower limit is set
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        pages = int(Path("/proc/self/statm").read_text().split()[0])  # Linux
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for result in results(data, *map(int, sys.argv[1:])):
        with file.open("ab") as lines:  # opened each time: a cell may close all files
            lines.write(json.dumps(result).encode() + b"\n")
    os._exit(0)  # threads that a cell has started may never end


def results(data: bytes, seed: int, n_done: int = 0) -> Iterator[dict[str, Any]]:
    """Grades a notebook.

    Yields:
        The names of its exercises, or one result for all of it; then a result per exercise, without
        the first `n_done`. Expected are all exercises of each lesson of which it has a tag, or if
        it has lost its tags, of which a cell defines the name.
    """
    try:
        cells = read_cells(data)
    except ValueError as error:
        yield {"result": "not readable", "message": str(error)}
        return
    answers = {name: answer_to(name, cells) for name in BY_NAME}
    tags = {tag for cell in cells if "exercise" in cell.tags for tag in cell.tags}
    found = tags & BY_NAME.keys() or {name for name, cell in answers.items() if cell}
    lessons = {BY_NAME[name].lesson for name in found}
    if not lessons:
        yield {"result": "not found", "message": NO_CELL.format("an exercise's name")}
    names = [name for name, exercise in BY_NAME.items() if exercise.lesson in lessons]
    places = {name: cell.number if cell else 0 for name, cell in answers.items()}
    names.sort(key=places.__getitem__)  # as a notebook runs
    yield {"exercises": names}
    # Dataclasses look for their module in `sys.modules`.
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    right: dict[str, Any] = {}  # a lesson goes on with right functions for wrong ones
    defined = definitions(cells)
    helpers = [node for nodes in defined.values() for node in nodes if not isinstance(node, IMPORT)]
    for name in names[n_done:]:
        begun, cell = perf_counter(), answers[name]
        result, message, touches = "not found", NO_CELL.format(f"`{name}`"), ""
        if cell is not None:
            vars(module).update(NAMES)
            until = monotonic() + TO_DEFINE
            # All cells, since a helper may stand below; then those above, whose names are in force.
            for other in [*cells, *(one for one in cells if one.number < cell.number)]:
                run(defined[other.number], vars(module), until)
            vars(module).update(right)
            result, message = grade_cell(name, cell, vars(module), seed)
            touches = touched([*cell.body, *helpers])
            if result != "passed":
                right[name] = BY_NAME[name].stand_in
        row = {"result": result, "message": one_line(message), "touches": touches}
        yield {**row, "seconds": perf_counter() - begun}


def grade_cell(name: str, cell: Cell, names: dict[str, Any], seed: int) -> tuple[str, str]:
    """Runs the cell that answers an exercise, judges the function that it defines.

    Returns:
        A result, and a message in one line.
    """
    if not cell.body:
        return ("not yet", cell.problem) if cell.problem else ("not written", UNSOLVED)
    exercise = BY_NAME[name]
    names.pop(name, None)
    raised = run(cell.body, names, monotonic() + TO_DEFINE)
    if name not in names:
        made = ", ".join(sorted(set().union(*map(names_of, cell.body)))[:4]) or "nothing"
        return "not yet", f"{raised}the cell must define `{name}`, it defines {made}; rename it"
    answer = names[name]
    verdict = exercise.examine(
        lambda case: observe(answer, exercise.entry, case, exercise.may_use), seed
    )
    if verdict.passed is None:
        return "not written", UNSOLVED
    return ("passed" if verdict.passed else "not yet"), raised + verdict.message


def run(lines: list[ast.stmt], names: dict[str, Any], until: float) -> str:
    """Runs lines of a cell, each although one before has raised; says what the first raised."""
    raised = ""
    for node in lines:
        try:
            code = compile(ast.Module([node], []), "<cell>", "exec", dont_inherit=True)
            limited(exec, code, names, seconds=max(until - monotonic(), 0.1))
        except BaseException as error:  # SystemExit too
            what = "never ended" if isinstance(error, TimeIsUp) else f"raised {named(error)}"
            raised = raised or f"(line {node.lineno} of the cell {what}) "
    return raised


if __name__ == "__main__":
    main()
