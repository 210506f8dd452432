"""What an exercise is: a question, random inputs, the right function, hints, likely mistakes.

A check compares a learner's function with the right one on random inputs. It says what it looked
at and, where the answer agrees with a mistake that it knows, which one. It never raises.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minilpo.exercises.trial import UNSOLVED, Observation, a_kind_of, copied, observe, same
from minilpo.exercises.verdict import Verdict, agree, misfit, shown

Case = tuple[Any, ...]  # the arguments of one call


def mistake(message: str) -> Callable[[Callable[..., Any]], Any]:
    """Marks a function in the class of an exercise as a likely mistake, with what to say about it.

    It stands on one line, without a full stop: "the sign of the loss is lost".
    """

    def mark(function: Callable[..., Any]) -> Any:
        function.message = message  # type: ignore[attr-defined]
        return staticmethod(function)

    return mark


class Exercise:
    """One exercise. A subclass has the members below; its docstring is the question.

    Wrong functions that are marked with `mistake` belong to it too: if a learner's answers are
    those of a wrong function on every input, its message is said.
    """

    name: str  # of the function to write
    lesson: int
    hints: tuple[str, str, str]
    explanation: str  # of the solution
    follow_up: str  # something harder, for those who are done
    may_use: Sequence[str] = ()  # modules of minilpo that the answer may call

    def __init__(self) -> None:
        self._hints_given = 0

    @staticmethod
    def right(*arguments: Any) -> Any:
        """The right function. It is shown as the solution, so it stands for itself."""
        raise NotImplementedError

    def cases(self, draw: "Draw") -> Iterator[Case]:
        """Random inputs, the simplest first."""
        raise NotImplementedError

    @staticmethod
    def entry(answer: Any, *arguments: Any) -> Any:
        """How an answer is called; another way where a class is to be written."""
        return answer(*arguments)

    def misfit(self, expected: Any, got: Any) -> str:
        """What is wrong with the form of a value, in a line; empty if nothing is."""
        return misfit(expected, got)

    def agree(self, expected: Any, got: Any, case: Case) -> bool:
        """Whether a value of the right form is right."""
        return agree(expected, got)

    @property
    def mistakes(self) -> dict[str, Callable[..., Any]]:
        """The wrong functions that it knows, by what to say about them."""
        members = [getattr(self, name) for name in vars(type(self))]
        return {member.message: member for member in members if hasattr(member, "message")}

    # What a learner calls

    @property
    def question(self) -> str:
        """What to write."""
        return inspect.cleandoc(self.__doc__ or "")

    @property
    def signature(self) -> str:
        """The function with its arguments."""
        return f"{self.name}{inspect.signature(self.right)}"

    def hint(self, step: int | None = None) -> None:
        """Prints the next of three hints, or the one of a number from 1 to 3."""
        if step is None and self._hints_given == len(self.hints):
            print(f"These were all hints. exercises.{self.name}.solution() shows a right answer.")
            self._hints_given = 0
            return
        if step is None:
            step = self._hints_given = self._hints_given + 1
        if step not in range(1, len(self.hints) + 1):
            print(f"There are hints 1 to {len(self.hints)}, not {step!r}.")
            return
        print(f"Hint {step} of {len(self.hints)}: {self.hints[step - 1]}")

    def solution(self) -> None:
        """Prints a right answer and why it is right."""
        print(f"{self.solution_source()}\n{textwrap.fill(self.explanation, 88)}")

    def solution_source(self) -> str:
        """The right answer as a learner would write it."""
        source = textwrap.dedent(inspect.getsource(self.right)).replace("@staticmethod\n", "")
        return source.replace("def right(", f"def {self.name}(", 1)

    def check(self, answer: Any, seed: int = 0) -> Verdict:
        """Tries a learner's function, and prints what was found.

        Args:
            answer: the function (or class) that the exercise asks for.
            seed: of the random inputs.
        """
        verdict = self.examine(lambda case: observe(answer, self.entry, case, self.may_use), seed)
        print(verdict.text)
        function = answer if verdict.passed else self.right
        return Verdict(self.name, verdict.passed, verdict.message, verdict.text, function)

    def __repr__(self) -> str:
        return f"Exercise {self.signature}\n\n{self.question}"

    def _repr_markdown_(self) -> str:
        return f"**Exercise** `{self.signature}`\n\n{self.question}"

    # How it is judged

    def examine(self, call: Callable[[Case], Observation], seed: int) -> Verdict:
        """Judges answers, wherever they come from: `call` tries the function on one input."""
        cases = list(self.cases(Draw(seed)))
        expected = [self.right(*copied(case)) for case in cases]
        given: list[Any] = []
        results = []  # of which `given` has copies
        for number, (case, right) in enumerate(zip(cases, expected, strict=True), 1):
            seen = call(case)
            if seen.problem == UNSOLVED:
                return self._unsolved()
            wrong = seen.problem or self._misfit(right, seen.value)
            if seen.printed and seen.value is None and right is not None and not seen.problem:
                wrong = "it prints its result; let it end with return and the result"
            if wrong:
                # Some mistakes show in the form only after some inputs.
                said = given if seen.problem else [*given, seen.value]
                why = self._mistake_made(cases, expected, said) or self._state(cases, said, call)
                return self._failed(wrong, number, cases, seen.printed, why)
            given.append(copied(seen.value))
            results.append(seen.value)
        wrong_at = [
            i for i, case in enumerate(cases) if not self._is_right(expected[i], given[i], case)
        ]
        if wrong_at:
            i = wrong_at[0]
            values = (
                f"wrong for {len(wrong_at)} of {len(cases)} inputs; "
                f"here {shown(expected[i])} is right, got {shown(given[i])}"
            )
            why = self._why(cases, expected, given, call)
            return self._failed(values, i + 1, cases, "", why)
        for i, (result, value) in enumerate(zip(results, given, strict=True)):
            if not same(result, value):
                wrong = "it changes this result when it is called again; make a new one each time"
                return self._failed(wrong, i + 1, cases, "")
        # Once more, in another order: what it says may not depend on what it was asked before.
        for i in reversed(range(len(cases))):
            again = call(cases[i])
            if again.problem or not same(again.value, given[i]):
                wrong = "it gives another result for the same input when asked again; keep no state"
                return self._failed(again.problem or wrong, i + 1, cases, again.printed)
        return self._passed(cases)

    def _why(
        self,
        cases: list[Case],
        expected: list[Any],
        given: list[Any],
        call: Callable[[Case], Observation],
    ) -> str:
        """The likely mistake behind wrong values, or an empty text."""
        if why := self._mistake_made(cases, expected, given) or self._state(cases, given, call):
            return why
        if len(given) > 2 and all(same(given[0], value) for value in given[1:]):
            return "it says the same whatever it is given"
        for place, name in enumerate(inspect.signature(self.right).parameters):
            if self._ignores(place, cases, given, call):
                return f"it ignores its argument `{name}`"
        if all(_opposite(right, value) for right, value in zip(expected, given, strict=True)):
            return "every number has the wrong sign"
        return ""

    def _mistake_made(self, cases: list[Case], expected: list[Any], given: list[Any]) -> str:
        """What to say of the mistake that gives the same values for the first inputs."""
        if all(map(self._is_right, expected, given, cases)):
            return ""
        for message, wrong in self.mistakes.items():
            pairs = zip(cases, given, strict=False)  # it may have failed before the last input
            if all(self._is_made(wrong, case, value) for case, value in pairs):
                return message
        return ""

    def _state(
        self, cases: list[Case], given: list[Any], call: Callable[[Case], Observation]
    ) -> str:
        """What to say if the first result or the last is another one now."""
        ends = list(zip(cases, given, strict=False))  # it may have failed before the last input
        for case, value in ends[:1] + ends[-1:]:
            again = call(case)
            # What can't even be compared with itself, a NumPy array, says nothing.
            if not again.problem and same(value, value) and not same(again.value, value):
                return (
                    "it keeps something from one call to the next, in a global name, or in a "
                    "default argument that is a list"
                )
        return ""

    def _misfit(self, expected: Any, got: Any) -> str:
        """`misfit`, of values that may refuse to be looked at."""
        try:
            return self.misfit(expected, got)
        except Exception as error:
            return (
                f"the result must be {a_kind_of(expected)}, got {a_kind_of(got)}, which raises "
                f"{type(error).__name__} when it is looked at"
            )

    def _is_right(self, expected: Any, got: Any, case: Case) -> bool:
        """Whether a value has the right form and is right."""
        try:
            return not self.misfit(expected, got) and self.agree(expected, got, case)
        except Exception:
            return False

    def _is_made(self, wrong: Callable[..., Any], case: Case, value: Any) -> bool:
        """Whether a wrong function gives this very value."""
        try:
            of_mistake = wrong(*copied(case))
            return not self.misfit(of_mistake, value) and self.agree(of_mistake, value, case)
        except Exception:  # it may not be made for this input
            return False

    def _ignores(
        self, place: int, cases: list[Case], given: list[Any], call: Callable[[Case], Observation]
    ) -> bool:
        """Whether another value of one argument, which should matter, changes nothing."""
        looked = 0
        for case, value in zip(cases, given, strict=True):
            for other in [*(other[place] for other in cases), *_turned(case[place])]:
                if not _alike(case[place], other) or same(case[place], other):
                    continue
                changed = (*case[:place], other, *case[place + 1 :])
                try:
                    if same(self.right(*copied(changed)), self.right(*copied(case))):
                        continue
                except Exception:  # the two inputs don't fit together
                    continue
                seen = call(changed)
                if seen.problem or not same(seen.value, value):
                    return False
                looked += 1
                break
            if looked == 4:
                break
        return looked > 0

    # What is said

    def _unsolved(self) -> Verdict:
        message = (
            f"{self.name} {UNSOLVED}. When it is, run the cell again; "
            f"exercises.{self.name}.hint() helps. The lesson goes on with the library's."
        )
        return Verdict(self.name, None, "not written yet", message)

    def _failed(
        self, wrong: str, number: int, cases: list[Case], printed: str, why: str = ""
    ) -> Verdict:
        names = inspect.signature(self.right).parameters
        inputs = ", ".join(
            f"{name} = {shown(value, 60)}"
            for name, value in zip(names, cases[number - 1], strict=False)
        )
        lines = [
            f"{self.name}: not yet.",
            f"  On input {number} of {len(cases)}, {inputs}:",
            f"  {wrong}.",
        ]
        end = "" if why.endswith("?") else "."
        lines += [f"  Likely mistake: {why}{end}"] if why else []
        lines += [f"  It printed: {shown(printed)}"] if printed else []
        lines += [f"  Help: exercises.{self.name}.hint()"]
        message = f"{wrong}; likely mistake: {why}" if why else wrong
        return Verdict(self.name, False, message, "\n".join(lines))

    def _passed(self, cases: list[Case]) -> Verdict:
        looked = (
            f"{len(cases)} random inputs ({self._described(cases)}), each twice; type, shape, "
            "dtype, device and values; that inputs and global random numbers stay as they are"
        )
        lines = [f"{self.name}: right."]
        lines += textwrap.wrap(
            f"Looked at: {looked}.", 96, initial_indent="  ", subsequent_indent="    "
        )
        lines += textwrap.wrap(
            f"Harder: {self.follow_up}", 96, initial_indent="  ", subsequent_indent="    "
        )
        return Verdict(self.name, True, f"looked at {looked}", "\n".join(lines))

    def _described(self, cases: list[Case]) -> str:
        """The shapes and ranges of the inputs, argument by argument."""
        parts = []
        for name, values in zip(
            inspect.signature(self.right).parameters, zip(*cases, strict=False), strict=False
        ):
            if isinstance(values[0], Tensor):
                shapes = dict.fromkeys(str(tuple(value.shape)) for value in values)
                more = ", ..." if len(shapes) > 4 else ""
                parts.append(f"{name} of shape {', '.join(list(shapes)[:4])}{more}")
            elif isinstance(values[0], (int, float)):
                parts.append(f"{name} from {min(values):g} to {max(values):g}")
        return "; ".join(parts) or "texts and lists"


def _turned(value: Any) -> list[Any]:
    """The same numbers in another order, where no other input has such a shape."""
    return [value.flip(tuple(range(value.ndim)))] if isinstance(value, Tensor) else []


def _alike(value: Any, other: Any) -> bool:
    """Whether one value may stand in the other's place."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.shape == other.shape and value.dtype == other.dtype
    return type(value) is type(other)


