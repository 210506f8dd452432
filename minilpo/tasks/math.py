"""`math`: word problems with a written chain of thought; exactly one final answer is right."""

import random
import re

from minilpo.tasks.base import Pattern, ReadingTask, read_any, sentences_of
from minilpo.tasks.words import PEOPLE, THINGS

SLIP = 0.2  # how often the demonstrator gets a step wrong
LARGEST = 20  # no value along a correct chain exceeds it
OPERANDS = range(2, 7)

SYMBOLS = {"add": "+", "take": "-", "double": "*", "halve": "/"}

# One text for each way to say it; the key says what it does to the count. Those named OOD are kept
# for the out-of-distribution test.
OPENINGS = [
    "{person} has {number} {things}.",
    "There are {number} {things} on the table.",
    "In a box there are {number} {things}.",
]
OOD_OPENINGS = ["In a box {person} has {number} {things}."]
STEPS = {
    "add": [
        "Then {person} buys {number} more.",
        "{person} finds {number} more.",
        "{person} brings {number} new ones.",
    ],
    "take": [
        "{person} gives away {number}.",
        "Then {person} sells {number} of them.",
        "{number} of them get lost.",
    ],
    "double": ["Then the number doubles.", "{person} makes it twice as many."],
    "halve": ["{person} loses half of them.", "Then half of them break."],
}
OOD_STEPS = {
    "add": ["Then {person} brings {number} more."],
    "take": ["Then {person} gives away {number} of them."],
    "double": ["Then {person} doubles the number."],
    "halve": ["Then {person} sells half of them."],
}
QUESTIONS = [
    "How many {things} are there now?",
    "How many {things} are left?",
    "What is the number of {things} now?",
]
OOD_QUESTIONS = ["What is now the number of {things}?"]


def _patterns(templates: list[str]) -> list[Pattern]:
    return [Pattern(template, {"person": PEOPLE, "things": THINGS}) for template in templates]


class Math(ReadingTask):
    """Two to four steps of adding, taking away, doubling and halving, told as a story.

    The demonstrator slips: in each step, with probability `SLIP`, the result is off by one. The
    most likely result is right and a sampled one often isn't, so the task wants temperature 0. The
    reward is 1 if the number after "####" is right, else 0.

    >>> task = Math()
    >>> prompt = "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. "
    >>> prompt += "How many apples are left?"
    >>> task.demonstration(prompt, random.Random(0))
    '7 + 5 = 12. 12 - 3 = 9. #### 9'
    >>> task.reward(prompt, "7 + 5 = 12. 12 - 3 = 9. #### 9"), task.reward(prompt, "#### 10")
    (1.0, 0.0)
    """

    name = "math"
    corpus_weight = 4  # there are many sums to learn

    def __init__(self) -> None:
        self._openings = _patterns(OPENINGS + OOD_OPENINGS)
        self._questions = _patterns(QUESTIONS + OOD_QUESTIONS)
        self._steps = {name: _patterns(STEPS[name] + OOD_STEPS[name]) for name in SYMBOLS}

    def prompt(self, rng: random.Random) -> str:
        """Draws a problem in one of the phrasings of training."""
        return _write_problem(rng, OPENINGS, STEPS, QUESTIONS)

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a problem whose frame or whose steps have a wording that training never shows."""
        if rng.random() < 0.5:
            return _write_problem(rng, OOD_OPENINGS, STEPS, OOD_QUESTIONS)
        return _write_problem(rng, OPENINGS, OOD_STEPS, QUESTIONS)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes the chain of thought; each step slips by one with probability `SLIP`."""
        value, steps = self.read(prompt)
        lines = []
        for operation, operand in steps:
            result = _apply(operation, value, operand)
            if rng.random() < SLIP:
                result += 1 if rng.random() < 0.75 or result == 0 else -1
            lines.append(f"{value} {SYMBOLS[operation]} {operand} = {result}.")
            value = result
        return " ".join([*lines, f"#### {value}"])

    def reward(self, prompt: str, response: str) -> float:
        """Gives 1.0 if the response ends with "####" and the right number, else 0.0."""
        value, steps = self.read(prompt)
        for operation, operand in steps:
            value = _apply(operation, value, operand)
        return float(final_answer(response) == str(value))

    def read(self, prompt: str) -> tuple[int, list[tuple[str, int]]]:
        """Reads the starting count, and the operation and the operand of each step."""
        sentences = sentences_of(prompt) or [""]
        opening = read_any(self._openings, sentences[0])
        steps = []
        for sentence in sentences[1:-1]:
            for operation, patterns in self._steps.items():
                slots = read_any(patterns, sentence)
                if slots is not None:
                    steps.append((operation, int(slots.get("number", 2))))
        is_whole = len(steps) == len(sentences) - 2
        if opening is None or not is_whole or not read_any(self._questions, sentences[-1]):
            raise self.unknown(prompt)
        return int(opening["number"]), steps


def final_answer(response: str) -> str | None:
    """Reads the number after "####" at the end of a response; None if there is none.

    >>> final_answer("7 + 5 = 12. #### 12"), final_answer("12")
    ('12', None)
    """
    match = re.search(r"#### ([0-9]+)\Z", response)
    return match[1] if match else None


def _apply(operation: str, value: int, operand: int) -> int:
    return {
        "add": value + operand,
        "take": max(value - operand, 0),
        "double": value * 2,
        "halve": value // 2,
    }[operation]


def _write_problem(
    rng: random.Random, openings: list[str], steps: dict[str, list[str]], questions: list[str]
) -> str:
    """Draws steps so that every count stays a whole number between 1 and `LARGEST`."""
    thing = rng.choice(THINGS)
    value = rng.randint(3, 15)
    sentences = [rng.choice(openings).format(person=rng.choice(PEOPLE), number=value, things=thing)]
    for _ in range(rng.randint(2, 4)):
        operand = rng.choice(OPERANDS)
        possible = {
            "add": value + operand <= LARGEST,
            "take": value > operand,
            "double": 2 * value <= LARGEST,
            "halve": value % 2 == 0,
        }
        operation = rng.choice([operation for operation, allowed in possible.items() if allowed])
        template = rng.choice(steps[operation])
        sentences.append(template.format(person=rng.choice(PEOPLE), number=operand))
        value = _apply(operation, value, operand)
    return " ".join([*sentences, rng.choice(questions).format(things=thing)])
