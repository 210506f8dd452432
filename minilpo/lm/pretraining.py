"""Pretraining: `pretrain` teaches the language model to imitate demonstrations."""

import math
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.config import PretrainConfig
from minilpo.lm.model import GPT
from minilpo.lm.tokenizer import Tokenizer
from minilpo.seeds import python_rng, torch_defaults

POOL = 16  # batches that are sorted by length and shuffled together
LOG_EVERY = 100  # steps of pretraining

# Token ids of prompt, <sep>, response, <eos>; and the length of the prompt.
Example = tuple[Sequence[int], int]


def encode_examples(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Encodes (prompt, demonstration) pairs, stored compactly."""
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    responses = tokenizer.encode_batch([response for _, response in pairs])
    sep, eos = tokenizer.sep_id, tokenizer.eos_id
    examples: list[Example] = []
    for prompt, response in zip(prompts, responses, strict=True):
        examples.append((array("i", [*prompt, sep, *response, eos]), len(prompt)))
    return examples


def training_batches(
    examples: Sequence[Example], batch_size: int, pad_id: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Makes endless batches of `collate`, pass after pass over the examples.

    Within a pool of `POOL` batches, examples are sorted by length, so that little is spent on
    padding, and the batches come in random order. (Sorting all examples would make each batch a
    single task, and training would fail.)
    """
    order = list(range(len(examples)))
    while True:
        for start in range(0, len(order), POOL * batch_size):
            pool = order[start : start + POOL * batch_size]
            pool.sort(key=lambda i: len(examples[i][0]))
            batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
            rng.shuffle(batches)
            for batch in batches:
                yield collate([examples[i] for i in batch], pad_id)
        rng.shuffle(order)


def collate(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Makes a batch: token_ids (B, T + 1), padded at the end, and target_mask (B, T).

    The mask is True where the next token is to be learned: only the response and its end are, the
    prompt is given.

    >>> collate([([5, 1, 7, 2], 1), ([5, 6, 1, 8, 8, 2], 2)], pad_id=0)[1]
    tensor([[False,  True,  True, False, False],
            [False, False,  True,  True,  True]])
    """
    T = max(len(token_ids) for token_ids, _ in examples)
    rows = [[*token_ids, *[pad_id] * (T - len(token_ids))] for token_ids, _ in examples]
    token_ids = torch.tensor(rows)  # (B, T + 1)
    ends = torch.tensor([len(token_ids) for token_ids, _ in examples])[:, None]
    prompt_lengths = torch.tensor([prompt_length for _, prompt_length in examples])[:, None]
    position = torch.arange(T - 1)
    return token_ids, (position >= prompt_lengths) & (position + 1 < ends)


def language_model_loss(model: GPT, token_ids: Tensor, target_mask: Tensor) -> Tensor:
    """Computes the mean cross-entropy of a batch of `collate`, in nats per target token.

    The batch is brought to where the model is. Logits are computed only where there is a target.
    """
    device = model.token_embedding.weight.device
    token_ids, target_mask = token_ids.to(device), target_mask.to(device)
    hidden_states = model.forward_at(token_ids[:, :-1], target_mask)  # (n, C)
    return F.cross_entropy(model.logits(hidden_states), token_ids[:, 1:][target_mask])


@dataclass(frozen=True)
class Corpus:
    """Demonstrations for a language model, in token ids."""

    examples: Sequence[Example]  # to imitate
    held_out: Sequence[Example]  # only measured
    pad_id: int  # fills up short rows


class Pretraining:
    """State of a pretraining: weights, optimizer, log. It can be saved.

    `after_log` is called with it, every `LOG_EVERY` steps and at the end.
    """

    def __init__(
        self,
        model: GPT,
        config: PretrainConfig,
        after_log: Callable[["Pretraining"], object] | None = None,
    ):
        # Weight decay keeps matrices small; biases and norms may be as large as they need to be.
        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        rate, betas = config.learning_rate, (0.9, 0.98)
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        self.model, self.after_log = model, after_log
        self.step = 0
        self.log: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next step needs."""
        # Only the moments of Adam: its settings stand in the config.
        moments = self.optimizer.state_dict()["state"]
        weights = self.model.state_dict()
        return {"model": weights, "optimizer": moments, "step": self.step, "log": self.log}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        self.step, self.log = state["step"], state["log"]


def add_gradients(model: GPT, token_ids: Tensor, target_mask: Tensor) -> float:
    """Adds the gradient of a batch's loss to the weights', and returns the loss."""
    loss = language_model_loss(model, token_ids, target_mask)
    loss.backward()
    return loss.item()


@torch_defaults()
def pretrain(
    model: GPT,
    corpus: Corpus,
    config: PretrainConfig,
    seed: int,
    training: Pretraining | None = None,
    progress: Callable[[int], object] | None = None,
    add_gradients: Callable[[GPT, Tensor, Tensor], float] = add_gradients,
) -> list[dict[str, Any]]:
    """Trains the language model on demonstrations, in place.

    Args:
        model: the language model.
        corpus: examples to imitate, and others to measure on.
        config: steps, batch size and learning rate.
        seed: of the order of the examples.
        training: an interrupted one, to be continued with the same result to the bit.
        progress: called with 1 after every step.
        add_gradients: another one may share the rows of a batch among processes.

    Returns:
        A log: step, training loss and held-out loss in nats per token, every `LOG_EVERY` steps.

    Raises:
        ValueError: as soon as a loss isn't finite; it names the step, and the flags to change.
    """
    training = training or Pretraining(model, config)
    rng = python_rng(seed, "order of the demonstrations")
    batches = training_batches(corpus.examples, config.batch_size, corpus.pad_id, rng)
    losses = []
    for step, batch in islice(enumerate(batches), training.step, config.steps):
        # 1. The learning rate of this step.
        for group in training.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        # 2. The gradient, no longer than 1.
        loss = add_gradients(model, *batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # 3. The step.
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=True)
        losses.append(_finite(loss, step, config))
        training.step = step + 1
        # 4. From time to time, the log.
        if training.step % LOG_EVERY == 0 or training.step == config.steps:
            held_out = _finite(held_out_loss(model, corpus, config.batch_size), step, config)
            mean = sum(losses) / len(losses)
            training.log.append({"step": training.step, "loss": mean, "held_out_loss": held_out})
            losses = []
            if training.after_log:
                training.after_log(training)
        if progress:
            progress(1)
    return training.log


def _finite(loss: float, step: int, config: PretrainConfig) -> float:
    """Returns the loss if it is finite; if it isn't, every later step would be in vain."""
    if math.isfinite(loss):
        return loss
    raise ValueError(
        f"the loss must stay finite, got {loss} at step {step + 1} of {config.steps}; "
        f"start a new run with a lower --learning-rate (now {config.learning_rate:g}) "
        f"or --weight-decay (now {config.weight_decay:g})"
    )


@torch.no_grad()
def held_out_loss(model: GPT, corpus: Corpus, batch_size: int) -> float:
    """Computes the mean cross-entropy on held-out examples, in nats per target token."""
    total = count = 0.0
    for start in range(0, len(corpus.held_out), batch_size):
        examples = corpus.held_out[start : start + batch_size]
        token_ids, target_mask = collate(examples, corpus.pad_id)
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
