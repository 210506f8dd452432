"""A run folder: what it holds, and how that is made, opened and believed. `steps` fill it."""

import contextlib
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import RunConfig, as_json
from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.measure import prompts_to_measure
from minilpo.evaluation.rehearse import rehearse
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Corpus, Example, encode_examples
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.device import CPU
from minilpo.machine.files import (
    digest_of,
    load_tensors,
    must_hold,
    read_sealed_json,
    write_sealed_json,
)
from minilpo.machine.progress import Bar, Watch
from minilpo.machine.threads import Threads
from minilpo.rivals.controls import ALL_TASKS
from minilpo.seeds import python_rng, torch_defaults, torch_generator
from minilpo.tasks import Task, corpus, load_tasks, mixed_demonstrations
from minilpo.training import draw_prompts

Head = TypeVar("Head", bound=AdaptiveDecoder)
Module = TypeVar("Module", bound=nn.Module)
PHASES = ("pretrain", "rollout", "lpo", "evaluate")
HELD_OUT = 256  # demonstrations of the validation split on which pretraining is measured
STUMPS = {".config.json.partial", ".trial.partial"}  # left by a run that is killed at its start
# Where a file is whole, as its checksum says, and yet isn't what this version writes.
OF_ANOTHER_VERSION = "another version of minilpo may have written it: make a new run folder"


class Step(NamedTuple):
    """What belongs to a step that can be resumed."""

    log: str  # written last: with it, the step is done
    state: str  # half-done work
    files: tuple[str, ...]  # read or written by the step; the log names them with their checksums
    settings: tuple[str, ...]  # the sections that its results depend on


STEPS = {
    "pretrain": Step(
        "pretrain_log.json", "pretrain_state.pt", ("model.pt",), ("model", "pretrain")
    ),
    "train": Step(
        "lpo_log.json",
        "lpo_state.pt",
        ("model.pt", "head.pt", "constant_head.pt", "trained_model.pt"),
        ("model", "pretrain", "lpo"),
    ),
}


