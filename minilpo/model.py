"""The language model: a small GPT-2, from token ids to hidden states to logits.

The letters used for shapes, here and in every other file:
    B batch (rows)         T time (tokens)       C channels (n_embd)     H attention heads     D channels a head (C / H)
    V vocabulary           K temperature choices P prompts               N samples a prompt    R rows of a rollout (P * N)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilpo.config import ModelConfig


class KVCache:
    """Keys and values of the tokens that a batch has already read, so that a new token costs one step.

    Args:
        config: the model's shape.
        pad_lengths: (B,) how many padding tokens stand left of each row's first token.
        max_length: room for this many tokens.
        max_rows: room for this many rows, if `select` is going to copy some; by default B.
    """

    def __init__(self, config: ModelConfig, pad_lengths: Tensor, max_length: int, max_rows: int | None = None):
        rows, channels = max_rows or len(pad_lengths), config.n_embd // config.n_head
        # One block for everything, filled in place: many smaller ones would leave the memory full of holes.
        self.store = torch.empty(2, config.n_layer, rows, config.n_head, max_length, channels, device=pad_lengths.device)
        self.pad_lengths = pad_lengths
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (B, H, T_new, D) behind what is there and returns all keys and values of the layer, (B, H, T, D)."""
        end = self.length + keys.shape[2]
        stored = self.store[:, layer, : len(keys), :, :end]  # (2, B, H, T, D)
        stored[0, :, :, self.length :] = keys
        stored[1, :, :, self.length :] = values
        return stored[0], stored[1]

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows, in the given order; a row named twice is copied."""
        for stored in self.store.flatten(0, 1)[..., : self.length, :]:  # (max_rows, H, T, D)
            stored[: len(rows)] = stored[rows]
        self.pad_lengths = self.pad_lengths[rows]


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        if T == 1:  # one new token: two batched matrix products cost less than the general kernel
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, 1, T_all)
            y = (scores + mask).softmax(-1) @ v if mask is not None else scores.softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised input and added to the stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm_1(x), layer, cache, mask)
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2: learned positions, LayerNorm before each part, GELU, un-embedding tied to the embedding.

    >>> config = ModelConfig(vocab_size=50, n_layer=1, n_embd=16, n_head=2, block_size=8)
    >>> model = GPT(config, torch.Generator().manual_seed(0))
    >>> hidden_states = model(torch.tensor([[3, 1, 4]]))
    >>> hidden_states.shape, model.logits(hidden_states).shape
    (torch.Size([1, 3, 16]), torch.Size([1, 3, 50]))
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        # GPT-2's initialisation, but its standard deviation of 0.02, made for width 768, learns sums slowly at width 128.
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                shrink = math.sqrt(2 * config.n_layer) if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=config.n_embd**-0.5 / shrink, generator=generator)

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states after the final norm, h_t of Eq. 1: what `logits` and the temperature head read.

        Args:
            token_ids: (B, T) the tokens to read; with a cache, the tokens behind those it holds.
            cache: keys and values of the tokens before; the new ones are added to it.

        Returns:
            (B, T, C). What is computed at padding means nothing.
        """
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + token_ids.shape[1], device=token_ids.device)  # (T,)
        mask = None
        if cache is not None:
            mask = _mask(positions, cache)
            positions = (positions - cache.pad_lengths[:, None]).clamp(min=0)  # (B, T)
        x = self.token_embedding(token_ids) + self.position_embedding(positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache, mask)
        if cache is not None:
            cache.length += token_ids.shape[1]
        return self.norm(x)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Scores of the next token, W h: (..., C) to (..., V)."""
        return F.linear(hidden_states, self.token_embedding.weight)


def _mask(positions: Tensor, cache: KVCache) -> Tensor:
    """(B, 1, T, T_all) to be added to attention scores: 0 where a token may look, -inf at padding and at later tokens."""
    keys = torch.arange(int(positions[-1]) + 1, device=positions.device)  # (T_all,)
    seen = (keys <= positions[:, None]) & (keys >= cache.pad_lengths[:, None, None])  # (B, T, T_all)
    seen |= keys == positions[:, None]  # padding looks at itself: an empty row would be NaN
    return torch.zeros_like(seen, dtype=cache.store.dtype).masked_fill_(~seen, -math.inf)[:, None]
