"""Batched generation: each row by its own choice, and rows that have ended leave the batch."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from minilpo.adaptive_decoder import Decisions
from minilpo.decoding.policies import Policy, Step
from minilpo.decoding.rollout import Rollout, concatenate, score
from minilpo.lm.language_model import Batch, LanguageModel
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Prompt

Respond = Callable[..., tuple[Rollout, Tensor]]  # `respond`, or another that does the same
Each = Sequence[tuple[str, list[int], str, int]]  # of all prompts: text, tokens, name, room
NOT_FINITE = (
    "the language model's logits must be finite, got NaN or infinity; if it was pretrained here, "
    "do it again in a new run with a lower --learning-rate; if it was loaded, try a wider dtype, "
    "such as float32"
)
LEAVE_SHARE = 0.25  # of the rows must have ended before they leave the batch: leaving costs a copy


@torch_defaults()
def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    policy: Policy,
    generator: Generator,
    *,
    n_samples: int = 1,
    max_new_tokens: int | None = None,
    rows_per_batch: int = 128,
    progress: Callable[[int], object] | None = None,
    run: Callable[..., Iterable[tuple[list[int], Rollout]]] = map,
) -> Rollout:
    """Writes `n_samples` responses to each prompt, each by its own choices (Eq. 2, 5 to 8).

    A response depends on its prompt, its number among that prompt's responses, the policy and the
    generator, and on nothing else (up to rounding): not on the other prompts of the call, on how
    many samples there are, or on how many rows are written together.

    Args:
        lm: the language model.
        prompts: P texts.
        policy: decides how each token is drawn.
        generator: draws one number, the seed of this call: see `uniforms_of`.
        n_samples: N.
        max_new_tokens: longest response, at least 1; by default as long as the model allows.
        rows_per_batch: rows written together: a matter of speed and memory.
        progress: called with the number of responses finished, batch by batch.
        run: calls a function for each batch; another than `map` may use several processes.

    Returns:
        A `Rollout` of P * N responses.

    Raises:
        ValueError: if there is no prompt, one has an unknown word or is too long for the model, or
            nothing may be written.
    """
    most = lm.max_length if max_new_tokens is None else max_new_tokens
    if min(n_samples, most) < 1:
        raise ValueError(
            f"n_samples and max_new_tokens must be at least 1, got {n_samples}, {most}"
        )
    # 1. Encode the prompts. Each has its own room: a longer one beside it cuts no response short.
    prompt_ids = encode_prompts(lm, prompts)
    limits = [min(most, lm.max_length - len(prompt)) for prompt in prompt_ids]
    # 2. Name them, to draw their random numbers by. A prompt that comes again gets another name.
    key, seen, names = int(torch.randint(2**63 - 1, (), generator=generator)), Counter[str](), []
    for prompt in prompts:
        names.append(f"{seen[prompt]} {prompt}")
        seen[prompt] += 1
    # 3. Write batch by batch. Prompts of like length waste no padding.
    each = list(zip(prompts, prompt_ids, names, limits, strict=True))
    by_length = sorted(range(len(each)), key=lambda p: len(prompt_ids[p]))
    n = max(1, rows_per_batch // max(n_samples, 4))  # prompts; to read them takes memory too
    batches = [by_length[start : start + n] for start in range(0, len(each), n)]
    rollouts, order = list[Rollout](), list[int]()
    for members, rollout in run(partial(_write_batch, lm, n_samples, policy, key, each), batches):
        rollouts.append(rollout)
        order += members
        if progress:
            progress(len(rollout))
    # 4. Put them back into the order of the prompts.
    return concatenate(rollouts).sorted_by(torch.tensor(order).argsort())


def respond(
    lm: LanguageModel, prompts: list[Prompt], policy: Policy, generator: Generator, **options: Any
) -> tuple[Rollout, Tensor]:
    """Writes responses and scores them: the rollout, and the rewards, (P, N) in [0, 1].

    Args:
        lm, policy, generator, options: as in `generate`.
        prompts: P prompts, each with its task.

    Raises:
        ValueError: as `generate` and `score` do.
    """
    rollout = generate(lm, [prompt.text for prompt in prompts], policy, generator, **options)
    return rollout, score(rollout, [prompt.task for prompt in prompts])


def encode_prompts(lm: LanguageModel, prompts: Sequence[str]) -> list[list[int]]:
    """Encodes each prompt and checks that room is left for a response.

    Raises:
        ValueError: if there is no prompt, one has an unknown word or is too long for the model.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError(f"prompts must be a list of texts, as in ['Sort 3 1 2.'], got {prompts!r}")
    prompt_ids = lm.encode(prompts)
    longest = max(range(len(prompts)), key=lambda p: len(prompt_ids[p]))
    if len(prompt_ids[longest]) >= lm.max_length:
        got = f"got {len(prompt_ids[longest])} tokens, {prompts[longest][:60]!r}"
        room = f"in the model's {lm.max_length} tokens, {got}; shorten it, or use a larger model"
        raise ValueError(f"a prompt must leave room for a response {room}")
    return prompt_ids


