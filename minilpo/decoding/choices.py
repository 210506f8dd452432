"""Choices: K options with names, and the next token's exact probabilities under each.

Everything follows from these: drawing a token, the mixture of Eq. 6, and the constants of Eq. 11.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from minilpo.decoding.sampling import draw, next_tokens, token_probs
from minilpo.seeds import torch_defaults
from minilpo.setting import RULES, DecodingSetting

FLOOR = -20.0  # log-probability of a token that an option never writes: see `Choices.logprobs`


class Choices:
    """K options. A class of them has names and `probs`; the rest follows."""

    names: tuple[str, ...]

    @property
    def deterministic(self) -> tuple[bool, ...]:
        """Tells for each option whether it always writes the same response to a prompt."""
        return (False,) * len(self)

    def __len__(self) -> int:
        return len(self.names)

    def probs(self, logits: Tensor, choice_ids: Tensor, positions: Tensor) -> Tensor:
        """Computes the next token's probabilities under option choice_ids[b] in row b.

        Args:
            logits: (B, V).
            choice_ids: (B,).
            positions: (B,), or () for all rows alike: the token's place in its response, from 0.

        Returns:
            (B, V), each row summing to 1.
        """
        raise NotImplementedError

    def draw(
        self, logits: Tensor, choice_ids: Tensor, positions: Tensor, uniforms: Tensor
    ) -> Tensor:
        """Draws the next token of each row, (B,), with one uniform number per row, (B,)."""
        return draw(self.probs(logits, choice_ids, positions), uniforms)

    def mixture(self, logits: Tensor, weights: Tensor, positions: Tensor) -> Tensor:
        """Computes the probabilities if the option is drawn anew: Σ_k weights_k P_k, Eq. 6.

        Args:
            logits, positions: as in `probs`.
            weights: (B, K), each row summing to 1.

        >>> weights, now = torch.tensor([[0.5, 0.5]]), torch.tensor(0)
        >>> Temperatures([0.0, 1.0]).mixture(torch.tensor([[0.0, 1.0]]), weights, now)
        tensor([[0.1345, 0.8655]])
        """
        mixed = torch.zeros_like(logits)
        for k in range(len(self)):
            choice_ids = torch.full_like(logits[:, 0], k, dtype=torch.long)
            mixed += weights[:, k, None] * self.probs(logits, choice_ids, positions)
        return mixed

    def logprobs(
        self, logits: Tensor, token_ids: Tensor, positions: Tensor, floor: float = FLOOR
    ) -> Tensor:
        """Computes log P(y | option k) of given tokens, (B, K): the constants that Eq. 11 needs.

        At temperature 0 every token but one has probability 0, and its log is -inf. So every
        log-probability below `floor` is set to it. The option that drew a token gave it far more
        than e^-20: the gradient of a batch under Eq. 11 changes by at most .04%, as a test holds.

        Args:
            logits, positions: as in `probs`.
            token_ids: (B,).
            floor: the lowest value.

        >>> logits, token_ids, now = torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor(0)
        >>> Temperatures([0.0, 1.0]).logprobs(logits, token_ids, now)
        tensor([[-20.0000,  -1.3133]])
        """
        # One option at a time: (B, K, V) numbers at once would be slower and take more memory.
        columns = []
        for k in range(len(self)):
            probs = self.probs(logits, torch.full_like(token_ids, k), positions)
            columns.append(probs.gather(-1, token_ids[:, None]))
        return torch.cat(columns, 1).log().clamp(min=floor)


class Temperatures(Choices):
    """Temperatures, each on its own or with a rule that leaves unlikely tokens out.

    The temperature is applied first; then only the `top_k` likeliest tokens are kept, of these the
    likeliest that together reach `top_p`, and of these all that are at least `min_p` times as
    likely as the likeliest. Their probabilities are scaled to sum to 1.

    Args:
        temperatures: K values, 0 is greedy; `DecodingSetting` has all limits.
        top_k: K whole numbers, 0 for all tokens; or None.
        top_p: K shares above 0, 1 for all tokens; or None.
        min_p: K shares, 0 for all tokens; or None.

    Raises:
        ValueError: if a list has another length than `temperatures`, or a value is out of its
            range.

    >>> choices = Temperatures([0.0, 1.0, 1.0], top_p=[1.0, 1.0, 0.5])
    >>> choices.names
    ('0', '1', '1, top-p 0.5')
    >>> logits = torch.tensor([[1.0, 2.0, 0.0]]).expand(3, -1)
    >>> choices.probs(logits, torch.arange(3), torch.tensor(0))
    tensor([[0.0000, 1.0000, 0.0000],
            [0.2447, 0.6652, 0.0900],
            [0.0000, 1.0000, 0.0000]])
    """

    @torch_defaults()
    def __init__(
        self,
        temperatures: Sequence[float],
        *,
        top_k: Sequence[int] | None = None,
        top_p: Sequence[float] | None = None,
        min_p: Sequence[float] | None = None,
    ):
        K = len(temperatures)
        columns = [column("temperatures", temperatures, K)]
        for (name, neutral), values in zip(RULES.items(), (top_k, top_p, min_p), strict=True):
            columns.append(column(name, [neutral] * K if values is None else values, K))
        self.settings = tuple(DecodingSetting(*row) for row in zip(*columns, strict=True))
        self.names = tuple(setting.name for setting in self.settings)
        self.temperatures = columns[0]
        self.table = torch.tensor(columns[0], dtype=torch.float32)  # (K,)
        self.rules = torch.tensor(columns[1:])  # (3, K)
        self.sorts = any(setting.top_k or setting.top_p < 1 for setting in self.settings)
        self._truncates = any(setting.rules for setting in self.settings)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Temperatures":
        """Makes the options from texts, as they are typed after --choices.

        >>> Temperatures.parse(["0", "1.2,min_p=0.1"]).names
        ('0', '1.2, min-p 0.1')
        """
        settings = [astuple(DecodingSetting.parse(text)) for text in texts]
        temperatures, top_k, top_p, min_p = zip(*settings, strict=True)
        return cls(temperatures, top_k=top_k, top_p=top_p, min_p=min_p)

    @property
    def deterministic(self) -> tuple[bool, ...]:
        """Tells for each option whether it is greedy: at temperature 0 nothing is drawn."""
        return tuple(temperature == 0 for temperature in self.temperatures)

    def probs(self, logits: Tensor, choice_ids: Tensor, positions: Tensor) -> Tensor:
        probs = token_probs(logits, self.table.to(logits.device)[choice_ids])
        return self._truncated(probs, choice_ids) if self._truncates else probs

    def draw(
        self, logits: Tensor, choice_ids: Tensor, positions: Tensor, uniforms: Tensor
    ) -> Tensor:
        if self._truncates:
            return super().draw(logits, choice_ids, positions, uniforms)
        # For temperatures alone this is a shorter way to the same tokens.
        return next_tokens(logits, self.table.to(logits.device)[choice_ids], uniforms)

    def _truncated(self, probs: Tensor, choice_ids: Tensor) -> Tensor:
        """Leaves out tokens by the rules of option choice_ids[b]: (B, V), rows summing to 1."""
        top_k, top_p, min_p = self.rules.to(probs.device)[:, choice_ids, None]  # (B, 1) each
        # To sort all tokens takes as long as the rest of a step, and min-p alone doesn't need it.
        if self.sorts:
            probs = _likeliest(probs, top_k, top_p)
        probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0.0)
        return probs / probs.sum(-1, keepdim=True)


def _likeliest(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keeps the `top_k` likeliest, and of these the `top_p`: (B, V), 0 for all others."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)  # equals as they stood
    rank = torch.arange(probs.shape[-1], device=probs.device)
    ordered = ordered.masked_fill((top_k > 0) & (rank >= top_k), 0.0)
    ordered = ordered / ordered.sum(-1, keepdim=True)
    # A token stays while the likelier ones haven't reached top_p; so the first always stays.
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1) & (rank > 0), 0.0)
    return torch.zeros_like(probs).scatter(-1, order, ordered)


class FirstTokens(Choices):
    """Options that force the first token of a response: "think", say, or "answer".

    The rest is drawn at one temperature. Raises ValueError if there are more names or fewer than
    tokens, or the temperature is out of its range.

    >>> choices = FirstTokens([2, 0], ["think", "answer"])
    >>> logits = torch.tensor([[1.0, 2.0, 0.0]]).expand(2, -1)
    >>> choices.draw(logits, torch.tensor([0, 1]), torch.tensor(0), torch.rand(2))
    tensor([2, 0])
    >>> choices.draw(logits, torch.tensor([0, 1]), torch.tensor(1), torch.rand(2))
    tensor([1, 1])
    """

    @torch_defaults()
    def __init__(self, token_ids: Sequence[int], names: Sequence[str], temperature: float = 0.0):
        self.names = column("names", names, len(token_ids))
        self.token_ids = torch.tensor(token_ids)
        self.temperature = DecodingSetting(temperature).temperature

    @property
    def deterministic(self) -> tuple[bool, ...]:
        return (self.temperature == 0,) * len(self)

    def probs(self, logits: Tensor, choice_ids: Tensor, positions: Tensor) -> Tensor:
        temperatures = torch.full_like(logits[:, 0], self.temperature)
        first = self.token_ids.to(logits.device)[choice_ids, None]  # (B, 1)
        forced = torch.zeros_like(logits).scatter(-1, first, 1.0)
        return forced.where((positions == 0)[..., None], token_probs(logits, temperatures))


def column(name: str, values: Sequence[Any], K: int) -> tuple[Any, ...]:
    """Reads a column of a table of K options, which may be a list, an array or a tensor."""
    values = [value.item() if hasattr(value, "item") else value for value in values]
    if len(values) != K or not values:
        raise ValueError(
            f"{name} must have one value per option, {K} in all and at least one, got {len(values)}"
        )
    return tuple(values)
