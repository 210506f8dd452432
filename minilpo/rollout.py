"""Batched generation. What comes out, a `Rollout`, holds what the head read: training the head needn't run the transformer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, Rule
from minilpo.model import GPT, KVCache
from minilpo.sampling import choice_logprobs, draw, mixture_probs, next_tokens
from minilpo.tasks import Task, judge
from minilpo.tokenizer import Tokenizer

READ_AT_ONCE = 128  # responses that `with_choice_logprobs` reads again together
TOKENS_AT_ONCE = 2048  # whose logits it holds together
MIXED = -1  # the temperature id of a token drawn from the mixture: no single temperature wrote it


@dataclass(frozen=True)
class Rollout:
    """N responses to each of P prompts. Row p * N + n is response n to prompt p; R = P * N.

    A decision is one choice of a temperature: S = 1 a response at sequence level, S = T (one a token) at token level.
    """

    prompts: list[str]
    n_samples: int
    responses: list[str]  # R texts
    token_ids: Tensor  # (R, T) the response's tokens with its end token, padding behind
    response_mask: Tensor  # (R, T) True at the response's tokens, its end token included
    hidden_states: Tensor | None  # (n, C) what the head read at the n decisions, packed row by row; None if a rule decided
    temperature_ids: Tensor  # (R, S) what was chosen
    decision_mask: Tensor  # (R, S) True where a decision was made, n times in all
    temperature_choices: Tensor  # (K,)
    choice_logprobs: Tensor | None = None  # (R, T, K) log P(y_t | tau_k), the constants of Eq. 11: see `with_choice_logprobs`

    @property
    def temperatures(self) -> Tensor:
        """(R, S) the chosen temperatures; NaN for tokens drawn from the mixture."""
        chosen = self.temperature_choices[self.temperature_ids.clamp(min=0)]
        return chosen.masked_fill(self.temperature_ids == MIXED, torch.nan)

    def rows(self, index: Tensor) -> "Rollout":
        """Some of the responses, as one response each to as many prompts. `index` is (B,), rows of this rollout."""
        prompts = [self.prompts[row // self.n_samples] for row in index.tolist()]
        return replace(self._ordered(index), prompts=prompts, n_samples=1)

    @property
    def decided_tokens(self) -> Tensor:
        """(R, T) True at the tokens in front of which a decision was made: `decision_mask` as wide as `response_mask`."""
        return F.pad(self.decision_mask, (0, self.response_mask.shape[1] - self.decision_mask.shape[1]))

    @cached_property
    def _starts(self) -> Tensor:
        """(R,) where the hidden states of each row begin."""
        lengths = self.decision_mask.sum(1)
        return lengths.cumsum(0) - lengths

    def _ordered(self, index: Tensor) -> "Rollout":
        """Some of the rows in any order; `prompts` and `n_samples` are left to the caller."""
        changed: dict[str, Any] = {name: tensor[index] for name, tensor in self._tensors().items()}
        changed["responses"] = [self.responses[row] for row in index.tolist()]
        if self.hidden_states is not None:
            steps = torch.arange(self.decision_mask.shape[1], device=index.device)
            places = self._starts[index, None] + steps  # (B, S)
            changed["hidden_states"] = self.hidden_states[places[changed["decision_mask"]]]
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that has a row for each response."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        other = ("temperature_choices", "hidden_states")
        return {name: value for name, value in values.items() if isinstance(value, Tensor) and name not in other}


def unpack(values: Tensor, mask: Tensor) -> Tensor:
    """Values that stand packed, one where a mask is True, in their places: (n, ...) to (R, S, ...), zeros elsewhere.

    >>> unpack(torch.tensor([5, 6, 7]), torch.tensor([[True, False], [True, True]]))
    tensor([[5, 0],
            [6, 7]])
    """
    places = values.new_zeros(*mask.shape, *values.shape[1:])
    places[mask] = values
    return places


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts of the same head and the same number of samples, one behind the other; shorter ones are padded."""
    parts = [rollout._tensors() for rollout in rollouts]
    joined: dict[str, Tensor | None] = {}
    for name in parts[0]:
        T = max(part[name].shape[1] for part in parts)
        # What stands behind a response is masked out: zeros will do.
        padded = [F.pad(part[name], (*[0] * 2 * (part[name].ndim - 2), 0, T - part[name].shape[1])) for part in parts]
        joined[name] = torch.cat(padded)
    if rollouts[0].hidden_states is not None:
        joined["hidden_states"] = torch.cat([rollout.hidden_states for rollout in rollouts])
    return replace(
        rollouts[0],
        prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
        responses=[response for rollout in rollouts for response in rollout.responses],
        **joined,
    )


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    head: AdaptiveDecoder | Rule,
    generator: torch.Generator,
    *,
    n_samples: int = 1,
    selection: str = "greedy",
    max_new_tokens: int | None = None,
    rows_per_batch: int = 128,
    progress: Callable[[int], None] | None = None,
) -> Rollout:
    """Writes `n_samples` responses to each prompt, each row at its own temperature (arXiv 2411.09661, Eq. 2, 5 to 8).

    Args:
        model: the language model.
        tokenizer: the one the model was trained with.
        prompts: P texts.
        head: chooses the temperatures; an AdaptiveDecoder or a `Rule`.
        generator: draws the uniform numbers behind all choices, before the first token: each row has its own, so
            what a row says doesn't depend on the rows it shares a batch with (up to rounding).
        n_samples: N.
        selection: how the head's distribution is used: "greedy" (Eq. 4), "sample" (Eq. 5) or "mixture" (Eq. 6).
        max_new_tokens: longest response, at least 1; by default as long as the model's block allows.
        rows_per_batch: rows generated together: a matter of speed and memory.
        progress: called with the number of responses finished, batch by batch.

    Returns:
        A `Rollout` of P * N responses.

    Raises:
        ValueError: if there is no prompt, one has an unknown word or is too long for the model, or nothing may be written.
    """
    if selection not in ("greedy", "sample", "mixture"):
        raise ValueError(f"selection must be 'greedy', 'sample' or 'mixture', got {selection!r}")
    if not len(prompts):
        raise ValueError("prompts must hold at least one text, got none; pass a list like ['Tell me a story about a fox.']")
    for name, value in (("n_samples", n_samples), ("max_new_tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; leave it out for the default")
    encoded = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(list(prompts))]
    longest = max(map(len, encoded))
    room = model.config.block_size - longest
    if room < 1:
        raise ValueError(
            f"a prompt must leave room for a response in the model's {model.config.block_size} tokens, "
            f"got one of {longest} tokens with its end mark; shorten it"
        )
    max_new_tokens = room if max_new_tokens is None else min(room, max_new_tokens)
    device = model.token_embedding.weight.device
    # Two numbers a row and step: the first for the temperature, the second for the token.
    uniforms = torch.rand(len(prompts), n_samples, max_new_tokens, 2, generator=generator).to(device)

    by_length = sorted(range(len(prompts)), key=lambda p: len(encoded[p]))  # prompts of like length waste no padding
    prompts_per_batch = max(1, rows_per_batch // max(n_samples, 4))  # reading many prompts at once takes memory too
    batches = []
    for start in range(0, len(prompts), prompts_per_batch):
        members = by_length[start : start + prompts_per_batch]
        prompt_ids, pad_lengths = _left_pad([encoded[p] for p in members], tokenizer.pad_id, device)
        written = _write(model, head, selection, tokenizer.eos_id, prompt_ids, pad_lengths, uniforms[members])
        batches.append(_as_rollout(tokenizer, [prompts[p] for p in members], n_samples, head, *written))
        if progress:
            progress(len(members) * n_samples)

    back = torch.tensor(by_length, device=device).argsort()  # to the order of the prompts
    rows = (back[:, None] * n_samples + torch.arange(n_samples, device=device)).flatten()
    return replace(concatenate(batches)._ordered(rows), prompts=list(prompts))


@torch.inference_mode()
def _write(
    model: GPT,
    head: AdaptiveDecoder | Rule,
    selection: str,
    eos_id: int,
    prompt_ids: Tensor,  # (P, T_prompt), left-padded
    pad_lengths: Tensor,  # (P,)
    uniforms: Tensor,  # (P, N, T, 2)
) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of one batch, (B, t), the temperatures chosen, (B, S), and what the head read, (B, S, C).

    t <= T is the longest response; S = t at token level and 1 at sequence level. Prompts are read once and shared by their N
    samples; a row that has ended soon leaves the batch. What then stands behind its end in the three tensors means nothing, and
    neither do the hidden states if a rule decides.
    """
    P, N, T, _ = uniforms.shape
    B, S = P * N, T if head.level == "token" else 1
    uniforms = uniforms.flatten(0, 1).permute(1, 2, 0).contiguous()  # (T, 2, B)
    dtype = model.token_embedding.weight.dtype
    cache = KVCache(model.config, pad_lengths, prompt_ids.shape[1] + T, max_rows=B, dtype=dtype)
    is_last = torch.zeros_like(prompt_ids, dtype=torch.bool)
    is_last[:, -1] = True
    sample_of = torch.arange(P, device=prompt_ids.device).repeat_interleave(N)  # (B,)
    h = model(prompt_ids, cache, only=is_last)[sample_of]  # (B, C)
    cache.select(sample_of)

    all_token_ids = prompt_ids.new_zeros(B, T, dtype=torch.int32)
    all_temperature_ids = prompt_ids.new_full((B, S), MIXED)
    all_hidden_states = h.new_empty(B, S, h.shape[-1])
    rows = torch.arange(B, device=h.device)  # the rows still in the batch
    token_ids = prompt_ids[sample_of, -1]  # (B,) what each row read last
    is_rule = isinstance(head, Rule)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for t in range(T):
        if t < S:  # a decision: once a response, or at every token
            if not is_rule:
                all_hidden_states[rows, t] = h
            if selection == "mixture":
                decided = head(h).softmax(-1)  # (B, K) probabilities
            else:
                temperature_ids = head.choose(rows, token_ids) if is_rule else head.choose(h, selection, uniforms[t, 0])
                all_temperature_ids[rows, t] = temperature_ids
                decided = head.temperature_choices[temperature_ids]  # (B,) temperatures
        logits = model.logits(h)  # (B, V)
        if selection == "mixture":
            token_ids = draw(mixture_probs(logits, decided, head.temperature_choices), uniforms[t, 1])
        else:
            token_ids = next_tokens(logits, decided, uniforms[t, 1])  # (B,)
        all_token_ids[rows, t] = token_ids.int()
        ended |= token_ids == eos_id
        n_ended = int(ended.sum())
        if n_ended == len(rows) or t == T - 1:
            break
        if n_ended >= 0.25 * len(rows):
            going = (~ended).nonzero()[:, 0]
            cache.select(going)
            rows, token_ids, decided, ended = rows[going], token_ids[going], decided[going], ended[going]
            uniforms = uniforms[..., going]
        h = model(token_ids[:, None], cache)[:, -1]
    return all_token_ids[:, : t + 1], all_temperature_ids[:, : t + 1], all_hidden_states[:, : t + 1]


def _as_rollout(
    tokenizer: Tokenizer,
    prompts: list[str],
    n_samples: int,
    head: AdaptiveDecoder | Rule,
    token_ids: Tensor,  # (B, t)
    temperature_ids: Tensor,  # (B, S)
    hidden_states: Tensor,  # (B, S, C)
) -> Rollout:
    """What `_write` returns, cleaned of all that stands behind the ends: copies, which gradients may go through."""
    is_end = token_ids == tokenizer.eos_id
    response_mask = is_end.cumsum(1, dtype=torch.int16) - is_end.short() == 0  # nothing behind the first end token
    decision_mask = response_mask[:, : temperature_ids.shape[1]]
    return Rollout(
        prompts=prompts,
        n_samples=n_samples,
        responses=_texts(tokenizer, token_ids, response_mask & ~is_end),
        token_ids=token_ids.masked_fill(~response_mask, tokenizer.pad_id),
        response_mask=response_mask,
        hidden_states=None if isinstance(head, Rule) else hidden_states[decision_mask],
        temperature_ids=temperature_ids.masked_fill(~decision_mask, 0),
        decision_mask=decision_mask,
        temperature_choices=head.temperature_choices,
    )


def _left_pad(encoded: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(P, T) token ids that all end in the last column, and (P,) the number of padding tokens of each."""
    T = max(map(len, encoded))
    padded = [[pad_id] * (T - len(token_ids)) + token_ids for token_ids in encoded]
    return torch.tensor(padded, device=device), torch.tensor([T - len(token_ids) for token_ids in encoded], device=device)


def _texts(tokenizer: Tokenizer, token_ids: Tensor, mask: Tensor) -> list[str]:
    lengths = mask.sum(1).tolist()
    return [tokenizer.decode(row[:length]) for row, length in zip(token_ids.tolist(), lengths, strict=True)]


def read(model: GPT, tokenizer: Tokenizer, rollout: Rollout) -> Tensor:
    """Reads prompts and responses again, all tokens of a response at once, as training does.

    Returns:
        (n, C) hidden states in front of each of the n tokens of all responses, packed row by row like `response_mask`.
    """
    T, mask, pad_id = int(rollout.response_mask.sum(1).max()), rollout.response_mask, tokenizer.pad_id
    prompts = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(rollout.prompts)]
    token_ids = rollout.token_ids.new_full((len(mask), max(map(len, prompts)) + T), pad_id, dtype=torch.long)
    wanted = torch.zeros_like(token_ids, dtype=torch.bool)
    for row, prompt in enumerate(prompt for prompt in prompts for _ in range(rollout.n_samples)):
        n = len(prompt)
        token_ids[row, :n] = torch.tensor(prompt)
        token_ids[row, n : n + T] = rollout.token_ids[row, :T]
        wanted[row, n - 1 : n - 1 + T] = mask[row, :T]  # the token before is read
    T_all = min(token_ids.shape[1], model.config.block_size)  # only padding stands behind
    return model(token_ids[:, :T_all], only=wanted[:, :T_all])


