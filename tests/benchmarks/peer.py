"""The peer: transformers' GPT2LMHeadModel with our weights, used as its documentation shows."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from minilpo.config import PretrainConfig
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Example, training_batches
from minilpo.seeds import python_rng
from tests.benchmarks.measure import seconds_of
from tests.gpt2_weights import as_transformers_weights


def transformers_model(model: GPT, **settings: object) -> GPT2LMHeadModel:
    """transformers' GPT-2 with our weights, ready to be trained; `settings` are its own."""
    shape = dataclasses.asdict(model.config)
    shape["n_positions"] = shape.pop("block_size")  # the other names are the same
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    plain = {**no_dropout, "use_cache": False, "bos_token_id": None, "eos_token_id": None}
    other = GPT2LMHeadModel(GPT2Config(**{**shape, **plain, **settings}))
    other.loss_type = "ForCausalLM"  # what it would take anyway, with a warning
    other.load_state_dict(as_transformers_weights(model))
    return other.train()


def transformers_loss(model: GPT2LMHeadModel, token_ids: Tensor, target_mask: Tensor) -> Tensor:
    """Computes `language_model_loss` as users of transformers do: labels, -100 at other places.

    Padding is on the right, where causal attention never looks: without a mask the result is the
    same, and transformers faster.
    """
    labels = token_ids.clone()
    labels[:, 0] = -100
    labels[:, 1:][~target_mask] = -100
    return model(input_ids=token_ids, labels=labels).loss


def transformers_pretrain(
    model: GPT2LMHeadModel, examples: Sequence[Example], pad_id: int, config: PretrainConfig
) -> None:
    """Pretrains as `pretrain` does, without schedule, groups of parameters and log."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches = training_batches(
        examples, config.batch_size, pad_id, python_rng(0, "order of the demonstrations")
    )
    for _, (token_ids, target_mask) in zip(range(config.steps), batches, strict=False):
        transformers_loss(model, token_ids, target_mask).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def transformers_step_seconds(
    model: GPT, pad_id: int, blocks: Sequence[Sequence[Example]], steps: int
) -> list[float]:
    """Measures the seconds per pretraining step, block by block; the first block only warms up."""
    other, config = transformers_model(model), PretrainConfig(steps=steps)
    return [
        seconds_of(partial(transformers_pretrain, other, block, pad_id, config)) / steps
        for block in blocks
    ][1:]


@torch.no_grad()
def transformers_sample(
    model: GPT2LMHeadModel,
    prompts: Sequence[Sequence[int]],
    n_samples: int,
    max_new_tokens: int,
    pad_id: int,
    eos_id: int | None,
) -> Tensor:
    """Samples as `generate` does at temperature 1; without an `eos_id` no response ends."""
    T = max(map(len, prompts))
    token_ids = torch.tensor([[pad_id] * (T - len(prompt)) + list(prompt) for prompt in prompts])
    return model.generate(
        token_ids,
        attention_mask=(token_ids != pad_id).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        num_return_sequences=n_samples,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=pad_id,
        eos_token_id=eos_id,
    )[:, T:]
