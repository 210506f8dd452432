"""Lesson 5: preferring. From rewards to pairs of a better and a worse response."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise


class BestWorstPairs(Exercise):
    question = """
    Make one pair per prompt: its best response is chosen, its worst is rejected.

    `rewards` has shape (P, N): those of N responses to each of P prompts. Response n to prompt p
    stands in row p * N + n of the batch, and these row numbers are to be returned. Of several
    best responses take the first, and of several worst the first. A prompt whose responses all got
    the same reward says nothing and gives no pair. Return a tuple: `chosen` and `rejected`, long
    tensors of shape (M,) for the M pairs in the order of the prompts, and the number of prompts
    without a pair, a Python int.
    """

    name = "best_worst_pairs"
    lesson = 5
    hints = (
        "Which prompts say nothing? Their best reward and their worst have something in common.",
        "`argmax(1)` and `argmin(1)` give numbers n from 0 to N - 1. What must be added to them "
        "for prompt p?",
        "`first_row = N * torch.arange(P)` has the row where each prompt begins. Then index with "
        "`keep = rewards.amax(1) > rewards.amin(1)`.",
    )
    explanation = (
        "A pair says that one response is better than another. Where all are equal nothing is "
        "better, and a pair would only teach noise: that the first of the list is to be "
        "preferred. A batch of P * N rows has the N responses to a prompt side by side, so "
        "prompt p begins at row p * N."
    )
    follow_up = "break ties at random with a generator. Why not always take the first?"

    @staticmethod
    def right(rewards):
        P, N = rewards.shape
        first_row = N * torch.arange(P)
        keep = rewards.amax(1) > rewards.amin(1)  # (P,)
        chosen = (first_row + rewards.argmax(1))[keep]
        rejected = (first_row + rewards.argmin(1))[keep]
        return chosen, rejected, int((~keep).sum())

    mistakes = """
    chosen and rejected are swapped: the chosen one has the higher reward
        return chosen, rejected -> return rejected, chosen
    these are numbers within a prompt; the row of the batch is p * N + n | N * torch. -> 0 * torch.
    rows are counted as p + n * P; responses to a prompt stand side by side: p * N + n
        N * torch.arange(P) -> torch.arange(P)
        rewards.argmax(1) -> P * rewards.argmax(1)
        rewards.argmin(1) -> P * rewards.argmin(1)
    prompts whose rewards are all equal give a pair too; leave them out and count them
        rewards.amax(1) > rewards.amin(1) -> torch.ones(P, dtype=torch.bool)
    these are numbers within a prompt, and prompts of equal rewards give a pair too
        return rewards.argmax(1), rewards.argmin(1), 0
    the third part counts the prompts with a pair; those without are asked for | (~keep). -> keep.
    prompts without a pair aren't counted | int((~keep).sum()) -> 0
    of several equal rewards it takes the last response; the first is asked for
        rewards.argmax(1) -> N - 1 - rewards.flip(1).argmax(1)
        rewards.argmin(1) -> N - 1 - rewards.flip(1).argmin(1)
    rounding makes the std of equal rewards larger than 0; compare largest and smallest
        rewards.amax(1) > rewards.amin(1) -> rewards.std(1, correction=0) > 0
    prompts whose best reward isn't above 0 are left out; only those of equal rewards are
        > rewards.amin(1) -> > rewards.amin(1).clamp(min=0)
    row numbers are those after equal prompts were left out; they keep their numbers
        torch.arange(P) -> ((rewards.amax(1) > rewards.amin(1)).cumsum(0) - 1)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields ties at the top, at the bottom and everywhere; rewards below 0; one prompt."""
        yield (torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.3, 0.6]]),)
        yield (torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]),)  # no pair in the middle
        yield (torch.tensor([[1.0, 0.0, 1.0, 0.0]]),)
        yield (torch.tensor([[-0.5, -0.25, -1.0], [-2.0, -2.0, -2.0]]),)
        yield (torch.full((3, 4), 0.25),)
        yield (torch.tensor([[0.5]]),)
        for P, N in [(1, 2), (4, 3), (3, 8), (6, 5), (5, 1)]:
            yield (draw.normal(P, N),)
        for P, N in [(8, 3), (10, 2), (5, 6)]:  # quarters: many ties
            yield (draw.integers(3, P, N) / 4,)
        yield (-draw.integers(2, 7, 3) / 2,)
        yield (draw.integers(3, 4, 4).double() / 2,)
        # The mean of sixteen times 0.6 isn't quite 0.6, and their std isn't quite 0.
        yield (torch.full((1, 16), 0.6),)
        yield (torch.full((1, 12), 0.7),)


class AllBetterPairs(Exercise):
    question = """
    List every pair of responses of which the first is better.

    `rewards` has shape (N,): those of N responses to one prompt. Return a list of tuples (i, j) of
    Python ints, one for each i and j where reward i is above reward j, ordered by i and then by j.
    Equal rewards give no pair, so the list may be empty.
    """

    name = "all_better_pairs"
    lesson = 5
    hints = (
        "How many pairs do three different rewards give? And if two of the three are equal?",
        "Either two loops, both over all N responses, or a table of all comparisons at once.",
        "`rewards[:, None] > rewards[None, :]` is that table; `.nonzero().tolist()` lists the "
        "places that are True, in the order asked for.",
    )
    explanation = (
        "Each two responses with different rewards are compared once, so there are at most "
        "N (N - 1) / 2 pairs. `rewards[:, None]` is a column and `rewards[None, :]` a row: "
        "compared, they give one line per i and one column per j."
    )
    follow_up = "for rewards of shape (P, N), as row numbers of the batch and without a loop."

    @staticmethod
    def right(rewards):
        better = rewards[:, None] > rewards[None, :]  # (N, N): is i better than j?
        return [(i, j) for i, j in better.nonzero().tolist()]

    mistakes = """
    it lists (worse, better); the better one comes first | > rewards -> < rewards
    the two of each tuple are right, but the list isn't ordered by i and then by j
        return sorted(right(rewards), key=lambda pair: pair[::-1])
    equal rewards give pairs too, even each response with itself; > is asked for, not >=
        > rewards -> >= rewards
    equal rewards give pairs too; > is asked for, not >=
        > rewards -> >= rewards
        .tolist()] -> .tolist() if i != j]
    only pairs with i < j are looked at; a later response may be the better one
        .tolist()] -> .tolist() if i < j]
    there is one pair, of the best and the worst; list all
        pair = (int(rewards.argmax()), int(rewards.argmin()))
        return [pair] if rewards.max() > rewards.min() else []
    only the best response is paired with others; list the pairs of all
        .tolist()] -> .tolist() if i == rewards.argmax()]
    only neighbours are compared; compare each two | .tolist()] -> .tolist() if abs(i - j) == 1]
    any two different responses give a pair, whichever is better
        rewards[:, None] > rewards[None, :] -> ~torch.eye(len(rewards), dtype=torch.bool)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields rising and falling rewards, ties, all equal, one response, rewards below 0."""
        yield (torch.tensor([0.2, 0.9, 0.5, 0.7]),)
        yield (torch.tensor([0.5, 0.5]),)
        yield (torch.tensor([0.0, 1.0, 0.0]),)
        yield (torch.tensor([0.7]),)
        yield (torch.tensor([-1.0, -2.0, -3.0]),)
        yield (torch.zeros(4),)
        for N in (2, 3, 4, 5, 8):
            yield (draw.normal(N),)
        for N in (4, 6, 9):
            yield (draw.integers(3, N) / 2 - 0.5,)
        yield (draw.normal(5).double(),)
        yield (draw.normal(12),)


best_worst_pairs = BestWorstPairs()
all_better_pairs = AllBetterPairs()