@torch.no_grad()
def with_choice_logprobs(model: GPT, tokenizer: Tokenizer, rollout: Rollout) -> Rollout:
    """The same rollout with log P(y_t | tau_k) of every token under every temperature: computed once, constant from then on.

    Where the head has read every token, its stored hidden states are used; else the responses are read again. Rounding differs
    from that of sampling, so where the two most likely tokens are equal up to rounding, temperature 0 may prefer the other one.
    """
    mask, choices = rollout.response_mask, rollout.temperature_choices
    if rollout.hidden_states is not None and torch.equal(rollout.decision_mask, mask):
        parts = rollout.hidden_states.split(TOKENS_AT_ONCE)
    else:
        rows = torch.arange(len(mask), device=mask.device).split(READ_AT_ONCE)
        parts = (part for some in rows for part in read(model, tokenizer, rollout.rows(some)).split(TOKENS_AT_ONCE))
    token_ids, logprobs = rollout.token_ids[mask].long(), []
    for part in parts:  # (up to TOKENS_AT_ONCE, C)
        start = sum(map(len, logprobs))
        logprobs.append(choice_logprobs(model.logits(part), token_ids[start : start + len(part)], choices))
    return replace(rollout, choice_logprobs=unpack(torch.cat(logprobs), mask))


def score(rollout: Rollout, tasks: Sequence[Task]) -> Tensor:
    """Rewards of a rollout's responses, (P, N) in [0, 1]; `tasks` names the task of each of the P prompts.

    Raises:
        ValueError: if a reward isn't a number in [0, 1]; names task, prompt, response and value, see `judge`.
    """
    rewards = [
        judge(tasks[row // rollout.n_samples], rollout.prompts[row // rollout.n_samples], response)
        for row, response in enumerate(rollout.responses)
    ]
    return torch.tensor(rewards).view(len(rollout.prompts), rollout.n_samples)
