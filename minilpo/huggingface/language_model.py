"""Any causal language model of Hugging Face behind the members of `LanguageModel`."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.machine.text import named

ENOUGH_TO_WRITE = 512  # tokens of prompt and response, if the model has room for more
CACHES = ("cache", "past_key_values")  # forward's name of it, in newer and in older versions
# The number of tokens that a model can read, as configurations call it.
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
EXACT = {torch.float64, torch.float32, torch.int64, torch.bool}  # weights and buffers
HALF = {torch.float16, torch.bfloat16}


class HuggingFaceLanguageModel:
    """A `LanguageModel` made of a causal language model of transformers and its tokenizer.

    Args:
        model: from `AutoModelForCausalLM.from_pretrained`, on any device, in any precision; also
            compiled, or with adapters of PEFT. Reading a prompt puts it in evaluation mode.
        tokenizer: the model's own. Nothing is added to a prompt that begins with a special token.
        chat: puts each prompt into the tokenizer's chat template; by default if there is one.
        system: a system message to put before every prompt.
        template: more arguments of the chat template, such as `{"enable_thinking": False}`.
        max_length: tokens of prompt and response; by default 512, or what the model can read.

    Raises ValueError if the model doesn't read token by token with a cache, the tokenizer isn't
    one, there is no chat template, or `max_length` is out of range.

    >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    >>> from minilpo.lm.tokenizer import Tokenizer
    >>> words = Tokenizer.train(["The fox sees 7 owls."])
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._backend, eos_token="<eos>")
    >>> config = GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, eos_token_id=2)
    >>> lm = HuggingFaceLanguageModel(GPT2LMHeadModel(config), tokenizer)
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
        template: dict[str, Any] | None = None,
        max_length: int | None = None,
    ):
        self.model, self.tokenizer, self.core = model, tokenizer, model
        try:
            # A wrapper, of PEFT or `torch.compile`, takes any argument: what it wraps says which.
            parts = (m for m in model.modules() if hasattr(type(m), "base_model_prefix"))
            self.core = next(parts, model)
            vocabulary, has_template = tokenizer.get_vocab(), bool(tokenizer.chat_template)
            ends = [self.core.generation_config.eos_token_id, tokenizer.eos_token_id]
            self.un_embedding = self.core.get_output_embeddings()  # hidden states to logits
            self.takes = inspect.signature(type(self.core).forward).parameters
            self.n_embd = self._prove()  # C, the width of the hidden states
        except Exception as error:  # whatever a model that works otherwise stumbles on
            got = f"{type(model).__name__} with {type(tokenizer).__name__}: {named(error)}"
            raise ValueError(
                "the model must be a causal language model of transformers 4.57 or later that "
                f"reads token by token with a cache, and the tokenizer its own, got {got}; load "
                f"them with from_pretrained, without a wrapper around {type(self.core).__name__}"
            ) from error
        lengths = [getattr(self.core.config.get_text_config(), name, None) for name in LENGTHS]
        most = next((n for n in lengths if isinstance(n, int) and n > 0), 10**9)
        self.max_length = min(ENOUGH_TO_WRITE, most) if max_length is None else max_length
        if not 2 <= self.max_length <= most:
            room = f"from 2 to what the model can read, {most}, got {max_length}"
            raise ValueError(f"max_length must be {room}; leave it out for the default")
        listed = [end if isinstance(end, list) else [end] for end in ends if end is not None]
        self.end_ids: Sequence[int] = tuple(sorted(set(sum(listed, []))))
        self._known_ids = set(vocabulary.values())
        self.chat = has_template if chat is None else chat
        self.system, self.template = system, template or {}
        if not self.chat and (system is not None or template):
            raise ValueError("system and template must come with a chat template; leave them out")
        # A sentence begins after a mark and, in a chat, after the last token of the template.
        starts = self.encode(["."])[0][-1:] if self.chat else []
        marks = (".", "!", "?")
        starts += [i for piece, i in vocabulary.items() if piece.rstrip("Ċ\n").endswith(marks)]
        self.sentence_starts: Sequence[int] = tuple(sorted(set(starts)))

    def check_width(self, head: AdaptiveDecoder) -> None:
        """Raises a ValueError if a head can't read the model's hidden states."""
        if head.n_embd != self.n_embd:
            raise ValueError(
                f"the head must be as wide as the model's hidden states, {self.n_embd}, got one "
                f"for {head.n_embd}; make it with AdaptiveDecoder(lm.n_embd, len(choices))"
            )

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        options = {"add_generation_prompt": True, "tokenize": False, **self.template}
        encoded = []
        for text in prompts:
            is_ready = text.startswith(tuple(self.tokenizer.all_special_tokens))
            if self.chat and not is_ready:
                chat = [*system, {"role": "user", "content": text}]
                try:
                    text = self.tokenizer.apply_chat_template(chat, **options)
                except Exception as error:  # a template is a small program: it raises what it likes
                    raise ValueError(
                        f"the chat template must take {chat}, but it says {named(error)}; "
                        "change system or template, or use chat=False"
                    ) from error
            is_plain = not (self.chat or is_ready)  # a template writes special tokens itself
            token_ids = self.tokenizer(text, add_special_tokens=is_plain)["input_ids"]
            # Some tokenizers end every text. After its end the model would begin another one.
            if is_plain and token_ids[1:] and token_ids[-1] in self.end_ids:
                token_ids = token_ids[:-1]
            if not token_ids:
                got = f"got {text!r}, which has none for this tokenizer; write something"
                raise ValueError(f"a prompt must have at least one token, {got}")
            encoded.append(token_ids)
        return encoded

    def decode(self, token_ids: list[int]) -> str:
        # Some models have more tokens than their tokenizer knows.
        known = [token_id for token_id in token_ids if token_id in self._known_ids]
        return self.tokenizer.decode(known, skip_special_tokens=True)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[list[int]], n_samples: int, max_new_tokens: int
    ) -> "HuggingFaceBatch":
        self.model.eval()  # no dropout, also if somebody has trained the model meanwhile
        return HuggingFaceBatch(self, prompts, n_samples)

    def forward_responses(
        self, prompts: Sequence[list[int]], token_ids: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        T = int(response_mask.sum(1).max())
        texts, mask = self.pad(prompts)
        texts, wanted = torch.cat([texts, token_ids[:, :T].to(texts)], 1), response_mask[:, :T]
        # A token is decided at the one before it, and nothing is decided at the last one.
        h, logits, _ = self.forward_once(texts, torch.cat([mask, wanted.to(mask)], 1), T + 1)
        wanted = wanted.to(logits.device)
        return h[:, :-1][wanted], logits[:, :-1][wanted]

    def pad(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Puts padding in front of prompts: tokens, (P, T), and a mask, False at padding."""
        T = max(map(len, prompts))
        padded = [[-1] * (T - len(prompt)) + prompt for prompt in prompts]
        token_ids = torch.tensor(padded, device=self.model.device)
        return token_ids.clamp(min=0), token_ids >= 0

    def watching(self, seen: list[Tensor]) -> RemovableHandle:
        """Collects the hidden states, (R, T, C), of each run: the un-embedding receives them."""
        return self.un_embedding.register_forward_pre_hook(lambda _, x: seen.append(x[0]))

    def forward_once(
        self, token_ids: Tensor, mask: Tensor, last: int, cache: Any = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Reads (R, T) tokens after those of a cache; the mask, (R, T_all), is False at padding.

        Returns hidden states, (R, last, C), and logits, (R, last, V), of the last tokens, and the
        cache. The logits are the model's own: some scale or cap them after the un-embedding.
        """
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -token_ids.shape[1] :]  # (R, T)
        more = {"attention_mask": mask.long(), "position_ids": places, "logits_to_keep": last}
        more |= dict.fromkeys(CACHES, cache)
        more = {name: value for name, value in more.items() if name in self.takes}
        seen: list[Tensor] = []
        try:
            with self.watching(seen):
                output = self.model(token_ids.to(mask.device), use_cache=True, **more)
        except RuntimeError as error:  # no memory, or no places for the padding
            got = f"{[*mask.shape]} tokens, got {named(error)}"
            raise ValueError(f"the model must have room for {got}; lower max_length") from error
        cache = next((output[name] for name in CACHES if name in output), None)
        [hidden_states], logits = seen, output.logits[:, -last:]
        return hidden_states[:, -last:].to(logits.device), logits, cache

    @torch.inference_mode()
    def _prove(self) -> int:
        """Checks that two short texts, read step by step and at once, are the same; returns C.

        They differ if rows of the cache can't be copied and picked, or padding isn't masked.
        """
        V = self.core.get_input_embeddings().num_embeddings
        texts = [[i % V for i in ids] for ids in ((5, 3, 7, 4, 3, 5), (6, 5, 6, 4))]
        batch = self.prefill([text[:-2] for text in texts], 2, 2)
        # One row of each prompt is dropped again, and the two that are left change places.
        batch.select(torch.tensor([3, 0], device=batch.logits.device))
        steps = [batch.logits]
        for n in (-2, -1):
            batch.step(torch.tensor([texts[1][n], texts[0][n]]))
            steps.append(batch.logits)
        by_step = torch.stack(steps, 1).flip(0).double()  # (2, 3, V)
        # At once without a wrapper: one that adds a prompt or a prefix of its own then differs.
        runs = [self.core(torch.tensor([text], device=self.model.device)) for text in texts]
        expected = torch.stack([run.logits[0, -3:] for run in runs]).to(by_step)
        spread = (expected - expected.mean(-1, keepdim=True)).norm()
        off = ((by_step - expected).norm() / spread).item()
        differs = f"step by step and at once its logits differ by {off:.1%} of their size"
        # Half precision rounds coarsely, and the two ways round differently; so do quantised
        # weights, whose layers may also round by all that is in the batch.
        weights = self.core.state_dict(keep_vars=True).values()
        kinds = {w.dtype if type(w) in (Tensor, nn.Parameter) else None for w in weights}
        if not off <= (1e-3 if kinds <= EXACT else 0.25):
            raise ValueError(differs)
        if off > 1e-3 and not kinds <= EXACT | HALF:
            effect = "a response may depend a little on the other prompts of its batch"
            warnings.warn(f"the model is quantised: {differs}; {effect}", stacklevel=3)
        return batch.hidden_states.shape[-1]


class HuggingFaceBatch:
    """A `Batch` of a Hugging Face model, with the model's own cache."""

    hidden_states: Tensor
    logits: Tensor
    cache: Any = None

    def __init__(self, lm: HuggingFaceLanguageModel, prompts: Sequence[list[int]], n_samples: int):
        self.lm, (token_ids, self.mask) = lm, lm.pad(prompts)  # (R, T) each
        self._read(token_ids)
        # Each prompt is read once, and all that was read is then copied for its N samples.
        numbers = torch.arange(len(prompts), device=self.logits.device)
        self.select(numbers.repeat_interleave(n_samples))

    @torch.inference_mode()
    def step(self, token_ids: Tensor) -> None:
        self.mask = nn.functional.pad(self.mask, (0, 1), value=True)
        self._read(token_ids[:, None])

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.mask = self.mask[rows.to(self.mask.device)]
        self.hidden_states, self.logits = self.hidden_states[rows], self.logits[rows]

    def _read(self, token_ids: Tensor) -> None:
        h, logits, self.cache = self.lm.forward_once(token_ids, self.mask, 1, self.cache)
        self.hidden_states, self.logits = h[:, 0], logits[:, 0]
