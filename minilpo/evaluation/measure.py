"""What is measured: fixed temperatures, the head, random choices and simple rules, all scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import EvaluationConfig
from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, Policy, SampledHead
from minilpo.decoding.rollout import Rollout, score
from minilpo.lm.language_model import LanguageModel
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Task, mixed_prompts, offers

Tell = Callable[[int], object] | None  # is told how many responses were written


@dataclass(frozen=True)
class Prompts:
    """The prompts of one split, with their tasks."""

    task_of: list[Task]  # P
    prompts: list[str]  # P

    @property
    def names(self) -> np.ndarray:
        """(P,) the name of each prompt's task."""
        return np.array([task.name for task in self.task_of])

    def of(self, task: Task) -> "Prompts":
        """Those of one task."""
        pairs = zip(self.prompts, self.task_of, strict=True)
        prompts = [prompt for prompt, of_prompt in pairs if of_prompt.name == task.name]
        return Prompts([task] * len(prompts), prompts)


@dataclass(frozen=True)
class Measured(Prompts):
    """One response at every fixed option to each prompt."""

    fixed: Rollout  # K responses per prompt, response k by option k
    fixed_rewards: np.ndarray  # (P, K)


@dataclass(frozen=True)
class Compared(Measured):
    """The same, and one response with the head and one at random to each prompt."""

    adaptive: Rollout  # by the head's most likely choices (Eq. 4)
    adaptive_rewards: np.ndarray  # (P,)
    random_rewards: np.ndarray  # (P,) by choices drawn evenly


def prompts_to_measure(
    tasks: Sequence[Task], split: str, config: EvaluationConfig, seed: int
) -> Prompts:
    """The prompts of one split ("train", "test" or "ood") that `evaluate` uses."""
    n_per_task = {
        "train": config.selection_prompts,
        "test": config.test_prompts,
        "ood": config.ood_prompts,
    }
    if split == "ood":
        tasks = [task for task in tasks if offers(task, "ood_prompt")]
    rng = python_rng(seed, f"evaluation prompts {split}")
    return Prompts(*mixed_prompts(tasks, n_per_task[split], split, rng))


def measure_fixed(
    lm: LanguageModel,
    prompts: Prompts,
    choices: Choices,
    generator: torch.Generator,
    tell: Tell = None,
) -> Measured:
    """Writes and scores one response by every option to every prompt."""
    texts, every = prompts.prompts, Fixed(choices)
    rollout = generate(lm, texts, every, generator, n_samples=len(choices), progress=tell)
    rewards = score(rollout, prompts.task_of).double().numpy()
    return Measured(prompts.task_of, prompts.prompts, rollout, rewards)


def measure_policy(
    lm: LanguageModel,
    prompts: Prompts,
    policy: Policy,
    generator: torch.Generator,
    tell: Tell = None,
) -> tuple[Rollout, np.ndarray]:
    """Writes one response by a policy to each prompt: the responses, and their rewards, (P,)."""
    rollout = generate(lm, prompts.prompts, policy, generator, progress=tell)
    return rollout, score(rollout, prompts.task_of)[:, 0].double().numpy()


def compare(
    lm: LanguageModel,
    prompts: Prompts,
    policy: GreedyHead,
    generator: torch.Generator,
    tell: Tell = None,
) -> Compared:
    """Writes and scores by every option, by the head, and by choices drawn evenly."""
    fixed = measure_fixed(lm, prompts, policy.choices, generator, tell)
    adaptive, rewards = measure_policy(lm, prompts, policy, generator, tell)
    at_random = evenly(policy.head, policy.choices)
    _, random_rewards = measure_policy(lm, prompts, at_random, generator, tell)
    return Compared(
        **vars(fixed), adaptive=adaptive, adaptive_rewards=rewards, random_rewards=random_rewards
    )


def evenly(head: AdaptiveDecoder, choices: Choices) -> SampledHead:
    """A policy that draws every option equally often, at the head's level: an untrained head."""
    # Its last layer is zero, so one hidden unit is as good as many.
    return SampledHead(AdaptiveDecoder(head.n_embd, len(choices), head.level, n_hidden=1), choices)


@torch.no_grad()
def learned_constant(constant_head: AdaptiveDecoder) -> int:
    """The index of the option that a head without input finds most likely."""
    return int(constant_head(torch.zeros(constant_head.n_embd)).argmax())


@dataclass(frozen=True)
class TwoTemperatures:
    """The search for the best rule of two: one for a sentence's first word, one for the rest.

    All pairs are tried on selection prompts; the best is scored on test prompts.
    """

    lm: LanguageModel
    choices: Temperatures
    selection: Prompts  # of one task
    test: Prompts
    seed: int

    @property
    def n_responses(self) -> int:
        """How many responses it writes."""
        return len(self.choices) ** 2 * len(self.selection.prompts) + len(self.test.prompts)

    def search(self, tell: Tell = None) -> dict[str, Any]:
        """The two temperatures and the rule's mean reward on test prompts."""
        name = self.selection.task_of[0].name
        generator, K = torch_generator(self.seed, f"two temperatures {name}"), len(self.choices)
        pairs = [(first, rest) for first in range(K) for rest in range(K)]
        rewards = self._rewards(self.selection, pairs, generator, tell)  # (P, K * K)
        # The best pair is chosen here, on selection prompts, and only then scored on others.
        first, rest = pairs[int(rewards.mean(0).argmax())]
        reward = self._rewards(self.test, [(first, rest)], generator, tell).mean().item()
        temperatures = self.choices.temperatures
        return {"first": temperatures[first], "rest": temperatures[rest], "reward": reward}

    def _rewards(
        self, prompts: Prompts, pairs: list[tuple[int, int]], generator: torch.Generator, tell: Tell
    ) -> torch.Tensor:
        rule = ByPlace(self.choices, pairs, self.lm.sentence_starts)
        n_samples, texts = len(pairs), prompts.prompts
        rollout = generate(self.lm, texts, rule, generator, n_samples=n_samples, progress=tell)
        return score(rollout, prompts.task_of)  # (P, n_pairs)
