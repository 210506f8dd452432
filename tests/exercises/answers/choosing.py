"""Answers to the exercises of lesson 4."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minilpo.decoding import sampling
from minilpo.decoding.choices import Temperatures
from tests.exercises.answers import WRONG, right


@right("head_logits", "F.linear")
def by_linear(hidden_states, layers):
    x = hidden_states
    for number, (weight, bias) in enumerate(layers):
        x = F.linear(x, weight, bias)
        if number < 2:
            x = x * torch.sigmoid(x)
    return x


@right("head_logits", "with loops")
def head_with_loops(hidden_states, layers):
    rows = hidden_states.reshape(-1, hidden_states.shape[-1]).tolist()
    for number, (weight, bias) in enumerate(layers):
        weight, bias = weight.tolist(), bias.tolist()
        rows = [linear(row, weight, bias) for row in rows]
        if number < 2:
            rows = [[x / (1 + math.exp(-x)) for x in row] for row in rows]
    shape = (*hidden_states.shape[:-1], -1)
    return torch.tensor(rows, dtype=hidden_states.dtype).reshape(shape)


def linear(row, weight, bias):
    return [
        sum(a * x for a, x in zip(w, row, strict=True)) + b
        for w, b in zip(weight, bias, strict=True)
    ]


@right("head_logits", "nn.Linear with the given weights")
def by_modules(hidden_states, layers):
    modules = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
        modules += [linear, nn.SiLU()]
    return nn.Sequential(*modules[:-1])(hidden_states)


WRONG["head_logits"] = """
no SiLU | there is no SiLU between the layers | if number < 2: -> if False:
SiLU at the end too | there is a SiLU after the last layer too | if number < 2: -> if True:
no second SiLU | SiLU is missing after the second layer | if number < 2: -> if number == 0:
no first SiLU | SiLU is missing after the first layer | if number < 2: -> if number == 1:
ReLU | ReLU stands where SiLU is asked for | x * torch.sigmoid(x) -> torch.relu(x)
GELU | GELU stands where SiLU is asked for | x * torch.sigmoid(x) -> F.gelu(x)
sigmoid | sigmoid stands where SiLU is asked for | x * torch.sigmoid(x) -> torch.sigmoid(x)
no bias | the biases are missing | F.linear(x, weight, bias) -> F.linear(x, weight)
a softmax at the end | these are probabilities | return by_linear(hidden_states, layers).softmax(-1)
a log-softmax at the end | these are log-probabilities
    return by_linear(hidden_states, layers).log_softmax(-1)
the last layer first | in the wrong order | return by_linear(hidden_states, list(reversed(layers)))
weights not transposed | weights aren't transposed | F.linear(x, weight, bias) -> x @ weight + bias
takes layers off the list | it changes its input in place
    enumerate(layers) -> enumerate(layers.pop(0) for _ in range(3))
one dimension too many | must have shape (4,), got (1, 4)
    x = by_linear(hidden_states, layers)
    return x[None] if x.ndim == 1 else x
a constant | wrong for | return torch.zeros_like(by_linear(hidden_states, layers))
bfloat16 | must have dtype torch.float32, got torch.bfloat16
    return by_linear(hidden_states, layers).bfloat16()
"""


@right("greedy_choice", "with loops")
def greedy_with_loops(choice_logits, temperatures):
    chosen = []
    for row in choice_logits.tolist():
        chosen.append(temperatures[row.index(max(row))])
    return torch.stack(chosen)


@right("greedy_choice", "one-hot")
def greedy_one_hot(choice_logits, temperatures):
    best = F.one_hot(choice_logits.softmax(-1).argmax(-1), len(temperatures))
    return (best * temperatures).sum(-1)


WRONG["greedy_choice"] = """
numbers of choices | these are the numbers of the choices
    return choice_logits.argmax(-1).to(temperatures)
whole numbers of choices | must have dtype torch.float32, got torch.int64
    return choice_logits.argmax(-1)
the mean temperature | it is the mean temperature under the head
    return choice_logits.to(temperatures).softmax(-1) @ temperatures
lost sign | it is the least likely choice | return temperatures[(-choice_logits).argmax(-1)]
the highest temperature | it is the highest temperature in each row
    return temperatures.amax().expand(choice_logits.shape[0]).clone()
the last of equals | of equal logits it takes the last | row.index -> len(row) - 1 - row[::-1].index
logits times temperatures | logits are multiplied by temperatures
    return temperatures[(choice_logits * temperatures[None]).max(dim=-1).indices]
wrong axis | it is the likeliest row of each choice
    return temperatures[torch.argmax(choice_logits, dim=0)]
a broadcast shape | must have shape (3,), got (3, 1)
    return temperatures[choice_logits.argmax(-1, keepdim=True)]
always float32 | must have dtype torch.float64, got torch.float32
    return temperatures[choice_logits.argmax(-1)].float()
right on positive numbers only | wrong for
    return temperatures[(choice_logits.clamp(min=0)).argmax(-1)]
only the first row | must have shape (3,), got () | return temperatures[choice_logits[0].argmax()]
the mean, in another dtype | it is the mean temperature under the head
    return choice_logits.softmax(-1) @ temperatures.to(choice_logits.dtype)
