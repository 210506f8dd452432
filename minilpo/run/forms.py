"""What the files of a run must hold: the forms that `files.misfit` compares them with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from minilpo.config import LPOConfig
from minilpo.lm.pretraining import LOG_EVERY, Pretraining, parameter_groups
from minilpo.tasks import Task
from minilpo.training import Training


class Step(NamedTuple):
    """What belongs to a step that can be resumed."""

    log: str  # written last: with it, the step is done
    state: str  # half-done work
    files: tuple[str, ...]  # read or written by the step; the log names them with their checksums
    settings: tuple[str, ...]  # the sections that its results depend on


STEPS = {
    "pretrain": Step(
        log="pretrain_log.json",
        state="pretrain_state.pt",
        files=("model.pt",),
        settings=("model", "pretrain"),
    ),
    "train": Step(
        log="lpo_log.json",
        state="lpo_state.pt",
        files=("model.pt", "head.pt", "constant_head.pt", "trained_model.pt"),
        settings=("model", "pretrain", "lpo"),
    ),
}
PRETRAIN_LOG = [{"step": int, "loss": float, "held_out_loss": float}]  # as `files.misfit` reads it


def lpo_log_form(tasks: Sequence[Task], n_choices: int, config: LPOConfig) -> list[Any]:
    """What the log of LPO holds."""
    shares = {task.name: (float,) * n_choices for task in tasks}
    counts = dict.fromkeys(("round", "pairs", "dropped_prompts"), int)
    means = dict.fromkeys(("sampled_reward", "validation_reward"), float)
    epoch = dict.fromkeys(("loss", "margin", "pair_accuracy", "entropy"), float)
    epochs = {"epochs": (epoch,) * config.epochs}
    return [{**counts, "chosen_share": shares, "rejected_share": shares, **means, **epochs}]


def pretraining_form(training: Pretraining) -> dict[str, Any]:
    """What half-done pretraining holds."""
    matrices, vectors = parameter_groups(training.model)
    moments = adam_form([*matrices, *vectors])
    return {**training.state_dict(), "optimizer": moments, "log": PRETRAIN_LOG, "step": int}


def lpo_form(training: Training, tasks: Sequence[Task], config: LPOConfig) -> dict[str, Any]:
    """What half-done LPO holds."""
    trained = training.score.trained
    parameters = [parameter for module in trained.values() for parameter in module.parameters()]
    states = {name: module.state_dict() for name, module in trained.items()}
    return {
        **training.state_dict(),
        "optimizer": adam_form(parameters),
        "log": lpo_log_form(tasks, training.n_choices, config),
        "best": {"validation_reward": float, "round": int, **states},
        "lpo": str,
    }


def adam_form(parameters: Sequence[nn.Parameter]) -> dict[int, dict[str, torch.Tensor]]:
    """What Adam remembers of each parameter."""
    form: dict[int, dict[str, torch.Tensor]] = {}
    for i, parameter in enumerate(parameters):
        moment = torch.zeros_like(parameter)
        form[i] = {"step": torch.zeros(()), "exp_avg": moment, "exp_avg_sq": moment}
    return form


def wrong_count(log: list[dict[str, Any]], last: dict[str, int]) -> str | None:
    """What is wrong with a log that should count up to a step of pretraining or a round of LPO."""
    [(unit, end)] = last.items()
    expected = [*range(LOG_EVERY, end, LOG_EVERY), end] if unit == "step" else [*range(1, end + 1)]
    counted = [entry[unit] for entry in log]
    return None if end >= 1 and counted == expected else f"its log counts {str(counted)[:60]}"


def step_of(name: str) -> str:
    """The step that writes a file."""
    of_pretrain = ("tokenizer.json", "model.pt", "pretrain_log.json", "pretrain_state.pt")
    return "pretrain" if name in of_pretrain else "train"
