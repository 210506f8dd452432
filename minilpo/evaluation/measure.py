"""Measures fixed temperatures, the head, random choices and simple rules: writes and scores.

P prompts, K options, N responses of each kind to a prompt. A single response says little about its
prompt, so means are over all N; the uncertainty of a mean comes from the prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import EvaluationConfig
from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.generate import Respond, generate, respond
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, Policy, SampledHead
from minilpo.decoding.rollout import Rollout
from minilpo.lm.language_model import LanguageModel
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Prompt, Task, kind_of, mixed_prompts, offers


@dataclass(frozen=True)
class Prompts:
    """The prompts of one split."""

    prompts: list[Prompt]  # P

    @property
    def texts(self) -> list[str]:
        """Lists the texts of the P prompts."""
        return [prompt.text for prompt in self.prompts]

    @property
    def tasks(self) -> list[Task]:
        """Lists the tasks of the P prompts."""
        return [prompt.task for prompt in self.prompts]

    @property
    def names(self) -> np.ndarray:
        """Lists the name of each prompt's task, (P,)."""
        return np.array([task.name for task in self.tasks])

    @property
    def kinds(self) -> np.ndarray:
        """Lists the kind of each prompt, (P,), as its task names it."""
        return np.array([kind_of(prompt.task, prompt.text) for prompt in self.prompts])

    def of(self, task: Task) -> "Prompts":
        """Selects the prompts of one task."""
        return Prompts([prompt for prompt in self.prompts if prompt.task.name == task.name])


@dataclass(frozen=True)
class Measured(Prompts):
    """N responses by every fixed option to each prompt."""

    fixed: Rollout
    places: np.ndarray  # (K, N) which of a prompt's responses in `fixed` is number n by option k
    fixed_samples: np.ndarray  # (P, K, N) the reward of each

    @property
    def fixed_rewards(self) -> np.ndarray:
        """Averages an option's rewards over the responses to a prompt, (P, K)."""
        return self.fixed_samples.mean(-1)

    def fixed_rows(self, prompts: np.ndarray, k: int) -> np.ndarray:
        """Lists the rows of `fixed` with option k's responses to some prompts, (n,), each once."""
        return (prompts[:, None] * self.fixed.n_samples + np.unique(self.places[k])).ravel()


@dataclass(frozen=True)
class Compared(Measured):
    """`Measured`, and N responses with the head and N at random to each prompt."""

    adaptive: Rollout  # by the head's most likely choices (Eq. 4)
    adaptive_samples: np.ndarray  # (P, N) the reward of each
    random_rewards: np.ndarray  # (P,) by choices drawn evenly, the mean of N

    @property
    def adaptive_rewards(self) -> np.ndarray:
        """Averages the head's rewards over its responses to a prompt, (P,)."""
        return self.adaptive_samples.mean(-1)

    def adaptive_rows(self, prompts: np.ndarray) -> np.ndarray:
        """Lists the rows of `adaptive` with all responses to some prompts, (n * N,)."""
        N = self.adaptive.n_samples
        return (prompts[:, None] * N + np.arange(N)).ravel()


def prompts_to_measure(
    tasks: Sequence[Task], split: str, config: EvaluationConfig, seed: int
) -> Prompts:
    """Draws the prompts of one split ("train", "test" or "ood") that `evaluate` uses."""
    n = {"train": config.selection_prompts, "test": config.test_prompts, "ood": config.ood_prompts}
    if split == "ood":
        tasks = [task for task in tasks if offers(task, "ood_prompt")]
    rng = python_rng(seed, f"evaluation prompts {split}")
    return Prompts(mixed_prompts(tasks, n[split], split, rng))


def layout(choices: Choices, n_samples: int) -> tuple[list[int], np.ndarray]:
    """Assigns an option to each response of a prompt, and N responses to each option.

    An option that always writes the same writes once, and that response counts as all of its N:
    so greedy decoding costs one response however many samples are asked for.

    Returns:
        The option of each response, and (K, N) places in that list.

    >>> layout(Temperatures([0.0, 0.5, 1.0]), 2)
    ([0, 1, 1, 2, 2], array([[0, 0],
           [1, 2],
           [3, 4]]))
    """
    order: list[int] = []
    places = []
    for k, always_the_same in enumerate(choices.deterministic):
        n_written = 1 if always_the_same else n_samples
        places.append(len(order) + np.arange(n_samples) % n_written)
        order += [k] * n_written
    return order, np.stack(places)


def measure_fixed(
    lm: LanguageModel,
    prompts: Prompts,
    choices: Choices,
    generator: torch.Generator,
    n_samples: int = 1,
    respond: Respond = respond,
) -> Measured:
    """Writes and scores `n_samples` responses by every option to every prompt, see `layout`."""
    order, places = layout(choices, n_samples)
    every = Fixed(choices, order)
    rollout, rewards = respond(lm, prompts.prompts, every, generator, n_samples=len(order))
    samples = rewards.double().numpy()[:, places]  # (P, K, N)
    return Measured(prompts.prompts, rollout, places, samples)


