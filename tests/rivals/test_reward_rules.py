"""Learning from all responses and their rewards: worked cases, gradients, and what is learned."""

import copy

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions
from minilpo.config import RULES as NAMES
from minilpo.config import LPOConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.rollout import MarginalDecisions
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
from minilpo.training import TrainState
from tests.conftest import CHOICES, seeded
from tests.standin import Writer, head_of, kept_in, language_model, same
from tests.test_lpo import COLD_OR_WARM, TASKS, Bandit, new_head, small, tiny

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


@pytest.mark.parametrize("reward", [1, 0])
@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.3])
def test_grpo_stops_where_a_choice_has_moved_as_far_as_it_may_and_only_there(ratio, reward):
    """A better response gets no further once it is likelier, a worse one once it is less likely."""
    before, mask = torch.full((1, 2, 1), 0.3).log(), torch.ones(1, 2, 1, dtype=torch.bool)
    logprobs = (before + torch.tensor(ratio).log()).requires_grad_()
    rewards = torch.tensor([[reward, 1.0 - reward]])
    loss = grpo_loss(logprobs, before, mask, rewards, clip=0.2)[0, 0]
    [gradient] = torch.autograd.grad(loss, logprobs)
    moves = ratio < 1.2 if reward else ratio > 0.8
    expected = -ratio * (1 if reward else -1) / 1.0002 if moves else 0.0  # A = .5 / (.5 + .0001)
    assert gradient[0, 0, 0].item() == pytest.approx(expected, rel=1e-4)


def test_grpo_clips_each_decision_by_itself_and_takes_the_mean_over_those_that_were_made():
    before = torch.zeros(1, 2, 3)
    logprobs = torch.tensor([[[1.1, 1.5, 9.0], [0.5, 0.9, 1.2]]]).log()
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    losses = grpo_loss(logprobs, before, mask, torch.tensor([[1.0, 0.0]]), clip=0.2)
    better, worse = -(1.1 + 1.2) / 2, (0.8 + 0.9 + 1.2) / 3
    torch.testing.assert_close(losses, torch.tensor([[better, worse]]) / 1.0002)
    # No spread is no reason to divide by 0.
    assert not grpo_loss(logprobs, before, mask, torch.ones(1, 2), clip=0.2).any()


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

    results = []
    for logprobs in (values.masked_fill(~mask, torch.nan), values):
        losses = grpo_loss(logprobs.requires_grad_(), before, mask, rewards_of(2, 3), 0.2)
        [gradient] = torch.autograd.grad(losses.sum(), logprobs)
        results.append((losses.detach(), gradient[mask]))
    torch.testing.assert_close(*results)


def test_responses_must_come_prompt_by_prompt_and_a_clip_be_above_0():
    flat, table, steps = torch.zeros(6), torch.zeros(2, 3), torch.zeros(2, 3, 1)
    for loss, arguments in (
        *((reinforce_loss, (flat, flat)), (reinforce_loss, (table, table.T))),
        *((grpo_loss, (steps, steps, steps > 0, flat, 1)), (regression_loss, (flat, table))),
    ):
        with pytest.raises(ValueError, match=r"must have shape \(P, N\).*all responses to a"):
            loss(*arguments)
    with pytest.raises(ValueError, match="clip must be above 0, got 0"):
        grpo_loss(steps, steps, steps > 0, table, clip=0)


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
    rewards, mask = rewards_of(3, 5), torch.ones(3, 5, 1, dtype=torch.bool)
    scaled = rewards / (rewards.std(1, correction=0, keepdim=True) + 1e-4)
    logprobs = double(3, 5, 1).requires_grad_()
    grpo = grpo_loss(logprobs, logprobs.detach(), mask, rewards, 0.2)
    reinforce = reinforce_loss(logprobs[..., 0], scaled)
    a, b = (torch.autograd.grad(losses.sum(), logprobs)[0] for losses in (grpo, reinforce))
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


def practised(name, draw, rounds=6, prompts=50, samples=16, K=3, **settings):
    """A real head that plays one context: each round draws by it and fits. Its probabilities."""
    config = {"rule": name, "loss": "eq10", "epochs": 4, "pairs_per_batch": 25, **settings}
    config = LPOConfig(**config, head_learning_rate=0.006)
    head, state = AdaptiveDecoder(8, K, n_hidden=16, generator=seeded(0)), torch.ones(1, 8)
    optimizer, generator = torch.optim.Adam(head.parameters(), lr=0.006), seeded(1)
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


