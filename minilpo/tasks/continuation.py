"""`continuation`: go on with a given text, freely; all that counts is not to repeat oneself."""

import random
import re

from minilpo.tasks.base import read_any, zipf_choice
from minilpo.tasks.story import SENTENCES, SLIP, spoil
from minilpo.tasks.task import Task

LENGTH = 5  # sentences of a demonstration

PHRASINGS = [
    "Continue this text: {opening}",
    "{opening} What happens next?",
    "Go on from here: {opening}",
]
OOD_PHRASINGS = ["Continue from here: {opening}"]


class Continuation(Task):
    """A text that goes on from a given sentence.

    The demonstrator has favourite words and sentences, so the greedy text runs in circles. The
    reward is the share of different 3-grams among all 3-grams (three words in a row): 1 minus the
    share of repeats that the paper's Table 1 reports.

    >>> task = Continuation()
    >>> prompt = "Continue this text: The fox found a silver key in the forest."
    >>> task.demonstration(prompt, random.Random(2))
    'The fox found a tiny key in the market. A silver dragon helped the fox. Then the fox climbed quietly through the market. The troll gave the fox a map. At noon the fox dreamed of a heavy kite.'
    >>> task.reward(prompt, "The fox hid a map in the cave. A tiny witch helped the fox."), task.reward(prompt, "ha ha ha ha ha ha")
    (1.0, 0.25)
    """  # noqa: E501

    name = "continuation"

    def prompt(self, rng: random.Random) -> str:
        """Draws a sentence, each word equally likely, in one of the phrasings of training."""
        return rng.choice(PHRASINGS).format(opening=_opening(rng))

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a sentence in a wording that training never shows."""
        return rng.choice(OOD_PHRASINGS).format(opening=_opening(rng))

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Writes five sentences about the same subject, each as if it were the first."""
        subject = subject_of(prompt)
        sentences = [rng.choice(SENTENCES).write(rng, subject=subject) for _ in range(LENGTH)]
        return " ".join(spoil(sentence, SLIP, rng) for sentence in sentences)

    def reward(self, prompt: str, response: str) -> float:
        """The share of different 3-grams; 0 for a text of fewer than three words."""
        words = response.split()
        trigrams = list(zip(words, words[1:], words[2:], strict=False))
        return len(set(trigrams)) / len(trigrams) if trigrams else 0.0

    def knows(self, prompt: str) -> bool:
        """Whether a prompt is a sentence of a story in a known wording."""
        for phrasing in PHRASINGS + OOD_PHRASINGS:
            before, after = phrasing.split("{opening}")
            middle = prompt.removeprefix(before).removesuffix(after)
            if prompt == before + middle + after and read_any(SENTENCES, middle) is not None:
                return True
        return False


def subject_of(prompt: str) -> str:
    """The subject of the sentence that a prompt gives.

    >>> subject_of("Then the fox danced softly through the cave. What happens next?")
    'fox'
    """
    for sentence in re.findall(r"[A-Z][^.:?]*\.", prompt):
        slots = read_any(SENTENCES, sentence)
        if slots is not None:
            return slots["subject"]
    raise ValueError(
        f"a continuation prompt must contain a sentence of a story, got {prompt!r}; "
        "see minilpo/tasks/story.py"
    )


def _opening(rng: random.Random) -> str:
    pattern = rng.choice(SENTENCES)
    drawn = {slot: zipf_choice(rng, words, 0.0) for slot, words in pattern.slots.items()}
    return pattern.write(rng, **drawn)
