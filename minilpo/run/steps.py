"""The three steps that fill a run folder: pretrain, train, evaluate. Each can be resumed."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import EvaluationConfig, LPOConfig, RunConfig, as_json
from minilpo.constant_control import fit_constant
from minilpo.decoding.policies import GreedyHead
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.evaluate import evaluate, responses_to_evaluate
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.pretraining import Pretraining, pretrain
from minilpo.machine.device import device_of
from minilpo.machine.files import save_tensors, tidy, work_in, write_bytes, write_json
from minilpo.machine.progress import say
from minilpo.machine.threads import pick
from minilpo.rivals.by_config import responses_per_round, training_of
from minilpo.rivals.joint import words_and_head
from minilpo.run import processes
from minilpo.run.folder import Run
from minilpo.seeds import torch_defaults
from minilpo.show import plots
from minilpo.show.page import NAME as PAGE
from minilpo.show.page import Results, chosen_responses, run_page
from minilpo.show.report import FIGURES, draw_figures, example_responses, write_figures
from minilpo.show.samples import sentences_while_training
from minilpo.training import TrainState


@contextlib.contextmanager
def work_in_run(path: Path, config: RunConfig) -> Iterator[None]:
    """`files.work_in` for a run folder, with room for two checkpoints and without partial files."""
    with work_in(path, megabytes=20 + 32 * config.model.n_parameters // 10**6):
        if (path / "config.json").is_file():
            tidy(path, path / "figures")
        yield


def use_machine(run: Run, threads: int | None = None, device: str = "cpu") -> None:
    """Decides where is computed, and with how many threads.

    A step keeps the number of threads with the run when it begins. Where it was computed isn't
    kept: a run that was made on an accelerator can be used anywhere.
    """
    run.device = device_of(device)
    run.threads = pick(threads, run.config.threads or None)
    if run.threads.seconds:
        say(f"minilpo: computing with {run.threads.why}")


@torch_defaults()
def pretrain_step(run: Run) -> None:
    """Trains the language model, unless that is done."""
    if run.is_done("pretrain") and run.has("tokenizer.json"):
        run.tokenizer()  # says if it is damaged
        run.remove("pretrain_state.pt")
        return
    clock = Clock()
    if not run.has("tokenizer.json"):  # the same tasks make the same one
        run.train_tokenizer().save(run.path / "tokenizer.json")
    tokenizer, model = run.tokenizer(), run.new_model()
    settings = run.key_of_settings("pretrain")

    def save(training: Pretraining) -> None:
        state = {**training.state_dict(), "settings": settings}
        save_tensors(run.path / "pretrain_state.pt", state)
        run.add_seconds(pretrain=clock.lap())

    with run.bar("pretraining", "step") as bar:
        training = Pretraining(model, run.config.pretrain, save)
        with run.half_done("pretrain") as state:
            if state.get("settings") == settings:  # what was begun with others is begun anew
                training.load_state_dict(state)
        corpus = run.corpus(tokenizer)
        run.keep()
        bar.begin(run.config.pretrain.steps, training.step)
        lm, n_steps = GPTLanguageModel(model, tokenizer), run.config.pretrain.steps
        show_sentence = sentences_while_training(lm, corpus.held_out, n_steps, say)

        def progress(n: int) -> None:
            bar.advance(n)
            show_sentence(training.step)

        given = model, corpus, run.config.pretrain, run.config.seed, training
        log = pretrain(*given, progress, processes.add_gradients)
    save_tensors(run.path / "model.pt", model.state_dict())
    run.finish("pretrain", log, ["model.pt"])
    run.forget_corpus()


@torch_defaults()
def train_step(run: Run, lpo: LPOConfig | None = None) -> None:
    """Trains the head by LPO, unless that is done.

    Args:
        run: what was trained before stays in its folder until the new training is done.
        lpo: settings to train with instead of the run's, which then become the run's.
    """
    run.log("pretrain")  # says if the language model isn't there, or isn't what it was
    config = lpo or run.config.lpo
    new = run.with_config(lpo=config)
    lm = GPTLanguageModel(new.model(), new.tokenizer())
    head, constant_head = new.new_head(AdaptiveDecoder), new.new_head(ConstantHead)
    settings = new.key_of_settings("train")
    # `half_done_lpo` reads there with which settings to go on.
    more = {"settings": settings, "lpo": json.dumps(as_json(config))}
    train, fit, state = training_of(lm, head, config)
    clock, seconds = Clock(), {"rollout": 0.0}

    def save(state: TrainState, *_: object) -> None:
        content = {**state.state_dict(), "constant_head": constant_head.state_dict(), **more}
        save_tensors(run.path / "lpo_state.pt", content)
        rollout, seconds["rollout"] = seconds["rollout"], 0.0
        run.add_seconds(rollout=rollout, lpo=clock.lap() - rollout)

    def respond(*asked: Any, **options: Any) -> tuple[Rollout, Tensor]:
        own = Clock()
        responses = processes.respond(*asked, progress=bar.advance, **options)
        seconds["rollout"] += own.lap()
        return responses

    with run.bar("LPO", "response") as bar:
        with new.half_done("train") as half_done:
            goes_on = half_done.get("settings") == settings  # with others it is begun anew
            if goes_on:
                state.load_state_dict(half_done)
                constant_head.load_state_dict(half_done["constant_head"])
        if config == run.config.lpo and run.is_done("train"):
            if goes_on:
                run.remove("lpo_state.pt")  # of this very training; others' half-done work stays
            return
        new.check(lm.tokenizer, new.prompts(["lpo"]))
        run.keep()
        per_round = responses_per_round(config, len(run.tasks))
        bar.begin(config.rounds * per_round, len(state.log) * per_round)
        state.callbacks += [fit_constant(constant_head, config, run.config.seed, fit), save]
        clock.lap()
        asked = lm, run.tasks, head, new.choices, config, run.config.seed
        log = train(*asked, state, respond)
    # The old results go, the log first: without it nothing counts as done. The state holds the new.
    figures = [f"figures/{name}" for name in FIGURES]
    run.remove("lpo_log.json", "metrics.json", "examples.txt", PAGE, *figures)
    trained: dict[str, nn.Module] = {"head.pt": head, "constant_head.pt": constant_head}
    if config.train_lm:
        trained["trained_model.pt"] = lm.model
    else:
        run.remove("trained_model.pt")
    for name, module in trained.items():
        save_tensors(run.path / name, module.state_dict())
    run.keep(lpo=config)
    run.finish("train", log, ["model.pt", *trained])


def half_done_lpo(run: Run) -> LPOConfig | None:
    """The settings of a training of the head that was interrupted, or None if there is none."""
    with run.half_done("train") as state:
        return LPOConfig(**json.loads(state["lpo"])) if state else None


@torch_defaults()
def evaluate_step(run: Run, evaluation: EvaluationConfig | None = None) -> dict[str, Any]:
    """Measures the head on test prompts, writes all there is to see of it, returns the metrics.

    Args:
        run: its old results stay until the new ones are there.
        evaluation: settings to measure with instead of the run's, which then become the run's.
    """
    clock = Clock()
    logs = run.log("pretrain"), run.log("train")
    new = run.with_config(evaluation=evaluation or run.config.evaluation)
    config = new.config
    new.check(new.tokenizer(), new.prompts(["evaluation"]))
    lm, policy = run.language_model(trained=True), GreedyHead(run.head(), run.choices)
    constant_head = run.constant_head()
    spent = run.seconds()
    run.keep()
    with run.bar("evaluating", "response") as bar:
        n_responses = responses_to_evaluate(run.tasks, policy, config.evaluation)
        n_test = config.evaluation.test_prompts * config.evaluation.samples_per_prompt
        bar.begin(n_responses + config.lpo.train_lm * n_test * len(run.tasks))
        respond = partial(processes.respond, progress=bar.advance)
        asked = run.tasks, policy, config.evaluation, config.seed
        measured, test = evaluate(lm, *asked, constant_head, respond)
        if config.lpo.train_lm:
            before = run.language_model()
            measured["joint"] = words_and_head(before, *asked, measured["mean"], respond)
    with plots.own_style():
        pictures = draw_figures(measured, *logs)
    shown = chosen_responses(test, lm, run.choices.names)
    examples = example_responses(test, run.choices)
    run.remove("metrics.json", PAGE)
    (run.path / "figures").mkdir(exist_ok=True)
    write_figures(pictures, run.path / "figures")
    write_bytes(run.path / "examples.txt", examples.encode())
    run.keep(evaluation=config.evaluation)
    run.add_seconds(evaluate=clock.lap() - spent["evaluate"])  # this evaluation replaces the last
    seconds = run.seconds()
    seconds["total"] = sum(seconds.values())
    metrics = {"seed": config.seed, "level": config.level, **measured, "seconds": seconds}
    page = run_page(Results(run.config, metrics, *logs, pictures, *shown))
    write_bytes(run.path / PAGE, page.encode())
    write_json(run.path / "metrics.json", metrics)
    return metrics


class Clock:
    """Tells the seconds since it was last asked."""

    def __init__(self) -> None:
        self.last = perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, at first since it was made."""
        now = perf_counter()
        seconds, self.last = now - self.last, now
        return seconds
