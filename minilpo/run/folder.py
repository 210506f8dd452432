"""A run folder: its settings, its record, and what the steps have put there."""

import copy
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import RunConfig
from minilpo.decoding.choices import Temperatures
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Corpus
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.device import CPU
from minilpo.machine.files import (
    RECORD,
    Entry,
    Record,
    digest_of,
    json_bytes,
    must_hold,
    sha256,
    tensors_of,
)
from minilpo.rivals.controls import ALL_TASKS
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task, load_tasks

Head = TypeVar("Head", bound=AdaptiveDecoder)
Module = TypeVar("Module", bound=nn.Module)
LOGS = {"pretrain": "pretrain_log.json", "train": "lpo_log.json"}
STATES = {"pretrain": "pretrain_state.pt", "train": "lpo_state.pt"}  # half-done work
SECTIONS = {"pretrain": ("model", "pretrain"), "train": ("model", "pretrain", "lpo")}
BY_TRAIN = ("head.pt", "constant_head.pt", "trained_model.pt", LOGS["train"])
PUT_BACK = "put it back as it was, or make a new run folder"
BEGIN_ANEW = "put it back as it was, or rename it to begin this step anew"


class Run:
    """A folder with settings, and the tasks and the record that belong to it."""

    def __init__(self, path: Path, config: RunConfig, tasks: list[Task], record: Record):
        self.path, self.config, self.tasks, self.record = path, config, tasks, record
        self.device = CPU  # where language model and head compute
        self.corpus: Corpus | None = None  # see `begin.corpus_of`

    @classmethod
    def open(cls, path: Path | str, task_files: Sequence[str] = ()) -> "Run":
        """Opens an existing run folder.

        `task_files` are the .py files whose tasks may be used: a run folder may come from anywhere,
        so the user has to name the code that it names. Raises ValueError if the folder is no run,
        or is damaged or of another version.
        """
        path = Path(path)
        record = Record(path, PUT_BACK)
        if "config.json" not in record.files:
            if (path / "config.json").is_file():
                raise ValueError(
                    f"{path} must hold {RECORD}, which isn't there: it was removed, or another "
                    f"version of minilpo made config.json; {PUT_BACK}"
                )
            raise ValueError(
                f"a run must be a folder with a config.json, got {str(path)!r}; "
                f"make one with: minilpo demo --out {shlex.quote(str(path))}"
            )
        config = read_config(record, "config.json")
        tasks = load_tasks([_allowed(name, config, task_files) for name in config.tasks], ALL_TASKS)
        return cls(path, config, tasks, record)

    def with_config(self, **changed: Any) -> "Run":
        """Returns the same folder with other settings, which `commit` writes there."""
        run = copy.copy(self)
        run.config = replace(self.config, **changed)
        return run

    # What the folder holds

    def tokenizer(self) -> Tokenizer:
        """Reads the run's tokenizer."""
        data = self.read("tokenizer.json")
        with must_hold(self.path / "tokenizer.json", "a tokenizer", PUT_BACK):
            return Tokenizer.of_bytes(data)

    def new_model(self) -> GPT:
        """Makes the language model before training."""
        # Its weights are drawn on the CPU: they are the same on every device.
        return GPT(self.config.model, torch_generator(self.config.seed, "model")).to(self.device)

    def model(self, trained: bool = False) -> GPT:
        """Reads the pretrained language model, or the one `trained` with the head by --train-lm."""
        if trained and self.config.lpo.train_lm:
            return self._filled(self.new_model(), "trained_model.pt")
        return self._filled(self.new_model(), "model.pt")

    def language_model(self, trained: bool = False) -> GPTLanguageModel:
        """Reads `model` with its tokenizer."""
        return GPTLanguageModel(self.model(trained), self.tokenizer())

    @property
    def choices(self) -> Temperatures:
        """The choices of the head."""
        texts = self.config.choices
        return Temperatures.parse(texts) if texts else Temperatures(self.config.temperatures)

    def new_head(self, kind: type[Head]) -> Head:
        """Makes the head before training, or the control that sees nothing: both begin alike."""
        config = self.config
        shape = config.model.n_embd, len(config.temperatures), config.level, config.lpo.n_hidden
        return kind(*shape, torch_generator(config.seed, "head")).to(self.device)

    def head(self) -> AdaptiveDecoder:
        """Reads the trained head."""
        return self._filled(self.new_head(AdaptiveDecoder), "head.pt")

    def constant_head(self) -> ConstantHead:
        """Reads the trained control."""
        return self._filled(self.new_head(ConstantHead), "constant_head.pt")

    @torch_defaults()
    def _filled(self, module: Module, name: str) -> Module:
        """Loads the weights of a file into a new module, which is no longer to be trained."""
        data = self.read(name)
        with must_hold(self.path / name, "the weights that config.json describes", PUT_BACK):
            module.load_state_dict(tensors_of(data))
        return module.requires_grad_(False)

    def read(self, name: str) -> bytes:
        """Reads a file of a finished step.

        Raises ValueError, with the command that makes it again, if it isn't there or was changed.
        """
        step = "train" if name in BY_TRAIN else "pretrain"
        if name not in self.record.files:
            whole = "; minilpo demo makes a run with all files" if step == "train" else ""
            raise ValueError(
                f"{self.path} must hold {name}, which isn't there; run: {self.command(step)}{whole}"
            )
        again = f"put it back as it was, or to make it again run: {self.command(step)}"
        return self.record.read(name, again)

    def log(self, step: str) -> list[dict[str, Any]]:
        """Reads the log of "pretrain" or "train", after a comparison of all files of that step.

        Raises ValueError if the step isn't done, or one of its files was changed.
        """
        log = self.read(LOGS[step])
        for name in self.record.steps[step]["files"]:
            self.read(name)
        if self.record.settings_of(step).get("model.pt") not in (None, self._model_digest()):
            raise ValueError(
                f"{self.path / 'head.pt'} must be trained on the model.pt that is there, "
                f"but it was trained on another; run: {self.command(step)}"
            )
        return json.loads(log)

    def _model_digest(self) -> str | None:
        return self.record.files.get("model.pt")

    def command(self, step: str) -> str:
        """Returns the command for a step of this run, to be typed as it is."""
        command = f"minilpo {step} --run {shlex.quote(str(self.path))}"
        has_files = any(name.endswith(".py") for name in self.config.tasks)
        return f"{command} --tasks {shlex.join(self.config.tasks)}" if has_files else command

    # What is done

    def settings(self, step: str) -> dict[str, Any]:
        """Returns all that a step depends on: settings, task files, for LPO the model too."""
        settings = chosen_settings(self.config, SECTIONS[step])
        return settings | ({"model.pt": self._model_digest()} if step == "train" else {})

    def is_done(self, step: str) -> bool:
        """Tells whether a step is finished with these settings, and its files are unchanged."""
        try:
            self.log(step)
        except (ValueError, OSError):
            return False
        return self.record.settings_of(step) == self.settings(step)

    def half_done(self, step: str) -> dict[str, Any]:
        """Reads half-done work of a step with these settings; it is empty if there is none."""
        name = STATES[step]
        begun = self.record.settings_of(f"half-done {step}") == self.settings(step)
        if not (begun and self.record.holds(name)):
            return {}
        data = self.record.read(name, BEGIN_ANEW)
        with must_hold(self.path / name, "half-done work", BEGIN_ANEW):
            return tensors_of(data)

    def commit(self, finished: dict[str, Entry], undone: Sequence[str] = ()) -> None:
        """Commits steps to the record, with the settings of the run if these have changed."""
        config = json_bytes(self.config.to_dict())
        if sha256(config) != self.record.files.get("config.json"):
            finished = {"config": (None, {"config.json": config}), **finished}
        self.record.commit(finished, undone)


