"""From rewards to preference pairs: of the N responses to a prompt, the best is chosen and the worst is rejected."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PreferencePairs:
    """Rows of a rollout, pair by pair, and how many prompts gave none."""

    chosen: Tensor  # (B,) rows of the better responses
    rejected: Tensor  # (B,) rows of the worse responses
    n_dropped: int  # prompts whose responses all got the same reward


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
        ValueError: if rewards isn't (P, N), or no prompt gives a pair.

    >>> best_worst_pairs(torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]]), torch.Generator().manual_seed(0))
    PreferencePairs(chosen=tensor([1]), rejected=tensor([0]), n_dropped=1)
    """
    if rewards.ndim != 2:
        raise ValueError(f"rewards must have shape (P, N), got {tuple(rewards.shape)}; `score` returns them so")
    best, worst = rewards.amax(1, keepdim=True), rewards.amin(1, keepdim=True)  # (P, 1)
    prompts = (best > worst)[:, 0].nonzero()[:, 0]  # (B,) those that give a pair
    if len(prompts) == 0:
        raise ValueError(
            f"at least one of {len(rewards)} prompts must have responses of different reward, got none; "
            "draw more --samples or --prompts, allow --temperatures further apart, or check that the task's reward can vary"
        )
    tie_break = torch.rand(rewards.shape, generator=generator).to(rewards.device)
    chosen = tie_break.masked_fill(rewards < best, -1.0).argmax(1)[prompts]
    rejected = tie_break.masked_fill(rewards > worst, -1.0).argmax(1)[prompts]
    N = rewards.shape[1]
    return PreferencePairs(prompts * N + chosen, prompts * N + rejected, len(rewards) - len(prompts))
