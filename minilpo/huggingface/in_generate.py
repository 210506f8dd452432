"""A head inside the model's own `generate`: for streaming, and for ending at a text."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minilpo.decoding.generate import NOT_FINITE
from minilpo.decoding.policies import HeadPolicy, Policy, Step
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.machine.text import one_line

# Settings of `generate` that don't change the probabilities of the next token.
FREE = {
    *"max_length max_new_tokens max_time stop_strings num_return_sequences use_cache".split(),
    *"eos_token_id pad_token_id bos_token_id transformers_version output_scores".split(),
    *"output_logits output_attentions output_hidden_states return_dict_in_generate".split(),
}
# The other settings do nothing if they are 0, False or empty; these do nothing at another value.
SET = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}  # said in every call
NEUTRAL = {**SET, "num_beams": 1, "repetition_penalty": 1.0, "typical_p": 1.0}
# Arguments that are no settings, and no inputs of the model either.
INTRUDERS = {
    *"logits_processor prefix_allowed_tokens_fn assistant_model custom_generate".split(),
    *"negative_prompt_ids negative_prompt_attention_mask inputs_embeds".split(),
}


@contextlib.contextmanager
def deciding(
    lm: HuggingFaceLanguageModel, policy: Policy, generator: torch.Generator
) -> Iterator[Any]:
    """Lets a policy, such as `GreedyHead(head, choices)`, alone decide in `model.generate`.

    The model's own sampling settings don't count meanwhile. Choices are drawn with `generator`,
    tokens with PyTorch's global generator, as `generate` always does. Yields the model, whose
    `generate` raises ValueError for an argument that would change the probabilities (another
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
        given = generation_config.to_diff_dict() if generation_config else {}
        given = {n: v for n, v in (given | arguments).items() if n[0] != "_" and v is not None}
        for name, value in given.items():
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
        seen: list[Tensor] = []
        # Said in the call, so that no default overrides them.
        ours = {**SET, "logits_processor": [_processor(policy, generator, seen)]}
        with lm.watching(seen):
            return original(inputs, **given | ours)

    lm.model.eval()
    core.generate, core.generation_config = generate, plain
    try:
        yield lm.model
    finally:
        del core.generate  # the instance's, so that the method of the class shows again
        core.generation_config = defaults


def _processor(
    policy: Policy, generator: torch.Generator, seen: list[Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Makes the function that decides in one `generate`, with `seen` of `lm.watching`.

    It maps tokens so far, (B, T), and logits, (B, V), to the policy's log-probabilities, (B, V).
    """
    step: Any = None
    choice: Any = None
    t = 0

    def decide(token_ids: Tensor, logits: Tensor) -> Tensor:
        nonlocal t, step, choice
        if not logits.amax(-1).isfinite().all():  # -inf is a token that never comes
            raise ValueError(NOT_FINITE)
        last, rows = token_ids[:, -1], torch.arange(len(logits), device=logits.device)
        if step is None:
            policy.start(len(rows))
        else:
            policy.observe(step, last)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        h, now = seen.pop()[:, -1].to(logits), torch.tensor(t, device=rows.device)
        uniforms = torch.rand(len(rows), generator=generator).to(rows.device)
        step = Step(rows, h, logits, last, now, uniforms)
        if t == 0 or policy.level == "token":  # at sequence level the first choice is kept
            choice = policy.choose(step)
        t += 1
        return policy.probs(step, choice).log()

    return decide
