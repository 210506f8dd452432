"""A run folder and the three steps that fill it: pretrain, train, evaluate. Each step picks up where it was interrupted.

config.json, tokenizer.json          written first: the resolved settings
model.pt, pretrain_log.json          by `pretrain_step`
head.pt, lpo_log.json                by `train_step`, with constant_head.pt, a control, and with --train-lm trained_model.pt
metrics.json, examples.txt, figures/ by `evaluate_step`
timings.json                         seconds spent, the only file that differs between two runs of the same seed
                                     (`metrics.json` repeats it under "seconds")
*_state.pt                           half-done work, gone once a step is done

The log of a step is written last and names the files that the step read and wrote, with their checksums: a step is done if its
log is there and every file it names is as it was. Old results stay until new ones take their place.
"""

import contextlib
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn

from minilpo import plots
from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import EvaluationConfig, LPOConfig, RunConfig, as_json
from minilpo.evaluation import evaluate, prompts_to_measure, responses_to_write
from minilpo.files import (
    digest_of,
    load_tensors,
    misfit,
    read_sealed_json,
    save_tensors,
    tidy,
    work_in,
    write_bytes,
    write_json,
    write_sealed_json,
)
from minilpo.lpo import VALIDATION_SAMPLES, train_lpo
from minilpo.model import GPT
from minilpo.pretraining import LOG_EVERY, Example, encode_examples, parameter_groups, pretrain
from minilpo.progress import Bar, Watch, say
from minilpo.report import FIGURES, draw_figures, example_responses
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import TASKS, Task, corpus, load_tasks, mixed_demonstrations, mixed_prompts
from minilpo.threads import Threads, pick
from minilpo.tokenizer import Tokenizer

PHASES = ("pretrain", "rollout", "lpo", "evaluate")
HELD_OUT = 256  # demonstrations of the validation split on which pretraining is measured


class Step(NamedTuple):
    """What belongs to a step that can be resumed."""

    log: str  # written last: with it, the step is done
    state: str  # half-done work
    files: tuple[str, ...]  # read or written by the step; the log names them with their checksums
    settings: tuple[str, ...]  # the sections that its results depend on


STEPS = {
    "pretrain": Step("pretrain_log.json", "pretrain_state.pt", ("model.pt",), ("model", "pretrain")),
    "train": Step(
        "lpo_log.json",
        "lpo_state.pt",
        ("model.pt", "head.pt", "constant_head.pt", "trained_model.pt"),
        ("model", "pretrain", "lpo"),
    ),
}
PRETRAIN_LOG = [{"step": int, "loss": float, "held_out_loss": float}]  # as `files.misfit` reads it


def lpo_log_form(tasks: Sequence[Task], n_choices: int, config: LPOConfig) -> list[Any]:
    """What the log of LPO holds, as `files.misfit` expects it."""
    shares = {task.name: (float,) * n_choices for task in tasks}
    counted = {"round": int, "pairs": int, "dropped_prompts": int, "chosen_share": shares, "rejected_share": shares}
    epoch = {"loss": float, "margin": float, "pair_accuracy": float, "entropy": float}
    return [{**counted, "sampled_reward": float, "validation_reward": float, "epochs": (epoch,) * config.epochs}]


