"""Batched generation. What comes out, a `Rollout`, holds all that LPO needs: training the head never runs the transformer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, Rule
from minilpo.model import GPT, KVCache
from minilpo.sampling import choice_logprobs, draw, mixture_probs, token_probs
from minilpo.tasks import Task
from minilpo.tokenizer import Tokenizer

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
    hidden_states: Tensor  # (R, S, C) what the head read at each decision
    temperature_ids: Tensor  # (R, S) what was chosen
    decision_mask: Tensor  # (R, S) True where a decision was made
    temperature_choices: Tensor  # (K,)
    choice_logprobs: Tensor | None  # (R, T, K) log P(y_t | tau_k), the constants of Eq. 11, where they were asked for

    @property
    def temperatures(self) -> Tensor:
        """(R, S) the chosen temperatures; NaN for tokens drawn from the mixture."""
        chosen = self.temperature_choices[self.temperature_ids.clamp(min=0)]
        return chosen.masked_fill(self.temperature_ids == MIXED, torch.nan)

    def rows(self, index: Tensor) -> "Rollout":
        """Some of the responses, as one response each to as many prompts. `index` is (B,), rows of this rollout."""
        numbers = index.tolist()
        return replace(
            self,
            prompts=[self.prompts[row // self.n_samples] for row in numbers],
            n_samples=1,
            responses=[self.responses[row] for row in numbers],
            **{name: tensor[index] for name, tensor in self._tensors().items()},
        )

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that has a row for each response."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, Tensor) and name != "temperature_choices"
        }


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts of the same head and the same number of samples, one behind the other; shorter ones are padded."""
    parts = [rollout._tensors() for rollout in rollouts]
    joined = {}
    for name in list(parts[0]):
        tensors = [part.pop(name) for part in parts]
        T = max(tensor.shape[1] for tensor in tensors)
        # What stands behind a response is masked out: zeros will do.
        padded = [F.pad(tensor, (*[0] * 2 * (tensor.ndim - 2), 0, T - tensor.shape[1])) for tensor in tensors]
        joined[name] = torch.cat(padded)
    return replace(
        rollouts[0],
        prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
        responses=[response for rollout in rollouts for response in rollout.responses],
        **joined,
    )


