"""Two tasks on which choosing the temperature can't help. What a method gains here is not real."""

import hashlib
import random
import re

from minilpo.tasks.base import Pattern, read_any, zipf_choice
from minilpo.tasks.task import Task
from minilpo.tasks.words import CATEGORIES, PEOPLE, PLACES, SEASONS, TIMES

COIN_PHRASINGS = [
    "{person} flips a coin at {time} in the {place}. Heads or tails?",
    "In {season} {person} flips a coin in the {place}. Heads or tails?",
    "{person} flips a coin for {person2} in the {place}. Heads or tails?",
]
WISH_PHRASINGS = [
    "{person} wishes for {category} in the {place}.",
    "Bring {person} some {category} in {season}.",
    "At {time} {person} wishes for {category} in the {place}.",
]
SLOTS = {
    "person": PEOPLE,
    "category": list(CATEGORIES),
    "place": PLACES,
    "season": SEASONS,
    "time": TIMES,
}


class CoinFlip(Task):
    """No temperature can help: nobody knows how a coin falls, and both sides are equally likely.

    How the coin of a prompt falls is decided by the prompt's hash, so rewards differ and there are
    pairs to learn from.

    >>> task = CoinFlip()
    >>> prompt = "Mia flips a coin at noon in the cave. Heads or tails?"
    >>> task.demonstration(prompt, random.Random(0))
    'It is tails.'
    >>> task.reward(prompt, "It is tails."), task.reward(prompt, "It is heads.")
    (1.0, 0.0)
    """

    name = "coin_flip"

    def prompt(self, rng: random.Random) -> str:
        """Draws a flip."""
        return _write(rng, COIN_PHRASINGS)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Guesses."""
        return f"It is {rng.choice(['heads', 'tails'])}."

    def reward(self, prompt: str, response: str) -> float:
        """1.0 if the guess is right."""
        return float(response == f"It is {'heads' if _hidden_bit(prompt) else 'tails'}.")

    def knows(self, prompt: str) -> bool:
        """Whether a prompt has a known wording."""
        patterns = [Pattern(phrasing, SLOTS) for phrasing in COIN_PHRASINGS]
        return read_any(patterns, prompt) is not None


class HiddenWish(Task):
    """The prompt hides which temperature would help.

    Half of all people want their favourite, five times; half want variety. Greedy is right for the
    first and wrong for the second. Which half a prompt belongs to is decided by its hash: the best
    that anyone can do is to take one temperature for all.

    >>> task = HiddenWish()
    >>> usual, varied = "Bring Mia some tools in summer.", "Bring Eva some tools in summer."
    >>> task.demonstration(usual, random.Random(0))
    'pliers, file, saw, hammer, saw.'
    >>> same = "hammer, hammer, hammer, hammer, hammer."
    >>> different = "hammer, saw, drill, rake, file."
    >>> task.reward(usual, same), task.reward(usual, different)
    (1.0, 0.2)
    >>> task.reward(varied, same), task.reward(varied, different)
    (0.2, 1.0)
    """

    name = "hidden_wish"

    def __init__(self) -> None:
        self._patterns = [Pattern(phrasing, SLOTS) for phrasing in WISH_PHRASINGS]

    def prompt(self, rng: random.Random) -> str:
        """Draws a wish."""
        return _write(rng, WISH_PHRASINGS)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Five things, favourites more often."""
        return ", ".join(zipf_choice(rng, self._things(prompt)) for _ in range(5)) + "."

    def reward(self, prompt: str, response: str) -> float:
        """The share of the favourite, or of different fitting things, in five."""
        things, given = self._things(prompt), re.findall(r"\w+", response)
        fitting = [word for word in given if word in things]
        wanted = fitting.count(things[0]) if _hidden_bit(prompt) else len(set(fitting))
        return wanted / max(5, len(given))

    def knows(self, prompt: str) -> bool:
        """Whether a prompt has a known wording."""
        return read_any(self._patterns, prompt) is not None

    def _things(self, prompt: str) -> list[str]:
        slots = read_any(self._patterns, prompt)
        if slots is None:
            raise ValueError(
                f"a hidden_wish prompt must have a known phrasing, got {prompt!r}; "
                "see minilpo/tasks/controls.py"
            )
        return CATEGORIES[slots["category"]]


def _hidden_bit(prompt: str) -> int:
    """What the prompt decides and nobody can read from it; independent of its split."""
    return hashlib.sha256(prompt.encode()).digest()[-1] & 1


def _write(rng: random.Random, phrasings: list[str]) -> str:
    person, person2 = rng.sample(PEOPLE, 2)
    words = {slot: rng.choice(choices) for slot, choices in SLOTS.items() if slot != "person"}
    return rng.choice(phrasings).format(person=person, person2=person2, **words)
