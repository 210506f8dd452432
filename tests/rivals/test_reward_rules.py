"""Learning from all responses and their rewards: worked cases, gradients, and what is learned."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions
from minilpo.config import RULES as NAMES
from minilpo.config import LPOConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import GreedyHead
from minilpo.lpo import fit
from minilpo.preferences import best_worst_pairs, gap_pairs
from minilpo.rivals.reward_rules import (
    fit_rewards,
    grpo_loss,
    regression_loss,
    reinforce_loss,
    reward_groups,
    rule_losses,
    train_by_rewards,
)
from minilpo.seeds import python_rng
from minilpo.training import TrainState
from tests.conftest import seeded
from tests.test_lpo import COLD_OR_WARM, Bandit, kept_in, new_head, same, small

RULES = ("reinforce", "grpo", "regression")


def double(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def rewards_of(P, N, seed=1):
    return torch.rand(P, N, generator=seeded(seed), dtype=torch.float64)


# The losses


def test_reinforce_weighs_log_probabilities_by_the_distance_from_the_mean_of_the_prompt():
    scores, rewards = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[0.2, 0.9, 0.4]])  # mean .5
    losses = reinforce_loss(scores, rewards)
    torch.testing.assert_close(losses, torch.tensor([[-0.3, 0.8, -0.3]]))


@given(st.floats(-5, 5))
def test_a_prompt_on_which_all_got_more_teaches_reinforce_and_grpo_nothing_else(bonus):
    scores, rewards = double(3, 4), rewards_of(3, 4)
    torch.testing.assert_close(
        reinforce_loss(scores, rewards + bonus), reinforce_loss(scores, rewards)
    )
    logprobs, mask = scores[..., None], torch.ones(3, 4, 1, dtype=torch.bool)
    before = double(3, 4, 1, seed=2)
    torch.testing.assert_close(
        grpo_loss(logprobs, before, mask, rewards + bonus, 0.2),
        grpo_loss(logprobs, before, mask, rewards, 0.2),
    )


def test_grpo_counts_in_units_of_the_spread_of_the_prompt():
    logprobs, mask = double(3, 4, 2), torch.ones(3, 4, 2, dtype=torch.bool)
    rewards, before = rewards_of(3, 4), double(3, 4, 2, seed=2)
    once = grpo_loss(logprobs, before, mask, rewards, 0.2)
    ten_times = grpo_loss(logprobs, before, mask, 10 * rewards, 0.2)
    torch.testing.assert_close(once, ten_times, rtol=0.01, atol=0.01)
    equal = grpo_loss(logprobs, before, mask, torch.ones(3, 4), 0.2)
    assert not equal.any()  # no spread is no reason to divide by 0


@pytest.mark.parametrize(
    "ratio, reward, moves",
    [  # a better response gets no further once it is likelier, a worse one once it is less likely
        (1.0, 1, True),
        (1.3, 1, False),
        (0.7, 1, True),
        (1.0, 0, True),
        (1.3, 0, True),
        (0.7, 0, False),
    ],
)
def test_grpo_stops_where_a_choice_has_moved_as_far_as_it_may_and_only_there(ratio, reward, moves):
    before = torch.full((1, 2, 1), 0.3).log()
    logprobs = (before + torch.tensor(ratio).log()).requires_grad_()
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    rewards = torch.tensor([[reward, 1 - reward]])
    loss = grpo_loss(logprobs, before, mask, rewards.float(), clip=0.2)[0, 0]
    [gradient] = torch.autograd.grad(loss, logprobs)
    expected = -ratio * (1 if reward else -1) / 1.0002 if moves else 0.0  # A = .5 / (.5 + .0001)
    assert gradient[0, 0, 0].item() == pytest.approx(expected, rel=1e-4)


def test_grpo_clips_each_decision_by_itself_and_takes_the_mean_over_those_that_were_made():
    before = torch.zeros(1, 2, 3)
    logprobs = torch.tensor([[[1.1, 1.5, 9.0], [0.5, 0.9, 1.2]]]).log()
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    losses = grpo_loss(logprobs, before, mask, torch.tensor([[1.0, 0.0]]), clip=0.2)
    better, worse = -(1.1 + 1.2) / 2, (0.8 + 0.9 + 1.2) / 3
    torch.testing.assert_close(losses, torch.tensor([[better, worse]]) / 1.0002)


def test_regression_is_the_squared_error_of_a_reward_whose_log_odds_are_the_sum_of_the_logits():
    scores = torch.tensor([[0.0, torch.tensor(3.0).log()]])  # predict .5 and .75
    losses = regression_loss(scores, torch.tensor([[0.25, 1.0]]))
    torch.testing.assert_close(losses, torch.tensor([[0.0625, 0.0625]]))
    # Two decisions in the first response, three in the second; what is behind them doesn't count.
    mask = torch.tensor([[True, True, False], [True, True, True]])
    made = Decisions(torch.zeros(5, 1), torch.tensor([[0, 1, 0], [1, 1, 0]]), mask)
    logits = torch.tensor([[1.0, 9.0], [9.0, -1.0], [9.0, 0.5], [9.0, 0.5], [-2.0, 9.0]])
    rewards, config = torch.tensor([[0.25, 1.0]]), LPOConfig(rule="regression")
    groups = reward_groups(Said(logits), made, rewards, config, seeded(0))
    losses = rule_losses(Said(logits), made, groups, torch.tensor([0]), config)  # sums 0 and -1
    second = (1 - torch.tensor(-1.0).sigmoid()) ** 2
    torch.testing.assert_close(losses, torch.tensor([[0.0625, second]]))


class Said(AdaptiveDecoder):
    """A head that has said what it says, whatever it reads."""

    def __init__(self, logits):
        super().__init__(1, 2)
        self.logits = logits

    def forward(self, hidden_states):
        return self.logits


def test_what_stands_behind_the_end_of_a_response_has_no_effect_on_grpo_even_if_it_is_no_number():
    values, before = double(2, 3, 4), double(2, 3, 4, seed=3)
    mask = torch.rand(2, 3, 4, generator=seeded(6)) < 0.6
    mask[..., 0] = True

    def losses_and_gradient(values):
        values = values.clone().requires_grad_()
        losses = grpo_loss(values, before, mask, rewards_of(2, 3), 0.2)
        [gradient] = torch.autograd.grad(losses.sum(), values)
        return losses.detach(), gradient.masked_fill(~mask, 0.0)

    got = losses_and_gradient(values.masked_fill(~mask, torch.nan))
    torch.testing.assert_close(got, losses_and_gradient(values))


@pytest.mark.parametrize(
    "call",
    [
        lambda: reinforce_loss(torch.zeros(6), torch.zeros(6)),
        lambda: reinforce_loss(torch.zeros(2, 3), torch.zeros(3, 2)),
        lambda: grpo_loss(*[torch.zeros(2, 3, 1)] * 2, torch.ones(2, 3, 1) > 0, torch.zeros(6), 1),
        lambda: regression_loss(torch.zeros(6), torch.zeros(2, 3)),
    ],
)
def test_responses_must_come_prompt_by_prompt(call):
    with pytest.raises(ValueError, match=r"rewards must have shape \(P, N\).*all responses to a"):
        call()


def test_a_clip_must_be_above_0():
    zeros, mask = torch.zeros(1, 2, 1), torch.ones(1, 2, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="clip must be above 0, got 0"):
        grpo_loss(zeros, zeros, mask, torch.zeros(1, 2), clip=0)


# Gradients: what LPO has to do with it


@pytest.mark.parametrize("P, N", [(1, 2), (3, 5)])
def test_reinforce_is_the_pairs_weighted_by_their_gap_with_a_linear_loss(P, N):
    """Sum_i (r_i - mean) s_i = 1/N sum over pairs of (r_i - r_j) (s_i - s_j), whatever the s."""
    scores, rewards = double(P, N), rewards_of(P, N)
    pairs, of_row = gap_pairs(rewards), scores.flatten()
    margins = of_row[pairs.chosen] - of_row[pairs.rejected]
    linear = -(pairs.weights * margins).sum() / N
    torch.testing.assert_close(reinforce_loss(scores, rewards).sum(), linear)


def test_grpos_first_gradient_is_that_of_reinforce_with_rewards_in_units_of_their_spread():
    P, N = 3, 5
    made, rewards = drawn(P, N, K=4), rewards_of(P, N)
    logprobs = double(P, N, 1).requires_grad_()
    scaled = rewards / (rewards.std(1, correction=0, keepdim=True) + 1e-4)
    mask = made.mask.view(P, N, 1)
    [a] = torch.autograd.grad(
        grpo_loss(logprobs, logprobs.detach(), mask, rewards, 0.2).sum(), logprobs
    )
    [b] = torch.autograd.grad(reinforce_loss(logprobs[..., 0], scaled).sum(), logprobs)
    torch.testing.assert_close(a, b)


def drawn(P, N, K, S=1):
    """Decisions of P * N responses of S decisions each; what is read is one vector per prompt."""
    return Decisions(
        features=double(P, 8, seed=4).repeat_interleave(N * S, 0),
        choice_ids=torch.randint(0, K, (P * N, S), generator=seeded(5)),
        mask=torch.ones(P * N, S, dtype=torch.bool),
    )


# Groups


def test_groups_are_all_responses_and_as_pairs_the_best_and_the_worst_of_each_prompt():
    """Only regression learns from prompts whose responses all scored the same."""
    rewards = torch.tensor([[0.5, 0.1, 0.9], [0.4, 0.4, 0.4], [0.0, 1.0, 0.7]])
    made, head = drawn(3, 3, K=2), AdaptiveDecoder(8, 2)
    for rule in RULES:
        groups = reward_groups(head, made, rewards, LPOConfig(rule=rule), seeded(0))
        prompts = [0, 1, 2] if rule == "regression" else [0, 2]
        assert groups.rows.tolist() == [[3 * p, 3 * p + 1, 3 * p + 2] for p in prompts]
        assert torch.equal(groups.rewards, rewards[prompts])
        assert (groups.chosen.tolist(), groups.rejected.tolist()) == ([2, 7], [1, 6])
        assert groups.n_dropped == 1 and len(groups) == 2
    assert ("lpo", *RULES) == NAMES


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_head_that_drew_the_choices_is_what_grpo_compares_with(level):
    """So before the first step every ratio is 1, and the loss of a prompt is 0."""
    made = drawn(3, 4, K=2, S=1 if level == "sequence" else 5)
    head = AdaptiveDecoder(8, 2, level, generator=seeded(0)).double()
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(1))
    config, rewards = LPOConfig(rule="grpo"), rewards_of(3, 4)
    groups = reward_groups(head, made, rewards, config, seeded(0))
    probs = head(made.features).softmax(-1).gather(-1, made.choice_ids[made.mask][:, None])
    torch.testing.assert_close(groups.sampling_logprobs[made.mask], probs.log()[:, 0])
    assert not groups.sampling_logprobs.requires_grad
    losses = rule_losses(head, made, groups, torch.tensor([2, 0]), config)
    standard = (rewards - rewards.mean(1, True)) / (rewards.std(1, correction=0, keepdim=True))
    torch.testing.assert_close(losses, -standard[[2, 0]], rtol=2e-3, atol=2e-3)


# What is learned


def practised(name, draw, rounds=12, prompts=100, samples=16, K=3, **settings):
    """A real head that plays one context: each round draws by it and fits. Its probabilities."""
    config = {"rule": name, "loss": "eq10", "epochs": 4, "pairs_per_batch": 25, **settings}
    config = LPOConfig(**config, head_learning_rate=0.003)
    head, state = AdaptiveDecoder(8, K, n_hidden=16, generator=seeded(0)), torch.ones(1, 8)
    optimizer, generator = torch.optim.Adam(head.parameters(), lr=0.003), seeded(1)
    for _ in range(rounds):
        probs = head(state).softmax(-1)[0].detach()
        ids = torch.multinomial(probs, prompts * samples, replacement=True, generator=generator)
        rewards = draw(ids, generator).view(prompts, samples)
        mask = torch.ones(len(ids), 1, dtype=torch.bool)
        made = Decisions(state.expand(len(ids), -1), ids[:, None], mask)
        if name == "lpo":
            fit(head, made, best_worst_pairs(rewards, generator), optimizer, config, generator)
        else:
            groups = reward_groups(head, made, rewards, config, generator)
            fit_rewards(head, made, groups, optimizer, config, generator)
    return head(state).softmax(-1)[0].detach()


@pytest.mark.parametrize("best", range(3))
@pytest.mark.parametrize("name", RULES)
def test_every_rule_finds_the_choice_with_the_highest_mean_reward(name, best):
    means = torch.full((3,), 0.5).index_fill(0, torch.tensor(best), 0.7)

    def draw(ids, generator):
        return (torch.rand(len(ids), generator=generator) < means[ids]).float()

    assert practised(name, draw).argmax() == best


def safe_or_risky(ids, generator):
    """Choice 0 always gives .6; choice 1 gives 1 with probability .55, else 0."""
    luck = (torch.rand(len(ids), generator=generator) < 0.55).float()
    return torch.where(ids == 0, torch.tensor(0.6), luck)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_prefers_the_higher_mean_where_the_best_of_many_is_another(name):
    assert practised(name, safe_or_risky, K=2)[0] > 0.5


def test_best_and_worst_of_16_prefer_the_lower_mean_that_is_more_often_extreme():
    """The same responses: now choice 1, of mean .55, is preferred to .6."""
    settings = {"rounds": 3, "prompts": 4000, "epochs": 2}
    assert practised("lpo", safe_or_risky, K=2, **settings)[1] > 0.5


def test_regression_ends_at_the_mean_rewards_and_draws_as_eq_10_with_beta_1_would():
    """P in proportion to p / (1 - p), its closed form for rewards 0 and 1."""
    means = torch.tensor([0.3, 0.6, 0.8])

    def draw(ids, generator):
        return (torch.rand(len(ids), generator=generator) < means[ids]).float()

    got = practised("regression", draw, rounds=16, prompts=300)
    odds = means / (1 - means)
    torch.testing.assert_close(got, odds / odds.sum(), atol=0.05, rtol=0)


def test_with_many_epochs_on_the_same_responses_only_the_clipped_rule_stays_near_its_sampling():
    means = torch.tensor([0.45, 0.5, 0.55])

    def draw(ids, generator):
        return (torch.rand(len(ids), generator=generator) < means[ids]).float()

    once = {"rounds": 1, "epochs": 60}
    clipped, free = (practised(name, draw, **once) for name in ("grpo", "reinforce"))
    assert free.max() > 0.9 and (clipped - 1 / 3).abs().max() < 0.25


# In the training


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_a_head_resumes_to_the_bit_and_fills_the_same_log(model, lm, name, level):
    """Reward = share of different words. A greedy response repeats itself, so warm must win."""
    before, states, rounds = copy.deepcopy(model.state_dict()), [], []
    config = small(level, rule=name, epochs=8)
    head, constant = new_head(level=level), new_head(level=level, kind=ConstantHead)
    asked = lm, [Bandit()], head, COLD_OR_WARM, config, 0
    keep = lambda state, rollout, groups: rounds.append((rollout, groups))  # noqa: E731
    state = TrainState(head, config)
    state.callbacks += [fit_constant(constant, config, 0, fit_rewards), keep, kept_in(states)]
    log = train_by_rewards(*asked, state)
    assert same(model, before)
    assert log[0]["epochs"][-1]["loss"] < log[0]["epochs"][0]["loss"]
    assert log[0]["epochs"][-1]["margin"] > log[0]["epochs"][0]["margin"]
    if (name, level) == ("regression", "token"):  # one choice of many adds little to its sum
        assert log[0]["epochs"][-1]["entropy"] > 0.9 * math.log(2)
    else:
        assert log[1]["sampled_reward"] > log[0]["sampled_reward"]
    # All responses were learned from, and what the log says is about the best and the worst.
    rollout, groups = rounds[0]
    assert len(rollout) == 16 * 8 and groups.rows.numel() > 2 * log[0]["pairs"] == 2 * len(groups)
    assert sum(log[0]["chosen_share"]["bandit"]) == pytest.approx(1)
    counts, shares = {"round", "pairs", "dropped_prompts"}, {"chosen_share", "rejected_share"}
    means = {"sampled_reward", "validation_reward"}
    assert log[0].keys() == log[1].keys() == counts | shares | means | {"epochs"}
    # A head that sees nothing learned from the same.
    assert not same(constant, new_head(level=level, kind=ConstantHead))
    prompts = [Bandit().prompt(python_rng(1, "new"))]
    made = generate(lm, prompts, GreedyHead(head, COLD_OR_WARM), seeded(0)).decisions
    mean = COLD_OR_WARM.table[made.choice_ids[made.mask]].mean()
    assert mean > 1.5 * (0.95 if level == "sequence" else 0.6)
    # Resumed after the first round.
    other = new_head(level=level)
    state = TrainState(other, config)
    state.load_state_dict(copy.deepcopy(states[0]))
    assert train_by_rewards(lm, [Bandit()], other, COLD_OR_WARM, config, 0, state) == log
    assert same(head, other)


@pytest.mark.parametrize("name", RULES)
def test_a_reward_that_never_varies_is_an_error_with_every_rule(lm, name):
    class Flat(Bandit):
        def reward(self, prompt, response):
            return 0.5

    config = small(prompts=4, samples=2, validation_prompts=2, rule=name)
    with pytest.raises(ValueError, match="must have responses of different reward, but none has"):
        train_by_rewards(lm, [Flat()], new_head(), COLD_OR_WARM, config, seed=0)


def test_reinforce_can_be_about_the_words_as_eq_11_is(lm):
    """The probability of a response, whatever was chosen, may be made likelier too."""
    head, config = new_head(level="token"), small("token", rule="reinforce", loss="eq11", epochs=4)
    log = train_by_rewards(lm, [Bandit()], head, COLD_OR_WARM, config, seed=0)
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"]


def test_a_training_that_diverges_is_an_error_that_names_the_learning_rate():
    head, config = AdaptiveDecoder(8, 2), LPOConfig(rule="reinforce", head_learning_rate=10)
    rewards, made = torch.rand(2, 4, generator=seeded(0)), drawn(2, 4, K=2)
    groups = reward_groups(head, made, rewards, config, seeded(0))
    optimizer = torch.optim.SGD(head.parameters(), lr=torch.inf)
    with pytest.raises(ValueError, match=r"must stay finite.*--head-learning-rate \(now 10\)"):
        fit_rewards(head, made, groups, optimizer, config, seeded(0))


def test_the_loop_without_pairs_refuses_the_rule_that_has_pairs(lm):
    head = AdaptiveDecoder(16, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="reinforce, grpo or regression, got lpo"):
        train_by_rewards(lm, [], head, None, LPOConfig(), 0, respond=None)
