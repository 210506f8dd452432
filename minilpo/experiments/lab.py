"""The language model, heads and measurements that the experiments of one seed share.

Each is made once, whichever experiments run, under a key of the settings that it depends on.
Language models and heads are also kept on disk, so an interrupted reproduction goes on there.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import MOST_PAIRS, LPOConfig, RunConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.policies import GreedyHead, Policy, SampledHead
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.measure import Measured, measure_fixed, measure_policy, prompts_to_measure
from minilpo.evaluation.summary import best_constants
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.machine.device import CPU
from minilpo.machine.files import Record, must_hold, tensor_bytes, tensors_of
from minilpo.rivals.by_config import training_of
from minilpo.run import processes
from minilpo.run.begin import create_run
from minilpo.run.folder import Run
from minilpo.run.steps import pretrain_step
from minilpo.seeds import torch_generator
from minilpo.tasks import MAIN, Task

MIXTURE = tuple(task.name for task in MAIN)
OTHER = "put it back as it was, or choose another folder"


@dataclass(frozen=True)
class Head:
    """A trained head, the constant control trained beside it, and the log of the training."""

    head: AdaptiveDecoder
    constant: AdaptiveDecoder
    choices: Choices
    log: list[dict[str, Any]]
    best_after: list[dict[str, Tensor]]  # after each round, the weights of the best head so far

    def after(self, n_rounds: int) -> GreedyHead:
        """Makes the greedy head that a training of so many rounds would have kept."""
        head = copy.deepcopy(self.head)
        head.load_state_dict(self.best_after[n_rounds - 1])
        return GreedyHead(head, self.choices)

    @property
    def greedy(self) -> GreedyHead:
        """The head that takes its most likely choice."""
        return GreedyHead(self.head, self.choices)

    @property
    def sampled(self) -> SampledHead:
        """The head that draws a choice."""
        return SampledHead(self.head, self.choices)


class Lab:
    """All that belongs to one seed.

    Args:
        folder: the cache of all seeds.
        config: where all experiments start from; its seed is the lab's, its tasks are the corpus.
        device: where the heads are trained.
    """

    def __init__(self, folder: Path, config: RunConfig, device: torch.device = CPU):
        self.config, self.seed, self.device = config, config.seed, device
        sections = {"model": asdict(config.model), "pretrain": asdict(config.pretrain)}
        key = key_of({"tasks": config.tasks, **sections})
        self.folder = folder / f"seed_{config.seed}_{key}"
        self._measured: dict[str, Measured] = {}

    @cached_property
    def run(self) -> Run:
        """The run folder of the language model, which is trained at the first use."""
        Record(self.folder / "language_model", OTHER).settle()
        asked = self.folder / "language_model", self.config
        run = create_run(*asked, compare=("model", "pretrain"))
        run.device = self.device
        pretrain_step(run)
        return run

    @cached_property
    def lm(self) -> GPTLanguageModel:
        """The pretrained language model, frozen."""
        return self.run.language_model()

    def apart(self, task: str, steps: int, demonstrations: int, **settings: Any) -> "Lab":
        """Makes a lab of the same seed, whose language model learns one task alone.

        Its pretraining has so many `steps` and `demonstrations`, or the corpus's if these are
        fewer. `settings` replace others of the `RunConfig`.
        """
        whole = self.config.pretrain
        less = {"steps": steps, "demonstrations": demonstrations}
        less = {name: min(n, getattr(whole, name)) for name, n in less.items()}
        settings |= {"tasks": (task,), "pretrain": replace(whole, **less)}
        return Lab(self.folder.parent, replace(self.config, **settings), self.device)

    def tasks(self, names: Sequence[str]) -> list[Task]:
        """Selects tasks of the corpus by name."""
        return [task for task in self.run.tasks if task.name in names]

    def head(
        self,
        level: str = "sequence",
        tasks: Sequence[str] = MIXTURE,
        choices: Choices | None = None,
        **settings: Any,
    ) -> Head:
        """Trains a head by the reproduction's settings, but for those given, or reads it.

        By default it learns from as many prompts per task as the mixture's head. A gradient step
        has the pairs of as many prompts whichever pairs are formed.
        """
        choices = choices or Temperatures(self.config.temperatures)
        prompts = max(1, self.config.lpo.prompts * len(tasks) // len(MIXTURE))
        settings = {"loss": "default", "prompts": prompts, **settings}
        lpo = replace(self.config.lpo, **settings)
        lpo = replace(lpo, pairs_per_batch=pairs_per_batch(lpo)).resolved(level)
        asked = {"level": level, "tasks": tasks, "choices": choices.names, "lpo": asdict(lpo)}
        name = f"head_{key_of(asked)}.pt"
        shape = self.run.config.model.n_embd, len(choices), level, lpo.n_hidden
        init = [torch_generator(self.seed, "head") for _ in range(2)]
        head = AdaptiveDecoder(*shape, init[0]).to(self.device)
        constant = ConstantHead(*shape, init[1]).to(self.device)
        record = Record(self.folder, OTHER)
        if not record.holds(name):
            best_after = []
            train, fit, state = training_of(self.lm, head, lpo)
            state.callbacks.append(fit_constant(constant, lpo, self.seed, fit))
            state.callbacks.append(lambda state, *_: best_after.append(state.best["head"]))
            by = head, choices, lpo, self.seed, state, processes.respond
            log = train(self.lm, self.tasks(tasks), *by)
            weights = {"head": head.state_dict(), "constant": constant.state_dict()}
            data = tensor_bytes({**weights, "log": log, "best_after": best_after})
            record.commit({name: (None, {name: data})})
        # A head that was just trained is read, too: it is the same after an interruption.
        data = record.read(name, OTHER)
        with must_hold(self.folder / name, "a head of these settings", OTHER):
            content = tensors_of(data)
            head.load_state_dict(content["head"])
            constant.load_state_dict(content["constant"])
            heads = head.requires_grad_(False), constant.requires_grad_(False)
            return Head(*heads, choices, content["log"], content["best_after"])

    def fixed(
        self, split: str, tasks: Sequence[str] = MIXTURE, temperatures: Sequence[float] = ()
    ) -> Measured:
        """Measures one response at each fixed temperature to each prompt.

        The prompts are those of a split: "train" for choosing, "test" for scoring.
        """
        temperatures = tuple(temperatures or self.config.temperatures)
        name = f"fixed {split} {tasks} {temperatures}"
        if name not in self._measured:
            of_split = self.tasks(tasks), split, self.config.evaluation, self.seed
            asked = self.lm, prompts_to_measure(*of_split), Temperatures(temperatures)
            generator = torch_generator(self.seed, name)
            self._measured[name] = measure_fixed(*asked, generator, respond=processes.respond)
        return self._measured[name]

    def constant_rewards(self, tasks: Sequence[str] = MIXTURE) -> np.ndarray:
        """Looks up test rewards at the one temperature that is best on training prompts, (P,)."""
        constant, _ = best_constants(self.fixed("train", tasks))
        return self.fixed("test", tasks).fixed_rewards[:, constant]

    def rewards_at(self, task: str) -> dict[str, Any]:
        """Averages a task's test rewards at each fixed temperature, and at the best constant."""
        fixed = self.fixed("test", (task,)).fixed_rewards.mean(0).tolist()
        return {"fixed": fixed, "best_constant": float(self.constant_rewards((task,)).mean())}

    def adaptive(self, policy: Policy, measured: Measured) -> tuple[Rollout, np.ndarray]:
        """Writes one response by a policy to each measured prompt; the rewards are (P,).

        The random numbers depend on its level and on whether it is greedy or draws its choices.
        """
        how = "greedy" if isinstance(policy, GreedyHead) else "sample"
        generator = torch_generator(self.seed, f"adaptive {policy.level} {how}")
        asked = self.lm, measured, policy, generator, 1, processes.respond
        rollout, rewards = measure_policy(*asked)
        return rollout, rewards[:, 0]


def pairs_per_batch(lpo: LPOConfig) -> int:
    """Computes the pairs of a gradient step that come from equally many prompts for every rule.

    A rule that forms all pairs of a prompt would take up to N (N - 1) / 2 times as many steps.

    >>> pairs_per_batch(LPOConfig()), pairs_per_batch(LPOConfig(pairs="gap"))
    (64, 7680)
    """
    per_prompt = lpo.samples * (lpo.samples - 1) // 2 if lpo.pairs in ("all", "gap") else 1
    return min(lpo.pairs_per_batch * per_prompt, MOST_PAIRS)


def key_of(settings: Any) -> str:
    """Computes a short name for settings: the same for the same, others for others.

    >>> key_of({"a": 1, "b": (2,)}) == key_of({"b": [2], "a": 1}), len(key_of({}))
    (True, 12)
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
