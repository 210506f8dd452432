"""Answers to the exercises of lesson 2."""

import math

import torch
import torch.nn.functional as F

from minilpo.decoding import sampling
from tests.exercises.answers import WrongAnswers, right, wrong

# Softmax at a temperature


@right("temperature_softmax", "vectorised")
def vectorised(logits, temperature):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    return scaled.exp() / scaled.exp().sum(-1, keepdim=True)


@right("temperature_softmax", "with loops")
def with_loops(logits, temperature):
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]).tolist():
        largest = max(row)
        if temperature == 0:
            weights = [0.0] * len(row)
            weights[row.index(largest)] = 1.0
        else:
            weights = [math.exp((logit - largest) / temperature) for logit in row]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=logits.dtype).reshape(logits.shape)


# Entropy


@right("entropy", "PyTorch's own")
def entropy_by_entr(probs):
    return torch.special.entr(probs).sum(dim=-1)


@right("entropy", "with loops")
def entropy_with_loops(probs):
    sums = []
    for row in probs.reshape(-1, probs.shape[-1]).tolist():
        sums.append(-sum(p * math.log(p) for p in row if p > 0))
    return torch.tensor(sums, dtype=probs.dtype).reshape(probs.shape[:-1])


@right("entropy", "a floor under the logarithm")
def entropy_clamped(probs):
    return -(probs * probs.clamp(min=1e-30).log()).sum(-1)


class Entropy(WrongAnswers, to="entropy"):
    @wrong("0 log 0 is NaN", "0 times log 0 is NaN")
    def entropy_nan(probs):
        return -(probs * torch.log(probs)).sum(-1)

    @wrong("in bits", "it is in bits")
    def entropy_bits(probs):
        return -(probs * probs.clamp(min=1e-30).log2()).sum(-1)

    @wrong("lost sign", "the minus is missing")
    def entropy_sign(probs):
        return -entropy_by_entr(probs)

    @wrong("mean for sum", "it is the mean over the tokens")
    def entropy_mean(probs):
        return torch.special.entr(probs).mean(-1)

    @wrong("not weighted", "weigh it by p")
    def entropy_not_weighted(probs):
        logs = probs.log()
        logs[probs == 0] = 0.0
        return -logs.mean(-1)

    @wrong("probabilities taken for logits", "a softmax is taken of what are probabilities")
    def entropy_of_logits(probs):
        return torch.distributions.Categorical(logits=probs.exp().log()).entropy()

    @wrong("perplexity", "it is exp of the entropy")
    def perplexity(probs):
        return torch.exp(entropy_by_entr(probs))

    @wrong("of the likeliest only", "it is -log of the largest probability")
    def entropy_of_largest(probs):
        return -torch.log(probs.max(dim=-1).values)

    @wrong("a floor that is too high", "wrong for")
    def entropy_rough(probs):
        return -(probs * (probs + 0.01).log()).sum(-1)

    @wrong("wrong axis", "must have shape (2,), got (8,)")
    def entropy_axis(probs):
        return torch.special.entr(probs).sum(0) if probs.ndim > 1 else entropy_by_entr(probs)

    @wrong("one number for all", "must have shape (3,), got ()")
    def entropy_of_all(probs):
        return torch.special.entr(probs).sum()

    @wrong("broadcast shape", "must have shape (), got (1,)")
    def entropy_keepdim(probs):
        return torch.special.entr(probs).sum(-1, keepdim=True)

    @wrong("a constant", "wrong for")
    def entropy_constant(probs):
        return torch.zeros(probs.shape[:-1], dtype=probs.dtype)

    @wrong("a number for a tensor", "must be a tensor of shape (), got a Python float")
    def entropy_number(probs):
        return float(entropy_by_entr(probs).sum())

    @wrong("always float32", "must have dtype torch.float64, got torch.float32")
    def entropy_float32(probs):
        return entropy_by_entr(probs).float()

    @wrong("changes zeros in place", "it changes its input in place")
    def entropy_in_place(probs):
        probs[probs == 0] = 1.0
        return -(probs * probs.log()).sum(-1)


# Drawing a token


@right("draw_token", "with loops")
def draw_with_loops(probs, uniforms):
    token_ids = []
    for row, uniform in zip(probs.tolist(), uniforms.tolist(), strict=True):
        total, token_id = 0.0, None
        for v, p in enumerate(row):
            total += p
            if p > 0:
                token_id = v  # the last that may be drawn, so far
            if total > uniform:
                break
        token_ids.append(token_id)
    return torch.tensor(token_ids)


@right("draw_token", "searchsorted")
def by_searching(probs, uniforms):
    sums = probs.cumsum(-1)
    sums = torch.where(sums >= sums[:, -1:], torch.inf, sums)  # no number is beyond the last
    return torch.searchsorted(sums, uniforms[:, None], right=True)[:, 0]


