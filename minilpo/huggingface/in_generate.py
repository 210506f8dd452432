"""A head inside the model's own `generate`: for streaming, and for ending at a text.

`generate` can change the logits in many ways before it draws. Inside `deciding` a `Policy` alone
decides the probabilities; every argument that would change them is refused.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minilpo.decoding.generate import NOT_FINITE
from minilpo.decoding.policies import HeadPolicy, Policy, Step
from minilpo.huggingface.language_model import HuggingFaceLanguageModel

# Settings of `generate` that don't change the probabilities of the next token.
FREE = {
    *("max_length", "max_new_tokens", "max_time", "stop_strings", "num_return_sequences"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"),
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "return_dict_in_generate",
}
# The other settings do nothing if they are 0, False or empty; these do nothing at another value.
SET = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}  # said in every call
NEUTRAL = {**SET, "num_beams": 1, "repetition_penalty": 1.0, "typical_p": 1.0}
# Arguments that are no settings, and no inputs of the model either.
INTRUDERS = {
    *("logits_processor", "prefix_allowed_tokens_fn", "assistant_model", "custom_generate"),
    *("negative_prompt_ids", "negative_prompt_attention_mask", "inputs_embeds"),
}


@contextlib.contextmanager
def deciding(
    lm: HuggingFaceLanguageModel, policy: Policy, generator: torch.Generator
) -> Iterator[Any]:
    """Lets a policy, such as `GreedyHead(head, choices)`, decide in `model.generate`.

    The model's own sampling settings don't count meanwhile. Choices are drawn with `generator`,
    tokens with PyTorch's global generator, as `generate` always does. Yields the model.

    Raises:
        ValueError: by `model.generate`, for an argument that would change the probabilities
            (another temperature, beams, greedy search), or if logits are NaN or infinite.
    """
    core = lm.core  # wrappers such as PEFT's call its `generate`
    if "generate" in vars(core):
        raise ValueError("one head at a time must decide; leave the other `with deciding` first")
    if isinstance(policy, HeadPolicy):
        lm.check_width(policy.head)
    original, defaults = core.generate, core.generation_config
    kept = {name: value for name, value in vars(defaults).items() if name in FREE}
    # The tokenizer's end too, as outside.
    plain = type(defaults)(**{**SET, **kept, "eos_token_id": list(lm.end_ids) or None})

    def generate(inputs: Any = None, generation_config: Any = None, **arguments: Any) -> Any:
        changed = generation_config.to_diff_dict() if generation_config else {}
        given = {name: value for name, value in changed.items() if name[0] != "_"} | arguments
        arguments = {name: value for name, value in given.items() if value is not None}
        for name, value in arguments.items():
            is_free = name not in INTRUDERS
            if hasattr(plain, name) and name not in FREE:  # a setting
                is_free = value == NEUTRAL[name] if name in NEUTRAL else not value
            if not is_free:
                got = value if isinstance(value, (bool, int, float, str)) else type(value).__name__
                # A pipeline of transformers sets a temperature, which one can't leave out.
                remedy = f", or in a pipeline set it to {NEUTRAL[name]}" if name in NEUTRAL else ""
                raise ValueError(
                    "generate must leave the probabilities of tokens to the head, got "
                    f"{name}={got}; leave it out{remedy}, or use generate without the head"
                )
        with lm.watching() as seen:
            # Said in the call, so that no default overrides them.
            arguments |= {**SET, "logits_processor": [_Processor(policy, generator, seen)]}
            return original(inputs, **arguments)

    lm.model.eval()
    core.generate, core.generation_config = generate, plain
    try:
        yield lm.model
    finally:
        del core.generate  # the instance's, so that the method of the class shows again
        core.generation_config = defaults


class _Processor:
    """Replaces logits by the log-probabilities that a policy draws from, in one `generate`."""

    step: Step
    choice: Tensor

    def __init__(self, policy: Policy, generator: torch.Generator, seen: list[Tensor]):
        self.policy, self.generator = policy, generator
        self.seen = seen  # receives the hidden states of each step, (B, T, C)
        self.position = 0

    def __call__(self, token_ids: Tensor, logits: Tensor) -> Tensor:
        """Maps (B, T) tokens so far and (B, V) logits to (B, V) log-probabilities."""
        B, device = len(logits), logits.device
        if not logits.amax(-1).isfinite().all():  # -inf is a token that never comes
            raise ValueError(NOT_FINITE)
        hidden_states = self.seen[-1][:, -1]
        self.seen.clear()  # else memory would grow with every step
        if self.position == 0:
            self.policy.start(B)
        else:
            self.policy.observe(self.step, token_ids[:, -1])
        exact = torch.promote_types(logits.dtype, torch.float32)
        self.step = Step(
            torch.arange(B, device=device),
            hidden_states.to(device, exact),
            logits.to(exact),
            token_ids[:, -1],
            torch.tensor(self.position, device=device),
            torch.rand(B, generator=self.generator).to(device),
        )
        # At sequence level the first choice is kept.
        if self.position == 0 or self.policy.level == "token":
            self.choice = self.policy.choose(self.step)
        self.position += 1
        return self.policy.probs(self.step, self.choice).log()
