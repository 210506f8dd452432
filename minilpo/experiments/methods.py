"""The ways to decode that `rivals` compares: rules with settings to try out, and heads to train."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import ByPlace, Fixed, Policy
from minilpo.evaluation.measure import Prompts
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.rivals.by_config import responses_per_round
from minilpo.rivals.rules import EDT, Dynatemp, Mirostat, TopNSigma
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts

TEST_SAMPLES = 4  # responses to each test prompt
LEAST_PROMPTS = 30  # training prompts of a kind; a smaller kind takes the setting of its task
JOINT = Temperatures(  # a temperature with and without min-p; for greedy both are the same
    [0.0, 0.4, 0.4, 0.8, 0.8, 1.2, 1.2], min_p=[0.0, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1]
)
NO_MIN_P = Temperatures([0.0, 0.4, 0.8, 1.2])  # the same without it
HEADS: dict[str, dict[str, Any]] = {  # learned ways, by name: their settings that aren't defaults
    "sequence: temperature head": {"level": "sequence"},
    "sequence: joint head": {"level": "sequence", "choices": JOINT},
    "token: temperature head": {"level": "token"},
    "token: joint head": {"level": "token", "choices": JOINT},
    "sequence: no min-p": {"level": "sequence", "choices": NO_MIN_P},
    "token: no min-p": {"level": "token", "choices": NO_MIN_P},
    "sequence: all pairs": {"level": "sequence", "pairs": "all"},
    "sequence: gap pairs": {"level": "sequence", "pairs": "gap"},
    "sequence: REINFORCE": {"level": "sequence", "rule": "reinforce"},
    "sequence: GRPO": {"level": "sequence", "rule": "grpo"},
    "sequence: regression": {"level": "sequence", "rule": "regression"},
    "token: Eq. 10": {"level": "token", "loss": "eq10"},  # by default it is Eq. 11
    "token: gap pairs": {"level": "token", "pairs": "gap"},
    "token: REINFORCE": {"level": "token", "rule": "reinforce"},
    "token: REINFORCE, Eq. 11": {"level": "token", "rule": "reinforce", "loss": "eq11"},
    "token: GRPO": {"level": "token", "rule": "grpo"},
    "token: regression": {"level": "token", "rule": "regression"},
}


@dataclass(frozen=True)
class Rule:
    """A way to decode that isn't learned, with the settings to try."""

    words: str  # a setting in words
    settings: list[tuple[Any, ...]]
    policy: Callable[..., Policy]  # from columns of settings: row i takes setting i modulo K
    groups: tuple[str, ...] = ("",)  # "": one setting for all prompts; or "per task", "per kind"

    def of(self, *numbers: int) -> Policy:
        """Makes the policy of some of the settings, by their numbers."""
        return self.policy(*zip(*(self.settings[k] for k in numbers), strict=True))


def rules_of(lab: Lab) -> dict[str, Rule]:
    """Lists the rules by name, with 12 settings each, or with the heads' options."""

    def rule(words: str, policy: Callable[..., Policy], *values: Sequence[Any]) -> Rule:
        return Rule(words, list(itertools.product(*values)), policy)

    def fixed(choices: Callable[..., Choices]) -> Callable[..., Policy]:
        return lambda *columns: Fixed(choices(*columns))

    def limited(name: str) -> Callable[..., Policy]:
        return fixed(lambda first, values: Temperatures(first, **{name: values}))

    def by_place(first: Sequence[float], rest: Sequence[float]) -> Policy:
        pairs = [(k, len(first) + k) for k in range(len(first))]
        return ByPlace(Temperatures([*first, *rest]), pairs, lab.lm.sentence_starts)

    constant = rule("{:g}", fixed(Temperatures), lab.config.temperatures)
    joint = [(setting.temperature, setting.min_p) for setting in JOINT.settings]
    dynatemp = (0.0,), (1.5, 2.0, 2.5, 3.5), (0.5, 1.0, 2.0)
    return {
        "constant": replace(constant, groups=("", "per task", "per kind")),
        "joint constant": Rule("{:g}, min-p {:g}", joint, limited("min_p"), ("per kind",)),
        "top-k": rule("{:g}, k {}", limited("top_k"), (0.5, 0.6, 0.7, 1.0), (5, 10, 20)),
        "top-p": rule("{:g}, p {:g}", limited("top_p"), (0.7, 1.0, 1.3), (0.3, 0.5, 0.7, 0.9)),
        "min-p": rule("{:g}, p {:g}", limited("min_p"), (0.7, 0.9, 1.5, 2.5), (0.1, 0.3, 0.6)),
        "top-n-sigma": rule("n {:g} at {:g}", fixed(TopNSigma), (0.5, 1, 1.5, 2), (0.6, 1, 1.5)),
        "EDT": rule("{:g}, theta {:g}", fixed(EDT), (0.6, 0.8, 1.0, 1.3), (0.3, 1.0, 3.0)),
        "dynatemp": rule("{:g} to {:g}, exponent {:g}", fixed(Dynatemp), *dynatemp),
        "mirostat": rule("{:g} bits, rate {:g}", Mirostat, (0.5, 1.0, 1.5, 2.5), (0.1, 0.3, 1.0)),
        "by place": rule("first {:g}, rest {:g}", by_place, (0, 0.4, 0.8), (0.4, 0.6, 0.8, 1)),
    }


