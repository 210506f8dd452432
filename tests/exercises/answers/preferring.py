"""Answers to the exercises of lesson 5."""

import torch

from minilpo import preferences
from tests.exercises.answers import WrongAnswers, right, wrong

# The best and the worst


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


# All pairs


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


def every(rewards, is_pair):
    values = rewards.tolist()
    places = range(len(values))
    return [(i, j) for i in places for j in places if is_pair(i, j, values[i], values[j])]


class BestWorstPairs(WrongAnswers, to="best_worst_pairs"):
    @wrong("swapped pair", "chosen and rejected are swapped")
    def swapped(rewards):
        chosen, rejected, n_dropped = pairs_by_table(rewards)
        return rejected, chosen, n_dropped

    @wrong("numbers within a prompt", "these are numbers within a prompt")
    def within_prompt(rewards):
        keep = rewards.amax(1) > rewards.amin(1)
        return rewards.argmax(1)[keep], rewards.argmin(1)[keep], int((~keep).sum())

    @wrong("wrong stride", "rows are counted as p + n * P")
    def other_stride(rewards):
        P = len(rewards)
        keep = rewards.amax(1) > rewards.amin(1)
        chosen = torch.arange(P) + P * rewards.argmax(1)
        rejected = torch.arange(P) + P * rewards.argmin(1)
        return chosen[keep], rejected[keep], int((~keep).sum())

    @wrong("equal prompts kept", "prompts whose rewards are all equal give a pair too")
    def equals_kept(rewards):
        P, N = rewards.shape
        start = torch.arange(P) * N
        return start + rewards.argmax(1), start + rewards.argmin(1), 0

    @wrong("argmax and argmin alone", "and prompts of equal rewards give a pair too")
    def plain_argmax(rewards):
        return rewards.argmax(1), rewards.argmin(1), 0

    @wrong("the wrong prompts counted", "counts the prompts with a pair")
    def kept_counted(rewards):
        chosen, rejected, _ = pairs_by_table(rewards)
        return chosen, rejected, chosen.shape[0]

    @wrong("nothing counted", "prompts without a pair aren't counted")
    def not_counted(rewards):
        chosen, rejected, _ = pairs_by_table(rewards)
        return chosen, rejected, 0

    @wrong("the last of equals", "it takes the last response")
    def last_of_equals(rewards):
        N = rewards.shape[1]
        order = rewards.sort(dim=1, stable=True).indices
        keep = rewards.amax(1) > rewards.amin(1)
        worst = N - 1 - rewards.flip(1).argmin(1)
        start = torch.arange(len(rewards)) * N
        return (start + order[:, -1])[keep], (start + worst)[keep], int((~keep).sum())

    @wrong("right on positive numbers only", "whose best reward isn't above 0")
    def only_positive(rewards):
        P, N = rewards.shape
        keep = (rewards.amax(1) > rewards.amin(1)) & (rewards.amax(1) > 0)
        start = torch.arange(P) * N
        chosen, rejected = start + rewards.argmax(1), start + rewards.argmin(1)
        return chosen[keep], rejected[keep], P - int(keep.sum())

    @wrong("renumbered", "row numbers are those after equal prompts were left out")
    def renumbered(rewards):
        kept = rewards[rewards.amax(1) > rewards.amin(1)]
        chosen, rejected, _ = pairs_by_table(kept)
        return chosen, rejected, len(rewards) - len(kept)

    @wrong("wrong axis", "must have shape (2,), got (3,)")
    def wrong_axis(rewards):
        return pairs_by_table(rewards.T)

    @wrong("a tensor for a number", "part 3 of the result must be a Python int")
    def tensor_count(rewards):
        chosen, rejected, n_dropped = pairs_by_table(rewards)
        return chosen, rejected, torch.tensor(n_dropped)

    @wrong("lists for tensors", "part 1 of the result must be a tensor")
    def lists(rewards):
        chosen, rejected, n_dropped = pairs_by_table(rewards)
        return chosen.tolist(), rejected.tolist(), n_dropped

    @wrong("no pair, so float", "must have dtype torch.int64, got torch.float32")
    def float_if_empty(rewards):
        chosen, rejected, n_dropped = pairs_by_table(rewards)
        return torch.tensor(chosen.tolist()), torch.tensor(rejected.tolist()), n_dropped

    @wrong("a column", "part 1 of the result must have shape (2,), got (2, 1)")
    def column(rewards):
        chosen, rejected, n_dropped = pairs_by_table(rewards)
        return chosen[:, None], rejected[:, None], n_dropped

    @wrong("without the number", "must be a tuple of 3, got one of 2")
    def without_number(rewards):
        return pairs_by_table(rewards)[:2]

    @wrong("sorted in place", "it changes its input in place")
    def in_place(rewards):
        result = pairs_by_table(rewards)
        rewards.copy_(rewards.sort(1).values)
        return result

    @wrong("the library's own", "calls minilpo's own best_worst_pairs")
    def from_the_library(rewards):
        pairs = preferences.best_worst_pairs(rewards, torch.Generator().manual_seed(0))
        return pairs.chosen, pairs.rejected, pairs.n_dropped

    @wrong("equal by their spread", "rounding makes the std of equal rewards larger")
    def equal_by_spread(rewards):
        P, N = rewards.shape
        rows = torch.arange(P * N).reshape(P, N)
        keep = rewards.var(1, correction=0) != 0
        chosen = rows.gather(1, rewards.argmax(1, keepdim=True))[keep, 0]
        return chosen, rows.gather(1, rewards.argmin(1, keepdim=True))[keep, 0], P - len(chosen)


