"""Judges a value: its type, shape, dtype and device, then its numbers. Nothing is broadcast."""

import math
import numbers
from dataclasses import dataclass
from types import CoroutineType, GeneratorType
from typing import Any

import torch
from torch import Tensor

from minilpo.exercises.trial import a_kind_of
from minilpo.machine.text import one_line


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    `passed` is None if nothing was written yet. `function` is the learner's if it passed, else the
    right one, so that a lesson can go on with it.
    """

    exercise: str
    passed: bool | None
    message: str  # one line
    text: str  # all of the report
    function: Any = None

    def __repr__(self) -> str:
        outcome = {None: "not written yet", False: "not yet", True: "right"}[self.passed]
        return f"<{self.exercise}: {outcome}>"


LARGEST_SHOWN = 12  # numbers of a tensor
NOT_CALLED = {  # results of functions that haven't run yet, and the remedies
    GeneratorType: "write return where there is yield",
    CoroutineType: "write def where there is async def",
}


def misfit(expected: Any, got: Any, name: str = "the result") -> str:
    """Describes in a line a fault in the form of a value; empty if there is none.

    >>> misfit(torch.zeros(2), torch.zeros(2, 1))
    'the result must have shape (2,), got (2, 1)'
    >>> misfit(torch.zeros(()), 0.0)
    'the result must be a tensor of shape (), got a Python float; keep to tensor operations'
    >>> misfit(torch.zeros(2), (torch.zeros(2),))
    'the result must be a tensor of shape (2,), got a Python tuple; return the tensor in it, [0]'
    >>> misfit(0.5, torch.zeros(()))
    'the result must be a Python float, got a tensor of shape (); .item() makes a number of it'
    """
    if got is None and expected is not None:
        return (
            f"{name} must be {a_kind_of(expected)}, got None; does the function end without return?"
        )
    for kind, remedy in NOT_CALLED.items():
        if type(got) is kind:
            return f"{name} must be {a_kind_of(expected)}, got {a_kind_of(got)}; {remedy}"
    if isinstance(expected, Tensor):
        return _misfit_of_tensor(expected, got, name)
    if isinstance(expected, (list, tuple)):
        return _misfit_of_sequence(expected, got, name)
    if _kind(got) == _kind(expected):
        return ""
    remedy = ""
    if isinstance(got, Tensor) and got.numel() == 1:
        remedy = "; .item() makes a number of it"
    elif _kind(expected) is float and _kind(got) is int:
        return ""
    return f"{name} must be {a_kind_of(expected)}, got {a_kind_of(got)}{remedy}"


def _misfit_of_tensor(expected: Tensor, got: Any, name: str) -> str:
    if type(got) is not Tensor:
        remedy = "keep to tensor operations"
        if isinstance(got, (list, tuple)) and len(got) == 1 and type(got[0]) is Tensor:
            remedy = "return the tensor in it, [0]"
        return f"{name} must be {a_kind_of(expected)}, got {a_kind_of(got)}; {remedy}"
    parts = {
        "shape": (tuple(expected.shape), tuple(got.shape)),
        "dtype": (expected.dtype, got.dtype),
        "device": (expected.device, got.device),
        "layout": (expected.layout, got.layout),
    }
    for part, (right, wrong) in parts.items():
        if right != wrong:
            return f"{name} must have {part} {right}, got {wrong}"
    return ""


def _misfit_of_sequence(expected: Any, got: Any, name: str) -> str:
    kind = "a tuple" if isinstance(expected, tuple) else "a list"
    if not isinstance(got, type(expected)):
        return f"{name} must be {kind} of {len(expected)}, got {a_kind_of(got)}"
    if len(got) != len(expected):
        return f"{name} must be {kind} of {len(expected)}, got one of {len(got)}"
    for number, (right, part) in enumerate(zip(expected, got, strict=True), 1):
        if wrong := misfit(right, part, f"part {number} of {name}"):
            return wrong
    return ""


def _kind(value: Any) -> type:
    """Returns the type of a value that isn't a tensor. NumPy's numbers count as Python's."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, numbers.Integral):
        return int
    return float if isinstance(value, numbers.Real) else type(value)


