"""Any Hugging Face causal language model as the rest of the package sees one.

Nothing here is made for one architecture. A model is asked for what it offers: an un-embedding, a
cache whose rows can be picked, logits. At the beginning it has to show on two short texts that with
these it reads step by step what it reads at once; one that doesn't is refused in words.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.machine.text import named

ENOUGH_TO_WRITE = 512  # tokens of prompt and response, if the model has room for more
TOKENS_AT_ONCE = 2048  # read again together: with 150,000 words, the logits take a gigabyte
CACHES = ("cache", "past_key_values")  # forward's name of it, in newer and in older versions
# The number of tokens that a model can read, as configurations call it.
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


class HuggingFaceLanguageModel:
    """A `LanguageModel` made of a causal language model of transformers and its tokenizer.

    Args:
        model: from `AutoModelForCausalLM.from_pretrained`, on any device, in any precision. It is
            put in evaluation mode whenever it reads a prompt, and otherwise left as it is.
        tokenizer: the model's own, from `AutoTokenizer.from_pretrained`.
        chat: whether a prompt is put into the tokenizer's chat template, as a user's message; by
            default if there is one.
        system: with a chat template, a system message to put before every prompt.
        max_length: tokens of prompt and response together; by default 512, or fewer if the model
            can't read as many.

    Raises:
        ValueError: if the model isn't one that reads a text token by token with a cache, the
            tokenizer isn't one of transformers, it has no chat template but one is asked for, or
            `max_length` is beyond the model.

    >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    >>> from minilpo.lm.tokenizer import Tokenizer
    >>> words = Tokenizer.train(["The fox sees 7 owls."])
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._backend, eos_token="<eos>")
    >>> shape = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2)
    >>> config = LlamaConfig(**shape, num_hidden_layers=1, vocab_size=9, eos_token_id=2)
    >>> lm = HuggingFaceLanguageModel(LlamaForCausalLM(config), tokenizer)
    >>> batch = lm.prefill(lm.encode(["The fox", "7 owls."]), n_samples=3, max_new_tokens=2)
    >>> batch.hidden_states.shape, batch.logits.shape, lm.end_ids, lm.max_length
    (torch.Size([6, 16]), torch.Size([6, 9]), (2,), 512)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat: bool | None = None,
        system: str | None = None,
        max_length: int | None = None,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.un_embedding = _un_embedding(model)
        if not hasattr(tokenizer, "get_vocab"):
            raise ValueError(
                f"the tokenizer must be one of transformers, got {type(tokenizer).__name__}; load "
                "it with AutoTokenizer.from_pretrained"
            )
        model.eval()
        has_template = getattr(tokenizer, "chat_template", None) is not None
        self.chat, self.system = has_template if chat is None else chat, system
        if (self.chat and not has_template) or (system is not None and not self.chat):
            raise ValueError(
                f"chat=True and system must come with a tokenizer that has a chat template, got "
                f"chat={self.chat} and {'one' if has_template else 'a tokenizer without'}; leave "
                "them out, or set tokenizer.chat_template"
            )
        most = most_tokens(model.config)
        if max_length is not None and not 2 <= max_length <= (most or max_length):
            raise ValueError(
                f"max_length must be from 2 to what the model can read, {most or 'any number'}, "
                f"got {max_length}; leave it out for the default"
            )
        self.max_length = max_length or min(ENOUGH_TO_WRITE, most or ENOUGH_TO_WRITE)
        takes = inspect.signature(model.forward).parameters
        self.cache_name = next((name for name in CACHES if name in takes), CACHES[-1])
        self.takes_positions = "position_ids" in takes
        # Some models limit the logits to what is wanted; others compute those of all tokens.
        self._limits_logits = "logits_to_keep" in takes
        self.n_embd = _prove(self)  # C, the width of the hidden states
        self.end_ids: Sequence[int] = ends_of(getattr(model, "generation_config", None), tokenizer)
        self.sentence_starts: Sequence[int] = self._sentence_starts()

    @property
    def name(self) -> str:
        """The name that the model was loaded by; empty if it was made in memory."""
        return self.model.config.name_or_path

    def check_width(self, head: AdaptiveDecoder) -> None:
        """Raises a ValueError if a head can't read the model's hidden states."""
        if head.n_embd != self.n_embd:
            raise ValueError(
                f"the head must read hidden states as wide as the model's, {self.n_embd}, got one "
                f"for {head.n_embd}; make it with AdaptiveDecoder(lm.n_embd, len(choices))"
            )

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        texts = [self._in_template(prompt) if self.chat else prompt for prompt in prompts]
        # A template writes special tokens itself, such as that of the beginning.
        encoded = self.tokenizer(texts, add_special_tokens=not self.chat)["input_ids"]
        for prompt, token_ids in zip(prompts, encoded, strict=True):
            if not token_ids:
                raise ValueError(
                    f"a prompt must have at least one token, got {prompt!r}, which has none for "
                    "this tokenizer; write something"
                )
        return encoded

    def _in_template(self, prompt: str) -> str:
        """Writes a prompt as a chat: the user's message, up to where the answer begins."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages = [*system, {"role": "user", "content": prompt}]
        try:
            return self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a small program: it raises what it likes
            raise ValueError(
                f"the chat template must take these messages, but it says {named(error)}; leave "
                "system out if it is that, or use chat=False"
            ) from None

    def decode(self, token_ids: list[int]) -> str:
        # Special tokens, as around a message, are left out.
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[list[int]], n_samples: int, max_new_tokens: int
    ) -> "HuggingFaceBatch":
        self.model.eval()  # whoever has trained it meanwhile: dropout must not decide
        return HuggingFaceBatch(self, prompts, n_samples)

    def forward_responses(
        self, prompts: Sequence[list[int]], token_ids: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        lengths = response_mask.sum(1).tolist()
        texts = [
            [*prompt, *row[:n].tolist()]
            for prompt, row, n in zip(prompts, token_ids, lengths, strict=True)
        ]
        rows_at_once = max(1, TOKENS_AT_ONCE // max(map(len, texts)))
        states, logits = [], []
        for start in range(0, len(texts), rows_at_once):
            part = slice(start, start + rows_at_once)
            T, earliest = max(map(len, texts[part])), min(map(len, prompts[part])) - 1
            # Padding stands behind the text, where causal attention doesn't look.
            padded = torch.tensor([text + [0] * (T - len(text)) for text in texts[part]])
            ends = torch.tensor([[len(text)] for text in texts[part]])
            mask = (torch.arange(T) < ends).long().to(self.model.device)  # (R, T)
            h, scores, _ = self.forward_once(padded, T - earliest, attention_mask=mask)  # (R, t, .)
            for row, (prompt, n) in enumerate(zip(prompts[part], lengths[part], strict=True)):
                before = len(prompt) - 1 - earliest  # the token before a token is what is read
                states.append(h[row, before : before + n])
                logits.append(scores[row, before : before + n])
        return torch.cat(states), torch.cat(logits)

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """Collects the hidden states, (R, T, C), of each run: the un-embedding receives them."""
        seen: list[Tensor] = []
        hook = self.un_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            yield seen
        finally:
            hook.remove()

    def forward_once(self, token_ids: Tensor, last: int, **more: Any) -> tuple[Tensor, Tensor, Any]:
        """Runs the model once.

        Args:
            token_ids: (R, T) to read.
            last: at how many tokens, from the end, the results are wanted.
            more: the model's other arguments, such as a cache.

        Returns:
            Hidden states, (R, last, C): h_t of Eq. 1. Logits, (R, last, V): the model's own, for
            some scale or cap them after the un-embedding. And all that the model has returned.
        """
        if self._limits_logits:
            more["logits_to_keep"] = last
        try:
            with self.watching() as seen:
                output = self.model(token_ids.to(self.model.device), **more)
        except RuntimeError as error:
            most, T = most_tokens(self.model.config), more.get("attention_mask", token_ids).shape[1]
            if most is None or T <= most:
                raise
            # A short prompt beside a long one is padded to its length, and then goes on.
            raise ValueError(
                f"prompts of different length with their responses must fit into the {most} tokens "
                f"that the model can read, but take {T} with padding ({named(error)}); make the "
                f"language model with max_length={most // 2} or less"
            ) from None
        if len(seen) != 1 or seen[0].ndim != 3:
            raise ValueError(
                f"the model must run its un-embedding once on hidden states of shape (B, T, C), "
                f"got {[tuple(h.shape) for h in seen]}"
            )
        logits = output.logits[:, -last:]
        return seen[0][:, -last:].to(logits.device), logits, output

    def _sentence_starts(self) -> tuple[int, ...]:
        """Finds the tokens that end in a mark of a sentence, and the end of a chat's prompt."""
        marks = (".", "!", "?")
        vocabulary = self.tokenizer.get_vocab()
        starts = {i for piece, i in vocabulary.items() if piece.rstrip("Ċ\n").endswith(marks)}
        return tuple(sorted(starts | ({self.encode(["."])[0][-1]} if self.chat else set())))


