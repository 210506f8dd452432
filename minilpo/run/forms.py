"""What the files of a run must hold: the forms that `files.misfit` compares them with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from minilpo.lm.pretraining import LOG_EVERY, Pretraining, parameter_groups
from minilpo.tasks import Task
from minilpo.training import TrainState


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


def lpo_log_form(tasks: Sequence[Task], n_choices: int) -> list[Any]:
    """What the log of LPO holds."""
    shares = {task.name: (float,) * n_choices for task in tasks}
    counts = dict.fromkeys(("round", "pairs", "dropped_prompts"), int)
    means = dict.fromkeys(("sampled_reward", "validation_reward"), float)
    epoch = dict.fromkeys(("loss", "margin", "pair_accuracy", "entropy"), float)
    epochs = {"epochs": [epoch]}  # see `wrong_rounds`
    return [{**counts, "chosen_share": shares, "rejected_share": shares, **means, **epochs}]


def pretraining_form(training: Pretraining) -> dict[str, Any]:
    """What half-done pretraining holds."""
    matrices, vectors = parameter_groups(training.model)
    moments = adam_form([*matrices, *vectors])
    return {**training.state_dict(), "optimizer": moments, "log": PRETRAIN_LOG, "step": int}


def lpo_form(state: TrainState, constant_head: nn.Module, tasks: Sequence[Task]) -> dict[str, Any]:
    """What half-done LPO holds."""
    modules = state.modules.values()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return {
        **state.state_dict(),
        "constant_head": constant_head.state_dict(),
        "optimizer": adam_form(parameters),
        "log": lpo_log_form(tasks, state.n_choices),
        "best": {"validation_reward": float, "round": int, **state.weights()},
        "lpo": str,
    }


def adam_form(parameters: Sequence[nn.Parameter]) -> dict[int, dict[str, torch.Tensor]]:
    """What Adam remembers of each parameter."""
    form: dict[int, dict[str, torch.Tensor]] = {}
    for i, parameter in enumerate(parameters):
        moment = torch.zeros_like(parameter)
        form[i] = {"step": torch.zeros(()), "exp_avg": moment, "exp_avg_sq": moment}
    return form


def wrong_steps(log: list[dict[str, Any]], last: int) -> str | None:
    """What is wrong with a log that should lead up to a step of pretraining."""
    return _wrong_count(log, "step", [*range(LOG_EVERY, last, LOG_EVERY), last])


def wrong_rounds(log: list[dict[str, Any]], last: int, n_epochs: int) -> str | None:
    """What is wrong with a log that should lead up to a round of LPO."""
    for entry in log:
        found, expected = len(entry["epochs"]), n_epochs if entry["pairs"] else 0
        if found != expected:
            return f"round {entry['round']} logs {found} epochs instead of {expected}"
    return _wrong_count(log, "round", [*range(1, last + 1)])


def _wrong_count(log: list[dict[str, Any]], unit: str, expected: list[int]) -> str | None:
    counted = [entry[unit] for entry in log]
    fits = counted == expected and expected[-1:] > [0]
    return None if fits else f"its log counts {str(counted)[:60]}"


def step_of(name: str) -> str:
    """The step that writes a file."""
    of_pretrain = ("tokenizer.json", "model.pt", "pretrain_log.json", "pretrain_state.pt")
    return "pretrain" if name in of_pretrain else "train"
