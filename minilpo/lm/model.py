"""The transformer: a small GPT-2, from token ids to hidden states to logits.

The letters used for shapes, here and in every other file:
    B batch (rows)          T time (tokens)        C channels (n_embd)    H attention heads
    V vocabulary            K choices              P prompts              N samples per prompt
    R rows of a rollout (P * N)                    S decisions per response (1 or T)
    D channels per head (C / H)                    n a number of tokens or decisions, packed
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilpo.config import ModelConfig
from minilpo.lm.kv_cache import KVCache, LayerCache
from minilpo.seeds import torch_defaults


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Maps (B, T, C) to the same shape."""
        return self.out(self.attend(x, cache))

    def attend(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mixes each token's values with the values of earlier tokens, (B, T, C)."""
        B, T, C = x.shape
        D = C // self.n_head
        qkv = self.qkv(x).view(B, T, 3, self.n_head, D).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = qkv
        mask = None
        if cache is not None:
            (k, v), mask = cache.append(qkv[1:]), cache.mask  # (B, H, T_all, D) each
        if T == 1:
            # One new token: two batched matrix products cost less than the general kernel.
            scores = (q * D**-0.5) @ k.transpose(-2, -1)  # (B, H, 1, T_all)
            y = (scores if mask is None else scores + mask).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return y.transpose(1, 2).reshape(B, T, C)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised input and added to the stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Maps (B, T, C) to the same shape."""
        x = x + self.attention(self.norm_1(x), cache)
        return x + self.feed_forward(x)

    def forward_at(self, x: Tensor, places: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Maps (B, T, C) to (n, C), at n places of the flattened batch; all may be looked at."""
        context = self.attention.attend(self.norm_1(x), cache)  # (B, T, C)
        x = x.flatten(0, 1).index_select(0, places)  # (n, C)
        x = x + self.attention.out(context.flatten(0, 1).index_select(0, places))
        return x + self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Maps each token on its own, (..., C) to the same shape."""
        return self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2: learned positions, LayerNorm before each part, GELU, embedding and un-embedding tied.

    >>> config = ModelConfig(vocab_size=50, n_layer=1, n_embd=16, n_head=2, block_size=8)
    >>> model = GPT(config, torch.Generator().manual_seed(0))
    >>> hidden_states = model(torch.tensor([[3, 1, 4]]))
    >>> hidden_states.shape, model.logits(hidden_states).shape
    (torch.Size([1, 3, 16]), torch.Size([1, 3, 50]))
    """

    @torch_defaults()
    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        # GPT-2's initialisation, but its standard deviation of 0.02, made for width 768, learns
        # sums slowly at width 128.
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                is_last_of_branch = name.endswith(("out.weight", "down.weight"))
                shrink = math.sqrt(2 * config.n_layer) if is_last_of_branch else 1.0
                nn.init.normal_(parameter, std=config.n_embd**-0.5 / shrink, generator=generator)

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Computes hidden states after the final norm, h_t of Eq. 1: `logits` and heads read them.

        Args:
            token_ids: (B, T) the tokens to read; with a cache, those after the ones it holds.
            cache: keys and values of the tokens before; the new ones are added to it.

        Returns:
            (B, T, C). The values at padding have no meaning.
        """
        x, layers = self._embed(token_ids, cache)
        for block, past in zip(self.blocks, layers, strict=True):
            x = block(x, past)
        return self.norm(x)

    def forward_at(self, token_ids: Tensor, wanted: Tensor, cache: KVCache | None = None) -> Tensor:
        """Computes the same where `wanted` is True, (n, C), row by row.

        Args:
            token_ids, cache: as in `forward`.
            wanted: (B, T).
        """
        places = wanted.flatten().nonzero()[:, 0]  # (n,) in the flattened batch
        x, layers = self._embed(token_ids, cache)
        blocks: list[Any] = [*self.blocks]
        # All but the last block work as ever: every token may still be looked at.
        for block, past in zip(blocks[:-1], layers[:-1], strict=True):
            x = block(x, past)
        return self.norm(blocks[-1].forward_at(x, places, layers[-1]))

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Computes scores of the next token, W h: (..., C) to (..., V)."""
        return F.linear(hidden_states, self.token_embedding.weight)

    def _embed(
        self, token_ids: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, Sequence[LayerCache | None]]:
        """Embeds tokens, (B, T, C), and gives each block's part of the cache."""
        T = token_ids.shape[1]
        layers: Sequence[LayerCache | None] = [None] * len(self.blocks)
        if cache is None:
            positions = torch.arange(T, device=token_ids.device)  # (T,)
        else:
            positions, layers = cache.advance(T), cache.layers()  # (B, T)
        return self.token_embedding(token_ids) + self.position_embedding(positions), layers