"""


@right("sampled_choice", "with loops")
def sampled_with_loops(choice_logits, uniforms):
    choices = []
    for row, uniform in zip(choice_logits.tolist(), uniforms.tolist(), strict=True):
        weights = [math.exp(logit - max(row)) for logit in row]
        total, k = weights[0], 0
        while total <= uniform * sum(weights) and k < len(row) - 1:
            k += 1
            total += weights[k]
        choices.append(k)
    return torch.tensor(choices)


@right("sampled_choice", "searchsorted")
def by_searching(choice_logits, uniforms):
    sums = F.softmax(choice_logits, dim=-1).cumsum(-1)
    place = torch.searchsorted(sums, uniforms[:, None], right=True).squeeze(-1)
    return place.clamp(max=sums.shape[-1] - 1)


def search(sums, uniforms):
    return (sums <= uniforms[:, None]).sum(-1).clamp(max=sums.shape[-1] - 1)


WRONG["sampled_choice"] = """
the likeliest | it is the likeliest choice, Eq. 4 | return choice_logits.softmax(-1).argmax(-1)
no softmax | the logits themselves are added up | return search(choice_logits.cumsum(-1), uniforms)
not added up | each probability is compared on its own
    return (choice_logits.softmax(-1) > uniforms[:, None]).int().argmax(-1)
>= for > | `exceeds` means >, not >= | right=True -> right=False
off by one | it is one choice too far | return place.clamp -> return (place + 1).clamp
from right to left | from right to left
    return choice_logits.shape[-1] - 1 - by_searching(choice_logits.flip(1), uniforms)
wrong axis | the softmax runs over the rows | dim=-1 -> dim=0
choices all alike | all choices are taken to be equally likely
    return (uniforms * choice_logits.shape[1]).floor().long()
a softmax that overflows | exp of a large logit is infinite
    weights = torch.exp(choice_logits)
    return search((weights / weights.sum(-1, keepdim=True)).cumsum(-1), uniforms)
random numbers of its own | PyTorch's random numbers
    return torch.multinomial(choice_logits.softmax(-1), 1).squeeze(1)
summed along the rows | wrong for | return search(choice_logits.softmax(-1).cumsum(0), uniforms)
floats | must have dtype torch.int64, got torch.float32
    return by_searching(choice_logits, uniforms).float()
broadcast shape | must have shape (1,), got (1, 1)
    return by_searching(choice_logits, uniforms)[:, None]
the library's own | calls minilpo's own draw
    return sampling.draw(choice_logits.softmax(-1), uniforms)
"""


@right("mixture_probs", "all at once")
def at_once(logits, choice_logits, temperatures):
    taus = torch.tensor(temperatures, dtype=logits.dtype)[:, None]  # (K, 1)
    scaled = logits[:, None] / taus.where(taus > 0, 1.0)  # (B, K, V)
    greedy = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)[:, None]
    probs = torch.where(taus > 0, scaled.softmax(-1), greedy)
    return torch.einsum("bk,bkv->bv", choice_logits.softmax(-1), probs)


@right("mixture_probs", "with loops")
def mixture_with_loops(logits, choice_logits, temperatures):
    rows = []
    for row, weights in zip(logits.tolist(), choice_logits.softmax(-1).tolist(), strict=True):
        mixed = [0.0] * len(row)
        for weight, temperature in zip(weights, temperatures, strict=True):
            if temperature == 0:
                mixed[row.index(max(row))] += weight
                continue
            exps = [math.exp((logit - max(row)) / temperature) for logit in row]
            for v, value in enumerate(exps):
                mixed[v] += weight * value / sum(exps)
        rows.append(mixed)
    return torch.tensor(rows, dtype=logits.dtype)


WRONG["mixture_probs"] = """
temperatures mixed | temperatures are mixed, then one softmax is taken
    means = choice_logits.softmax(-1) @ torch.tensor(temperatures).to(logits)
    rows = zip(logits, means.tolist(), strict=True)
    return torch.cat([at_once(row[None], choice_logits[:1, :1], [mean]) for row, mean in rows])
an argument ignored | every temperature has the same weight
    choice_logits.softmax(-1) -> torch.full_like(choice_logits, 1 / len(temperatures))
no softmax of the weights | the choice logits are the weights
    choice_logits.softmax(-1) -> choice_logits
wrong axis of the weights | the softmax of the choice logits runs over the rows
    choice_logits.softmax(-1) -> choice_logits.softmax(0)
the likeliest only | only the likeliest temperature is used
    choice_logits.softmax(-1) -> F.one_hot(choice_logits.argmax(-1), len(taus)).to(logits)
times for divided by | the logits are multiplied by the temperature
    / taus.where(taus > 0, 1.0) -> * taus
divides by 0 | at temperature 0 something is divided by 0
    torch.where(taus > 0, scaled.softmax(-1), greedy) -> (logits[:, None] / taus).softmax(-1)
divides by Python's 0 | it raised
    return at_once(logits, choice_logits, [1 / (1 / t) for t in temperatures])
temperature 0 left out | temperature 0 is left out | greedy) -> 0.0)
log-probabilities mixed | log-probabilities are mixed
    greedy) -> greedy).log().clamp(min=-1e4)
    choice_logits.softmax(-1), probs) -> choice_logits.softmax(-1), probs).softmax(-1)
1 in place of 0 | at temperature 0 the softmax at temperature 1 is taken
    torch.where(taus > 0, -> torch.where(taus >= 0,
a distribution per temperature | must have shape (1, 2), got (1, 2, 2)
    torch.einsum("bk,bkv->bv", choice_logits.softmax(-1), probs) -> probs
adds up in place | it changes its input in place
    return logits.copy_(at_once(logits, choice_logits, temperatures))
numbers doubled | wrong for | return at_once(logits, choice_logits, temperatures) * 2
the library's own | calls minilpo's own
    return Temperatures(temperatures).mixture(logits, choice_logits.softmax(-1), torch.tensor(0))
"""
