"""LPO's losses: worked cases, properties, gradients by hand, and optima known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilpo.decoding.choices import FLOOR, Temperatures
from minilpo.decoding.sampling import draw, token_probs
from minilpo.losses import choice_scores, latent_scores, marginal_scores, nll_loss, preference_loss
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
    chosen, rejected = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    difference = preference_loss(chosen, rejected, beta) - preference_loss(rejected, chosen, beta)
    torch.testing.assert_close(difference, -beta * (chosen - rejected), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_gradient_on_the_head_is_the_one_derived_by_hand(beta):
    """The normaliser cancels: grad = -beta * sigmoid(-beta (z_c - z_r)) * (e_c - e_r)."""
    z = torch.randn(5, 1, 4, generator=seeded(0), dtype=torch.float64)  # (B, S, K)
    z.requires_grad_()
    chosen, rejected = torch.tensor([[0, 1, 2, 3, 0], [1, 0, 3, 2, 2]])[..., None]
    mask = torch.ones(5, 1, dtype=torch.bool)
    scores = choice_scores(z, chosen, mask), choice_scores(z, rejected, mask)
    preference_loss(*scores, beta).sum().backward()
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

    def loss(z):
        scores = (choice_scores(z, drawn, mask) for drawn in (ids, ids.flip(1)))
        return preference_loss(*scores, 0.7)

    assert torch.autograd.gradcheck(loss, z)


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
    """One context, binary reward: P(tau_k) is proportional to (p_k / (1 - p_k))^(1 / beta).

    It doesn't depend on q.
    """
    p, q = torch.tensor([p, q], dtype=torch.float64)
    # The temperatures behind a right and a wrong response, and how often each two meet in a pair.
    right, wrong = q * p / (q * p).sum(), q * (1 - p) / (q * (1 - p)).sum()
    weights, K = torch.outer(right, wrong).flatten(), len(p)
    chosen, rejected = torch.cartesian_prod(torch.arange(K), torch.arange(K)).T[..., None]
    mask = torch.ones(K * K, 1, dtype=torch.bool)

    def loss(z):
        logits = z.expand(K * K, 1, K)
        scores = (choice_scores(logits, ids, mask) for ids in (chosen, rejected))
        return (weights * preference_loss(*scores, beta)).sum()

    odds = (p / (1 - p)) ** (1 / beta)
    torch.testing.assert_close(minimiser(loss, K), odds / odds.sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_minimiser_of_the_baseline_follows_what_was_sampled(seed):
    """One context, binary reward: the NLL is least where P(tau_k) is proportional to q_k p_k."""
    p, q = (torch.rand(4, generator=seeded(10 * seed + i), dtype=torch.float64) for i in (1, 2))
    weights = q * p / (q * p).sum()  # how often each temperature is behind a right response
    ids, mask = torch.arange(4)[:, None], torch.ones(4, 1, dtype=torch.bool)

    def loss(z):
        return (weights * nll_loss(choice_scores(z.expand(4, 1, 4), ids, mask))).sum()

    torch.testing.assert_close(minimiser(loss, 4), weights, atol=1e-4, rtol=1e-4)


def minimiser(loss, K):
    """The probabilities of K choices at which a loss of their logits is lowest."""
    z = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    limits = {"max_iter": 500, "tolerance_grad": 1e-10, "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS([z], line_search_fn="strong_wolfe", **limits)

    def closure():
        optimizer.zero_grad()
        value = loss(z)
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach().softmax(-1)


# Three responses of up to T = 4 tokens, masked behind, with K = 3 temperatures.
MASK = torch.tensor([[True, True, True, False], [True, True, False, False], [True] * 4])


def random_case(seed, steps=4):
    z = torch.randn(3, steps, 3, generator=seeded(seed), dtype=torch.float64)
    return z, -5 * torch.rand(3, 4, 3, generator=seeded(seed + 100), dtype=torch.float64)


def test_the_gradient_of_the_baseline_is_the_one_derived_by_hand():
    """grad of -log softmax(z)_c is softmax(z) - e_c."""
    z = torch.randn(5, 1, 4, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0], [1], [2], [3], [0]])
    nll_loss(choice_scores(z, ids, torch.ones(5, 1, dtype=torch.bool))).sum().backward()
    expected = z.softmax(-1) - torch.nn.functional.one_hot(ids, 4)
    torch.testing.assert_close(z.grad, expected.detach())


def test_the_gradient_of_eq_11_is_posterior_minus_prior():
    """grad of log sum_k P(y|tau_k) P(tau_k) is P(tau_k|y) - P(tau_k), token by token.

    Behind the mask it is nothing.
    """
    z, logprobs = random_case(0)
    z.requires_grad_()
    latent_scores(z, logprobs, MASK).sum().backward()
    prior = z.softmax(-1)
    posterior = prior * logprobs.exp() / (prior * logprobs.exp()).sum(-1, keepdim=True)
    torch.testing.assert_close(z.grad, ((posterior - prior) * MASK[..., None]).detach())


def test_the_gradient_of_the_exact_marginal_is_the_posterior_of_the_response_minus_the_prior():
    z, logprobs = random_case(1, steps=1)
    z.requires_grad_()
    marginal_scores(z, logprobs, MASK).sum().backward()
    prior, likelihood = z[:, 0].softmax(-1), (logprobs * MASK[..., None]).sum(1).exp()
    posterior = prior * likelihood / (prior * likelihood).sum(-1, keepdim=True)
    torch.testing.assert_close(z.grad[:, 0], (posterior - prior).detach())


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", [False, True])
def test_every_score_passes_a_numerical_gradient_check(reduce, reference):
    options = {"reduce": reduce, "uniform_reference": reference}
    ids = torch.randint(0, 3, (3, 4), generator=seeded(0))
    z, logprobs = random_case(2)
    z.requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda z: choice_scores(z, ids, MASK, **options), z)
    assert check(lambda z: nll_loss(choice_scores(z, ids, MASK, **options)), z)
    assert check(lambda z: latent_scores(z, logprobs, MASK, **options), z)
    assert check(lambda z: latent_scores(z[:, :1], logprobs, MASK, **options), z)
    assert check(
        lambda z: marginal_scores(z[:, :1], logprobs, MASK, uniform_reference=reference), z
    )


def all_responses(logits, choices):
    """Every response of two words out of three, and its log-probabilities under each choice.

    The log-probabilities are (9, 2, K).
    """
    ids = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # (9, 2)
    per_token = [
        choices.logprobs(logits[t].expand(9, -1), ids[:, t], torch.tensor(t), floor=-200.0)
        for t in range(2)
    ]
    return ids, torch.stack(per_token, 1)


@pytest.mark.parametrize("seed", range(3))
def test_eq_11_is_the_enumeration_over_all_temperatures_on_a_vocabulary_of_three_words(seed):
    tau_choices = torch.tensor([0.0, 0.5, 1.25], dtype=torch.float64)
    K, mask = 3, torch.ones(9, 2, dtype=torch.bool)
    logits, z = (
        torch.randn(2, 3, generator=seeded(seed + s), dtype=torch.float64) for s in (0, 50)
    )
    ids, logprobs = all_responses(logits, Temperatures(tau_choices.tolist()))
    probs = torch.stack([token_probs(logits, tau.expand(2)) for tau in tau_choices])  # (K, 2, V)
    prior = z.softmax(-1)  # (2, K) one distribution a token
    token_level, sequence_level = torch.zeros(2, 9, dtype=torch.float64)
    for row, (first, second) in enumerate(ids.tolist()):
        for j in range(K):
            for k in range(K):
                token_level[row] += (
                    prior[0, j] * probs[j, 0, first] * prior[1, k] * probs[k, 1, second]
                )
            sequence_level[row] += prior[0, j] * probs[j, 0, first] * probs[j, 1, second]
    scores = latent_scores(z.expand(9, -1, -1), logprobs, mask, uniform_reference=False)
    torch.testing.assert_close(scores.exp(), token_level)
    assert scores.exp().sum().item() == pytest.approx(1)  # a distribution over all responses
    exact = marginal_scores(z[:1].expand(9, 1, -1), logprobs, mask, uniform_reference=False)
    torch.testing.assert_close(exact.exp(), sequence_level)
    assert exact.exp().sum().item() == pytest.approx(1)
    as_printed = latent_scores(z[:1].expand(9, 1, -1), logprobs, mask, uniform_reference=False)
    assert (as_printed - exact).abs().max() > 0.01  # at sequence level the two are different things


@pytest.mark.parametrize("scale", [2.0, 4.0])
@pytest.mark.parametrize("steps", [1, 20], ids=["sequence", "token"])
@pytest.mark.parametrize("temperatures", [(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 1.0)])
def test_the_floor_of_the_log_probabilities_changes_gradients_of_eq_11_by_at_most_4_in_10000(
    temperatures, steps, scale
):
    """Tokens as they are really written: drawn by a choice, which is drawn from the head."""
    choices, now = Temperatures(temperatures), torch.tensor(0)
    B, T, V, K = 100, 20, 300, len(choices)
    z = torch.randn(B, steps, K, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    logits = scale * torch.randn(B * T, V, generator=seeded(1), dtype=torch.float64)
    drawn = draw(z.detach().softmax(-1).flatten(0, 1), torch.rand(B * steps, generator=seeded(2)))
    choice_ids = drawn.repeat_interleave(T // steps)  # at sequence level one is for all tokens
    token_ids = choices.draw(logits, choice_ids, now, torch.rand(B * T, generator=seeded(3)))
    gradients = []
    for floor in ({}, {"floor": -60.0}):
        logprobs = choices.logprobs(logits, token_ids, now, **floor).view(B, T, K)
        scores = latent_scores(z, logprobs, torch.ones(B, T, dtype=torch.bool))
        gradients.append(torch.autograd.grad(scores.sum(), z)[0])
    assert (logprobs < FLOOR).double().mean() > 0.03  # the floor does play a part
    change = gradients[0] - gradients[1]
    assert 0 < change.norm() / gradients[1].norm() < 4e-4
    # A token of probability p under the mixture moves the posterior by e^-20 / p at most: by less
    # than 4 in 10,000 unless p is below 1 in 100,000, and so seldom is it drawn.
    probs = (logprobs.exp() * z.softmax(-1)).sum(-1).detach()  # (B, T)
    bound = (math.exp(-20) / probs).expand(B, T)
    if steps == 1:
        bound = bound.sum(1, keepdim=True)  # one distribution collects what all tokens say
    assert (change.abs() <= bound[..., None] * (1 + 1e-6)).all()


def test_a_uniform_head_scores_zero_against_the_uniform_reference():
    _, logprobs = random_case(3)
    zeros, ids = torch.zeros(3, 4, 3, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.long)
    for scores in (
        choice_scores(zeros, ids, MASK, uniform_reference=True),
        latent_scores(zeros, logprobs, MASK),
        marginal_scores(zeros[:, :1], logprobs, MASK),
    ):
        torch.testing.assert_close(scores, torch.zeros(3, dtype=torch.float64))


def test_the_reference_of_eq_10_counts_the_difference_in_length_and_the_mean_is_free_of_it():
    z, ids = random_case(0)[0], torch.zeros(3, 4, dtype=torch.long)
    n, log_3 = MASK.sum(1).double(), math.log(3)  # 3, 2 and 4 decisions
    plain, mean = (choice_scores(z, ids, MASK, reduce) for reduce in ("sum", "mean"))
    torch.testing.assert_close(choice_scores(z, ids, MASK, "sum", True), plain + n * log_3)
    torch.testing.assert_close(choice_scores(z, ids, MASK, "mean", True), mean + log_3)
    torch.testing.assert_close(mean, plain / n)


def test_the_mean_of_one_step_is_its_score_and_that_of_no_step_is_0():
    z, ids = torch.randn(2, 3, 4, generator=seeded(0)), torch.zeros(2, 3, dtype=torch.long)
    mask = torch.tensor([[True, False, False], [False, False, False]])
    mean, total = (choice_scores(z, ids, mask, reduce=reduce) for reduce in ("mean", "sum"))
    assert mean.tolist() == total.tolist() and mean[0] < 0 == mean[1]


def test_what_stands_behind_a_response_has_no_effect_on_any_score():
    z, logprobs = random_case(4)
    ids = torch.randint(0, 3, (3, 4), generator=seeded(0))
    junk = torch.where(MASK[..., None], logprobs, -99 * torch.ones_like(logprobs))
    other = torch.where(MASK[..., None], z, 7 * torch.arange(3.0, dtype=torch.float64))
    torch.testing.assert_close(latent_scores(other, junk, MASK), latent_scores(z, logprobs, MASK))
    torch.testing.assert_close(
        marginal_scores(z[:, :1], junk, MASK), marginal_scores(z[:, :1], logprobs, MASK)
    )
    torch.testing.assert_close(choice_scores(other, ids, MASK), choice_scores(z, ids, MASK))


def test_without_the_reference_a_score_is_the_log_probability_of_the_response_alone():
    z, logprobs = random_case(5)
    probs, likelihood = z.softmax(-1), logprobs.exp()
    for row, n in enumerate(MASK.sum(1).tolist()):
        per_token = (probs[row, :n] * likelihood[row, :n]).sum(-1).prod()
        as_one = (probs[row, 0] * likelihood[row, :n].prod(0)).sum()
        latent = latent_scores(z, logprobs, MASK, uniform_reference=False)[row]
        exact = marginal_scores(z[:, :1], logprobs, MASK, uniform_reference=False)[row]
        torch.testing.assert_close(
            torch.stack([latent, exact]).exp(), torch.stack([per_token, as_one])
        )


def test_shapes_that_do_not_fit_are_refused_before_they_are_broadcast():
    with pytest.raises(ValueError, match=r"\(3,\) and \(1,\)"):
        preference_loss(torch.zeros(3), torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="beta"):
        preference_loss(torch.zeros(3), torch.zeros(3), 0.0)
    logprobs, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for ids, made in ((mask[:, :1].long(), mask), (mask.long(), mask[:, :1])):
        with pytest.raises(ValueError, match="choice_ids and decision_mask must have shape"):
            choice_scores(logprobs, ids, made)
    for scores in (latent_scores, marginal_scores):
        with pytest.raises(ValueError, match="choice_logits"):
            scores(torch.zeros(2, 2, 4), logprobs, mask)
    for flat in (torch.zeros(2, 4), torch.zeros(2, 3, 4, 1)):
        with pytest.raises(ValueError, match="choice_logprobs must have shape"):
            latent_scores(torch.zeros(2, 3, 4), flat, mask)
    with pytest.raises(ValueError, match="one temperature per response"):
        marginal_scores(torch.zeros(2, 3, 4), logprobs, mask)
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        latent_scores(torch.zeros(2, 3, 4), logprobs, mask, reduce="max")
