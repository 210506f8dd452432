"""What a task is, how its prompts are split, and two helpers that tasks are written with.

A task is text in, text out. It never sees token ids, temperatures or the model.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol, runtime_checkable

from minilpo.tasks.calling import ask, weight_of

CORPUS_BLOCK = 4000  # demonstrations
PATIENCE = 20_000  # draws in vain, after which a task counts as exhausted
WASTE = 100  # draws in vain for each prompt found, beyond which looking for more would take for ever
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.1  # of all prompts; the rest is for training


@runtime_checkable
class Task(Protocol):
    """The four members that make a class a task.

    Four more are optional: `kind(prompt) -> str` names the sort of prompt (rewards and temperatures are then reported per
    kind), `parts(prompt, response) -> dict[str, float]` splits the reward into named parts (a task with a rule to keep names
    two of them as `quality` and `constraint`, see `preferences.constrained_pairs`), `ood_prompt(rng) -> str` draws a prompt
    whose wording or subject never occurs in training, and `corpus_weight` (1 if absent) says how many demonstrations the task
    gets in the corpus, in relation to the others: more where there is more to learn.

    All randomness must come from the `rng` that is passed: the same seed then draws the same texts, and a run can be resumed.
    `calling.REQUIRED` says for each member what it must be or return.

    >>> import random
    >>> class Echo:
    ...     name = "echo"
    ...     def prompt(self, rng: random.Random) -> str:
    ...         return "Say " + rng.choice(["yes", "no"])
    ...     def demonstration(self, prompt: str, rng: random.Random) -> str:
    ...         return prompt.split()[-1]
    ...     def reward(self, prompt: str, response: str) -> float:
    ...         return float(response == prompt.split()[-1])
    >>> isinstance(Echo(), Task), Echo().reward("Say yes", "yes")
    (True, 1.0)
    """

    name: str

    def prompt(self, rng: random.Random) -> str:
        """Draws one prompt."""

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Draws one response that the language model learns to imitate; it may contain mistakes."""

    def reward(self, prompt: str, response: str) -> float:
        """Scores any text, however broken, in [0, 1]."""


def split_of(prompt: str) -> str:
    """Says whether a prompt belongs to the "train", the "validation" or the "test" split.

    The text alone decides (by its hash), so two splits never share a prompt, whichever seed drew it.

    >>> split_of("Sort these numbers: 9 3 14."), split_of("Sort these numbers: 3 9 14.")
    ('train', 'test')
    """
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") / 2**32  # uniform in [0, 1)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def draw_prompts(task: Task, n: int, split: str, rng: random.Random) -> list[str]:
    """Draws `n` different prompts of one split.

    Args:
        task: whose prompts to draw.
        n: how many, at least 1.
        split: "train", "validation", "test" or "ood" (out of distribution: a wording or a subject that training never shows).
        rng: the only source of randomness.

    Returns:
        A list of `n` strings without repeats.

    Raises:
        ValueError: if the task can't give that many different prompts.

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


def draw_demonstrations(task: Task, n: int, split: str, rng: random.Random) -> list[tuple[str, str]]:
    """Draws `n` (prompt, demonstration) pairs of one split; prompts may repeat, as in any corpus.

    Raises:
        ValueError: if the task has no prompts of that split, or next to none.
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
                f"task {task.name!r} must have prompts of the {split} split, but only {len(pairs)} of {in_vain + len(pairs)} "
                "were in it; give the task more variety"
            )
    return pairs


def mixed_prompts(tasks: Sequence[Task], n_per_task: int, split: str, rng: random.Random) -> tuple[list[Task], list[str]]:
    """As many prompts of every task, in two lists: the task of each prompt, and the prompt."""
    pairs = [(task, prompt) for task in tasks for prompt in draw_prompts(task, n_per_task, split, rng)]
    return [task for task, _ in pairs], [prompt for _, prompt in pairs]


