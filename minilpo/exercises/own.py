"""Lesson 10: an experiment of one's own. A task, what a result shows, a test of chance."""

import inspect
import math
import random
import re
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from minilpo.exercises.exercise import Case, Draw, Exercise
from minilpo.exercises.judging import Drawing
from minilpo.exercises.trial import MisuseError, is_stub
from minilpo.exercises.verdict import agree
from minilpo.tasks import Task

NUMBERS = ("two", "three", "four", "five", "six", "seven")
MEMBERS = ("prompt", "demonstration", "reward")
MANY = 120  # draws: one of six numbers is missing once in 500 million times


class WordCountTask(Task):
    """The solution of `own_task`."""

    name = "word_count"
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
    words = ("apple", "boat", "cat", "drum", "egg", "fox", "goat", "hat")

    def prompt(self, rng):
        return f"Write {rng.choice(list(self.numbers))} words."

    def demonstration(self, prompt, rng):
        asked_for = self.numbers[prompt.split()[1]]
        return " ".join(rng.choice(self.words) for _ in range(asked_for))

    def reward(self, prompt, response):
        asked_for = self.numbers[prompt.split()[1]]
        difference = abs(len(response.split()) - asked_for)
        return max(0.0, 1 - difference / asked_for)


class OwnTask(Exercise):
    question = """
    Write a task of your own: a class `WordCountTask`, which asks for so and so many words.

    It has four members. `name` is a short text of letters, digits and underscores.
    `prompt(self, rng)` returns "Write two words." or the same with three, four, five, six or seven.
    `demonstration(self, prompt, rng)` returns a response with exactly so many words, made of
    letters and separated by spaces, and not the same one every time.
    `reward(self, prompt, response)` returns 1 - |words in the response - words asked for| / words
    asked for, a float, but never less than 0; `response.split()` has the words of any text.

    Draw with the `rng` that is passed, a `random.Random`, so that the same seed gives the same
    texts. The class may derive from `minilpo.tasks.Task`, which has defaults for the other members
    that a task can have.
    """

    name = "WordCountTask"
    lesson = 10
    may_use = ("tasks",)
    hints = (
        'The number has to be read from the prompt: `prompt.split()[1]` is "three". How does '
        "that become 3?",
        'A dict does both: `{"two": 2, ...}`; `rng.choice(list(numbers))` draws one of its words. '
        "The demonstration needs as many draws as the number says.",
        "The reward: `difference = abs(len(response.split()) - asked_for)`, then "
        "`max(0.0, 1 - difference / asked_for)`. A very long response would get less than 0.",
    )
    explanation = (
        "The reward looks at the text alone and gives a number for any text, the empty one too. "
        "It is 1 only for exactly so many words, and it falls step by step, so that of two wrong "
        "responses the one that is closer is preferred. All randomness comes from the rng, so "
        "that a run can be repeated."
    )
    follow_up = (
        "save the class in a file of its own, with its imports, and run "
        "`minilpo demo --tasks math my_task.py --out runs/mine`."
    )

    @staticmethod
    def right(member, prompt, response, seed):
        return OwnTask.entry(WordCountTask, member, prompt, response, seed)

    @property
    def signature(self) -> str:
        """The class."""
        return f"class {self.name}"

    def solution_source(self) -> str:
        """Returns the class as a learner would write it."""
        source = re.sub(r'\n    """.*?"""\n', "", inspect.getsource(WordCountTask), count=1)
        return f"from minilpo.tasks import Task\n\n\n{source}"

    @cached_property
    def known_mistakes(self) -> dict[str, Callable[..., Any]]:
        """The members of wrong classes, by their messages."""
        known = super().known_mistakes
        return {message: partial(self.entry, task) for message, task in known.items()}

    @property
    def stand_in(self) -> type:
        """The class with which the lesson goes on if the learner's isn't right."""
        return WordCountTask

    @staticmethod
    def entry(answer: Any, member: str, prompt: str, response: str, seed: int) -> Any:
        """Makes a task and calls one of its members; "prompts" and "demonstrations" many times."""
        if not inspect.isclass(answer):
            answer()  # an error that it raises is said first
            raise MisuseError(
                "it must be a class; write class WordCountTask:, with its members below"
            )
        if any(is_stub(getattr(answer, name, None)) for name in MEMBERS):
            raise NotImplementedError
        task: Any = answer()
        rng = random.Random(seed)
        if member == "name":
            return task.name
        if member == "prompt":
            return task.prompt(rng)
        if member == "prompts":
            return [task.prompt(rng) for _ in range(MANY)]
        if member == "demonstration":
            return task.demonstration(prompt, rng)
        if member == "demonstrations":
            return [task.demonstration(prompt, rng) for _ in range(MANY)]
        return task.reward(prompt, response)

    def agree(self, expected: Any, got: Any, case: Case) -> bool:
        """Compares the required properties of a text; the text itself is free."""
        if case[0] == "reward":
            return agree(expected, got)
        return _asked_of(case[0], expected) == _asked_of(case[0], got)

    mistakes = """
    the reward of a long response is below 0; max(0.0, ...) keeps it from that
        max(0.0, 1 - difference / asked_for) -> 1 - difference / asked_for
    the reward is all or nothing; a response that is closer must get more
        max(0.0, 1 - difference / asked_for) -> float(difference == 0)
    the reward counts characters; count words, with response.split() | response.split() -> response
    the reward grows with the length: too many words are as bad as too few
        max(0.0, 1 - difference / asked_for) -> min(1.0, len(response.split()) / asked_for)
    two responses of one word more and one word less must get the same; is abs missing?
        abs(len -> (len
    the demonstration has a word less than was asked for | range(asked_for) -> range(asked_for - 1)
    the demonstration has a word more than was asked for | range(asked_for) -> range(asked_for + 1)
    the demonstration is the same every time; draw its words with the rng
        rng.choice(self.words) -> self.words[0]
    seven never comes up; does a range end too early? | list(self.numbers) -> list(self.numbers)[:5]
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields every member; responses that are empty, short, exact, long and very long."""

        def seed() -> int:
            return int(draw.integers(2**31 - 1, 1))

        yield "name", "", "", 0
        yield "prompt", "", "", seed()
        yield "prompts", "", "", seed()
        for number in NUMBERS:
            yield "demonstration", f"Write {number} words.", "", seed()
        yield "demonstrations", f"Write {draw.choice(NUMBERS)} words.", "", seed()
        yield "reward", "Write two words.", "apple boat", 0
        yield "reward", "Write three words.", "a cat", 0
        yield "reward", "Write three words.", "the big old fox", 0
        yield "reward", "Write four words.", "", 0
        yield "reward", "Write two words.", "so " * 40, 0
        yield "reward", "Write seven words.", "  Yes.\n\tNo!  ", 0
        for _ in range(6):
            response = " ".join(["word"] * int(draw.integers(12, 1)))
            yield "reward", f"Write {draw.choice(NUMBERS)} words.", response, 0


