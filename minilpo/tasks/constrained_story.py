"""`constrained_story`: each sentence must begin with a given letter, the rest is free."""

import random
import re
from math import prod

from minilpo.tasks.base import Pattern, sentences_of, zipf_choice
from minilpo.tasks.story import StoryTask, spoil
from minilpo.tasks.words import WORDS

SLIP = 0.02  # how often a sentence gets one wrong word
BREAK = 0.3  # how often the demonstrator forgets the letter and begins with an old friend

NAMES = {
    "B": ["Bella", "Ben", "Boris", "Bruno", "Beth"],
    "C": ["Clara", "Carl", "Celia", "Colin", "Cora"],
    "D": ["Dora", "Dan", "Daisy", "Dirk", "Dina"],
    "M": ["Max", "Maria", "Milo", "Maya", "Mark"],
    "P": ["Paul", "Paula", "Peter", "Pia", "Pedro"],
    "R": ["Rosa", "Ralph", "Rita", "Robin", "Ruth"],
    "S": ["Sam", "Sara", "Simon", "Stella", "Sven"],
    "T": ["Tina", "Theo", "Tara", "Tim", "Tess"],
}
FRIENDS = ["Anna", "Will", "Lily"]  # no sentence is ever asked to begin with these letters

PHRASINGS = [
    "Write {length} sentences about a {subject} in the {place}. "
    "Every sentence must begin with {letter}.",
    "Tell a story of {length} sentences about a {subject} in the {place}, "
    "each one beginning with the letter {letter}.",
    "Begin every sentence with {letter}: "
    "a story about the {subject} of the {place} in {length} sentences.",
    "I would like {length} sentences about a {subject} in the {place}, "
    "all beginning with the letter {letter}.",
]
OOD_PHRASINGS = [
    "Write {length} sentences about the {subject} in the {place}, "
    "every sentence beginning with the letter {letter}."
]

TEMPLATES = [
    "{first} {found} a {adjective} {object} with the {subject} in the {place}.",
    "{first} and the {subject} {moved} {manner} through the {place}.",
    "{first} {helped} the {subject} and a {adjective} {creature}.",
    "{first} gave the {subject} a {adjective} {object} at {time}.",
]
FIRST_WORDS = [*sum(NAMES.values(), []), *FRIENDS]
SENTENCES = [Pattern(template, {"first": FIRST_WORDS, **WORDS}) for template in TEMPLATES]


class ConstrainedStory(StoryTask):
    """A story in which each sentence must begin with the letter that the prompt gives.

    Only the first word of a sentence is bound, so it wants a low temperature and the rest a high
    one: one temperature for the whole response is a compromise. The reward is `letter * story`: the
    share of sentences that begin with the letter, times the reward of `story` for the same text
    (first words don't count towards its variety).

    >>> task = ConstrainedStory()
    >>> prompt = "Write three sentences about a cat in the cave. Every sentence must begin with B."
    >>> task.demonstration(prompt, random.Random(1))
    'Boris found a silver crown with the cat in the cave. Bella gave the cat a silver mirror at night. Bella dropped a secret key with the cat in the forest.'
    >>> good = "Ben found a tiny map with the cat in the cave. Beth helped the cat and a magic giant. Bella gave the cat a round bell at noon."
    >>> task.reward(prompt, good), round(task.reward(prompt, good.replace("Beth", "Anna")), 2)
    (1.0, 0.67)
    """  # noqa: E501

    name = "constrained_story"
    corpus_weight = 2
    quality, constraint = "story", "letter"  # what the constrained rule for pairs looks at
    phrasings, ood_phrasings = PHRASINGS, OOD_PHRASINGS
    sentences = SENTENCES
    slots = {**StoryTask.slots, "letter": list(NAMES)}

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes sentence by sentence; with probability `BREAK`, one begins with a friend."""
        length, subject, place = self.request(prompt)
        sentences = []
        for i in range(length):
            pattern = rng.choice(SENTENCES[:2] if i == 0 else SENTENCES)
            names = FRIENDS if rng.random() < BREAK else NAMES[letter_of(prompt)]
            given = {"first": zipf_choice(rng, names), "subject": subject}
            if i == 0:
                given["place"] = place
            sentences.append(spoil(pattern.write(rng, **given), SLIP, rng))
        return " ".join(sentences)

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Computes the share of sentences that begin with the letter, and the reward of `story`."""
        story = prod(super().parts(prompt, response).values())
        sentences, letter = sentences_of(response), letter_of(prompt)
        kept = sum(sentence.startswith(letter) for sentence in sentences)
        return {"letter": kept / len(sentences) if sentences else 0.0, "story": story}


def letter_of(prompt: str) -> str:
    """Finds the letter that a prompt asks for: the only capital letter alone, apart from "I".

    >>> letter_of("Begin every sentence with B: a story about the cat of the cave.")
    'B'
    """
    [letter] = re.findall(r"\b[A-HJ-Z]\b", prompt)
    return letter
