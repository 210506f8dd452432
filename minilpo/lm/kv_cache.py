"""The key/value cache: keys and values of the tokens read so far. One more token costs one step."""

import math

import torch
from torch import Tensor

from minilpo.config import ModelConfig


class KVCache:
    """Keys and values of the tokens that a batch has read. Letters for shapes: see `model`.

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
        device, rows = pad_lengths.device, max_rows or len(pad_lengths)
        shape = config.n_layer, 2, rows, config.n_head, max_length, config.n_embd // config.n_head
        # One block for everything, filled in place: many smaller ones would leave holes in memory.
        self.store = torch.empty(shape, dtype=dtype, device=device)
        self.pad_lengths = pad_lengths
        places = torch.arange(max_length, device=device)
        is_padding = places < pad_lengths[:, None]  # (B, max_length)
        # Finite: a padding token sees only padding, and softmax of nothing but -inf is NaN. Half
        # precision ends at 65504.
        self.padding_mask = is_padding.to(dtype) * max(-1e9, torch.finfo(dtype).min / 2)
        self.is_padded = bool(is_padding.any())
        self.length = 0
        self.mask: Tensor | None = None  # (B, 1, T, T_all) of the tokens that are being read

    def layers(self) -> list["LayerCache"]:
        """Makes the parts of the layers, after `advance`.

        If the cache kept them, they would hold each other, and the memory would not be free before
        Python looks for such circles.
        """
        return [LayerCache(self, layer) for layer in range(len(self.store))]

    def advance(self, T: int) -> Tensor:
        """Prepares to read T more tokens; returns their positions after the padding, (B, T).

        It makes the mask, to add to the attention scores: 0 where a token may look, far below
        elsewhere; None if plain causal attention does the same.
        """
        start, self.length = self.length, self.length + T
        places = torch.arange(start, self.length, device=self.pad_lengths.device)
        self.mask = None
        if self.is_padded or (T > 1 and start > 0):
            self.mask = self.padding_mask[:, None, None, : self.length]
            if T > 1:
                ahead = torch.ones(T, self.length, dtype=torch.bool, device=places.device)
                self.mask = self.mask.masked_fill(ahead.triu(start + 1), -math.inf)
        return (places - self.pad_lengths[:, None]).clamp_(min=0)

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows, in the given order; a row named twice is copied."""
        for stored in self.store.flatten(0, 1)[..., : self.length, :]:  # (max_rows, H, T, D)
            stored[: len(rows)] = stored[rows]
        self.pad_lengths, self.padding_mask = self.pad_lengths[rows], self.padding_mask[rows]


class LayerCache:
    """One layer's part of a `KVCache`, for a `Block`."""

    def __init__(self, cache: KVCache, layer: int):
        self.cache, self.layer, self.mask = cache, layer, cache.mask

    def append(self, keys_and_values: Tensor) -> Tensor:
        """Appends (2, B, H, T, D) to the stored ones; returns all, (2, B, H, T_all, D)."""
        _, B, _, T, _ = keys_and_values.shape
        stored = self.cache.store[self.layer, :, :B, :, : self.cache.length]
        stored[:, :, :, self.cache.length - T :] = keys_and_values
        return stored
