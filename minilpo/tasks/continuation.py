"""`continuation`: go on with a given text, freely, but on its subject and without repeats."""

import random

from minilpo.tasks.base import Pattern, PhrasedTask, read_any, sentences_of
from minilpo.tasks.story import SENTENCES, SLIP, TEMPLATES, spoil
from minilpo.tasks.words import WORDS

LENGTH = 5  # sentences of a demonstration, and of a continuation that is long enough

PHRASINGS = [
    "Continue this text: {opening}",
    "{opening} What happens next?",
    "Go on from here: {opening}",
]
OOD_PHRASINGS = ["Continue from here: {opening}"]
OPENINGS = [Pattern(template, WORDS, 0.0) for template in TEMPLATES]  # without favourites


class Continuation(PhrasedTask):
    """A text that goes on from a given sentence.

    The demonstrator has favourite words and sentences, so the greedy text runs in circles. The
    reward is `min(new, variety)`: a text is as good as its weaker side, so neither many sentences
    that repeat each other nor a few different words are enough.

    >>> task = Continuation()
    >>> prompt = "Continue this text: The fox found a silver key in the forest."
    >>> task.demonstration(prompt, random.Random(2))
    'The fox found a tiny key in the market. A silver dragon helped the fox. Then the fox climbed quietly through the market. The troll gave the fox a map. At noon the fox dreamed of a heavy kite.'
    >>> task.reward(prompt, task.demonstration(prompt, random.Random(2)))
    1.0
    >>> new = "A tiny witch helped the fox."
    >>> task.reward(prompt, new), task.reward(prompt, " ".join([new] * 5))
    (0.2, 0.2)
    >>> task.reward(prompt, prompt), task.reward(prompt, "ha ha ha ha ha ha")
    (0.0, 0.0)
    """  # noqa: E501

    name = "continuation"
    slots = WORDS
    phrasings = [
        phrasing.format(opening=opening)
        for phrasing in PHRASINGS + OOD_PHRASINGS
        for opening in TEMPLATES
    ]

    def prompt(self, rng: random.Random) -> str:
        """Draws a sentence, each word equally likely, in one of the phrasings of training."""
        return rng.choice(PHRASINGS).format(opening=rng.choice(OPENINGS).write(rng))

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a sentence in a wording that training never shows."""
        return rng.choice(OOD_PHRASINGS).format(opening=rng.choice(OPENINGS).write(rng))

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes five sentences about the same subject, each as if it were the first."""
        subject = self.read(prompt)["subject"]
        sentences = [rng.choice(SENTENCES).write(rng, subject=subject) for _ in range(LENGTH)]
        return " ".join(spoil(sentence, SLIP, rng) for sentence in sentences)

    def reward(self, prompt: str, response: str) -> float:
        """Takes the smaller part."""
        return min(self.parts(prompt, response).values())

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Judges the two sides of the reward.

        Returns:
            new: how many different sentences of a story are about the prompt's subject and not the
                prompt's own, as a share of the sentences written, or of `LENGTH` if that is more.
            variety: 1 minus the share of repeated 3-grams, see `repeated`.
        """
        subject = self.read(prompt)["subject"]
        sentences = sentences_of(response)
        new = set()
        for sentence in sentences:
            slots = read_any(SENTENCES, sentence)
            if slots is not None and slots["subject"] == subject and sentence not in prompt:
                new.add(sentence)
        return {"new": len(new) / max(LENGTH, len(sentences)), "variety": 1 - repeated(response)}


def repeated(text: str) -> float:
    """Computes the share of 3-grams (three words in a row) that repeat an earlier one: Table 1.

    It is 0 for a text of fewer than three words, where nothing can be repeated.

    >>> repeated("one two three four"), repeated("ha ha ha ha ha ha"), repeated("ha ha")
    (0.0, 0.75, 0.0)
    """
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
