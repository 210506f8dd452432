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
        """Temperature logits: (..., C) to (..., K)."""
        return self.mlp(hidden_states)

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


class FixedTemperatures(nn.Module):
    """No head: row i is written at temperature i modulo K. With one temperature, that is ordinary decoding.

    With K temperatures and N = K samples a prompt, one rollout tries every temperature on every prompt.

    >>> FixedTemperatures([0.0, 0.7]).choose(torch.ones(4, 8), "greedy", torch.zeros(4))
    tensor([0, 1, 0, 1])
    """

    level = "sequence"

    def __init__(self, temperature_choices: list[float] | tuple[float, ...]):
        super().__init__()
        self.register_buffer("temperature_choices", torch.tensor(temperature_choices, dtype=torch.float32))  # (K,)

    def choose(self, hidden_states: Tensor, selection: str, uniforms: Tensor) -> Tensor:
        """(B,) indices 0, 1, ..., K - 1, 0, 1, ...; nothing is read from the arguments but the number of rows."""
        return torch.arange(len(uniforms), device=hidden_states.device) % len(self.temperature_choices)
