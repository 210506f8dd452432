"""Around LPO's page: the prompts of a training, its pairs, its log, and the state that is saved."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import DEFAULT_LOSS, MARGINAL, LPOConfig
from minilpo.decoding.generate import encode_prompts
from minilpo.decoding.rollout import Rollout, choice_shares, concatenate, quality_and_constraint
from minilpo.decoding.sampling import entropy
from minilpo.lm.language_model import LanguageModel
from minilpo.preferences import PAIRS, PreferencePairs
from minilpo.seeds import python_rng
from minilpo.tasks import Prompt, Task, mixed_prompts

# All rewards of a chunk of prompts, its responses that are in pairs, and the pairs.
Chunk = tuple[Tensor, Rollout, PreferencePairs]
OTHER_LOOP = "rule must be lpo, without train_lm; else see rivals.by_config.training_of"
NO_PAIRS = (
    "at least one prompt must have responses of different reward, but none has; draw more --samples"
    " or --prompts, allow temperatures further apart, or check that the task's reward can vary"
)
DIVERGED = (
    "loss and weights must stay finite, got NaN or infinity after an epoch; lower "
    "--head-learning-rate (now {0.head_learning_rate:g}), for pairs also --beta (now {0.beta:g}), "
    "with --train-lm also --lm-learning-rate (now {0.lm_learning_rate:g})"
)
VALIDATION_SAMPLES = 4  # responses per held-out prompt, after every round
PROMPTS_AT_ONCE = 128  # all their responses are in memory, until those in no pair are dropped


def draw_prompts(
    tasks: Sequence[Task], config: LPOConfig, seed: int, lm: LanguageModel | None = None
) -> tuple[list[list[Prompt]], list[Prompt]]:
    """Draws the prompts of every round, and the held-out ones on which the best head is chosen.

    Raises ValueError now, not halfway, if a task has too few or the language model can't read one.
    """
    n_per_task = math.ceil(config.prompts / len(tasks))
    # A generator per round: a training that is resumed needs no state of a generator.
    rngs = [python_rng(seed, f"LPO prompts {n}") for n in range(config.rounds)]
    rounds = [mixed_prompts(tasks, n_per_task, "train", rng) for rng in rngs]
    rng = python_rng(seed, "validation prompts")
    held_out = mixed_prompts(tasks, config.validation_prompts, "validation", rng)
    if lm is not None:  # an error of the last round's prompts shall come before the first round
        encode_prompts(lm, [prompt.text for part in (*rounds, held_out) for prompt in part])
    return rounds, held_out


def split(prompts: list[Prompt]) -> list[list[Prompt]]:
    """Splits the prompts of a round into chunks of `PROMPTS_AT_ONCE`."""
    return [prompts[i : i + PROMPTS_AT_ONCE] for i in range(0, len(prompts), PROMPTS_AT_ONCE)]


def form_pairs(
    rollout: Rollout,
    rewards: Tensor,
    prompts: Sequence[Prompt],
    config: LPOConfig,
    generator: torch.Generator,
) -> PreferencePairs:
    """Forms the preference pairs that `config.pairs` names, from rewards, (P, N)."""
    # "nll" is a loss, not a way to form pairs: the paper's baseline has the pairs of LPO.
    name = "best_worst" if config.pairs == "nll" else config.pairs
    if name == "constrained":
        rewards = quality_and_constraint(rollout, [prompt.task for prompt in prompts], rewards)
    return PAIRS[name](rewards, config.pairs_per_prompt, generator)


def drop_unpaired(rollout: Rollout, pairs: PreferencePairs) -> tuple[Rollout, PreferencePairs]:
    """Keeps the responses that are in a pair, most often 2 of 16, so that memory stays small."""
    rows, pairs = pairs.compact()
    return rollout.rows(rows), pairs


def join(chunks: Sequence[Chunk], may_be_empty: bool) -> Chunk:
    """Joins the chunks of a round, and counts rows on from chunk to chunk.

    Raises ValueError if there is no pair, unless `may_be_empty`: later all may have been learned.
    """
    rewards, rollouts, parts = zip(*chunks, strict=True)
    firsts = itertools.accumulate(map(len, rollouts[:-1]), initial=0)
    sides = [(part.chosen + n, part.rejected + n) for n, part in zip(firsts, parts, strict=True)]
    chosen, rejected = map(torch.cat, zip(*sides, strict=True))
    if not (may_be_empty or len(chosen)):
        raise ValueError(NO_PAIRS)
    n_dropped, weights = sum(part.n_dropped for part in parts), [part.weights for part in parts]
    pairs = PreferencePairs(chosen, rejected, n_dropped, torch.cat(weights))
    return torch.cat(rewards), concatenate(rollouts), pairs


class TrainState:
    """Training state: optimizer, log, best weights. A callback may save it after every round.

    Args:
        head: trained, at `config.head_learning_rate`.
        config: the learning rates.
        model: trained too, by Eq. 9 alone, at `config.lm_learning_rate`.

    Each of `callbacks` is called after every round with this state, the rollout and the pairs.
    """

    def __init__(self, head: AdaptiveDecoder, config: LPOConfig, model: nn.Module | None = None):
        self.loss = DEFAULT_LOSS[head.level] if config.loss == "default" else config.loss
        if self.loss == "eq11_marginal" and head.level == "token":
            raise ValueError(MARGINAL)
        self.n_choices = head.n_choices
        self.modules: dict[str, nn.Module] = {"head": head, **({"model": model} if model else {})}
        rates = {"head": config.head_learning_rate, "model": config.lm_learning_rate}
        groups = [{"params": [*m.parameters()], "lr": rates[n]} for n, m in self.modules.items()]
        self.optimizer = torch.optim.Adam(groups)
        self.callbacks: list[Callable[..., object]] = []
        self.log: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"validation_reward": -math.inf}

    def end_round(
        self,
        prompts: Sequence[Prompt],
        rewards: Tensor,
        rollout: Rollout,
        pairs: PreferencePairs,
        epochs: list[dict[str, float]],
        validation: Tensor,
    ) -> None:
        """Logs a round, and copies the weights if the rewards of validation are the best so far."""
        end = {"round": len(self.log) + 1, "validation_reward": validation.mean().item()}
        sides = {"chosen_share": pairs.chosen, "rejected_share": pairs.rejected}
        shares = {n: choice_shares(rollout, r, prompts, self.n_choices) for n, r in sides.items()}
        numbers = {"sampled_reward": rewards.mean().item(), "dropped_prompts": pairs.n_dropped}
        self.log.append({**end, **numbers, "pairs": len(pairs), **shares, "epochs": epochs})
        if end["validation_reward"] > self.best["validation_reward"]:
            self.best = {**copy.deepcopy(self.weights()), **end}
        # Last, because one of them may save all of this.
        for callback in self.callbacks:
            callback(self, rollout, pairs)

    def weights(self) -> dict[str, Any]:
        """Returns the current weights, not a copy: training goes on changing them."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def restore(self, weights: dict[str, Any]) -> None:
        """Loads weights: those of `best`, or of a saved state."""
        for name, module in self.modules.items():
            module.load_state_dict(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next round needs."""
        # Only the moments of Adam: its learning rates stand in the config.
        moments = self.optimizer.state_dict()["state"]
        return {**self.weights(), "optimizer": moments, "log": self.log, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a copy of a `state_dict`."""
        state = copy.deepcopy(state)
        self.restore(state)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        self.log, self.best = state["log"], state["best"]


@torch.no_grad()
def describe_fit(
    head: AdaptiveDecoder,
    decisions: Decisions | Rollout,
    pairs: PreferencePairs,
    config: LPOConfig,
    response_scores: Callable[..., tuple[Tensor, Tensor]],
    loss: Callable[..., Tensor],
) -> dict[str, float]:
    """Measures loss, mean margin, pair accuracy (margins above 0 among those not 0) and entropy.

    Raises ValueError if one of these or a weight isn't finite; it names the settings to lower.
    """
    # In parts, because all of them at once might not fit into memory.
    parts = torch.arange(len(decisions)).split(256)
    results = [response_scores(head, decisions.rows(rows), config) for rows in parts]
    scores, choice_logits = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    margin = scores[pairs.chosen] - scores[pairs.rejected]
    # With the same choices on both sides the margin is always 0: neither right nor wrong.
    differs = margin != 0
    numbers = {
        "loss": loss(scores, pairs, config).mean().item(),
        "margin": margin.mean().item(),
        "pair_accuracy": (margin[differs] > 0).float().mean().item() if differs.any() else 0.5,
        "entropy": entropy(choice_logits).mean().item(),
    }
    if not all(x.isfinite().all() for x in (torch.tensor([*numbers.values()]), *head.parameters())):
        raise ValueError(DIVERGED.format(config))
    return numbers
