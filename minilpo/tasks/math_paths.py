"""`math_paths`: sums to solve by one of several written routes; the most likely is the worst."""

import random
from collections import Counter

from minilpo.tasks.base import PhrasedTask
from minilpo.tasks.math import final_answer
from minilpo.tasks.words import PEOPLE, THINGS

# How often the demonstrator takes each.
ROUTES = {"roughly": 0.48, "forwards": 0.28, "backwards": 0.24}
SLIP = 0.3  # how often a written step of the last two is off by one
ROUNDING = {-1: 0.4, 0: 0.3, 1: 0.3}  # what the first does to each number

PHRASINGS = [
    "{person} has {number} {things}, {person2} has {number2} and {person3} has {number3}. "
    "How many do they have together?",
    "How many {things} do they have together? "
    "{person} has {number}, {person2} has {number2} and {person3} has {number3}.",
    "{person} brings {number} {things}, {person2} brings {number2} and {person3} brings {number3}. "
    "How many are there now?",
]
OOD_PHRASINGS = [
    "How many {things} are there now? "
    "{person} brings {number}, {person2} brings {number2} and {person3} brings {number3}."
]


class MathPaths(PhrasedTask):
    """The sum of three numbers: roughly, or step by step from the front or from the back.

    Mostly the demonstrator adds roughly: every number is first made a little smaller or larger,
    mostly smaller. So the greedy answer is wrong. A sampled one takes a good route as often as not,
    but slips in its sums. So warmth helps at the choice of the route and of the rough numbers, and
    cold helps in the sums. Rough answers scatter and right answers agree, so the
    majority of several samples does better still. The reward is 1 if the number after "####" is
    right, else 0.

    >>> task = MathPaths()
    >>> prompt = "Mia has 7 cards, Tom has 4 and Eva has 5. How many do they have together?"
    >>> task.demonstration(prompt, random.Random(0)), task.demonstration(prompt, random.Random(3))
    ('Backwards: 5 + 4 = 9. 9 + 7 = 16. #### 16', 'Roughly: 7 + 3 + 5. #### 15')
    >>> right, wrong = "Forwards: 7 + 4 = 11. 11 + 5 = 16. #### 16", "Roughly: 6 + 3 + 4. #### 13"
    >>> task.reward(prompt, right), task.reward(prompt, wrong)
    (1.0, 0.0)
    """

    name = "math_paths"
    corpus_weight = 2
    phrasings, ood_phrasings = PHRASINGS, OOD_PHRASINGS
    slots = {"person": PEOPLE, "things": THINGS}

    def prompt(self, rng: random.Random) -> str:
        """Draws a problem in one of the phrasings of training."""
        return _write_problem(rng, PHRASINGS)

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a problem in a wording that training never shows."""
        return _write_problem(rng, OOD_PHRASINGS)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Takes a route and writes it down, with its errors."""
        a, b, c = self._numbers(prompt)
        [route] = rng.choices(list(ROUTES), list(ROUTES.values()))
        if route == "roughly":
            offsets = rng.choices(list(ROUNDING), list(ROUNDING.values()), k=3)
            a, b, c = a + offsets[0], b + offsets[1], c + offsets[2]
            return f"Roughly: {a} + {b} + {c}. #### {a + b + c}"
        first, second, third = (a, b, c) if route == "forwards" else (c, b, a)
        part = first + second + _slip(rng)
        total = part + third + _slip(rng)
        sums = f"{first} + {second} = {part}. {part} + {third} = {total}."
        return f"{route.capitalize()}: {sums} #### {total}"

    def reward(self, prompt: str, response: str) -> float:
        """Gives 1.0 if the response ends with "####" and the right number, else 0.0."""
        return float(final_answer(response) == str(sum(self._numbers(prompt))))

    def _numbers(self, prompt: str) -> tuple[int, int, int]:
        slots = self.read(prompt)
        return int(slots["number"]), int(slots["number2"]), int(slots["number3"])


def majority(answers: list[str | None]) -> str | None:
    """Finds the most frequent answer, the earliest of equals; None if there is none at all.

    >>> majority(["7", None, "9", "9"])
    '9'
    """
    given = [answer for answer in answers if answer is not None]
    return Counter(given).most_common(1)[0][0] if given else None


def _slip(rng: random.Random) -> int:
    return rng.choice([-1, 1]) if rng.random() < SLIP else 0


def _write_problem(rng: random.Random, phrasings: list[str]) -> str:
    people = dict(zip(("person", "person2", "person3"), rng.sample(PEOPLE, 3), strict=True))
    numbers = {
        "number": rng.randint(3, 9),
        "number2": rng.randint(2, 6),
        "number3": rng.randint(2, 5),
    }
    return rng.choice(phrasings).format(things=rng.choice(THINGS), **people, **numbers)
