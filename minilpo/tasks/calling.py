"""Asks a task for something, once for all: anyone may write a task, so each answer is checked."""

import ctypes
import inspect
import math
import random
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from minilpo.machine.text import named, one_line
from minilpo.seeds import torch_defaults

LIMIT = 20.0  # seconds for one call of somebody's code: it may load a model, but not run for ever
AGAIN = 0.2  # seconds until code that caught the exception is stopped once more
SOON = 1e-6  # the shortest time from then on
ROUNDING = 1e-6  # by which a reward may leave [0, 1]: a sum of shares may be 1.0000000000000002
HEAVIEST = 1_000_000  # corpus_weight
PACKAGE = Path(__file__).parents[1]
UNREADABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves
NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")

PROMPT = "a str with at least one word and without control characters"
# The answer that each member must give; after the semicolon, the remedy.
REQUIRED = {
    "name": "a str of 1 to 40 letters (a to z), digits, _ or -; write name = 'my_task'",
    "prompt": f"{PROMPT}; return a text like 'Say yes', drawn with the rng that is passed",
    "ood_prompt": f"{PROMPT}; return a text like 'Please say yes', or leave ood_prompt out",
    "demonstration": "a str without control characters; return a response to learn from",
    "reward": "a number from 0 to 1; return one for any text, divided by the highest score",
    "kind": "a str of 1 to 80 printable characters; return a word or two, or leave kind out",
    "parts": "a dict of finite numbers by name; return the same names for any text",
    "knows": "True or False; return one of them, or leave knows out",
    "corpus_weight": f"a number above 0 and at most {HEAVIEST:,}; write corpus_weight = 2",
}
CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": lambda got: isinstance(got, str) and NAME.fullmatch(got),
    "prompt": lambda got: _is_text(got) and got.strip(),
    "ood_prompt": lambda got: _is_text(got) and got.strip(),
    "demonstration": lambda got: _is_text(got),
    "reward": lambda got: -ROUNDING <= _number(got) <= 1 + ROUNDING,
    "kind": lambda got: _is_label(got),
    "parts": lambda got: isinstance(got, dict) and all(map(_is_part, got.items())),
    "knows": lambda got: isinstance(got, bool),
    "corpus_weight": lambda got: 0 < _number(got) <= HEAVIEST,
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not UNREADABLE.search(value)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= 80


def _is_part(part: tuple[Any, Any]) -> bool:
    return _is_label(part[0]) and math.isfinite(_number(part[1]))


def _number(value: Any) -> float:
    """Reads any kind of number, a bool or a tensor too; gives NaN for the rest."""
    try:
        return math.nan if isinstance(value, (str, bytes, bytearray)) else float(value)
    except Exception:  # the value's class may do anything
        return math.nan


def ask(task: Any, member: str, *arguments: Any) -> Any:
    """Reads a member of a task, or calls it with the arguments, and checks the answer.

    Returns the answer; a reward and the parts of one as floats. Raises ValueError if it isn't as
    `REQUIRED` says, raises anything, or takes longer than `LIMIT` seconds in somebody's own task.

    >>> class Brief:
    ...     name = "brief"
    ...     def reward(self, prompt, response):
    ...         return 2 / len(response)
    >>> ask(Brief(), "reward", "Say no", "no, no")
    0.3333333333333333
    >>> ask(Brief(), "reward", "Say no", "n")
    Traceback (most recent call last):
    ValueError: task 'brief': reward('Say no', 'n') must be a number from 0 to 1, got 2.0; return
    one for any text, divided by the highest score
    """

    def answer() -> Any:
        found = getattr(task, member)
        return found(*arguments) if arguments else found

    try:
        is_ours = type(task).__module__.startswith("minilpo.")
        got = answer() if is_ours else run_others(answer)
    except KeyboardInterrupt:  # not the task's doing
        raise
    except BaseException as error:  # SystemExit too
        raise refusal(task, member, arguments, f"but it {what_happened(error)}") from error
    if not CHECKS[member](got):
        raise refusal(task, member, arguments, f"got {shown(got, 100)}")
    if member == "reward":
        return min(max(float(got), 0.0), 1.0)
    if member == "parts":
        return {name: float(part) for name, part in got.items()}
    is_other = member == "corpus_weight" and not isinstance(got, int)
    return float(got) if is_other else got


