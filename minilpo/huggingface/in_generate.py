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
from minilpo.machine.text import one_line

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

    `model.generate` raises ValueError for an argument that would change the probabilities (another
    temperature, beams, greedy search), and if logits are NaN or infinite.
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
            if name in NEUTRAL:
                is_free = value == NEUTRAL[name]
            elif hasattr(plain, name):  # another setting
                is_free = name in FREE or not value
            if not is_free:
                raise ValueError(
                    "generate must leave the probabilities of tokens to the head, got "
                    f"{name}={one_line(repr(value), 60)}; leave it out (for a pipeline, which has "
                    "its own, say temperature=1.0), or use generate without the head"
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
        self.policy, self.generator, self.position = policy, generator, 0
        self.seen = seen  # receives the hidden states of each step, (B, T, C)

    def __call__(self, token_ids: Tensor, logits: Tensor) -> Tensor:
        """Maps (B, T) tokens so far and (B, V) logits to (B, V) log-probabilities."""
        policy, device, last, t = self.policy, logits.device, token_ids[:, -1], self.position
        if not logits.amax(-1).isfinite().all():  # -inf is a token that never comes
            raise ValueError(NOT_FINITE)
        if t == 0:
            policy.start(len(logits))
        else:
            policy.observe(self.step, last)
        rows, uniforms = (
            torch.arange(len(logits)),
            torch.rand(len(logits), generator=self.generator),
        )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        h = self.seen.pop()[:, -1].to(logits)
        rows, now = rows.to(device), torch.tensor(t, device=device)
        self.step = Step(rows, h, logits, last, now, uniforms.to(device))
        if t == 0 or policy.level == "token":  # at sequence level the first choice is kept
            self.choice = policy.choose(self.step)
        self.position += 1
        return policy.probs(self.step, self.choice).log()
