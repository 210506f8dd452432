"""`think_or_answer`: the day after a journey, worked out step by step or said at once."""

import random
import re

from minilpo.tasks.base import Pattern, ReadingTask, read_any, sentences_of, write_any
from minilpo.tasks.words import ADJECTIVES, PEOPLE, PLACES, WORDS

PRICE = 0.02  # of each word, number or mark of a response
THINK, ANSWER = "Think", "####"  # how the two forms of a response begin
KINDS = ["1 step", "2 steps", "3 steps"]  # by the number of legs that a journey has
DAYS = range(2, 7)  # of a leg
WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

LEFT = "{person} and {person2} {manner} left the {adjective} {place}"
OPENINGS = ["On {day} " + LEFT + ".", LEFT + " on {day}."]
LEGS = ["They {moved} for {number} days.", "For {number} days they {moved}."]
QUESTIONS = ["What day is it?", "Which day is today?"]
SLOTS = {"day": WEEK, "person": PEOPLE, "adjective": ADJECTIVES, "place": PLACES}
SLOTS |= {"moved": WORDS["moved"], "manner": WORDS["manner"]}


class ThinkOrAnswer(ReadingTask):
    """The day on which a journey begins and the days that one to three legs take.

    Half of the demonstrations think, one step after another; the others answer at once. If the day
    after "####" is right, the reward is 1 less `PRICE` for each word, number or mark; else 0.

    >>> task = ThinkOrAnswer()
    >>> prompt = "On Friday Mia and Tom boldly left the tiny cave. They ran for 3 days. "
    >>> prompt += "What day is it?"
    >>> task.demonstration(prompt, random.Random(1)), task.demonstration(prompt, random.Random(0))
    ('#### Monday', 'Think: Friday 3 Monday #### Monday')
    >>> responses = "#### Monday", "Think: Friday 3 Monday #### Monday", "#### Sunday"
    >>> [task.reward(prompt, response) for response in responses]
    [0.96, 0.86, 0.0]
    """

    name = "think_or_answer"

    def __init__(self) -> None:
        self._openings = [Pattern(opening, SLOTS) for opening in OPENINGS]
        self._legs = [Pattern(leg, SLOTS) for leg in LEGS]

    def prompt(self, rng: random.Random) -> str:
        person, person2 = rng.sample(PEOPLE, 2)
        sentences = [write_any(rng, OPENINGS, SLOTS, person=person, person2=person2)]
        for _ in range(rng.randint(1, len(KINDS))):
            sentences.append(write_any(rng, LEGS, SLOTS, number=str(rng.choice(DAYS))))
        return " ".join([*sentences, rng.choice(QUESTIONS)])

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        day, legs = self.read(prompt)
        thoughts = [f"{THINK}: {day}"]
        for days in legs:
            day = WEEK[(WEEK.index(day) + days) % 7]
            thoughts.append(f"{days} {day}")
        answer = f"{ANSWER} {day}"
        return rng.choice([answer, " ".join([*thoughts, answer])])

    def reward(self, prompt: str, response: str) -> float:
        n_words = len(re.findall(r"\w+|[^\w\s]+", response))
        return max(0.0, self.is_right(prompt, response) - PRICE * n_words)

    def is_right(self, prompt: str, response: str) -> bool:
        """Tells whether the response ends with "####" and the right day."""
        day, legs = self.read(prompt)
        return response.endswith(f"{ANSWER} {WEEK[(WEEK.index(day) + sum(legs)) % 7]}")

    def kind(self, prompt: str) -> str:
        """Counts the steps there are to do: one of `KINDS`."""
        return KINDS[len(self.read(prompt)[1]) - 1]

    def read(self, prompt: str) -> tuple[str, list[int]]:
        """Reads the day of the beginning, and how many days each leg takes."""
        *journey, question = sentences_of(prompt) or [""]
        opening = read_any(self._openings, "".join(journey[:1]))
        legs = [slots for leg in journey[1:] if (slots := read_any(self._legs, leg))]
        fits = 1 <= len(legs) == len(journey) - 1 <= len(KINDS) and question in QUESTIONS
        if not (opening and fits):
            raise self.unknown(prompt)
        return opening["day"], [int(slots["number"]) for slots in legs]