class HuggingFaceBatch:
    """A `Batch` of a Hugging Face model, with the model's own cache."""

    hidden_states: Tensor
    logits: Tensor
    cache: Any = None

    def __init__(self, lm: HuggingFaceLanguageModel, prompts: Sequence[list[int]], n_samples: int):
        self.lm = lm
        T = max(map(len, prompts))
        # All prompts end in the last column. What stands before them is masked: any token will do.
        token_ids = torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts])  # (P, T)
        pad_lengths = torch.tensor([T - len(prompt) for prompt in prompts])
        self.pad_lengths = pad_lengths.to(lm.model.device)
        self.length = 0
        self._read(token_ids)
        # Each prompt is read once, and all that was read is then copied for its N samples.
        numbers = torch.arange(len(prompts), device=self.logits.device)
        self.select(numbers.repeat_interleave(n_samples))

    def step(self, token_ids: Tensor) -> None:
        self._read(token_ids[:, None])

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.pad_lengths = self.pad_lengths[rows.to(self.pad_lengths.device)]
        self.hidden_states, self.logits = self.hidden_states[rows], self.logits[rows]

    @torch.inference_mode()
    def _read(self, token_ids: Tensor) -> None:
        """Reads the next tokens of each row, (R, T)."""
        T_all = self.length + token_ids.shape[1]
        places = torch.arange(T_all, device=self.pad_lengths.device) - self.pad_lengths[:, None]
        more: dict[str, Any] = {"attention_mask": (places >= 0).long()}  # (R, T_all)
        if self.lm.takes_positions:
            more["position_ids"] = places[:, self.length :].clamp(min=0)  # (R, T)
        name = self.lm.cache_name
        more |= {name: self.cache} if self.cache is not None else {}
        hidden_states, logits, output = self.lm.forward_once(token_ids, 1, use_cache=True, **more)
        self.cache, self.length = getattr(output, name, None), T_all
        self.hidden_states, self.logits = hidden_states[:, 0], logits[:, 0]
        if not hasattr(self.cache, "reorder_cache"):
            raise ValueError(
                f"the model must return {name} with a reorder_cache that picks rows, got "
                f"{type(self.cache).__name__}"
            )