def uniforms_of(name: str, n_samples: int, max_length: int, key: int) -> Tensor:
    """Draws the random numbers for the responses to one prompt.

    Every prompt has a generator of its own, and every sample has as many numbers as the longest
    text of the model needs. So sample n gets the same numbers beside more samples, beside other
    prompts, and under another limit of length.

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


def _write_batch(
    lm: LanguageModel, n_samples: int, policy: Policy, key: int, each: Each, members: list[int]
) -> tuple[list[int], Rollout]:
    """Writes the responses to some prompts; returns the numbers of these prompts too."""
    texts, prompts, names, limits = zip(*(each[p] for p in members), strict=True)
    room = torch.tensor(limits).repeat_interleave(n_samples)  # (B,)
    parts = [uniforms_of(name, n_samples, lm.max_length, key) for name in names]
    uniforms = torch.cat(parts)[:, : int(room.max())]  # (B, T, 2)
    token_ids, choice_ids, features = _write(lm, prompts, n_samples, policy, uniforms, room)
    is_end = torch.isin(token_ids, torch.tensor([*lm.end_ids]).long())
    # Nothing after the first end token, and nothing where there was no room left.
    has_room = torch.arange(token_ids.shape[1]) < room[:, None]
    response_mask = (is_end.cumsum(1) - is_end.int() == 0) & has_room
    mask = response_mask[:, : choice_ids.shape[1]]
    lengths = (response_mask & ~is_end).sum(1).tolist()
    responses = [lm.decode(row[:n]) for row, n in zip(token_ids.tolist(), lengths, strict=True)]
    decisions = Decisions(features[mask], choice_ids.masked_fill(~mask, 0), mask)
    token_ids = token_ids.masked_fill(~response_mask, 0)
    return members, Rollout([*texts], n_samples, responses, token_ids, response_mask, decisions)


@torch.inference_mode()
def _write(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    n_samples: int,
    policy: Policy,
    uniforms: Tensor,  # (B, T, 2)
    limits: Tensor,  # (B,) how many tokens each row may write
) -> list[Tensor]:
    """Writes one batch: token ids (B, t), choice ids (B, S), their hidden states, (B, S, C).

    They are on the CPU, wherever the language model is. t <= T is the longest response, and S is 1
    at sequence level and t at token level (0 if no single option is chosen). Tokens after the end
    of a response have no meaning yet.
    """
    B, T, _ = uniforms.shape
    batch = lm.prefill(prompts, n_samples, T)
    device = batch.logits.device
    uniforms = uniforms.permute(1, 2, 0).contiguous().to(device)  # (T, 2, B)
    full_after, limits = set(limits.tolist()), limits.to(device)
    positions, ends = torch.arange(T, device=device), torch.tensor([*lm.end_ids]).long().to(device)
    rows, ended = torch.arange(B, device=device), torch.zeros(B, dtype=torch.bool, device=device)
    last = torch.tensor([prompt[-1] for prompt in prompts], device=device)
    n_choices = T if policy.level == "token" else 1
    S = n_choices if policy.chooses_one else 0  # decisions that are kept
    policy.start(B)
    step = _step(batch, rows, last.repeat_interleave(n_samples), positions[0], uniforms[0, 0])
    all_features = step.hidden_states.new_empty(B, S, policy.features(step).shape[1])
    all_choice_ids, all_token_ids = rows.new_zeros(B, S), rows.new_zeros(B, T, dtype=torch.int32)
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
        ended |= torch.isin(token_ids, ends) | (limits == t + 1)
        n_ended, is_full = int(ended.sum()), t + 1 in full_after  # a row without room leaves now
        if n_ended >= LEAVE_SHARE * len(rows) or is_full:
            if not step.logits.amax(-1).isfinite().all():  # -inf is a token that never comes
                raise ValueError(NOT_FINITE)
            if n_ended == len(rows):
                break
            going = (~ended).nonzero()[:, 0]
            batch.select(going)
            rows, token_ids, choice, ended = (x[going] for x in (rows, token_ids, choice, ended))
            uniforms, limits = uniforms[..., going], limits[going]
        # 4. Read the new tokens.
        batch.step(token_ids)
        step = _step(batch, rows, token_ids, positions[t + 1], uniforms[t + 1, 0])
    return [part[:, : t + 1].cpu() for part in (all_token_ids, all_choice_ids, all_features)]


def _step(batch: Batch, rows: Tensor, last: Tensor, position: Tensor, uniforms: Tensor) -> Step:
    """Makes a `Step`. Head and sampling compute at least in float32, the model perhaps in less."""
    exact = torch.promote_types(batch.logits.dtype, torch.float32)
    hidden_states, logits = batch.hidden_states.to(exact), batch.logits.to(exact)
    return Step(rows, hidden_states, logits, last, position, uniforms)
