"""One trial of a learner's function: it is called with copies, watched, and stopped if need be."""

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


class MisuseError(Exception):
    """Raised by the `entry` of an exercise: what an answer did wrong, in a line."""


class Observation(NamedTuple):
    """What came of one call."""

    value: Any = None
    problem: str = ""  # one line; empty if the function returned something and touched nothing else
    printed: str = ""


def observe(
    answer: Any,
    entry: Callable[..., Any],
    arguments: Sequence[Any],
    may_use: Sequence[str] = (),
    seconds: float = SECONDS,
) -> Observation:
    """Calls a learner's function once and says what came of it; never raises.

    Args:
        answer: the function, or whatever the learner wrote instead.
        entry: calls it: `entry(answer, *arguments)`.
        arguments: are copied first, so nothing that the function does to them lasts.
        may_use: modules of minilpo that it may call, such as "tasks"; others are to be written.
        seconds: after which it is stopped.

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
    given, printed = [copied(argument) for argument in arguments], _Printed()
    calls = _LibraryCalls(answer, may_use)
    try:
        with _world_restored() as changes, contextlib.redirect_stdout(printed), calls:
            value = limited(_plain_result, entry, answer, *given, seconds=seconds)
    except NotImplementedError:
        return Observation(problem=UNSOLVED)
    except MisuseError as error:
        problem = _misconduct(arguments, given, calls.seen, changes) or str(error)
        return Observation(None, problem, printed.getvalue())
    except KeyboardInterrupt:  # the learner has pressed it
        raise
    except BaseException as error:  # SystemExit too
        problem = _what_happened(error, answer, seconds)
        if calls.seen and not isinstance(error, TimeIsUp):  # the alarm's own handler is ours too
            problem = _library_called(calls.seen)
        return Observation(None, problem, printed.getvalue())
    return Observation(
        value, _misconduct(arguments, given, calls.seen, changes), printed.getvalue()
    )


def copied(value: Any) -> Any:
    """A copy that shares no memory; a generator's copy draws the same numbers.

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
    if isinstance(value, random.Random):
        twin_rng = random.Random()
        twin_rng.setstate(value.getstate())
        return twin_rng
    if isinstance(value, (list, tuple)):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    return value


def same(value: Any, other: Any) -> bool:
    """Whether two values are equal to the last bit, NaN included; generators are left aside."""
    try:
        return _same(value, other)
    except Exception:  # a learner's own class may do anything
        return False


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        alike = value.shape == other.shape and value.dtype == other.dtype
        return alike and torch.allclose(value, other, rtol=0, atol=0, equal_nan=True)
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, (torch.Generator, random.Random)):
        return True
    return type(value) is type(other) and bool(value == other or value != value)


def is_stub(answer: Any) -> bool:
    """Whether a function has nothing in it but a docstring, `pass` or `...`."""
    code = _code_of(answer)
    if code is None or code.co_names:
        return False
    says_nothing = all(value in (None, ..., answer.__doc__) for value in code.co_consts)
    return code.co_code in _EMPTY and says_nothing


def _stub() -> None: ...


def _documented_stub() -> None:
    """Nothing."""


_EMPTY = {_stub.__code__.co_code, _documented_stub.__code__.co_code}


def _code_of(answer: Any) -> CodeType | None:
    """What a function consists of, also if it is partial or decorated."""
    try:
        code = getattr(inspect.unwrap(getattr(answer, "func", answer)), "__code__", None)
    except Exception:  # anything may be called a function, and may do anything
        return None
    return code if isinstance(code, CodeType) else None


class _Printed(io.StringIO):
    """The beginning of what is printed: somebody may print in a loop that never ends."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, LONGEST_OUTPUT - self.tell())])
        return len(text)

    def close(self) -> None:
        """Nothing: it is still to be read."""


class _LibraryCalls:
    """Within it, notes which functions of minilpo somebody else calls, some modules' own aside."""

    def __init__(self, answer: Any, may_use: Sequence[str]):
        self.allowed = tuple(str(LIBRARY / module) for module in may_use)
        self.seen: list[str] = []
        # The function itself may be one of ours: then nobody else calls it.
        code = _code_of(answer)
        if code is not None and self._is_to_be_written(code):
            self.seen.append(code.co_name)

    def __enter__(self) -> None:
        self.before = sys.getprofile()
        sys.setprofile(self._note)

    def __exit__(self, *raised: object) -> None:
        sys.setprofile(self.before)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not self._is_to_be_written(frame.f_code):
            return
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename == contextlib.__file__:
            caller = caller.f_back  # a decorator, such as `torch_defaults`, stands between
        if caller is None or not _is_ours(caller.f_code):
            self.seen.append(frame.f_code.co_name)

    def _is_to_be_written(self, code: CodeType) -> bool:
        is_allowed = code.co_filename.startswith(self.allowed) if self.allowed else False
        if is_allowed or code.co_filename == __file__:  # printing runs what is above
            return False
        # An import runs a module, asks the package where a name is, and makes classes.
        is_pythons = code.co_name == "<module>" or code.co_name.startswith("__")
        is_pythons |= code.co_name == "torch_defaults"  # what it decorates counts
        return _is_ours(code) and (not is_pythons or code.co_name == "__call__")


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(str(LIBRARY))


@contextlib.contextmanager
def _world_restored() -> Iterator[list[str]]:
    """Puts back what belongs to everybody; the list then says what of it was changed."""
    changes: list[str] = []
    before = _world()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield changes
    finally:
        now = _world()
        if torch.is_grad_enabled() != grad or torch.get_default_dtype() != dtype:
            changes.append("a setting of PyTorch")
        changes += [name for name in before if not same(before[name], now[name])]
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.set_rng_state(before["PyTorch's random numbers"])
        np.random.set_state(before["NumPy's random numbers"])
        random.setstate(before["Python's random numbers"])


def _world() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state()
    kind, keys, *rest = numpy_state
    return {
        "PyTorch's random numbers": torch.get_rng_state(),
        "NumPy's random numbers": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "Python's random numbers": random.getstate(),
    }


def _misconduct(
    arguments: Sequence[Any], given: Sequence[Any], library_calls: list[str], changes: list[str]
) -> str:
    """What a function did beside returning something, in a line."""
    if library_calls:
        return _library_called(library_calls)
    if not same(list(arguments), list(given)):
        return (
            "it changes its input in place; work on a copy, or use operations that make a new "
            "tensor"
        )
    if changes:
        return (
            f"it changes something that belongs to everybody: {' and '.join(changes)}; "
            "draw from the generator or the numbers that are passed, and set nothing globally"
        )
    return ""


def _library_called(names: list[str]) -> str:
    return (
        f"it calls minilpo's own {names[0]}; write it yourself, with operations of Python and "
        "PyTorch"
    )


def _plain_result(entry: Callable[..., Any], answer: Any, *arguments: Any) -> Any:
    return _plain(entry(answer, *arguments))


def _plain(value: Any) -> Any:
    """Tensors without their graph, and Python's own numbers, lists and tuples.

    Whatever code a class of the learner's has runs here, and never again.
    """
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


def _what_happened(error: BaseException, answer: Any, seconds: float) -> str:
    """What a function raised, in a line, and where."""
    code = _code_of(answer)
    file = code.co_filename if code else None
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file
    ]
    where = f" (line {lines[-1]})" if lines else ""
    if isinstance(error, TimeIsUp):
        return f"it was stopped after {seconds:g} seconds{where}; is there a loop that never ends?"
    return f"it raised {named(error)}{where}"


def a_kind_of(value: Any) -> str:
    """What something is, in words for a message.

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