class Run:
    """A folder with settings; what it holds beyond them depends on the steps that were done.

    Args:
        path: the folder.
        config: its settings.
        tasks: those of the settings.
        threads: how many compute, for the progress bars to judge the speed by.
        device: where language model and head compute.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        tasks: list[Task],
        threads: Threads | None = None,
        device: torch.device = CPU,
    ):
        self.path, self.config, self.tasks = path, config, tasks
        self.threads, self.device = threads, device
        self._corpus: Corpus | None = None  # made when first asked for

    # Making and opening

    @classmethod
    def open(cls, path: Path | str, task_files: Sequence[str] = ()) -> "Run":
        """Opens an existing run folder.

        Args:
            path: the folder.
            task_files: .py files whose tasks may be used. A run folder may come from anywhere, so
                code that it only names is never run: the user has to name it too.

        Raises:
            ValueError: if there is no run folder, or one of another version, or a damaged one.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise ValueError(
                f"--run must be a folder with a config.json, got {str(path)!r}; "
                f"make one with: minilpo pretrain --run {shlex.quote(str(path))}"
            )
        config = read_config(path / "config.json")
        names = {name for name in config.tasks if not name.endswith(".py")}
        with must_hold(path / "config.json", "tasks of this version", OF_ANOTHER_VERSION):
            if unknown := sorted(names - set(ALL_TASKS)):
                raise ValueError(f"it names {', '.join(unknown)}")
        tasks = load_tasks([_allowed(name, config, task_files) for name in config.tasks], ALL_TASKS)
        return cls(path, config, tasks)

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        compare: Sequence[str] = ("model", "pretrain", "lpo", "evaluation"),
    ) -> "Run":
        """Makes a run folder, when all is checked, or opens the one with the same settings.

        Args:
            path: the folder; it need not exist.
            config: the settings.
            compare: sections of the settings that must be the same, and that have to be possible.

        Raises:
            ValueError: if the folder holds something else, or the tasks can't do what the settings
                ask for.
        """
        files = [name for name in config.tasks if name.endswith(".py") and Path(name).is_file()]
        config = replace(config, digests={name: digest_of(Path(name)) for name in files})
        if (path / "config.json").exists():
            run = cls.open(path, config.tasks)
            old, asked = (_chosen_settings(c, compare) for c in (run.config, config))
            if difference := first_difference(old, asked):
                raise ValueError(
                    f"{path} holds a run with other settings ({difference}); "
                    "choose another folder or delete this one"
                )
            return run
        if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= STUMPS):
            raise ValueError(
                f"{path} must be a new or empty folder, or one with a run of the same settings; "
                "choose another"
            )
        run = cls(path, config, load_tasks(config.tasks, ALL_TASKS))
        prompts = run.prompts(compare)
        if files:  # somebody's own task fails now, not after all the work
            rehearse(run.tasks, run.choices, config.level)
        tokenizer = run.train_tokenizer()
        model = replace(config.model, vocab_size=tokenizer.vocab_size)
        digest = hashlib.sha256(tokenizer.to_bytes()).hexdigest()
        digests = {**config.digests, "tokenizer.json": digest}
        run.config = replace(config, model=model, digests=digests)
        rng = python_rng(config.seed, "unseen words")
        unseen = mixed_demonstrations(run.tasks, 200 * len(run.tasks), "test", rng)
        run.check(tokenizer, prompts + [prompt for prompt, _ in unseen])
        run.corpus(tokenizer)  # says if a demonstration is too long
        path.mkdir(parents=True, exist_ok=True)
        for file in path.iterdir():
            file.unlink()
        write_sealed_json(path / "config.json", run.config.to_dict())
        tokenizer.save(path / "tokenizer.json")
        return run

    def with_config(self, **changed: Any) -> "Run":
        """The same folder with other settings, which aren't written there."""
        config = replace(self.config, **changed)
        return Run(self.path, config, self.tasks, self.threads, self.device)

    def prompts(self, sections: Sequence[str]) -> list[str]:
        """The prompts that LPO ("lpo") and the measuring ("evaluation") are known to draw.

        Raises:
            ValueError: if a task offers too few; it names the flag to change.
        """
        config, seed = self.config, self.config.seed
        prompts: list[str] = []
        if "lpo" in sections:
            rounds, held_out = draw_prompts(self.tasks, replace(config.lpo, rounds=1), seed)
            prompts += [prompt.text for prompt in (*rounds[0], *held_out)]
        if "evaluation" in sections:
            for split in ("train", "test", "ood"):
                prompts += prompts_to_measure(self.tasks, split, config.evaluation, seed).texts
        return prompts

    def check(self, tokenizer: Tokenizer, prompts: list[str]) -> None:
        """Raises a ValueError if a prompt has an unknown word, or doesn't fit into the model."""
        # Two more: its end mark and one token of a response.
        longest = max(map(len, tokenizer.encode_batch(prompts)), default=0) + 2
        if longest > self.config.model.block_size:
            raise ValueError(
                f"--block-size must be at least {longest}, the longest prompt with room for an "
                f"answer, got {self.config.model.block_size}; "
                "the language model can't be changed later, so make a new run folder"
            )

    def train_tokenizer(self) -> Tokenizer:
        """Makes the tokenizer anew: the same tasks make the same one."""
        return Tokenizer.train(text for block in self._blocks() for pair in block for text in pair)

    def _blocks(self) -> Iterator[list[tuple[str, str]]]:
        rng = python_rng(self.config.seed, "demonstrations")
        return corpus(self.tasks, self.config.pretrain.demonstrations, "train", rng)

    def corpus(self, tokenizer: Tokenizer) -> Corpus:
        """What the language model learns from, and what it is only measured on.

        Raises:
            ValueError: if a demonstration is too long for the model.
        """
        if self._corpus is None:
            examples: list[Example] = []
            for block in self._blocks():
                examples += encode_examples(tokenizer, block)
            rng = python_rng(self.config.seed, "held-out demonstrations")
            unseen = mixed_demonstrations(self.tasks, HELD_OUT, "validation", rng)
            held_out = encode_examples(tokenizer, unseen)
            longest = max(len(token_ids) for token_ids, _ in [*examples, *held_out])
            if longest > self.config.model.block_size:
                raise ValueError(
                    f"--block-size must be at least {longest}, the longest demonstration with its "
                    f"prompt, got {self.config.model.block_size}"
                )
            self._corpus = Corpus(examples, held_out, tokenizer.pad_id)
        return self._corpus

    def pretraining_prompts(self) -> set[str]:
        """Every prompt that the language model has learned to answer."""
        return {prompt for block in self._blocks() for prompt, _ in block}

    def forget_corpus(self) -> None:
        """Frees the memory that it takes."""
        self._corpus = None

    # What the folder holds

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        path = self._existing("tokenizer.json", "pretrain")
        if digest_of(path) != self.config.digests.get("tokenizer.json"):
            raise ValueError(
                f"{path} must be the run's own tokenizer, but it was damaged or changed; "
                f"{self.anew(path.name, 'pretrain')}"
            )
        return Tokenizer.load(path)

    def new_model(self) -> GPT:
        """The language model before training."""
        # Its weights are drawn on the CPU: they are the same on every device.
        return GPT(self.config.model, torch_generator(self.config.seed, "model")).to(self.device)

    def model(self, trained: bool = False) -> GPT:
        """The pretrained language model, or the one `trained` with the head by --train-lm."""
        if trained and self.config.lpo.train_lm:
            return self._filled(self.new_model(), "trained_model.pt", "train")
        return self._filled(self.new_model(), "model.pt", "pretrain")

    def language_model(self, trained: bool = False) -> GPTLanguageModel:
        """`model` with its tokenizer."""
        return GPTLanguageModel(self.model(trained), self.tokenizer())

    @property
    def choices(self) -> Temperatures:
        """What the head chooses among."""
        texts = self.config.choices
        return Temperatures.parse(texts) if texts else Temperatures(self.config.temperatures)

    def new_head(self, kind: type[Head]) -> Head:
        """The head before training, or the control that sees nothing: both begin alike."""
        config = self.config
        shape = config.model.n_embd, len(config.temperatures), config.level, config.lpo.n_hidden
        return kind(*shape, torch_generator(config.seed, "head")).to(self.device)

    def head(self) -> AdaptiveDecoder:
        """The trained head."""
        return self._filled(self.new_head(AdaptiveDecoder), "head.pt", "train")

    def constant_head(self) -> ConstantHead:
        """The control, trained."""
        return self._filled(self.new_head(ConstantHead), "constant_head.pt", "train")

    def log(self, step: str) -> list[dict[str, Any]]:
        """The log of pretraining ("pretrain") or LPO ("train"), after a look at that step's files.

        Raises:
            ValueError: if the step isn't done, or one of its files isn't the one it wrote.
        """
        name = STEPS[step].log
        path = self._existing(name, step)
        content = read_sealed_json(path, self.anew(name, step))
        train_lm = self.config.lpo.train_lm
        files = [file for file in STEPS[step].files if train_lm or file != "trained_model.pt"]
        with must_hold(path, "the log of that step", OF_ANOTHER_VERSION):
            settings, log = content["settings"], content["log"]
            digests = [content["files"][file] for file in files]
        for file, digest in zip(files, digests, strict=True):
            maker = "pretrain" if file == "model.pt" else step
            if digest_of(self._existing(file, maker)) != digest:
                raise ValueError(
                    f"{self.path / file} must be the file that {name} describes, "
                    "but it was damaged or replaced; "
                    f"{self.anew(file if step == maker else name, step)}"
                )
        if settings != self.key_of_settings(step):
            raise ValueError(
                f"{path} and {self.path / 'config.json'} must be of the same settings, "
                f"but one of them was replaced; {self.anew(name, step)}"
            )
        return log

    def is_done(self, step: str) -> bool:
        """Whether a step has its log, and every file that the log names is there as it was."""
        try:
            self.log(step)
            return True
        except (ValueError, OSError):
            return False

    def has(self, name: str) -> bool:
        """Whether the folder holds a file."""
        return (self.path / name).is_file()

    def seconds(self) -> dict[str, float]:
        """Seconds spent on each phase so far."""
        if not self.has("timings.json"):
            return dict.fromkeys(PHASES, 0.0)
        path = self.path / "timings.json"
        remedy = f"delete {shlex.quote(str(path))}, only the times are lost"
        spent = read_sealed_json(path, remedy)
        with must_hold(path, "the seconds of each phase", remedy):
            return {phase: float(spent[phase]) for phase in PHASES}

    def add_seconds(self, **spent: float) -> None:
        """Adds to the time spent on phases."""
        total = {phase: n + spent.get(phase, 0.0) for phase, n in self.seconds().items()}
        write_sealed_json(self.path / "timings.json", total)

    def anew(self, name: str, step: str) -> str:
        """What to do about a file that can't be used."""
        return f"delete it and run: {self.command(step)}"

    def command(self, step: str) -> str:
        """The command for a step of this run, to be typed as it is."""
        command = f"minilpo {step} --run {shlex.quote(str(self.path))}"
        has_files = any(name.endswith(".py") for name in self.config.tasks)
        return f"{command} --tasks {shlex.join(self.config.tasks)}" if has_files else command

    def _existing(self, name: str, step: str) -> Path:
        if not self.has(name):
            raise ValueError(
                f"{self.path} must hold {name}, which isn't there; run: {self.command(step)}"
            )
        return self.path / name

    @torch_defaults()
    def _filled(self, module: Module, name: str, step: str) -> Module:
        """A new module with the weights of a file, no longer to be trained."""
        path = self._existing(name, step)
        weights = load_tensors(path, self.anew(name, step))
        with must_hold(path, "the weights that config.json describes", OF_ANOTHER_VERSION):
            module.load_state_dict(weights)
        return module.requires_grad_(False)

    def key_of_settings(self, step: str) -> str:
        """A short name for what a step depends on: settings, task files, for LPO the model too."""
        sections = STEPS[step].settings
        model = digest_of(self.path / "model.pt") if "lpo" in sections else ""
        causes = _chosen_settings(self.config, sections), self.config.digests, model
        return hashlib.sha256(repr(causes).encode()).hexdigest()

    def keep(self, **changed: Any) -> None:
        """Changes settings of the run, and notes how many threads compute."""
        config = replace(self.config, **changed)
        if self.threads:
            config = replace(config, threads=self.threads.n)
        if config != self.config:
            self.config = config
            write_sealed_json(self.path / "config.json", config.to_dict())

    def bar(self, what: str, unit: str) -> Bar:
        """A progress bar that knows how fast this machine was."""
        return Bar(what, unit, self._watch)

    @cached_property
    def _watch(self) -> Watch | None:
        # One for all bars: it gives its advice once. It knows only how fast the CPU is.
        return Watch(self.threads) if self.threads and self.device == CPU else None

    @contextlib.contextmanager
    def half_done(self, step: str) -> Iterator[dict[str, Any]]:
        """Gives the half-done work of a step, to be taken up within; nothing if there is none."""
        path = self.path / STEPS[step].state
        anew = f"{shlex.quote(str(path))} to begin this step anew"
        state = load_tensors(path, f"delete {anew}") if path.exists() else {}
        with must_hold(path, "the half-done work of this run", f"rename {anew}"):
            yield state

    def finish(self, step: str, log: list[dict[str, Any]], files: Sequence[str]) -> None:
        """Writes a step's log, which makes it done, and forgets its half-done work."""
        digests = {name: digest_of(self.path / name) for name in files}
        content = {"settings": self.key_of_settings(step), "files": digests, "log": log}
        write_sealed_json(self.path / STEPS[step].log, content)
        self.remove(STEPS[step].state)

    def remove(self, *names: str) -> None:
        """Deletes files, those that are there."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def read_config(path: Path) -> RunConfig:
    """The settings in a file; raises ValueError if they are damaged, or of another version."""
    remedy = "put it back as it was, or make a new run folder"
    content = read_sealed_json(path, remedy)
    with must_hold(path, "the settings of a run", remedy):
        return RunConfig.from_dict(content)


def _allowed(name: str, config: RunConfig, task_files: Sequence[str]) -> str:
    """For a task file that a run's settings name, the same file where the user has it today."""
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


def _chosen_settings(config: RunConfig, sections: Sequence[str]) -> dict[str, Any]:
    """The general settings and those of some sections in one dictionary, apart from measured ones.

    A task file is known by its content, so it may lie elsewhere today.
    """
    content = as_json(config)
    chosen = {name: value for name, value in content.items() if not isinstance(value, dict)}
    chosen["tasks"] = [config.digests.get(name, name) for name in config.tasks]
    del chosen["temperatures" if config.choices else "choices"]  # one follows from the other
    for section in sections:
        chosen |= content[section]
    return {name: value for name, value in chosen.items() if name not in ("vocab_size", "threads")}


def first_difference(old: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first setting that differs, as a flag with both values; None if all are the same.

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