def _un_embedding(model: Any) -> torch.nn.Module:
    """Finds the layer that receives the hidden states and gives the logits."""
    config, find = getattr(model, "config", None), getattr(model, "get_output_embeddings", None)
    if getattr(config, "is_encoder_decoder", False):
        raise _refusal(model, "it is an encoder with a decoder, which doesn't go on with its input")
    found = find() if find else None
    if not isinstance(found, torch.nn.Module):
        raise _refusal(model, "get_output_embeddings() gives no layer that makes logits")
    return found


def _refusal(model: Any, reason: str) -> ValueError:
    return ValueError(
        "the model must be a causal language model of transformers 4.57 or later that reads a text "
        f"token by token with a cache, but of {type(model).__name__}: {reason}; load one with "
        "AutoModelForCausalLM.from_pretrained"
    )


def most_tokens(config: Any) -> int | None:
    """Reads from its configuration how many tokens a model can read, if it says so."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    known = [getattr(config, name, None) for name in LENGTHS]
    return next((n for n in known if isinstance(n, int) and n > 0), None)


def ends_of(*sources: Any) -> tuple[int, ...]:
    """Finds the tokens that end a response, by settings or a tokenizer; there may be several."""
    found: set[int] = set()
    for source in sources:
        ends = getattr(source, "eos_token_id", None)
        ends = ends if isinstance(ends, Iterable) else [ends]
        found |= {token_id for token_id in ends if token_id is not None}
    return tuple(sorted(found))


@torch.inference_mode()
def _prove(lm: HuggingFaceLanguageModel) -> int:
    """Checks that two short texts, read step by step and at once, are the same; returns C.

    Where they aren't, the rows of the model's cache can't be copied and picked, or it takes no
    notice of padding.
    """
    V = lm.model.get_input_embeddings().num_embeddings
    prompts = [[i % V for i in (5, 3, 7, 4)], [i % V for i in (6, 5)]]
    responses = torch.tensor([[3, 5, 7], [6, 4, 3]]) % V
    try:
        # One row of each prompt is dropped again, and the two that are left change places.
        batch = lm.prefill(prompts, 2, 3)
        batch.select(torch.tensor([3, 0], device=batch.logits.device))
        steps = [(batch.hidden_states, batch.logits)]
        for t in range(2):
            batch.step(responses[[1, 0], t])
            steps.append((batch.hidden_states, batch.logits))
        at_once = lm.forward_responses(
            prompts, responses, torch.ones_like(responses, dtype=torch.bool)
        )
    except Exception as error:  # whatever a model that works otherwise stumbles on
        raise _refusal(lm.model, f"reading two short texts ended with {named(error)}") from None
    for i, what in enumerate(("hidden states", "logits")):
        one_by_one = torch.stack([step[i] for step in steps], 1).flip(0).flatten(0, 1).double()
        expected = at_once[i].double()
        spread = (expected - expected.mean(-1, keepdim=True)).norm()
        off = ((one_by_one - expected).norm() / spread).item()
        # Half precision rounds coarsely, and the two ways round differently.
        is_exact = torch.finfo(at_once[i].dtype).bits >= 32
        if not off <= (1e-3 if is_exact else 0.25):
            raise _refusal(
                lm.model, f"step by step and at once its {what} differ by {off:.1%} of their size"
            )
    return at_once[0].shape[-1]
