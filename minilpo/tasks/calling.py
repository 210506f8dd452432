"""How the members of a task are called. Anyone may write one, so all that it gives is looked at.

`ask`, `judge`, `parts_of`, `kind_of` and `weight_of` make one clear error of whatever is wrong.
"""

import inspect
import math
import random
import signal
import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from minilpo.machine.text import named, one_line

# Seconds for one call of the code in a user's file: it may load a model, but not run for ever.
LIMIT = 20.0
AGAIN = 0.2  # seconds until code is stopped once more that has swallowed the exception
SOON = 1e-6  # the shortest time from then on
FROM_FILE = "minilpo_task_"  # the names of modules that were users' files begin with this
ROUNDING = 1e-6  # by which a reward may leave [0, 1]: a sum of shares may be 1.0000000000000002
HEAVIEST = 1_000_000  # corpus_weight

TEXT = "a str without control characters (line breaks and tabs aside)"
LABEL = "a str of 1 to 80 printable characters"
REQUIRED = {  # of each member of a task: what it must be or return, and what to do if it isn't so
    "name": (
        "a str of 1 to 40 letters (a to z), digits, _ or -, not beginning with -",
        "write name = 'my_task' in the class",
    ),
    "prompt": (
        f"{TEXT} and with at least one word",
        "return a text like 'Say yes', drawn with the rng that is passed",
    ),
    "ood_prompt": (
        f"{TEXT} and with at least one word",
        "return a text like 'Please say yes', or leave ood_prompt out",
    ),
    "demonstration": (
        TEXT,
        "return a response to the prompt that the language model may learn from",
    ),
    "reward": (
        "a number from 0 to 1",
        "return one for any text, however broken; divide by the highest score there can be",
    ),
    "kind": (LABEL, "return one of a few words, or leave kind out"),
    "parts": (
        f"a dict with finite numbers, each under {LABEL}",
        "return the same names for any text, or leave parts out",
    ),
    "knows": ("True or False", "return whether a prompt is one of the task's, or leave knows out"),
    "constraint": (
        "the name of one part, and quality that of another",
        "name them as parts does, or leave both out",
    ),
    "corpus_weight": (
        f"a number above 0 and at most {HEAVIEST:,}",
        "write corpus_weight = 2, or leave it out for 1",
    ),
}


def ask(task: Any, member: str, *arguments: Any) -> str:
    """Calls a member of a task that returns a text.

    Args:
        task: anyone's.
        member: "prompt", "ood_prompt" or "demonstration".
        arguments: those of the member.

    Returns:
        The text.

    Raises:
        ValueError: if it returns anything else, raises anything or doesn't end; names task and
            member, says what to do.

    >>> from minilpo.tasks import load_tasks
    >>> ask(load_tasks(["continuation"])[0], "prompt", random.Random(1))
    'Continue this text: The troll gave the robot a ring.'
    """
    text = _call(task, member, *arguments)
    if not _is_text(text) or not (text.strip() or member == "demonstration"):
        raise refusal(task, member, arguments, text)
    return text


def judge(task: Any, prompt: str, response: str) -> float:
    """The reward of a response, from whatever kind of number: a bool, a Fraction, a tensor.

    Args:
        task: anyone's.
        prompt: one of its prompts.
        response: any text.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if the task returns anything else, raises anything or doesn't end; names task,
            prompt, response and value.

    >>> class Brief:
    ...     name = "brief"
    ...     def reward(self, prompt, response):
    ...         return 2 / len(response)
    >>> judge(Brief(), "Say no", "no, no")
    0.3333333333333333
    >>> judge(Brief(), "Say no", "n")
    Traceback (most recent call last):
    ValueError: task 'brief': reward('Say no', 'n') must be a number from 0 to 1, got 2.0; return
    one for any text, ...
    """
    reward = _call(task, "reward", prompt, response)
    number = _number(reward)
    if not -ROUNDING <= number <= 1 + ROUNDING:  # NaN isn't either
        raise refusal(task, "reward", (prompt, response), reward)
    return min(max(number, 0.0), 1.0)


def parts_of(
    task: Any, prompt: str, response: str, names: Sequence[str] | None = None
) -> dict[str, float]:
    """The parts of a response's reward.

    Args:
        task: one with `parts`.
        prompt: one of its prompts.
        response: any text.
        names: the parts that there must be: those of another response.

    Returns:
        A finite float for each part. If the task has a `constraint`, it is one of them, and so is
        its `quality`.

    Raises:
        ValueError: if the task returns anything else, raises anything or doesn't end; names task,
            prompt, response and value.
    """
    parts = _call(task, "parts", prompt, response)
    numbers: dict[Any, float] = {None: math.nan}  # refused like any other that isn't right
    if isinstance(parts, dict):
        numbers = {name: _number(part) for name, part in parts.items()}
    is_whole = names is None or numbers.keys() == set(names)
    is_right = all(_is_label(name) and math.isfinite(part) for name, part in numbers.items())
    if not is_whole or not is_right:
        raise refusal(task, "parts", (prompt, response), parts)
    if task.constraint:
        named = {member: getattr(task, member, None) for member in ("quality", "constraint")}
        if not all(isinstance(name, str) and name in numbers for name in named.values()):
            raise refusal(task, "constraint", (), {**named, "parts": [*numbers]})
    return numbers


