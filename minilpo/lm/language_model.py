"""A language model as the rest of the package sees it: text in, hidden states and logits out.

Generation, LPO and evaluation use only the members of `LanguageModel`. So another model needs an
adapter of these few members. `GPTLanguageModel` is ours: transformer and tokenizer as one thing.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from minilpo.lm.kv_cache import KVCache
from minilpo.lm.model import GPT
from minilpo.lm.tokenizer import Tokenizer


class Batch(Protocol):
    """R texts in the middle of being written."""

    hidden_states: Tensor  # (R, C) after the last token of each: the input of a head
    logits: Tensor  # (R, V) of the token to come; not always a linear map of the hidden states

    def step(self, token_ids: Tensor) -> None:
        """Reads one more token of each text, (R,), and updates `hidden_states` and `logits`."""

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows, in the given order."""


class LanguageModel(Protocol):
    """The members of a language model. Token ids are its own; nobody else reads them."""

    end_ids: Sequence[int]  # tokens that end a response
    sentence_starts: Sequence[int]  # tokens after which a sentence begins
    max_length: int  # tokens of prompt and response together

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Encodes each prompt with its end mark; raises ValueError if one can't be read."""

    def decode(self, token_ids: list[int]) -> str:
        """Returns the text of a response."""

    def prefill(self, prompts: Sequence[list[int]], n_samples: int, max_new_tokens: int) -> Batch:
        """Reads P prompts for N responses to each; row p * N + n is response n to prompt p."""

    def forward_responses(
        self, prompts: Sequence[list[int]], token_ids: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Reads whole responses at once, as training does, with gradients where the model has them.

        Args:
            prompts: R prompts.
            token_ids: (R, T) the response to each.
            response_mask: (R, T) True at the n tokens of all responses.

        Returns:
            Hidden states (n, C) and logits (n, V) before each of the tokens, row by row.
        """


class GPTLanguageModel:
    """Our transformer with the tokenizer that it was trained with.

    >>> from minilpo.config import ModelConfig
    >>> tokenizer = Tokenizer.train(["The fox sees 7 owls."])
    >>> config = ModelConfig(tokenizer.vocab_size, n_layer=1, n_embd=16, n_head=2, block_size=8)
    >>> lm = GPTLanguageModel(GPT(config, torch.Generator().manual_seed(0)), tokenizer)
    >>> batch = lm.prefill(lm.encode(["The fox", "7 owls."]), n_samples=3, max_new_tokens=2)
    >>> batch.hidden_states.shape, batch.logits.shape
    (torch.Size([6, 16]), torch.Size([6, 9]))
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.end_ids: Sequence[int] = (tokenizer.eos_id,)
        self.sentence_starts: Sequence[int] = (tokenizer.sep_id, *tokenizer.ids_of(["."]))
        self.max_length = model.config.block_size

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        prompt_ids = self.tokenizer.encode_batch(list(prompts))
        return [[*token_ids, self.tokenizer.sep_id] for token_ids in prompt_ids]

    def decode(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[list[int]], n_samples: int, max_new_tokens: int
    ) -> "GPTBatch":
        return GPTBatch(self, prompts, n_samples, max_new_tokens)

    def forward_responses(
        self, prompts: Sequence[list[int]], token_ids: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        T = int(response_mask.sum(1).max())
        shape = (len(prompts), max(map(len, prompts)) + T)
        texts = torch.full(shape, self.tokenizer.pad_id)
        wanted = torch.zeros(shape, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            n = len(prompt)
            texts[row, :n] = torch.tensor(prompt)
            texts[row, n : n + T] = token_ids[row, :T]
            wanted[row, n - 1 : n - 1 + T] = response_mask[row, :T]  # the token before is read
        # A long prompt in one row and a long response in another make the window wider than the
        # model can read. The part beyond is padding.
        T_all = min(shape[1], self.max_length)
        device = self.model.token_embedding.weight.device
        texts, wanted = texts[:, :T_all].to(device), wanted[:, :T_all].to(device)
        hidden_states = self.model.forward_at(texts, wanted)
        return hidden_states, self.model.logits(hidden_states)


class GPTBatch:
    """A `Batch` of our transformer, with its key/value cache."""

    def __init__(
        self,
        lm: GPTLanguageModel,
        prompts: Sequence[list[int]],
        n_samples: int,
        max_new_tokens: int,
    ):
        self.model, weight = lm.model, lm.model.token_embedding.weight
        # All prompts end in the last column, so that their responses begin in the same one.
        T, pad_id = max(map(len, prompts)), lm.tokenizer.pad_id
        pad_lengths = torch.tensor([T - len(prompt) for prompt in prompts], device=weight.device)
        padded = [[pad_id] * (T - len(prompt)) + prompt for prompt in prompts]
        token_ids = torch.tensor(padded, device=weight.device)  # (P, T)
        max_length, max_rows = T + max_new_tokens, len(prompts) * n_samples
        self.cache = KVCache(lm.model.config, pad_lengths, max_length, max_rows, weight.dtype)
        # Prefill: each prompt is read once, then its part of the cache is copied for N samples.
        is_last = torch.zeros_like(token_ids, dtype=torch.bool)
        is_last[:, -1] = True
        hidden_states = lm.model.forward_at(token_ids, is_last, self.cache)  # (P, C)
        numbers = torch.arange(len(prompts), device=weight.device)
        sample_of = numbers.repeat_interleave(n_samples)  # (R,)
        self.cache.select(sample_of)
        self.hidden_states = hidden_states[sample_of]  # (R, C)
        self.logits = lm.model.logits(self.hidden_states)

    @torch.inference_mode()
    def step(self, token_ids: Tensor) -> None:
        self.hidden_states = self.model(token_ids[:, None], self.cache)[:, -1]
        self.logits = self.model.logits(self.hidden_states)

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.hidden_states, self.logits = self.hidden_states[rows], self.logits[rows]