def judge(task: Any, prompt: str, response: str) -> float:
    """Asks for the reward of a response, a float in [0, 1]."""
    return ask(task, "reward", prompt, response)


def kind_of(task: Any, prompt: str) -> str:
    """Asks for the kind of a prompt."""
    return ask(task, "kind", prompt)


def parts_of(task: Any, prompt: str, response: str, names: Sequence[str] = ()) -> dict[str, float]:
    """Asks for the parts of a reward; raises ValueError if one of these names is missing."""
    parts = ask(task, "parts", prompt, response)
    if not set(map(str, names)) <= set(parts):
        got = f"got {shown(parts, 100)} without one of {shown([*names])}"
        raise refusal(task, "parts", (prompt, response), got)
    return parts


def grader_of(tasks: Iterable[Any], prompt: str) -> Any:
    """Finds the first task that knows a prompt, so that it can reward responses; None if none."""
    return next((task for task in tasks if ask(task, "knows", prompt)), None)


def refusal(task: Any, member: str, arguments: Sequence[Any], outcome: str) -> ValueError:
    """Makes the error that says what a task must do, what it did, and the remedy."""
    name = inspect.getattr_static(task, "name", None)  # a property may raise
    kind = f"the task of class {one_line(type(task).__name__, 60)}"
    whose = f"task {shown(name)}" if isinstance(name, str) else kind
    given = ", ".join("rng" if isinstance(x, random.Random) else shown(x) for x in arguments)
    must, remedy = REQUIRED[member].split("; ")
    call = f"{member}({given})" if arguments else member
    return ValueError(f"{whose}: {call} must be {must}, {outcome}; {remedy}")


def shown(value: Any, longest: int = 60) -> str:
    """Writes a value as `repr` does, but always on one line, not too long and harmless."""
    try:
        return one_line(repr(value), longest)
    except Exception:  # somebody's own class may do anything
        return f"<{type(value).__name__}>"


def what_happened(error: BaseException) -> str:
    """Says what came of calling somebody's code: the error, and the line of the first file."""
    places = [(Path(f.f_code.co_filename), n) for f, n in traceback.walk_tb(error.__traceback__)]
    places = [(path, n) for path, n in places if not path.is_relative_to(PACKAGE)]
    lines = [n for path, n in places if path == places[0][0]]  # not those of libraries it calls
    where = f" (line {lines[-1]} of {one_line(places[0][0].name, 60)})" if lines else ""
    if isinstance(error, TimeIsUp):
        return f"took longer than {LIMIT:g} seconds{where}"
    return f"raised {named(error, 160)}{where}"


def run_others(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls somebody else's code: `limited`, and then PyTorch's switches are as they were."""
    device = torch.get_default_device()
    try:
        with torch_defaults():
            return limited(function, *arguments)
    finally:
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)


class TimeIsUp(BaseException):
    """Somebody's code took too long. Not an Exception, because that code may catch those."""


def limited(function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Calls a function, and raises `TimeIsUp` within it after `LIMIT` or other seconds.

    In the main thread an alarm of the system does that, also inside a regular expression or a wait.
    Windows has no alarm, and other threads can't be interrupted by one. There the exception comes
    once, before the next step of Python code: an endless loop ends, but an endless call into a
    library does not, and only Ctrl-C stops it.
    """
    seconds = LIMIT if seconds is None else seconds
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "setitimer")):
        thread = ctypes.c_ulong(threading.get_ident())
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
        timer = threading.Timer(seconds, stop, (thread, ctypes.py_object(TimeIsUp)))
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments)
        finally:
            timer.cancel()

    def call() -> Any:
        return function(*arguments)

    rings = 0

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal rings
        while frame is not None and frame.f_code is not call.__code__:
            frame = frame.f_back
        if frame is None:  # the call has ended; an exception would leave the alarm switched on
            return
        rings += 1
        if rings > 1:
            # It was caught, perhaps in a loop. Now alarms follow each other so closely that one
            # falls on a line where nothing is caught.
            signal.setitimer(signal.ITIMER_REAL, SOON * (rings % 100 + 1), AGAIN)
        raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, ring)
    timer_before = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer_before)  # somebody else's alarm, if any