def _opposite(right: Any, value: Any) -> bool:
    is_number = isinstance(right, float) or (
        isinstance(right, Tensor) and right.is_floating_point()
    )
    return is_number and agree(right, -value)


class Draw:
    """Random inputs of every sign, size and shape, the same for the same seed.

    >>> Draw(0).normal(2, 3).shape, Draw(0).mask(2, 4).any(1)
    (torch.Size([2, 3]), tensor([True, True]))
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers."""
        return scale * torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to high - 1."""
        return torch.randint(high, shape, generator=self.generator)

    def probs(self, *shape: int) -> Tensor:
        """Distributions along the last dimension."""
        return self.normal(*shape, scale=2.0).softmax(-1)

    def grid_probs(self, *shape: int) -> Tensor:
        """Distributions of whole sixty-fourths, some of them 0: no sum of them is rounded."""
        *rows, V = shape
        cuts = self.integers(65, *rows, V - 1).sort(-1).values
        ends = torch.nn.functional.pad(cuts, (0, 1), value=64)
        return torch.diff(torch.nn.functional.pad(ends, (1, 0))) / 64

    def mask(self, *shape: int) -> Tensor:
        """True at the first 1, 2, ... places of each row: how long the rows are is random."""
        *rows, T = shape
        lengths = 1 + self.integers(T, *rows)
        return torch.arange(T) < lengths[..., None]

    def seeded(self) -> torch.Generator:
        """A new generator, to pass on."""
        return torch.Generator().manual_seed(int(self.integers(2**31 - 1, 1)))

    def choice(self, options: Sequence[Any]) -> Any:
        """One of some options."""
        return options[int(self.integers(len(options), 1))]
