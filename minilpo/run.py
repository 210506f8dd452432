"""A run folder and the three steps that fill it: pretrain, train, evaluate. Each step picks up where it was interrupted.

config.json, tokenizer.json          written first: the resolved settings
model.pt, pretrain_log.json          by `pretrain_step`
head.pt, lpo_log.json                by `train_step`, with constant_head.pt, a control, and with --train-lm trained_model.pt
metrics.json, examples.txt, figures/ by `evaluate_step`
timings.json                         seconds spent, the only file that differs between two runs of the same seed
                                     (`metrics.json` repeats it under "seconds")
*_state.pt                           half-done work, gone once a step is done
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import RunConfig
from minilpo.evaluation import evaluate, prompts_to_measure, responses_to_write
from minilpo.files import load_tensors, read_json, save_tensors, write_bytes, write_json
from minilpo.lpo import VALIDATION_SAMPLES, train_lpo
from minilpo.model import GPT
from minilpo.pretraining import encode_examples, pretrain
from minilpo.report import draw_figures, example_responses
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Task, corpus, load_tasks, mixed_demonstrations
from minilpo.tokenizer import Tokenizer

PHASES = ("pretrain", "rollout", "lpo", "evaluate")
HELD_OUT = 256  # demonstrations of the validation split on which pretraining is measured


class Run:
    """A folder with settings; what it holds beyond them depends on the steps that were done.

    Args:
        path: the folder.
        config: its settings.
        tasks: those of the settings.
    """

    def __init__(self, path: Path, config: RunConfig, tasks: list[Task]):
        self.path, self.config, self.tasks = path, config, tasks

    @classmethod
    def open(cls, path: Path, task_files: Sequence[str] = ()) -> "Run":
        """Opens an existing run folder.

        Args:
            path: the folder.
            task_files: .py files whose tasks may be used. A run folder may come from anywhere, so code that it only names
                is never run: the user has to name it too.

        Raises:
            ValueError: if there is no run folder, or one of another version, or a damaged one.
        """
        if not (path / "config.json").is_file():
            raise ValueError(
                f"--run must be a folder with a config.json, got {str(path)!r}; make one with: minilpo pretrain --run {path}"
            )
        config = RunConfig.from_dict(read_json(path / "config.json"))
        unnamed = [name for name in config.tasks if name.endswith(".py") and name not in task_files]
        if unnamed:
            raise ValueError(
                f"the run uses a task from {unnamed[0]!r}, whose code only runs if you name it: "
                f"add --tasks {' '.join(config.tasks)}"
            )
        return cls(path, config, load_tasks(config.tasks))

    @classmethod
    def create(
        cls, path: Path, config: RunConfig, compare: Sequence[str] = ("model", "pretrain", "lpo", "evaluation")
    ) -> "Run":
        """Makes a run folder, or opens the one that is there if it has the same settings.

        Args:
            path: the folder.
            config: the settings.
            compare: sections of the settings that must be the same.

        Raises:
            ValueError: if the folder holds something else.
        """
        tasks = load_tasks(config.tasks)
        if (path / "config.json").exists():
            run = cls.open(path, config.tasks)
            difference = _first_difference(_flat(run.config, compare), _flat(config, compare))
            if difference:
                raise ValueError(
                    f"{path} holds a run with other settings ({difference}); choose another folder or delete this one"
                )
            return run
        if path.exists() and (not path.is_dir() or any(file.name != "tokenizer.json" for file in path.iterdir())):
            raise ValueError(f"{path} must be a new or empty folder, or one with a run of the same settings; choose another")
        rng = python_rng(config.seed, "demonstrations")
        blocks = corpus(tasks, config.pretrain.demonstrations, "train", rng)
        tokenizer = Tokenizer.train(text for block in blocks for pair in block for text in pair)
        for split in ("train", "test", "ood"):  # an unknown word or too few prompts should show now, not after the training
            tokenizer.encode_batch(prompts_to_measure(tasks, split, config.evaluation, config.seed)[1])
        config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
        tokenizer.save(path / "tokenizer.json")
        write_json(path / "config.json", config.to_dict())
        return cls(path, config, tasks)

    def set(self, **sections: Any) -> None:
        """Changes settings of later steps; results that were made with other ones are removed."""
        config = replace(self.config, **sections)
        if config.lpo != self.config.lpo:
            self._remove("lpo_log.json", "head.pt", "constant_head.pt", "trained_model.pt", "lpo_state.pt", "metrics.json")
        if config != self.config:
            self.config = config
            write_json(self.path / "config.json", config.to_dict())

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return Tokenizer.load(self._existing("tokenizer.json", "pretrain"))

    def new_model(self) -> GPT:
        """The language model before training."""
        return GPT(self.config.model, torch_generator(self.config.seed, "model"))

    def model(self, trained: bool = False) -> GPT:
        """The pretrained language model; `trained`: the one that belongs to the head, which --train-lm has changed."""
        model = self.new_model()
        name, step = ("trained_model.pt", "train") if trained and self.config.lpo.train_lm else ("model.pt", "pretrain")
        _load_weights(model, self._existing(name, step))
        return model.requires_grad_(False)

    def new_head(self, kind: type[AdaptiveDecoder] = AdaptiveDecoder) -> AdaptiveDecoder:
        """The head before training, or the same as another kind."""
        config = self.config
        generator = torch_generator(config.seed, "head")
        return kind(config.model.n_embd, config.temperatures, config.level, config.lpo.n_hidden, generator)

    def head(self, kind: type[AdaptiveDecoder] = AdaptiveDecoder) -> AdaptiveDecoder:
        """The trained head, or the constant one."""
        head = self.new_head(kind)
        _load_weights(head, self._existing("constant_head.pt" if kind is ConstantHead else "head.pt", "train"))
        return head.requires_grad_(False)

    def has(self, name: str) -> bool:
        """Whether the folder holds a file."""
        return (self.path / name).is_file()

    def seconds(self) -> dict[str, float]:
        """Seconds spent on each phase so far."""
        spent = read_json(self.path / "timings.json") if self.has("timings.json") else {}
        return {phase: float(spent.get(phase, 0.0)) for phase in PHASES}

    def add_seconds(self, **spent: float) -> None:
        """Adds to the time spent on phases."""
        total = self.seconds()
        write_json(self.path / "timings.json", {phase: total[phase] + spent.get(phase, 0.0) for phase in PHASES})

    def _existing(self, name: str, step: str) -> Path:
        if not self.has(name):
            raise ValueError(f"{self.path} must hold {name}, which isn't there; run: minilpo {step} --run {self.path}")
        return self.path / name

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def pretrain_step(run: Run) -> None:
    """Trains the language model, unless that is done."""
    if run.has("model.pt") and run.has("pretrain_log.json"):
        return
    started = perf_counter()
    config, seed = run.config.pretrain, run.config.seed
    tokenizer, model = run.tokenizer(), run.new_model()
    blocks = corpus(run.tasks, config.demonstrations, "train", python_rng(seed, "demonstrations"))
    examples = [example for block in blocks for example in encode_examples(tokenizer, block)]
    held_out = mixed_demonstrations(run.tasks, HELD_OUT, "validation", python_rng(seed, "held-out demonstrations"))
    held_out = encode_examples(tokenizer, held_out)
    longest, block_size = max(len(token_ids) for token_ids, _ in [*examples, *held_out]), run.config.model.block_size
    if longest > block_size:
        raise ValueError(
            f"--block-size must be at least {longest}, the longest demonstration with its prompt, got {block_size}"
        )

    path = run.path / "pretrain_state.pt"
    state = load_tensors(path) if path.exists() else None
    run.add_seconds(pretrain=perf_counter() - started)

    def save(state: dict[str, Any], seconds: dict[str, float]) -> None:
        save_tensors(path, state)
        run.add_seconds(**seconds)

    with _bar("pretraining", config.steps, "step", initial=state["step"] if state else 0) as bar:
        log = pretrain(model, examples, held_out, tokenizer.pad_id, config, seed, state=state, save=save, progress=bar.update)
    save_tensors(run.path / "model.pt", model.state_dict())
    write_json(run.path / "pretrain_log.json", log)
    path.unlink(missing_ok=True)


def train_step(run: Run) -> None:
    """Trains the head by LPO, unless that is done."""
    if run.has("head.pt") and run.has("lpo_log.json"):
        return
    config = run.config.lpo
    model, tokenizer, head, constant_head = run.model(), run.tokenizer(), run.new_head(), run.new_head(ConstantHead)
    path = run.path / "lpo_state.pt"
    state = load_tensors(path) if path.exists() else None

    def save(state: dict[str, Any], seconds: dict[str, float]) -> None:
        save_tensors(path, state)
        run.add_seconds(**seconds)

    n_tasks, done = len(run.tasks), len(state["log"]) if state else 0
    a_round = n_tasks * (-(-config.prompts // n_tasks) * config.samples + config.validation_prompts * VALIDATION_SAMPLES)
    with _bar("LPO", config.rounds * a_round, "response", initial=done * a_round) as bar:
        options = {"constant_head": constant_head, "state": state, "save": save, "progress": bar.update}
        log = train_lpo(model, tokenizer, run.tasks, head, config, run.config.seed, **options)
    save_tensors(run.path / "head.pt", head.state_dict())
    save_tensors(run.path / "constant_head.pt", constant_head.state_dict())
    if config.train_lm:
        save_tensors(run.path / "trained_model.pt", model.state_dict())
    write_json(run.path / "lpo_log.json", log)
    path.unlink(missing_ok=True)


def evaluate_step(run: Run) -> dict[str, Any]:
    """Measures the head on test prompts, writes `metrics.json`, the examples and the figures, and returns the metrics."""
    started = perf_counter()
    config = run.config
    model, tokenizer, head, constant_head = run.model(trained=True), run.tokenizer(), run.head(), run.head(ConstantHead)
    total = responses_to_write(run.tasks, len(config.temperatures), config.level, config.evaluation)
    with _bar("evaluating", total, "response") as bar:
        measured, test = evaluate(model, tokenizer, run.tasks, head, config.evaluation, config.seed, bar.update, constant_head)
    logs = read_json(run._existing("pretrain_log.json", "pretrain")), read_json(run._existing("lpo_log.json", "train"))
    draw_figures(measured, *logs, run.path / "figures")
    write_bytes(run.path / "examples.txt", example_responses(test, config.temperatures).encode())
    run.add_seconds(evaluate=perf_counter() - started - run.seconds()["evaluate"])  # this evaluation replaces the last
    seconds = run.seconds()
    seconds["total"] = sum(seconds.values())
    metrics = {"seed": config.seed, "level": config.level, **measured, "seconds": seconds}
    write_json(run.path / "metrics.json", metrics)
    return metrics


def _bar(what: str, total: int, unit: str, initial: int = 0) -> tqdm:
    """A progress bar on stderr; in a log file, a line every ten seconds."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total, desc=what, unit=f" {unit}s", initial=initial, file=sys.stderr, mininterval=interval, dynamic_ncols=True
    )


def _load_weights(module: Any, path: Path) -> None:
    try:
        module.load_state_dict(load_tensors(path))
    except (RuntimeError, AttributeError, TypeError) as error:  # names or shapes that don't fit
        raise ValueError(
            f"{path} must hold the weights that config.json describes, got others "
            f"({str(error).splitlines()[0]}); delete it and run that step again"
        ) from None


def _flat(config: RunConfig, sections: Sequence[str]) -> dict[str, Any]:
    """The general settings and those of some sections in one dictionary, without what isn't set but found."""
    content = config.to_dict()
    flat = {name: value for name, value in content.items() if not isinstance(value, dict)}
    for section in sections:
        flat |= content[section]
    return {name: value for name, value in flat.items() if name != "vocab_size"}


def _first_difference(there: dict[str, Any], asked: dict[str, Any]) -> str | None:
    for name, value in asked.items():
        if there[name] != value:
            return f"--{name.replace('_', '-')} {there[name]}, not {value}"
    return None
