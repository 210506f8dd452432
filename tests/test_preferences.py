"""From rewards to pairs."""

import pytest
import torch

from minilpo.preferences import all_pairs, best_worst_pairs, constrained_pairs, top_bottom_pairs
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
    chosen, rejected = (
        torch.bincount(pairs.chosen % 5, minlength=5) / 6000,
        torch.bincount(pairs.rejected % 5, minlength=5) / 6000,
    )
    torch.testing.assert_close(chosen, torch.tensor([1, 1, 0, 0, 1]) / 3, atol=0.03, rtol=0)
    torch.testing.assert_close(rejected, torch.tensor([0, 0, 1, 1, 0]) / 2, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "form",
    [
        best_worst_pairs,
        lambda rewards, generator: top_bottom_pairs(rewards, 2, generator),
        lambda rewards, generator: constrained_pairs(rewards, torch.rand(200, 6, generator=seeded(3)), generator, among=2),
    ],
    ids=["best_worst", "top_bottom", "constrained"],
)
def test_the_generator_alone_breaks_the_ties(form):
    rewards = torch.randint(0, 2, (200, 6), generator=seeded(0)).float()

    def formed(seed, other_seed):
        with torch.random.fork_rng():
            torch.manual_seed(other_seed)
            pairs = form(rewards, seeded(seed))
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
    assert len(top_bottom_pairs(rewards, 99, seeded(1)).chosen) == 50 * 3  # no response is on both sides


def test_top_and_bottom_leave_out_pairs_of_equal_reward():
    pairs = top_bottom_pairs(torch.tensor([[1.0, 0.5, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]]), 2, seeded(0))
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.n_dropped) == ([0], [3], 1)


def test_all_pairs_are_exactly_the_pairs_of_unequal_reward():
    rewards = torch.randint(0, 3, (20, 5), generator=seeded(0)) / 2
    pairs = all_pairs(rewards)
    expected = {(5 * p + i, 5 * p + j) for p in range(20) for i in range(5) for j in range(5) if rewards[p, i] > rewards[p, j]}
    got = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert len(got) == len(expected) and set(got) == expected
    assert pairs.n_dropped == sum(len(set(row)) == 1 for row in rewards.tolist())


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
    quality, constraint = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.3, 0.3]])
    pairs = constrained_pairs(quality, constraint, seeded(0), among=1)
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.n_dropped) == ([2], [3], 2)


def test_bad_arguments_are_refused_with_what_was_wanted():
    with pytest.raises(ValueError, match=r"\(P, N\)"):
        best_worst_pairs(torch.zeros(3), seeded(0))
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_bottom_pairs(torch.zeros(3, 2), 0, seeded(0))
    with pytest.raises(ValueError, match="quality's shape"):
        constrained_pairs(torch.zeros(3, 2), torch.zeros(3, 1), seeded(0))
    with pytest.raises(ValueError, match="among"):
        constrained_pairs(torch.zeros(3, 2), torch.zeros(3, 2), seeded(0), among=0)
