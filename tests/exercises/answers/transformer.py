"""Answers to the exercises of lesson 1."""

import math

import torch
import torch.nn.functional as F

from minilpo.lm.pretraining import language_model_loss
from tests.exercises.answers import WRONG, right


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


WRONG["causal_mask"] = """
rows and columns swapped | rows and columns are swapped
    return torch.arange(T)[:, None] <= torch.arange(T)[None, :]
without the diagonal | a token doesn't see itself
    return torch.arange(T)[None, :] < torch.arange(T)[:, None]
True where nobody may look | True and False are swapped
    return torch.arange(T)[None, :] > torch.arange(T)[:, None]
one token of the future | a token sees the one after it
    return torch.arange(T)[None, :] <= torch.arange(T)[:, None] + 1
True everywhere | every token sees every other | return torch.ones(T, T) > 0
the diagonal only | a token sees nothing but itself
    return torch.arange(T)[None, :] == torch.arange(T)[:, None]
zeros and ones | must have dtype torch.bool, got torch.float32 | return torch.tril(torch.ones(T, T))
a list of lists | must be a tensor of shape (3, 3), got a Python list
    return [[j <= i for j in range(T)] for i in range(T)]
always for three tokens | must have shape (1, 1), got (3, 3)
    return torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
a batch dimension too many | must have shape (3, 3), got (1, 3, 3) | return comparing(T)[None]
stops at twelve tokens | wrong for | for i in range(T): -> for i in range(min(T, 12)):
"""


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


WRONG["attention_head"] = """
no mask | there is no causal mask | math.sqrt(d) + mask -> math.sqrt(d)
not scaled | aren't divided by the square root of d | / math.sqrt(d) + mask -> + mask
divided by d | the scores are divided by d | / math.sqrt(d) + mask -> / d + mask
times for divided by | multiplied by the square root of d | / math.sqrt(d) + -> * math.sqrt(d) +
masked with 0 | a masked score of 0 still gets weight | + mask -> * (mask == 0)
mask after the softmax | the mask comes after the softmax
    math.sqrt(d) + mask -> math.sqrt(d)
    torch.softmax(scores, -1) -> torch.softmax(scores, -1) * (mask == 0)
softmax over the queries | the softmax runs over the queries | (scores, -1) -> (scores, -2)
swapped pair | queries and keys are swapped | queries, keys) / -> keys, queries) /
a mask without the diagonal | a token doesn't see itself | .triu(1) -> .triu(0)
a softmax of its own that overflows | exp of a large score is infinite
    torch.softmax(scores, -1) -> scores.exp() / scores.exp().sum(-1, keepdim=True)
the weights for the result | must have shape (2, 3), got (2, 2)
    torch.einsum("...ij,...jd->...id", torch.softmax(scores, -1), values) -> scores.softmax(-1)
made for three dimensions only | it raised IndexError
    return kernel(queries, keys.transpose(1, 2).transpose(1, 2), values)
scales its input in place | it changes its input in place
    queries /= queries.shape[-1] ** 0.5
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=1.0)
always float32 | must have dtype torch.float64, got torch.float32
    return kernel(queries.float(), keys.float(), values.float())
an argument ignored | it ignores its argument `keys` | return kernel(queries, queries, values)
neither masked nor scaled | no causal mask, and the scores aren't divided
    return (queries @ keys.transpose(-2, -1)).softmax(-1) @ values
the ~ before the mask forgotten | the mask is turned round | .triu(1) -> .tril()
the largest score of all set aside | some numbers are NaN
    scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp().tril()
    return (weights / weights.sum(-1, keepdim=True)) @ values
"""


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


WRONG["response_cross_entropy"] = """
mask ignored | the mask is ignored
    return F.cross_entropy(logits.flatten(0, 1), token_ids.flatten())
divided by all places | divided by all B * T places
    return (per_place(logits, token_ids) * response_mask).mean()
sum for mean | the losses are added up | return per_place(logits, token_ids)[response_mask].sum()
mean over responses | a mean over responses of their means
    .sum() / weights.sum() -> .sum(1).div(weights.sum(1)).mean()
lost sign | the minus is missing | return -per_place(logits, token_ids)[response_mask].mean()
no log_softmax | logits are taken for log-probabilities | torch.logsumexp(row, dim=0) - row -> -row
no log | mean probability, without the log
    return -torch.exp(-per_place(logits, token_ids))[response_mask].mean()
softmax over time | the softmax runs over time
    picked = torch.gather(logits.log_softmax(1), 2, token_ids[:, :, None])[:, :, 0]
    return -picked[response_mask].mean()
off by one | tokens are shifted by one place
    return per_place(logits[:, :-1], token_ids[:, 1:])[response_mask[:, 1:]].mean()
a log-softmax that overflows | exp of a large logit is infinite
    torch.logsumexp(row, dim=0) -> row.exp().sum().log()
a number for a tensor | must be a tensor of shape (), got a Python
    return with_cross_entropy(logits, token_ids, response_mask).item()
not reduced | must have shape (), got (1,) | return per_place(logits, token_ids)[response_mask]
a broadcast shape | must have shape (), got (1,)
    return with_cross_entropy(logits, token_ids, response_mask)[None]
float16 | must have dtype torch.float32, got torch.float16
    return with_cross_entropy(logits, token_ids, response_mask).half()
the library's own | calls minilpo's own language_model_loss
    return language_model_loss(None, token_ids, response_mask)
indexed with all tokens | `gather` takes one at each
    return -torch.log_softmax(logits, 2)[:, :, token_ids][response_mask].mean()
"""
