"""The three steps that fill a run folder: pretrain, train, evaluate. Each can be resumed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import EvaluationConfig, LPOConfig, RunConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.policies import GreedyHead
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.evaluate import evaluate, responses_to_evaluate
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.pretraining import Pretraining, pretrain
from minilpo.machine.device import device_of
from minilpo.machine.files import RECORD, Record, json_bytes, tensor_bytes, work_in
from minilpo.machine.progress import bar, say
from minilpo.machine.threads import pick
from minilpo.rivals.by_config import responses_per_round, training_of
from minilpo.rivals.joint import words_and_head
from minilpo.run import processes
from minilpo.run.begin import check_prompts, corpus_of, prompts_of, train_tokenizer
from minilpo.run.folder import LOGS, PUT_BACK, STATES, Run
from minilpo.seeds import torch_defaults
from minilpo.show import plots
from minilpo.show.page import NAME as PAGE
from minilpo.show.page import chosen_responses, run_page
from minilpo.show.report import draw_figures, example_responses, figure_files
from minilpo.show.samples import answers_while_training
from minilpo.training import TrainState

PHASES = ("pretrain", "rollout", "lpo", "evaluate")  # whose seconds are counted


@contextlib.contextmanager
def work_in_run(path: Path, config: RunConfig) -> Iterator[None]:
    """Keeps a run folder for this process, with room for two checkpoints; settles its record."""
    with work_in(path, megabytes=20 + 32 * config.model.n_parameters // 10**6):
        if (path / RECORD).exists():
            Record(path, PUT_BACK).settle()
        yield


def use_machine(run: Run, threads: int | None = None, device: str = "cpu") -> None:
    """Chooses the device, and the number of threads, which the next commit keeps."""
    run.device = device_of(device)
    n = pick(threads, run.config.threads or None, say)
    run.config = run.with_config(threads=n).config


def clock_of(run: Run) -> Callable[[str], None]:
    """Starts a clock: calling it with a phase adds the seconds since the last call to that."""
    last, seconds = perf_counter(), run.record.seconds

    def spend(phase: str) -> None:
        nonlocal last
        now = perf_counter()
        seconds[phase], last = seconds.get(phase, 0.0) + now - last, now

    return spend


@torch_defaults()
def pretrain_step(run: Run) -> None:
    """Trains the language model, unless that is done."""
    tokenizer = _tokenizer(run)
    if run.is_done("pretrain"):
        return
    spend, model, settings = clock_of(run), run.new_model(), run.settings("pretrain")

    def save(training: Pretraining) -> None:
        spend("pretrain")
        state = {STATES["pretrain"]: tensor_bytes(training.state_dict())}
        run.commit({"half-done pretrain": (settings, state)})

    training = Pretraining(model, run.config.pretrain, save)
    if state := run.half_done("pretrain"):
        training.load_state_dict(state)
    corpus = corpus_of(run, tokenizer)
    given = model, corpus, run.config.pretrain, run.config.seed, training
    n_steps = run.config.pretrain.steps
    with bar("pretraining", "step", n_steps, training.step) as progress:
        lm = GPTLanguageModel(model, tokenizer)
        show_answer = answers_while_training(lm, corpus.held_out, n_steps, say)

        def step(n: int) -> None:
            progress.update(n)
            show_answer(training.step)

        log = pretrain(*given, step, processes.add_gradients)
    files = {"model.pt": tensor_bytes(model.state_dict()), LOGS["pretrain"]: json_bytes(log)}
    spend("pretrain")
    run.commit({"pretrain": (settings, files)}, ["half-done pretrain"])
    run.corpus = None  # it takes memory


def _tokenizer(run: Run) -> Any:
    """Reads the tokenizer of a run, or makes it again: the same tasks make the same one."""
    try:
        return run.tokenizer()
    except ValueError:
        tokenizer = train_tokenizer(run)
        if tokenizer.vocab_size != run.config.model.vocab_size:
            raise
        run.commit({"tokenizer": (None, {"tokenizer.json": tokenizer.to_bytes()})})
        return tokenizer


@torch_defaults()
def train_step(run: Run, lpo: LPOConfig | None = None) -> None:
    """Trains the head by LPO, unless that is done; other settings then become the run's.

    Earlier results stay in force until the new training is done.
    """
    run.log("pretrain")  # says if the language model isn't there, or isn't what it was
    config = lpo or run.config.lpo
    new = run.with_config(lpo=config)
    lm = GPTLanguageModel(new.model(), new.tokenizer())
    if new.is_done("train"):
        return
    check_prompts(new, lm.tokenizer, prompts_of(new, ["lpo"]))
    head, constant_head = new.new_head(AdaptiveDecoder), new.new_head(ConstantHead)
    train, fit, state = training_of(lm, head, config)
    spend, settings = clock_of(run), new.settings("train")

    def save(state: TrainState, *_: object) -> None:
        spend("lpo")
        content = {**state.state_dict(), "constant_head": constant_head.state_dict()}
        # Until the training is done the settings of the old one stay in config.json.
        files = {STATES["train"]: tensor_bytes(content)}
        run.commit({"half-done train": (settings, files)})

    def respond(*asked: Any, **options: Any) -> tuple[Rollout, Tensor]:
        spend("lpo")
        responses = processes.respond(*asked, progress=progress.update, **options)
        spend("rollout")
        return responses

    if half_done := new.half_done("train"):
        state.load_state_dict(half_done)
        constant_head.load_state_dict(half_done["constant_head"])
    per_round = responses_per_round(config, len(run.tasks))
    with bar("LPO", "response", config.rounds * per_round, len(state.log) * per_round) as progress:
        state.callbacks += [fit_constant(constant_head, config, run.config.seed, fit), save]
        asked = lm, run.tasks, head, new.choices, config, run.config.seed
        log = train(*asked, state, respond)
    trained: dict[str, nn.Module] = {"head.pt": head, "constant_head.pt": constant_head}
    if config.train_lm:
        trained["trained_model.pt"] = lm.model
    files = {name: tensor_bytes(module.state_dict()) for name, module in trained.items()}
    files[LOGS["train"]] = json_bytes(log)
    run.config = new.config
    run.commit({"train": (settings, files)}, ["half-done train", "evaluate"])


def half_done_lpo(run: Run) -> LPOConfig | None:
    """Returns the settings of an interrupted training of the head, or None if there is none."""
    settings = run.record.settings_of("half-done train")
    if not (settings and run.record.holds(STATES["train"])):
        return None
    return LPOConfig(**{field.name: settings[field.name] for field in fields(LPOConfig)})


@torch_defaults()
def evaluate_step(run: Run, evaluation: EvaluationConfig | None = None) -> dict[str, Any]:
    """Measures the head on test prompts, writes all results, returns the metrics.

    Other settings then become the run's.
    """
    spend = clock_of(run)
    logs = run.log("pretrain"), run.log("train")
    new = run.with_config(evaluation=evaluation or run.config.evaluation)
    config = new.config
    check_prompts(new, new.tokenizer(), prompts_of(new, ["evaluation"]))
    lm, policy = run.language_model(trained=True), GreedyHead(run.head(), run.choices)
    constant_head = run.constant_head()
    n_responses = responses_to_evaluate(run.tasks, policy, config.evaluation)
    n_test = config.evaluation.test_prompts * config.evaluation.samples_per_prompt
    n_responses += config.lpo.train_lm * n_test * len(run.tasks)
    with bar("evaluating", "response", n_responses) as progress:
        respond = partial(processes.respond, progress=progress.update)
        asked = run.tasks, policy, config.evaluation, config.seed
        measured, test = evaluate(lm, *asked, constant_head, respond)
        if config.lpo.train_lm:
            before = run.language_model()
            measured["joint"] = words_and_head(before, *asked, measured["mean"], respond)
    with plots.own_style():
        pictures = draw_figures(measured, *logs)
    shown = chosen_responses(test, lm, run.choices.names)
    run.record.seconds["evaluate"] = 0.0  # this evaluation replaces the last
    spend("evaluate")
    seconds = {phase: run.record.seconds.get(phase, 0.0) for phase in PHASES}
    seconds["total"] = sum(seconds.values())
    metrics = {"seed": config.seed, "level": config.level, **measured, "seconds": seconds}
    page = run_page(config, metrics, *logs, pictures, shown)
    files = {"metrics.json": json_bytes(metrics), PAGE: page.encode()}
    files["examples.txt"] = example_responses(test, run.choices).encode()
    files |= {f"figures/{name}": data for name, data in figure_files(pictures).items()}
    run.config = config
    run.commit({"evaluate": (None, files)})
    return metrics
