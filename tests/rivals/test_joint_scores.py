"""The score of Eq. 9: words and temperatures as one sequence."""

import pytest
import torch

from minilpo.losses import preference_loss
from minilpo.rivals.joint import joint_scores
from tests.conftest import seeded

# Three responses of up to T = 4 tokens, masked behind.
MASK = torch.tensor([[True, True, True, False], [True, True, False, False], [True] * 4])


def double(*shape, seed, learned=False):
    drawn = torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)
    return drawn.requires_grad_(learned)


def test_a_case_worked_by_hand():
    words = torch.tensor([[0.4, 0.5, 0.9], [0.3, 0.6, 0.2]]).log()
    before = torch.tensor([[0.2, 0.5, 0.1], [0.1, 0.2, 0.4]]).log()
    mask, choices = torch.tensor([[True, True, False], [True, True, True]]), torch.tensor([-1, 2.0])
    log = torch.tensor([2.0, 4.5]).log()  # 2 * 1, and 3 * 3 / 2
    torch.testing.assert_close(joint_scores(words, before, mask, choices), log + choices)
    mean = joint_scores(words, before, mask, choices, reduce="mean")
    torch.testing.assert_close(mean, log / torch.tensor([2, 3]) + choices)


def test_with_a_frozen_language_model_it_is_the_score_of_the_choices():
    words, choices = double(3, 4, seed=0), double(3, seed=1)
    torch.testing.assert_close(joint_scores(words, words, MASK, choices), choices)


def test_what_stands_behind_a_response_has_no_effect_even_if_it_is_no_number():
    words, before, choices = double(3, 4, seed=0), double(3, 4, seed=1), double(3, seed=2)
    junk = words.masked_fill(~MASK, torch.nan)
    got = joint_scores(junk, before, MASK, choices)
    torch.testing.assert_close(got, joint_scores(words, before, MASK, choices))


def test_the_gradient_reaches_words_and_temperatures():
    """The score is linear in the words' log-probabilities.

    So each word of the better response has the gradient -beta sigma(-beta margin).
    """
    words = [double(3, 4, seed=seed, learned=True) for seed in (1, 2)]
    before = [double(3, 4, seed=seed) for seed in (3, 4)]
    choices = [double(3, seed=seed, learned=True) for seed in (5, 6)]
    sides = zip(words, before, choices, strict=True)
    chosen, rejected = (joint_scores(w, r, MASK, c) for w, r, c in sides)
    preference_loss(chosen, rejected, 0.5).sum().backward()
    push = (-0.5 * torch.sigmoid(-0.5 * (chosen - rejected))).detach()  # (B,)
    torch.testing.assert_close(words[0].grad, push[:, None] * MASK)
    torch.testing.assert_close(words[1].grad, -push[:, None] * MASK)
    torch.testing.assert_close(choices[0].grad, push)


def test_shapes_that_do_not_fit_are_refused_before_they_are_broadcast():
    words, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    short, scores = words[:, :1], torch.zeros(2)
    for wrong in ((words, words, scores[:1]), (words, short, scores), (short, words, scores)):
        with pytest.raises(ValueError, match="one number per token, and one score per response"):
            joint_scores(*wrong[:2], mask, wrong[2])
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        joint_scores(words, words, mask, torch.zeros(2), reduce="max")
