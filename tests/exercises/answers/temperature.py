"""Answers to the exercises of lesson 2."""

import math

import torch

from tests.exercises.answers import right, wrong


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


@wrong("temperature_softmax", "times for divided by", "multiplied by the temperature")
def times(logits, temperature):
    return torch.softmax(logits * temperature, dim=-1)


@wrong("temperature_softmax", "softmax over the first dimension", "first dimension")
def wrong_axis(logits, temperature):
    if temperature == 0:
        return vectorised(logits, 0)
    return torch.softmax(logits / temperature, dim=0)


@wrong("temperature_softmax", "temperature forgotten", "temperature plays no part")
def forgotten(logits, temperature):
    return torch.softmax(logits, dim=-1)


@wrong("temperature_softmax", "not normalised", "don't sum to 1")
def not_normalised(logits, temperature):
    if temperature == 0:
        return vectorised(logits, 0)
    return torch.exp(logits / temperature)


@wrong("temperature_softmax", "divides by 0", "divided by 0")
def divides_by_zero(logits, temperature):
    return torch.softmax(logits / temperature, dim=-1)


@wrong("temperature_softmax", "a list instead of a tensor", "must be a tensor")
def as_list(logits, temperature):
    return vectorised(logits, temperature).tolist()


@wrong("temperature_softmax", "a dimension too many", "must have shape")
def extra_dimension(logits, temperature):
    return vectorised(logits, temperature)[None]
