"""`story`: a few sentences about a subject and a place, of which no two should be the same."""

import random
from collections.abc import Sequence
from math import prod

from minilpo.tasks.base import Pattern, PhrasedTask, read_any, sentences_of, zipf_choice
from minilpo.tasks.words import CREATURES, OBJECTS, PLACES, SUBJECTS, WORDS

GIVEN = ("subject", "place", "first")  # slots that show no variety: the prompt decides them
SLIP = 0.02  # how often a sentence of the demonstrator gets one wrong word
LENGTHS = {"three": 3, "four": 4, "five": 5}

PHRASINGS = [
    "Tell me a story of {length} sentences about a {subject} in the {place}.",
    "Write a story about a {subject} in the {place}. Use {length} sentences.",
    "In {length} sentences, tell a story about the {subject} of the {place}.",
    "I would like a story about a {subject} in the {place}, {length} sentences long.",
]
OOD_PHRASINGS = ["Write {length} sentences about the {subject} in the {place}, like a story."]

TEMPLATES = [
    "The {subject} {found} a {adjective} {object} in the {place}.",
    "Then the {subject} {moved} {manner} through the {place}.",
    "A {adjective} {creature} {helped} the {subject}.",
    "At {time} the {subject} dreamed of a {adjective} {object}.",
    "The {creature} gave the {subject} a {object}.",
]
SENTENCES = [Pattern(template, WORDS) for template in TEMPLATES]


class StoryTask(PhrasedTask):
    """A task that asks for so many sentences about a subject in a place."""

    slots = {"length": list(LENGTHS), "subject": SUBJECTS + CREATURES, "place": PLACES}
    sentences: Sequence[Pattern]  # that count as well-formed

    def prompt(self, rng: random.Random) -> str:
        """Draws a request in one of the phrasings of training."""
        return self._draw(rng, self.phrasings, SUBJECTS)

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a request in a wording, or about a subject, that training never shows."""
        if rng.random() < 0.5:
            return self._draw(rng, self.ood_phrasings, SUBJECTS)
        return self._draw(rng, self.phrasings, CREATURES)

    def _draw(self, rng: random.Random, phrasings: Sequence[str], subjects: list[str]) -> str:
        phrasing, slots = rng.choice(phrasings), {**self.slots, "subject": subjects}
        return phrasing.format(**{slot: rng.choice(words) for slot, words in slots.items()})

    def request(self, prompt: str) -> tuple[int, str, str]:
        """Reads the number of sentences, the subject and the place that a prompt asks for."""
        slots = self.read(prompt)
        return LENGTHS[slots["length"]], slots["subject"], slots["place"]

    def reward(self, prompt: str, response: str) -> float:
        """Multiplies the parts."""
        return prod(self.parts(prompt, response).values())

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Judges a story sentence by sentence.

        Returns:
            well_formed: well-formed sentences as a share of the sentences asked for, or written,
                whichever is more.
            on_subject: share of the well-formed sentences that name the subject; naming the place
                somewhere counts as one more.
            variety: different content words as a share of all content words (subject and place
                aside).
        """
        length, subject, place = self.request(prompt)
        sentences = sentences_of(response)
        found = [read_any(self.sentences, sentence) for sentence in sentences]
        read = [slots for slots in found if slots is not None]
        content: list[str] = []
        for slots in read:
            content += [word for slot, word in slots.items() if slot not in GIVEN]
        named = [slots["subject"] == subject for slots in read]
        in_place = any(slots.get("place") == place for slots in read)
        return {
            "well_formed": len(read) / max(length, len(sentences)),
            "on_subject": (sum(named) + in_place) / (len(read) + 1) if read else 0.0,
            "variety": len(set(content)) / len(content) if content else 0.0,
        }


class Story(StoryTask):
    """A story of three to five sentences about a given subject in a given place.

    The demonstrator writes each sentence on its own and has favourite words, so the greedy response
    says one sentence over and over, and the task wants a temperature near 1. The reward is
    `well_formed * on_subject * variety`, see `parts`.

    >>> task = Story()
    >>> prompt = "Tell me a story of three sentences about a fox in the forest."
    >>> task.demonstration(prompt, random.Random(8))
    'The fox lost a tiny key in the forest. The fox found a silver coin in the forest. The fox lost
    a tiny map in the forest.'
    >>> good = "The fox found a silver key in the forest. At noon the fox dreamed of a round drum. "
    >>> good += "A tiny witch helped the fox."
    >>> bad = "The fox found a silver key in the forest. " * 3
    >>> task.reward(prompt, good), round(task.reward(prompt, bad), 2)
    (1.0, 0.33)
    """

    name = "story"
    corpus_weight = 2
    phrasings, ood_phrasings = PHRASINGS, OOD_PHRASINGS
    sentences = SENTENCES

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes the sentences one by one, the first one that can take the place takes it."""
        length, subject, place = self.request(prompt)
        sentences = [rng.choice(SENTENCES[:2]).write(rng, subject=subject, place=place)]
        sentences += [rng.choice(SENTENCES).write(rng, subject=subject) for _ in range(length - 1)]
        return " ".join(spoil(sentence, SLIP, rng) for sentence in sentences)


def spoil(sentence: str, probability: float, rng: random.Random) -> str:
    """Puts a random object in the place of a random word, with the given probability."""
    if rng.random() >= probability:
        return sentence
    words = sentence.rstrip(".").split(" ")
    words[rng.randrange(1, len(words))] = zipf_choice(rng, OBJECTS)
    return " ".join(words) + "."
