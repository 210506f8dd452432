"""What the experiments share: one language model a seed, its heads, and what was measured at fixed temperatures.

Everything is kept under a key made of the settings it depends on: in memory, and what takes long (language models and heads) on
disk too. So each is made once, whichever experiments run, and an interrupted reproduction goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import LPOConfig, RunConfig
from minilpo.evaluation import Measured, measure_fixed, measure_head
from minilpo.files import load_tensors, misfit, save_tensors, tidy
from minilpo.lpo import train_lpo
from minilpo.model import GPT
from minilpo.rollout import Rollout
from minilpo.run import Run, lpo_log_form, pretrain_step
from minilpo.seeds import torch_generator
from minilpo.tasks import MAIN, TASKS, Task
from minilpo.threads import Threads
from minilpo.tokenizer import Tokenizer

MIXTURE = tuple(task.name for task in MAIN)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Head:
    """A trained head, the constant control trained beside it, and the log of the training."""

    head: AdaptiveDecoder
    constant: AdaptiveDecoder
    log: list[dict[str, Any]]


class Lab:
    """All that belongs to one seed.

    Args:
        folder: where language models and heads are kept.
        config: the settings that all experiments start from; its seed is that of the lab, its tasks are the corpus.
        threads: how many compute, for the progress bars to judge the speed by.
    """

    def __init__(self, folder: Path, config: RunConfig, threads: Threads | None = None):
        self.config, self.seed, self.threads = config, config.seed, threads
        settings = {"tasks": config.tasks, "model": asdict(config.model), "pretrain": asdict(config.pretrain)}
        self.folder = folder / f"seed_{config.seed}_{key_of(settings)}"
        self._made: dict[str, Any] = {}
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run folder of the language model, which is trained when it is first asked for."""
        if self._run is None:
            tidy(self.folder, self.folder / "language_model")  # of what a killed process has left
            run = Run.create(self.folder / "language_model", self.config, compare=("model", "pretrain"))
            run.threads = self.threads
            pretrain_step(run)
            self._run = run
        return self._run

    @property
    def model(self) -> GPT:
        """The pretrained language model, frozen."""
        return self._once("model", self.run.model)

    @property
    def tokenizer(self) -> Tokenizer:
        """The language model's tokenizer."""
        return self._once("tokenizer", self.run.tokenizer)

    def tasks(self, names: Sequence[str]) -> list[Task]:
        """Tasks of the corpus, by name."""
        return [task for task in self.run.tasks if task.name in names]

    def head(
        self,
        level: str = "sequence",
        tasks: Sequence[str] = MIXTURE,
        temperatures: Sequence[float] | None = None,
        **settings: Any,
    ) -> Head:
        """A head trained by LPO, with the settings of the reproduction but for those given."""
        temperatures = tuple(temperatures or self.config.temperatures)
        lpo = replace(self.config.lpo, **{"loss": "default", **settings}).resolved(level)
        key = key_of({"level": level, "tasks": tasks, "temperatures": temperatures, "lpo": asdict(lpo)})
        return self._once(f"head {key}", lambda: self._train_head(key, level, tasks, temperatures, lpo))

    def untrained(self, level: str) -> Head:
        """A head before training, which is uniform: with selection "sample" it draws every temperature equally often."""
        temperatures, n_embd = self.config.temperatures, self.run.config.model.n_embd
        return self._once(
            f"untrained {level}",
            lambda: Head(*(kind(n_embd, temperatures, level, n_hidden=1) for kind in (AdaptiveDecoder, ConstantHead)), []),
        )

    def _train_head(self, key: str, level: str, tasks: Sequence[str], temperatures: tuple[float, ...], lpo: LPOConfig) -> Head:
        n_embd = self.run.config.model.n_embd
        head, constant = (
            kind(n_embd, temperatures, level, lpo.n_hidden, torch_generator(self.seed, "head"))
            for kind in (AdaptiveDecoder, ConstantHead)
        )
        path = self.folder / f"head_{key}.pt"
        if path.exists():
            state, log = load_tensors(path), lpo_log_form(self.tasks(tasks), len(temperatures), lpo)
            wrong = misfit(state, {"head": head.state_dict(), "constant": constant.state_dict(), "log": log})
            if not wrong and not torch.equal(state["head"]["temperature_choices"], head.temperature_choices):
                wrong = "it chooses among other temperatures"
            if wrong:
                raise ValueError(f"{path} must hold a head of these settings, but {wrong}; delete it and repeat the command")
            head.load_state_dict(state["head"])
            constant.load_state_dict(state["constant"])
            log = state["log"]
        else:
            log = train_lpo(self.model, self.tokenizer, self.tasks(tasks), head, lpo, self.seed, constant_head=constant)
            save_tensors(path, {"head": head.state_dict(), "constant": constant.state_dict(), "log": log})
        return Head(head.requires_grad_(False), constant.requires_grad_(False), log)

    def fixed(self, split: str, tasks: Sequence[str] = MIXTURE, temperatures: Sequence[float] | None = None) -> Measured:
        """One response at each fixed temperature to the prompts of a split ("train" for choosing, "test" for scoring)."""
        temperatures = tuple(temperatures or self.config.temperatures)
        name = f"fixed {split} {tasks} {temperatures}"
        config = self.config.evaluation
        return self._once(
            name,
            lambda: measure_fixed(
                self.model,
                self.tokenizer,
                self.tasks(tasks),
                temperatures,
                split,
                config,
                self.seed,
                torch_generator(self.seed, name),
            ),
        )

    def adaptive(self, head: Head, measured: Measured, selection: str = "greedy") -> tuple[Rollout, np.ndarray]:
        """One response with a head to each of the prompts that were measured, and the rewards, (P,)."""
        name = f"adaptive {id(head)} {id(measured)} {selection}"  # both are kept as long as the lab
        generator = torch_generator(self.seed, f"adaptive {head.head.level} {selection}")
        return self._once(name, lambda: measure_head(self.model, self.tokenizer, measured, head.head, generator, selection))

    def quarter_of_the_prompts(self) -> int:
        """Prompts a round for a head that learns a single task, where the mixture has four."""
        return max(1, self.config.lpo.prompts // len(MIXTURE))

    def tensor(self, rows: Sequence[int]) -> Tensor:
        """Row numbers as `Rollout.rows` wants them."""
        return torch.tensor(list(rows), dtype=torch.long)

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def key_of(settings: Any) -> str:
    """A short name for settings: the same for the same, different for different ones.

    >>> key_of({"a": 1, "b": (2,)}) == key_of({"b": [2], "a": 1}), len(key_of({}))
    (True, 12)
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def all_tasks() -> tuple[str, ...]:
    """The names of all tasks: the corpus of the shared language model."""
    return tuple(TASKS)
