"""Answers to the exercises of lesson 1."""

import math

import torch
import torch.nn.functional as F

from minilpo.lm.pretraining import language_model_loss
from tests.exercises.answers import WrongAnswers, right, wrong

# The causal mask


@right("causal_mask", "comparing places")
def comparing(T):
    place = torch.arange(T)
    return place[None, :] <= place[:, None]


@right("causal_mask", "with loops")
def mask_with_loops(T):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        for j in range(i + 1):
            mask[i, j] = True
    return mask


class CausalMask(WrongAnswers, to="causal_mask"):
    @wrong("rows and columns swapped", "rows and columns are swapped")
    def mask_transposed(T):
        return torch.arange(T)[:, None] <= torch.arange(T)[None, :]

    @wrong("without the diagonal", "a token doesn't see itself")
    def without_diagonal(T):
        return torch.arange(T)[None, :] < torch.arange(T)[:, None]

    @wrong("True where nobody may look", "True and False are swapped")
    def forbidden(T):
        return torch.arange(T)[None, :] > torch.arange(T)[:, None]

    @wrong("one token of the future", "a token sees the one after it")
    def one_ahead(T):
        return torch.arange(T)[None, :] <= torch.arange(T)[:, None] + 1

    @wrong("True everywhere", "every token sees every other")
    def all_true(T):
        return torch.ones(T, T) > 0

    @wrong("the diagonal only", "a token sees nothing but itself")
    def diagonal(T):
        return torch.arange(T)[None, :] == torch.arange(T)[:, None]

    @wrong("zeros and ones", "must have dtype torch.bool, got torch.float32")
    def zeros_and_ones(T):
        return torch.tril(torch.ones(T, T))

    @wrong("a list of lists", "must be a tensor of shape (3, 3), got a Python list")
    def list_of_lists(T):
        return [[j <= i for j in range(T)] for i in range(T)]

    @wrong("always for three tokens", "must have shape (1, 1), got (3, 3)")
    def for_three(T):
        return torch.tensor([[True, False, False], [True, True, False], [True, True, True]])

    @wrong("a batch dimension too many", "must have shape (3, 3), got (1, 3, 3)")
    def mask_of_batch(T):
        return comparing(T)[None]

    @wrong("stops at twelve tokens", "wrong for")
    def short_sighted(T):
        mask = torch.zeros(T, T, dtype=torch.bool)
        for i in range(min(T, 12)):
            mask[i, : i + 1] = True
        return mask


# One head of attention


@right("attention_head", "PyTorch's kernel")
def kernel(queries, keys, values):
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


@right("attention_head", "with loops")
def attention_with_loops(queries, keys, values):
    result = torch.zeros_like(values)
    for i in range(queries.shape[-2]):
        query = queries[..., i : i + 1, :]  # only the keys that it may see
        scores = (query * keys[..., : i + 1, :]).sum(-1) / math.sqrt(queries.shape[-1])
        weights = torch.softmax(scores, dim=-1)
        result[..., i, :] = (weights[..., None] * values[..., : i + 1, :]).sum(-2)
    return result


@right("attention_head", "an additive mask")
def additive(queries, keys, values):
    T, d = queries.shape[-2], queries.shape[-1]
    mask = torch.full((T, T), -torch.inf, dtype=queries.dtype).triu(1)
    scores = torch.einsum("...id,...jd->...ij", queries, keys) / math.sqrt(d) + mask
    return torch.einsum("...ij,...jd->...id", torch.softmax(scores, -1), values)


def attend(queries, keys, values, scale=lambda d: d**-0.5, mask=True):
    scores = queries @ keys.mT * scale(queries.shape[-1])
    if mask:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1).to(scores.dtype)
    return torch.softmax(scores, -1) @ values


# The loss of a response


@right("response_cross_entropy", "F.cross_entropy")
def with_cross_entropy(logits, token_ids, response_mask):
    return F.cross_entropy(logits[response_mask], token_ids[response_mask])


@right("response_cross_entropy", "with loops")
def loss_with_loops(logits, token_ids, response_mask):
    losses = []
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            if response_mask[b, t]:
                row = logits[b, t]
                losses.append(torch.logsumexp(row, dim=0) - row[token_ids[b, t]])
    return torch.stack(losses).mean()


