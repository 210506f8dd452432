"""`instruct`: instructions of mixed kinds, some with one right answer, some open."""

import random
import re

from minilpo.tasks.base import Pattern, read_any, zipf_choice
from minilpo.tasks.task import Task
from minilpo.tasks.words import (
    ADJECTIVES,
    CATEGORIES,
    CHILDREN,
    HOMES,
    MOODS,
    OBJECTS,
    OPPOSITES,
    PEOPLE,
    PLACES,
    SEASONS,
    SIGHTS,
    SMELLS,
    SOUNDS,
)

SLIP = 0.25  # how often the demonstrator gets an answer wrong that has one right answer
OFF_LIST = 0.1  # how often a word of a list or description doesn't belong there
TASTE = 0.7  # the exponent of `zipf_choice`: how strongly open kinds prefer favourites


class Instruct(Task):
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
        self._closed: list[Kind] = [
            LookUp("sound", SOUNDS, "The {key} says {value}.", SOUND_PHRASINGS),
            LookUp("home", HOMES, "The {key} lives in a {value}.", HOME_PHRASINGS),
            LookUp("child", CHILDREN, "The child of the {key} is a {value}.", CHILD_PHRASINGS),
            LookUp("opposite", OPPOSITES, "The opposite of {key} is {value}.", OPPOSITE_PHRASINGS),
            CopyWords(),
            SortNumbers(),
        ]
        self._open: list[Kind] = [ListFive(), DescribePlace()]

    def prompt(self, rng: random.Random) -> str:
        """Draws an instruction in a phrasing of training; closed and open kinds are as frequent."""
        kind = rng.choice(rng.choice([self._closed, self._open]))
        return kind.prompt(rng.choice(kind.phrasings[:-1]), rng)

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws an instruction in the last phrasing of its kind, which training never shows."""
        kind = rng.choice(rng.choice([self._closed, self._open]))
        return kind.prompt(kind.phrasings[-1], rng)

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Answers as the kind of the prompt asks, with its slips."""
        kind, slots = self._read(prompt)
        return kind.demonstration(slots, rng)

    def reward(self, prompt: str, response: str) -> float:
        """Gives 1 or 0 for a closed kind; the share of different fitting words for an open kind."""
        kind, slots = self._read(prompt)
        return kind.reward(slots, response)

    def kind(self, prompt: str) -> str:
        """Names the prompt's kind, one of `CLOSED_KINDS` and `OPEN_KINDS`."""
        return self._read(prompt)[0].name

    def knows(self, prompt: str) -> bool:
        patterns = [pattern for kind in self._closed + self._open for pattern in kind.phrasings]
        return read_any(patterns, prompt) is not None

    def _read(self, prompt: str) -> "tuple[Kind, dict[str, str]]":
        for kind in self._closed + self._open:
            slots = read_any(kind.phrasings, prompt)
            if slots is not None:
                return kind, slots
        raise ValueError(
            f"an instruct prompt must have a known phrasing, got {prompt!r}; "
            "see minilpo/tasks/instruct.py"
        )


# The last phrasing of each kind is kept for the out-of-distribution test.
SOUND_PHRASINGS = [
    "What sound does the {key} make?",
    "Tell {person} what sound the {key} makes.",
    "{person} asks what the {key} says.",
    "Tell {person} what the {key} says.",
]
HOME_PHRASINGS = [
    "Where does the {key} live?",
    "Tell {person} where the {key} lives.",
    "{person} asks where the {key} lives.",
    "What does the {key} live in?",
]
CHILD_PHRASINGS = [
    "What is the child of the {key}?",
    "Tell {person} about the child of the {key}.",
    "{person} asks about the child of the {key}.",
    "Tell {person} what the child of the {key} is.",
]
OPPOSITE_PHRASINGS = [
    "What is the opposite of {key}?",
    "Tell {person} the opposite of {key}.",
    "{person} asks for the opposite of {key}.",
    "Tell {person} what the opposite of {key} is.",
]
COPY_PHRASINGS = [
    "Repeat these words: {word} {word2} {word3}.",
    "Say after {person}: {word} {word2} {word3}.",
    "Repeat after {person} these words: {word} {word2} {word3}.",
]
SORT_PHRASINGS = [
    "Sort these numbers: {number} {number2} {number3}.",
    "Put {number} {number2} {number3} in order for {person}.",
    "Put these numbers in order: {number} {number2} {number3}.",
]
LIST_PHRASINGS = [
    "Name five {category}, but not {word}.",
    "Tell {person} five {category} other than {word}.",
    "{person} asks for five {category}, but not {word}.",
    "Name five {category} other than {word}.",
]
PLACE_PHRASINGS = [
    "Describe the {place} in {season}.",
    "Describe for {person} the {place} in {season}.",
    "{person} asks about the {place} in {season}.",
    "Tell {person} about the {place} in {season}.",
]

