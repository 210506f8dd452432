"""From logits and a temperature to a token, and its exact probabilities (Eq. 2 of the paper)."""

import torch
from torch import Tensor


def token_probs(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Computes the next token's probabilities: softmax(W h / tau), Eq. 2 of the paper.

    Temperature 0 is greedy: all probability on the largest logit (the first of equals), never a
    division.

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
    # Where the temperature is 0, 1 stood in for it above; there the largest logit gets everything.
    mode = logits.argmax(-1, keepdim=True)
    one_hot = torch.zeros_like(probs).scatter(-1, mode, 1.0)
    return probs.where(~greedy[..., None], one_hot)


def next_tokens(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """Draws the next token of each row at its own temperature: `draw` of `token_probs`, but faster.

    Args:
        logits: (B, V).
        temperatures: (B,), each 0 or above.
        uniforms: (B,) in [0, 1); rows at temperature 0 don't use theirs.

    Returns:
        (B,) token ids.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> next_tokens(logits, torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.1]))
    tensor([1, 0])
    """
    greedy = temperatures == 0
    probs = (logits / temperatures.masked_fill(greedy, 1.0)[:, None]).softmax(-1)  # (B, V)
    token_ids = draw(probs, uniforms)
    # No row of zeros and a one is made for the greedy ones: their largest logit is enough.
    return token_ids.where(~greedy, logits.argmax(-1)) if greedy.any() else token_ids


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draws one index per row by inverting the cumulative distribution: one number is enough.

    Args:
        probs: (B, V), rows summing to 1.
        uniforms: (B,) in [0, 1), from `torch.rand` with an explicit generator.

    Returns:
        (B,) indices. An index of probability 0 is never drawn. The sums are as precise as the more
        precise of the two.

    >>> import torch
    >>> draw(torch.tensor([[0.2, 0.0, 0.8]] * 3), torch.tensor([0.1, 0.2, 0.9]))
    tensor([0, 2, 2])
    """
    cumulative = probs.cumsum(-1, dtype=torch.promote_types(probs.dtype, uniforms.dtype))
    # Rounding may leave the last sum a little off 1, so the uniform number is stretched to it.
    thresholds = (uniforms * cumulative[:, -1])[:, None]
    indices = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
    return indices.clamp_(max=probs.shape[-1] - 1)


def entropy(logits: Tensor) -> Tensor:
    """Computes H = -Σ_v p_v ln p_v of softmax(logits), in nats: (..., V) to (...).

    >>> import torch
    >>> entropy(torch.zeros(2))  # ln 2
    tensor(0.6931)
    """
    return torch.special.entr(logits.softmax(-1)).sum(-1)  # 0 ln 0 counts as 0
