"""Policies: each decides how the next token is drawn.

GreedyHead, SampledHead, MixedHead   the AdaptiveDecoder, read in three ways (Eq. 4, 5, 6)
Fixed                                one option per row
ByPlace                              one option for the first word of a sentence, one for the rest
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Choices
from minilpo.decoding.sampling import draw
from minilpo.seeds import torch_defaults


@dataclass(frozen=True)
class Step:
    """The inputs of a policy before the next token of B rows is drawn."""

    rows: Tensor  # (B,) the rows still going; sample n of the batch's prompt p is row p * N + n
    hidden_states: Tensor  # (B, C)
    logits: Tensor  # (B, V)
    last_token_ids: Tensor  # (B,) the last token of each row; at first, the end of its prompt
    position: Tensor  # () how many tokens of its response each row has written
    uniforms: Tensor  # (B,) in [0, 1), to draw a choice with


class Policy:
    """Chooses an option once per response or before every token, and draws tokens by its choice.

    A subclass has `choose`. One that keeps a state per row makes it in `start`, finds each row's
    part by `Step.rows`, and brings it up to date in `observe`.
    """

    level = "sequence"  # it chooses once per response; or "token": before every token
    chooses_one = True  # each choice is one option, and is kept in the `Rollout`

    def __init__(self, choices: Choices):
        self.choices = choices

    def start(self, n_rows: int) -> None:
        """Begins a new batch of so many rows."""

    def choose(self, step: Step) -> Tensor:
        """Chooses an option for each row: their ids, (B,)."""
        raise NotImplementedError

    def features(self, step: Step) -> Tensor:
        """Returns the part of a step that is kept to learn from: (B, 0), nothing."""
        return step.hidden_states[:, :0]

    def probs(self, step: Step, choice: Tensor) -> Tensor:
        """Computes token probabilities, (B, V), under the choice that `choose` returned."""
        return self.choices.probs(step.logits, choice, step.position)

    def draw(self, step: Step, choice: Tensor, uniforms: Tensor) -> Tensor:
        """Draws the next tokens, (B,), from `probs`, with one uniform number per row, (B,)."""
        if not self.chooses_one:
            return draw(self.probs(step, choice), uniforms)
        return self.choices.draw(step.logits, choice, step.position, uniforms)

    def observe(self, step: Step, token_ids: Tensor) -> None:
        """Receives the tokens, (B,), that were drawn."""


class HeadPolicy(Policy):
    """The AdaptiveDecoder decides. A subclass says how its distribution is used.

    Raises ValueError if the head wasn't made for as many choices.
    """

    def __init__(self, head: AdaptiveDecoder, choices: Choices):
        super().__init__(choices)
        if head.n_choices != (K := len(choices.names)):
            got = f"got {head.n_choices}; make it with AdaptiveDecoder(n_embd, len(choices))"
            raise ValueError(f"the head must have as many choices as there are, {K}, {got}")
        self.head, self.level = head, head.level

    def features(self, step: Step) -> Tensor:
        """Returns the hidden states that the head has read, (B, C)."""
        return step.hidden_states


class GreedyHead(HeadPolicy):
    """Takes the most likely option: arXiv 2411.09661, Eq. 4."""

    def choose(self, step: Step) -> Tensor:
        return self.head(step.hidden_states).argmax(-1)


class SampledHead(HeadPolicy):
    """Draws an option: arXiv 2411.09661, Eq. 5."""

    def choose(self, step: Step) -> Tensor:
        # The uniform numbers come with the step: a row draws the same in every batch.
        return draw(self.head(step.hidden_states).softmax(-1), step.uniforms)


class MixedHead(HeadPolicy):
    """Draws tokens from the mixture of all options, Eq. 6: no single one wrote a token."""

    chooses_one = False

    def choose(self, step: Step) -> Tensor:
        """Returns the weights of the options, (B, K)."""
        return self.head(step.hidden_states).softmax(-1)

    def probs(self, step: Step, choice: Tensor) -> Tensor:
        return self.choices.mixture(step.logits, choice, step.position)


class Fixed(Policy):
    """Row i of the batch takes option i modulo K. With one temperature, that is ordinary decoding.

    With N = K samples per prompt, sample k of every prompt takes option k. Or `order` says which
    option each of a prompt's N samples takes.
    """

    @torch_defaults()
    def __init__(self, choices: Choices, order: Sequence[int] | None = None):
        super().__init__(choices)
        self.order = torch.arange(len(choices)) if order is None else torch.tensor(order)  # (N,)

    def choose(self, step: Step) -> Tensor:
        return self.order.to(step.rows.device)[step.rows % len(self.order)]


class ByPlace(Policy):
    """One option for the first word of a sentence, another for the rest; row i takes pair i.

    Args:
        choices: the options.
        pairs: (first, rest), as ids of options; with fewer pairs than rows, they come again.
        sentence_starts: token ids after which a sentence begins.
    """

    level = "token"

    @torch_defaults()
    def __init__(
        self, choices: Choices, pairs: Sequence[tuple[int, int]], sentence_starts: Sequence[int]
    ):
        super().__init__(choices)
        self.pairs = torch.tensor(pairs)  # (n_pairs, 2)
        self.sentence_starts = torch.tensor(sentence_starts)

    def choose(self, step: Step) -> Tensor:
        starts = self.sentence_starts.to(step.rows.device)
        # A sentence begins after the end of the prompt and after every full stop.
        is_rest = (~torch.isin(step.last_token_ids, starts)).long()
        return self.pairs.to(step.rows.device)[step.rows % len(self.pairs), is_rest]
