"""Preference pairs from rewards: which responses to a prompt are chosen, and which are rejected.

The head learns other things from other pairs: LPO learns which temperature gave the better
response, not the mean reward.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PreferencePairs:
    """B pairs of responses, as rows of a rollout, and how many prompts gave no pair."""

    chosen: Tensor  # (B,) rows of the better responses
    rejected: Tensor  # (B,) rows of the worse responses
    n_dropped: int  # prompts without a pair, most often because all their responses scored the same
    weights: Tensor  # (B,) how much each pair counts

    def __len__(self) -> int:
        return len(self.chosen)

    def select(self, index: Tensor) -> "PreferencePairs":
        """Selects pairs by their numbers."""
        chosen, rejected, weights = (x[index] for x in (self.chosen, self.rejected, self.weights))
        return PreferencePairs(chosen, rejected, self.n_dropped, weights)

    def compact(self) -> tuple[Tensor, "PreferencePairs"]:
        """Lists the rows that are in a pair, each once, and the pairs as positions in this list.

        >>> pairs = PreferencePairs(torch.tensor([7, 7]), torch.tensor([4, 9]), 0, torch.ones(2))
        >>> rows, pairs = pairs.compact()
        >>> rows, pairs.chosen, pairs.rejected
        (tensor([4, 7, 9]), tensor([1, 1]), tensor([0, 2]))
        """
        rows, places = torch.stack([self.chosen, self.rejected]).unique(return_inverse=True)
        return rows, replace(self, chosen=places[0], rejected=places[1])


def best_worst_pairs(rewards: Tensor, generator: torch.Generator) -> PreferencePairs:
    """Forms one pair per prompt: its best and its worst response (arXiv 2411.09661, section 2).

    The paper doesn't say how ties are broken. Here a response is drawn at random among those that
    share the best reward, and among those that share the worst. A prompt whose responses all got
    the same reward says nothing and gives no pair.

    Args:
        rewards: (P, N).
        generator: breaks the ties.

    Returns the pairs, as rows p * N + n of the rollout. Raises ValueError if rewards isn't (P, N).

    >>> rewards = torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]])
    >>> best_worst_pairs(rewards, torch.Generator().manual_seed(0))
    PreferencePairs(chosen=tensor([1]), rejected=tensor([0]), n_dropped=1, weights=tensor([1.]))
    """
    return top_bottom_pairs(rewards, 1, generator)


def top_bottom_pairs(rewards: Tensor, k: int, generator: torch.Generator) -> PreferencePairs:
    """Forms up to `k` pairs per prompt: best with worst, second best with second worst, and so on.

    Args:
        rewards: (P, N).
        k: at least 1; more than N / 2 gives no further pairs.
        generator: breaks ties, as in `best_worst_pairs`.

    Returns the pairs of unequal reward. Raises ValueError if rewards isn't (P, N), or k is below 1.

    >>> rewards = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    >>> pairs = top_bottom_pairs(rewards, 2, torch.Generator().manual_seed(0))
    >>> pairs.chosen, pairs.rejected
    (tensor([1, 2]), tensor([0, 3]))
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; 1 gives the best and the worst")
    order = _worst_first(rewards, generator)
    k = min(k, rewards.shape[1] // 2)
    chosen, rejected = order.flip(1)[:, :k], order[:, :k]  # (P, k)
    # In the middle of the order, and where all got the same, the two ends may be equal.
    better = rewards.gather(1, chosen) > rewards.gather(1, rejected)
    return _pairs(chosen, rejected, better, rewards.shape[1])


def all_pairs(rewards: Tensor) -> PreferencePairs:
    """Forms a pair of every two responses to a prompt whose rewards differ: up to N (N - 1) / 2.

    Raises ValueError if rewards isn't (P, N).

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
    """Forms `all_pairs`, each weighted by the difference of its rewards.

    From a uniform head, the first gradient of Eq. 10 on these pairs is that of REINFORCE with the
    prompt's mean as the baseline: Σ_j (r_i - r_j) = N (r_i - mean).

    >>> gap_pairs(torch.tensor([[0.25, 1.0, 0.5]])).weights
    tensor([0.7500, 0.5000, 0.2500])
    """
    pairs = all_pairs(rewards)
    of_row = rewards.flatten()
    return replace(pairs, weights=of_row[pairs.chosen] - of_row[pairs.rejected])


def constrained_pairs(
    quality: Tensor, constraint: Tensor, generator: torch.Generator, among: int = 4
) -> PreferencePairs:
    """Forms one pair per prompt where a good response has a rule to keep (the paper's A.5).

    Of the `among` responses of highest quality, the one that keeps the rule best is chosen; of the
    `among` of lowest quality, the one that keeps it least is rejected. The paper says no more. Here
    two equal responses form no pair, nor do two of which the rejected one is better in one part.

    Args:
        quality: (P, N), how good each response is apart from the rule.
        constraint: (P, N), how well it keeps the rule.
        generator: breaks ties.
        among: how many responses of either end are looked at, at least 1.

    Raises ValueError if the shapes aren't (P, N), or `among` is below 1.

    >>> quality = torch.tensor([[0.9, 0.8, 0.2, 0.1]])
    >>> constraint = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    >>> pairs = constrained_pairs(quality, constraint, torch.Generator().manual_seed(0), among=2)
    >>> pairs.chosen, pairs.rejected
    (tensor([1]), tensor([2]))
    """
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
    # The chosen one may be worse in one of the two: then nothing can be learned from the pair.
    parts = torch.stack([quality, constraint])  # (2, P, N)
    gains = parts.gather(2, chosen.expand(2, -1, -1)) - parts.gather(2, rejected.expand(2, -1, -1))
    better = (gains >= 0).all(0) & (gains > 0).any(0)  # (P, 1)
    return _pairs(chosen, rejected, better, quality.shape[1])


# By name, from rewards, (P, N), and k; "constrained" from quality and constraint, (2, P, N).
PAIRS: dict[str, Callable[[Tensor, int, torch.Generator], PreferencePairs]] = {
    "best_worst": lambda rewards, k, generator: best_worst_pairs(rewards, generator),
    "top_bottom": top_bottom_pairs,
    "all": lambda rewards, k, generator: all_pairs(rewards),
    "gap": lambda rewards, k, generator: gap_pairs(rewards),
    "constrained": lambda parts, k, generator: constrained_pairs(parts[0], parts[1], generator),
}


def _worst_first(rewards: Tensor, generator: torch.Generator) -> Tensor:
    """Sorts each prompt's responses from worst to best, (P, N); equals stand in random order."""
    _check(rewards)
    # A stable sort of shuffled responses: equals keep the random order that they come in.
    shuffled = torch.rand(rewards.shape, generator=generator).to(rewards.device).argsort(1)
    return shuffled.gather(1, rewards.gather(1, shuffled).sort(dim=1, stable=True).indices)


def _pairs(chosen: Tensor, rejected: Tensor, better: Tensor, n_samples: int) -> PreferencePairs:
    """Makes pairs of response numbers, (P, M) each, where the chosen one is better."""
    first_row = n_samples * torch.arange(len(chosen), device=chosen.device)[:, None]  # (P, 1)
    n_dropped = int((~better.any(1)).sum())
    rows = (first_row + chosen)[better]
    weights = torch.ones(len(rows), device=rows.device)
    return PreferencePairs(rows, (first_row + rejected)[better], n_dropped, weights)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 2:
        got = f"got {tuple(rewards.shape)}; `rollout.score` returns them so"
        raise ValueError(f"rewards must have shape (P, N), {got}")