def corpus(tasks: Sequence[Task], n: int, split: str, rng: random.Random) -> Iterator[list[tuple[str, str]]]:
    """`n` pairs of `mixed_demonstrations`, block by block, so that memory never holds them all as text."""
    for start in range(0, n, CORPUS_BLOCK):
        yield mixed_demonstrations(tasks, min(CORPUS_BLOCK, n - start), split, rng)


def mixed_demonstrations(tasks: Sequence[Task], n: int, split: str, rng: random.Random) -> list[tuple[str, str]]:
    """`n` (prompt, demonstration) pairs in random order; every task has its `corpus_weight`."""
    weights = [weight_of(task) for task in tasks]
    pairs = []
    for task, weight in zip(tasks, weights, strict=True):
        pairs += draw_demonstrations(task, int(-(-n * weight // sum(weights))), split, rng)  # rounded up
    rng.shuffle(pairs)
    return pairs[:n]


@cache
def _cumulative_weights(n: int, exponent: float) -> list[float]:
    total, weights = 0.0, []
    for rank in range(1, n + 1):
        total += rank**-exponent
        weights.append(total)
    return weights


def zipf_choice(rng: random.Random, words: Sequence[str], exponent: float = 1.0) -> str:
    """Draws a word with probability proportional to 1 / rank^exponent: favourites come first, as in human language.

    The skew is what makes temperature matter: a greedy writer repeats the first word of the list for ever.

    >>> zipf_choice(random.Random(1), ["often", "sometimes", "rarely"])
    'often'
    """
    return rng.choices(words, cum_weights=_cumulative_weights(len(words), exponent))[0]


class Pattern:
    """A sentence with slots, each slot with the words that may fill it: it both writes and recognises text.

    Args:
        template: text with `{slots}`. A trailing digit makes a second slot with the same words (`{thing}`, `{thing2}`).
        exponent: how strongly favourites are preferred, see `zipf_choice`.
        slots: the words of each slot; a slot named "number" may be left out and takes any whole number.

    >>> pattern = Pattern("The {animal} sees {number} stars.", animal=["fox", "owl"])
    >>> pattern.write(random.Random(1), number="7")
    'The fox sees 7 stars.'
    >>> pattern.read("The owl sees 12 stars.")
    {'animal': 'owl', 'number': '12'}
    >>> pattern.read("The pig sees 12 stars.") is None
    True
    """

    def __init__(self, template: str, *, exponent: float = 1.0, **slots: Sequence[str]):
        self.template, self.exponent = template, exponent
        self.slots = {slot: slots.get(slot.rstrip("0123456789")) for slot in re.findall(r"\{(\w+)\}", template)}
        regex = re.escape(template)
        for slot, words in self.slots.items():
            allowed = "|".join(map(re.escape, words)) if words is not None else r"\d+"
            regex = regex.replace(re.escape("{" + slot + "}"), f"(?P<{slot}>{allowed})")
        self._fullmatch = re.compile(regex).fullmatch

    def write(self, rng: random.Random, **given: str) -> str:
        """Fills the given slots as told and draws the others by `zipf_choice`."""
        drawn = {
            slot: given[slot] if slot in given else zipf_choice(rng, words, self.exponent) for slot, words in self.slots.items()
        }
        return self.template.format(**drawn)

    def read(self, text: str) -> dict[str, str] | None:
        """The words in the slots, or None if the text doesn't fit the pattern."""
        match = self._fullmatch(text)
        return match.groupdict() if match else None


def read_any(patterns: Sequence[Pattern], text: str) -> dict[str, str] | None:
    """The slots of the first pattern that fits the text, or None if none does."""
    return next((slots for pattern in patterns if (slots := pattern.read(text)) is not None), None)


def sentences_of(text: str) -> list[str]:
    """Cuts a text after each full stop.

    >>> sentences_of("One. Two. Three")
    ['One.', 'Two.', 'Three']
    """
    return [sentence for sentence in re.split(r"(?<=\.)\s+", text.strip()) if sentence]
