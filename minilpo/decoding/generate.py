"""Batched generation: each row by its own choice, and rows that have ended leave the batch."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minilpo.adaptive_decoder import Decisions
from minilpo.decoding.policies import Policy, Step
from minilpo.decoding.rollout import Rollout, concatenate
from minilpo.lm.language_model import Batch, LanguageModel
from minilpo.seeds import torch_generator

ENOUGH_TO_LEAVE = (
    0.25  # of the rows must have ended before they leave the batch: leaving costs a copy
)


def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    policy: Policy,
    generator: torch.Generator,
    *,
    n_samples: int = 1,
    max_new_tokens: int | None = None,
    rows_per_batch: int = 128,
    progress: Callable[[int], object] | None = None,
) -> Rollout:
    """Writes `n_samples` responses to each prompt, each by its own choices (Eq. 2, 5 to 8).

    What a response says depends on its prompt, its number among that prompt's responses, the policy
    and the generator, and on nothing else (up to rounding): not on the other prompts of the call,
    on how many samples there are, or on how many rows are written together.

    Args:
        lm: the language model.
        prompts: P texts.
        policy: decides how each token is drawn.
        generator: gives one number, the key to all that is random in this call: see `uniforms_of`.
        n_samples: N.
        max_new_tokens: longest response, at least 1; by default as long as the model allows.
        rows_per_batch: rows written together: a matter of speed and memory.
        progress: called with the number of responses finished, batch by batch.

    Returns:
        A `Rollout` of P * N responses.

    Raises:
        ValueError: if there is no prompt, one has an unknown word or is too long for the model, or
            nothing may be written.
    """
    encoded, limits = prepared(lm, prompts, n_samples, max_new_tokens)
    key = int(torch.randint(2**63 - 1, (), generator=generator))
    names = _names(prompts)

    # Prompts of like length waste no padding. Reading many prompts at once takes memory too.
    by_length = sorted(range(len(prompts)), key=lambda p: len(encoded[p]))
    prompts_per_batch = max(1, rows_per_batch // max(n_samples, 4))
    rollouts = []
    for start in range(0, len(prompts), prompts_per_batch):
        members = by_length[start : start + prompts_per_batch]
        longest = max(limits[p] for p in members)
        drawn = [uniforms_of(names[p], n_samples, lm.max_length, key) for p in members]
        uniforms = torch.cat(drawn)[:, :longest]  # (B, T, 2)
        last = torch.tensor([encoded[p][-1] for p in members]).repeat_interleave(n_samples)
        rows_limits = torch.tensor([limits[p] for p in members]).repeat_interleave(n_samples)
        read = [encoded[p] for p in members]
        # No name keeps the batch: its memory is free again before the next one takes as much.
        written = _write(
            lm.prefill(read, n_samples, longest), policy, last, uniforms, rows_limits, lm.end_ids
        )
        texts = [prompts[p] for p in members]
        rollouts.append(_as_rollout(lm, texts, n_samples, rows_limits, *written))
        if progress:
            progress(len(members) * n_samples)
    return concatenate(rollouts).sorted_by(torch.tensor(by_length).argsort())


def uniforms_of(name: str, n_samples: int, max_length: int, key: int) -> Tensor:
    """The numbers behind all that is random in the responses to one prompt.

    Every prompt has a generator of its own, and the numbers are laid out by the longest text that
    the model can read: so those of sample n are the same however many samples are drawn, however
    long they may be, and whatever other prompts there are.

    Args:
        name: the prompt; if it comes more than once in a call, its number too.
        n_samples: N.
        max_length: of prompt and response together, in tokens.
        key: of the call.

    Returns:
        (N, max_length, 2) in [0, 1): for each token one to draw the choice with and one for itself.

    >>> three, one = uniforms_of("Hi", 3, 5, key=0), uniforms_of("Hi", 1, 5, key=0)
    >>> three.shape, bool((three[:1] == one).all())
    (torch.Size([3, 5, 2]), True)
    """
    return torch.rand(n_samples, max_length, 2, generator=torch_generator(key, name))


def _names(prompts: Sequence[str]) -> list[str]:
    """The prompts, numbered where one comes again: it is to get other responses."""
    seen: Counter[str] = Counter()
    names = []
    for prompt in prompts:
        names.append(f"{seen[prompt]} {prompt}")
        seen[prompt] += 1
    return names


def prepared(
    lm: LanguageModel, prompts: Sequence[str], n_samples: int = 1, max_new_tokens: int | None = None
) -> tuple[list[list[int]], list[int]]:
    """The prompts in token ids, and how many tokens the responses to each may have.

    Args:
        lm, prompts, n_samples, max_new_tokens: those of `generate`.

    Raises:
        ValueError: if `generate` couldn't write responses to them.
    """
    if isinstance(prompts, str) or not len(prompts):
        got = f"the text {prompts!r} alone" if prompts else "none"
        raise ValueError(
            f"prompts must be a list of at least one text, got {got}; "
            "pass a list like ['Tell me a story about a fox.']"
        )
    for name, value in (("n_samples", n_samples), ("max_new_tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise ValueError(
                f"{name} must be at least 1, got {value}; leave it out for the default"
            )
    encoded = lm.encode(prompts)
    longest = max(range(len(prompts)), key=lambda p: len(encoded[p]))
    if len(encoded[longest]) >= lm.max_length:
        raise ValueError(
            f"a prompt must leave room for a response in the model's {lm.max_length} tokens, got "
            f"one of {len(encoded[longest])} tokens, {prompts[longest][:60]!r}; shorten it, or use "
            "a model with a larger max_length"
        )
    # Each prompt has its own room: a longer one beside it must not cut its responses short.
    most = lm.max_length if max_new_tokens is None else max_new_tokens
    return encoded, [min(most, lm.max_length - len(prompt)) for prompt in encoded]


@torch.inference_mode()
def _write(
    batch: Batch,
    policy: Policy,
    last_token_ids: Tensor,  # (B,) the end of each row's prompt
    uniforms: Tensor,  # (B, T, 2)
    limits: Tensor,  # (B,) how many tokens each row may write
    end_ids: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch: token ids (B, t), choice ids (B, S), and what they were chosen from, (B, S, C).

    They are on the CPU, wherever the language model is.

    t <= T is the longest response, and S is 1 at sequence level and t at token level (0 if no
    single option is chosen). What stands after the end of a response means nothing yet.
    """
    device = batch.logits.device
    uniforms = uniforms.permute(1, 2, 0).contiguous().to(device)  # (T, 2, B)
    T, _, B = uniforms.shape
    full_after, limits = set(limits.tolist()), limits.to(device)
    positions, ends = torch.arange(T, device=device), _tensor_of(end_ids, device)
    rows, last_token_ids = torch.arange(B, device=device), last_token_ids.to(device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    n_choices = T if policy.level == "token" else 1
    S = n_choices if policy.chooses_one else 0  # decisions that are kept
    policy.start(B)
    step = _step(batch, rows, last_token_ids, positions[0], uniforms[0, 0])
    all_features = step.hidden_states.new_empty(B, S, policy.features(step).shape[1])
    all_choice_ids = rows.new_zeros(B, S)
    all_token_ids = rows.new_zeros(B, T, dtype=torch.int32)
    for t in range(T):
        # 1. Choose, once per response or before every token.
        if t < n_choices:
            choice = policy.choose(step)
        if t < S:
            all_features[rows, t] = policy.features(step)
            all_choice_ids[rows, t] = choice
        # 2. Draw the next token of each row by its choice.
        token_ids = policy.draw(step, choice, uniforms[t, 1])  # (B,)
        policy.observe(step, token_ids)
        all_token_ids[rows, t] = token_ids.int()
        # 3. Let the rows leave that have ended.
        ended |= torch.isin(token_ids, ends)
        is_full = t + 1 in full_after  # some row has no room left: it must leave now
        if is_full:
            ended |= limits == t + 1
        n_ended = int(ended.sum())
        if n_ended == len(rows):
            _check_finite(step.logits)
            break
        if n_ended >= ENOUGH_TO_LEAVE * len(rows) or is_full:
            _check_finite(step.logits)
            going = (~ended).nonzero()[:, 0]
            batch.select(going)
            rows, token_ids, choice, ended = (x[going] for x in (rows, token_ids, choice, ended))
            uniforms, limits = uniforms[..., going], limits[going]
        # 4. Read what was drawn.
        batch.step(token_ids)
        step = _step(batch, rows, token_ids, positions[t + 1], uniforms[t + 1, 0])
    token_ids, choice_ids, features = (
        part[:, : t + 1].cpu() for part in (all_token_ids, all_choice_ids, all_features)
    )
    return token_ids, choice_ids, features


def _check_finite(logits: Tensor) -> None:
    """Raises a ValueError if a row was drawn from a broken model, which means nothing.

    What has once gone wrong in a row stays in all that it reads later, so a look when it leaves is
    enough. (-inf is the logit of a token that never comes.)
    """
    if not logits.amax(-1).isfinite().all():
        raise ValueError(
            "the language model's logits must be finite, got NaN or infinity; if it was pretrained "
            "here, do it again in a new run with a lower --learning-rate; if it was loaded, try a "
            "wider dtype, such as float32"
        )


def _tensor_of(token_ids: Sequence[int], device: torch.device | None = None) -> Tensor:
    return torch.tensor(list(token_ids), dtype=torch.long, device=device)


def _step(batch: Batch, rows: Tensor, last: Tensor, position: Tensor, uniforms: Tensor) -> Step:
    """Head and sampling compute in float32 at least, whatever the model computes in."""
    exact = torch.promote_types(batch.logits.dtype, torch.float32)
    hidden_states, logits = batch.hidden_states.to(exact), batch.logits.to(exact)
    return Step(rows, hidden_states, logits, last, position, uniforms)


def _as_rollout(
    lm: LanguageModel,
    prompts: list[str],
    n_samples: int,
    limits: Tensor,
    token_ids: Tensor,
    choice_ids: Tensor,
    features: Tensor,
) -> Rollout:
    """What `_write` returns without what stands after the ends; gradients may go through it."""
    is_end = torch.isin(token_ids, _tensor_of(lm.end_ids))
    ends_before = is_end.cumsum(1, dtype=torch.int16) - is_end.short()
    # Nothing after the first end token, and nothing where there was no room left.
    has_room = torch.arange(token_ids.shape[1]) < limits[:, None]
    response_mask = (ends_before == 0) & has_room
    mask = response_mask[:, : choice_ids.shape[1]]
    lengths = (response_mask & ~is_end).sum(1).tolist()
    return Rollout(
        prompts,
        n_samples,
        [lm.decode(row[:n]) for row, n in zip(token_ids.tolist(), lengths, strict=True)],
        token_ids.masked_fill(~response_mask, 0),
        response_mask,
        Decisions(features[mask], choice_ids.masked_fill(~mask, 0), mask),
    )