class DrawToken(WrongAnswers, to="draw_token"):
    @wrong(">= for >", "`exceeds` means >, not >=")
    def draw_equal(probs, uniforms):
        sums = probs.cumsum(-1)
        sums = torch.where(sums >= sums[:, -1:], torch.inf, sums)
        return torch.searchsorted(sums, uniforms[:, None])[:, 0]

    @wrong("not added up", "each probability is compared on its own")
    def draw_single(probs, uniforms):
        return (probs > uniforms[:, None]).int().argmax(-1)

    @wrong("the likeliest", "whatever the number is")
    def draw_likeliest(probs, uniforms):
        return torch.argmax(probs, dim=-1)

    @wrong("off by one", "one token too far")
    def draw_too_far(probs, uniforms):
        passed = (probs.cumsum(-1) <= uniforms[:, None]).sum(-1)
        return torch.clamp(passed + 1, max=probs.shape[1] - 1)

    @wrong("off by one the other way", "one token too early")
    def draw_too_early(probs, uniforms):
        passed = (probs.cumsum(-1) <= uniforms[:, None]).sum(-1)
        return torch.clamp(passed - 1, min=0)

    @wrong("beyond the last token", "the token is V, which doesn't exist")
    def draw_beyond(probs, uniforms):
        return torch.searchsorted(probs.cumsum(-1), uniforms[:, None], right=True)[:, 0]

    @wrong("a last token of probability 0", "whose probability may be 0")
    def draw_last(probs, uniforms):
        return DrawToken.draw_beyond(probs, uniforms).clamp(max=probs.shape[1] - 1)

    @wrong("argmax of all False", "argmax of all False is 0")
    def draw_none(probs, uniforms):
        return (probs.cumsum(-1) > uniforms[:, None]).int().argmax(-1)

    @wrong("from right to left", "from right to left")
    def draw_reversed(probs, uniforms):
        return probs.shape[1] - 1 - draw_with_loops(probs.flip(1), uniforms)

    @wrong("random numbers of its own", "PyTorch's random numbers")
    def draw_multinomial(probs, uniforms):
        return torch.multinomial(probs, 1)[:, 0]

    @wrong("numbers turned round", "wrong for")
    def draw_turned(probs, uniforms):
        return draw_with_loops(probs, 1 - uniforms)

    @wrong("one number for all rows", "wrong for")
    def draw_same(probs, uniforms):
        return draw_with_loops(probs, uniforms[:1].expand(len(uniforms)))

    @wrong("broadcast shape", "must have shape (1,), got (1, 1)")
    def draw_column(probs, uniforms):
        return draw_with_loops(probs, uniforms)[:, None]

    @wrong("int32", "must have dtype torch.int64, got torch.int32")
    def draw_int(probs, uniforms):
        return draw_with_loops(probs, uniforms).int()

    @wrong("a list", "must be a tensor of shape (1,), got a Python list")
    def draw_list(probs, uniforms):
        return draw_with_loops(probs, uniforms).tolist()

    @wrong("the library's own", "calls minilpo's own draw")
    def draw_library(probs, uniforms):
        return sampling.draw(probs, uniforms)


class TemperatureSoftmax(WrongAnswers, to="temperature_softmax"):
    @wrong("times for divided by", "multiplied by the temperature")
    def times(logits, temperature):
        return torch.softmax(logits * temperature, dim=-1)

    @wrong("softmax over the first dimension", "first dimension")
    def wrong_axis(logits, temperature):
        if temperature == 0:
            return vectorised(logits, 0)
        return torch.softmax(logits / temperature, dim=0)

    @wrong("temperature forgotten", "temperature plays no part")
    def forgotten(logits, temperature):
        return torch.softmax(logits, dim=-1)

    @wrong("not normalised", "don't sum to 1")
    def not_normalised(logits, temperature):
        if temperature == 0:
            return vectorised(logits, 0)
        return torch.exp(logits / temperature)

    @wrong("divides by 0", "divided by 0")
    def divides_by_zero(logits, temperature):
        return torch.softmax(logits / temperature, dim=-1)

    @wrong("a list instead of a tensor", "must be a tensor")
    def as_list(logits, temperature):
        return vectorised(logits, temperature).tolist()

    @wrong("a dimension too many", "must have shape")
    def extra_dimension(logits, temperature):
        return vectorised(logits, temperature)[None]

    @wrong("the library's own", "calls minilpo's own token_probs")
    def library_softmax(logits, temperature):
        return sampling.token_probs(logits, torch.tensor(temperature))

    @wrong("one sum for all rows", "all rows together sum to 1")
    def one_sum(logits, temperature):
        if temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        weights = torch.exp(logits / temperature - (logits / temperature).max())
        return weights / weights.sum()

    @wrong("log-probabilities", "these are the logarithms of the right numbers")
    def logs(logits, temperature):
        if temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        return F.log_softmax(logits / temperature, dim=-1)

    @wrong("two mistakes", "also, at temperature 0 something is divided by 0")
    def two_mistakes(logits, temperature):
        return torch.softmax(logits.div(temperature), 0)

    @wrong("temperature 0 left for later", "which is still there")
    def left_for_later(logits, temperature):
        if temperature > 0:
            return torch.softmax(logits / temperature, -1)
        raise NotImplementedError
