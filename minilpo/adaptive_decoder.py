"""The AdaptiveDecoder: a small head that reads the last hidden state and says what to choose.

Here it only gives a distribution over K choices, and `Decisions` hold what was chosen. What the
choices are, temperatures or something else, is said in `decoding/choices.py`; how one is taken from
the distribution, in `decoding/policies.py`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn


class AdaptiveDecoder(nn.Module):
    """P(tau_k | h) = softmax(MLP(h))_k over K choices: arXiv 2411.09661, Eq. 3.

    The MLP has three layers with SiLU between them. The last one starts at zero, so an untrained
    head is exactly uniform.

    Args:
        n_embd: C, the width of the hidden states.
        n_choices: K.
        level: "sequence" (the head is read once, at the last prompt token, Eq. 8) or "token"
            (before every token, Eq. 7).
        n_hidden: width of the two hidden layers.
        generator: draws the initial weights.

    Raises:
        ValueError: for another level.

    >>> head = AdaptiveDecoder(8, 3, generator=torch.Generator().manual_seed(0))
    >>> head(torch.ones(2, 8)).softmax(-1)[0]
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        n_embd: int,
        n_choices: int,
        level: str = "sequence",
        n_hidden: int = 128,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if level not in ("sequence", "token"):
            raise ValueError(f"level must be 'sequence' or 'token', got {level!r}")
        self.level, self.n_choices = level, n_choices
        self.n_embd = n_embd  # C, the width of the hidden states that it reads
        layers = [
            nn.Linear(n_embd, n_hidden),
            nn.Linear(n_hidden, n_hidden),
            nn.Linear(n_hidden, n_choices),
        ]
        # Each layer keeps the size of what it is given; the last one begins at zero: no choice is
        # preferred before anything was learned.
        for layer in layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)
        self.mlp = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Choice logits, (..., C) to (..., K), in the head's own precision.

        The head may be on another device than what it reads, and answers there.

        Raises:
            ValueError: if what it is to read isn't as wide as what it was made for.
        """
        if hidden_states.shape[-1] != self.n_embd:
            C, K = hidden_states.shape[-1], self.n_choices
            raise ValueError(
                f"the head must read hidden states of the width it was made for, {self.n_embd}, "
                f"got {C}; make it with AdaptiveDecoder({C}, {K})"
            )
        return self.mlp(hidden_states.to(next(self.parameters()))).to(hidden_states.device)


class ConstantHead(AdaptiveDecoder):
    """The same head with its input zeroed, a control: it learns one distribution for everything.

    >>> head = ConstantHead(8, 2, n_hidden=4, generator=torch.Generator().manual_seed(0))
    >>> _ = torch.nn.init.normal_(head.mlp[-1].weight)
    >>> bool((head(torch.zeros(8)) == head(torch.ones(8))).all())
    True
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Choice logits, (..., C) to (..., K), the same whatever the hidden states."""
        return super().forward(torch.zeros_like(hidden_states))


@dataclass(frozen=True)
class Decisions:
    """What was read and chosen in R rows: all that LPO learns from. No text, no tokens.

    A decision is one choice: S = 1 per row at sequence level, S = T, one per token, at token level.
    What was read is packed, one entry per decision, row by row, so that short rows cost little.

    >>> decisions = Decisions(
    ...     features=torch.tensor([[0.1], [0.2], [0.3]]),
    ...     choice_ids=torch.tensor([[1, 0], [2, 2]]),
    ...     mask=torch.tensor([[True, False], [True, True]]),
    ... )
    >>> decisions.rows(torch.tensor([1])).features.flatten()
    tensor([0.2000, 0.3000])
    """

    features: Tensor  # (n, C) what was read at the n decisions; C = 0 if a rule decided
    choice_ids: Tensor  # (R, S) what was chosen
    mask: Tensor  # (R, S) True where a decision was made, n times in all

    def __len__(self) -> int:
        return len(self.choice_ids)

    def rows(self, index: Tensor) -> "Decisions":
        """Some of the rows, (B,), in any order; a row named twice is copied."""
        mask = self.mask[index]
        # The features are packed: those of row r begin where all rows before it end.
        steps = torch.arange(mask.shape[1], device=index.device)
        places = self._starts[index, None] + steps  # (B, S)
        return Decisions(self.features[places[mask]], self.choice_ids[index], mask)

    @cached_property
    def _starts(self) -> Tensor:
        """(R,) where the features of each row begin."""
        lengths = self.mask.sum(1)
        return lengths.cumsum(0) - lengths


@dataclass(frozen=True)
class MarginalDecisions(Decisions):
    """Decisions, and how likely every choice would have made each token: for Eq. 11."""

    choice_logprobs: Tensor  # (R, T, K) log P(y_t | tau_k), constants
    token_mask: Tensor  # (R, T) True at the response's tokens

    def rows(self, index: Tensor) -> "MarginalDecisions":
        """Some of the rows, (B,), in any order; a row named twice is copied."""
        made, logprobs = super().rows(index), self.choice_logprobs[index]
        return MarginalDecisions(
            made.features, made.choice_ids, made.mask, logprobs, self.token_mask[index]
        )


@dataclass(frozen=True)
class SampledDecisions(Decisions):
    """Decisions, and how likely the head found each choice when it drew it: for GRPO."""

    sampling_logprobs: Tensor  # (R, S) log P(tau_t | h_t) of what was chosen, constants

    def rows(self, index: Tensor) -> "SampledDecisions":
        """Some of the rows, (B,), in any order; a row named twice is copied."""
        made = super().rows(index)
        logprobs = self.sampling_logprobs[index]
        return SampledDecisions(made.features, made.choice_ids, made.mask, logprobs)


def unpack(values: Tensor, mask: Tensor) -> Tensor:
    """Packed values to where the mask is True: (n, ...) to (R, S, ...), zeros elsewhere.

    >>> unpack(torch.tensor([5, 6, 7]), torch.tensor([[True, False], [True, True]]))
    tensor([[5, 0],
            [6, 7]])
    """
    places = values.new_zeros(*mask.shape, *values.shape[1:])
    places[mask] = values
    return places
