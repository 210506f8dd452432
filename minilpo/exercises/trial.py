"""Calls a learner's function once: with copies, watched, and stopped if it doesn't end."""

import contextlib
import inspect
import io
import numbers
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minilpo.machine.text import named, one_line
from minilpo.tasks.calling import TimeIsUp, limited

SECONDS = 5.0  # for one call: what the exercises ask for takes milliseconds
LIBRARY = Path(__file__).parents[1]
UNSOLVED = "isn't written yet"
LONGEST_OUTPUT = 10_000  # characters that are kept of what a function prints
# The random numbers that everybody shares: how their state is read and set.
GLOBAL_NUMBERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "PyTorch's random numbers": (torch.get_rng_state, torch.set_rng_state),
    "NumPy's random numbers": (np.random.get_state, np.random.set_state),
    "Python's random numbers": (random.getstate, random.setstate),
}
REMEDIES = {  # by the argument that an exercise has for random numbers
    "generator": "write generator=generator where you draw",
    "uniforms": "the random numbers are in `uniforms`, so draw none",
    "rng": "draw with the `rng` that is passed",
}


class MisuseError(Exception):
    """The problem with an answer, in a line; raised by the `entry` of an exercise."""


class Observation(NamedTuple):
    """The outcome of one call."""

    value: Any = None
    problem: str = ""  # one line; empty if the function returned and did no harm
    printed: str = ""


def observe(
    answer: Any,
    entry: Callable[..., Any],
    arguments: Sequence[Any],
    may_use: Sequence[str] = (),
    seconds: float = SECONDS,
) -> Observation:
    """Calls a learner's function once and reports its value or its problem.

    Args:
        answer: the function, or whatever the learner wrote instead.
        entry: calls it: `entry(answer, *arguments)`.
        arguments: are copied first, so nothing that the function does to them lasts.
        may_use: modules of minilpo that it may call, such as "tasks".
        seconds: after which it is stopped.

    Returns:
        The observation. Only KeyboardInterrupt is raised.

    >>> def call(answer, *arguments):
    ...     return answer(*arguments)
    >>> observe(lambda x: x.add_(1), call, [torch.zeros(2)]).problem
    'it changes its input in place; work on a copy, or use operations that make a new tensor'
    >>> observe(lambda x: x / 0, call, [1]).problem
    'it raised ZeroDivisionError: division by zero (line 1)'
    """
    if not callable(answer):
        return Observation(problem=f"it must be a function, got {a_kind_of(answer)}")
    if is_stub(answer):
        return Observation(problem=UNSOLVED)

    def call(seed: int) -> tuple[Observation, list[str]]:
        """Returns the observation, and what was changed that belongs to everybody."""
        given, printed = [copied(argument) for argument in arguments], _Printed()
        value, error, problem = None, None, ""
        with _world_restored(seed) as changes:
            try:
                with contextlib.redirect_stdout(printed), _library_calls(may_use) as called:
                    value = limited(_plain_result, entry, answer, *given, seconds=seconds)
            except KeyboardInterrupt:  # the learner has pressed it
                raise
            except BaseException as raised:  # SystemExit too
                error = raised
        if (code := _code_of(answer)) and _is_to_be_written(code, may_use):
            called.append(code.co_name)  # the answer itself is minilpo's
        if called and not isinstance(error, TimeIsUp):  # the alarm's own handler is ours too
            problem = (
                f"it calls minilpo's own {called[0]}; write it yourself, with operations of Python "
                "and PyTorch"
            )
        elif error and not (changes and isinstance(error, MisuseError)):
            problem = _what_was_raised(error, answer, seconds)
        elif not same(list(arguments), given):
            problem = (
                "it changes its input in place; work on a copy, or use operations that make a new "
                "tensor"
            )
        return Observation(value, problem, printed.getvalue()), changes

    seen, changes = call(0)
    if not changes or seen.problem:
        return seen
    if seen.value is not None and GLOBAL_NUMBERS.keys() >= set(changes):
        # Making an nn.Linear draws random numbers too. That does harm only if the result is
        # another one with other random numbers.
        if all(same(seen.value, call(seed)[0].value) for seed in (1, 2, 3)):
            return seen
    names = inspect.signature(answer).parameters if inspect.isfunction(answer) else ["rng"]
    remedy = next((REMEDIES[name] for name in names if name in REMEDIES), "set nothing globally")
    changed = " and ".join(changes)
    problem = f"it changes something that belongs to everybody: {changed}; {remedy}"
    return Observation(None, problem, seen.printed)


