"""The language model: a small GPT-2, from token ids to hidden states to logits.

The letters used for shapes, here and in every other file:
    B batch (rows)         T time (tokens)       C channels (n_embd)     H attention heads     D channels a head (C / H)
    V vocabulary           K temperature choices P prompts               N samples a prompt    R rows of a rollout (P * N)
    S decisions a response n so many of them, packed
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
        dtype: the model's.
    """

    def __init__(
        self,
        config: ModelConfig,
        pad_lengths: Tensor,
        max_length: int,
        max_rows: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        rows, channels, device = max_rows or len(pad_lengths), config.n_embd // config.n_head, pad_lengths.device
        # One block for everything, filled in place: many smaller ones would leave the memory full of holes.
        self.store = torch.empty(config.n_layer, 2, rows, config.n_head, max_length, channels, dtype=dtype, device=device)
        self.pad_lengths = pad_lengths
        is_padding = torch.arange(max_length, device=device) < pad_lengths[:, None]  # (B, max_length)
        # Finite, so that what padding itself sees, where there is nothing else, isn't NaN. Half precision ends at 65504.
        self.padding_mask = is_padding.to(dtype) * max(-1e9, torch.finfo(dtype).min / 2)  # (B, max_length)
        self.is_padded = bool(is_padding.any())
        self.length = 0

    def append(self, layer: int, keys_and_values: Tensor) -> Tensor:
        """Stores (2, B, H, T_new, D) behind what is there and returns all keys and values of the layer, (2, B, H, T_all, D)."""
        _, B, _, T, _ = keys_and_values.shape
        stored = self.store[layer, :, :B, :, : self.length + T]
        stored[:, :, :, self.length :] = keys_and_values
        return stored

    def positions(self, T: int) -> Tensor:
        """(B, T) the places of the next T tokens in their texts, which begin behind the padding."""
        places = torch.arange(self.length, self.length + T, device=self.pad_lengths.device)
        return (places - self.pad_lengths[:, None]).clamp_(min=0)

    def mask(self, T: int) -> Tensor | None:
        """(B, 1, T, T_all) to add to the next T tokens' attention scores: 0 where they may look, far below elsewhere.

        None if plain causal attention does the same.
        """
        if not self.is_padded and (T == 1 or self.length == 0):
            return None
        T_all = self.length + T
        mask = self.padding_mask[:, None, None, :T_all]
        if T > 1:
            ahead = torch.ones(T, T_all, dtype=torch.bool, device=mask.device).triu(self.length + 1)
            mask = mask.masked_fill(ahead, -math.inf)
        return mask

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows, in the given order; a row named twice is copied."""
        for stored in self.store.flatten(0, 1)[..., : self.length, :]:  # (max_rows, H, T, D)
            stored[: len(rows)] = stored[rows]
        self.pad_lengths, self.padding_mask = self.pad_lengths[rows], self.padding_mask[rows]


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None, places: Tensor | None) -> Tensor:
        """(B, T, C) to the same, or to (n, C) at n places of the flattened batch."""
        B, T, C = x.shape
        D = C // self.n_head
        qkv = self.qkv(x).view(B, T, 3, self.n_head, D).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = qkv
        if cache is not None:
            k, v = cache.append(layer, qkv[1:])
        if T == 1:  # one new token: two batched matrix products cost less than the general kernel
            scores = (q * D**-0.5) @ k.transpose(-2, -1)  # (B, H, 1, T_all)
            y = (scores if mask is None else scores + mask).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(_at(places, y.transpose(1, 2).reshape(B, T, C)))


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised input and added to the stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None, places: Tensor | None) -> Tensor:
        """(B, T, C) to the same, or to (n, C) at n places of the flattened batch."""
        x = _at(places, x) + self.attention(self.norm_1(x), layer, cache, mask, places)
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

    def forward(self, token_ids: Tensor, cache: KVCache | None = None, only: Tensor | None = None) -> Tensor:
        """Hidden states after the final norm, h_t of Eq. 1: what `logits` and the temperature head read.

        Args:
            token_ids: (B, T) the tokens to read; with a cache, the tokens behind those it holds.
            cache: keys and values of the tokens before; the new ones are added to it.
            only: (B, T) True where hidden states are wanted. The other tokens are read for their keys and values alone, which
                spares them most of the last block.

        Returns:
            (B, T, C), or with `only` (n, C), row by row. What is computed at padding means nothing.
        """
        T, mask = token_ids.shape[1], None
        if cache is None:
            positions = torch.arange(T, device=token_ids.device)  # (T,)
        else:
            positions, mask = cache.positions(T), cache.mask(T)
        places = only.flatten().nonzero()[:, 0] if only is not None else None  # (n,) in the flattened batch
        x = self.token_embedding(token_ids) + self.position_embedding(positions)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache, mask, places if layer == last else None)
        if cache is not None:
            cache.length += T
        return self.norm(x)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Scores of the next token, W h: (..., C) to (..., V)."""
        return F.linear(hidden_states, self.token_embedding.weight)


def _at(places: Tensor | None, x: Tensor) -> Tensor:
    """(B, T, C) to (n, C) at some places of the flattened batch; None keeps everything as it is."""
    return x if places is None else x.flatten(0, 1).index_select(0, places)
