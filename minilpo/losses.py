"""Latent Preference Optimization: one preference form, and the score of a response that goes into it.

Pure functions, tensors in and out. Nothing here knows about the model, the tasks or where the pairs came from.
"""

import torch.nn.functional as F
from torch import Tensor


def preference_loss(chosen_scores: Tensor, rejected_scores: Tensor, beta: float) -> Tensor:
    """Loss of preferring one response over another: -log sigmoid(beta * (score_c - score_r)).

    With `choice_scores` as the scores it is LPO's default loss, arXiv 2411.09661, Eq. 10. The other variants of LPO have the
    same form and differ only in the score.

    Args:
        chosen_scores: (B,) scores of the better responses, in nats.
        rejected_scores: (B,) scores of the worse responses, in nats.
        beta: strength of the preference, above 0; the paper doesn't state its value.

    Returns:
        (B,) losses, not reduced.

    Raises:
        ValueError: if the shapes differ or beta isn't above 0.

    Equal scores give log 2, whatever they are:

    >>> import torch
    >>> preference_loss(torch.tensor([-1.0]), torch.tensor([-1.0]), beta=0.5)
    tensor([0.6931])
    """
    if chosen_scores.shape != rejected_scores.shape or chosen_scores.ndim != 1:
        raise ValueError(
            "chosen_scores and rejected_scores must both have shape (B,), "
            f"got {tuple(chosen_scores.shape)} and {tuple(rejected_scores.shape)}; pass one score a response"
        )
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    margin = chosen_scores - rejected_scores  # (B,)
    return -F.logsigmoid(beta * margin)


def choice_scores(temperature_logits: Tensor, temperature_ids: Tensor, decision_mask: Tensor) -> Tensor:
    """Log-probability of the temperatures that wrote a response: log P(tau) = sum_t log P(tau_t | h_t).

    The score of arXiv 2411.09661, Eq. 10 (temperatures as tokens, separate from the words; no reference).

    Args:
        temperature_logits: (B, S, K) what the head says at each of S decisions (S = 1 at sequence level).
        temperature_ids: (B, S) which temperature was drawn.
        decision_mask: (B, S) True where a decision was made.

    Returns:
        (B,) in nats, at most 0.

    Raises:
        ValueError: if the shapes don't fit together.

    A uniform head gives -log K for each decision:

    >>> import torch
    >>> choice_scores(torch.zeros(1, 3, 2), torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]]))
    tensor([-1.3863])
    """
    if temperature_ids.shape != temperature_logits.shape[:-1] or decision_mask.shape != temperature_ids.shape:
        raise ValueError(
            f"temperature_ids and decision_mask must have shape (B, S) = {tuple(temperature_logits.shape[:-1])}, "
            f"got {tuple(temperature_ids.shape)} and {tuple(decision_mask.shape)}; pass those stored in the Rollout"
        )
    logprobs = temperature_logits.log_softmax(-1)  # (B, S, K)
    drawn = logprobs.gather(-1, temperature_ids[..., None])[..., 0]  # (B, S)
    return drawn.masked_fill(~decision_mask, 0.0).sum(-1)
