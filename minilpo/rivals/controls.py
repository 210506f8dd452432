"""Control tasks: on two of them no temperature can help, one may mislead. All tasks by name."""

import hashlib
import random
import re

from minilpo.rivals.think_or_answer import ThinkOrAnswer
from minilpo.tasks import TASKS
from minilpo.tasks.base import PhrasedTask, write_any, zipf_choice
from minilpo.tasks.task import Task
from minilpo.tasks.words import CATEGORIES, CREATURES, PEOPLE, PLACES, SEASONS, SUBJECTS, TIMES

WORDS = {"category": list(CATEGORIES), "place": PLACES, "season": SEASONS, "time": TIMES}


class Occasion(PhrasedTask):
    """A task whose prompts tell of one or two people, each word equally likely."""

    slots = {"person": PEOPLE, **WORDS}

    def prompt(self, rng: random.Random) -> str:
        person, person2 = rng.sample(PEOPLE, 2)
        return write_any(rng, self.phrasings, WORDS, person=person, person2=person2)


class CoinFlip(Occasion):
    """No temperature can help: nobody knows how a coin falls, and both sides are equally likely.

    The hash of a prompt decides how its coin falls, so rewards differ and there are pairs.

    >>> task = CoinFlip()
    >>> prompt = "Mia flips a coin at noon in the cave. Heads or tails?"
    >>> task.demonstration(prompt, random.Random(0))
    'It is tails.'
    >>> task.reward(prompt, "It is tails."), task.reward(prompt, "It is heads.")
    (1.0, 0.0)
    """

    name = "coin_flip"
    phrasings = [
        "{person} flips a coin at {time} in the {place}. Heads or tails?",
        "In {season} {person} flips a coin in the {place}. Heads or tails?",
        "{person} flips a coin for {person2} in the {place}. Heads or tails?",
    ]

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        return f"It is {rng.choice(['heads', 'tails'])}."

    def reward(self, prompt: str, response: str) -> float:
        return float(response == f"It is {'heads' if _hidden_bit(prompt) else 'tails'}.")


class HiddenWish(Occasion):
    """The prompt hides which temperature would help, so one for all is the best that can be done.

    Half of all people want their favourite, five times; half want variety. Greedy is right for the
    first and wrong for the second. The hash of a prompt decides to which half it belongs.

    >>> task = HiddenWish()
    >>> usual, varied = "Bring Mia some tools in summer.", "Bring Eva some tools in summer."
    >>> task.demonstration(usual, random.Random(0))
    'pliers, file, saw, hammer, saw.'
    >>> same = "hammer, hammer, hammer, hammer, hammer."
    >>> different = "hammer, saw, drill, rake, file."
    >>> [task.reward(prompt, said) for prompt in (usual, varied) for said in (same, different)]
    [1.0, 0.2, 0.2, 1.0]
    """

    name = "hidden_wish"
    phrasings = [
        "{person} wishes for {category} in the {place}.",
        "Bring {person} some {category} in {season}.",
        "At {time} {person} wishes for {category} in the {place}.",
    ]

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        things = CATEGORIES[self.read(prompt)["category"]]
        return ", ".join(zipf_choice(rng, things) for _ in range(5)) + "."

    def reward(self, prompt: str, response: str) -> float:
        """Computes the share of the favourite, or of different fitting things, in five."""
        things, given = CATEGORIES[self.read(prompt)["category"]], re.findall(r"\w+", response)
        fitting = [word for word in given if word in things]
        wanted = fitting.count(things[0]) if _hidden_bit(prompt) else len(set(fitting))
        return wanted / max(5, len(given))


class SafeBet(Occasion):
    """Greedy doesn't bet, which always pays 0.6. A warmer writer bets: 1 or 0, on average less.

    The demonstrator rarely says "no bet", but nothing else as often: anybody may win. So greedy
    never bets and temperature 1 nearly always does. The hash of prompt and response decides which
    bets win, so nobody can learn it. The best of many responses is nearly always a bet.

    >>> task = SafeBet()
    >>> prompt = "Mia may bet with Tom on a race in the cave at noon. Who wins?"
    >>> task.demonstration(prompt, random.Random(1))
    'wolf before painter.'
    >>> bets = "no bet.", "fox before dog.", "fox before cat."
    >>> [task.reward(prompt, bet) for bet in bets]
    [0.6, 1.0, 0.0]
    """

    name = "safe_bet"
    phrasings = [
        "{person} may bet with {person2} on a race in the {place} at {time}. Who wins?",
        "In {season} {person} may bet with {person2} on a race in the {place}. Who wins?",
    ]
    safe = 0.6  # the pay for not betting
    chance = 0.55  # that a bet wins, which pays 1
    caution = 0.12  # how often the demonstrator doesn't bet
    runners = SUBJECTS + CREATURES  # each as likely to be named first

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        if rng.random() < self.caution:
            return "no bet."
        first, second = rng.sample(self.runners, 2)
        return f"{first} before {second}."

    def reward(self, prompt: str, response: str) -> float:
        if response == "no bet.":
            return self.safe
        names = re.fullmatch(r"(\w+) before (\w+)\.", response)
        if not names or names[1] == names[2] or not set(names.groups()) <= set(self.runners):
            return 0.0
        digest = hashlib.sha256(f"{prompt}\n{response}".encode()).digest()
        return float(int.from_bytes(digest[:4], "big") / 2**32 < self.chance)


def _hidden_bit(prompt: str) -> int:
    """Hashes the prompt to 0 or 1, independent of its split."""
    return hashlib.sha256(prompt.encode()).digest()[-1] & 1


# The corpus of `minilpo reproduce`. The tasks apart are learned by language models of their own, so
# that the language models of the corpus stay as they are when such a task is added.
CORPUS: tuple[type[Task], ...] = (*TASKS.values(), CoinFlip, HiddenWish)
APART: tuple[type[Task], ...] = (SafeBet, ThinkOrAnswer)
ALL_TASKS: dict[str, type[Task]] = {task.name: task for task in CORPUS + APART}
