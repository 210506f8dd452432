"""The tasks: one file each. `load_tasks` finds them by name, or in a user's own file."""

import hashlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from minilpo.tasks.base import (
    FROM_FILE,
    Task,
    ask,
    corpus,
    draw_demonstrations,
    draw_prompts,
    judge,
    kind_of,
    limited,
    mixed_demonstrations,
    mixed_prompts,
    parts_of,
    shown,
    split_of,
    try_out,
    weight_of,
    what_happened,
)
from minilpo.tasks.constrained_story import ConstrainedStory
from minilpo.tasks.continuation import Continuation
from minilpo.tasks.controls import CoinFlip, HiddenWish
from minilpo.tasks.instruct import Instruct
from minilpo.tasks.math import Math
from minilpo.tasks.math_paths import MathPaths
from minilpo.tasks.story import Story
from minilpo.text import one_line

__all__ = [
    "TASKS",
    "Task",
    "ask",
    "corpus",
    "digest_of",
    "draw_demonstrations",
    "draw_prompts",
    "judge",
    "kind_of",
    "load_tasks",
    "mixed_demonstrations",
    "mixed_prompts",
    "parts_of",
    "split_of",
    "try_out",
    "weight_of",
]

MAIN: tuple[type[Task], ...] = (Math, Instruct, Story, ConstrainedStory)  # the mixture of the demo
OTHERS: tuple[type[Task], ...] = (Continuation, MathPaths, CoinFlip, HiddenWish)  # for single experiments
TASKS: dict[str, type[Task]] = {task.name: task for task in MAIN + OTHERS}
MEMBERS = ("name", "prompt", "demonstration", "reward")


def load_tasks(names: list[str] | tuple[str, ...]) -> list[Task]:
    """Makes the named tasks; one from a file is tried out, see `try_out`.

    Args:
        names: names from `TASKS`, or paths of Python files (ending in ".py") with one task class each.

    Returns:
        One task per name, in the same order.

    Raises:
        ValueError: if a name is unknown or repeated, or a file holds no task, or one that doesn't do what a task must.

    >>> [task.name for task in load_tasks(["math", "story"])]
    ['math', 'story']
    """
    tasks = [_load_file(Path(name)) if name.endswith(".py") else _load_name(name) for name in names]
    found = [task.name for task in tasks]
    if len(set(found)) < len(found) or not tasks:
        raise ValueError(f"--tasks must name at least one task, each once, got {one_line(', '.join(found), 200) or 'none'}")
    return tasks


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a task file, in hexadecimal digits: two files with the same one hold the same code.

    Raises:
        ValueError: if there is no such file, or it can't be read.
    """
    return hashlib.sha256(_content_of(Path(path))).hexdigest()


def _load_name(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"--tasks must name tasks out of {', '.join(TASKS)}, or .py files that define one, got {shown(name)}")
    return TASKS[name]()


def _load_file(path: Path) -> Task:
    """Runs a user's file, makes the one class in it that has the members of a `Task`, and tries the task out."""
    content, file = _content_of(path), f"the task file {shown(str(path), 120)}"
    try:
        made = limited(_run_file, path, content)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code raises, SystemExit too
        raise ValueError(f"{file} must run, but it {what_happened(error)}; mend it and try again") from error
    if isinstance(made, str):
        raise ValueError(f"{file} must define one class with {', '.join(MEMBERS[:-1])} and {MEMBERS[-1]}, got {made}")
    try:
        try_out(made)
    except ValueError as error:
        raise ValueError(f"{file} can't be used: {error}") from error
    return made


def _run_file(path: Path, content: bytes) -> Any:
    """The task that a file defines, or a text that says how many it has and what those that are none lack."""
    module = ModuleType(f"{FROM_FILE}{path.stem}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    # Not by importlib, which runs what it has compiled before if the time and the size of the file are the same.
    exec(compile(content, str(path), "exec"), vars(module))

    classes = dict.fromkeys(c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__)
    lacks = {c: [member for member in MEMBERS if not hasattr(c, member)] for c in classes}
    whole = [c for c in classes if not lacks[c]] or [c for c in classes if lacks[c] == ["name"]]
    if len(whole) == 1:
        task = whole[0]()
        if hasattr(task, "name"):  # which __init__ may have given it
            return task
    found = [c for c in whole if not lacks[c]]
    said = [c.__name__ for c in found] or [f"{c.__name__} has no {' and no '.join(lacks[c])}" for c in classes]
    return f"{len(found)}{': ' if said else ''}{one_line('; '.join(said), 160)}"


def _content_of(path: Path) -> bytes:
    try:
        if path.is_file():
            return path.read_bytes()
        why = "which is no file" if path.exists() else "which isn't there"
    except (OSError, ValueError) as error:  # a ValueError for a null character
        why = f"which can't be read ({getattr(error, 'strerror', None) or error})"
    raise ValueError(f"--tasks must name existing files, got {shown(str(path), 120)}, {why}")
