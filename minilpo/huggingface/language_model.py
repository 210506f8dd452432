"""Any causal language model of Hugging Face behind the members of `LanguageModel`.

Nothing here is made for one architecture. A model needs logits, an un-embedding, and a cache whose
rows can be picked. Two short texts show at once if it has them.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
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
EXACT = {torch.float64, torch.float32, torch.int64, torch.bool}  # weights and buffers
HALF = {torch.float16, torch.bfloat16}


class HuggingFaceLanguageModel:
    """A `LanguageModel` made of a causal language model of transformers and its tokenizer.

    A prompt that begins with a special token, such as "<s>", is ready-made: nothing is added to it.

    Args:
        model: from `AutoModelForCausalLM.from_pretrained`, on any device, in any precision; also
            compiled, or with adapters of PEFT. Reading a prompt puts it in evaluation mode.
        tokenizer: the model's own, from `AutoTokenizer.from_pretrained`.
        chat: puts each prompt into the tokenizer's chat template; by default if there is one.
        system: a system message to put before every prompt.
        template: more arguments of the chat template, such as `{"enable_thinking": False}`.
        max_length: tokens of prompt and response together; by default 512, or as many as the model
            can read.

    Raises:
        ValueError: if the model doesn't read a text token by token with a cache, the tokenizer
            isn't one of transformers or has no chat template, or `max_length` is out of range.

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
        template: dict[str, Any] | None = None,
        max_length: int | None = None,
    ):
        self.model, self.tokenizer = model, tokenizer
        # A wrapper, of PEFT or `torch.compile`, takes any argument: what it wraps says which.
        parts = model.modules() if isinstance(model, torch.nn.Module) else []
        core: Any = next(
            (part for part in parts if hasattr(type(part), "base_model_prefix")), model
        )
        self.core: Any = core
        try:
            self.un_embedding = core.get_output_embeddings()  # turns hidden states into logits
            self.takes = inspect.signature(type(core).forward).parameters
            self.cache_name = next((name for name in CACHES if name in self.takes), CACHES[-1])
            self.n_embd = self._prove()  # C, the width of the hidden states
        except Exception as error:  # whatever a model that works otherwise stumbles on
            name = type(model).__name__
            raise ValueError(
                "the model must be a causal language model of transformers 4.57 or later that "
                f"reads token by token with a cache, but {name}, given two short texts, ended with "
                f"{named(error)}; load one with AutoModelForCausalLM.from_pretrained"
                f"{'' if core is model else f', and pass it without {name}'}"
            ) from error
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        has_template = getattr(tokenizer, "chat_template", None) is not None
        self.chat, self.system = has_template if chat is None else chat, system
        self.template = template or {}
        in_chat = chat or system is not None or self.template
        if not vocabulary or (in_chat and not (self.chat and has_template)):
            raise ValueError(
                "the tokenizer must be one of transformers, with a chat template for chat=True, "
                f"system and template, got {type(tokenizer).__name__}, chat={self.chat}; load it "
                "with AutoTokenizer.from_pretrained, leave them out, or set its chat_template"
            )
        text_config = core.config.get_text_config()
        lengths = [getattr(text_config, name, None) for name in LENGTHS]
        most = next((n for n in lengths if isinstance(n, int) and n > 0), 10**9)
        self.max_length = min(ENOUGH_TO_WRITE, most) if max_length is None else max_length
        if not 2 <= self.max_length <= most:
            raise ValueError(
                f"max_length must be from 2 to what the model can read, {most}, got {max_length}; "
                "leave it out for the default"
            )
        ends = [getattr(core.generation_config, "eos_token_id", None), tokenizer.eos_token_id]
        known = [end if isinstance(end, list) else [end] for end in ends if end is not None]
        self.end_ids: Sequence[int] = tuple(sorted(set(sum(known, []))))
        self._known_ids = set(vocabulary.values())
        # A sentence begins after a mark and, in a chat, after the last token of the template.
        starts = {
            i for piece, i in vocabulary.items() if piece.rstrip("Ċ\n").endswith(tuple(".!?"))
        }
        starts |= set(self.encode(["."])[0][-1:]) if self.chat else set()
        self.sentence_starts: Sequence[int] = tuple(sorted(starts))

    def check_width(self, head: AdaptiveDecoder) -> None:
        """Raises a ValueError if a head can't read the model's hidden states."""
        if head.n_embd != self.n_embd:
            raise ValueError(
                f"the head must read hidden states as wide as the model's, {self.n_embd}, got one "
                f"for {head.n_embd}; make it with AdaptiveDecoder(lm.n_embd, len(choices))"
            )

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        special, encoded = tuple(self.tokenizer.all_special_tokens), []
        for prompt in prompts:
            is_ready = prompt.startswith(special)
            text = self._in_template(prompt) if self.chat and not is_ready else prompt
            # A template writes special tokens itself, such as that of the beginning.
            is_plain = not self.chat and not is_ready
            token_ids = self.tokenizer(text, add_special_tokens=is_plain)["input_ids"]
            # Some tokenizers end every text; after an end token nothing is a response to it.
            if is_plain and len(token_ids) > 1 and token_ids[-1] in self.end_ids:
                token_ids = token_ids[:-1]
            if not token_ids:
                raise ValueError(
                    f"a prompt must have at least one token, got {prompt!r}, which has none for "
                    "this tokenizer; write something"
                )
            encoded.append(token_ids)
        return encoded

    def _in_template(self, prompt: str) -> str:
        """Writes a prompt as a chat: the user's message, up to where the answer begins."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": prompt})
        options = {"add_generation_prompt": True, "tokenize": False, **self.template}
        try:
            return self.tokenizer.apply_chat_template(messages, **options)
        except Exception as error:  # a template is a small program: it raises what it likes
            raise ValueError(
                f"the chat template must take these messages, but it says {named(error)}; leave "
                "system or template out if it is that, or use chat=False"
            ) from None

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
        lengths, texts = response_mask.sum(1).tolist(), []
        for prompt, row, n in zip(prompts, token_ids, lengths, strict=True):
            texts.append([*prompt, *row[:n].tolist()])
        T, earliest = max(map(len, texts)), min(map(len, prompts)) - 1
        if len(texts) > (R := max(1, TOKENS_AT_ONCE // T)):
            first = self.forward_responses(prompts[:R], token_ids[:R], response_mask[:R])
            rest = self.forward_responses(prompts[R:], token_ids[R:], response_mask[R:])
            return torch.cat([first[0], rest[0]]), torch.cat([first[1], rest[1]])
        # Padding stands behind the text, where causal attention doesn't look.
        padded = torch.tensor([text + [0] * (T - len(text)) for text in texts])
        mask = (torch.arange(T) < torch.tensor([[len(text)] for text in texts])).long()  # (R, T)
        wanted = torch.zeros(len(texts), T - earliest, dtype=torch.bool)
        for row, (prompt, n) in enumerate(zip(prompts, lengths, strict=True)):
            start = len(prompt) - 1 - earliest  # a token is decided at the one before it
            wanted[row, start : start + n] = True
        mask, wanted = mask.to(self.model.device), wanted.to(self.model.device)
        hidden_states, logits, _ = self.forward_once(padded, T - earliest, attention_mask=mask)
        return hidden_states[wanted], logits[wanted]

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
        """Runs the model once on (R, T) tokens; `more` are its other arguments.

        Returns hidden states, (R, last, C), and logits, (R, last, V), of the last tokens, and the
        model's whole output. Some models scale or cap the logits after the un-embedding.
        """
        if "logits_to_keep" in self.takes:  # else a model computes the logits of all tokens
            more["logits_to_keep"] = last
        try:
            with self.watching() as seen:
                output = self.model(token_ids.to(self.model.device), **more)
        except RuntimeError as error:
            # Too little memory; or a mask of fixed size, too small for a short prompt that is
            # padded to a long one's length and then goes on.
            R, T = more["attention_mask"].shape
            raise ValueError(
                f"the model must read {R} texts of {T} tokens with padding, but ended with "
                f"{named(error)}; make the language model with half the max_length or less"
            ) from error
        [hidden_states], logits = seen, output.logits[:, -last:]
        return hidden_states[:, -last:].to(logits.device), logits, output

    @torch.inference_mode()
    def _prove(self) -> int:
        """Checks that two short texts, read step by step and at once, are the same; returns C.

        They differ if rows of the cache can't be copied and picked, or padding isn't masked.
        """
        V = self.core.get_input_embeddings().num_embeddings
        prompts = [[i % V for i in (5, 3, 7, 4)], [i % V for i in (6, 5)]]
        responses = torch.tensor([[3, 5, 7], [6, 4, 3]]) % V
        # One row of each prompt is dropped again, and the two that are left change places.
        batch = self.prefill(prompts, 2, 3)
        batch.select(torch.tensor([3, 0], device=batch.logits.device))
        steps = [(batch.hidden_states, batch.logits)]
        for t in range(2):
            batch.step(responses[[1, 0], t])
            steps.append((batch.hidden_states, batch.logits))
        # At once without a wrapper: one that adds a prompt or a prefix of its own then differs.
        wrapper, self.model = self.model, self.core
        at_once = self.forward_responses(prompts, responses, torch.ones(2, 3, dtype=torch.bool))
        self.model = wrapper
        # Half precision rounds coarsely, and the two ways round differently; so do quantised
        # weights, whose layers may also round by all that is in the batch.
        kinds = set()
        for value in self.core.state_dict(keep_vars=True).values():
            kinds.add(value.dtype if type(value) in (Tensor, torch.nn.Parameter) else None)
        for i, what in enumerate(("hidden states", "logits")):
            one_by_one = torch.stack([step[i] for step in steps], 1).flip(0).flatten(0, 1).double()
            expected = at_once[i].double()
            spread = (expected - expected.mean(-1, keepdim=True)).norm()
            off = ((one_by_one - expected).norm() / spread).item()
            differs = f"step by step and at once its {what} differ by {off:.1%} of their size"
            if not off <= (1e-3 if kinds <= EXACT else 0.25):
                raise ValueError(differs)
            if off > 1e-3 and not kinds <= EXACT | HALF:
                warnings.warn(
                    f"the model has quantised weights: {differs}. A response may depend a little "
                    "on the other prompts of its batch",
                    stacklevel=3,
                )
        return at_once[0].shape[-1]


class HuggingFaceBatch:
    """A `Batch` of a Hugging Face model, with the model's own cache."""

    hidden_states: Tensor
    logits: Tensor
    cache: Any = None
    length = 0

    def __init__(self, lm: HuggingFaceLanguageModel, prompts: Sequence[list[int]], n_samples: int):
        self.lm, T = lm, max(map(len, prompts))
        # All prompts end in the last column. What stands before them is masked: any token will do.
        token_ids = torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts])  # (P, T)
        pad_lengths = torch.tensor([T - len(prompt) for prompt in prompts])
        self.pad_lengths = pad_lengths.to(lm.model.device)
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
        name, T_all = self.lm.cache_name, self.length + token_ids.shape[1]
        places = torch.arange(T_all, device=self.pad_lengths.device) - self.pad_lengths[:, None]
        more: dict[str, Any] = {"attention_mask": (places >= 0).long()}  # (R, T_all)
        if "position_ids" in self.lm.takes:
            more["position_ids"] = places[:, self.length :].clamp(min=0)  # (R, T)
        if self.cache is not None:
            more[name] = self.cache
        hidden_states, logits, output = self.lm.forward_once(token_ids, 1, use_cache=True, **more)
        self.hidden_states, self.logits = hidden_states[:, 0], logits[:, 0]
        self.cache, self.length = getattr(output, name, None), T_all
