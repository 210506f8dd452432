"""A head inside the model's own `generate`: for streaming, stopping by text, and all else it can.

`generate` may do many things to the logits before it draws. Inside `deciding` it does one: a
`Policy` says what each token is drawn from. Whatever would change that is refused.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minilpo.decoding.policies import HeadPolicy, Policy, Step
from minilpo.huggingface.language_model import HuggingFaceLanguageModel, ends_of

# Settings of `generate` that change nothing about what the next token is drawn from.
FREE = {
    *("max_length", "max_new_tokens", "max_time", "stop_strings", "num_return_sequences"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"),
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "return_dict_in_generate",
}
# The others are neutral if they are 0, False or empty. These are so at another value; the first
# four are set in any case.
SET = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
NEUTRAL = {**SET, "num_beams": 1, "repetition_penalty": 1.0, "typical_p": 1.0}
# Arguments that aren't settings, and are no inputs of the model either.
INTRUDERS = (
    *("logits_processor", "prefix_allowed_tokens_fn", "assistant_model", "custom_generate"),
    *("negative_prompt_ids", "negative_prompt_attention_mask", "inputs_embeds"),
)


@contextlib.contextmanager
def deciding(
    lm: HuggingFaceLanguageModel, policy: Policy, generator: torch.Generator
) -> Iterator[Any]:
    """Within it, `model.generate` draws every token by the policy's choices.

    The sampling settings that came with the model are put aside; tokens are drawn from PyTorch's
    global numbers, as `generate` always does.

    Args:
        lm: the model.
        policy: such as `GreedyHead(head, choices)`.
        generator: draws choices, where the policy draws any.

    Yields:
        The model.

    Raises:
        ValueError: by `model.generate`, for a setting or an argument that would change what tokens
            are drawn from: another temperature, a cut-off, beams, greedy search, an assistant.
    """
    model = lm.model
    if "generate" in vars(model):
        raise ValueError("one head at a time must decide; leave the other `with deciding` first")
    if isinstance(policy, HeadPolicy):
        lm.check_width(policy.head)
    original, defaults = model.generate, model.generation_config
    plain = type(defaults)(**SET)
    for name in FREE & set(vars(defaults)):
        setattr(plain, name, getattr(defaults, name))
    # The tokenizer's end too, as outside.
    plain.eos_token_id = sorted({*lm.end_ids, *ends_of(defaults)}) or None

    def generate(*inputs: Any, **arguments: Any) -> Any:
        if len(inputs) > 1:
            raise ValueError("generate must get all but its first argument by name")
        given = arguments.pop("generation_config", None)
        arguments = {**_settings_of(given), **arguments}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        _check(arguments, plain)
        with lm.watching() as seen:
            # No default overrides the arguments of the call itself.
            arguments |= {**SET, "logits_processor": [_Processor(policy, generator, seen)]}
            return original(*inputs, **arguments)

    model.eval()
    model.generate, model.generation_config = generate, plain
    try:
        yield model
    finally:
        del model.generate  # the model's own, so that its class's shows again
        model.generation_config = defaults


def _settings_of(config: Any) -> dict[str, Any]:
    """Finds the settings that a user has changed in a configuration, if there is one."""
    if config is None:
        return {}
    defaults = vars(type(config)())
    return {
        name: value
        for name, value in vars(config).items()
        if value != defaults.get(name) and not name.startswith("_")
    }


def _check(arguments: dict[str, Any], plain: Any) -> None:
    """Refuses every argument of `generate` that isn't known to do no harm."""
    inputs = copy.deepcopy(plain).update(**arguments)  # returns those that are no settings
    for name, value in arguments.items():
        if name in inputs:
            is_free = name not in INTRUDERS
        elif name in NEUTRAL:
            is_free = value == NEUTRAL[name]
        else:
            is_free = name in FREE or not value
        if not is_free:
            what = value if isinstance(value, (bool, int, float, str)) else type(value).__name__
            raise ValueError(
                "generate must leave to the head what tokens are drawn from, got "
                f"{name}={what}; leave it out, or use generate without the head"
            )


class _Processor:
    """Turns logits into the logarithms of the probabilities that a policy draws from.

    One is made per call of `generate`; `seen` receives the hidden states, (B, T, C), of each step.
    """

    step: Step
    choice: Tensor

    def __init__(self, policy: Policy, generator: torch.Generator, seen: list[Tensor]):
        self.policy, self.generator, self.seen = policy, generator, seen
        self.position = 0

    def __call__(self, token_ids: Tensor, logits: Tensor) -> Tensor:
        """Maps (B, T) tokens so far and (B, V) logits to (B, V) log-probabilities."""
        B, device = len(logits), logits.device
        hidden_states = self.seen[-1][:, -1]
        self.seen.clear()  # never those of another step
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.position == 0:
            self.policy.start(B)
        else:
            self.policy.observe(self.step, token_ids[:, -1])
        self.step = Step(
            torch.arange(B, device=device),
            hidden_states.to(device, logits.dtype),
            logits,
            token_ids[:, -1],
            torch.tensor(self.position, device=device),
            torch.rand(B, generator=self.generator).to(device),
        )
        # At sequence level the first choice is kept.
        if self.position == 0 or self.policy.level == "token":
            self.choice = self.policy.choose(self.step)
        self.position += 1
        return self.policy.probs(self.step, self.choice).log()