class ExperimentConclusion(Exercise):
    question = """
    Say what an experiment has shown: over seeds, not only over prompts.

    `differences` has shape (S, P): the reward of a treatment minus that of the control, for S
    training runs with different seeds (2 to 6) on P prompts. Take the mean of each seed: S numbers.
    The 95% interval of their mean is mean ± t * s / sqrt(S), where s is their standard deviation
    (with S - 1 in the denominator) and t the quantile for S - 1 degrees of freedom: 12.706, 4.303,
    3.182, 2.776, 2.571 for 1 to 5. Return "better" if the interval is above 0, "worse" if it is
    below 0, and "no difference shown" otherwise.
    """

    name = "experiment_conclusion"
    lesson = 10
    hints = (
        "A thousand prompts of one training run tell nothing about another run. How many numbers "
        "are independent here?",
        "`means = differences.mean(1)` are the S numbers; `means.std()` has S - 1 in the "
        "denominator. With S = 2 the quantile is 12.706.",
        "`half = t * s / S**0.5`; better if `mean - half > 0`, worse if `mean + half < 0`.",
    )
    explanation = (
        "Runs differ from each other by more than their prompts explain, so it is runs that must "
        "be counted. With few of them their spread is badly known, and t makes up for that: with "
        "two, the interval is more than six times as wide as with 1.96. If it holds 0, no "
        "difference was shown; that none exists wasn't shown either."
    )
    follow_up = "how many seeds does it take to see a difference of half a standard deviation?"

    @staticmethod
    def right(differences):
        quantiles = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}
        means = differences.mean(1)  # (S,), one number per seed
        S = len(means)
        half = quantiles[S - 1] * means.std().item() / math.sqrt(S)
        if means.mean().item() - half > 0:
            return "better"
        if means.mean().item() + half < 0:
            return "worse"
        return "no difference shown"

    mistakes = """
    all S * P numbers are taken as independent; take the mean of each seed first
        differences.mean(1) -> differences.flatten()
        quantiles[S - 1] -> 1.96
    1.96 is for many seeds; with few, Student's t is larger | quantiles[S - 1] -> 1.96
    the standard deviation has S in its denominator; S - 1 is asked for
        means.std() -> means.std(correction=0)
    the quantile is that of S degrees of freedom; with S seeds there are S - 1
        quantiles[S - 1] -> {**quantiles, 6: 2.447}[S]
    the interval plays no part: the sign of the mean isn't enough | quantiles[S - 1] -> 0
    the standard deviation isn't divided by the square root of S | .item() / math.sqrt(S) -> .item()
    it is divided by S, not by its square root | math.sqrt(S) -> S
    better and worse are swapped: the differences are treatment minus control
        return right(-differences)
    it goes by whether all seeds agree in sign; use the interval
        means.mean().item() - half > 0 -> means.min() > 0
        means.mean().item() + half < 0 -> means.max() < 0
    worse is never said: look whether the interval is below 0, too | worse -> no difference shown
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields means just above and below every quantile; seeds that agree; noisy prompts."""
        yield (torch.tensor([[0.1, 0.3], [0.2, 0.2], [0.1, 0.2]]),)
        yield (torch.zeros(2, 3),)
        yield (torch.full((3, 4), -0.25),)
        for S in range(2, 7):
            for share in (1.04, 0.96):
                sign = draw.choice([-1, 1])
                yield (_with_t(draw, S, int(draw.choice([3, 8, 30])), sign * share * _T[S - 1]),)
        for S, t in [(2, -6.0), (3, 3.35), (6, 2.4), (5, -1.5), (6, 0.3), (4, 5.0), (2, -30.0)]:
            yield (_with_t(draw, S, 25, t),)
        yield (_with_t(draw, 4, 20, -3.6).double(),)


