"""From logits and a temperature to a token, and the exact probabilities of the same (arXiv 2411.09661, Eq. 2 and 6)."""

import torch
from torch import Tensor


def token_probs(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Probabilities of the next token at a temperature: softmax(W h / tau), arXiv 2411.09661, Eq. 2.

    Temperature 0 is greedy: all probability on the largest logit (the first of equals), never a division.

    Args:
        logits: (..., V).
        temperatures: (...) or anything that broadcasts to it, each 0 or above.

    Returns:
        (..., V), each row summing to 1.

    >>> import torch
    >>> token_probs(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    tensor([[0.0000, 1.0000],
            [0.2689, 0.7311]])
    """
    greedy = temperatures == 0
    probs = (logits / temperatures.masked_fill(greedy, 1.0)[..., None]).softmax(-1)
    if not greedy.any():
        return probs
    mode = logits.argmax(-1, keepdim=True)
    return probs.where(~greedy[..., None], probs.new_zeros(()).expand_as(probs).scatter(-1, mode, 1.0))


def next_tokens(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """Draws the next token of each row at the row's own temperature: `draw` of `token_probs`, without a one-hot row for greedy.

    Args:
        logits: (B, V).
        temperatures: (B,), each 0 or above.
        uniforms: (B,) in [0, 1); rows at temperature 0 don't use theirs.

    Returns:
        (B,) token ids.

    >>> import torch
    >>> next_tokens(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.1]))
    tensor([1, 0])
    """
    greedy = temperatures == 0
    probs = (logits / temperatures.masked_fill(greedy, 1.0)[:, None]).softmax(-1)  # (B, V)
    token_ids = draw(probs, uniforms)
    return token_ids.where(~greedy, logits.argmax(-1)) if greedy.any() else token_ids


def mixture_probs(logits: Tensor, choice_probs: Tensor, temperature_choices: Tensor) -> Tensor:
    """Probabilities of the next token when the temperature is drawn anew: sum_k P(tau_k|h) softmax(W h / tau_k), Eq. 6.

    Args:
        logits: (..., V).
        choice_probs: (..., K), the head's distribution over temperatures.
        temperature_choices: (K,).

    Returns:
        (..., V), each row summing to 1.

    >>> import torch
    >>> mixture_probs(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([0.0, 1.0]))
    tensor([[0.1345, 0.8655]])
    """
    per_choice = token_probs(logits[..., None, :], temperature_choices)  # (..., K, V)
    return (choice_probs[..., None] * per_choice).sum(-2)


def choice_logprobs(logits: Tensor, token_ids: Tensor, temperature_choices: Tensor, floor: float = -20.0) -> Tensor:
    """log P(y_t | tau_k) of given tokens under every temperature choice: the constants that Eq. 11 needs.

    Args:
        logits: (B, V).
        token_ids: (B,).
        temperature_choices: (K,).
        floor: at temperature 0 every token but the most likely one has probability 0; its log is set to this.

    Returns:
        (B, K).

    >>> import torch
    >>> choice_logprobs(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor([0.0, 1.0]))
    tensor([[-20.0000,  -1.3133]])
    """
    warm = temperature_choices > 0
    scaled = logits[:, None] / temperature_choices.where(warm, temperature_choices.new_ones(()))[:, None]  # (B, K, V)
    drawn = scaled.gather(-1, token_ids[:, None, None].expand(-1, len(warm), 1))[..., 0]  # (B, K)
    logprobs = (drawn - scaled.logsumexp(-1)).clamp(min=floor)
    is_mode = (logits.argmax(-1) == token_ids)[:, None]
    return logprobs.where(warm, is_mode * -floor + floor)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draws one index a row by inverting the cumulative distribution: one uniform number a row is enough.

    Args:
        probs: (B, V), rows summing to 1.
        uniforms: (B,) in [0, 1), from `torch.rand` with an explicit generator.

    Returns:
        (B,) indices. An index of probability 0 is never drawn. The sums are as precise as the more precise of the two.

    >>> import torch
    >>> draw(torch.tensor([[0.2, 0.0, 0.8]] * 3), torch.tensor([0.1, 0.2, 0.9]))
    tensor([0, 2, 2])
    """
    cumulative = probs.cumsum(-1, dtype=torch.promote_types(probs.dtype, uniforms.dtype))
    thresholds = (uniforms * cumulative[:, -1])[:, None]  # rounding may leave the last entry a little off 1
    return torch.searchsorted(cumulative, thresholds, right=True)[:, 0].clamp_(max=probs.shape[-1] - 1)
