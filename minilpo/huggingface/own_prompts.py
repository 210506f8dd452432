"""A task made of one's own prompts and a function that scores responses."""

import random
from collections.abc import Callable, Sequence

from minilpo.tasks import Task, split_of
from minilpo.tasks.calling import limited


class OwnPrompts(Task):
    """Prompts from a list, rewards from a function: what `train_lpo` needs.

    The prompts are split as those of every task, by their text alone: two thirds are for training,
    a tenth for choosing the best head, and a quarter is left to test on, see `of_split`.

    Args:
        prompts: texts; one that is there twice counts once.
        reward: scores a response, any text, to a prompt: in [0, 1].
        name: of the task.

    Raises:
        ValueError: if they aren't texts, or a split would be empty.

    >>> task = OwnPrompts([f"Count to {n}." for n in range(40)], lambda prompt, response: 1.0)
    >>> [len(task.of_split(split)) for split in ("train", "validation", "test")]
    [26, 7, 7]
    """

    def __init__(
        self, prompts: Sequence[str], reward: Callable[[str, str], float], name: str = "own_prompts"
    ):
        texts = [] if isinstance(prompts, str) else list(prompts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"prompts must be a list of texts, got {str(prompts)[:60]!r}; "
                "pass a list like ['Tell me a story about a fox.']"
            )
        self.name = name
        self.prompts, self._reward = list(dict.fromkeys(texts)), reward
        for split in ("train", "validation"):
            if not self.of_split(split):
                raise ValueError(
                    f"prompts must be enough for every split, but of {len(self.prompts)} different "
                    f"ones none falls into the {split} split; pass more (100 or so)"
                )

    def of_split(self, split: str) -> list[str]:
        """Selects the prompts of the "train", the "validation" or the "test" split."""
        return [prompt for prompt in self.prompts if split_of(prompt) == split]

    def prompt(self, rng: random.Random) -> str:
        """Draws one prompt."""
        return rng.choice(self.prompts)

    def reward(self, prompt: str, response: str) -> float:
        """Scores any text by the function, which has the time limit of every task's code."""
        return limited(self._reward, prompt, response)
