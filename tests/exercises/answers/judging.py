"""Answers to the exercises of lesson 7."""

import random

import torch
import torch.nn.functional as F

from tests.exercises.answers import WrongAnswers, right, wrong

# lpo_epoch


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


# win_rate


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


# paired_bootstrap


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


# shuffled_gain


@right("shuffled_gain", "with gather")
def shuffled_gain(rewards, choice_ids, generator):
    other_ids = choice_ids[torch.randperm(len(choice_ids), generator=generator)]
    ids = torch.stack([choice_ids, other_ids], dim=1)
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


def dealt(rewards, choice_ids):
    return rewards.gather(1, choice_ids[:, None]).mean().item()


class PairedBootstrap(WrongAnswers, to="paired_bootstrap"):
    @wrong("without replacement", "it is drawn without replacement")
    def bootstrap_without_replacement(differences, n_resamples, generator):
        means = []
        for _ in range(n_resamples):
            order = torch.randperm(len(differences), generator=generator)
            means.append(differences[order].mean().item())
        return min(means), max(means)

    @wrong("of single differences", "these are percentiles of single differences")
    def bootstrap_of_single(differences, n_resamples, generator):
        picked = resampled(differences, n_resamples, generator, size=1)[:, 0]
        return picked.quantile(0.025).item(), picked.quantile(0.975).item()

    @wrong("the 90% interval", "it is the 90% interval")
    def bootstrap_ninety(differences, n_resamples, generator):
        means = resampled(differences, n_resamples, generator).mean(1)
        return means.quantile(0.05).item(), means.quantile(0.95).item()

    @wrong("the percentiles 25 and 75", "2.5% is 0.025")
    def bootstrap_half(differences, n_resamples, generator):
        means = resampled(differences, n_resamples, generator).mean(1)
        return means.quantile(0.25).item(), means.quantile(0.75).item()

    @wrong("the extremes", "it is the smallest and the largest mean")
    def bootstrap_extremes(differences, n_resamples, generator):
        means = differences[
            torch.randint(len(differences), (n_resamples, len(differences)), generator=generator)
        ].mean(1)
        return means.min().item(), means.max().item()

    @wrong("high before low", "the upper bound comes first")
    def bootstrap_turned(differences, n_resamples, generator):
        low, high = paired_bootstrap(differences, n_resamples, generator)
        return high, low

    @wrong("sum for mean", "the resamples are added up")
    def bootstrap_sums(differences, n_resamples, generator):
        totals = resampled(differences, n_resamples, generator).sum(1)
        return totals.quantile(0.025).item(), totals.quantile(0.975).item()

    @wrong("1.96 standard errors", "plus and minus 1.96 standard errors")
    def bootstrap_normal(differences, n_resamples, generator):
        means = resampled(differences, n_resamples, generator).mean(1)
        half = 1.96 * means.std(correction=0)
        return (means.mean() - half).item(), (means.mean() + half).item()

    @wrong("1.96 standard errors, nothing drawn", "doesn't draw from the generator")
    def bootstrap_without_drawing(differences, n_resamples, generator):
        half = 1.96 * differences.std() / len(differences) ** 0.5
        return (differences.mean() - half).item(), (differences.mean() + half).item()

    @wrong("around 0", "the interval lies around 0")
    def bootstrap_centred(differences, n_resamples, generator):
        low, high = paired_bootstrap(differences, n_resamples, generator)
        return low - differences.mean().item(), high - differences.mean().item()

    @wrong("half as many", "a resample has another size")
    def bootstrap_half_size(differences, n_resamples, generator):
        size = max(len(differences) // 2, 1)
        means = resampled(differences, n_resamples, generator, size).mean(1)
        return means.quantile(0.025).item(), means.quantile(0.975).item()

    @wrong("a thousand always", "it ignores its argument `n_resamples`")
    def bootstrap_thousand(differences, n_resamples, generator):
        return paired_bootstrap(differences, 1000, generator)

    @wrong("PyTorch's own random numbers", "PyTorch's random numbers")
    def bootstrap_global(differences, n_resamples, generator):
        means = differences[torch.randint(len(differences), (n_resamples, len(differences)))].mean(
            1
        )
        return means.quantile(0.025).item(), means.quantile(0.975).item()

    @wrong("a seed of its own", "it doesn't draw from the generator")
    def bootstrap_own_seed(differences, n_resamples, generator):
        return paired_bootstrap(differences, n_resamples, torch.Generator().manual_seed(0))

    @wrong("Python's random numbers", "Python's random numbers")
    def bootstrap_of_python(differences, n_resamples, generator):
        values = differences.tolist()
        means = sorted(sum(random.choices(values, k=len(values))) for _ in range(20))
        return means[0], means[-1]

    @wrong("a list", "must be a tuple of 2")
    def bootstrap_list(differences, n_resamples, generator):
        return list(paired_bootstrap(differences, n_resamples, generator))

    @wrong("two tensors", ".item() makes a number of it")
    def bootstrap_tensors(differences, n_resamples, generator):
        low, high = paired_bootstrap(differences, n_resamples, generator)
        return torch.tensor(low), torch.tensor(high)

    @wrong("a resample too small", "a resample has one difference too few")
    def bootstrap_one_less(differences, n_resamples, generator):
        size = max(len(differences) - 1, 1)
        means = resampled(differences, n_resamples, generator, size).mean(1)
        return means.quantile(0.025).item(), means.quantile(0.975).item()

    @wrong("a quarter of the resamples", "there are too few resamples")
    def bootstrap_quarter(differences, n_resamples, generator):
        return paired_bootstrap(differences, max(1, n_resamples // 4), generator)

    @wrong("never the last prompt", "one prompt is never drawn")
    def bootstrap_never_the_last(differences, n_resamples, generator):
        P = len(differences)
        means = resampled(differences[: max(1, P - 1)], n_resamples, generator, P).mean(1)
        return means.quantile(0.025).item(), means.quantile(0.975).item()

    @wrong("half of the prompts", "half of the prompts are drawn without replacement")
    def bootstrap_half_of_them(differences, n_resamples, generator):
        n = max(1, len(differences) // 2)
        orders = [
            torch.randperm(len(differences), generator=generator)[:n] for _ in range(n_resamples)
        ]
        means = differences[torch.stack(orders)].mean(1)
        return means.quantile(0.025).item(), means.quantile(0.975).item()


class WinRate(WrongAnswers, to="win_rate"):
    @wrong("ties lose", "ties get no point")
    def wins_only(rewards, other):
        return sum(rewards.gt(other).tolist()) / len(rewards)

    @wrong("ties win", "ties get a whole point")
    def wins_and_ties(rewards, other):
        return sum(rewards.ge(other).tolist()) / len(rewards)

    @wrong("ties left out", "ties are left out")
    def wins_of_decided(rewards, other):
        wins, losses = (rewards > other).sum(), (rewards < other).sum()
        return (wins / (wins + losses)).item()

    @wrong("ties left out, in Python", "it raised ZeroDivisionError")
    def wins_of_decided_in_python(rewards, other):
        wins, losses = (rewards > other).sum().item(), (rewards < other).sum().item()
        return wins / (wins + losses)

    @wrong("of the other", "it is the win-rate of the other")
    def wins_of_other(rewards, other):
        return 1 - win_rate(rewards, other)

    @wrong("a sum", "aren't divided by the number of prompts")
    def wins_summed(rewards, other):
        return win_rate(rewards, other) * len(other)

    @wrong("the mean difference", "count who wins, not by how much")
    def wins_by_how_much(rewards, other):
        return rewards.mean().item() - other.mean().item()

    @wrong("wins minus losses", "a win-rate lies between 0 and 1")
    def wins_net(rewards, other):
        return (rewards - other).sign().mean().item()

    @wrong("a tensor", ".item() makes a number of it")
    def wins_as_tensor(rewards, other):
        return ((rewards > other) + 0.5 * (rewards == other)).mean()

    @wrong("prompt by prompt", "must be a Python float, got a tensor")
    def wins_per_prompt(rewards, other):
        return (rewards > other) + 0.5 * (rewards == other)

    @wrong("a half", "it says the same whatever it is given")
    def wins_half(rewards, other):
        return 0.5

    @wrong("in percent", "every number is 100 times the right one")
    def in_percent(rewards, other):
        return 100 * win_rate(rewards, other)


class ShuffledGain(WrongAnswers, to="shuffled_gain"):
    @wrong("sign lost", "the sign is turned")
    def shuffled_sign(rewards, choice_ids, generator):
        return -shuffled_gain(rewards, choice_ids, generator)

    @wrong("rewards and choices shuffled", "are shuffled alike")
    def shuffled_both(rewards, choice_ids, generator):
        permutation = torch.randperm(len(rewards), generator=generator)
        shuffled = rewards[permutation].gather(1, choice_ids[permutation][:, None]).double().mean()
        return rewards.gather(1, choice_ids[:, None]).double().mean().item() - shuffled.item()

    @wrong("rewards shuffled", "the rewards are shuffled")
    def shuffled_rewards(rewards, choice_ids, generator):
        permutation = torch.randperm(len(rewards), generator=generator)
        return dealt(rewards, choice_ids) - dealt(rewards[permutation], choice_ids)

    @wrong("nothing subtracted", "nothing is subtracted")
    def shuffled_nothing(rewards, choice_ids, generator):
        torch.randperm(len(rewards), generator=generator)
        return dealt(rewards, choice_ids)

    @wrong("the shuffled ones alone", "subtract it from the head's own")
    def shuffled_alone(rewards, choice_ids, generator):
        return dealt(rewards, choice_ids[torch.randperm(len(rewards), generator=generator)])

    @wrong("choices drawn anew", "choices are drawn anew")
    def shuffled_anew(rewards, choice_ids, generator):
        other = torch.randint(rewards.shape[1], choice_ids.shape, generator=generator)
        return dealt(rewards, choice_ids) - dealt(rewards, other)

    @wrong("with replacement", "choices are drawn with replacement")
    def shuffled_with_replacement(rewards, choice_ids, generator):
        P = len(choice_ids)
        other = choice_ids[torch.randint(P, (P,), generator=generator)]
        return dealt(rewards, choice_ids) - dealt(rewards, other)

    @wrong("sum for mean", "it is the sum over the prompts")
    def shuffled_sum(rewards, choice_ids, generator):
        return shuffled_gain(rewards, choice_ids, generator) * len(rewards)

    @wrong("another generator", "it doesn't draw from the generator")
    def shuffled_elsewhere(rewards, choice_ids, generator):
        return shuffled_gain(rewards, choice_ids, torch.Generator().manual_seed(1))

    @wrong("a seed set globally", "something that belongs to everybody")
    def shuffled_globally(rewards, choice_ids, generator):
        torch.manual_seed(0)
        return dealt(rewards, choice_ids) - dealt(rewards, choice_ids[torch.randperm(len(rewards))])

    @wrong("a tensor", ".item() makes a number of it")
    def shuffled_tensor(rewards, choice_ids, generator):
        return torch.tensor(shuffled_gain(rewards, choice_ids, generator))

    @wrong("the best choices", "wrong for")
    def shuffled_best(rewards, choice_ids, generator):
        other = choice_ids[torch.randperm(len(rewards), generator=generator)]
        return rewards.amax(1).mean().item() - dealt(rewards, other)

    @wrong("rows for columns", "`rewards[ids]` takes whole rows")
    def rows_for_columns(rewards, choice_ids, generator):
        order = torch.randperm(len(choice_ids), generator=generator)
        return float(rewards[choice_ids].mean() - rewards[choice_ids[order]].mean())

    @wrong("all columns", "`rewards[:, ids]` takes every prompt's choice")
    def all_columns(rewards, choice_ids, generator):
        order = torch.randperm(len(choice_ids), generator=generator)
        return float(rewards[:, choice_ids].mean() - rewards[:, choice_ids[order]].mean())


class LpoEpoch(WrongAnswers, to="lpo_epoch"):
    @wrong("uphill", "it goes uphill")
    def epoch_uphill(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        return lpo_epoch_with_loops(
            weight, hidden_states, chosen_ids, rejected_ids, batches, beta, -learning_rate
        )

    @wrong("chosen and rejected swapped", "are chosen and rejected swapped?")
    def epoch_swapped(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        return lpo_epoch(
            weight, hidden_states, rejected_ids, chosen_ids, batches, beta, learning_rate
        )

    @wrong("sum for mean", "the loss of a batch is the sum over its pairs")
    def epoch_sum(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        trained = weight.clone().requires_grad_()
        for batch in batches:
            loss = mean_loss(trained, hidden_states, chosen_ids, rejected_ids, batch, beta)
            (loss * len(batch)).backward()
            with torch.no_grad():
                trained -= learning_rate * trained.grad
            trained.grad = None
        return trained.detach()

    @wrong("all gradients at the start", "every gradient is taken at the first weight")
    def epoch_at_start(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        trained = weight.clone().requires_grad_()
        for batch in batches:
            mean_loss(trained, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
        return weight if trained.grad is None else weight - learning_rate * trained.grad

    @wrong("zero_grad forgotten", "the gradients of the batches add up")
    def epoch_accumulated(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        trained = weight.clone().requires_grad_()
        optimizer = torch.optim.SGD([trained], lr=learning_rate)
        for batch in batches:
            mean_loss(trained, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
            optimizer.step()
        return trained.detach()

    @wrong("batches not used", "all pairs are taken in every step")
    def epoch_of_all(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        everything = torch.arange(len(chosen_ids))
        whole = [everything] * len(batches)
        return lpo_epoch(
            weight, hidden_states, chosen_ids, rejected_ids, whole, beta, learning_rate
        )

    @wrong("one big step", "only one step is taken")
    def epoch_one_step(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        if not batches:
            return weight
        together = [torch.cat(batches)]
        return lpo_epoch(
            weight, hidden_states, chosen_ids, rejected_ids, together, beta, learning_rate
        )

    @wrong("return inside the loop", "is the return inside the loop?")
    def epoch_first(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        for batch in batches:
            return lpo_epoch(
                weight, hidden_states, chosen_ids, rejected_ids, [batch], beta, learning_rate
            )
        return weight

    @wrong("the last batch first", "from the last to the first")
    def epoch_backwards(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        backwards = list(reversed(batches))
        return lpo_epoch(
            weight, hidden_states, chosen_ids, rejected_ids, backwards, beta, learning_rate
        )

    @wrong("steps on the weight that was passed", "changes its input in place")
    def epoch_in_place(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        weight.requires_grad_()
        for batch in batches:
            mean_loss(weight, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
            with torch.no_grad():
                weight -= learning_rate * weight.grad
                weight.grad.zero_()
        return weight

    @wrong("beta forgotten", "it ignores its argument `beta`")
    def epoch_without_beta(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        return lpo_epoch(
            weight, hidden_states, chosen_ids, rejected_ids, batches, 1.0, learning_rate
        )

    @wrong("the weight turned", "must have shape (2, 3), got (3, 2)")
    def epoch_turned(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        return lpo_epoch(
            weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
        ).T

    @wrong("nothing returned", "does the function end without return?")
    def epoch_none(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        lpo_epoch(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate)

    @wrong("no .grad after a step", "PyTorch keeps no .grad for it")
    def epoch_without_grad(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    ):
        weight = weight.clone().requires_grad_()
        for batch in batches:
            mean_loss(weight, hidden_states, chosen_ids, rejected_ids, batch, beta).backward()
            weight = weight - weight.grad * learning_rate
        return weight
