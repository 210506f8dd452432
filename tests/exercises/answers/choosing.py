"""Answers to the exercises of lesson 4."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minilpo.decoding import sampling
from minilpo.decoding.choices import Temperatures
from tests.exercises.answers import WrongAnswers, right, wrong

# The head


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
    result = []
    for w, b in zip(weight, bias, strict=True):
        result.append(sum(a * x for a, x in zip(w, row, strict=True)) + b)
    return result


def head(x, layers, *activations):
    for (weight, bias), activation in zip(layers, activations, strict=True):
        x = activation(F.linear(x, weight, bias))
    return x


def same(x):
    return x


class HeadLogits(WrongAnswers, to="head_logits"):
    @wrong("no SiLU", "there is no SiLU between the layers")
    def no_silu(hidden_states, layers):
        return head(hidden_states, layers, same, same, same)

    @wrong("SiLU at the end too", "there is a SiLU after the last layer too")
    def silu_at_the_end(hidden_states, layers):
        return head(hidden_states, layers, F.silu, F.silu, F.silu)

    @wrong("no second SiLU", "SiLU is missing after the second layer")
    def no_second(hidden_states, layers):
        return head(hidden_states, layers, F.silu, same, same)

    @wrong("no first SiLU", "SiLU is missing after the first layer")
    def no_first(hidden_states, layers):
        return head(hidden_states, layers, same, F.silu, same)

    @wrong("ReLU", "ReLU stands where SiLU is asked for")
    def relu(hidden_states, layers):
        return head(hidden_states, layers, torch.relu, torch.relu, same)

    @wrong("GELU", "GELU stands where SiLU is asked for")
    def gelu(hidden_states, layers):
        return head(hidden_states, layers, F.gelu, F.gelu, same)

    @wrong("sigmoid", "sigmoid stands where SiLU is asked for")
    def sigmoid(hidden_states, layers):
        return head(hidden_states, layers, torch.sigmoid, torch.sigmoid, same)

    @wrong("no bias", "the biases are missing")
    def no_bias(hidden_states, layers):
        (w1, _), (w2, _), (w3, _) = layers
        return F.silu(F.silu(hidden_states @ w1.T) @ w2.T) @ w3.T

    @wrong("a softmax at the end", "these are probabilities")
    def softmax_at_the_end(hidden_states, layers):
        return by_linear(hidden_states, layers).softmax(-1)

    @wrong("a log-softmax at the end", "these are log-probabilities")
    def log_softmax_at_the_end(hidden_states, layers):
        return by_linear(hidden_states, layers).log_softmax(-1)

    @wrong("the last layer first", "in the wrong order")
    def last_first(hidden_states, layers):
        return by_linear(hidden_states, list(reversed(layers)))

    @wrong("weights not transposed", "weights aren't transposed")
    def not_transposed(hidden_states, layers):
        (w1, b1), (w2, b2), (w3, b3) = layers
        return F.silu(F.silu(hidden_states @ w1 + b1) @ w2 + b2) @ w3 + b3

    @wrong("takes layers off the list", "it changes its input in place")
    def popping(hidden_states, layers):
        x = hidden_states
        while layers:
            x = F.linear(x, *layers.pop(0))
            x = F.silu(x) if layers else x
        return x

    @wrong("one dimension too many", "must have shape (4,), got (1, 4)")
    def extra_dimension(hidden_states, layers):
        x = by_linear(hidden_states, layers)
        return x[None] if x.ndim == 1 else x

    @wrong("a constant", "wrong for")
    def zeros(hidden_states, layers):
        return torch.zeros_like(by_linear(hidden_states, layers))

    @wrong("bfloat16", "must have dtype torch.float32, got torch.bfloat16")
    def half(hidden_states, layers):
        return by_linear(hidden_states, layers).bfloat16()


# The likeliest temperature


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


# A choice that is drawn


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


class SampledChoice(WrongAnswers, to="sampled_choice"):
    @wrong("the likeliest", "it is the likeliest choice, Eq. 4")
    def likeliest(choice_logits, uniforms):
        return choice_logits.softmax(-1).argmax(-1)

    @wrong("no softmax", "the logits themselves are added up")
    def no_softmax(choice_logits, uniforms):
        return search(choice_logits.cumsum(-1), uniforms)

    @wrong("not added up", "each probability is compared on its own")
    def not_added_up(choice_logits, uniforms):
        return (choice_logits.softmax(-1) > uniforms[:, None]).int().argmax(-1)

    @wrong(">= for >", "`exceeds` means >, not >=")
    def equal_is_enough(choice_logits, uniforms):
        sums = choice_logits.softmax(-1).cumsum(-1)
        return torch.searchsorted(sums, uniforms[:, None])[:, 0].clamp(max=sums.shape[-1] - 1)

    @wrong("off by one", "it is one choice too far")
    def off_by_one(choice_logits, uniforms):
        sums = choice_logits.softmax(-1).cumsum(-1)
        return ((sums <= uniforms[:, None]).sum(-1) + 1).clamp(max=sums.shape[-1] - 1)

    @wrong("from right to left", "from right to left")
    def from_the_right(choice_logits, uniforms):
        return choice_logits.shape[-1] - 1 - by_searching(choice_logits.flip(1), uniforms)

    @wrong("wrong axis", "the softmax runs over the rows")
    def over_rows(choice_logits, uniforms):
        return search(choice_logits.softmax(0).cumsum(-1), uniforms)

    @wrong("choices all alike", "all choices are taken to be equally likely")
    def evenly(choice_logits, uniforms):
        return (uniforms * choice_logits.shape[1]).floor().long()

    @wrong("a softmax that overflows", "exp of a large logit is infinite")
    def overflowing(choice_logits, uniforms):
        weights = torch.exp(choice_logits)
        return search((weights / weights.sum(-1, keepdim=True)).cumsum(-1), uniforms)

    @wrong("random numbers of its own", "PyTorch's random numbers")
    def multinomial(choice_logits, uniforms):
        return torch.multinomial(choice_logits.softmax(-1), 1).squeeze(1)

    @wrong("summed along the rows", "wrong for")
    def summed_along_rows(choice_logits, uniforms):
        return search(choice_logits.softmax(-1).cumsum(0), uniforms)

    @wrong("floats", "must have dtype torch.int64, got torch.float32")
    def floats(choice_logits, uniforms):
        return by_searching(choice_logits, uniforms).float()

    @wrong("broadcast shape", "must have shape (1,), got (1, 1)")
    def column(choice_logits, uniforms):
        return by_searching(choice_logits, uniforms)[:, None]

    @wrong("the library's own", "calls minilpo's own draw")
    def from_the_library(choice_logits, uniforms):
        return sampling.draw(choice_logits.softmax(-1), uniforms)


# The mixture


@right("mixture_probs", "all at once")
def at_once(logits, choice_logits, temperatures):
    taus = torch.tensor(temperatures, dtype=logits.dtype)
    scaled = logits[:, None, :] / taus.where(taus > 0, 1.0)[None, :, None]  # (B, K, V)
    greedy = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)[:, None]
    probs = torch.where((taus > 0)[None, :, None], scaled.softmax(-1), greedy)
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


def at(logits, temperature):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(1, logits.argmax(1)[:, None], 1.0)
    return F.softmax(logits / temperature, dim=1)


def mix(logits, weights, temperatures):
    return sum(weights[:, k : k + 1] * at(logits, t) for k, t in enumerate(temperatures))


class MixtureProbs(WrongAnswers, to="mixture_probs"):
    @wrong("temperatures mixed", "temperatures are mixed, then one softmax is taken")
    def temperatures_mixed(logits, choice_logits, temperatures):
        means = choice_logits.softmax(-1) @ torch.tensor(temperatures).to(logits)
        rows = [at(logits[b : b + 1], means[b].item()) for b in range(len(logits))]
        return torch.cat(rows)

    @wrong("an argument ignored", "every temperature has the same weight")
    def same_weights(logits, choice_logits, temperatures):
        return sum(at(logits, t) for t in temperatures) / len(temperatures)

    @wrong("no softmax of the weights", "the choice logits are the weights")
    def raw_weights(logits, choice_logits, temperatures):
        return mix(logits, choice_logits, temperatures)

    @wrong("wrong axis of the weights", "the softmax of the choice logits runs over the rows")
    def weights_over_rows(logits, choice_logits, temperatures):
        return mix(logits, choice_logits.softmax(0), temperatures)

    @wrong("the likeliest only", "only the likeliest temperature is used")
    def likeliest_only(logits, choice_logits, temperatures):
        best = choice_logits.argmax(-1)
        rows = [at(logits[b : b + 1], temperatures[k]) for b, k in enumerate(best.tolist())]
        return torch.cat(rows)

    @wrong("times for divided by", "the logits are multiplied by the temperature")
    def times(logits, choice_logits, temperatures):
        weights = choice_logits.softmax(-1)
        parts = []
        for k, t in enumerate(temperatures):
            probs = F.softmax(logits * t, dim=-1) if t else at(logits, 0)
            parts.append(weights[:, k, None] * probs)
        return sum(parts)

    @wrong("divides by 0", "at temperature 0 something is divided by 0")
    def divides_by_zero(logits, choice_logits, temperatures):
        taus = torch.tensor(temperatures).to(logits)
        probs = (logits[:, None] / taus[:, None]).softmax(-1)
        return (choice_logits.softmax(-1)[..., None] * probs).sum(1)

    @wrong("divides by Python's 0", "it raised")
    def divides_in_python(logits, choice_logits, temperatures):
        scales = [1 / t for t in temperatures]
        return mix(logits, choice_logits.softmax(-1), [1 / scale for scale in scales])

    @wrong("temperature 0 left out", "temperature 0 is left out")
    def zero_left_out(logits, choice_logits, temperatures):
        weights = choice_logits.softmax(-1)
        mixed = torch.zeros_like(logits)
        for k, t in enumerate(temperatures):
            mixed = mixed + weights[:, k, None] * at(logits, t) * (t > 0)
        return mixed

    @wrong("log-probabilities mixed", "log-probabilities are mixed")
    def logs_mixed(logits, choice_logits, temperatures):
        weights = choice_logits.softmax(-1)
        logs = [at(logits, t).log().clamp(min=-1e4) for t in temperatures]
        return sum(weights[:, k, None] * log for k, log in enumerate(logs)).softmax(-1)

    @wrong("1 in place of 0", "at temperature 0 the softmax at temperature 1 is taken")
    def one_for_zero(logits, choice_logits, temperatures):
        return mix(logits, choice_logits.softmax(-1), [t if t > 0 else 1.0 for t in temperatures])

    @wrong("a distribution per temperature", "must have shape (1, 2), got (1, 2, 2)")
    def not_summed(logits, choice_logits, temperatures):
        return torch.stack([at(logits, t) for t in temperatures], dim=1)

    @wrong("adds up in place", "it changes its input in place")
    def in_place(logits, choice_logits, temperatures):
        mixed = mix(logits, choice_logits.softmax(-1), temperatures)
        return logits.copy_(mixed)

    @wrong("numbers doubled", "wrong for")
    def doubled(logits, choice_logits, temperatures):
        return mix(logits, choice_logits.softmax(-1), temperatures) * 2

    @wrong("the library's own", "calls minilpo's own")
    def library_mixture(logits, choice_logits, temperatures):
        return Temperatures(temperatures).mixture(
            logits, choice_logits.softmax(-1), torch.tensor(0)
        )


class GreedyChoice(WrongAnswers, to="greedy_choice"):
    @wrong("numbers of choices", "these are the numbers of the choices")
    def choice_numbers(choice_logits, temperatures):
        return choice_logits.argmax(-1).to(temperatures)

    @wrong("whole numbers of choices", "must have dtype torch.float32, got torch.int64")
    def choice_ids(choice_logits, temperatures):
        return choice_logits.argmax(-1)

    @wrong("the mean temperature", "it is the mean temperature under the head")
    def mean_temperature(choice_logits, temperatures):
        return choice_logits.to(temperatures).softmax(-1) @ temperatures

    @wrong("lost sign", "it is the least likely choice")
    def least_likely(choice_logits, temperatures):
        return temperatures[(-choice_logits).argmax(-1)]

    @wrong("the highest temperature", "it is the highest temperature in each row")
    def highest(choice_logits, temperatures):
        return temperatures.amax().expand(choice_logits.shape[0]).clone()

    @wrong("the last of equals", "of equal logits it takes the last")
    def last_of_equals(choice_logits, temperatures):
        chosen = []
        for row in choice_logits.tolist():
            chosen.append(temperatures[max(range(len(row)), key=lambda k: (row[k], k))])
        return torch.stack(chosen)

    @wrong("logits times temperatures", "logits are multiplied by temperatures")
    def product(choice_logits, temperatures):
        return temperatures[(choice_logits * temperatures[None]).max(dim=-1).indices]

    @wrong("wrong axis", "it is the likeliest row of each choice")
    def wrong_axis(choice_logits, temperatures):
        return temperatures[torch.argmax(choice_logits, dim=0)]

    @wrong("a broadcast shape", "must have shape (3,), got (3, 1)")
    def keepdim(choice_logits, temperatures):
        return temperatures[choice_logits.argmax(-1, keepdim=True)]

    @wrong("always float32", "must have dtype torch.float64, got torch.float32")
    def float32(choice_logits, temperatures):
        return temperatures[choice_logits.argmax(-1)].float()

    @wrong("right on positive numbers only", "wrong for")
    def positive(choice_logits, temperatures):
        return temperatures[(choice_logits.clamp(min=0)).argmax(-1)]

    @wrong("only the first row", "must have shape (3,), got ()")
    def first_row(choice_logits, temperatures):
        return temperatures[choice_logits[0].argmax()]

    @wrong("the mean, in another dtype", "it is the mean temperature under the head")
    def mean_in_another_dtype(choice_logits, temperatures):
        return choice_logits.softmax(-1) @ temperatures.to(choice_logits.dtype)


@right("head_logits", "nn.Linear with the given weights")
def by_modules(hidden_states, layers):
    modules = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
        modules += [linear, nn.SiLU()]
    return nn.Sequential(*modules[:-1])(hidden_states)