def right_or_wrong(*means):
    """Rewards of 1 with the probability that belongs to the choice, else 0."""
    return lambda ids, generator: (
        torch.rand(len(ids), generator=generator) < torch.tensor(means)[ids]
    ).float()


def safe_or_risky(ids, generator):
    """Choice 0 always gives .6; choice 1 gives 1 with probability .55, else 0."""
    luck = right_or_wrong(0.55, 0.55)(ids, generator)
    return torch.where(ids == 0, torch.tensor(0.6), luck)


@pytest.mark.parametrize("best, name", [*enumerate(RULES)])
def test_every_rule_finds_the_highest_mean_reward_also_where_the_best_of_many_is_another(
    name, best
):
    means = [0.7 if k == best else 0.4 for k in range(3)]
    assert practised(name, right_or_wrong(*means)).argmax() == best
    assert practised(name, safe_or_risky, K=2)[0] > 0.52


def test_best_and_worst_of_16_prefer_the_lower_mean_that_is_more_often_extreme():
    """The same responses: now choice 1, of mean .55, is preferred to .6."""
    settings = {"rounds": 2, "prompts": 800, "epochs": 2}
    assert practised("lpo", safe_or_risky, K=2, **settings)[1] > 0.52


def test_regression_ends_at_the_mean_rewards_and_draws_as_eq_10_with_beta_1_would():
    """P in proportion to p / (1 - p), its closed form for rewards 0 and 1."""
    means = torch.tensor([0.3, 0.6, 0.8])
    got = practised("regression", right_or_wrong(*means.tolist()), rounds=12, prompts=150)
    odds = means / (1 - means)
    torch.testing.assert_close(got, odds / odds.sum(), atol=0.06, rtol=0)


def test_with_many_epochs_on_the_same_responses_only_the_clipped_rule_stays_near_its_sampling():
    draw, once = right_or_wrong(0.45, 0.5, 0.55), {"rounds": 1, "epochs": 30}
    clipped, free = (practised(name, draw, **once) for name in ("grpo", "reinforce"))
    assert free.max() > 0.9 and (clipped - 1 / 3).abs().max() < 0.25


# In the training, where a stand-in writes


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_a_head_and_resumes_to_the_bit(name, level):
    states, rounds, lm, writer = [], [], language_model(), Writer()
    config = tiny(level, rule=name, rounds=2, epochs=8, prompts=16, samples=8)
    head, constant = head_of(level), head_of(level, ConstantHead)
    keep = lambda state, rollout, groups: rounds.append((rollout, groups))  # noqa: E731
    state = TrainState(head, config)
    state.callbacks += [fit_constant(constant, config, 0, fit_rewards), keep, kept_in(states)]
    log = train_by_rewards(lm, TASKS, head, CHOICES, config, 0, state, writer.respond)
    first = log[0]["epochs"]
    assert first[-1]["loss"] < first[0]["loss"] and first[-1]["margin"] > first[0]["margin"]
    assert log[1]["validation_reward"] > 0.75  # 1 is the most
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"] + 0.1
    # All responses were learned from, and what the log says is about the best and the worst.
    rollout, groups = rounds[0]
    assert len(rollout) == 16 * 8 and groups.rows.numel() > 2 * log[0]["pairs"] == 2 * len(groups)
    assert sum(log[0]["chosen_share"]["hot"]) == pytest.approx(1)
    assert not same(constant, head_of(level, ConstantHead))  # it learned from the same
    assert same(head, states[-1]["best"]["head"])
    # Resumed after the first round.
    other = head_of(level)
    state = TrainState(other, config)
    state.load_state_dict(copy.deepcopy(states[0]))
    again = train_by_rewards(lm, TASKS, other, CHOICES, config, 0, state, writer.respond)
    assert again == log and same(head, other)


def test_reinforce_can_be_about_the_words_as_eq_11_is(model, lm):
    """The probability of a response, whatever was chosen, may be made likelier too."""
    before, head = copy.deepcopy(model.state_dict()), new_head(level="token")
    config = small("token", rule="reinforce", loss="eq11", epochs=2, prompts=12)
    state, made = TrainState(head, config), []
    state.callbacks.append(lambda state, rollout, groups: made.append(type(rollout.decisions)))
    log = train_by_rewards(lm, [Bandit()], head, COLD_OR_WARM, config, 0, state)
    assert made == [MarginalDecisions] * 2
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"]
    assert same(model, before)


def test_the_loop_without_pairs_refuses_the_rule_that_has_pairs(lm):
    with pytest.raises(ValueError, match="reinforce, grpo or regression, got lpo"):
        train_by_rewards(lm, [], head_of(), CHOICES, LPOConfig(), 0)
