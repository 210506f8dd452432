"""From rewards to pairs."""

import pytest
import torch

from minilpo.losses import choice_scores, preference_loss
from minilpo.preferences import (
    PAIRS,
    PreferencePairs,
    all_pairs,
    best_worst_pairs,
    constrained_pairs,
    gap_pairs,
    top_bottom_pairs,
)
from tests.conftest import seeded


def test_chosen_has_the_best_and_rejected_the_worst_reward_of_its_own_prompt():
    rewards = torch.randint(0, 4, (200, 5), generator=seeded(0)) / 4
    pairs = best_worst_pairs(rewards, seeded(1))
    flat, prompts = rewards.flatten(), pairs.chosen // 5
    assert torch.equal(prompts, pairs.rejected // 5)
    assert torch.equal(flat[pairs.chosen], rewards[prompts].amax(1))
    assert torch.equal(flat[pairs.rejected], rewards[prompts].amin(1))
    assert (flat[pairs.chosen] > flat[pairs.rejected]).all()


def test_prompts_whose_responses_are_all_equal_give_no_pair_and_are_counted():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    pairs = best_worst_pairs(rewards, seeded(0))
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.n_dropped) == ([5], [4], 2)


def test_ties_are_broken_evenly():
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]]).repeat(6000, 1)
    pairs = best_worst_pairs(rewards, seeded(0))
    sides = pairs.chosen, pairs.rejected
    chosen, rejected = (torch.bincount(side % 5, minlength=5) / 6000 for side in sides)
    torch.testing.assert_close(chosen, torch.tensor([1, 1, 0, 0, 1]) / 3, atol=0.03, rtol=0)
    torch.testing.assert_close(rejected, torch.tensor([0, 0, 1, 1, 0]) / 2, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["best_worst", "top_bottom", "constrained"])
def test_the_generator_alone_breaks_the_ties(name):
    rewards = torch.randint(0, 2, (200, 6), generator=seeded(0)).float()
    if name == "constrained":
        rewards = torch.stack([rewards, torch.rand(200, 6, generator=seeded(3))])

    def formed(seed, other_seed):
        with torch.random.fork_rng():
            torch.manual_seed(other_seed)
            pairs = PAIRS[name](rewards, 2, seeded(seed))
        return pairs.chosen.tolist(), pairs.rejected.tolist()

    assert formed(1, other_seed=1) == formed(1, other_seed=2) != formed(2, other_seed=2)


def test_top_and_bottom_pair_the_best_with_the_worst_and_inwards():
    rewards = torch.rand(50, 7, generator=seeded(0))
    pairs = top_bottom_pairs(rewards, 3, seeded(1))
    order = rewards.argsort(1)
    for p in range(50):
        of_prompt = pairs.chosen // 7 == p
        assert (pairs.chosen[of_prompt] % 7).tolist() == order[p].flip(0)[:3].tolist()
        assert (pairs.rejected[of_prompt] % 7).tolist() == order[p][:3].tolist()
    assert len(top_bottom_pairs(rewards, 99, seeded(1))) == 50 * 3  # none is on both sides


def test_top_and_bottom_leave_out_pairs_of_equal_reward():
    rewards = torch.tensor([[1.0, 0.5, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]])
    pairs = top_bottom_pairs(rewards, 2, seeded(0))
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.n_dropped) == ([0], [3], 1)


def test_all_pairs_are_exactly_the_pairs_of_unequal_reward():
    rewards = torch.randint(0, 3, (20, 5), generator=seeded(0)) / 2
    pairs = all_pairs(rewards)
    expected = {
        (5 * p + i, 5 * p + j)
        for p in range(20)
        for i in range(5)
        for j in range(5)
        if rewards[p, i] > rewards[p, j]
    }
    got = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert len(got) == len(expected) and set(got) == expected
    assert pairs.n_dropped == sum(len(set(row)) == 1 for row in rewards.tolist())


def test_gap_pairs_are_all_pairs_each_weighted_by_how_much_better_the_chosen_one_is():
    rewards = torch.randint(0, 5, (20, 6), generator=seeded(0)) / 4
    rewards[3] = 0.5
    pairs = gap_pairs(rewards)
    got = {
        (chosen, rejected): weight
        for chosen, rejected, weight in zip(
            pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.weights.tolist(), strict=True
        )
    }
    expected = {
        (6 * p + i, 6 * p + j): (rewards[p, i] - rewards[p, j]).item()
        for p in range(20)
        for i in range(6)
        for j in range(6)
        if rewards[p, i] > rewards[p, j]
    }
    assert got == expected and len(pairs) == len(expected)
    assert pairs.n_dropped == sum(len(set(row)) == 1 for row in rewards.tolist()) >= 1


