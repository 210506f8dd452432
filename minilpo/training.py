"""What happens around LPO: what a training carries from round to round, keeps and logs."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Choices
from minilpo.decoding.rollout import Rollout, Scored, concatenate
from minilpo.decoding.sampling import entropy
from minilpo.lm.language_model import LanguageModel
from minilpo.machine import processes
from minilpo.machine.progress import Progress
from minilpo.preferences import Comparisons, LearningRule, PreferencePairs, Said, joined
from minilpo.seeds import python_rng
from minilpo.tasks import Task, mixed_prompts

VALIDATION_SAMPLES = 4  # responses per held-out prompt, after every round
PROMPTS_AT_ONCE = 128  # whose responses are written before those in no pair are forgotten


class ScoreOfResponses(Protocol):
    """What is trained, and how it scores responses: `lpo.HeadScore` or `joint_score.JointScore`."""

    head: AdaptiveDecoder
    trained: dict[str, nn.Module]  # "head", and with Eq. 9 "model"

    def examples(self, lm: LanguageModel, rollout: Rollout, choices: Choices) -> Any:
        """What the scores are made from; it has `rows`."""

    def __call__(self, examples: Any, /) -> tuple[Tensor, Tensor]:
        """The scores of R responses, (R,), and the choice logits behind them, (n, K)."""


def round_prompts(
    tasks: Sequence[Task], config: LPOConfig, seed: int, n_done: int
) -> tuple[list[Task], list[str]]:
    """The training prompts of the round after `n_done` others, and the task of each."""
    rng = python_rng(seed, f"LPO prompts {n_done}")
    return mixed_prompts(tasks, config.prompts_per_task(len(tasks)), "train", rng)


def held_out_prompts(
    tasks: Sequence[Task], config: LPOConfig, seed: int
) -> tuple[list[Task], list[str]]:
    """The prompts on which the best head is chosen, the same after every round; their tasks."""
    rng = python_rng(seed, "validation prompts")
    return mixed_prompts(tasks, config.validation_prompts, "validation", rng)


def all_prompts(tasks: Sequence[Task], config: LPOConfig, seed: int, n_done: int = 0) -> list[str]:
    """The prompts of all rounds after `n_done` others, and the held-out ones."""
    prompts = held_out_prompts(tasks, config, seed)[1]
    for n in range(n_done, config.rounds):
        prompts = prompts + round_prompts(tasks, config, seed, n)[1]
    return prompts


def responses_per_round(config: LPOConfig, n_tasks: int) -> int:
    """How many responses are written in a round, those to the held-out prompts included.

    >>> responses_per_round(LPOConfig(), n_tasks=4)
    18432
    """
    to_learn = config.prompts_per_task(n_tasks) * config.samples
    to_check = config.validation_prompts * VALIDATION_SAMPLES
    return n_tasks * (to_learn + to_check)


class Kept(NamedTuple):
    """What is kept of the responses to some prompts."""

    rewards: Tensor  # (P, N) of all
    rollout: Rollout  # those that are compared
    compared: Comparisons  # as rows of these


class Written:
    """The prompts of a round, and of their responses those that are compared: memory stays small.

    Args:
        task_of: the task of each prompt.
        prompts: P texts.
    """

    def __init__(self, task_of: Sequence[Task], prompts: Sequence[str]):
        self.task_of, self.prompts = task_of, prompts
        self.kept: list[Kept] = []

    def parts(self, size: int) -> list[tuple[int, Sequence[Task], Sequence[str]]]:
        """The prompts, so many at a time: the number of each part, tasks and prompts."""
        parts = []
        for i, start in enumerate(range(0, len(self.prompts), size)):
            part = slice(start, start + size)
            parts.append((i, self.task_of[part], self.prompts[part]))
        return parts

    def keep(self, scored: Scored, compared: Comparisons) -> None:
        """Takes note of the rewards of one part, and keeps the responses that are compared."""
        # A response may be in several pairs; it is kept once, and the pairs point at its new row.
        used, moved = compared.used()
        self.kept.append(Kept(scored.rewards, scored.rollout.rows(used), moved))

    def gather(self) -> None:
        """Where several processes have written for a share of the parts: all get all of them."""
        self.kept = processes.together(self.kept)

    @property
    def rewards(self) -> Tensor:
        """(P, N), of all that was written, also of what was forgotten."""
        return torch.cat([part.rewards for part in self.kept])

    def in_comparisons(self, may_be_none: bool = False) -> tuple[Rollout, Comparisons]:
        """The responses that are compared, as one per prompt, and what is compared, as their rows.

        Raises:
            ValueError: if no two responses to a prompt differ in reward, unless that may be so.
        """
        compared, n_before = [], 0
        for part in self.kept:
            compared.append(part.compared.at(n_before + part.compared.rows))
            n_before += len(part.rollout)
        if not may_be_none and not any(len(part.pairs) for part in compared):
            raise ValueError(
                f"at least one of {len(self.prompts)} prompts must have responses of different "
                "reward, got none; draw more --samples or --prompts, allow --temperatures or "
                "--choices further apart, or check that the task's reward can vary"
            )
        return concatenate([part.rollout for part in self.kept]), joined(compared)


@dataclass(frozen=True)
class Round:
    """What there was in a round of LPO."""

    written: Written
    rollout: Rollout  # the responses that were learned from
    compared: Comparisons  # rows of it
    examples: Any  # what the scores were made from; None without a pair
    generator: torch.Generator  # of all that was drawn in this round, and may be drawn yet
    epochs: list[dict[str, float]]  # see `describe_fit`; none without a pair
    validation_reward: float

    @property
    def pairs(self) -> PreferencePairs:
        """Those that the log describes, as rows of the rollout."""
        return self.compared.pairs


class Training:
    """What a training carries from round to round: optimizer, log, best so far. It can be saved.

    Args:
        score: what is trained, and how it scores responses.
        config: the learning rates.
        also: more modules that belong to the training and are saved with it, by name.
        after_round: called after each round, with the training and the `Round`.
        progress: told how many responses there are to write, and were written.
    """

    def __init__(
        self,
        score: ScoreOfResponses,
        config: LPOConfig,
        also: dict[str, nn.Module] | None = None,
        after_round: Sequence[Callable[["Training", Round], object]] = (),
        progress: Progress | None = None,
    ):
        self.score, self.config = score, config
        self.also, self.after_round = also or {}, after_round
        self.progress = progress or Progress()
        self.optimizer = optimizer_of(score, config)
        self.log: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"validation_reward": -math.inf}
        self.seconds: dict[str, float] = {}  # since the last round, by what they were spent on
        self._timed_until = perf_counter()

    def begin(self, n_tasks: int) -> Callable[[int], object]:
        """Says how much there is to do. Returns what is to be told of the responses written."""
        per_round = responses_per_round(self.config, n_tasks)
        self.progress.begin(self.config.rounds * per_round, len(self.log) * per_round)
        self._timed_until = perf_counter()
        return self.progress.advance

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Counts the time within under `phase`, and what came before it under "rollout"."""
        self._lap("rollout")
        yield
        self._lap(phase)

    def _lap(self, phase: str) -> None:
        now = perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._timed_until
        self._timed_until = now

    def end_round(self, ended: Round) -> None:
        """Logs a round and keeps its result if it is the best so far.

        The log's entry has the rewards, how many pairs were formed and how many prompts gave none,
        which choices were on the chosen and on the rejected side, task by task, and for each epoch
        what `describe_fit` says. Where the head learns without pairs, these are the best and the
        worst response to each prompt, so that trainings by different rules can be compared.
        """
        pairs, rewards = ended.pairs, ended.written.rewards
        number = len(self.log) + 1
        self.log.append(
            {
                "round": number,
                "sampled_reward": rewards.mean().item(),
                "pairs": len(pairs),
                "dropped_prompts": pairs.n_dropped,
                "chosen_share": shares_by_task(ended, pairs.chosen, self.n_choices),
                "rejected_share": shares_by_task(ended, pairs.rejected, self.n_choices),
                "validation_reward": ended.validation_reward,
                "epochs": ended.epochs,
            }
        )
        if ended.validation_reward > self.best["validation_reward"]:
            # A copy: the weights go on changing.
            states = copy.deepcopy(self._states(self.score.trained))
            self.best = {"validation_reward": ended.validation_reward, "round": number, **states}
        # Last, because what acts may save all of this.
        for act in self.after_round:
            act(self, ended)
        self.seconds = {}

    @property
    def n_choices(self) -> int:
        """K, of the head that is trained."""
        return self.score.head.n_choices

    def restore_best(self) -> None:
        """What is trained becomes what was best."""
        for name, module in self.score.trained.items():
            module.load_state_dict(self.best[name])

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on after a round."""
        states = self._states({**self.score.trained, **self.also})
        moments = self.optimizer.state_dict()["state"]  # its settings are those of the config
        return {**states, "optimizer": moments, "log": self.log, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        for name, module in {**self.score.trained, **self.also}.items():
            module.load_state_dict(state[name])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        self.log, self.best = state["log"], state["best"]

    def take_seconds(self) -> dict[str, float]:
        """The seconds since the last round, by what they were spent on."""
        self._lap("rollout")
        return self.seconds

    @staticmethod
    def _states(modules: dict[str, nn.Module]) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in modules.items()}


def optimizer_of(score: ScoreOfResponses, config: LPOConfig) -> torch.optim.Optimizer:
    """Adam, with a learning rate for each part that is trained."""
    rates = {"head": config.head_learning_rate, "model": config.lm_learning_rate}
    groups = [
        {"params": list(part.parameters()), "lr": rates[name]}
        for name, part in score.trained.items()
    ]
    return torch.optim.Adam(groups)


def shares_by_task(ended: Round, rows: Tensor, n_choices: int) -> dict[str, list[float]]:
    """The share of each choice behind some responses, task by task (the paper's Fig. 7)."""
    names = [task.name for task in ended.written.task_of]
    name_of = dict(zip(ended.written.prompts, names, strict=True))
    of_row = [name_of[ended.rollout.prompts[row]] for row in rows.tolist()]
    shares = {}
    for name in dict.fromkeys(names):
        is_of_task = torch.tensor([of == name for of in of_row], dtype=torch.bool)
        shares[name] = share_of_choices(ended.rollout.decisions, rows[is_of_task], n_choices)
    return shares


def share_of_choices(decisions: Decisions, rows: Tensor, n_choices: int) -> list[float]:
    """The share of each choice among the decisions of some rows; zeros if there are none."""
    made = decisions.choice_ids[rows][decisions.mask[rows]]
    counts = torch.bincount(made, minlength=n_choices)
    return (counts / counts.sum().clamp(min=1)).tolist()


@torch.no_grad()
def describe_fit(
    score: ScoreOfResponses,
    examples: Any,
    compared: Comparisons,
    rule: LearningRule,
    config: LPOConfig,
) -> dict[str, float]:
    """How good the fit is: loss, and of pairs margin and share of margins above 0; entropy."""
    # In parts, because all of them at once might not fit into memory.
    parts = [score(examples.rows(some)) for some in torch.arange(len(examples)).split(256)]
    scores, choice_logits = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
    losses = rule.losses(Said(scores, choice_logits, examples), compared, config)
    margin = scores[compared.pairs.chosen] - scores[compared.pairs.rejected]
    differs = margin != 0  # with the same choices on both sides there is nothing to be right about
    return {
        "loss": losses.mean().item(),
        "margin": margin.mean().item(),
        "pair_accuracy": (margin[differs] > 0).float().mean().item() if differs.any() else 0.5,
        "entropy": entropy(choice_logits).mean().item(),
    }


def check_finite(tensors: Iterable[Tensor], what: str, epoch: int, config: LPOConfig) -> None:
    """Raises a ValueError if a training has left the finite numbers: when, and what to lower."""
    if all(bool(tensor.isfinite().all()) for tensor in tensors):
        return
    flags = ["head_learning_rate"] + ["lm_learning_rate"] * config.train_lm
    flags += ["beta"] * (config.rule == "lpo" and config.pairs != "nll")
    lower = " or ".join(
        f"--{flag.replace('_', '-')} (now {getattr(config, flag):g})" for flag in flags
    )
    raise ValueError(
        f"the {what} must stay finite, got NaN or infinity "
        f"in epoch {epoch + 1} of {config.epochs} of LPO; lower {lower}"
    )