class PermutedPValue(Drawing):
    question = """
    Ask how often chance alone makes so large a mean: a permutation test.

    `differences` has shape (P,): treatment minus control on P prompts. If the two were equally
    good, each difference might as well have had the other sign. So give each a random sign, + or -,
    equally likely, and take the mean; do so `n_permutations` times. Return
    (1 + number of means that are at least as far from 0 as the true one) / (1 + n_permutations), a
    Python float. Draw with the `generator` that is passed. Your draws may differ from ours: the
    number is compared up to the noise of drawing.
    """

    name = "permuted_p_value"
    lesson = 10
    hints = (
        "If treatment and control had changed names on one prompt, what would its difference be?",
        "`2 * torch.randint(2, (n_permutations, P), generator=generator) - 1` has random signs.",
        "`(signs * differences).mean(1).abs() >= differences.mean().abs()` is True for each "
        "permutation that counts.",
    )
    explanation = (
        "Both directions count: a difference in either would have been noticed. The 1 stands "
        "for the arrangement that was really seen, so the result is never 0: from 99 permutations "
        "nothing below 0.01 can be said."
    )
    follow_up = "go through all 2^P signs where P is small, and compare."

    @staticmethod
    def right(differences, n_permutations, generator):
        P = len(differences)
        signs = 2 * torch.randint(2, (n_permutations, P), generator=generator) - 1
        means = (signs * differences).mean(1)  # (n_permutations,)
        n_extreme = (means.abs() >= differences.mean().abs()).sum().item()
        return (1 + n_extreme) / (1 + n_permutations)

    mistakes = """
    only one direction counts; means far below 0 are as far from it as those above
        means.abs() -> means * differences.mean().sign()
    only means above the true one count, its sign included; compare distances from 0
        means.abs() >= differences.mean().abs() -> means >= differences.mean()
    every mean is as far from 0 as the true one; draw a sign for each prompt | return 1.0
    means that are equally far from 0 must count, too: >=, not > | >= -> >
    it counts the means that are closer to 0 than the true one | >= -> <
    signs are 0 and 1; differences must be turned round, not left out
        signs = 2 * -> signs = 1 *
        generator=generator) - 1 -> generator=generator)
    it is a bootstrap around the true mean; random signs make the mean 0 on average
        2 * torch.randint(2, (n_permutations, P), -> torch.randint(P, (n_permutations, P),
        generator=generator) - 1 -> generator=generator)
        signs * differences -> differences[signs]
    the two 1s are missing: the arrangement that was seen counts as well
        (1 + n_extreme) / (1 + n_permutations) -> n_extreme / n_permutations
    """

    def agree(self, expected: Any, got: Any, case: Case) -> bool:
        """Allows 5 standard errors of the difference of two counts; none where nothing varies."""
        differences, n, _ = case
        p = expected
        if _is_certain(differences) and p in (0.0, 1 / (1 + n), 1.0):
            return agree(expected, got)
        # A count of n with probability p has the variance n p (1 - p); the 1 is for a p near 0.
        return agree(expected, got, 0.0, 5 * (2 * (n * p * (1 - p) + 1)) ** 0.5 / n)

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields small and large means; wins, ties and losses; one prompt; few permutations."""
        yield draw.normal(20) + 0.3, 2000, draw.seeded()
        yield torch.tensor([0.5]), 19, draw.seeded()
        yield torch.zeros(5), 50, draw.seeded()
        yield torch.full((60,), 0.25), 9, draw.seeded()
        yield torch.full((60,), -2.0), 99, draw.seeded()
        for P in (16, 40):
            for shift in (-0.4, 0.1, 0.25):
                yield draw.normal(P) + shift, 1000, draw.seeded()
        yield draw.integers(2, 28) * 3.0 - 2, 1000, draw.seeded()  # 1 or -2, ties among the means
        yield torch.tensor([1.0, 1.0, 0.0, -1.0]), 1000, draw.seeded()
        yield torch.tensor([-1.0, -1.0, -1.0]), 1000, draw.seeded()
        yield draw.normal(50, scale=30.0).double() - 5, 1000, draw.seeded()
        yield draw.normal(100) - 0.15, 4000, draw.seeded()


_T = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447)  # by degrees of freedom


def _with_t(draw: Draw, S: int, P: int, t: float) -> Tensor:
    """Draws differences, (S, P), whose S means have a mean t standard errors away from 0."""
    means = draw.normal(S)
    means = (means - means.mean()) / means.std() + t / S**0.5
    noise = draw.normal(S, P)
    return means[:, None] + noise - noise.mean(1, keepdim=True)


def _is_certain(differences: Tensor) -> bool:
    """Tests if every permutation counts, or none but for a negligible chance."""
    P, mean = len(differences), differences.mean().item()
    if P == 1 or mean == 0:
        return True
    # Hoeffding: the chance of a mean of random signs that far from 0 is at most 2 exp(-z^2 / 2).
    z = abs(mean) * P / differences.square().sum().sqrt().item()
    return 2 * math.exp(-(z**2) / 2) < 1e-9


def _asked_of(member: str, value: Any) -> Any:
    """Returns the required properties of a member's value, to be compared."""
    if member == "name":
        return bool(re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{0,39}", value))
    if member == "prompt":
        return value in [f"Write {number} words." for number in NUMBERS] or value
    if member == "prompts":
        return sorted(set(value))
    if member == "demonstration":
        words = value.split()
        return [len(words), all(word.strip(".,!?").isalpha() for word in words)]
    if member == "demonstrations":
        return len(set(value)) > 1
    return value


own_task = OwnTask()
experiment_conclusion = ExperimentConclusion()
permuted_p_value = PermutedPValue()
