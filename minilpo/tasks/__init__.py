"""The tasks: one file each. `load_tasks` finds them by name, or in a user's own file."""

import importlib.util
import inspect
import sys
from pathlib import Path

from minilpo.tasks.base import (
    Task,
    corpus,
    draw_demonstrations,
    draw_prompts,
    kind_of,
    mixed_demonstrations,
    mixed_prompts,
    split_of,
)
from minilpo.tasks.constrained_story import ConstrainedStory
from minilpo.tasks.continuation import Continuation
from minilpo.tasks.controls import CoinFlip, HiddenWish
from minilpo.tasks.instruct import Instruct
from minilpo.tasks.math import Math
from minilpo.tasks.math_paths import MathPaths
from minilpo.tasks.story import Story

__all__ = [
    "TASKS",
    "Task",
    "corpus",
    "draw_demonstrations",
    "draw_prompts",
    "kind_of",
    "load_tasks",
    "mixed_demonstrations",
    "mixed_prompts",
    "split_of",
]

MAIN: tuple[type[Task], ...] = (Math, Instruct, Story, ConstrainedStory)  # the mixture of the demo
OTHERS: tuple[type[Task], ...] = (Continuation, MathPaths, CoinFlip, HiddenWish)  # for single experiments
TASKS: dict[str, type[Task]] = {task.name: task for task in MAIN + OTHERS}


def load_tasks(names: list[str] | tuple[str, ...]) -> list[Task]:
    """Makes the named tasks.

    Args:
        names: names from `TASKS`, or paths of Python files (ending in ".py") with one task class each.

    Returns:
        One task per name, in the same order.

    Raises:
        ValueError: if a name is unknown or repeated, or a file holds no task.

    >>> [task.name for task in load_tasks(["math", "story"])]
    ['math', 'story']
    """
    tasks = [_load_file(Path(name)) if name.endswith(".py") else _load_name(name) for name in names]
    found = [task.name for task in tasks]
    if len(set(found)) < len(found) or not tasks:
        raise ValueError(f"--tasks must name at least one task, each once, got {', '.join(found) or 'none'}")
    return tasks


def _load_name(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"--tasks must name tasks out of {', '.join(TASKS)}, or .py files that define one, got {name!r}")
    return TASKS[name]()


def _load_file(path: Path) -> Task:
    """Runs a user's file and makes the one class in it that has the members of a `Task`."""
    if not path.is_file():
        raise ValueError(f"--tasks must name existing files, got {str(path)!r}, which isn't there")
    spec = importlib.util.spec_from_file_location(f"minilpo_task_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
        classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == spec.name]
        tasks = [c() for c in classes if all(hasattr(c, m) for m in ("name", "prompt", "demonstration", "reward"))]
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"the task file {str(path)!r} must run, but it raised {type(error).__name__}: {error}") from error
    if len(tasks) != 1:
        raise ValueError(
            f"the task file {str(path)!r} must define one class with name, prompt, demonstration and reward, got {len(tasks)}"
        )
    return tasks[0]
