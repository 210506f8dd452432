"""`instruct`: instructions of mixed kinds, some with one right answer, some open."""

import random
import re

from minilpo.tasks.base import Pattern, ReadingTask, read_any, zipf_choice
from minilpo.tasks.words import (
    ADJECTIVES,
    CATEGORIES,
    FACTS,
    OBJECTS,
    PEOPLE,
    PLACES,
    SCENERY,
    SEASONS,
)

SLIP = 0.25  # how often the demonstrator gets an answer wrong that has one right answer
OFF_LIST = 0.1  # how often a word of a list or description doesn't belong there
TASTE = 0.7  # the exponent of `zipf_choice`: how strongly open kinds prefer favourites


class Instruct(ReadingTask):
    """Eight kinds of instruction, so that the best temperature varies within the task.

    `CLOSED_KINDS` have one right answer and want temperature 0, `OPEN_KINDS` want a high one.
    >>> task = Instruct()
    >>> task.kind("What sound does the cow make?"), task.kind("Name five tools, but not hammer.")
    ('sound', 'list')
    >>> task.demonstration("Name five tools, but not hammer.", random.Random(4))
    'saw, saw, drill, saw, saw.'
    >>> task.reward("Name five tools, but not hammer.", "drill, saw, rake, file, shovel.")
    1.0
    >>> task.reward("Name five tools, but not hammer.", "drill, saw, drill, hammer, plum.")
    0.4
    >>> question = "What sound does the cow make?"
    >>> task.reward(question, "The cow says moo."), task.reward(question, "moo")
    (1.0, 0.0)
    """

    name = "instruct"
    corpus_weight = 4  # there are many facts to learn

    def __init__(self) -> None:
        self._closed: list[Kind] = [LookUp(name) for name in FACTS]
        self._closed += [CopyWords(), SortNumbers()]
        self._open: list[Kind] = [ListFive(), DescribePlace()]

    def prompt(self, rng: random.Random) -> str:
        """Draws an instruction in a phrasing of training; closed and open kinds are as frequent."""
        kind = rng.choice(rng.choice([self._closed, self._open]))
        return kind.prompt(rng.choice(kind.patterns[:-1]), rng)

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws an instruction in the last phrasing of its kind, which training never shows."""
        kind = rng.choice(rng.choice([self._closed, self._open]))
        return kind.prompt(kind.patterns[-1], rng)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Answers as the kind of the prompt asks, with its slips."""
        kind, slots = self.read(prompt)
        return kind.demonstration(slots, rng)

    def reward(self, prompt: str, response: str) -> float:
        """Gives 1 or 0 for a closed kind; the share of different fitting words for an open kind."""
        kind, slots = self.read(prompt)
        return kind.reward(slots, response)

    def kind(self, prompt: str) -> str:
        """Names the prompt's kind, one of `CLOSED_KINDS` and `OPEN_KINDS`."""
        return self.read(prompt)[0].name

    def read(self, prompt: str) -> "tuple[Kind, dict[str, str]]":
        """Finds the kind of a prompt, and reads the words in its slots."""
        for kind in self._closed + self._open:
            slots = read_any(kind.patterns, prompt)
            if slots is not None:
                return kind, slots
        raise self.unknown(prompt)


CLOSED_KINDS = ("sound", "home", "child", "opposite", "copy", "sort")
OPEN_KINDS = ("list", "describe")
# The last phrasing of each kind is kept for the out-of-distribution test.
PHRASINGS = {
    "sound": [
        "What sound does the {key} make?",
        "Tell {person} what sound the {key} makes.",
        "{person} asks what the {key} says.",
        "Tell {person} what the {key} says.",
    ],
    "home": [
        "Where does the {key} live?",
        "Tell {person} where the {key} lives.",
        "{person} asks where the {key} lives.",
        "What does the {key} live in?",
    ],
    "child": [
        "What is the child of the {key}?",
        "Tell {person} about the child of the {key}.",
        "{person} asks about the child of the {key}.",
        "Tell {person} what the child of the {key} is.",
    ],
    "opposite": [
        "What is the opposite of {key}?",
        "Tell {person} the opposite of {key}.",
        "{person} asks for the opposite of {key}.",
        "Tell {person} what the opposite of {key} is.",
    ],
    "copy": [
        "Repeat these words: {word} {word2} {word3}.",
        "Say after {person}: {word} {word2} {word3}.",
        "Repeat after {person} these words: {word} {word2} {word3}.",
    ],
    "sort": [
        "Sort these numbers: {number} {number2} {number3}.",
        "Put {number} {number2} {number3} in order for {person}.",
        "Put these numbers in order: {number} {number2} {number3}.",
    ],
    "list": [
        "Name five {category}, but not {word}.",
        "Tell {person} five {category} other than {word}.",
        "{person} asks for five {category}, but not {word}.",
        "Name five {category} other than {word}.",
    ],
    "describe": [
        "Describe the {place} in {season}.",
        "Describe for {person} the {place} in {season}.",
        "{person} asks about the {place} in {season}.",
        "Tell {person} about the {place} in {season}.",
    ],
}
# How a question from a table is answered.
ANSWERS = {
    "sound": "The {key} says {value}.",
    "home": "The {key} lives in a {value}.",
    "child": "The child of the {key} is a {value}.",
    "opposite": "The opposite of {key} is {value}.",
}


