"""From rewards to preference pairs: which responses to a prompt are chosen, and which are rejected.

Which pairs are formed changes what the head learns: LPO fits "this temperature gave the better one", not the mean reward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PreferencePairs:
    """Rows of a rollout, pair by pair, and how many prompts gave none."""

    chosen: Tensor  # (B,) rows of the better responses
    rejected: Tensor  # (B,) rows of the worse responses
    n_dropped: int  # prompts that gave no pair, most often because all their responses got the same reward


def best_worst_pairs(rewards: Tensor, generator: torch.Generator) -> PreferencePairs:
    """One pair a prompt: its best and its worst response (arXiv 2411.09661, section 2).

    The paper doesn't say how ties are broken. Here a response is drawn at random among those that share the best reward, and
    among those that share the worst. A prompt whose responses all got the same reward says nothing and gives no pair.

    Args:
        rewards: (P, N).
        generator: breaks the ties.

    Returns:
        The pairs, as row numbers p * N + n of the rollout.

    Raises:
        ValueError: if rewards isn't (P, N).

    >>> best_worst_pairs(torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]]), torch.Generator().manual_seed(0))
    PreferencePairs(chosen=tensor([1]), rejected=tensor([0]), n_dropped=1)
    """
    return top_bottom_pairs(rewards, 1, generator)


def top_bottom_pairs(rewards: Tensor, k: int, generator: torch.Generator) -> PreferencePairs:
    """Up to `k` pairs a prompt: the best with the worst, the second best with the second worst, and so on.

    Args:
        rewards: (P, N).
        k: at least 1; more than N / 2 gives no further pairs.
        generator: breaks ties, as in `best_worst_pairs`.

    Returns:
        The pairs of unequal reward.

    Raises:
        ValueError: if rewards isn't (P, N), or k is below 1.

    >>> pairs = top_bottom_pairs(torch.tensor([[0.1, 0.9, 0.5, 0.3]]), 2, torch.Generator().manual_seed(0))
    >>> pairs.chosen, pairs.rejected
    (tensor([1, 2]), tensor([0, 3]))
    """
    _check(rewards)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; 1 gives the best and the worst")
    k = min(k, rewards.shape[1] // 2)
    order = _worst_first(rewards, generator)
    chosen, rejected = order.flip(1)[:, :k], order[:, :k]  # (P, k)
    return _pairs(chosen, rejected, rewards.gather(1, chosen) > rewards.gather(1, rejected), rewards.shape[1])


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
    both = torch.arange(N, device=rewards.device)
    chosen, rejected = torch.cartesian_prod(both, both).T[:, None].expand(-1, P, -1)  # each (P, N * N)
    return _pairs(chosen, rejected, rewards.gather(1, chosen) > rewards.gather(1, rejected), N)


def constrained_pairs(quality: Tensor, constraint: Tensor, generator: torch.Generator, among: int = 4) -> PreferencePairs:
    """One pair a prompt where a good response also has a rule to keep (arXiv 2411.09661, appendix A.5).

    Of the `among` responses of highest quality, the one that keeps the rule best is chosen; of the `among` of lowest quality,
    the one that keeps it least is rejected. The paper doesn't say what to do if the two don't differ: here they give no pair,
    and neither do two of which the rejected one is better in one respect.

    Args:
        quality: (P, N), how good each response is apart from the rule.
        constraint: (P, N), how well it keeps the rule.
        generator: breaks ties.
        among: how many responses of either end are looked at, at least 1.

    Raises:
        ValueError: if the shapes aren't (P, N), or `among` is below 1.

    >>> quality, constraint = torch.tensor([[0.9, 0.8, 0.2, 0.1]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    >>> pairs = constrained_pairs(quality, constraint, torch.Generator().manual_seed(0), among=2)
    >>> pairs.chosen, pairs.rejected
    (tensor([1]), tensor([2]))
    """
    _check(quality)
    if constraint.shape != quality.shape:
        raise ValueError(
            f"constraint must have quality's shape {tuple(quality.shape)}, got {tuple(constraint.shape)}; "
            "score both for the same responses"
        )
    if among < 1:
        raise ValueError(f"among must be at least 1, got {among}; the paper takes 4")
    order = _worst_first(quality, generator)
    top, bottom = order.flip(1)[:, :among], order[:, :among]
    chosen = top.gather(1, constraint.gather(1, top).argmax(1, keepdim=True))  # (P, 1)
    rejected = bottom.gather(1, constraint.gather(1, bottom).argmin(1, keepdim=True))
    differences = torch.stack([values.gather(1, chosen) - values.gather(1, rejected) for values in (quality, constraint)])
    better = (differences >= 0).all(0) & (differences > 0).any(0)  # (P, 1)
    return _pairs(chosen, rejected, better, quality.shape[1])


def _worst_first(rewards: Tensor, generator: torch.Generator) -> Tensor:
    """(P, N) the responses to each prompt from worst to best; equals stand in random order."""
    shuffled = torch.rand(rewards.shape, generator=generator).to(rewards.device).argsort(1)
    return shuffled.gather(1, rewards.gather(1, shuffled).sort(dim=1, stable=True).indices)


def _pairs(chosen: Tensor, rejected: Tensor, better: Tensor, n_samples: int) -> PreferencePairs:
    """Response numbers, (P, M) each, to rows of the rollout, where the chosen one is better."""
    first_row = n_samples * torch.arange(len(chosen), device=chosen.device)[:, None]  # (P, 1)
    n_dropped = int((~better.any(1)).sum())
    return PreferencePairs((first_row + chosen)[better], (first_row + rejected)[better], n_dropped)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 2:
        raise ValueError(f"rewards must have shape (P, N), got {tuple(rewards.shape)}; `score` returns them so")
