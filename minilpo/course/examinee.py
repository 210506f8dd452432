"""Grades one notebook, in a process of its own that `grade` starts and may end at any moment.

The notebook comes from standard input. What is found is written to the file `results`, a line of
JSON each: first the exercises that are expected, then the result of each of them.
"""

import ast
import builtins
import contextlib
import json
import linecache
import math
import os
import random
import sys
import types
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch

from minilpo import exercises
from minilpo.course.cells import (
    IMPORT,
    Cell,
    answer_to,
    definitions,
    is_check,
    names_of,
    read_cells,
    touched,
)
from minilpo.exercises.exercise import Exercise
from minilpo.exercises.trial import UNSOLVED, observe
from minilpo.machine.text import named, one_line
from minilpo.tasks import Task
from minilpo.tasks.calling import TimeIsUp, limited

NAMES = {  # what the lessons import at their top
    **{"torch": torch, "F": torch.nn.functional, "math": math, "random": random, "np": np},
    "Task": Task,
    "display": lambda *values, **options: None,  # a notebook has it without an import
}
TO_DEFINE = 10.0  # seconds for the lines of one cell
LARGEST_FILE = 16 * 2**20  # bytes that a cell may write into one file
MEMORY = 4 * 2**30  # bytes beside PyTorch's own


def main() -> None:
    """Reads the notebook and grades what an earlier process hasn't."""
    seed, n_done = map(int, sys.argv[1:])
    results, data = Path("results").absolute(), sys.stdin.buffer.read()

    def tell(**said: Any) -> None:
        with results.open("ab") as file:  # opened each time: a cell may close all files
            file.write(json.dumps(said).encode() + b"\n")

    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # where `print` and `input` find nobody
        os.dup2(nothing, standard)
    if b"optim" in data:
        # The first one makes PyTorch import 800 modules: not within a call that has 5 seconds.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        cells = read_cells(data)
    except ValueError as error:
        tell(result="not readable", message=str(error))
        return
    set_limits()
    notebook = Notebook(cells)
    if not notebook.expected:
        message = "no cell has the tags `exercise` and an exercise's name, or defines that name"
        tell(result="not found", message=message)
    tell(exercises=[exercise.name for exercise in notebook.expected])
    for exercise in notebook.expected[n_done:]:
        begun = perf_counter()
        result, message, touches = notebook.grade(exercise, seed)
        seconds = perf_counter() - begun
        tell(result=result, message=one_line(message), touches=touches, seconds=seconds)


def set_limits() -> None:
    """Limits memory and files of this process, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; a lower limit is set
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        pages = int(Path("/proc/self/statm").read_text().split()[0])  # Linux
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


class Notebook:
    """The module in which the cells of one notebook run, and the exercises expected of it.

    Expected are all exercises of each lesson of which it answers any: by a tag, or if the notebook
    has lost its tags, by the name that a cell defines.
    """

    def __init__(self, cells: list[Cell]):
        self.cells, self.defined = cells, definitions(cells)
        tags = {tag for cell in cells if "exercise" in cell.tags for tag in cell.tags if tag}
        tagged = [exercise for exercise in exercises.ALL if exercise.name in tags]
        self.answers = {
            exercise.name: answer_to(exercise.name, cells) for exercise in exercises.ALL
        }
        found = tagged or [one for one in exercises.ALL if self.answers[one.name][0]]
        lessons = {exercise.lesson for exercise in found}
        expected = [exercise for exercise in exercises.ALL if exercise.lesson in lessons]
        self.expected = sorted(expected, key=self._place)
        # A notebook's module is `__main__`; dataclasses look for it in `sys.modules`.
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self.names = vars(self.module)
        self.names |= {"__builtins__": builtins, **NAMES}
        self.replaced: dict[str, Any] = {}  # the lesson goes on with the right function, too

    def _place(self, exercise: Exercise) -> int:
        cell, _ = self.answers[exercise.name]
        return cell.number if cell else 0

    def _define(self, cells: list[Cell]) -> None:
        until = monotonic() + TO_DEFINE
        for cell in cells:
            self._run(cell, self.defined[cell.number], until)
        self.names |= self.replaced

    def grade(self, exercise: Exercise, seed: int) -> tuple[str, str, str]:
        """Runs the cell that answers an exercise and judges the function that it defines.

        Returns:
            A result, a message in one line, and what could tamper with the check.
        """
        cell, note = self.answers[exercise.name]
        if cell is None:
            message = f"no cell has the tags `exercise` and `{exercise.name}` or defines that name"
            return "not found", message, ""
        self._define(self.cells)  # a helper may stand below: in a notebook, any order works
        self._define([one for one in self.cells if one.number < cell.number])
        self.names.pop(exercise.name, None)
        lines = [node for node in cell.body if not is_check(node)]
        raised = self._run(cell, lines, monotonic() + TO_DEFINE)
        helpers = [node for part in self.defined.values() for node in part]
        touches = touched([*lines, *(node for node in helpers if not isinstance(node, IMPORT))])
        if not lines and not cell.problem:
            return "not written", UNSOLVED, ""
        if exercise.name not in self.names:
            made = [
                f"`{name}`" for node in lines if hasattr(node, "body") for name in names_of(node)
            ]
            found = f"{', '.join(made[:4])}; rename it" if made else "no function"
            message = f"the cell must define `{exercise.name}`, it defines {found}"
            return "not yet", cell.problem or f"{raised}{message}", touches
        answer = self.names[exercise.name]
        verdict = exercise.examine(
            lambda case: observe(answer, exercise.entry, case, exercise.may_use), seed
        )
        if not verdict.passed:
            self.replaced[exercise.name] = exercise.right
        if verdict.passed is None:
            return "not written", UNSOLVED, ""
        return (
            "passed" if verdict.passed else "not yet",
            f"{note}{raised}{verdict.message}",
            touches,
        )

    def _run(self, cell: Cell, lines: list[ast.stmt], until: float) -> str:
        """Runs lines of a cell, each although one before has raised; says what the first raised."""
        raised, file = "", f"<cell {cell.number}>"
        source = cell.source.splitlines(keepends=True)
        linecache.cache[file] = (len(cell.source), None, source, file)  # for `inspect.getsource`
        for node in lines:
            seconds = max(until - monotonic(), 0.1)
            try:
                code = compile(ast.Module([node], []), file, "exec", dont_inherit=True)
                limited(exec, code, self.names, seconds=seconds)
            except BaseException as error:  # SystemExit too
                what = "never ended" if isinstance(error, TimeIsUp) else f"raised {named(error)}"
                raised = raised or f"(line {node.lineno} of the cell {what}) "
        return raised


if __name__ == "__main__":
    main()
