"""The tasks: one file each. `load_tasks` finds them by name, or in a user's own file."""

from collections.abc import Mapping
from pathlib import Path

from minilpo.machine.text import one_line
from minilpo.tasks.base import (
    Prompt,
    corpus,
    draw_demonstrations,
    draw_prompts,
    mixed_demonstrations,
    mixed_prompts,
    split_of,
)
from minilpo.tasks.calling import ask, grader_of, judge, kind_of, parts_of, shown
from minilpo.tasks.constrained_story import ConstrainedStory
from minilpo.tasks.continuation import Continuation
from minilpo.tasks.instruct import Instruct
from minilpo.tasks.math import Math
from minilpo.tasks.math_paths import MathPaths
from minilpo.tasks.own import load_file, try_out
from minilpo.tasks.story import Story
from minilpo.tasks.task import Task, offers

__all__ = [
    "TASKS",
    "Prompt",
    "Task",
    "ask",
    "corpus",
    "draw_demonstrations",
    "draw_prompts",
    "grader_of",
    "judge",
    "kind_of",
    "load_tasks",
    "mixed_demonstrations",
    "mixed_prompts",
    "offers",
    "parts_of",
    "split_of",
    "try_out",
]

MAIN: tuple[type[Task], ...] = (Math, Instruct, Story, ConstrainedStory)  # the mixture of the demo
OTHERS: tuple[type[Task], ...] = (Continuation, MathPaths)
TASKS: dict[str, type[Task]] = {task.name: task for task in MAIN + OTHERS}


def load_tasks(
    names: list[str] | tuple[str, ...], known: Mapping[str, type[Task]] = TASKS
) -> list[Task]:
    """Makes one task per name, in the same order; one from a file is tried out, see `try_out`.

    Args:
        names: names out of `known`, or paths of Python files (ending in ".py") with one task class
            each.
        known: the tasks that have a name; `rivals.controls.ALL_TASKS` has the control tasks, too.

    Raises:
        ValueError: if a name is unknown or repeated, or a file holds no task, or one that doesn't
            do what a task must.

    >>> [task.name for task in load_tasks(["math", "story"])]
    ['math', 'story']
    """
    for name in names:
        if name not in known and not name.endswith(".py"):
            raise ValueError(
                f"--tasks must name tasks out of {', '.join(known)}, or .py files that define one, "
                f"got {shown(name)}"
            )
    # Absolute at once, because the code of a file may change the folder.
    paths = [Path(name).absolute() for name in names]
    tasks = [
        known[name]() if name in known else load_file(path, name)
        for name, path in zip(names, paths, strict=True)
    ]
    found = [task.name for task in tasks]
    if len(set(found)) < len(found) or not tasks:
        got = one_line(", ".join(found), 200) or "none"
        raise ValueError(f"--tasks must name at least one task, each once, got {got}")
    return tasks
