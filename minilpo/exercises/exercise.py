"""Defines an exercise: a question, random inputs, the right function, hints, likely mistakes."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minilpo.exercises.examination import Case, Examination
from minilpo.exercises.trial import Observation, observe
from minilpo.exercises.verdict import Verdict, agree, misfit


def blocks(text: str) -> list[tuple[str, str]]:
    """Splits a text into heads, each with its body, in the lines below it or after its last bar.

    >>> blocks("it is the sum | .sum() -> .mean()\\nno minus\\n    return -1 -> return 1")
    [('it is the sum', '.sum() -> .mean()'), ('no minus', '    return -1 -> return 1')]
    """
    pairs = []
    for part in re.split(r"\n(?=\S)", textwrap.dedent(text).strip("\n")):
        head, _, body = part.partition("\n") if "\n" in part else part.rpartition(" | ")
        pairs.append((head, body))
    return pairs


def variant(solutions: Sequence[Any], body: str) -> Any:
    """Makes another function of a solution: with edits in its source, or with another body.

    Args:
        solutions: functions with the same arguments, or classes. The edits are made in the first in
            which each old text stands exactly once.
        body: edits, `old -> new` one a line; or the lines of a body, in which `right` is the first
            solution. Both may use the names of its module, and `re`.

    Raises:
        ValueError: the edits fit none of the solutions.
    """
    edits = [line.strip().split(" -> ") for line in body.splitlines() if " -> " in line]
    if edits:
        source = next(filter(None, (_edited(solution, edits) for solution in solutions)), "")
        if not source:
            raise ValueError(f"each old text must stand once in one of the solutions, got\n{body}")
    else:
        source = f"def variant{inspect.signature(solutions[0])}:\n{textwrap.indent(body, ' ')}"
    names = {**vars(inspect.getmodule(solutions[0])), "right": solutions[0], "re": re}
    exec(compile(source, "<variant>", "exec"), names)
    return names["variant"]


def _edited(solution: Any, edits: list[list[str]]) -> str:
    """Returns the source of a function or class named `variant`; empty if an edit doesn't fit."""
    source = re.sub(r"^(@.*\n)+", "", textwrap.dedent(inspect.getsource(solution)))
    source = re.sub(r"^(def|class) \w+", r"\1 variant", source)
    for old, new in edits:
        if source.count(old) != 1:
            return ""
        source = source.replace(old, new)
    return source


class Exercise:
    """One exercise. A subclass has the members below.

    `mistakes` is a text of messages, each with the edits that make the mistake of `right`:

        it is the sum over the rows; take the mean | .mean() -> .sum()
        the minus is lost: a loss is small where the chosen is likely
            return -logprobs -> return logprobs

    If a learner's results are those of a mistake on every input, the check prints its message.
    """

    name: str  # of the function to write
    question: str
    lesson: int
    hints: tuple[str, str, str]
    explanation: str  # of the solution
    follow_up: str  # something harder, for those who are done
    mistakes = ""
    may_use: Sequence[str] = ()  # modules of minilpo that the answer may call

    def __init__(self) -> None:
        self.question = inspect.cleandoc(self.question)
        self._hints_given = 0

    @staticmethod
    def right(*arguments: Any) -> Any:
        """Returns the right result. It is printed as the solution, so it calls no helper."""
        raise NotImplementedError

    def cases(self, draw: "Draw") -> Iterator[Case]:
        """Yields random inputs, the simplest first."""
        raise NotImplementedError

    @staticmethod
    def entry(answer: Any, *arguments: Any) -> Any:
        """Calls an answer; in another way where a class is to be written."""
        return answer(*arguments)

    def misfit(self, expected: Any, got: Any) -> str:
        """Describes in a line a fault in the form of a result; empty if there is none."""
        return misfit(expected, got)

    def agree(self, expected: Any, got: Any, case: Case) -> bool:
        """Tests if a result of the right form is right."""
        return agree(expected, got)

    @cached_property
    def known_mistakes(self) -> dict[str, Callable[..., Any]]:
        """The wrong functions, by their messages."""
        known = blocks(self.mistakes) if self.mistakes else []
        return {message: variant([self.stand_in], edits) for message, edits in known}

    @property
    def stand_in(self) -> Any:
        """The function with which a lesson goes on if the learner's isn't right."""
        return self.right

    # A learner calls the members below.

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
        """Returns the right answer as a learner would write it."""
        source = textwrap.dedent(inspect.getsource(self.right)).replace("@staticmethod\n", "")
        return source.replace("def right(", f"def {self.name}(", 1)

    def check(self, answer: Any, seed: int = 0) -> Verdict:
        """Tries a learner's function and prints what is right or wrong. It raises no error.

        Args:
            answer: the function (or class) that the exercise asks for.
            seed: of the random inputs.

        Returns:
            The verdict. Its `function` is the answer if it is right, else the library's.
        """
        if answer is self.stand_in:
            text = (
                f"{self.name} is the library's function here, because an earlier check didn't pass."
                "\nRun the cell with your function again, then this one."
            )
            verdict = Verdict(self.name, None, "the cell with the function wasn't run", text)
        else:
            call = lambda case: observe(answer, self.entry, case, self.may_use)  # noqa: E731
            verdict = self.examine(call, seed)
        print(verdict.text)
        return replace(verdict, function=answer if verdict.passed else self.stand_in)

    def examine(self, call: Callable[[Case], Observation], seed: int) -> Verdict:
        """Judges answers, wherever they come from: `call` tries the function on one input."""
        return Examination(self, list(self.cases(Draw(seed))), call).verdict()

    def __repr__(self) -> str:
        return f"Exercise {self.signature}\n\n{self.question}"

    def _repr_markdown_(self) -> str:
        return f"**Exercise** `{self.signature}`\n\n{self.question}"


class Draw:
    """Draws random inputs of every sign, size and shape, the same for the same seed.

    >>> Draw(0).normal(2, 3).shape, Draw(0).mask(2, 4).any(1)
    (torch.Size([2, 3]), tensor([True, True]))
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Draws normal numbers."""
        return scale * torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Draws uniform numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draws whole numbers from 0 to high - 1."""
        return torch.randint(high, shape, generator=self.generator)

    def probs(self, *shape: int) -> Tensor:
        """Draws distributions along the last dimension."""
        return self.normal(*shape, scale=2.0).softmax(-1)

    def grid_probs(self, *shape: int) -> Tensor:
        """Draws distributions of whole sixty-fourths, some of them 0. Their sums aren't rounded."""
        *rows, V = shape
        cuts = self.integers(65, *rows, V - 1).sort(-1).values
        ends = torch.nn.functional.pad(cuts, (0, 1), value=64)
        return torch.diff(torch.nn.functional.pad(ends, (1, 0))) / 64

    def mask(self, *shape: int) -> Tensor:
        """Draws rows that are True at their first places, from one place to all."""
        *rows, T = shape
        lengths = 1 + self.integers(T, *rows)
        return torch.arange(T) < lengths[..., None]

    def seeded(self) -> torch.Generator:
        """Makes a new generator, to pass on."""
        return torch.Generator().manual_seed(int(self.integers(2**31 - 1, 1)))

    def choice(self, options: Sequence[Any]) -> Any:
        """Draws one of the options."""
        return options[int(self.integers(len(options), 1))]
