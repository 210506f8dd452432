"""From rewards to pairs."""

import pytest
import torch

from minilpo.preferences import best_worst_pairs
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


def test_no_pair_at_all_is_an_error_that_says_what_to_change():
    with pytest.raises(ValueError, match="--samples"):
        best_worst_pairs(torch.ones(3, 4), seeded(0))