@right("response_cross_entropy", "a weighted mean")
def weighted(logits, token_ids, response_mask):
    losses = per_place(logits, token_ids)
    weights = response_mask.to(logits.dtype)
    return (losses * weights).sum() / weights.sum()


def per_place(logits, token_ids):
    picked = torch.gather(logits, 2, token_ids.unsqueeze(2)).squeeze(2)
    return torch.logsumexp(logits, 2) - picked


class ResponseCrossEntropy(WrongAnswers, to="response_cross_entropy"):
    @wrong("mask ignored", "the mask is ignored")
    def mask_ignored(logits, token_ids, response_mask):
        return F.cross_entropy(logits.flatten(0, 1), token_ids.flatten())

    @wrong("divided by all places", "divided by all B * T places")
    def over_all_places(logits, token_ids, response_mask):
        return (per_place(logits, token_ids) * response_mask).mean()

    @wrong("sum for mean", "the losses are added up")
    def summed(logits, token_ids, response_mask):
        return per_place(logits, token_ids)[response_mask].sum()

    @wrong("mean over responses", "a mean over responses of their means")
    def by_response(logits, token_ids, response_mask):
        losses = per_place(logits, token_ids)
        rows = [losses[b][response_mask[b]].mean() for b in range(len(losses))]
        return torch.stack(rows).mean()

    @wrong("lost sign", "the minus is missing")
    def lost_sign(logits, token_ids, response_mask):
        return -per_place(logits, token_ids)[response_mask].mean()

    @wrong("no log_softmax", "logits are taken for log-probabilities")
    def no_softmax(logits, token_ids, response_mask):
        picked = torch.gather(logits, 2, token_ids[:, :, None])[:, :, 0]
        return -picked[response_mask].mean()

    @wrong("no log", "mean probability, without the log")
    def no_log(logits, token_ids, response_mask):
        return -torch.exp(-per_place(logits, token_ids))[response_mask].mean()

    @wrong("softmax over time", "the softmax runs over time")
    def over_time(logits, token_ids, response_mask):
        picked = torch.gather(logits.log_softmax(1), 2, token_ids[:, :, None])[:, :, 0]
        return -picked[response_mask].mean()

    @wrong("off by one", "tokens are shifted by one place")
    def off_by_one(logits, token_ids, response_mask):
        return per_place(logits[:, :-1], token_ids[:, 1:])[response_mask[:, 1:]].mean()

    @wrong("a log-softmax that overflows", "exp of a large logit is infinite")
    def overflowing(logits, token_ids, response_mask):
        probs = torch.exp(logits)
        picked = logits - torch.log(probs.sum(2, keepdim=True))
        return -torch.gather(picked, 2, token_ids[:, :, None])[:, :, 0][response_mask].mean()

    @wrong("a number for a tensor", "must be a tensor of shape (), got a Python")
    def number(logits, token_ids, response_mask):
        return with_cross_entropy(logits, token_ids, response_mask).item()

    @wrong("not reduced", "must have shape (), got (1,)")
    def not_reduced(logits, token_ids, response_mask):
        return per_place(logits, token_ids)[response_mask]

    @wrong("a broadcast shape", "must have shape (), got (1,)")
    def one_in_a_row(logits, token_ids, response_mask):
        return with_cross_entropy(logits, token_ids, response_mask)[None]

    @wrong("float16", "must have dtype torch.float32, got torch.float16")
    def half(logits, token_ids, response_mask):
        return with_cross_entropy(logits, token_ids, response_mask).half()

    @wrong("the library's own", "calls minilpo's own language_model_loss")
    def from_the_library(logits, token_ids, response_mask):
        return language_model_loss(None, token_ids, response_mask)

    @wrong("indexed with all tokens", "`gather` takes one at each")
    def loss_crossed(logits, token_ids, response_mask):
        logprobs = torch.log_softmax(logits, 2)
        return -logprobs[:, :, token_ids][response_mask].mean()


