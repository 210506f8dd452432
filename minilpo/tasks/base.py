"""Draws and splits prompts and demonstrations; has the patterns that tasks are made of."""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from minilpo.tasks.calling import ask
from minilpo.tasks.task import Task

CORPUS_BLOCK = 4000  # demonstrations
PATIENCE = 20_000  # draws in vain, after which a task counts as exhausted
WASTE = 100  # as many more for each prompt found: beyond that, looking for more takes for ever
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.1  # of all prompts; the rest is for training


def split_of(prompt: str) -> str:
    """Says whether a prompt belongs to the "train", the "validation" or the "test" split.

    The text alone decides (by its hash), so two splits never share a prompt, whichever seed drew
    it.

    >>> split_of("Sort these numbers: 9 3 14."), split_of("Sort these numbers: 3 9 14.")
    ('train', 'test')
    """
    digest = hashlib.sha256(prompt.encode()).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32  # uniform in [0, 1)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def draw_prompts(task: Task, n: int, split: str, rng: random.Random) -> list[str]:
    """Draws `n` different prompts of one split; ValueError if the task can't give so many.

    `split` is "train", "validation", "test" or "ood" (out of distribution: a wording or a subject
    that training never shows).

    >>> from minilpo.tasks import load_tasks
    >>> [task] = load_tasks(["math"])
    >>> prompts = draw_prompts(task, 5, "test", random.Random(0))
    >>> len(set(prompts)), {split_of(prompt) for prompt in prompts}
    (5, {'test'})
    """
    member = "ood_prompt" if split == "ood" else "prompt"
    prompts: dict[str, None] = {}  # an ordered set
    in_vain = 0
    while len(prompts) < n and in_vain < PATIENCE:
        prompt = ask(task, member, rng)
        new = prompt not in prompts and (split == "ood" or split_of(prompt) == split)
        in_vain = 0 if new else in_vain + 1
        if new:
            prompts[prompt] = None
    if len(prompts) < n:
        raise ValueError(
            f"task {task.name!r} must offer {n} different {split} prompts, got {len(prompts)}; "
            f"ask for fewer (--test-prompts, --prompts and the like) or give the task more variety"
        )
    return list(prompts)


def draw_demonstrations(
    task: Task, n: int, split: str, rng: random.Random
) -> list[tuple[str, str]]:
    """Draws `n` (prompt, demonstration) pairs of one split; prompts may repeat, as in any corpus.

    Raises ValueError if the task has no prompts of that split, or next to none.
    """
    pairs: list[tuple[str, str]] = []
    in_vain = 0
    while len(pairs) < n:
        prompt = ask(task, "prompt", rng)
        if split_of(prompt) == split:
            pairs.append((prompt, ask(task, "demonstration", prompt, rng)))
            continue
        in_vain += 1
        if in_vain >= PATIENCE + WASTE * len(pairs):
            raise ValueError(
                f"task {task.name!r} must have prompts of the {split} split, but only "
                f"{len(pairs)} of {in_vain + len(pairs)} were in it; give the task more variety"
            )
    return pairs


class Prompt(NamedTuple):
    """A prompt, and the task that asks it and rewards the responses to it."""

    text: str
    task: Task


def mixed_prompts(
    tasks: Sequence[Task], n_per_task: int, split: str, rng: random.Random
) -> list[Prompt]:
    """Draws as many prompts of every task, task by task.

    >>> from minilpo.tasks import load_tasks
    >>> prompts = mixed_prompts(load_tasks(["math", "story"]), 2, "test", random.Random(0))
    >>> [prompt.task.name for prompt in prompts]
    ['math', 'math', 'story', 'story']
    """
    return [
        Prompt(text, task) for task in tasks for text in draw_prompts(task, n_per_task, split, rng)
    ]


def corpus(
    tasks: Sequence[Task], n: int, split: str, rng: random.Random
) -> Iterator[list[tuple[str, str]]]:
    """Draws `n` `mixed_demonstrations`, block by block: memory never holds all as text."""
    for start in range(0, n, CORPUS_BLOCK):
        yield mixed_demonstrations(tasks, min(CORPUS_BLOCK, n - start), split, rng)