def read_config(record: Record, name: str) -> RunConfig:
    """Reads settings; raises ValueError if they are damaged, or of another version."""
    data = record.read(name, PUT_BACK)
    with must_hold(record.folder / name, "the settings of a run", PUT_BACK):
        return RunConfig.from_dict(json.loads(data))


def _allowed(name: str, config: RunConfig, task_files: Sequence[str]) -> str:
    """Finds the task file that a run's settings name where the user has it today."""
    if not name.endswith(".py"):
        return name
    files = [file for file in task_files if file.endswith(".py") and Path(file).is_file()]
    same = [file for file in files if digest_of(Path(file)) == config.digests.get(name)]
    if same:
        return same[0]
    if any(Path(file).name == Path(name).name for file in files):
        raise ValueError(
            f"the task file {name!r} must be the one that the run was made with, "
            "but it has changed since; put it back as it was, or make a new run folder"
        )
    raise ValueError(
        f"the run uses a task from {name!r}, whose code only runs if you name it: "
        f"add --tasks {shlex.join(config.tasks)}"
    )


def chosen_settings(config: RunConfig, sections: Sequence[str]) -> dict[str, Any]:
    """Returns general settings and some sections. A task file, which may move, is its digest."""
    content = config.to_dict()
    chosen = {name: value for name, value in content.items() if not isinstance(value, dict)}
    chosen["tasks"] = [config.digests.get(name, name) for name in config.tasks]
    del chosen["temperatures" if config.choices else "choices"]  # one follows from the other
    for section in sections:
        chosen |= content[section]
    return {k: v for k, v in chosen.items() if k not in ("format", "vocab_size", "threads")}


def first_difference(old: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """Returns the first setting that differs, as a flag with both values; None if none differs.

    >>> first_difference({"seed": 0, "tasks": ["math"]}, {"seed": 1, "tasks": ["math"]})
    '--seed 0, not 1'
    """
    for name in {**old, **asked}:
        if old.get(name) != asked.get(name):
            # Of --temperatures and --choices a run has only one.
            values = [settings.get(name, "left out") for settings in (old, asked)]
            typed = [" ".join(map(str, v)) if isinstance(v, list) else v for v in values]
            return f"--{name.replace('_', '-')} {typed[0]}, not {typed[1]}"
    return None