class AttentionHead(WrongAnswers, to="attention_head"):
    @wrong("no mask", "there is no causal mask")
    def no_mask(queries, keys, values):
        return attend(queries, keys, values, mask=False)

    @wrong("not scaled", "aren't divided by the square root of d")
    def not_scaled(queries, keys, values):
        return attend(queries, keys, values, scale=lambda d: 1.0)

    @wrong("divided by d", "the scores are divided by d")
    def divided_by_d(queries, keys, values):
        return attend(queries, keys, values, scale=lambda d: 1 / d)

    @wrong("times for divided by", "multiplied by the square root of d")
    def times(queries, keys, values):
        return attend(queries, keys, values, scale=lambda d: d**0.5)

    @wrong("masked with 0", "a masked score of 0 still gets weight")
    def zero_scores(queries, keys, values):
        T, d = queries.shape[-2:]
        scores = queries @ keys.mT / d**0.5 * comparing(T)
        return scores.softmax(-1) @ values

    @wrong("mask after the softmax", "the mask comes after the softmax")
    def late_mask(queries, keys, values):
        T, d = queries.shape[-2:]
        return ((queries @ keys.mT / d**0.5).softmax(-1) * comparing(T)) @ values

    @wrong("softmax over the queries", "the softmax runs over the queries")
    def softmax_over_queries(queries, keys, values):
        T, d = queries.shape[-2:]
        scores = (queries @ keys.mT / d**0.5).masked_fill(~comparing(T), -torch.inf)
        return scores.softmax(-2) @ values

    @wrong("swapped pair", "queries and keys are swapped")
    def attention_swapped(queries, keys, values):
        return attend(keys, queries, values)

    @wrong("a mask without the diagonal", "a token doesn't see itself")
    def blind_to_itself(queries, keys, values):
        T, d = queries.shape[-2:]
        seen = torch.ones(T, T).tril(-1) == 1
        return (queries @ keys.mT / d**0.5).masked_fill(~seen, -torch.inf).softmax(-1) @ values

    @wrong("a softmax of its own that overflows", "exp of a large score is infinite")
    def own_softmax(queries, keys, values):
        T, d = queries.shape[-2:]
        weights = torch.exp((queries @ keys.mT / d**0.5).masked_fill(~comparing(T), -torch.inf))
        return (weights / weights.sum(-1, keepdim=True)) @ values

    @wrong("the weights for the result", "must have shape (2, 3), got (2, 2)")
    def weights_only(queries, keys, values):
        T, d = queries.shape[-2:]
        return (queries @ keys.mT / d**0.5).masked_fill(~comparing(T), -torch.inf).softmax(-1)

    @wrong("made for three dimensions only", "it raised IndexError")
    def three_dimensions(queries, keys, values):
        return attend(queries, keys.transpose(1, 2).transpose(1, 2), values)

    @wrong("scales its input in place", "it changes its input in place")
    def in_place(queries, keys, values):
        queries /= queries.shape[-1] ** 0.5
        return attend(queries, keys, values, scale=lambda d: 1.0)

    @wrong("always float32", "must have dtype torch.float64, got torch.float32")
    def in_float32(queries, keys, values):
        return attend(queries.float(), keys.float(), values.float())

    @wrong("an argument ignored", "it ignores its argument `keys`")
    def keys_ignored(queries, keys, values):
        return attend(queries, queries, values)

    @wrong("neither masked nor scaled", "no causal mask, and the scores aren't divided")
    def head_plain(queries, keys, values):
        return (queries @ keys.transpose(-2, -1)).softmax(-1) @ values

    @wrong("the ~ before the mask forgotten", "the mask is turned round")
    def head_mask_turned(queries, keys, values):
        T, d = queries.shape[-2:]
        mask = torch.tril(torch.ones(T, T)).bool()
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(d)
        return scores.masked_fill(mask, -torch.inf).softmax(-1) @ values

    @wrong("the largest score of all set aside", "some numbers are NaN")
    def largest_of_all(queries, keys, values):
        scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
        weights = (scores - scores.amax(-1, keepdim=True)).exp().tril()
        return (weights / weights.sum(-1, keepdim=True)) @ values