def copied(value: Any) -> Any:
    """Returns a copy that shares no memory. A generator's copy draws the same numbers.

    >>> generator = torch.Generator().manual_seed(0)
    >>> torch.rand(1, generator=copied(generator)) == torch.rand(1, generator=generator)
    tensor([True])
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, torch.Generator):
        twin = torch.Generator()
        twin.set_state(value.get_state())
        return twin
    if isinstance(value, (list, tuple)):
        return type(value)(copied(part) for part in value)
    return value


def same(value: Any, other: Any) -> bool:
    """Compares two values to the last bit, NaN included. Two generators count as the same."""
    try:
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            alike = value.shape == other.shape and value.dtype == other.dtype
            return alike and torch.allclose(value, other, rtol=0, atol=0, equal_nan=True)
        if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
            return len(value) == len(other) and all(map(same, value, other))
        if isinstance(value, np.ndarray):
            return np.array_equal(value, other)
        alike = type(value) is type(other)
        return alike and bool(
            value == other or value != value or isinstance(value, torch.Generator)
        )
    except Exception:  # a value of a learner's own class, or one that PyTorch can't compare
        return False


def is_stub(answer: Any) -> bool:
    """Tests if a function has only a docstring, `pass`, `...` or `raise NotImplementedError`."""
    code = _code_of(answer)
    if code is None or code.co_code not in _STUBS:
        return False
    says_nothing = all(value in (None, ..., answer.__doc__) for value in code.co_consts)
    return code.co_names == ("NotImplementedError",) or (says_nothing and not code.co_names)


def _stub() -> None: ...


def _documented_stub() -> None:
    """Does nothing."""


def _raising_stub() -> None:
    raise NotImplementedError


_STUBS = {stub.__code__.co_code for stub in (_stub, _documented_stub, _raising_stub)}


def _code_of(answer: Any) -> CodeType | None:
    """Returns the code of a function, also if it is partial or decorated."""
    try:
        return getattr(inspect.unwrap(getattr(answer, "func", answer)), "__code__", None)
    except Exception:  # any object may be called a function
        return None


class _Printed(io.StringIO):
    """The beginning of the output: a function may print in a loop that never ends."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, LONGEST_OUTPUT - self.tell())])
        return len(text)


@contextlib.contextmanager
def _library_calls(may_use: Sequence[str]) -> Iterator[list[str]]:
    """Lists the names of minilpo's functions that others than minilpo call meanwhile."""
    names: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not _is_to_be_written(frame.f_code, may_use):
            return
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename == contextlib.__file__:
            caller = caller.f_back  # a decorator, such as `torch_defaults`, stands between
        if caller is None or not caller.f_code.co_filename.startswith(str(LIBRARY)):
            names.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(before)


def _is_to_be_written(code: CodeType, may_use: Sequence[str]) -> bool:
    """Tests if some code is minilpo's, and in no module that an answer may use."""
    if not code.co_filename.startswith(str(LIBRARY)):
        return False
    # A learner's print calls the class above.
    if code.co_filename.startswith((__file__, *(str(LIBRARY / module) for module in may_use))):
        return False
    # An import runs a module, asks the package where a name is, and makes classes. Of a decorated
    # function, the function counts.
    is_pythons = code.co_name.startswith(("<module>", "__", "torch_defaults"))
    return not is_pythons or code.co_name == "__call__"


@contextlib.contextmanager
def _world_restored(seed: int) -> Iterator[list[str]]:
    """Puts back what belongs to everybody. The list then names the parts that were changed.

    Meanwhile everybody's random numbers begin at a seed, so that a check finds the same each time.
    """
    changes: list[str] = []
    before = {name: read() for name, (read, _) in GLOBAL_NUMBERS.items()}
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    started = {name: read() for name, (read, _) in GLOBAL_NUMBERS.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield changes
    finally:
        if (grad, dtype) != (torch.is_grad_enabled(), torch.get_default_dtype()):
            changes.append("a setting of PyTorch")
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        for name, (read, write) in GLOBAL_NUMBERS.items():
            if not same(read(), started[name]):
                changes.append(name)
            write(before[name])


def _plain_result(entry: Callable[..., Any], answer: Any, *arguments: Any) -> Any:
    return _plain(entry(answer, *arguments))


def _plain(value: Any) -> Any:
    """Returns tensors without their graph, and Python's own numbers, lists and tuples."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(map(_plain, value))
    if inspect.iscoroutine(value):
        value.close()  # else Python adds a complaint of its own
    return value


def _what_was_raised(error: BaseException, answer: Any, seconds: float) -> str:
    """Says in a line what a function raised, and where."""
    if isinstance(error, MisuseError):
        return str(error)
    code = _code_of(answer)
    if code is None and isinstance(error, NotImplementedError):  # a class without some members
        return UNSOLVED
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if code is not None and frame.f_code.co_filename == code.co_filename
    ]
    where = f" (line {lines[-1]})" if lines else ""
    if isinstance(error, NotImplementedError):
        return (
            f"it comes to the line `raise NotImplementedError`{where}, which is still there; write "
            "what is missing there"
        )
    if isinstance(error, TimeIsUp):
        return f"it was stopped after {seconds:g} seconds{where}; is there a loop that never ends?"
    return f"it raised {named(error)}{where}"


def a_kind_of(value: Any) -> str:
    """Names the kind of a value, for a message.

    >>> a_kind_of(None), a_kind_of(3), a_kind_of(torch.zeros(2, 3))
    ('None', 'a Python int', 'a tensor of shape (2, 3)')
    """
    if value is None:
        return "None"
    if type(value) is Tensor and not value.is_nested:  # a nested one has no shape
        return f"a tensor of shape {tuple(value.shape)}"
    name = one_line(type(value).__name__, 40)
    module = str(type(value).__module__).split(".")[0]
    return f"a {'Python' if module == 'builtins' else module} {name}"
