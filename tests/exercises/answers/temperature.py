"""Answers to the exercises of lesson 2."""

import math

import torch
import torch.nn.functional as F

from minilpo.decoding import sampling
from tests.exercises.answers import WRONG, right


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


WRONG["temperature_softmax"] = """
times for divided by | multiplied by the temperature
    return torch.softmax(logits * temperature, dim=-1)
softmax over the first dimension | first dimension
    scaled.exp() / scaled.exp().sum(-1, keepdim=True) -> torch.softmax(logits / temperature, 0)
temperature forgotten | temperature plays no part | return torch.softmax(logits, dim=-1)
not normalised | don't sum to 1
    scaled.exp() / scaled.exp().sum(-1, keepdim=True) -> torch.exp(logits / temperature)
divides by 0 | divided by 0 | return torch.softmax(logits / temperature, dim=-1)
a list instead of a tensor | must be a tensor | return vectorised(logits, temperature).tolist()
a dimension too many | must have shape | return vectorised(logits, temperature)[None]
the library's own | calls minilpo's own token_probs
    return sampling.token_probs(logits, torch.tensor(temperature))
one sum for all rows | all rows together sum to 1
    logits.amax(-1, keepdim=True) -> logits.max()
    scaled.exp().sum(-1, keepdim=True) -> scaled.exp().sum()
log-probabilities | these are the logarithms of the right numbers
    scaled.exp() / scaled.exp().sum(-1, keepdim=True) -> F.log_softmax(logits / temperature, -1)
two mistakes | also, at temperature 0 something is divided by 0
    return torch.softmax(logits.div(temperature), 0)
temperature 0 left for later | which is still there
    if temperature > 0:
        return torch.softmax(logits / temperature, -1)
    raise NotImplementedError
"""


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


WRONG["entropy"] = """
0 log 0 is NaN | 0 times log 0 is NaN | return -(probs * torch.log(probs)).sum(-1)
in bits | it is in bits | return -(probs * probs.clamp(min=1e-30).log2()).sum(-1)
lost sign | the minus is missing | return -entropy_by_entr(probs)
mean for sum | it is the mean over the tokens | return torch.special.entr(probs).mean(-1)
not weighted | weigh it by p | return -torch.where(probs > 0, probs, 1.0).log().mean(-1)
probabilities taken for logits | a softmax is taken of what are probabilities
    return torch.distributions.Categorical(logits=probs.exp().log()).entropy()
perplexity | it is exp of the entropy | return torch.exp(entropy_by_entr(probs))
of the likeliest only | it is -log of the largest probability
    return -torch.log(probs.max(dim=-1).values)
a floor that is too high | wrong for | return -(probs * (probs + 0.01).log()).sum(-1)
wrong axis | must have shape (2,), got (8,)
    return torch.special.entr(probs).sum(0) if probs.ndim > 1 else entropy_by_entr(probs)
one number for all | must have shape (3,), got () | return torch.special.entr(probs).sum()
broadcast shape | must have shape (), got (1,)
    return torch.special.entr(probs).sum(-1, keepdim=True)
a constant | wrong for | return torch.zeros(probs.shape[:-1], dtype=probs.dtype)
a number for a tensor | must be a tensor of shape (), got a Python float
    return float(entropy_by_entr(probs).sum())
always float32 | must have dtype torch.float64, got torch.float32
    return entropy_by_entr(probs).float()
changes zeros in place | it changes its input in place
    probs[probs == 0] = 1.0
    return -(probs * probs.log()).sum(-1)
"""


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


WRONG["draw_token"] = """
>= for > | `exceeds` means >, not >= | right=True -> right=False
not added up | each probability is compared on its own
    return (probs > uniforms[:, None]).int().argmax(-1)
the likeliest | whatever the number is | return torch.argmax(probs, dim=-1)
off by one | one token too far
    return ((probs.cumsum(-1) <= uniforms[:, None]).sum(-1) + 1).clamp(max=probs.shape[1] - 1)
off by one the other way | one token too early
    return ((probs.cumsum(-1) <= uniforms[:, None]).sum(-1) - 1).clamp(min=0)
beyond the last token | the token is V, which doesn't exist
    return torch.searchsorted(probs.cumsum(-1), uniforms[:, None], right=True)[:, 0]
a last token of probability 0 | whose probability may be 0
    sums >= sums[:, -1:] -> torch.arange(sums.shape[1]) == sums.shape[1] - 1
argmax of all False | argmax of all False is 0
    return (probs.cumsum(-1) > uniforms[:, None]).int().argmax(-1)
from right to left | from right to left
    return probs.shape[1] - 1 - draw_with_loops(probs.flip(1), uniforms)
random numbers of its own | PyTorch's random numbers | return torch.multinomial(probs, 1)[:, 0]
numbers turned round | wrong for | return draw_with_loops(probs, 1 - uniforms)
one number for all rows | wrong for
    return draw_with_loops(probs, uniforms[:1].expand(len(uniforms)))
broadcast shape | must have shape (1,), got (1, 1)
    return draw_with_loops(probs, uniforms)[:, None]
int32 | must have dtype torch.int64, got torch.int32 | return draw_with_loops(probs, uniforms).int()
a list | must be a tensor of shape (1,), got a Python list
    return draw_with_loops(probs, uniforms).tolist()
the library's own | calls minilpo's own draw | return sampling.draw(probs, uniforms)
"""
