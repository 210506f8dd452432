"""A task: prompts, demonstrations and rewards, by program. Text in, text out."""

import random
from typing import Any


class Task:
    """A task has a name and three methods; six more members may be overridden.

    It never sees token ids, temperatures or the model. All randomness must come from the `rng` that
    is passed: the same seed then draws the same texts, and a run can be resumed. `calling.REQUIRED`
    says for each member what it must be or return.

    >>> class Echo(Task):
    ...     name = "echo"
    ...     def prompt(self, rng: random.Random) -> str:
    ...         return "Say " + rng.choice(["yes", "no"])
    ...     def demonstration(self, prompt: str, rng: random.Random) -> str:
    ...         return prompt.split()[-1]
    ...     def reward(self, prompt: str, response: str) -> float:
    ...         return float(response == prompt.split()[-1])
    >>> Echo().reward("Say yes", "yes"), Echo().kind("Say yes"), offers(Echo(), "ood_prompt")
    (1.0, 'echo', False)
    """

    name: str

    def prompt(self, rng: random.Random) -> str:
        """Draws one prompt."""
        raise NotImplementedError

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Draws one response that the language model learns to imitate; it may contain mistakes."""
        raise NotImplementedError

    def reward(self, prompt: str, response: str) -> float:
        """Scores any text, however broken, in [0, 1]."""
        raise NotImplementedError

    # These may be left as they are.

    corpus_weight: float = 1
    """Its share of the demonstrations, in relation to others: more where it has more to teach."""

    quality: str = ""
    constraint: str = ""
    """The names of two parts, for a task with a rule to keep: `preferences.constrained_pairs`."""

    def kind(self, prompt: str) -> str:
        """Names the sort of a prompt, by which numbers are reported; by default the task's name."""
        return self.name

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Computes the named parts of the reward, if it has any."""
        return {}

    def knows(self, prompt: str) -> bool:
        """Tells whether a prompt is one of this task: then `minilpo sample` shows the reward."""
        return False

    def ood_prompt(self, rng: random.Random) -> str:
        """Draws a prompt whose wording or subject never occurs in training, if it has any."""
        raise NotImplementedError


MEMBERS = ("name", "prompt", "demonstration", "reward")  # that every task must have


def offers(task: Any, member: str) -> bool:
    """Tells whether a task, or a class of tasks, has a member of its own, not `Task`'s default."""
    default = getattr(Task, member, None)
    found = getattr(task, member, default)
    return getattr(found, "__func__", found) is not default
