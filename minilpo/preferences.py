"""From rewards to preference pairs: which responses to a prompt are chosen, and which are rejected.

Which pairs are formed changes what the head learns: LPO fits "this temperature gave the better
one", not the mean reward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from minilpo.config import LPOConfig
from minilpo.losses import nll_loss, preference_loss

Some = TypeVar("Some", bound="Comparisons")


class Comparisons:
    """Which responses a head learns from: pairs, or all responses to each prompt.

    A response is named by its row in a rollout, or in what was made from one.
    """

    n_dropped: int  # prompts that give no comparison

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def rows(self) -> Tensor:
        """The rows of all these responses, in any shape."""
        raise NotImplementedError

    @property
    def pairs(self) -> "PreferencePairs":
        """The pairs among them, which the log describes."""
        raise NotImplementedError

    def some(self: Some, index: Tensor) -> Some:
        """Some of the comparisons, (B,)."""
        raise NotImplementedError

    def at(self: Some, rows: Tensor) -> Some:
        """The same of responses that have moved to other `rows`."""
        raise NotImplementedError

    def used(self: Some) -> tuple[Tensor, Some]:
        """The rows of all these responses, each once, and the same comparisons as places in it."""
        used, rows = self.rows.unique(return_inverse=True)
        return used, self.at(rows)


def joined(parts: Sequence[Some]) -> Some:
    """Several comparisons of one kind as one."""
    whole: dict[str, Any] = {"n_dropped": sum(part.n_dropped for part in parts)}
    for name in {field.name for field in fields(parts[0])} - {"n_dropped"}:  # type: ignore[arg-type]
        whole[name] = torch.cat([getattr(part, name) for part in parts])
    return type(parts[0])(**whole)


@dataclass(frozen=True)
class PreferencePairs(Comparisons):
    """Rows of a rollout, pair by pair, and how many prompts gave none."""

    chosen: Tensor  # (B,) rows of the better responses
    rejected: Tensor  # (B,) rows of the worse responses
    n_dropped: int  # prompts without a pair, most often because all their responses scored the same
    weights: Tensor  # (B,) how much each pair counts

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def rows(self) -> Tensor:
        """(2, B): those of the better responses, then those of the worse."""
        return torch.stack([self.chosen, self.rejected])

    @property
    def pairs(self) -> "PreferencePairs":
        """All of them."""
        return self

    def some(self, index: Tensor) -> "PreferencePairs":
        """Some of the pairs, (B,)."""
        return replace(self.at(self.rows[:, index]), weights=self.weights[index])

    def at(self, rows: Tensor) -> "PreferencePairs":
        """The same pairs of responses that have moved to other `rows`, (2, B)."""
        return replace(self, chosen=rows[0], rejected=rows[1])


def best_worst_pairs(rewards: Tensor, generator: torch.Generator) -> PreferencePairs:
    """One pair per prompt: its best and its worst response (arXiv 2411.09661, section 2).

    The paper doesn't say how ties are broken. Here a response is drawn at random among those that
    share the best reward, and among those that share the worst. A prompt whose responses all got
    the same reward says nothing and gives no pair.

    Args:
        rewards: (P, N).
        generator: breaks the ties.

    Returns:
        The pairs, as row numbers p * N + n of the rollout.

    Raises:
        ValueError: if rewards isn't (P, N).

    >>> rewards = torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]])
    >>> best_worst_pairs(rewards, torch.Generator().manual_seed(0))
    PreferencePairs(chosen=tensor([1]), rejected=tensor([0]), n_dropped=1, weights=tensor([1.]))
    """
    return top_bottom_pairs(rewards, 1, generator)


def top_bottom_pairs(rewards: Tensor, k: int, generator: torch.Generator) -> PreferencePairs:
    """Up to `k` pairs per prompt: best with worst, second best with second worst, and so on.

    Args:
        rewards: (P, N).
        k: at least 1; more than N / 2 gives no further pairs.
        generator: breaks ties, as in `best_worst_pairs`.

    Returns:
        The pairs of unequal reward.

    Raises:
        ValueError: if rewards isn't (P, N), or k is below 1.

    >>> rewards = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    >>> pairs = top_bottom_pairs(rewards, 2, torch.Generator().manual_seed(0))
    >>> pairs.chosen, pairs.rejected
    (tensor([1, 2]), tensor([0, 3]))
    """
    _check(rewards)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; 1 gives the best and the worst")
    k = min(k, rewards.shape[1] // 2)
    order = _worst_first(rewards, generator)
    chosen, rejected = order.flip(1)[:, :k], order[:, :k]  # (P, k)
    # In the middle of the order, and where all got the same, the two ends may be equal.
    better = rewards.gather(1, chosen) > rewards.gather(1, rejected)
    return _pairs(chosen, rejected, better, rewards.shape[1])


def all_pairs(rewards: Tensor) -> PreferencePairs:
    """Every two responses to a prompt whose rewards differ: up to N (N - 1) / 2 pairs.

    Args:
        rewards: (P, N).

    Raises:
        ValueError: if rewards isn't (P, N).

    >>> pairs = all_pairs(torch.tensor([[0.1, 0.9, 0.1]]))
    >>> pairs.chosen, pairs.rejected
    (tensor([1, 1]), tensor([0, 2]))
    """
    _check(rewards)
    P, N = rewards.shape
    numbers = torch.arange(N, device=rewards.device)
    # Every response against every other, in both orders: the rewards say which order counts.
    both = torch.cartesian_prod(numbers, numbers).T[:, None].expand(-1, P, -1)
    chosen, rejected = both  # (P, N * N) each
    return _pairs(chosen, rejected, rewards.gather(1, chosen) > rewards.gather(1, rejected), N)


def gap_pairs(rewards: Tensor) -> PreferencePairs:
    """`all_pairs`, each weighted by the difference of its rewards.

    From a uniform head, the first gradient of Eq. 10 on these pairs is that of REINFORCE with the
    prompt's mean as the baseline: Σ_j (r_i - r_j) = N (r_i - mean).

    Args:
        rewards: (P, N).

    Raises:
        ValueError: if rewards isn't (P, N).

    >>> gap_pairs(torch.tensor([[0.25, 1.0, 0.5]])).weights
    tensor([0.7500, 0.5000, 0.2500])
    """
    pairs = all_pairs(rewards)
    of_row = rewards.flatten()
    return replace(pairs, weights=of_row[pairs.chosen] - of_row[pairs.rejected])


def constrained_pairs(
    quality: Tensor, constraint: Tensor, generator: torch.Generator, among: int = 4
) -> PreferencePairs:
    """One pair per prompt where a good response has a rule to keep (the paper's appendix A.5).

    Of the `among` responses of highest quality, the one that keeps the rule best is chosen; of the
    `among` of lowest quality, the one that keeps it least is rejected. The paper doesn't say what
    to do if the two don't differ: here they give no pair, and neither do two of which the rejected
    one is better in one respect.

    Args:
        quality: (P, N), how good each response is apart from the rule.
        constraint: (P, N), how well it keeps the rule.
        generator: breaks ties.
        among: how many responses of either end are looked at, at least 1.

    Raises:
        ValueError: if the shapes aren't (P, N), or `among` is below 1.

    >>> quality = torch.tensor([[0.9, 0.8, 0.2, 0.1]])
    >>> constraint = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    >>> pairs = constrained_pairs(quality, constraint, torch.Generator().manual_seed(0), among=2)
    >>> pairs.chosen, pairs.rejected
    (tensor([1]), tensor([2]))
    """
    _check(quality)
    if constraint.shape != quality.shape:
        raise ValueError(
            f"constraint must have quality's shape {tuple(quality.shape)}, "
            f"got {tuple(constraint.shape)}; score both for the same responses"
        )
    if among < 1:
        raise ValueError(f"among must be at least 1, got {among}; the paper takes 4")
    order = _worst_first(quality, generator)
    top, bottom = order.flip(1)[:, :among], order[:, :among]
    chosen = top.gather(1, constraint.gather(1, top).argmax(1, keepdim=True))  # (P, 1)
    rejected = bottom.gather(1, constraint.gather(1, bottom).argmin(1, keepdim=True))
    # The two ends overlap where there are few responses, so the chosen one may be worse in one
    # respect: then nothing can be learned from the pair.
    gains = [
        values.gather(1, chosen) - values.gather(1, rejected) for values in (quality, constraint)
    ]
    differences = torch.stack(gains)  # (2, P, 1)
    better = (differences >= 0).all(0) & (differences > 0).any(0)  # (P, 1)
    return _pairs(chosen, rejected, better, quality.shape[1])


def _worst_first(rewards: Tensor, generator: torch.Generator) -> Tensor:
    """(P, N) the responses to each prompt from worst to best; equals stand in random order."""
    # A stable sort of shuffled responses: equals keep the random order that they come in.
    shuffled = torch.rand(rewards.shape, generator=generator).to(rewards.device).argsort(1)
    return shuffled.gather(1, rewards.gather(1, shuffled).sort(dim=1, stable=True).indices)


def _pairs(chosen: Tensor, rejected: Tensor, better: Tensor, n_samples: int) -> PreferencePairs:
    """Response numbers, (P, M) each, to rows of the rollout, where the chosen one is better."""
    first_row = n_samples * torch.arange(len(chosen), device=chosen.device)[:, None]  # (P, 1)
    n_dropped = int((~better.any(1)).sum())
    rows = (first_row + chosen)[better]
    weights = torch.ones(len(rows), device=rows.device)
    return PreferencePairs(rows, (first_row + rejected)[better], n_dropped, weights)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 2:
        raise ValueError(
            f"rewards must have shape (P, N), got {tuple(rewards.shape)}; `score` returns them so"
        )


class Judged(Protocol):
    """What a rule is told of P * N responses."""

    @property
    def rewards(self) -> Tensor:
        """(P, N)."""

    def quality_and_constraint(self) -> tuple[Tensor, Tensor]:
        """Two parts of the reward, (P, N) each."""


class Rule(NamedTuple):
    """Which responses are compared, and the loss of pairs, from their scores and beta to (B,)."""

    pairs: Callable[[Judged, LPOConfig, torch.Generator], PreferencePairs]
    loss: Callable[[Tensor, Tensor, float], Tensor] = preference_loss


class Said(NamedTuple):
    """What the head says of R responses."""

    scores: Tensor  # (R,)
    choice_logits: Tensor  # (n, K) at their n decisions
    made_from: Any  # for a head alone, `Decisions` of the R responses


class LearningRule(NamedTuple):
    """How a head learns: from which responses, and the losses of these, not reduced."""

    compare: Callable[[Judged, LPOConfig, torch.Generator], Comparisons]
    losses: Callable[
        [Said, Any, LPOConfig], Tensor
    ]  # of the responses in the comparisons, and these
    needs_sampling_logprobs: bool = False  # it compares the head with what it was at sampling


def _best_worst(judged: Judged, config: LPOConfig, generator: torch.Generator) -> PreferencePairs:
    return best_worst_pairs(judged.rewards, generator)


def _top_bottom(judged: Judged, config: LPOConfig, generator: torch.Generator) -> PreferencePairs:
    return top_bottom_pairs(judged.rewards, config.pairs_per_prompt, generator)


def _constrained(judged: Judged, config: LPOConfig, generator: torch.Generator) -> PreferencePairs:
    return constrained_pairs(*judged.quality_and_constraint(), generator)


def _nll(chosen_scores: Tensor, rejected_scores: Tensor, beta: float) -> Tensor:
    return nll_loss(chosen_scores)


RULES = {  # by the names of `LPOConfig.pairs`
    "best_worst": Rule(_best_worst),
    "top_bottom": Rule(_top_bottom),
    "all": Rule(lambda judged, config, generator: all_pairs(judged.rewards)),
    "gap": Rule(lambda judged, config, generator: gap_pairs(judged.rewards)),
    "constrained": Rule(_constrained),
    "nll": Rule(_best_worst, _nll),
}
