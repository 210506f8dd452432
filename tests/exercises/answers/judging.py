"""Answers to the exercises of lesson 7."""

import random

import torch
import torch.nn.functional as F

from tests.exercises.answers import WRONG, right


def mean_loss(weight, hidden_states, chosen_ids, rejected_ids, batch, beta):
    logits = hidden_states[batch] @ weight.T
    rows = torch.arange(len(batch))
    margin = logits[rows, chosen_ids[batch]] - logits[rows, rejected_ids[batch]]
    return F.softplus(-beta * margin).mean()


@right("lpo_epoch", "with PyTorch's SGD")
def lpo_epoch(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
    trained = weight.clone().requires_grad_()
    optimizer = torch.optim.SGD([trained], lr=learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        mean_loss(trained, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
        optimizer.step()
    return trained.detach()


@right("lpo_epoch", "with loops")
def lpo_epoch_with_loops(
    weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
):
    weight = weight.clone()
    for batch in batches:
        step = torch.zeros_like(weight)
        for p in batch.tolist():
            h, c, r = hidden_states[p], chosen_ids[p], rejected_ids[p]
            pull = beta * torch.sigmoid(-beta * (h @ weight[c] - h @ weight[r]))
            step[c] += pull * h
            step[r] -= pull * h
        weight += learning_rate * step / len(batch)
    return weight


WRONG["lpo_epoch"] = """
uphill | it goes uphill | weight += learning_rate -> weight -= learning_rate
chosen and rejected swapped | are chosen and rejected swapped?
    chosen_ids, rejected_ids, batch, beta) -> rejected_ids, chosen_ids, batch, beta)
sum for mean | the loss of a batch is the sum over its pairs | * step / len(batch) -> * step
all gradients at the start | every gradient is taken at the first weight
    weight = weight.clone() -> first, weight = weight, weight.clone()
    h @ weight[c] - h @ weight[r] -> h @ first[c] - h @ first[r]
zero_grad forgotten | the gradients of the batches add up | optimizer.zero_grad() -> pass
batches not used | all pairs are taken in every step
    batch, beta -> torch.arange(len(chosen_ids)), beta
one big step | only one step is taken | in batches: -> in [torch.cat(batches)] if batches else []:
return inside the loop | is the return inside the loop? | batch in batches: -> batch in batches[:1]:
the last batch first | from the last to the first | batch in batches: -> batch in reversed(batches):
steps on the weight that was passed | changes its input in place
    weight = weight.clone() -> weight = weight.detach()
beta forgotten | it ignores its argument `beta` | batch, beta) -> batch, 1.0)
the weight turned | must have shape (2, 3), got (3, 2) | trained.detach() -> trained.detach().T
nothing returned | does the function end without return? | return trained.detach -> trained.detach
no .grad after a step | PyTorch keeps no .grad for it
    weight = weight.clone().requires_grad_()
    for batch in batches:
        mean_loss(weight, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
        weight = weight - weight.grad * learning_rate
    return weight
"""


@right("win_rate", "by the sign")
def win_rate(rewards, other):
    return float(((rewards - other).sign() + 1).mean()) / 2


@right("win_rate", "with loops")
def win_rate_with_loops(rewards, other):
    points = 0.0
    for mine, theirs in zip(rewards.tolist(), other.tolist(), strict=True):
        if mine > theirs:
            points += 1
        elif mine == theirs:
            points += 0.5
    return points / len(rewards)


WRONG["win_rate"] = """
ties lose | ties get no point | points += 0.5 -> points += 0
ties win | ties get a whole point | points += 0.5 -> points += 1
ties left out | ties are left out
    wins, losses = (rewards > other).sum(), (rewards < other).sum()
    return (wins / (wins + losses)).item()
ties left out, in Python | it raised ZeroDivisionError
    wins, losses = (rewards > other).sum().item(), (rewards < other).sum().item()
    return wins / (wins + losses)
of the other | it is the win-rate of the other | return 1 - win_rate(rewards, other)
a sum | aren't divided by the number of prompts | return win_rate(rewards, other) * len(other)
the mean difference | count who wins, not by how much
    return rewards.mean().item() - other.mean().item()
wins minus losses | a win-rate lies between 0 and 1 | return (rewards - other).sign().mean().item()
a tensor | .item() makes a number of it
    return ((rewards > other) + 0.5 * (rewards == other)).mean()
prompt by prompt | must be a Python float, got a tensor | return ((rewards - other).sign() + 1) / 2
a half | it says the same whatever it is given | return 0.5
in percent | every number is 100 times the right one | return 100 * win_rate(rewards, other)
"""


@right("paired_bootstrap", "by counting how often each is drawn")
def paired_bootstrap(differences, n_resamples, generator):
    P = len(differences)
    even = torch.ones(n_resamples, P)
    picks = torch.multinomial(even, P, replacement=True, generator=generator)
    means = torch.stack([(picks == p).sum(1) * differences[p] for p in range(P)]).sum(0) / P
    low, high = means.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(low), float(high)


@right("paired_bootstrap", "with loops")
def paired_bootstrap_with_loops(differences, n_resamples, generator):
    means = []
    for _ in range(n_resamples):
        picks = torch.randint(len(differences), (len(differences),), generator=generator)
        means.append(differences[picks].mean().item())
    means.sort()
    return means[int(0.025 * n_resamples)], means[min(int(0.975 * n_resamples), n_resamples - 1)]


def resampled(differences, n_resamples, generator, size=None):
    P = len(differences)
    uniforms = torch.rand(n_resamples, size or P, generator=generator)
    return differences[(uniforms * P).long().clamp(max=P - 1)]


def interval(means, low=0.025, high=0.975):
    return means.quantile(low).item(), means.quantile(high).item()


WRONG["paired_bootstrap"] = """
without replacement | it is drawn without replacement
    order = torch.rand(n_resamples, len(differences), generator=generator).argsort(1)
    return interval(differences[order].mean(1), 0.0, 1.0)
of single differences | these are percentiles of single differences
    return interval(resampled(differences, n_resamples, generator, size=1)[:, 0])
the 90% interval | it is the 90% interval
    return interval(resampled(differences, n_resamples, generator).mean(1), 0.05, 0.95)
the percentiles 25 and 75 | 2.5% is 0.025
    return interval(resampled(differences, n_resamples, generator).mean(1), 0.25, 0.75)
the extremes | it is the smallest and the largest mean
    picks = torch.randint(len(differences), (n_resamples, len(differences)), generator=generator)
    return interval(differences[picks].mean(1), 0.0, 1.0)
high before low | the upper bound comes first
    return interval(resampled(differences, n_resamples, generator).mean(1), 0.975, 0.025)
sum for mean | the resamples are added up
    return interval(resampled(differences, n_resamples, generator).sum(1))
1.96 standard errors | plus and minus 1.96 standard errors
    means = resampled(differences, n_resamples, generator).mean(1)
    half = 1.96 * means.std(correction=0)
    return (means.mean() - half).item(), (means.mean() + half).item()
1.96 standard errors, nothing drawn | doesn't draw from the generator
    half = 1.96 * differences.std() / len(differences) ** 0.5
    return (differences.mean() - half).item(), (differences.mean() + half).item()
around 0 | the interval lies around 0
    return interval(resampled(differences - differences.mean(), n_resamples, generator).mean(1))
half as many | a resample has another size
    size = max(len(differences) // 2, 1)
    return interval(resampled(differences, n_resamples, generator, size).mean(1))
a thousand always | it ignores its argument `n_resamples`
    return interval(resampled(differences, 1000, generator).mean(1))
PyTorch's own random numbers | PyTorch's random numbers
    return interval(resampled(differences, n_resamples, None).mean(1))
a seed of its own | it doesn't draw from the generator
    other = torch.Generator().manual_seed(0)
    return interval(resampled(differences, n_resamples, other).mean(1))
Python's random numbers | Python's random numbers
    values = differences.tolist()
    means = sorted(sum(random.choices(values, k=len(values))) for _ in range(20))
    return means[0], means[-1]
a list | must be a tuple of 2
    return list(interval(resampled(differences, n_resamples, generator).mean(1)))
two tensors | .item() makes a number of it
    means = resampled(differences, n_resamples, generator).mean(1)
    return means.quantile(0.025), means.quantile(0.975)
a resample too small | a resample has one difference too few
    size = max(len(differences) - 1, 1)
    return interval(resampled(differences, n_resamples, generator, size).mean(1))
a quarter of the resamples | there are too few resamples
    return interval(resampled(differences, max(1, n_resamples // 4), generator).mean(1))
never the last prompt | one prompt is never drawn
    P = len(differences)
    return interval(resampled(differences[: max(1, P - 1)], n_resamples, generator, P).mean(1))
half of the prompts | half of the prompts are drawn without replacement
    order = torch.rand(n_resamples, len(differences), generator=generator).argsort(1)
    return interval(differences[order[:, : max(1, len(differences) // 2)]].mean(1))
"""


@right("shuffled_gain", "with gather")
def shuffled_gain(rewards, choice_ids, generator):
    P, K = rewards.shape
    permutation = torch.randperm(P, generator=generator)
    ids = torch.stack([choice_ids, choice_ids[permutation]], dim=1)  # (P, 2)
    own, shuffled = rewards.gather(1, ids).double().mean(0).tolist()
    return own - shuffled


@right("shuffled_gain", "with loops")
def shuffled_gain_with_loops(rewards, choice_ids, generator):
    permutation = torch.randperm(len(choice_ids), generator=generator).tolist()
    table, ids = rewards.tolist(), choice_ids.tolist()
    gain = 0.0
    for p, q in enumerate(permutation):
        gain += table[p][ids[p]] - table[p][ids[q]]
    return gain / len(table)


WRONG["shuffled_gain"] = """
sign lost | the sign is turned | return own - shuffled -> return shuffled - own
rewards and choices shuffled | are shuffled alike
    own - shuffled -> own - rewards[permutation].gather(1, ids).double().mean(0)[1].item()
rewards shuffled | the rewards are shuffled
    own - shuffled -> own - rewards[permutation].gather(1, ids).double().mean(0)[0].item()
nothing subtracted | nothing is subtracted | return own - shuffled -> return own
the shuffled ones alone | subtract it from the head's own | return own - shuffled -> return shuffled
choices drawn anew | choices are drawn anew
    torch.randperm(P, -> torch.randint(K, (P,),
    choice_ids[permutation] -> permutation
with replacement | choices are drawn with replacement | torch.randperm(P, -> torch.randint(P, (P,),
sum for mean | it is the sum over the prompts | .mean(0).tolist() -> .sum(0).tolist()
another generator | it doesn't draw from the generator
    generator=generator -> generator=torch.Generator().manual_seed(1)
a seed set globally | something that belongs to everybody
    generator=generator -> generator=torch.manual_seed(0)
a tensor | .item() makes a number of it | own - shuffled -> torch.tensor(own - shuffled)
the best choices | wrong for | return own - -> return rewards.amax(1).mean().item() -
rows for columns | `rewards[ids]` takes whole rows
    order = torch.randperm(len(choice_ids), generator=generator)
    return float(rewards[choice_ids].mean() - rewards[choice_ids[order]].mean())
all columns | `rewards[:, ids]` takes every prompt's choice
    order = torch.randperm(len(choice_ids), generator=generator)
    return float(rewards[:, choice_ids].mean() - rewards[:, choice_ids[order]].mean())
"""
