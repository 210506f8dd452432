"""A user's task: the file is run, the class in it found, and the task tried before any training."""

import contextlib
import inspect
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minilpo.machine.text import one_line
from minilpo.tasks.base import draw_demonstrations
from minilpo.tasks.calling import ask, parts_of, run_others, shown, what_happened
from minilpo.tasks.task import MEMBERS, Task, offers

TRIES = 4  # demonstrations on which a task is tried
LONG = 100  # words of a response that doesn't find an end


def load_file(path: Path, typed: str) -> Task:
    """Runs a user's file, makes the one class in it that is a task, and tries the task out.

    Raises ValueError if that can't be done; it names the file as the user has `typed` it.
    """
    file = f"the task file {shown(typed, 120)}"
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a null character
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--tasks must name existing files, got {shown(typed, 120)} ({why})"
        ) from None
    with _nothing_lasts(str(path.parent)):
        try:
            task = run_others(_run_file, path, content)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises, SystemExit too
            said = f"must run, but it {what_happened(error)}; mend it and try again"
            raise ValueError(f"{file} {said}") from error
        if isinstance(task, str):
            members = f"{', '.join(MEMBERS[:-1])} and {MEMBERS[-1]}"
            raise ValueError(f"{file} must define one class with {members}, got {task}")
        try:
            try_out(task)
        except Exception as error:
            why = error if isinstance(error, ValueError) else f"its code {what_happened(error)}"
            raise ValueError(f"{file} can't be used: {why}") from error
    return task


@contextlib.contextmanager
def _nothing_lasts(folder: str) -> Iterator[None]:
    """Lets a file import what lies beside it; then puts back what belongs to everybody.

    What a file draws from the global generators while it is run is the same in each command.
    """
    modules, states = set(sys.modules), (random.getstate(), np.random.get_state())
    sys.path.insert(0, folder)
    random.seed(0), np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(states[0]), np.random.set_state(states[1])
        sys.path.remove(folder)
        sys.path.append(folder)  # at the end it hides nothing; a method may import later
        # Another task's folder may have a module of the same name.
        for name in set(sys.modules) - modules:
            if str(Path(getattr(sys.modules[name], "__file__", None) or "").parent) == folder:
                del sys.modules[name]


def _run_file(path: Path, content: bytes) -> Any:
    """Returns the task that a file defines, or a text on how many it has and what they lack."""
    module = ModuleType(f"minilpo_task_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    # Not by importlib, which runs an older compilation if the file's time and size are the same.
    exec(compile(content, str(path), "exec"), vars(module))

    lacks: dict[type, list[str]] = {}
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__:
            lacks[kind] = [member for member in MEMBERS if not offers(kind, member)]
            lacks[kind] += sorted(getattr(kind, "__abstractmethods__", ()))
    # A class may get its name in `__init__`; beside one with a name, it is a helper.
    whole = [c for c in lacks if not lacks[c]] or [c for c in lacks if lacks[c] == ["name"]]
    if len(whole) == 1:
        return with_defaults(whole[0])()
    wrong = [f"{c.__name__} has no {' and no '.join(lack)}" for c, lack in lacks.items()]
    names = "; ".join([c.__name__ for c in whole] or wrong)
    return one_line(f"{len(whole)}: {names}" if names else "0", 160)


def with_defaults(kind: type) -> type[Task]:
    """Gives a plain class of four members the defaults of `Task`."""
    if issubclass(kind, Task):
        return kind
    return type(kind.__name__, (kind, Task), {"__module__": kind.__module__})


def try_out(task: Any) -> None:
    """Asks a task for everything a few times, so that errors show before any training.

    Rewards and parts are asked for the demonstrations and for such texts as a language model writes
    that hasn't learned much. Raises ValueError if an answer isn't as `calling.REQUIRED` says, the
    same rng gives other texts the second time, or something draws from a global generator.
    """
    before, name = _global_generators(), ask(task, "name")
    ask(task, "corpus_weight")
    parts = [task.quality, task.constraint] if getattr(task, "constraint", "") else []

    def draw() -> list[tuple[str, str]]:
        rng = random.Random(0)
        pairs = draw_demonstrations(task, TRIES, "train", rng)
        if offers(task, "ood_prompt"):
            pairs += [(ask(task, "ood_prompt", rng), "") for _ in range(TRIES)]
        return pairs

    pairs, again = draw(), draw()
    for prompt, demonstration in pairs:
        ask(task, "kind", prompt), ask(task, "knows", prompt)
        words = demonstration.split() or prompt.split()
        backwards, endless = " ".join(words[::-1]), " ".join((words * LONG)[:LONG])
        for response in (demonstration, "", words[0], backwards, endless, "<eos> ? 0 -1.5 ####"):
            ask(task, "reward", prompt, response)
            if parts or offers(task, "parts"):
                parts = [*parts_of(task, prompt, response, parts)]
    if _global_generators() != before:
        raise ValueError(
            f"task {name!r} must not draw from the global generators of random and NumPy, which "
            "differ from run to run; write rng.choice for random.choice, and in a reward draw from "
            "random.Random(prompt + response)"
        )
    if pairs != again:
        first, second = next(both for both in zip(pairs, again, strict=True) if both[0] != both[1])
        raise ValueError(
            f"task {name!r}: prompt and demonstration must return the same texts for the same rng, "
            f"got {shown(first)} and then {shown(second)}; draw with the rng that is passed, and "
            "keep no count of the calls"
        )


def _global_generators() -> tuple[Any, str]:
    return random.getstate(), str(np.random.get_state())
