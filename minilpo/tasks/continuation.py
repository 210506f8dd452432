"""`continuation`: go on with a given text, freely, but on its subject and without repeats."""

import random
import re

from minilpo.tasks.base import read_any, sentences_of, zipf_choice
from minilpo.tasks.story import SENTENCES, SLIP, spoil
from minilpo.tasks.task import Task

LENGTH = 5  # sentences of a demonstration, and of a continuation that is long enough

PHRASINGS = [
    "Continue this text: {opening}",
    "{opening} What happens next?",
    "Go on from here: {opening}",
]
OOD_PHRASINGS = ["Continue from here: {opening}"]


class Continuation(Task):
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

    def prompt(self, rng: random.Random) -> str:
        """Draws a sentence, each word equally likely, in one of the phrasings of training."""
        return rng.choice(PHRASINGS).format(opening=_draw_opening(rng))

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a sentence in a wording that training never shows."""
        return rng.choice(OOD_PHRASINGS).format(opening=_draw_opening(rng))

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes five sentences about the same subject, each as if it were the first."""
        subject = subject_of(prompt)
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
        opening, subject = _opening_of(prompt)
        sentences = sentences_of(response)
        new = set()
        for sentence in sentences:
            slots = read_any(SENTENCES, sentence)
            if slots is not None and slots["subject"] == subject and sentence != opening:
                new.add(sentence)
        return {"new": len(new) / max(LENGTH, len(sentences)), "variety": 1 - repeated(response)}

    def knows(self, prompt: str) -> bool:
        """Tells whether a prompt is a sentence of a story in a known wording."""
        for phrasing in PHRASINGS + OOD_PHRASINGS:
            before, after = phrasing.split("{opening}")
            middle = prompt.removeprefix(before).removesuffix(after)
            if prompt == before + middle + after and read_any(SENTENCES, middle) is not None:
                return True
        return False


def repeated(text: str) -> float:
    """Computes the share of 3-grams (three words in a row) that repeat an earlier one: Table 1.

    It is 0 for a text of fewer than three words, where nothing can be repeated.

    >>> repeated("one two three four"), repeated("ha ha ha ha ha ha"), repeated("ha ha")
    (0.0, 0.75, 0.0)
    """
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def subject_of(prompt: str) -> str:
    """Finds the subject of the sentence that a prompt gives.

    >>> subject_of("Then the fox danced softly through the cave. What happens next?")
    'fox'
    """
    return _opening_of(prompt)[1]


def _opening_of(prompt: str) -> tuple[str, str]:
    """Finds the sentence that a prompt gives, and its subject."""
    for sentence in re.findall(r"[A-Z][^.:?]*\.", prompt):
        slots = read_any(SENTENCES, sentence)
        if slots is not None:
            return sentence, slots["subject"]
    raise ValueError(
        f"a continuation prompt must contain a sentence of a story, got {prompt!r}; "
        "see minilpo/tasks/story.py"
    )


def _draw_opening(rng: random.Random) -> str:
    pattern = rng.choice(SENTENCES)
    drawn = {slot: zipf_choice(rng, words, 0.0) for slot, words in pattern.slots.items()}
    return pattern.write(rng, **drawn)
