"""A task made of one's own prompts and a function that scores responses."""

import random
from collections.abc import Callable, Sequence

from minilpo.lm.language_model import LanguageModel
from minilpo.tasks import Task, split_of
from minilpo.tasks.calling import limited


class OwnPrompts(Task):
    """Prompts from a list, rewards from a function: all that `train_lpo` needs.

    The text of a prompt decides its split, as in every task (see `split_of`).

    Args:
        prompts: texts. Of several that differ only in white space one is kept.
        reward: scores a response, any text, to a prompt: in [0, 1].
        name: of the task.
        lm: the language model. Of several prompts that are the same tokens for it one is kept.

    Raises ValueError if the prompts aren't texts.

    >>> prompts = [f"Count to {n}." for n in range(40)]
    >>> task = OwnPrompts([*prompts, "Count to  7.\\n"], lambda prompt, response: 1.0)
    >>> [len(task.of_split(split)) for split in ("train", "validation", "test")]
    [26, 7, 7]
    """

    def __init__(
        self,
        prompts: Sequence[str],
        reward: Callable[[str, str], float],
        name: str = "own_prompts",
        lm: LanguageModel | None = None,
    ):
        texts = [] if isinstance(prompts, str) else list(prompts)
        if not texts or not all(isinstance(text, str) for text in texts):
            got = f"got {str(prompts)[:60]!r}; pass a list like ['Tell me a story about a fox.']"
            raise ValueError(f"prompts must be a list of texts, {got}")
        # Else a head could be tested on a prompt that it was trained on.
        texts = list({" ".join(text.split()): text for text in texts[::-1]}.values())
        if lm is not None:
            texts = list(dict(zip(map(tuple, lm.encode(texts)), texts, strict=True)).values())
        self.name, self.prompts, self._reward = name, texts[::-1], reward

    def of_split(self, split: str) -> list[str]:
        """Selects the prompts of "train", "validation" or "test"."""
        return [prompt for prompt in self.prompts if split_of(prompt) == split]

    def prompt(self, rng: random.Random) -> str:
        return rng.choice(self.prompts)

    def reward(self, prompt: str, response: str) -> float:
        return limited(self._reward, prompt, response)
