"""A user's task: the file is run, the class in it found, and the task tried before any training."""

import inspect
import random
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from minilpo.machine.text import one_line
from minilpo.tasks.base import draw_demonstrations
from minilpo.tasks.calling import (
    FROM_FILE,
    ask,
    judge,
    kind_of,
    knows,
    limited,
    parts_of,
    read_member,
    refusal,
    shown,
    weight_of,
    what_happened,
)
from minilpo.tasks.task import MEMBERS, Task, offers

TRIES = 4  # demonstrations on which a task is tried
LONG = 100  # words of what a language model may write that doesn't find an end


def load_file(path: Path) -> Task:
    """Runs a user's file, makes the one class in it that is a task, and tries the task out."""
    content = _content_of(path)
    file = f"the task file {shown(str(path), 120)}"
    try:
        made = limited(_run_file, path, content)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code raises, SystemExit too
        raise ValueError(
            f"{file} must run, but it {what_happened(error)}; mend it and try again"
        ) from error
    if isinstance(made, str):
        raise ValueError(
            f"{file} must define one class with {', '.join(MEMBERS[:-1])} and {MEMBERS[-1]}, "
            f"got {made}"
        )
    try:
        try_out(made)
    except ValueError as error:
        raise ValueError(f"{file} can't be used: {error}") from error
    return made


def _run_file(path: Path, content: bytes) -> Any:
    """The task that a file defines, or a text on how many it has and what its classes lack."""
    module = ModuleType(f"{FROM_FILE}{path.stem}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    # Not by importlib, which runs an older compilation if the file's time and size are the same.
    exec(compile(content, str(path), "exec"), vars(module))

    lacks: dict[type, list[str]] = {}
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__:
            lacks[kind] = [member for member in MEMBERS if not offers(kind, member)]
    whole = [c for c in lacks if not lacks[c]] or [c for c in lacks if lacks[c] == ["name"]]
    if len(whole) == 1:
        task = with_defaults(whole[0])()
        if hasattr(task, "name"):  # which __init__ may have given it
            return task
    found = [c.__name__ for c in whole if not lacks[c]]
    wrong = [f"{c.__name__} has no {' and no '.join(lack)}" for c, lack in lacks.items()]
    parts = found or wrong
    return f"{len(found)}{': ' if parts else ''}{one_line('; '.join(parts), 160)}"


def with_defaults(kind: type) -> type[Task]:
    """A class of tasks as it is; a plain class of four members with the defaults of `Task`."""
    if issubclass(kind, Task):
        return kind
    return type(kind.__name__, (kind, Task), {"__module__": kind.__module__})


def _content_of(path: Path) -> bytes:
    try:
        if path.is_file():
            return path.read_bytes()
        why = "which is no file" if path.exists() else "which isn't there"
    except (OSError, ValueError) as error:  # a ValueError for a null character
        why = f"which can't be read ({getattr(error, 'strerror', None) or error})"
    raise ValueError(f"--tasks must name existing files, got {shown(str(path), 120)}, {why}")


def try_out(task: Any) -> None:
    """Calls every member of a task a few times, so that what is wrong shows before any training.

    Rewards and parts are asked for the demonstrations and for such texts as a language model writes
    that hasn't learned much. Nothing else that is drawn depends on this rng.

    Raises:
        ValueError: if a member isn't as `calling.REQUIRED` says, or the same rng gives other texts
            the second time.
    """
    name = read_member(task, "name", None)
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{0,39}", name):
        raise refusal(task, "name", (), name)
    weight_of(task)
    for member in ("ood_prompt", "parts", "constraint"):
        read_member(task, member, None)  # says so if that alone goes wrong
    has = [member for member in ("ood_prompt", "parts", "constraint") if offers(task, member)]

    def draw() -> list[tuple[str, str]]:
        rng = random.Random(0)
        pairs = draw_demonstrations(task, TRIES, "train", rng)
        if "ood_prompt" in has:
            pairs += [(ask(task, "ood_prompt", rng), "") for _ in range(TRIES)]
        return pairs

    names = None
    for pair, same in zip(draw(), draw(), strict=True):
        if pair != same:
            raise ValueError(
                f"task {name!r}: prompt and demonstration must return the same texts "
                f"for the same rng, got {shown(pair)} and then {shown(same)}; "
                "draw with the rng that is passed, and keep no count of the calls"
            )
        prompt, demonstration = pair
        kind_of(task, prompt)
        knows(task, prompt)
        words = demonstration.split() or prompt.split()
        backwards, endless = " ".join(words[::-1]), " ".join((words * LONG)[:LONG])
        for response in (demonstration, "", words[0], backwards, endless, "<eos> ? 0 -1.5 ####"):
            judge(task, prompt, response)
            if "parts" in has or "constraint" in has:
                names = [*parts_of(task, prompt, response, names)]
