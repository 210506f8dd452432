"""LPO's loss: worked cases, properties, the gradient of paper and pencil, and the optimum that is known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilpo.losses import choice_scores, preference_loss
from tests.conftest import seeded

score = st.floats(-20, 20)


def test_a_case_worked_by_hand():
    loss = preference_loss(torch.tensor([math.log(0.6)]), torch.tensor([math.log(0.2)]), beta=1.0)
    torch.testing.assert_close(loss, torch.tensor([-math.log(0.6 / 0.8)]))  # sigmoid(log 3) = 3/4


@given(score, st.floats(0.01, 5))
def test_equal_scores_cost_log_2(value, beta):
    scores = torch.tensor([value], dtype=torch.float64)
    assert preference_loss(scores, scores, beta).item() == pytest.approx(math.log(2))


@given(score, score, st.floats(0.01, 5))
def test_swapping_chosen_and_rejected_negates_the_margin(chosen, rejected, beta):
    chosen, rejected = torch.tensor([chosen], dtype=torch.float64), torch.tensor([rejected], dtype=torch.float64)
    difference = preference_loss(chosen, rejected, beta) - preference_loss(rejected, chosen, beta)
    torch.testing.assert_close(difference, -beta * (chosen - rejected), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_gradient_on_the_head_is_the_one_derived_by_hand(beta):
    """The normaliser cancels: grad = -beta * sigmoid(-beta (z_c - z_r)) * (e_c - e_r)."""
    z = torch.randn(5, 1, 4, generator=seeded(0), dtype=torch.float64, requires_grad=True)  # (B, S, K)
    chosen, rejected = torch.tensor([0, 1, 2, 3, 0])[:, None], torch.tensor([1, 0, 3, 2, 2])[:, None]
    mask = torch.ones(5, 1, dtype=torch.bool)
    preference_loss(choice_scores(z, chosen, mask), choice_scores(z, rejected, mask), beta).sum().backward()
    margin = z.gather(-1, chosen[..., None]) - z.gather(-1, rejected[..., None])
    one_hot = torch.nn.functional.one_hot
    expected = -beta * torch.sigmoid(-beta * margin) * (one_hot(chosen, 4) - one_hot(rejected, 4))
    torch.testing.assert_close(z.grad, expected.detach())


def test_pairs_with_the_same_temperature_have_exactly_no_gradient():
    z = torch.randn(3, 1, 4, generator=seeded(0), requires_grad=True)
    ids, mask = torch.tensor([[2], [0], [1]]), torch.ones(3, 1, dtype=torch.bool)
    preference_loss(choice_scores(z, ids, mask), choice_scores(z, ids, mask), 1.0).sum().backward()
    assert (z.grad == 0).all()


def test_the_loss_passes_a_numerical_gradient_check_over_several_decisions():
    ids = torch.randint(0, 3, (4, 5), generator=seeded(1))
    mask = torch.rand(4, 5, generator=seeded(2)) < 0.7
    z = torch.randn(4, 5, 3, generator=seeded(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: preference_loss(choice_scores(z, ids, mask), choice_scores(z, ids.flip(1), mask), 0.7), z
    )


def test_the_score_is_a_sum_of_log_probabilities_and_masked_decisions_have_no_effect():
    z, ids = torch.randn(2, 3, 4, generator=seeded(0)), torch.tensor([[0, 1, 2], [3, 3, 3]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    probs = z.softmax(-1)
    expected = [(probs[0, 0, 0] * probs[0, 1, 1]).log(), probs[1, 0, 3].log()]
    torch.testing.assert_close(choice_scores(z, ids, mask), torch.stack(expected))
    other = torch.where(mask[..., None], z, 99 * torch.ones_like(z))
    torch.testing.assert_close(choice_scores(other, ids, mask), choice_scores(z, ids, mask))


@pytest.mark.parametrize(
    "p, q, beta",
    [
        ([0.9, 0.8, 0.6, 0.3], [0.4, 0.3, 0.2, 0.1], 0.5),
        ([0.5, 0.2, 0.7], [0.2, 0.6, 0.2], 1.0),
        ([0.6, 0.5, 0.4], [1 / 3] * 3, 2.0),
    ],
)
def test_the_minimiser_is_the_closed_form_whatever_the_sampling(p, q, beta):
    """One context, binary reward: P(tau_k) is proportional to (p_k / (1 - p_k))^(1 / beta), independent of q."""
    p, q = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    right, wrong = q * p / (q * p).sum(), q * (1 - p) / (q * (1 - p)).sum()  # temperatures behind a right, a wrong response
    weights = (right[:, None] * wrong[None, :]).flatten()  # every pair of temperatures, weighted by how often it occurs
    K = len(p)
    chosen, rejected = (ids.flatten()[:, None] for ids in torch.meshgrid(torch.arange(K), torch.arange(K), indexing="ij"))
    z = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(K * K, 1, dtype=torch.bool)
    optimizer = torch.optim.LBFGS(
        [z], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-12
    )

    def closure():
        optimizer.zero_grad()
        logits = z.expand(K * K, 1, K)
        loss = (
            weights * preference_loss(choice_scores(logits, chosen, mask), choice_scores(logits, rejected, mask), beta)
        ).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    odds = (p / (1 - p)) ** (1 / beta)
    torch.testing.assert_close(z.detach().softmax(-1), odds / odds.sum(), atol=1e-4, rtol=1e-4)


def test_shapes_that_do_not_fit_are_refused_before_they_are_broadcast():
    with pytest.raises(ValueError, match=r"\(3,\) and \(1,\)"):
        preference_loss(torch.zeros(3), torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="temperature_ids"):
        choice_scores(torch.zeros(2, 3, 4), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="beta"):
        preference_loss(torch.zeros(3), torch.zeros(3), 0.0)