def agree(expected: Any, got: Any, relative: float = 1e-4, absolute: float = 1e-5) -> bool:
    """Tests if two values of the same form are equal up to rounding.

    >>> agree(torch.tensor([1.0]), torch.tensor([1.00001])), agree([1, 2.0], [1, 2.1])
    (True, False)
    """
    if isinstance(expected, Tensor):
        if expected.is_floating_point():
            pair = expected.double(), got.double()
            return torch.allclose(*pair, rtol=relative, atol=absolute, equal_nan=True)
        return torch.equal(expected, got)
    if isinstance(expected, (list, tuple)):
        return all(agree(a, b, relative, absolute) for a, b in zip(expected, got, strict=True))
    if isinstance(expected, float):
        both_nan = math.isnan(expected) and math.isnan(got)
        return both_nan or math.isclose(expected, got, rel_tol=relative, abs_tol=absolute)
    return bool(expected == got)


def contrast(expected: Any, got: Any) -> str:
    """Shows two different values of the same form; of large tensors, the first different place.

    >>> contrast(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    '[1, 2] is right, got [1, 3]'
    >>> contrast(torch.zeros(20, 20), torch.eye(20))
    'at [0, 0] 0 is right, got 1'
    """
    where = ""
    if isinstance(expected, Tensor) and expected.numel() > LARGEST_SHOWN:
        near = torch.isclose(got.double(), expected.double(), 1e-4, 1e-5, equal_nan=True)
        if not near.all():
            place = tuple((~near).nonzero()[0].tolist())
            where, expected, got = f"at {list(place)} ", expected[place], got[place]
    return f"{where}{shown(expected)} is right, got {shown(got)}"


def relation(expected: list[Any], got: list[Any]) -> str:
    """Names a relation of all wrong results to the right ones; empty if none is found.

    >>> relation([0.5, 0.25, 0.2], [50.0, 25.0, 20.0])
    'every number is 100 times the right one'
    >>> relation([[1, 2], [3]], [[2, 1], [3]])
    'the parts are right, but their order is another one'
    """
    if all(isinstance(value, list) for value in expected):
        pairs = zip(expected, got, strict=True)
        same_parts = all(sorted(map(repr, a)) == sorted(map(repr, b)) for a, b in pairs)
        return "the parts are right, but their order is another one" if same_parts else ""
    if not all(_is_real(value) for value in expected):
        return ""
    right, wrong = (
        torch.cat([torch.as_tensor(value, dtype=torch.float64).flatten() for value in values])
        for values in (expected, got)
    )
    if not wrong.isfinite().all() and right.isfinite().all():
        kind = "NaN" if wrong.isnan().any() else "infinite"
        return (
            f"some numbers are {kind}: something is divided by 0, or log is taken of 0, or exp of "
            "a large number"
        )
    if agree(right, wrong.exp()):
        return "these are the logarithms of the right numbers"
    factor = (wrong.abs().sum() / right.abs().sum()).item()
    if agree(right, -wrong):
        return "every number has the wrong sign"
    if len(right) > 2 and wrong.any() and agree(factor * right, wrong):
        return f"every number is {factor:.4g} times the right one"
    return ""


def _is_real(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point())


def shown(value: Any, longest: int = 110) -> str:
    """Writes a value for a report: small tensors in full, with four digits.

    >>> shown(torch.tensor([1.0, 0.33333])), shown(torch.zeros(20, 20)), shown("a fox")
    ('[1, 0.3333]', 'a tensor of shape (20, 20)', "'a fox'")
    """
    try:
        return one_line(_written(value), longest)
    except Exception:  # a learner's own class may do anything
        return a_kind_of(value)


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return _rounded(value.tolist()) if value.numel() <= LARGEST_SHOWN else a_kind_of(value)
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, torch.Generator):
        return "a generator"
    if isinstance(value, (list, tuple)):
        parts = ", ".join(map(_written, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts})"
    return repr(value)


def _rounded(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_rounded, value))}]"
    # Adding 0 makes 0 of -0, which looks like a mistake.
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)