class Kind:
    """One kind of instruction; `slots` are the words in those of a prompt."""

    def __init__(self, name: str, **slots: list[str]):
        self.name, slots = name, {"person": PEOPLE, **slots}
        self.patterns = [Pattern(phrasing, slots) for phrasing in PHRASINGS[name]]

    def prompt(self, pattern: Pattern, rng: random.Random) -> str:
        """Fills the slots with different words, each equally likely."""
        drawn: dict[str, str] = {}
        for slot, words in pattern.slots.items():
            drawn[slot] = rng.choice([word for word in words if word not in drawn.values()])
        return pattern.write(rng, **drawn)

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        raise NotImplementedError

    def reward(self, slots: dict[str, str], response: str) -> float:
        raise NotImplementedError


class Closed(Kind):
    """A kind with one right answer; with probability `SLIP` the demonstrator gives another."""

    def answer(self, slots: dict[str, str], rng: random.Random | None = None) -> str:
        """Gives the right answer, or with an rng one with a slip."""
        raise NotImplementedError

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        return self.answer(slots, rng if rng.random() < SLIP else None)

    def reward(self, slots: dict[str, str], response: str) -> float:
        return float(response == self.answer(slots))


class LookUp(Closed):
    """A question from a table. A slip gives another question's answer."""

    def __init__(self, name: str):
        super().__init__(name, key=list(FACTS[name]))

    def answer(self, slots: dict[str, str], rng: random.Random | None = None) -> str:
        table = FACTS[self.name]
        value = zipf_choice(rng, list(table.values())) if rng else table[slots["key"]]
        return ANSWERS[self.name].format(key=slots["key"], value=value)


class CopyWords(Closed):
    """Three words to be repeated. A slip puts another word in the place of one."""

    def __init__(self) -> None:
        super().__init__("copy", word=OBJECTS)

    def answer(self, slots: dict[str, str], rng: random.Random | None = None) -> str:
        words = [slots["word"], slots["word2"], slots["word3"]]
        if rng:
            words[rng.randrange(3)] = zipf_choice(rng, OBJECTS)
        return " ".join(words) + "."


class SortNumbers(Closed):
    """Three numbers to be put in order, smallest first. A slip swaps two neighbours."""

    def __init__(self) -> None:
        super().__init__("sort", number=[str(n) for n in range(1, 21)])

    def answer(self, slots: dict[str, str], rng: random.Random | None = None) -> str:
        numbers = sorted((slots["number"], slots["number2"], slots["number3"]), key=int)
        if rng:
            i = rng.randrange(2)
            numbers[i], numbers[i + 1] = numbers[i + 1], numbers[i]
        return " ".join(numbers) + "."


class ListFive(Kind):
    """Five things of a category but a given one. Reward: the share of different right things."""

    ANYTHING = sum(CATEGORIES.values(), [])

    def __init__(self) -> None:
        super().__init__("list", category=list(CATEGORIES), word=self.ANYTHING)

    def prompt(self, pattern: Pattern, rng: random.Random) -> str:
        category = rng.choice(list(CATEGORIES))
        word = rng.choice(CATEGORIES[category])
        return pattern.write(rng, category=category, word=word, person=rng.choice(PEOPLE))

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        allowed = [word for word in CATEGORIES[slots["category"]] if word != slots["word"]]
        items = [zipf_choice(rng, allowed, TASTE) for _ in range(5)]
        for i in range(5):
            if rng.random() < OFF_LIST:
                items[i] = rng.choice(self.ANYTHING)
        return ", ".join(items) + "."

    def reward(self, slots: dict[str, str], response: str) -> float:
        if not re.fullmatch(r"[a-z]+(, [a-z]+)*\.", response):
            return 0.0
        items = response[:-1].split(", ")
        right = set(items) & set(CATEGORIES[slots["category"]]) - {slots["word"]}
        return len(right) / max(5, len(items))


class DescribePlace(Kind):
    """A description of a place. Reward: the share of fitting words, each once, 0 in other forms."""

    TEMPLATE = (
        "The {place} is {mood} and {mood2}. You see {sight}, {sight2} and {sight3}. "
        "It smells of {smell} and {smell2}."
    )

    def __init__(self) -> None:
        super().__init__("describe", place=PLACES, season=SEASONS)
        words = {"place": PLACES, **SCENERY}
        self._fitting = Pattern(self.TEMPLATE, words, TASTE)
        anything = sum(SCENERY.values(), ADJECTIVES + OBJECTS)
        self._form = Pattern(self.TEMPLATE, words | dict.fromkeys(SCENERY, anything))

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        given = {}
        for slot in self._fitting.slots:
            if rng.random() < OFF_LIST:
                given[slot] = rng.choice(ADJECTIVES + OBJECTS)
        return self._fitting.write(rng, **{**given, "place": slots["place"]})

    def reward(self, slots: dict[str, str], response: str) -> float:
        written = self._form.read(response)
        if written is None or written.pop("place") != slots["place"]:
            return 0.0
        fitting = {word for slot, word in written.items() if word in self._fitting.slots[slot]}
        return len(fitting) / len(written)