def budget_of(lab: Lab) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """Computes LPO's settings for a whole and an early training, and the responses they spend.

    A whole one has a third of the reproduction's prompts: with more, so many methods would take
    longer than all other experiments together. An early one has a quarter of these in one round.
    Responses are counted after the early training and after each round of the whole one, those
    that tell which round's head is best included.
    """
    lpo, n_tasks = lab.config.lpo, len(MIXTURE)
    sizes = {"prompts": lpo.prompts // 3, "validation_prompts": lpo.validation_prompts // 3}
    whole = {name: max(1, n) for name, n in sizes.items()}
    early = {"rounds": 1, **{name: max(1, n // 4) for name, n in whole.items()}}
    settings: list[dict[str, Any]] = [early, whole]
    first, per_round = (responses_per_round(replace(lpo, **s), n_tasks) for s in settings)
    return whole, early, [first, *(per_round * (n + 1) for n in range(lpo.rounds))]


def try_out(lab: Lab, rule: Rule, n_responses: int) -> tuple[Prompts, np.ndarray]:
    """Tries all K settings on the same P training prompts: the prompts, and rewards (P, K)."""
    tasks, K = lab.tasks(MIXTURE), len(rule.settings)
    size = max(1, n_responses // (K * len(tasks))), "train"
    prompts = Prompts(mixed_prompts(tasks, *size, python_rng(lab.seed, "rivals prompts")))
    generator, every = torch_generator(lab.seed, "rivals trial"), rule.of(*range(K))
    _, rewards = respond(lab.lm, prompts.prompts, every, generator, n_samples=K)
    return prompts, rewards.double().numpy()


def part_of(prompts: Prompts, rewards: np.ndarray, n: int) -> tuple[Prompts, np.ndarray]:
    """Takes the first prompts of each task, as many of each, that took `n` responses at most."""
    names, K = prompts.names, rewards.shape[1]
    n_per_task = max(1, n // (K * len(set(names))))
    rows = [np.flatnonzero(names == name)[:n_per_task] for name in dict.fromkeys(names)]
    index = np.concatenate(rows)
    return some(prompts, index), rewards[index]


def some(prompts: Prompts, index: np.ndarray) -> Prompts:
    """Selects prompts by their places."""
    return Prompts([prompts.prompts[p] for p in index.tolist()])


def groups_of(prompts: Prompts, group: str) -> np.ndarray:
    """Names the group that each prompt belongs to, (P,): its task, its kind, or "" for all."""
    every = np.full(len(prompts.prompts), "")
    return {"": every, "per task": prompts.names, "per kind": prompts.kinds}[group]


def best_settings(prompts: Prompts, rewards: np.ndarray, group: str = "") -> dict[str, int]:
    """Finds the best setting of each group of prompts, from (P, K), by the group's name.

    Per kind, small kinds are left out and the tasks are there too.
    """
    best = best_settings(prompts, rewards, "per task") if group == "per kind" else {}
    groups = groups_of(prompts, group)
    for name in dict.fromkeys(groups.tolist()):
        own = rewards[groups == name]
        if group != "per kind" or len(own) >= LEAST_PROMPTS:
            best[name] = int(own.mean(0).argmax())
    return best


def settings_for(prompts: Prompts, best: dict[str, int], group: str = "") -> tuple[int, ...]:
    """Looks up each prompt's setting, (P,): its group's, or else its task's."""
    pairs = zip(groups_of(prompts, group).tolist(), prompts.names.tolist(), strict=True)
    return tuple(best[name if name in best else task] for name, task in pairs)


def rewards_by(lab: Lab, prompts: Prompts, policy: Policy) -> np.ndarray:
    """Measures the mean reward of `TEST_SAMPLES` responses to each of P test prompts, (P,).

    Every method draws them by the same random numbers.
    """
    generator = torch_generator(lab.seed, "rivals test")
    _, rewards = respond(lab.lm, prompts.prompts, policy, generator, n_samples=TEST_SAMPLES)
    return rewards.double().mean(1).numpy()


def rewards_of_rule(
    lab: Lab, prompts: Prompts, rule: Rule, settings: tuple[int, ...]
) -> np.ndarray:
    """Measures the same with a rule that takes the given setting for each prompt, (P,)."""
    rewards = np.zeros(len(settings))
    for k in set(settings):
        rows = np.flatnonzero(np.array(settings) == k)
        rewards[rows] = rewards_by(lab, some(prompts, rows), rule.of(k))
    return rewards
