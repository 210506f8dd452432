"""The AdaptiveDecoder: a small head that reads the last hidden state and makes a choice.

It gives a distribution over K choices, such as temperatures. `Decisions` hold the choices that were
made. See `decoding/choices.py` for the choices, `decoding/policies.py` for ways to take one.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from minilpo.seeds import torch_defaults


class AdaptiveDecoder(nn.Module):
    """P(τ_k | h) = softmax(MLP(h))_k over K choices: arXiv 2411.09661, Eq. 3.

    The MLP has three layers with SiLU between them. An untrained head is exactly uniform.

    Args:
        n_embd: C, the width of the hidden states.
        n_choices: K.
        level: "sequence" (it chooses once, after the last prompt token, Eq. 8) or "token"
            (before every token, Eq. 7).
        n_hidden: width of the two hidden layers.
        generator: draws the initial weights.

    Raises ValueError for another level.

    >>> head = AdaptiveDecoder(8, 3, generator=torch.Generator().manual_seed(0))
    >>> head(torch.ones(2, 8)).softmax(-1)[0]
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<SelectBackward0>)
    """

    @torch_defaults()
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
        self.n_embd, self.n_choices, self.level = n_embd, n_choices, level
        layers = [
            nn.Linear(n_embd, n_hidden),
            nn.Linear(n_hidden, n_hidden),
            nn.Linear(n_hidden, n_choices),
        ]
        # The outputs of the first two are about as large in value as their inputs. The last one
        # starts at zero: no choice is preferred before anything was learned.
        for layer in layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)
        self.mlp = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Computes choice logits, (..., C) to (..., K), in the head's own precision.

        The head may be on another device than the hidden states; its answer is on theirs. Raises
        ValueError if they have another width than the head was made for.
        """
        if (C := hidden_states.shape[-1]) != self.n_embd:
            raise ValueError(f"the head must read {self.n_embd} values, got {C}; make one for {C}")
        return self.mlp(hidden_states.to(next(self.parameters()))).to(hidden_states.device)


class ConstantHead(AdaptiveDecoder):
    """The same head with its input zeroed, a control: it learns one distribution for everything.

    >>> head = ConstantHead(8, 2, n_hidden=4, generator=torch.Generator().manual_seed(0))
    >>> _ = torch.nn.init.normal_(head.mlp[-1].weight)
    >>> bool((head(torch.zeros(8)) == head(torch.ones(8))).all())
    True
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Computes choice logits, (..., C) to (..., K), the same for all hidden states."""
        return super().forward(torch.zeros_like(hidden_states))


@dataclass(frozen=True)
class Decisions:
    """The head's inputs and choices in R responses. Eq. 10 learns from these alone, not from text.

    A decision is one choice. At sequence level there is S = 1 per response, at token level S = T,
    one per token. Inputs are packed, one per decision, row by row, so that short rows cost little.

    >>> decisions = Decisions(
    ...     features=torch.tensor([[0.1], [0.2], [0.3]]),
    ...     choice_ids=torch.tensor([[1, 0], [2, 2]]),
    ...     mask=torch.tensor([[True, False], [True, True]]),
    ... )
    >>> decisions.rows(torch.tensor([1])).features.flatten()
    tensor([0.2000, 0.3000])
    """

    features: Tensor  # (n, C) the hidden states at the n decisions (C = 0 without a head)
    choice_ids: Tensor  # (R, S) the choices
    mask: Tensor  # (R, S) True where a decision was made: n times, from the left

    def __len__(self) -> int:
        return len(self.choice_ids)

    def rows(self, index: Tensor) -> "Decisions":
        """Selects responses by their numbers, (B,), in any order, also one of them twice."""
        mask = self.mask[index]
        # The features are packed: row r begins where row r - 1 ends.
        steps = torch.arange(mask.shape[1], device=index.device)
        places = self._starts[index, None] + steps  # (B, S)
        return Decisions(self.features[places[mask]], self.choice_ids[index], mask)

    @cached_property
    def _starts(self) -> Tensor:
        """Finds the place where the features of each row begin, (R,)."""
        lengths = self.mask.sum(1)
        return lengths.cumsum(0) - lengths


def unpack(values: Tensor, mask: Tensor) -> Tensor:
    """Puts packed values where the mask is True: (n, ...) to (R, S, ...), zeros elsewhere.

    >>> unpack(torch.tensor([5, 6, 7]), torch.tensor([[True, False], [True, True]]))
    tensor([[5, 0],
            [6, 7]])
    """
    places = values.new_zeros(*mask.shape, *values.shape[1:])
    places[mask] = values
    return places