def mixed_demonstrations(
    tasks: Sequence[Task], n: int, split: str, rng: random.Random
) -> list[tuple[str, str]]:
    """Draws `n` pairs in random order, of every task by its `corpus_weight`."""
    weights = [ask(task, "corpus_weight") for task in tasks]
    pairs = []
    for task, weight in zip(tasks, weights, strict=True):
        rounded_up = int(-(-n * weight // sum(weights)))
        pairs += draw_demonstrations(task, rounded_up, split, rng)
    rng.shuffle(pairs)
    return pairs[:n]


@cache
def _cumulative_weights(n: int, exponent: float) -> list[float]:
    return list(accumulate(rank**-exponent for rank in range(1, n + 1)))


def zipf_choice(rng: random.Random, words: Sequence[str], exponent: float = 1.0) -> str:
    """Draws a word with probability proportional to 1 / rank^exponent, as in human language.

    Favourites come first. The skew is what makes temperature matter: a greedy writer repeats the
    first word of the list for ever.

    >>> zipf_choice(random.Random(1), ["often", "sometimes", "rarely"])
    'often'
    """
    return rng.choices(words, cum_weights=_cumulative_weights(len(words), exponent))[0]


class Pattern:
    """A sentence with slots and the words that may fill each: it writes and recognises text.

    Args:
        template: text with `{slots}`. A trailing digit makes a second slot with the same words
            (`{thing}`, `{thing2}`).
        words: those of each slot; a slot without words, like "number", takes any whole number.
        exponent: how strongly favourites are preferred, see `zipf_choice`.

    >>> pattern = Pattern("The {animal} sees {number} stars.", {"animal": ["fox", "owl"]})
    >>> pattern.write(random.Random(1), number="7")
    'The fox sees 7 stars.'
    >>> pattern.read("The owl sees 12 stars.")
    {'animal': 'owl', 'number': '12'}
    >>> pattern.read("The pig sees 12 stars.") is None
    True
    """

    def __init__(self, template: str, words: Mapping[str, Sequence[str]], exponent: float = 1.0):
        self.template, self.exponent = template, exponent
        self.slots: dict[str, Sequence[str]] = {}
        for slot in re.findall(r"\{(\w+)\}", template):
            self.slots[slot] = words.get(slot.rstrip("0123456789"), ())
        regex = re.escape(template)
        for slot, allowed_words in self.slots.items():
            allowed = "|".join(map(re.escape, allowed_words)) if allowed_words else r"\d+"
            regex = regex.replace(re.escape("{" + slot + "}"), f"(?P<{slot}>{allowed})")
        self._fullmatch = re.compile(regex).fullmatch

    def write(self, rng: random.Random, **given: str) -> str:
        """Fills the given slots as told and draws the others by `zipf_choice`."""
        drawn = {}
        for slot, words in self.slots.items():
            drawn[slot] = given[slot] if slot in given else zipf_choice(rng, words, self.exponent)
        return self.template.format(**drawn)

    def read(self, text: str) -> dict[str, str] | None:
        """Returns the words in the slots, or None if the text doesn't fit the pattern."""
        match = self._fullmatch(text)
        return match.groupdict() if match else None


def read_any(patterns: Sequence[Pattern], text: str) -> dict[str, str] | None:
    """Reads the slots of the first pattern that fits the text; None if none does."""
    return next((slots for pattern in patterns if (slots := pattern.read(text)) is not None), None)


def write_any(
    rng: random.Random, phrasings: Sequence[str], slots: Mapping[str, Sequence[str]], **given: str
) -> str:
    """Draws a phrasing and the words in its slots, each equally likely, but for given ones."""
    words = {slot: rng.choice(words) for slot, words in slots.items()}
    return rng.choice(phrasings).format(**{**words, **given})


class ReadingTask(Task):
    """A task that can read its own prompts: a subclass writes `read`."""

    def read(self, prompt: str) -> Any:
        """Reads all that matters in a prompt; raises ValueError if its wording is unknown."""
        raise NotImplementedError

    def knows(self, prompt: str) -> bool:
        """Tells whether `read` can read a prompt."""
        try:
            self.read(prompt)
        except ValueError:
            return False
        return True

    def unknown(self, prompt: str) -> ValueError:
        """Makes the error for a prompt of another wording."""
        file = type(self).__module__.replace(".", "/") + ".py"
        return ValueError(
            f"a {self.name} prompt must have a known wording, got {prompt!r}; see {file}"
        )


class PhrasedTask(ReadingTask):
    """A task whose prompts are phrasings with slots. A subclass names both, see `Pattern`."""

    phrasings: Sequence[str]
    ood_phrasings: Sequence[str] = ()  # of the out-of-distribution test
    slots: Mapping[str, Sequence[str]]

    def __init__(self) -> None:
        phrasings = [*self.phrasings, *self.ood_phrasings]
        self._patterns = [Pattern(phrasing, self.slots) for phrasing in phrasings]

    def read(self, prompt: str) -> dict[str, str]:
        """Reads the words in the slots of a prompt."""
        slots = read_any(self._patterns, prompt)
        if slots is None:
            raise self.unknown(prompt)
        return slots


def sentences_of(text: str) -> list[str]:
    """Cuts a text after each full stop.

    >>> sentences_of("One. Two. Three")
    ['One.', 'Two.', 'Three']
    """
    return [sentence for sentence in re.split(r"(?<=\.)\s+", text.strip()) if sentence]
