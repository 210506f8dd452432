"""Judges an answer: compares a learner's function with the right one on random inputs.

An examination says what it looked at. If the results are those of a mistake that it knows, it names
the mistake.
"""

import inspect
import itertools
import textwrap
from collections.abc import Callable
from typing import Any

from torch import Tensor

from minilpo.exercises.trial import UNSOLVED, Observation, a_kind_of, copied, same
from minilpo.exercises.verdict import Verdict, contrast, relation, shown

Case = tuple[Any, ...]  # the arguments of one call


class Examination:
    """One answer to one exercise.

    Args:
        key: the `Exercise`, which has the right function and the likely mistakes.
        cases: the inputs, the simplest first.
        call: tries the learner's function on one of them.
    """

    def __init__(self, key: Any, cases: list[Case], call: Callable[[Case], Observation]):
        self.key, self.cases, self.call = key, cases, call
        self.names = list(inspect.signature(key.right).parameters)
        self.expected = [key.right(*copied(case)) for case in cases]
        self.given: list[Any] = []  # the first results, as they were when they came

    def verdict(self) -> Verdict:
        """Reports the first fault, or that there is none."""
        return self._ask() or self._compare() or self._ask_again() or self._passed()

    def _ask(self) -> Verdict | None:
        """Calls the function on every input and looks at the form of the results."""
        results = []  # of which `given` has copies
        for number, (case, right) in enumerate(zip(self.cases, self.expected, strict=True), 1):
            seen = self.call(case)
            if seen.problem == UNSOLVED:
                return self._unsolved()
            wrong = seen.problem or self._misfit(right, seen.value)
            if seen.printed and seen.value is None and right is not None and not seen.problem:
                wrong = "it prints its result; let it end with return and the result"
            if wrong:
                # Some mistakes show in the form, others in the values before it.
                before = self.given
                self.given = before if seen.problem else [*before, seen.value]
                why = self._mistake_made(case if seen.problem else None) or self._state()
                if not why:
                    self.given = before
                    why = self._mistake_made()
                return self._failed(wrong, number, seen.printed, why)
            self.given.append(copied(seen.value))
            results.append(seen.value)
        self.results = results
        return None

    def _compare(self) -> Verdict | None:
        """Looks at the values."""
        rows = list(zip(self.expected, self.given, self.cases, strict=True))
        wrong_at = [i for i, row in enumerate(rows) if not self._is_right(*row)]
        if not wrong_at:
            return None
        right, value, _ = rows[wrong_at[0]]
        values = f"wrong for {len(wrong_at)} of {len(rows)} inputs; here {contrast(right, value)}"
        return self._failed(values, wrong_at[0] + 1, why=self._why())

    def _ask_again(self) -> Verdict | None:
        """Calls it again in another order: a result may not depend on the calls before it."""
        for number, (result, value) in enumerate(zip(self.results, self.given, strict=True), 1):
            if not same(result, value):
                wrong = "it changes this result when it is called again; make a new one each time"
                return self._failed(wrong, number)
        for i in reversed(range(len(self.cases))):
            again = self.call(self.cases[i])
            if again.problem or not same(again.value, self.given[i]):
                wrong = "it gives another result for the same input when asked again; keep no state"
                return self._failed(again.problem or wrong, i + 1, again.printed)
        return None

    # Likely mistakes

    def _why(self) -> str:
        """Names the likely mistake behind wrong values; empty if none is known."""
        if why := self._mistake_made() or self._state():
            return why
        if len(self.given) > 2 and all(same(self.given[0], value) for value in self.given[1:]):
            return "it says the same whatever it is given"
        rows = zip(self.expected, self.given, self.cases, strict=True)
        wrong = [row[:2] for row in rows if not self._is_right(*row)]
        if why := relation(*map(list, zip(*wrong, strict=True))):
            return why
        for place, name in enumerate(self.names):
            if self._ignores(place):
                return f"it ignores its argument `{name}`"
        return ""

    def _mistake_made(self, failed: Case | None = None) -> str:
        """Names the mistake that gives the same values for the first inputs, or two mistakes.

        Of several it takes one that also raises an error on the input `failed`.
        """
        # The answer may have failed before the last input.
        rows = list(zip(self.expected, self.given, self.cases, strict=False))
        wrong_at = {i for i, row in enumerate(rows) if not self._is_right(*row)}
        if not wrong_at:
            return ""
        known = self.key.known_mistakes
        # `all` ends at the first difference. Most mistakes differ soon.
        alone = [m for m, wrong in known.items() if all(self._is_made(wrong, *r) for r in rows)]
        if failed is not None:
            alone.sort(key=lambda message: not self._raises(known[message], failed))
        if alone:
            return alone[0]
        explained = {
            message: {i for i in wrong_at if self._is_made(wrong, *rows[i])}
            for message, wrong in known.items()
        }
        for first, second in itertools.combinations(explained, 2):
            one, other = explained[first], explained[second]
            if wrong_at == one | other and min(len(one - other), len(other - one)) > 1:
                return f"{first}; also, {second}"
        return ""

    def _state(self) -> str:
        """Calls it again on the first and the last input; says if the result is another one."""
        ends = list(zip(self.cases, self.given, strict=False))
        for case, value in ends[:1] + ends[-1:]:
            again = self.call(case)
            # A value that can't be compared with itself, such as an odd object, says nothing.
            if not again.problem and same(value, value) and not same(again.value, value):
                return (
                    "it keeps something from one call to the next, in a global name, or in a "
                    "default argument that is a list"
                )
        return ""

    def _ignores(self, place: int) -> bool:
        """Tests if another value of one argument changes nothing where it should."""
        looked = 0
        for case, value in zip(self.cases, self.given, strict=True):
            others = [other[place] for other in self.cases]
            if isinstance(case[place], Tensor):  # no other input may have this shape
                others.append(case[place].flip(tuple(range(case[place].ndim))))
            changed = next(filter(None, (self._changed(case, place, x) for x in others)), None)
            if changed is None:
                continue
            seen = self.call(changed)
            if seen.problem or not same(seen.value, value):
                return False
            looked += 1
            if looked == 4:
                break
        return looked > 0

    def _changed(self, case: Case, place: int, other: Any) -> Case | None:
        """Returns an input with another value of one argument, if that changes the right result."""
        if not _alike(case[place], other) or same(case[place], other):
            return None
        changed = (*case[:place], other, *case[place + 1 :])
        right = self.key.right
        try:
            matters = not same(right(*copied(changed)), right(*copied(case)))
        except Exception:  # the two inputs don't fit together
            return None
        return changed if matters else None

    # Values may be of a learner's own class, and raise errors when they are compared.

    def _misfit(self, expected: Any, got: Any) -> str:
        try:
            return self.key.misfit(expected, got)
        except Exception as error:
            return (
                f"the result must be {a_kind_of(expected)}, got {a_kind_of(got)}, which raises "
                f"{type(error).__name__} when it is looked at"
            )

    def _is_right(self, expected: Any, got: Any, case: Case) -> bool:
        """Tests if a value has the right form and is right."""
        try:
            fits = not self.key.misfit(expected, got)
            return fits and self.key.agree(expected, got, case)
        except Exception:
            return False

    def _is_made(self, wrong: Callable[..., Any], _: Any, value: Any, case: Case) -> bool:
        """Tests if a wrong function gives this value."""
        try:
            return self._is_right(wrong(*copied(case)), value, case)
        except Exception:  # it may not be made for this input
            return False

    def _raises(self, wrong: Callable[..., Any], case: Case) -> bool:
        """Tests if a wrong function raises an error on an input."""
        try:
            wrong(*copied(case))
        except Exception:
            return True
        return False

    # The reports

    def _unsolved(self) -> Verdict:
        name = self.key.name
        message = (
            f"{name} {UNSOLVED}. When it is, run the cell again; "
            f"exercises.{name}.hint() helps. The lesson goes on with the library's."
        )
        return Verdict(name, None, "not written yet", message)

    def _failed(self, wrong: str, number: int, printed: str = "", why: str = "") -> Verdict:
        name, values = self.key.name, self.cases[number - 1]
        inputs = ", ".join(
            f"{argument} = {shown(value, 60)}"
            for argument, value in zip(self.names, values, strict=False)
        )
        lines = [
            f"{name}: not yet.",
            f"  On input {number} of {len(self.cases)}, {inputs}:",
            f"  {wrong}.",
        ]
        end = "" if why.endswith("?") else "."
        lines += [f"  Likely mistake: {why}{end}"] if why else []
        lines += [f"  It printed: {shown(printed)}"] if printed else []
        lines += [f"  Help: exercises.{name}.hint()"]
        message = f"{wrong}; likely mistake: {why}" if why else wrong
        return Verdict(name, False, message, "\n".join(lines))

    def _passed(self) -> Verdict:
        name = self.key.name
        looked = (
            f"{len(self.cases)} random inputs ({self._described()}), each twice; type, shape, "
            "dtype, device and values; that inputs and global random numbers stay as they are"
        )
        lines = [f"{name}: right."]
        for text in (f"Looked at: {looked}.", f"Harder: {self.key.follow_up}"):
            lines += textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="    ")
        return Verdict(name, True, f"looked at {looked}", "\n".join(lines))

    def _described(self) -> str:
        """Lists the shapes and ranges of the inputs, argument by argument."""
        parts = []
        for name, values in zip(self.names, zip(*self.cases, strict=False), strict=False):
            if isinstance(values[0], Tensor):
                shapes = dict.fromkeys(str(tuple(value.shape)) for value in values)
                more = ", ..." if len(shapes) > 4 else ""
                parts.append(f"{name} of shape {', '.join(list(shapes)[:4])}{more}")
            elif isinstance(values[0], (int, float)):
                parts.append(f"{name} from {min(values):g} to {max(values):g}")
        return "; ".join(parts) or "texts and lists"


def _alike(value: Any, other: Any) -> bool:
    """Tests if one value may stand in the other's place."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.shape == other.shape and value.dtype == other.dtype
    return type(value) is type(other)