def knows(task: Any, prompt: str) -> bool:
    """Whether a prompt is one of the task's, as the task says; ValueError if it says nothing."""
    answer = _call(task, "knows", prompt)
    if not isinstance(answer, bool):
        raise refusal(task, "knows", (prompt,), answer)
    return answer


def grader_of(tasks: Iterable[Any], prompt: str) -> Any:
    """The first task that knows a prompt, so that it can reward responses to it; None if none."""
    return next((task for task in tasks if knows(task, prompt)), None)


def kind_of(task: Any, prompt: str) -> str:
    """The kind of a prompt, as the task names it."""
    kind = _call(task, "kind", prompt)
    if not _is_label(kind):
        raise refusal(task, "kind", (prompt,), kind)
    return kind


def weight_of(task: Any) -> float:
    """The task's `corpus_weight`; an int stays one."""
    weight = read_member(task, "corpus_weight", 1)
    number = weight if isinstance(weight, int) else _number(weight)
    if not 0 < number <= HEAVIEST:
        raise refusal(task, "corpus_weight", (), weight)
    return number


class TimeIsUp(BaseException):
    """A user's code took longer than `LIMIT`. No Exception, because that code may catch those."""


def limited(function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Calls a function; from `LIMIT` seconds on, or as many others, `TimeIsUp` is raised within it.

    Without a limit where the system has no alarm, and outside of the main thread, the only one that
    an alarm can interrupt.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "setitimer")):
        return function(*arguments)

    def call() -> Any:
        return function(*arguments)

    rings = 0

    def ring(signal_number: int, frame: FrameType | None) -> None:
        nonlocal rings
        while frame is not None and frame.f_code is not call.__code__:
            frame = frame.f_back
        if frame is None:  # the alarm is being switched off, or it would stay on
            return
        rings += 1
        # Raised at the end of an object's life it gets lost. Nobody needs to be told, least of all
        # by a function in Python, where the next alarm would fall into the telling.
        sys.unraisablehook = bool
        if rings > 1:
            # It was caught, perhaps in a loop. Now alarms follow each other so closely that one
            # falls on a line where nothing is caught.
            signal.setitimer(signal.ITIMER_REAL, SOON * (rings % 100 + 1), AGAIN)
        raise TimeIsUp

    hook, handler = sys.unraisablehook, signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, LIMIT if seconds is None else seconds, AGAIN)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.unraisablehook = hook
        if timer[0]:  # somebody else's alarm
            signal.setitimer(signal.ITIMER_REAL, *timer)


def what_happened(error: BaseException) -> str:
    """What came of calling a user's code, in a few words and with the line."""
    where = ""
    first: Path | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.parent != Path(__file__).parent:
            first = first or path
            if path == first:  # what the user's file has called isn't the reader's
                where = f" (line {line} of {one_line(path.name, 60)})"
    if isinstance(error, TimeIsUp):
        return f"took longer than {LIMIT:g} seconds{where}"
    return f"raised {named(error, 160)}{where}"


def shown(value: Any, longest: int = 60) -> str:
    """A value as `repr` writes it, but always on one line, not too long and harmless.

    >>> shown(float("nan")), shown("so " * 100, 20)
    ('nan', "'so so ... so so '")
    """
    try:
        return one_line(repr(value), longest)
    except Exception:  # a user's own class may do anything
        return f"<{type(value).__name__}>"


def _call(task: Any, member: str, *arguments: Any) -> Any:
    try:
        method = getattr(task, member)
        # An alarm costs some microseconds, and only a user's file is in need of one.
        is_theirs = type(task).__module__.startswith(FROM_FILE)
        return limited(method, *arguments) if is_theirs else method(*arguments)
    except KeyboardInterrupt:  # not the task's doing
        raise
    except BaseException as error:  # SystemExit too
        raise refusal(task, member, arguments, error) from error


def read_member(task: Any, member: str, default: Any) -> Any:
    """An attribute of a task, or the default if it has none."""
    try:
        return getattr(task, member, default)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a property may do anything
        raise refusal(task, member, (), error) from error


def refusal(task: Any, member: str, arguments: Sequence[Any], got: Any) -> ValueError:
    """The error that says what a member of a task gave or raised, and what is asked of it."""
    name = inspect.getattr_static(task, "name", None)
    whose = f"the task of class {one_line(type(task).__name__, 60)}"
    if isinstance(name, str):
        whose = f"task {shown(name)}"
    parts = ["rng" if isinstance(value, random.Random) else shown(value) for value in arguments]
    call = f"({', '.join(parts)})" if parts else ""
    must, remedy = REQUIRED[member]
    if inspect.iscoroutine(got):
        got.close()  # else Python adds a complaint of its own
    raised = isinstance(got, BaseException)
    outcome = f"but it {what_happened(got)}" if raised else f"got {shown(got, 100)}"
    return ValueError(f"{whose}: {member}{call} must be {must}, {outcome}; {remedy}")


def _number(value: Any) -> float:
    """The value as a float; NaN if it isn't a number."""
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes, bytearray)):  # float would read them
        return math.nan
    try:
        return float(value)
    except Exception:  # whatever the value's class does
        return math.nan


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be encoded, printed and read."""
    if not isinstance(value, str) or value.isprintable():  # as nearly always
        return isinstance(value, str)
    return all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in value)


def _is_label(value: Any) -> bool:
    is_printable = isinstance(value, str) and value.isprintable()
    return is_printable and 0 < len(value.strip()) <= len(value) <= 80
