"""What the experiments share: one language model per seed, its heads, and what was measured.

Everything is kept under a key made of the settings it depends on: in memory, and what takes long
(language models and heads) on disk too. So each is made once, whichever experiments run, and an
interrupted reproduction goes on where it stopped.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import MOST_PAIRS, LPOConfig, RunConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.choices import Temperatures
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
from minilpo.training import TrainState

MIXTURE = tuple(task.name for task in MAIN)
Made = TypeVar("Made")
OTHER = "put it back as it was, or choose another folder"


@dataclass(frozen=True)
class Head:
    """A trained head, the constant control trained beside it, and the log of the training."""

    head: AdaptiveDecoder
    constant: AdaptiveDecoder
    choices: Temperatures
    log: list[dict[str, Any]]
    best_after: list[dict[str, Tensor]]  # round by round, the weights of the best head until then

    def after(self, n_rounds: int) -> GreedyHead:
        """The head that a training of so many rounds would have kept, greedily."""
        head = copy.deepcopy(self.head)
        head.load_state_dict(self.best_after[n_rounds - 1])
        return GreedyHead(head, self.choices)

    @cached_property
    def greedy(self) -> GreedyHead:
        """The head that takes its most likely choice."""
        return GreedyHead(self.head, self.choices)

    @cached_property
    def sampled(self) -> SampledHead:
        """The head that draws a choice."""
        return SampledHead(self.head, self.choices)


class Lab:
    """All that belongs to one seed. Language models and heads are kept in `folder`.

    All experiments start from `config`: its seed is that of the lab, its tasks are the corpus.
    """

    def __init__(self, folder: Path, config: RunConfig, device: torch.device = CPU):
        self.config, self.seed, self.device = config, config.seed, device
        settings = {
            "tasks": config.tasks,
            "model": asdict(config.model),
            "pretrain": asdict(config.pretrain),
        }
        self.folder = folder / f"seed_{config.seed}_{key_of(settings)}"
        self._made: dict[str, Any] = {}

    @cached_property
    def run(self) -> Run:
        """The run folder of the language model, which is trained when it is first asked for."""
        path = self.folder / "language_model"
        Record(path, OTHER).settle()
        run = create_run(path, self.config, compare=("model", "pretrain"))
        run.device = self.device
        pretrain_step(run)
        return run

    @cached_property
    def lm(self) -> GPTLanguageModel:
        """The pretrained language model, frozen."""
        return self.run.language_model()

    def apart(self, task: str, steps: int, demonstrations: int, **settings: Any) -> "Lab":
        """A lab of the same seed, whose language model learns one task alone.

        Its pretraining has so many `steps` and `demonstrations`, or those of the whole corpus if
        these are fewer. `settings` are more of the `RunConfig` that are others than here.
        """
        whole = self.config.pretrain
        less = min(steps, whole.steps), min(demonstrations, whole.demonstrations)
        pretrain = replace(whole, steps=less[0], demonstrations=less[1])
        config = replace(self.config, tasks=(task,), pretrain=pretrain, **settings)
        return Lab(self.folder.parent, config, self.device)

    def tasks(self, names: Sequence[str]) -> list[Task]:
        """Tasks of the corpus, by name."""
        return [task for task in self.run.tasks if task.name in names]

    def head(
        self,
        level: str = "sequence",
        tasks: Sequence[str] = MIXTURE,
        temperatures: Sequence[float] | None = None,
        choices: Temperatures | None = None,
        **settings: Any,
    ) -> Head:
        """A head trained by LPO, with the settings of the reproduction but for those given.

        It chooses among `choices`, or among temperatures alone: those given, or the reproduction's.
        Unless told otherwise it learns from as many prompts of each task as that of the mixture.
        """
        choices = choices or Temperatures(temperatures or self.config.temperatures)
        prompts = max(1, self.config.lpo.prompts * len(tasks) // len(MIXTURE))
        settings = {"loss": "default", "prompts": prompts, **settings}
        lpo = replace(self.config.lpo, **settings).resolved(level)
        options = {"temperatures": choices.temperatures, "rules": choices.rules.tolist()}
        key = key_of({"level": level, "tasks": tasks, **options, "lpo": asdict(lpo)})
        train = partial(self._train_head, key, level, tasks, choices, lpo)
        return self._once(f"head {key}", train)

    def new_heads(self, K: int, level: str, n_hidden: int) -> tuple[AdaptiveDecoder, ConstantHead]:
        """An untrained head for K choices, and the constant control."""
        shape = self.run.config.model.n_embd, K, level, n_hidden
        head = AdaptiveDecoder(*shape, torch_generator(self.seed, "head"))
        constant = ConstantHead(*shape, torch_generator(self.seed, "head"))
        return head.to(self.device), constant.to(self.device)

    def _train_head(
        self, key: str, level: str, tasks: Sequence[str], choices: Temperatures, lpo: LPOConfig
    ) -> Head:
        K, name = len(choices), f"head_{key}.pt"
        record = Record(self.folder, OTHER)
        head, constant = self.new_heads(K, level, lpo.n_hidden)
        if record.holds(name):
            data = record.read(name, OTHER)
            with must_hold(self.folder / name, "a head of these settings", OTHER):
                content = tensors_of(data)
                head.load_state_dict(content["head"])
                constant.load_state_dict(content["constant"])
                log, best_after = content["log"], content["best_after"]
        else:
            best_after = []

            def keep(state: TrainState, *_: object) -> None:
                best_after.append(state.best["head"])

            train, fit, state = training_of(self.lm, head, lpo)
            state.callbacks += [fit_constant(constant, lpo, self.seed, fit), keep]
            of_tasks = self.lm, self.tasks(tasks), head, choices, lpo, self.seed
            log = train(*of_tasks, state, processes.respond)
            weights = {"head": head.state_dict(), "constant": constant.state_dict()}
            data = tensor_bytes({**weights, "log": log, "best_after": best_after})
            record.commit({f"head {key}": (None, {name: data})})
        head, constant = head.requires_grad_(False), constant.requires_grad_(False)
        return Head(head, constant, choices, log, best_after)

    def fixed(
        self,
        split: str,
        tasks: Sequence[str] = MIXTURE,
        temperatures: Sequence[float] | None = None,
    ) -> Measured:
        """One response at each fixed temperature to each prompt.

        The prompts are those of a split: "train" for choosing, "test" for scoring.
        """
        temperatures = tuple(temperatures or self.config.temperatures)
        name = f"fixed {split} {tasks} {temperatures}"

        def measure() -> Measured:
            evaluation = self.config.evaluation
            prompts = prompts_to_measure(self.tasks(tasks), split, evaluation, self.seed)
            generator = torch_generator(self.seed, name)
            choices = Temperatures(temperatures)
            return measure_fixed(self.lm, prompts, choices, generator, respond=processes.respond)

        return self._once(name, measure)

    def constant_rewards(self, tasks: Sequence[str] = MIXTURE) -> np.ndarray:
        """Test rewards at the one temperature that is best on the training prompts, (P,)."""
        constant, _ = best_constants(self.fixed("train", tasks))
        return self.fixed("test", tasks).fixed_rewards[:, constant]

    def adaptive(self, policy: Policy, measured: Measured) -> tuple[Rollout, np.ndarray]:
        """One response by a policy to each of the prompts that were measured; the rewards, (P,).

        The random numbers depend on its level and on whether it is greedy or draws its choices.
        """
        how = "greedy" if isinstance(policy, GreedyHead) else "sample"

        def measure() -> tuple[Policy, Measured, Rollout, np.ndarray]:
            generator = torch_generator(self.seed, f"adaptive {policy.level} {how}")
            asked = self.lm, measured, policy, generator
            rollout, rewards = measure_policy(*asked, respond=processes.respond)
            # The first two are kept so that no others get their ids.
            return policy, measured, rollout, rewards[:, 0]

        return self._once(f"adaptive {id(policy)} {id(measured)}", measure)[2:]

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def pairs_per_batch(lpo: LPOConfig, pairs: str, samples: int) -> int:
    """Pairs of a gradient step that come from as many prompts, whichever pairs are formed.

    A rule that forms all pairs of a prompt would take up to N (N - 1) / 2 times as many steps.

    >>> pairs_per_batch(LPOConfig(), "best_worst", 16), pairs_per_batch(LPOConfig(), "gap", 16)
    (64, 7680)
    """
    per_prompt = samples * (samples - 1) // 2 if pairs in ("all", "gap") else 1  # at most
    return min(lpo.pairs_per_batch * per_prompt, MOST_PAIRS)


def key_of(settings: Any) -> str:
    """A short name for settings: the same for the same, different for different ones.

    >>> key_of({"a": 1, "b": (2,)}) == key_of({"b": [2], "a": 1}), len(key_of({}))
    (True, 12)
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