@torch.no_grad()
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
    record_choice_logprobs: bool = False,
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
        max_new_tokens: longest response; by default as long as the model's block allows.
        rows_per_batch: rows generated together: a matter of speed and memory.
        record_choice_logprobs: store log P(y_t | tau_k) for every token and temperature.
        progress: called with the number of responses finished, batch by batch.

    Returns:
        A `Rollout` of P * N responses.

    Raises:
        ValueError: if a prompt has an unknown word, or is too long for the model.
    """
    if selection not in ("greedy", "sample", "mixture"):
        raise ValueError(f"selection must be 'greedy', 'sample' or 'mixture', got {selection!r}")
    encoded = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(list(prompts))]
    longest = max(map(len, encoded))
    room = model.config.block_size - longest
    if room < 1:
        raise ValueError(
            f"a prompt must leave room for a response in the model's {model.config.block_size} tokens, "
            f"got one of {longest} tokens with its end mark; shorten it"
        )
    max_new_tokens = min(room, max_new_tokens or room)
    device = model.token_embedding.weight.device
    # Two numbers a row and step: the first for the temperature, the second for the token.
    uniforms = torch.rand(len(prompts), n_samples, max_new_tokens, 2, generator=generator).to(device)

    by_length = sorted(range(len(prompts)), key=lambda p: len(encoded[p]))  # prompts of like length waste no padding
    prompts_per_batch = max(1, rows_per_batch // max(n_samples, 4))  # reading many prompts at once takes memory too
    batches = []
    for start in range(0, len(prompts), prompts_per_batch):
        members = by_length[start : start + prompts_per_batch]
        prompt_ids, pad_lengths = _left_pad([encoded[p] for p in members], tokenizer.pad_id, device)
        batches.append(
            _generate_batch(
                model, tokenizer, head, selection, prompt_ids, pad_lengths, uniforms[members], record_choice_logprobs
            )
        )
        if progress:
            progress(len(members) * n_samples)

    back = torch.tensor(by_length, device=device).argsort()  # to the order of the prompts
    rows = (back[:, None] * n_samples + torch.arange(n_samples, device=device)).flatten()
    stored = {name: torch.cat([batch.pop(name) for batch in batches])[rows] for name in list(batches[0])}
    is_end = stored["token_ids"] == tokenizer.eos_id
    response_mask = is_end.cumsum(1, dtype=torch.int16) - is_end.short() == 0  # nothing behind the first end token
    T = int(response_mask.sum(1).max())
    stored["token_ids"] = stored["token_ids"].masked_fill(~response_mask, tokenizer.pad_id)
    per_token = head.level == "token"
    return Rollout(
        prompts=list(prompts),
        n_samples=n_samples,
        responses=_texts(tokenizer, stored["token_ids"], response_mask & ~is_end),
        response_mask=response_mask[:, :T],
        decision_mask=response_mask[:, :T] if per_token else response_mask[:, :1],
        temperature_choices=head.temperature_choices,
        choice_logprobs=stored.pop("choice_logprobs")[:, :T] if record_choice_logprobs else None,
        **{name: tensor[:, :T] for name, tensor in stored.items()},
    )


def _generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    head: AdaptiveDecoder | Rule,
    selection: str,
    prompt_ids: Tensor,  # (P, T_prompt), left-padded
    pad_lengths: Tensor,  # (P,)
    uniforms: Tensor,  # (P, N, T, 2)
    record_choice_logprobs: bool,
) -> dict[str, Tensor]:
    """Prompts are read once and shared by their N samples; a row that has ended soon leaves the batch."""
    P, N, T, _ = uniforms.shape
    B, K = P * N, len(head.temperature_choices)
    S = T if head.level == "token" else 1
    uniforms = uniforms.flatten(0, 1)  # (B, T, 2)
    cache = KVCache(model.config, pad_lengths, prompt_ids.shape[1] + T, max_rows=B)
    sample_of = torch.arange(P, device=prompt_ids.device).repeat_interleave(N)  # (B,)
    h = model(prompt_ids, cache)[sample_of, -1]  # (B, C)
    cache.select(sample_of)

    stored = {
        "token_ids": prompt_ids.new_full((B, T), tokenizer.pad_id, dtype=torch.int32),
        "hidden_states": h.new_zeros(B, S, h.shape[-1]),
        "temperature_ids": prompt_ids.new_zeros(B, S),
    }
    if record_choice_logprobs:
        stored["choice_logprobs"] = h.new_zeros(B, T, K)

    rows = torch.arange(B, device=h.device)  # the rows still in the batch
    token_ids = prompt_ids[sample_of, -1]  # (B,) what each row read last
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for t in range(T):
        if t < S:  # a decision: once a response, or at every token
            if selection == "mixture":
                choice_probs = head(h).softmax(-1)  # (B, K)
                temperature_ids = torch.full_like(rows, MIXED)
            elif isinstance(head, Rule):
                temperature_ids = head.choose(rows, token_ids)  # (B,)
            else:
                temperature_ids = head.choose(h, selection, uniforms[rows, t, 0])  # (B,)
            stored["hidden_states"][rows, t] = h
            stored["temperature_ids"][rows, t] = temperature_ids
        logits = model.logits(h)  # (B, V)
        if selection == "mixture":
            probs = mixture_probs(logits, choice_probs, head.temperature_choices)
        else:
            probs = token_probs(logits, head.temperature_choices[temperature_ids])
        token_ids = draw(probs, uniforms[rows, t, 1])  # (B,)
        stored["token_ids"][rows, t] = token_ids.int()
        if record_choice_logprobs:
            stored["choice_logprobs"][rows, t] = choice_logprobs(logits, token_ids, head.temperature_choices)
        ended |= token_ids == tokenizer.eos_id
        if ended.all() or t == T - 1:
            break
        if ended.sum() >= 0.25 * len(rows):
            going = (~ended).nonzero()[:, 0]
            cache.select(going)
            rows, token_ids, temperature_ids, ended = rows[going], token_ids[going], temperature_ids[going], ended[going]
            if selection == "mixture":
                choice_probs = choice_probs[going]
        h = model(token_ids[:, None], cache)[:, -1]
    return stored


def _left_pad(encoded: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(P, T) token ids that all end in the last column, and (P,) the number of padding tokens of each."""
    T = max(map(len, encoded))
    padded = [[pad_id] * (T - len(token_ids)) + token_ids for token_ids in encoded]
    return torch.tensor(padded, device=device), torch.tensor([T - len(token_ids) for token_ids in encoded], device=device)


def _texts(tokenizer: Tokenizer, token_ids: Tensor, mask: Tensor) -> list[str]:
    lengths = mask.sum(1).tolist()
    return [tokenizer.decode(row[:length]) for row, length in zip(token_ids.tolist(), lengths, strict=True)]


def score(rollout: Rollout, tasks: Sequence[Task]) -> Tensor:
    """Rewards of a rollout's responses, (P, N) in [0, 1]; `tasks` names the task of each of the P prompts."""
    rewards = [
        tasks[row // rollout.n_samples].reward(rollout.prompts[row // rollout.n_samples], response)
        for row, response in enumerate(rollout.responses)
    ]
    return torch.tensor(rewards).view(len(rollout.prompts), rollout.n_samples)
