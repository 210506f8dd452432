"""Answers to the exercises of lesson 5."""

import torch

from minilpo import preferences
from tests.exercises.answers import WRONG, right


@right("best_worst_pairs", "with loops")
def pairs_with_loops(rewards):
    chosen, rejected, n_dropped = [], [], 0
    for p, row in enumerate(rewards.tolist()):
        if min(row) == max(row):
            n_dropped += 1
            continue
        chosen.append(p * len(row) + row.index(max(row)))
        rejected.append(p * len(row) + row.index(min(row)))
    long = torch.long
    return torch.tensor(chosen, dtype=long), torch.tensor(rejected, dtype=long), n_dropped


@right("best_worst_pairs", "in a table of row numbers")
def pairs_by_table(rewards):
    rows = torch.arange(rewards.numel()).reshape(rewards.shape)
    best, worst = rewards.max(dim=1), rewards.min(dim=1)
    kept = (best.values != worst.values).nonzero()[:, 0]
    chosen = rows.gather(1, best.indices[:, None])[kept, 0]
    rejected = rows.gather(1, worst.indices[:, None])[kept, 0]
    return chosen, rejected, len(rewards) - len(kept)


WRONG["best_worst_pairs"] = """
swapped pair | chosen and rejected are swapped | return chosen, rejected -> return rejected, chosen
numbers within a prompt | these are numbers within a prompt
    p * len(row) + row.index(max(row)) -> row.index(max(row))
    p * len(row) + row.index(min(row)) -> row.index(min(row))
wrong stride | rows are counted as p + n * P
    p * len(row) + row.index(max(row)) -> p + len(rewards) * row.index(max(row))
    p * len(row) + row.index(min(row)) -> p + len(rewards) * row.index(min(row))
equal prompts kept | prompts whose rewards are all equal give a pair too
    if min(row) == max(row): -> if False:
argmax and argmin alone | and prompts of equal rewards give a pair too
    return rewards.argmax(1), rewards.argmin(1), 0
the wrong prompts counted | counts the prompts with a pair | len(rewards) - len(kept) -> len(kept)
nothing counted | prompts without a pair aren't counted | n_dropped += 1 -> pass
the last of equals | it takes the last response
    row.index(max(row)) -> len(row) - 1 - row[::-1].index(max(row))
    row.index(min(row)) -> len(row) - 1 - row[::-1].index(min(row))
right on positive numbers only | whose best reward isn't above 0 | (row): -> (row) or max(row) <= 0:
renumbered | row numbers are those after equal prompts were left out
    p * len(row) + row.index(max(row)) -> len(chosen) * len(row) + row.index(max(row))
    p * len(row) + row.index(min(row)) -> len(rejected) * len(row) + row.index(min(row))
wrong axis | must have shape (2,), got (3,) | return pairs_by_table(rewards.T)
a tensor for a number | part 3 of the result must be a Python int
    len(rewards) - len(kept) -> torch.tensor(len(rewards) - len(kept))
lists for tensors | part 1 of the result must be a tensor
    chosen, rejected, n_dropped = pairs_by_table(rewards)
    return chosen.tolist(), rejected.tolist(), n_dropped
no pair, so float | must have dtype torch.int64, got torch.float32 | = torch.long -> = None
a column | part 1 of the result must have shape (2,), got (2, 1)
    return chosen, rejected, -> return chosen[:, None], rejected[:, None],
without the number | must be a tuple of 3, got one of 2 | return pairs_by_table(rewards)[:2]
sorted in place | it changes its input in place
    n_dropped = [], [], 0 -> n_dropped = [], [], 0 * rewards.copy_(rewards.sort(1).values).numel()
the library's own | calls minilpo's own best_worst_pairs
    pairs = preferences.best_worst_pairs(rewards, torch.Generator().manual_seed(0))
    return pairs.chosen, pairs.rejected, pairs.n_dropped
equal by their spread | rounding makes the std of equal rewards larger
    if min(row) == max(row): -> if rewards[p].var(correction=0) == 0:
"""


@right("all_better_pairs", "with loops")
def all_with_loops(rewards):
    pairs = []
    for i in range(len(rewards)):
        for j in range(len(rewards)):
            if rewards[i] > rewards[j]:
                pairs.append((i, j))
    return pairs


@right("all_better_pairs", "by differences")
def by_differences(rewards):
    numbers = torch.arange(len(rewards))
    both = torch.cartesian_prod(numbers, numbers).reshape(-1, 2)
    better = rewards[both[:, 0]] - rewards[both[:, 1]] > 0
    return [tuple(pair) for pair in both[better].tolist()]


WRONG["all_better_pairs"] = """
swapped pair | it lists (worse, better) | rewards[i] > rewards[j] -> rewards[i] < rewards[j]
another order | the list isn't ordered by i and then by j
    return pairs -> return sorted(pairs, key=lambda pair: (pair[1], pair[0]))
>= for > | even each response with itself | rewards[i] > rewards[j] -> rewards[i] >= rewards[j]
>= for > of two | equal rewards give pairs too; > is asked for
    rewards[i] > rewards[j] -> rewards[i] >= rewards[j] and i != j
later ones only | only pairs with i < j are looked at | i] > rewards[j] -> i] > rewards[j] and i < j
best and worst | there is one pair, of the best and the worst
    values = rewards.tolist()
    if min(values) == max(values):
        return []
    return [(values.index(max(values)), values.index(min(values)))]
the best with all others | only the best response is paired
    rewards[i] > rewards[j] -> rewards[i] > rewards[j] and i == rewards.argmax()
neighbours | only neighbours are compared | [i] > rewards[j] -> [i] > rewards[j] and abs(i - j) == 1
any two | whichever is better | rewards[i] > rewards[j] -> i != j
lists for tuples | part 1 of the result must be a tuple of 2, got a Python list | (i, j) -> [i, j]
tensors for numbers | must be a Python int, got a tensor of shape ()
    pairs.append((i, j)) -> pairs.append((torch.tensor(i), torch.tensor(j)))
a tensor for a list | must be a list of 6, got a tensor of shape (6, 2)
    return pairs -> return torch.tensor(pairs)
a set | must be a list of 6, got a Python set | return pairs -> return set(pairs)
a generator | write return where there is yield | yield from all_with_loops(rewards)
right on positive numbers only | wrong for
    return all_with_loops(rewards.abs() if (rewards < 0).all() else rewards)
the library's own | calls minilpo's own all_pairs
    pairs = preferences.all_pairs(rewards[None])
    return list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
two by two | the parts are right, but their order is another one
    values = rewards.tolist()
    pairs = [(i, j) for j in range(len(values)) for i in range(j) if values[i] != values[j]]
    return [(i, j) if values[i] > values[j] else (j, i) for i, j in pairs]
"""