class AllBetterPairs(WrongAnswers, to="all_better_pairs"):
    @wrong("swapped pair", "it lists (worse, better)")
    def worse_first(rewards):
        return every(rewards, lambda i, j, a, b: a < b)

    @wrong("another order", "the list isn't ordered by i and then by j")
    def other_order(rewards):
        return sorted(all_with_loops(rewards), key=lambda pair: (pair[1], pair[0]))

    @wrong(">= for >", "even each response with itself")
    def with_equals(rewards):
        return every(rewards, lambda i, j, a, b: a >= b)

    @wrong(">= for > of two", "equal rewards give pairs too; > is asked for")
    def with_other_equals(rewards):
        return every(rewards, lambda i, j, a, b: a >= b and i != j)

    @wrong("later ones only", "only pairs with i < j are looked at")
    def later_only(rewards):
        return every(rewards, lambda i, j, a, b: a > b and i < j)

    @wrong("best and worst", "there is one pair, of the best and the worst")
    def best_and_worst(rewards):
        values = rewards.tolist()
        if min(values) == max(values):
            return []
        return [(values.index(max(values)), values.index(min(values)))]

    @wrong("the best with all others", "only the best response is paired")
    def of_the_best(rewards):
        best = int(rewards.argmax())
        return every(rewards, lambda i, j, a, b: a > b and i == best)

    @wrong("neighbours", "only neighbours are compared")
    def neighbours(rewards):
        return every(rewards, lambda i, j, a, b: a > b and abs(i - j) == 1)

    @wrong("any two", "whichever is better")
    def any_two(rewards):
        return every(rewards, lambda i, j, a, b: i != j)

    @wrong("lists for tuples", "part 1 of the result must be a tuple of 2, got a Python list")
    def lists_of_two(rewards):
        return [list(pair) for pair in all_with_loops(rewards)]

    @wrong("tensors for numbers", "must be a Python int, got a tensor of shape ()")
    def tensors(rewards):
        return [tuple(torch.tensor(pair)) for pair in all_with_loops(rewards)]

    @wrong("a tensor for a list", "must be a list of 6, got a tensor of shape (6, 2)")
    def one_tensor(rewards):
        return torch.tensor(all_with_loops(rewards))

    @wrong("a set", "must be a list of 6, got a Python set")
    def as_set(rewards):
        return set(all_with_loops(rewards))

    @wrong("a generator", "write return where there is yield")
    def yielding(rewards):
        yield from all_with_loops(rewards)

    @wrong("right on positive numbers only", "wrong for")
    def positive(rewards):
        return every(rewards.abs() if (rewards < 0).all() else rewards, lambda i, j, a, b: a > b)

    @wrong("the library's own", "calls minilpo's own all_pairs")
    def all_from_the_library(rewards):
        pairs = preferences.all_pairs(rewards[None])
        return list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))

    @wrong("two by two", "the parts are right, but their order is another one")
    def two_by_two(rewards):
        values = rewards.tolist()
        pairs = [(i, j) for j in range(len(values)) for i in range(j) if values[i] != values[j]]
        return [(i, j) if values[i] > values[j] else (j, i) for i, j in pairs]