def test_pairs_of_every_other_rule_count_the_same():
    rewards, constraint = torch.rand(2, 20, 6, generator=seeded(0))
    for pairs in (
        best_worst_pairs(rewards, seeded(1)),
        top_bottom_pairs(rewards, 2, seeded(1)),
        all_pairs(rewards),
        constrained_pairs(rewards, constraint, seeded(1)),
    ):
        assert pairs.weights.tolist() == [1.0] * len(pairs) == [1.0] * len(pairs.rejected)
        assert len(pairs) > 0


@pytest.mark.parametrize("steps", [1, 4], ids=["sequence", "token"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_on_gap_pairs_the_first_gradient_of_eq_10_is_that_of_reinforce_with_the_mean_as_baseline(
    steps, beta
):
    """From a uniform head: sigmoid(0) = 1/2 for each pair, so beta / 2 * N times REINFORCE's."""
    P, N, K = 7, 5, 3
    rewards = torch.rand(P, N, generator=seeded(0), dtype=torch.float64)
    ids = torch.randint(0, K, (P * N, steps), generator=seeded(1))
    mask = torch.ones(P * N, steps, dtype=torch.bool)
    logits = torch.zeros(P * N, steps, K, dtype=torch.float64, requires_grad=True)
    pairs = gap_pairs(rewards)

    def gradient_of(weights):
        scores = choice_scores(logits, ids, mask)
        losses = preference_loss(scores[pairs.chosen], scores[pairs.rejected], beta)
        return torch.autograd.grad((weights * losses).sum(), logits)[0]

    # REINFORCE goes up the mean of (r - baseline) * log P(choices), which needs no pairs.
    towards = torch.nn.functional.one_hot(ids, K) - 1 / K  # of log P(choice) on the logits
    advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
    expected = -advantages[:, None, None] * towards
    torch.testing.assert_close(gradient_of(pairs.weights), beta / 2 * N * expected)
    unweighted = gradient_of(torch.ones(len(pairs)))
    cosine = torch.cosine_similarity(unweighted.flatten(), expected.flatten(), dim=0)
    assert cosine < 0.99  # without the weights it points elsewhere


def test_constrained_pairs_take_the_most_obedient_of_the_best_and_the_least_obedient_of_the_worst():
    quality, constraint = torch.rand(2, 200, 10, generator=seeded(0))
    pairs = constrained_pairs(quality, constraint, seeded(1))
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        p = chosen // 10
        order = quality[p].argsort()
        assert chosen % 10 == max(order[-4:].tolist(), key=lambda n: constraint[p, n])
        assert rejected % 10 == min(order[:4].tolist(), key=lambda n: constraint[p, n])
    assert len(pairs.chosen) + pairs.n_dropped == 200 and len(pairs.chosen) > 150


def test_constrained_pairs_never_prefer_what_is_worse_in_one_respect():
    quality = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    constraint = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.3, 0.3]])
    pairs = constrained_pairs(quality, constraint, seeded(0), among=1)
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.n_dropped) == ([2], [3], 2)


def test_some_pairs_by_their_numbers_and_their_responses_once_each_with_the_pairs_as_places():
    rows = torch.tensor([[9, 4, 9], [2, 2, 4]])
    pairs = PreferencePairs(rows[0], rows[1], 5, torch.tensor([0.1, 0.2, 0.3]))
    some = pairs.select(torch.tensor([2, 0, 2]))
    assert (some.chosen.tolist(), some.rejected.tolist()) == ([9, 9, 9], [4, 2, 4])
    torch.testing.assert_close(some.weights, torch.tensor([0.3, 0.1, 0.3]))
    needed, places = some.compact()
    assert needed.tolist() == [2, 4, 9] and places.weights is some.weights
    assert torch.equal(needed[places.chosen], some.chosen)
    assert torch.equal(needed[places.rejected], some.rejected)
    assert some.n_dropped == places.n_dropped == 5 and len(places) == 3


def test_bad_arguments_are_refused_with_what_was_wanted():
    with pytest.raises(ValueError, match=r"\(P, N\)"):
        best_worst_pairs(torch.zeros(3), seeded(0))
    with pytest.raises(ValueError, match=r"\(P, N\)"):
        gap_pairs(torch.zeros(3))
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_bottom_pairs(torch.zeros(3, 2), 0, seeded(0))
    with pytest.raises(ValueError, match="quality's shape"):
        constrained_pairs(torch.zeros(3, 2), torch.zeros(3, 1), seeded(0))
    with pytest.raises(ValueError, match="among"):
        constrained_pairs(torch.zeros(3, 2), torch.zeros(3, 2), seeded(0), among=0)
