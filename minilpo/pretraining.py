"""Pretraining: `pretrain` teaches the language model to imitate demonstrations."""

import math
import random
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilpo.config import PretrainConfig
from minilpo.model import GPT
from minilpo.seeds import python_rng
from minilpo.tokenizer import Tokenizer

POOL = 16  # batches that are sorted by length and shuffled together
LOG_EVERY = 100  # steps of pretraining


Example = tuple[Sequence[int], int]  # token ids of prompt, <sep>, response, <eos>; and the length of the prompt


def encode_examples(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Token ids of (prompt, demonstration) pairs, stored compactly."""
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    responses = tokenizer.encode_batch([response for _, response in pairs])
    return [
        (array("i", [*prompt, tokenizer.sep_id, *response, tokenizer.eos_id]), len(prompt))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def training_batches(
    examples: Sequence[Example], batch_size: int, pad_id: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of `collate`, pass after pass over the examples.

    Within a pool of `POOL` batches, examples are sorted by length, so that little is spent on padding, and the batches come
    in random order. (Sorting all examples would make each batch a single task, and training would fail.)
    """
    order = list(range(len(examples)))
    while True:
        for start in range(0, len(order), POOL * batch_size):
            pool = sorted(order[start : start + POOL * batch_size], key=lambda i: len(examples[i][0]))
            batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
            rng.shuffle(batches)
            for batch in batches:
                yield collate([examples[i] for i in batch], pad_id)
        rng.shuffle(order)


def collate(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """One batch: token_ids (B, T + 1), padded behind, and target_mask (B, T), True where the next token is to be learned.

    Only the response and its end are learned; the prompt is given.

    >>> collate([([5, 1, 7, 2], 1), ([5, 6, 1, 8, 8, 2], 2)], pad_id=0)[1]
    tensor([[False,  True,  True, False, False],
            [False, False,  True,  True,  True]])
    """
    T = max(len(token_ids) for token_ids, _ in examples)
    token_ids = torch.tensor([[*token_ids, *[pad_id] * (T - len(token_ids))] for token_ids, _ in examples])  # (B, T + 1)
    ends = torch.tensor([len(token_ids) for token_ids, _ in examples])[:, None]
    prompt_lengths = torch.tensor([prompt_length for _, prompt_length in examples])[:, None]
    position = torch.arange(T - 1)
    return token_ids, (position >= prompt_lengths) & (position + 1 < ends)


def language_model_loss(model: GPT, token_ids: Tensor, target_mask: Tensor) -> Tensor:
    """Mean cross-entropy in nats a target token. Final hidden states and logits are computed only where there is a target.

    Args:
        model: the language model.
        token_ids: (B, T + 1).
        target_mask: (B, T).
    """
    hidden_states = model(token_ids[:, :-1], only=target_mask)  # (n, C)
    return F.cross_entropy(model.logits(hidden_states), token_ids[:, 1:][target_mask])


def pretrain(
    model: GPT,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    pad_id: int,
    config: PretrainConfig,
    seed: int,
    *,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any], dict[str, float]], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Trains the language model on demonstrations, in place.

    Args:
        model: changed in place.
        examples: what to imitate.
        held_out: examples that are only measured.
        pad_id: fills up short rows.
        config: steps, batch size and learning rate.
        seed: of the order of the examples.
        state: what `save` was given by an interrupted training, to go on from there; the result is the same to the bit.
        save: called every `LOG_EVERY` steps, and at the end, with all that is needed to go on, and the seconds since the last.
        progress: called with 1 after each step.

    Returns:
        A log: step, training loss and held-out loss in nats a token, every `LOG_EVERY` steps.

    Raises:
        ValueError: as soon as a loss isn't finite; it names the step, and the flags to change.
    """
    matrices, vectors = parameter_groups(model)
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    first, log, losses, started = 0, [], [], time.perf_counter()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]})
        first, log = state["step"], state["log"]
    batches = training_batches(examples, config.batch_size, pad_id, python_rng(seed, "order of the demonstrations"))
    for step, (token_ids, target_mask) in zip(range(config.steps), batches, strict=False):
        if step < first:
            continue
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        loss = language_model_loss(model, token_ids, target_mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(_finite(loss.item(), step, config))
        if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
            measured = _finite(held_out_loss(model, held_out, config.batch_size, pad_id), step, config)
            log.append({"step": step + 1, "loss": sum(losses) / len(losses), "held_out_loss": measured})
            losses = []
            if save:
                moments = optimizer.state_dict()["state"]  # its settings are those of `config`
                state = {"model": model.state_dict(), "optimizer": moments, "step": step + 1, "log": log}
                save(state, {"pretrain": time.perf_counter() - started})
                started = time.perf_counter()
        if progress:
            progress(1)
    return log


def _finite(loss: float, step: int, config: PretrainConfig) -> float:
    """The loss, unless it shows that the training has left the finite numbers: then every later step would be in vain."""
    if math.isfinite(loss):
        return loss
    raise ValueError(
        f"the loss must stay finite, got {loss} at step {step + 1} of {config.steps}; start a new run with a lower "
        f"--learning-rate (now {config.learning_rate:g}) or --weight-decay (now {config.weight_decay:g})"
    )


def parameter_groups(model: GPT) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices, which weight decay keeps small, and the biases and scales, which it leaves alone."""
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim < 2]


@torch.no_grad()
def held_out_loss(model: GPT, held_out: Sequence[Example], batch_size: int, pad_id: int) -> float:
    """Mean cross-entropy on held-out examples, in nats a target token."""
    total = count = 0.0
    for start in range(0, len(held_out), batch_size):
        token_ids, target_mask = collate(held_out[start : start + batch_size], pad_id)
        n = int(target_mask.sum())
        total += n * language_model_loss(model, token_ids, target_mask).item()
        count += n
    return total / count


def learning_rate_factor(step: int, config: PretrainConfig) -> float:
    """Rises linearly over the warm-up, then falls along a half cosine to a tenth at the last step.

    >>> config = PretrainConfig(steps=101, warmup_steps=1)
    >>> [round(learning_rate_factor(step, config), 2) for step in (0, 1, 51, 101)]
    [1.0, 1.0, 0.55, 0.1]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))