def measure_policy(
    lm: LanguageModel,
    prompts: Prompts,
    policy: Policy,
    generator: torch.Generator,
    n_samples: int = 1,
    respond: Respond = respond,
) -> tuple[Rollout, np.ndarray]:
    """Writes responses by a policy to each prompt: the responses, and their rewards, (P, N)."""
    # With few responses to each, more prompts than usual are written together.
    options = {"n_samples": n_samples, "rows_per_batch": 256}
    rollout, rewards = respond(lm, prompts.prompts, policy, generator, **options)
    return rollout, rewards.double().numpy()


def compare(
    lm: LanguageModel,
    prompts: Prompts,
    policy: GreedyHead,
    generator: torch.Generator,
    n_samples: int = 1,
    respond: Respond = respond,
) -> Compared:
    """Writes and scores by every option, by the head, and by choices drawn evenly.

    At sequence level nothing more is written than by every option: see `chosen_among`.
    """
    fixed = measure_fixed(lm, prompts, policy.choices, generator, n_samples, respond)
    if policy.level == "sequence":
        adaptive, samples = chosen_among(lm, fixed, policy, generator)
        # Drawn evenly, a choice gets the mean reward of all.
        random_samples = fixed.fixed_rewards
    else:
        options = generator, n_samples, respond
        adaptive, samples = measure_policy(lm, prompts, policy, *options)
        at_random = evenly(policy.head, policy.choices)
        _, random_samples = measure_policy(lm, prompts, at_random, *options)
    return Compared(
        **vars(fixed),
        adaptive=adaptive,
        adaptive_samples=samples,
        random_rewards=random_samples.mean(-1),
    )


def chosen_among(
    lm: LanguageModel, fixed: Measured, policy: GreedyHead, generator: torch.Generator
) -> tuple[Rollout, np.ndarray]:
    """Looks up the responses of a head that chooses once: its option has already written them.

    They are its own as well as any that would be written anew, and where it takes the constant that
    it is compared with, no luck of drawing comes between the two.

    Returns:
        N responses to each prompt, and their rewards, (P, N).
    """
    asked = generate(lm, fixed.texts, policy, generator, max_new_tokens=1)
    choice_ids, every = asked.decisions.choice_ids[:, 0].numpy(), np.arange(len(fixed.prompts))
    rows = every[:, None] * fixed.fixed.n_samples + fixed.places[choice_ids]  # (P, N)
    chosen = fixed.fixed.rows(torch.from_numpy(rows.ravel()), n_samples=rows.shape[1])
    return chosen, fixed.fixed_samples[every, choice_ids]


def evenly(head: AdaptiveDecoder, choices: Choices) -> SampledHead:
    """Makes a policy that draws every option equally often: an untrained head of the same level."""
    # Its last layer is zero, so one hidden unit is as good as many.
    untrained = AdaptiveDecoder(head.n_embd, len(choices), head.level, n_hidden=1)
    return SampledHead(untrained.to(next(head.parameters()).device), choices)


@torch.no_grad()
def learned_constant(constant_head: AdaptiveDecoder) -> int:
    """Returns the index of the option that a head without input finds most likely."""
    return int(constant_head(torch.zeros(constant_head.n_embd)).argmax())


@dataclass(frozen=True)
class TwoTemperatures:
    """The search for the best rule of two: one for a sentence's first word, one for the rest."""

    lm: LanguageModel
    choices: Temperatures
    selection: Prompts  # of one task
    test: Prompts
    seed: int
    n_samples: int = 1  # per test prompt
    respond: Respond = respond

    def search(self) -> dict[str, Any]:
        """Finds the two temperatures, and the rule's mean reward on test prompts."""
        name, K = self.selection.prompts[0].task.name, len(self.choices)
        generator = torch_generator(self.seed, f"two temperatures {name}")

        def rewards(prompts: Prompts, pairs: list[tuple[int, int]]) -> np.ndarray:
            """Writes a response to each prompt by each rule; returns the rewards, (P, n_pairs)."""
            rule, n = ByPlace(self.choices, pairs, self.lm.sentence_starts), len(pairs)
            _, scores = self.respond(self.lm, prompts.prompts, rule, generator, n_samples=n)
            return scores.double().numpy()

        # The best pair is chosen here, on selection prompts, and only then scored on others.
        pairs = [(first, rest) for first in range(K) for rest in range(K)]
        first, rest = pairs[int(rewards(self.selection, pairs).mean(0).argmax())]
        reward = rewards(self.test, [(first, rest)] * self.n_samples).mean()
        temperatures, names = self.choices.temperatures, self.choices.names
        return {
            "first": temperatures[first],
            "rest": temperatures[rest],
            "first_name": names[first],
            "rest_name": names[rest],
            "reward": float(reward),
        }