CLOSED_KINDS = ("sound", "home", "child", "opposite", "copy", "sort")
OPEN_KINDS = ("list", "describe")


class Kind:
    """One kind of instruction. Demonstrator and judge get the words in the prompt's slots."""

    def __init__(self, name: str, phrasings: list[str], **slots: list[str]):
        self.name = name
        self.phrasings = [Pattern(phrasing, {"person": PEOPLE, **slots}) for phrasing in phrasings]

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


class LookUp(Kind):
    """A question with one right answer from a table. A slip gives another question's answer."""

    def __init__(self, name: str, table: dict[str, str], answer: str, phrasings: list[str]):
        super().__init__(name, phrasings, key=list(table))
        self._table, self._answer = table, answer

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        key = slots["key"]
        value = self._table[key]
        if rng.random() < SLIP:
            value = zipf_choice(rng, list(self._table.values()))
        return self._answer.format(key=key, value=value)

    def reward(self, slots: dict[str, str], response: str) -> float:
        key = slots["key"]
        return float(response == self._answer.format(key=key, value=self._table[key]))


class CopyWords(Kind):
    """Three words to be repeated. A slip puts another word in the place of one."""

    def __init__(self) -> None:
        super().__init__("copy", COPY_PHRASINGS, word=OBJECTS)

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        words = [slots["word"], slots["word2"], slots["word3"]]
        if rng.random() < SLIP:
            words[rng.randrange(3)] = zipf_choice(rng, OBJECTS)
        return " ".join(words) + "."

    def reward(self, slots: dict[str, str], response: str) -> float:
        return float(response == f"{slots['word']} {slots['word2']} {slots['word3']}.")


class SortNumbers(Kind):
    """Three numbers to be put in order, smallest first. A slip swaps two neighbours."""

    def __init__(self) -> None:
        super().__init__("sort", SORT_PHRASINGS, number=[str(n) for n in range(1, 21)])

    def demonstration(self, slots: dict[str, str], rng: random.Random) -> str:
        numbers = self._sorted(slots)
        if rng.random() < SLIP:
            i = rng.randrange(2)
            numbers[i], numbers[i + 1] = numbers[i + 1], numbers[i]
        return " ".join(numbers) + "."

    def reward(self, slots: dict[str, str], response: str) -> float:
        return float(response == " ".join(self._sorted(slots)) + ".")

    def _sorted(self, slots: dict[str, str]) -> list[str]:
        return sorted((slots["number"], slots["number2"], slots["number3"]), key=int)


class ListFive(Kind):
    """Five things of a category but a given one. Reward: the share of different right things."""

    ANYTHING = sum(CATEGORIES.values(), [])

    def __init__(self) -> None:
        slots = {"category": list(CATEGORIES), "word": self.ANYTHING}
        super().__init__("list", LIST_PHRASINGS, **slots)

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
        super().__init__("describe", PLACE_PHRASINGS, place=PLACES, season=SEASONS)
        anything = [*MOODS, *SIGHTS, *SMELLS, *ADJECTIVES, *OBJECTS]
        words = {"place": PLACES, "mood": MOODS, "sight": SIGHTS, "smell": SMELLS}
        self._fitting = Pattern(self.TEMPLATE, words, TASTE)
        loose = {"mood": anything, "sight": anything, "smell": anything}
        self._form = Pattern(self.TEMPLATE, words | loose)

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