class Run:
    """A folder with settings; what it holds beyond them depends on the steps that were done.

    Args:
        path: the folder.
        config: its settings.
        tasks: those of the settings.
        threads: how many compute, for the progress bars to judge the speed by.
    """

    def __init__(self, path: Path, config: RunConfig, tasks: list[Task], threads: Threads | None = None):
        self.path, self.config, self.tasks, self.threads = path, config, tasks, threads

    # Making and opening

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
                f"--run must be a folder with a config.json, got {str(path)!r}; "
                f"make one with: minilpo pretrain --run {shlex.quote(str(path))}"
            )
        config = read_config(path / "config.json")
        names = [name for name in config.tasks if not name.endswith(".py")]
        if not config.tasks or len(set(config.tasks)) < len(config.tasks) or not set(names) <= set(TASKS):
            raise ValueError(
                f"{path / 'config.json'} must name tasks of this version, each once, got {list(config.tasks)}; "
                "make a new run folder"
            )
        return cls(path, config, load_tasks([_allowed(name, config, task_files) for name in config.tasks]))

    @classmethod
    def create(
        cls, path: Path, config: RunConfig, compare: Sequence[str] = ("model", "pretrain", "lpo", "evaluation")
    ) -> "Run":
        """Makes a run folder, or opens the one that is there if it has the same settings. All is checked before any is written.

        Args:
            path: the folder; it need not be there.
            config: the settings.
            compare: sections of the settings that must be the same, and that have to be possible.

        Raises:
            ValueError: if the folder holds something else, or the tasks can't do what the settings ask for.
        """
        files = [name for name in config.tasks if name.endswith(".py") and Path(name).is_file()]
        config = replace(config, digests={name: digest_of(Path(name)) for name in files})
        if (path / "config.json").exists():
            run = cls.open(path, config.tasks)
            difference = first_difference(_flat(run.config, compare), _flat(config, compare))
            if difference:
                raise ValueError(
                    f"{path} holds a run with other settings ({difference}); choose another folder or delete this one"
                )
            return run
        if path.exists() and (not path.is_dir() or any(not _is_a_stump(file) for file in path.iterdir())):
            raise ValueError(f"{path} must be a new or empty folder, or one with a run of the same settings; choose another")
        run = cls(path, config, load_tasks(config.tasks))
        prompts = run.prompts(compare)
        tokenizer = run._train_tokenizer()
        run.config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
        unseen = mixed_demonstrations(run.tasks, 200 * len(run.tasks), "test", python_rng(config.seed, "unseen words"))
        run.check(tokenizer, prompts + [prompt for prompt, _ in unseen])
        run.examples(tokenizer)  # says if one is too long
        digests = {**config.digests, "tokenizer.json": hashlib.sha256(tokenizer.to_bytes()).hexdigest()}
        run.config = replace(run.config, digests=digests)
        path.mkdir(parents=True, exist_ok=True)
        for file in path.iterdir():
            file.unlink()
        write_config(path / "config.json", run.config)
        tokenizer.save(path / "tokenizer.json")
        return run

    def prompts(self, sections: Sequence[str]) -> list[str]:
        """The prompts that LPO ("lpo") and the measuring ("evaluation") are going to draw, as far as that is known before.

        Raises:
            ValueError: if a task offers too few; it names the flag to change.
        """
        config, seed, prompts = self.config, self.config.seed, []
        if "lpo" in sections:
            per_task = -(-config.lpo.prompts // len(self.tasks))
            prompts += mixed_prompts(self.tasks, per_task, "train", python_rng(seed, "LPO prompts 0"))[1]
            validation = python_rng(seed, "validation prompts")
            prompts += mixed_prompts(self.tasks, config.lpo.validation_prompts, "validation", validation)[1]
        if "evaluation" in sections:
            for split in ("train", "test", "ood"):
                prompts += prompts_to_measure(self.tasks, split, config.evaluation, seed)[1]
        return prompts

    def check(self, tokenizer: Tokenizer, prompts: list[str]) -> None:
        """Raises a ValueError if a prompt has an unknown word, or doesn't fit into the model: before the work, not after it."""
        longest = max(map(len, tokenizer.encode_batch(prompts)), default=0) + 2  # its end mark and one token of a response
        if longest > self.config.model.block_size:
            raise ValueError(
                f"--block-size must be at least {longest}, the longest prompt with room for an answer, "
                f"got {self.config.model.block_size}; the language model can't be changed later, so make a new run folder"
            )

    def _train_tokenizer(self) -> Tokenizer:
        rng = python_rng(self.config.seed, "demonstrations")
        blocks = corpus(self.tasks, self.config.pretrain.demonstrations, "train", rng)
        return Tokenizer.train(text for block in blocks for pair in block for text in pair)

    def examples(self, tokenizer: Tokenizer) -> tuple[list[Example], list[Example]]:
        """What the language model learns from, and what it is only measured on.

        Raises:
            ValueError: if one is too long for the model.
        """
        if not self._examples:
            config = self.config
            blocks = corpus(self.tasks, config.pretrain.demonstrations, "train", python_rng(config.seed, "demonstrations"))
            examples = [example for block in blocks for example in encode_examples(tokenizer, block)]
            rng = python_rng(config.seed, "held-out demonstrations")
            held_out = encode_examples(tokenizer, mixed_demonstrations(self.tasks, HELD_OUT, "validation", rng))
            longest = max(len(token_ids) for token_ids, _ in [*examples, *held_out])
            if longest > config.model.block_size:
                raise ValueError(
                    f"--block-size must be at least {longest}, the longest demonstration with its prompt, "
                    f"got {config.model.block_size}"
                )
            self._examples += [examples, held_out]
        examples, held_out = self._examples
        return examples, held_out

    @cached_property
    def _examples(self) -> list[list[Example]]:
        return []  # made when first asked for, and forgotten after pretraining

    # What the folder holds

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        path = self._existing("tokenizer.json", "pretrain")
        if digest_of(path) != self.config.digests.get("tokenizer.json"):
            raise ValueError(
                f"{path} must be the run's own tokenizer, but it was damaged or changed; {self.anew(path.name, 'pretrain')}"
            )
        return Tokenizer.load(path)

    def new_model(self) -> GPT:
        """The language model before training."""
        return GPT(self.config.model, torch_generator(self.config.seed, "model"))

    def model(self, trained: bool = False) -> GPT:
        """The pretrained language model; `trained`: the one that belongs to the head, which --train-lm has changed."""
        model = self.new_model()
        name, step = ("trained_model.pt", "train") if trained and self.config.lpo.train_lm else ("model.pt", "pretrain")
        self._load_weights(model, name, step)
        return model.requires_grad_(False)

    def new_head(self, kind: type[AdaptiveDecoder] = AdaptiveDecoder) -> AdaptiveDecoder:
        """The head before training, or the same as another kind."""
        config = self.config
        generator = torch_generator(config.seed, "head")
        return kind(config.model.n_embd, config.temperatures, config.level, config.lpo.n_hidden, generator)

    def head(self, kind: type[AdaptiveDecoder] = AdaptiveDecoder) -> AdaptiveDecoder:
        """The trained head, or the constant one."""
        head, name = self.new_head(kind), "constant_head.pt" if kind is ConstantHead else "head.pt"
        choices = head.temperature_choices.clone()
        self._load_weights(head, name, "train")
        if not torch.equal(head.temperature_choices, choices):
            raise ValueError(
                f"{self.path / name} must choose among the temperatures of config.json, got others; {self.anew(name, 'train')}"
            )
        return head.requires_grad_(False)

    def log(self, step: str) -> list[dict[str, Any]]:
        """The log of pretraining ("pretrain") or of LPO ("train"), after a look at all files of that step.

        Raises:
            ValueError: if the step isn't done, or one of its files isn't the one it wrote.
        """
        name = STEPS[step].log
        path = self._existing(name, step)
        content = read_sealed_json(path, self.anew(name, step))
        config, sections = self.config, STEPS[step].settings
        form = PRETRAIN_LOG if step == "pretrain" else lpo_log_form(self.tasks, len(config.temperatures), config.lpo)
        files = [name for name in STEPS[step].files if name != "trained_model.pt" or config.lpo.train_lm]
        wrong = misfit(content, {"settings": str, "files": dict.fromkeys(files, str), "log": form})
        whole = {"step": config.pretrain.steps} if step == "pretrain" else {"round": config.lpo.rounds}
        wrong = wrong or _wrong_count(content["log"], whole)
        if wrong:
            raise ValueError(f"{path} must be the log of that step, but {wrong}; {self.anew(name, step)}")
        for file, digest in content["files"].items():
            if digest_of(self._existing(file, _step_of(file))) != digest:
                raise ValueError(
                    f"{self.path / file} must be the file that {name} describes, but it was damaged or replaced; "
                    f"{self.anew(file if step == _step_of(file) else name, step)}"
                )
        if content["settings"] != self.key_of_settings(*sections):
            raise ValueError(
                f"{path} and {self.path / 'config.json'} must be of the same settings, but one of them was replaced; "
                f"{self.anew(name, step)}"
            )
        return content["log"]

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
        spent = read_sealed_json(path, remedy := f"delete {shlex.quote(str(path))}, only the times are lost")
        wrong = misfit(spent, dict.fromkeys(PHASES, float))
        if wrong:
            raise ValueError(f"{path} must hold the seconds of each phase, but {wrong}; {remedy}")
        return spent

    def add_seconds(self, **spent: float) -> None:
        """Adds to the time spent on phases."""
        total = self.seconds()
        write_sealed_json(self.path / "timings.json", {phase: total[phase] + spent.get(phase, 0.0) for phase in PHASES})

    def anew(self, name: str, step: str) -> str:
        """What to do about a file that can't be used."""
        return f"delete it and run: {self.command(step)}"

    def command(self, step: str) -> str:
        """The command for a step of this run, to be typed as it is."""
        tasks = f" --tasks {shlex.join(self.config.tasks)}" if any(name.endswith(".py") for name in self.config.tasks) else ""
        return f"minilpo {step} --run {shlex.quote(str(self.path))}{tasks}"

    def _existing(self, name: str, step: str) -> Path:
        if not self.has(name):
            raise ValueError(f"{self.path} must hold {name}, which isn't there; run: {self.command(step)}")
        return self.path / name

    def _load_weights(self, module: nn.Module, name: str, step: str) -> None:
        path = self._existing(name, step)
        weights = load_tensors(path, self.anew(name, step))
        wrong = misfit(weights, module.state_dict())
        if wrong:
            raise ValueError(f"{path} must hold the weights that config.json describes, but {wrong}; {self.anew(name, step)}")
        module.load_state_dict(weights)

    def key_of_settings(self, *sections: str) -> str:
        """A short name for all that half-done work depends on: settings, task files, and for LPO the language model."""
        model = digest_of(self.path / "model.pt") if "lpo" in sections else ""
        return hashlib.sha256(repr((_flat(self.config, sections), self.config.digests, model)).encode()).hexdigest()

    def keep(self, **changed: Any) -> None:
        """Changes settings of the run, and notes how many threads compute: the last digits of all results depend on it."""
        config = replace(self.config, **changed)
        if self.threads:
            config = replace(config, threads=self.threads.n)
        if config != self.config:
            self.config = config
            write_config(self.path / "config.json", config)

    def bar(self, what: str, total: int, unit: str, initial: int = 0) -> Bar:
        """A progress bar that knows how fast this machine was."""
        return Bar(what, total, unit, initial, self._watch)

    @cached_property
    def _watch(self) -> Watch | None:
        return Watch(self.threads) if self.threads else None  # one for all bars: it gives its advice once

    def lpo_form(self, model: GPT, head: AdaptiveDecoder, constant_head: AdaptiveDecoder) -> dict[str, Any]:
        """What half-done LPO holds, as `files.misfit` expects it."""
        trained = {"head": head, **({"model": model} if self.config.lpo.train_lm else {})}
        states = {name: module.state_dict() for name, module in trained.items()}
        moments = adam_form([parameter for module in trained.values() for parameter in module.parameters()])
        best = {"validation_reward": float, "round": int, **states}
        log = lpo_log_form(self.tasks, len(self.config.temperatures), self.config.lpo)
        return {
            **states,
            "constant_head": constant_head.state_dict(),
            "optimizer": moments,
            "log": log,
            "best": best,
            "lpo": str,
        }

    def _load_state(self, name: str, settings: str, form: dict[str, Any]) -> dict[str, Any] | None:
        """Half-done work with these settings; None if there is none, or only some with others, which is then begun anew."""
        path = self.path / name
        if not path.exists():
            return None
        remedy = f"delete {shlex.quote(str(path))} to begin this step anew"
        state = load_tensors(path, remedy)
        if state.get("settings") != settings:
            return None
        wrong = misfit(state, {**form, "settings": str})
        if not wrong and "step" in state:
            wrong = _wrong_count(state["log"], {"step": min(state["step"], self.config.pretrain.steps)})
        elif not wrong:
            rounds = len(state["log"])
            wrong = _wrong_count(state["log"], {"round": min(rounds, self.config.lpo.rounds)})
            wrong = wrong or (None if 1 <= state["best"]["round"] <= rounds else "its best round is none of those it logs")
        if wrong:
            raise ValueError(f"{path} must be the half-done work of this run, but {wrong}; {remedy}")
        return state

    def _finish(self, step: str, log: list[dict[str, Any]], files: Sequence[str]) -> None:
        """Writes a step's log, which makes it done, and forgets its half-done work."""
        digests = {name: digest_of(self.path / name) for name in files}
        settings = self.key_of_settings(*STEPS[step].settings)
        write_sealed_json(self.path / STEPS[step].log, {"settings": settings, "files": digests, "log": log})
        self._remove(STEPS[step].state)

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def work_in_run(path: Path, config: RunConfig) -> Iterator[None]:
    """`files.work_in` for a run folder: room for an old and a new checkpoint, and no partial files of a killed run."""
    with work_in(path, megabytes=20 + 32 * config.model.n_parameters // 10**6):
        if (path / "config.json").is_file():
            tidy(path, path / "figures")
        yield


def read_config(path: Path) -> RunConfig:
    """The settings in a file; raises ValueError that names it if they are damaged, or of another version."""
    remedy = "put it back as it was, or make a new run folder"
    content = read_sealed_json(path, remedy)
    try:
        return RunConfig.from_dict(content)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} must hold the settings of a run, but {error}; {remedy}") from None


def write_config(path: Path, config: RunConfig) -> None:
    """Writes settings for `read_config`."""
    write_sealed_json(path, config.to_dict())


def _allowed(name: str, config: RunConfig, task_files: Sequence[str]) -> str:
    """The task file that the user named, for one that a run's settings name: the same file, wherever it lies today."""
    if not name.endswith(".py"):
        return name
    files = [file for file in task_files if file.endswith(".py") and Path(file).is_file()]
    same = [file for file in files if digest_of(Path(file)) == config.digests.get(name)]
    if same:
        return same[0]
    if any(Path(file).name == Path(name).name for file in files):
        raise ValueError(
            f"the task file {name!r} must be the one that the run was made with, but it has changed since; "
            "put it back as it was, or make a new run folder"
        )
    raise ValueError(
        f"the run uses a task from {name!r}, whose code only runs if you name it: add --tasks {shlex.join(config.tasks)}"
    )


def _is_a_stump(path: Path) -> bool:
    """Whether a file is what a run leaves if it is killed while it writes its first file."""
    return path.name in (".config.json.partial", ".trial.partial") and path.is_file()


def _wrong_count(log: list[dict[str, Any]], last: dict[str, int]) -> str | None:
    """What is wrong with a log that should count up to a step of pretraining or to a round of LPO, if anything is."""
    [(unit, end)] = last.items()
    expected = [*range(LOG_EVERY, end, LOG_EVERY), end] if unit == "step" else [*range(1, end + 1)]
    counted = [entry[unit] for entry in log]
    return None if end >= 1 and counted == expected else f"its log counts {str(counted)[:60]}"


def _step_of(name: str) -> str:
    return "pretrain" if name in ("tokenizer.json", "model.pt", "pretrain_log.json", "pretrain_state.pt") else "train"


def use_threads(run: Run, asked: int | None = None) -> None:
    """Decides how many threads compute. The steps keep the number with the run, once they know that they can begin."""
    run.threads = pick(asked, run.config.threads or None)
    if run.threads.seconds:
        say(f"minilpo: computing with {run.threads.why}")


def pretrain_step(run: Run) -> None:
    """Trains the language model, unless that is done."""
    if run.is_done("pretrain") and run.has("tokenizer.json"):
        run.tokenizer()  # says if it is damaged
        run._remove("pretrain_state.pt")
        return
    started = perf_counter()
    config, seed = run.config.pretrain, run.config.seed
    if not run.has("tokenizer.json"):  # the same tasks make the same one
        run._train_tokenizer().save(run.path / "tokenizer.json")
    tokenizer, model = run.tokenizer(), run.new_model()
    settings = run.key_of_settings(*STEPS["pretrain"].settings)
    state = run._load_state("pretrain_state.pt", settings, pretrain_form(model))
    examples, held_out = run.examples(tokenizer)
    run.keep()
    run.add_seconds(pretrain=perf_counter() - started)

    def save(state: dict[str, Any], seconds: dict[str, float]) -> None:
        save_tensors(run.path / "pretrain_state.pt", {**state, "settings": settings})
        run.add_seconds(**seconds)

    with run.bar("pretraining", config.steps, "step", state["step"] if state else 0) as bar:
        log = pretrain(model, examples, held_out, tokenizer.pad_id, config, seed, state=state, save=save, progress=bar.update)
    save_tensors(run.path / "model.pt", model.state_dict())
    run._finish("pretrain", log, ["model.pt"])
    del run._examples


def pretrain_form(model: GPT) -> dict[str, Any]:
    """What half-done pretraining holds, as `files.misfit` expects it."""
    moments = adam_form([p for group in parameter_groups(model) for p in group])
    return {"model": model.state_dict(), "optimizer": moments, "step": int, "log": PRETRAIN_LOG}


def train_step(run: Run, lpo: LPOConfig | None = None) -> None:
    """Trains the head by LPO, unless that is done.

    Args:
        run: what was trained before stays in its folder until the new training is done.
        lpo: settings to train with instead of the run's, which then become the run's.
    """
    run.log("pretrain")  # says if the language model isn't there, or isn't what it was
    new = Run(run.path, replace(run.config, lpo=lpo or run.config.lpo), run.tasks, run.threads)
    config, path = new.config.lpo, run.path / "lpo_state.pt"
    model, tokenizer, head, constant_head = new.model(), new.tokenizer(), new.new_head(), new.new_head(ConstantHead)
    settings = new.key_of_settings(*STEPS["train"].settings)
    state = new._load_state("lpo_state.pt", settings, new.lpo_form(model, head, constant_head))
    if config == run.config.lpo and run.is_done("train"):
        if state:
            run._remove("lpo_state.pt")  # of this very training; half-done work with other settings stays
        return
    new.check(tokenizer, new.prompts(["lpo"]))
    run.keep()

    def save(state: dict[str, Any], seconds: dict[str, float]) -> None:
        save_tensors(path, {**state, "settings": settings, "lpo": json.dumps(as_json(config))})
        run.add_seconds(**seconds)

    n_tasks, done = len(run.tasks), len(state["log"]) if state else 0
    a_round = n_tasks * (-(-config.prompts // n_tasks) * config.samples + config.validation_prompts * VALIDATION_SAMPLES)
    with run.bar("LPO", config.rounds * a_round, "response", done * a_round) as bar:
        options = {"constant_head": constant_head, "state": state, "save": save, "progress": bar.update}
        log = train_lpo(model, tokenizer, run.tasks, head, config, run.config.seed, **options)
    # From here on the old results go, the log first: without it nothing counts as done. All of the new ones is in the state.
    run._remove("lpo_log.json", "metrics.json", "examples.txt", *(f"figures/{name}" for name in FIGURES))
    trained = {"head.pt": head, "constant_head.pt": constant_head}
    trained |= {"trained_model.pt": model} if config.train_lm else {}
    run._remove(*{"trained_model.pt"} - set(trained))
    for name, module in trained.items():
        save_tensors(run.path / name, module.state_dict())
    run.keep(lpo=config)
    run._finish("train", log, ["model.pt", *trained])


def half_done_lpo(run: Run) -> LPOConfig | None:
    """The settings of a training of the head that was interrupted, or None if there is none."""
    path = run.path / "lpo_state.pt"
    if not path.exists():
        return None
    remedy = f"delete {shlex.quote(str(path))} to begin this step anew"
    try:
        content = json.loads(str(load_tensors(path, remedy).get("lpo")))
        return RunConfig.from_dict({**run.config.to_dict(), "lpo": content}).lpo
    except (ValueError, TypeError, RecursionError) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} must be the half-done work of this run, but {error}; {remedy}") from None


def evaluate_step(run: Run, evaluation: EvaluationConfig | None = None) -> dict[str, Any]:
    """Measures the head on test prompts, writes `metrics.json`, the examples and the figures, and returns the metrics.

    Args:
        run: its old results stay until the new ones are there.
        evaluation: settings to measure with instead of the run's, which then become the run's.
    """
    started = perf_counter()
    logs = run.log("pretrain"), run.log("train")
    new = Run(run.path, replace(run.config, evaluation=evaluation or run.config.evaluation), run.tasks, run.threads)
    config, tokenizer = new.config, new.tokenizer()
    new.check(tokenizer, new.prompts(["evaluation"]))
    model, head, constant_head = run.model(trained=True), run.head(), run.head(ConstantHead)
    spent = run.seconds()
    run.keep()
    total = responses_to_write(run.tasks, len(config.temperatures), config.level, config.evaluation)
    with run.bar("evaluating", total, "response") as bar:
        measured, test = evaluate(model, tokenizer, run.tasks, head, config.evaluation, config.seed, bar.update, constant_head)
    run._remove("metrics.json")
    (run.path / "figures").mkdir(exist_ok=True)
    with plots.own_style():
        draw_figures(measured, *logs, run.path / "figures")
    write_bytes(run.path / "examples.txt", example_responses(test, config.temperatures).encode())
    run.keep(evaluation=config.evaluation)
    run.add_seconds(evaluate=perf_counter() - started - spent["evaluate"])  # this evaluation replaces the last
    seconds = run.seconds()
    seconds["total"] = sum(seconds.values())
    metrics = {"seed": config.seed, "level": config.level, **measured, "seconds": seconds}
    write_json(run.path / "metrics.json", metrics)
    return metrics


def adam_form(parameters: Sequence[nn.Parameter]) -> dict[int, dict[str, torch.Tensor]]:
    """What Adam remembers of each parameter, as `files.misfit` expects it."""
    step, moments = torch.zeros(()), [torch.zeros_like(parameter) for parameter in parameters]
    return {i: {"step": step, "exp_avg": moment, "exp_avg_sq": moment} for i, moment in enumerate(moments)}


def _flat(config: RunConfig, sections: Sequence[str]) -> dict[str, Any]:
    """The general settings and those of some sections in one dictionary, without what isn't set but found.

    A task file is known by its content, so it may lie elsewhere today.
    """
    content = as_json(config)
    flat = {name: value for name, value in content.items() if not isinstance(value, dict)}
    flat["tasks"] = [config.digests.get(name, name) for name in config.tasks]
    for section in sections:
        flat |= content[section]
    return {name: value for name, value in flat.items() if name not in ("vocab_size", "threads")}


def first_difference(there: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first setting that differs, as a flag with both values; None if all are the same.

    >>> first_difference({"seed": 0, "tasks": ["math"]}, {"seed": 1, "tasks": ["math"]})
    '--seed 0, not 1'
    """
    for name, value in asked.items():
        if there[name] != value:
            old, new = (" ".join(map(str, v)) if isinstance(v, list) else v for v in (there[name], value))
            return f"--{name.replace('_', '-')} {old}, not {new}"
    return None
