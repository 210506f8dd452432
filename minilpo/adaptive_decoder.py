"""The AdaptiveDecoder: a small head that reads the last hidden state and chooses the temperature."""

import torch
from torch import Tensor, nn

from minilpo.sampling import draw


class AdaptiveDecoder(nn.Module):
    """P(tau_k | h) = softmax(MLP(h))_k over K fixed temperatures: arXiv 2411.09661, Eq. 3.

    The MLP has three layers with SiLU between them. The last one starts at zero, so an untrained head is exactly uniform.

    Args:
        n_embd: C, the width of the hidden states.
        temperature_choices: K temperatures.
        level: "sequence" (the head is read once, at the last prompt token, Eq. 8) or "token" (at every step, Eq. 7).
        n_hidden: width of the two hidden layers.
        generator: draws the initial weights.

    >>> head = AdaptiveDecoder(8, [0.0, 0.5, 1.0], generator=torch.Generator().manual_seed(0))
    >>> head(torch.ones(2, 8)).softmax(-1)[0]
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<SelectBackward0>)
    >>> head.choose(torch.ones(2, 8), "sample", torch.tensor([0.1, 0.9]))
    tensor([0, 2])
    """

    def __init__(
        self,
        n_embd: int,
        temperature_choices: list[float] | tuple[float, ...],
        level: str = "sequence",
        n_hidden: int = 128,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if level not in ("sequence", "token"):
            raise ValueError(f"level must be 'sequence' or 'token', got {level!r}")
        self.level = level
        self.register_buffer("temperature_choices", torch.tensor(temperature_choices, dtype=torch.float32))  # (K,)
        layers = [nn.Linear(n_embd, n_hidden), nn.Linear(n_hidden, n_hidden), nn.Linear(n_hidden, len(temperature_choices))]
        for layer in layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)
        self.mlp = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Temperature logits: (..., C) to (..., K), in the head's own precision, whatever the language model's is."""
        return self.mlp(hidden_states.to(self.mlp[0].weight.dtype))

    def choose(self, hidden_states: Tensor, selection: str, uniforms: Tensor) -> Tensor:
        """Chooses one temperature a row.

        Args:
            hidden_states: (B, C).
            selection: "greedy" takes the most likely choice (Eq. 4), "sample" draws from the head (Eq. 5).
            uniforms: (B,) in [0, 1); only "sample" uses them.

        Returns:
            (B,) indices into `temperature_choices`.

        Raises:
            ValueError: for another selection. The mixture (Eq. 6) chooses no temperature: `rollout` draws its tokens.
        """
        temperature_logits = self(hidden_states)
        if selection == "greedy":
            return temperature_logits.argmax(-1)
        if selection == "sample":
            return draw(temperature_logits.softmax(-1), uniforms)
        raise ValueError(f"selection must be 'greedy' or 'sample' where one temperature is chosen, got {selection!r}")


class ConstantHead(AdaptiveDecoder):
    """The same head with its input zeroed: it can only learn one distribution for everything. A control.

    >>> head = ConstantHead(8, [0.0, 1.0], n_hidden=4, generator=torch.Generator().manual_seed(0))
    >>> _ = torch.nn.init.normal_(head.mlp[-1].weight)
    >>> bool((head(torch.zeros(8)) == head(torch.ones(8))).all())
    True
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Temperature logits, (..., C) to (..., K), the same whatever the hidden states."""
        return super().forward(torch.zeros_like(hidden_states))


class Rule(nn.Module):
    """No head: a rule made by hand says which temperature each row takes. With N samples a prompt, a rule can differ by sample.

    Args:
        temperature_choices: K temperatures.
    """

    level = "sequence"

    def __init__(self, temperature_choices: list[float] | tuple[float, ...]):
        super().__init__()
        self.register_buffer("temperature_choices", torch.tensor(temperature_choices, dtype=torch.float32))  # (K,)

    def choose(self, rows: Tensor, last_token_ids: Tensor) -> Tensor:
        """Chooses one temperature a row.

        Args:
            rows: (B,) the rows of the batch: sample n of its prompt p is row p * N + n.
            last_token_ids: (B,) the token that each row read last; at first, the end mark of the prompt.

        Returns:
            (B,) indices into `temperature_choices`.
        """
        raise NotImplementedError


class FixedTemperatures(Rule):
    """Row i is written at temperature i modulo K. With one temperature, that is ordinary decoding.

    With K temperatures and N = K samples a prompt, one rollout tries every temperature on every prompt.

    >>> FixedTemperatures([0.0, 0.7]).choose(torch.arange(4), torch.zeros(4))
    tensor([0, 1, 0, 1])
    """

    def choose(self, rows: Tensor, last_token_ids: Tensor) -> Tensor:
        """(B,) indices 0, 1, ..., K - 1, 0, 1, ..."""
        return rows % len(self.temperature_choices)


class TwoTemperatures(Rule):
    """One temperature for the first word of a sentence, another for the rest; row i takes pair i modulo the number of pairs.

    Args:
        temperature_choices: K temperatures.
        pairs: (first, rest), as indices into the choices.
        before_first: (n,) token ids after which a sentence begins: the end mark of the prompt and the full stop.

    >>> rule = TwoTemperatures([0.0, 0.7], [(0, 1), (1, 0)], torch.tensor([3, 9]))
    >>> rule.choose(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 5, 9, 5]))
    tensor([0, 1, 1, 0])
    """

    level = "token"

    def __init__(
        self, temperature_choices: list[float] | tuple[float, ...], pairs: list[tuple[int, int]], before_first: Tensor
    ):
        super().__init__(temperature_choices)
        self.register_buffer("pairs", torch.tensor(pairs))  # (n_pairs, 2)
        self.register_buffer("before_first", before_first)

    def choose(self, rows: Tensor, last_token_ids: Tensor) -> Tensor:
        """(B,) indices: that of the row's pair which belongs to this place in a sentence."""
        is_first = torch.isin(last_token_ids, self.before_first)
        return self.pairs[rows % len(self.pairs), (~is_first).long()]
