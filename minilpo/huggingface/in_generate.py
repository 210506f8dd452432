"""A head inside the model's own `generate`: for streaming, and for ending at a text.

`generate` can change the logits in many ways before it draws. Inside `deciding` a `Policy` alone
decides the probabilities; every argument that would change them is refused.
"""

import contextlib
import copy
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
    """Within it, `model.generate` draws every token by the policy's choices; yields the model.

    The model's own sampling settings don't count meanwhile. Tokens are drawn with PyTorch's global
    generator, as `generate` always does.

    Args:
        lm: the model.
        policy: such as `GreedyHead(head, choices)`.
        generator: draws choices, for a policy that draws any.

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

    def generate(*inputs: Any, **arguments: Any) -> Any:
        if len(inputs) > 1:
            raise ValueError("generate must get all but its first argument by name")
        if given := arguments.pop("generation_config", None):
            preset = vars(type(given)())  # of it, only settings that somebody has changed count
            own = {name: v for name, v in vars(given).items() if v != preset.get(name, v)}
            arguments = {**own, **arguments}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        _check(arguments, plain)
        with lm.watching() as seen:
            # Said in the call, so that no default overrides them.
            arguments |= {**SET, "logits_processor": [_Processor(policy, generator, seen)]}
            return original(*inputs, **arguments)

    lm.model.eval()
    core.generate, core.generation_config = generate, plain
    try:
        yield lm.model
    finally:
        del core.generate  # the instance's, so that the method of the class shows again
        core.generation_config = defaults


def _check(arguments: dict[str, Any], plain: Any) -> None:
    """Refuses every argument of `generate` that isn't known to do no harm."""
    inputs = copy.deepcopy(plain).update(**arguments)  # returns the arguments that are no settings
    for name, value in arguments.items():
        if name in inputs:
            is_free = name not in INTRUDERS
        else:
            is_free = name in FREE or (value == NEUTRAL[name] if name in NEUTRAL else not value)
        if not is_free:
            got = value if isinstance(value, (bool, int, float, str)) else type(value).__name__
            # A pipeline of transformers has a temperature of its own, which one can't leave out.
            neutral = f", or say {name}={NEUTRAL[name]} in a pipeline," if name in NEUTRAL else ","
            raise ValueError(
                "generate must leave the probabilities of tokens to the head, got "
                f"{name}={got}; leave it out{neutral} or use generate without the head"
            )


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
