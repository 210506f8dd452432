"""LPO: every loss finds what pays, resumes to the bit, and leaves alone what it should."""

import copy
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions, unpack
from minilpo.config import LOSSES, LPOConfig
from minilpo.constant_control import fitting
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import GreedyHead, SampledHead
from minilpo.decoding.rollout import Scored, forward_rollout, score
from minilpo.decoding.sampling import entropy
from minilpo.joint_score import JointScore
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.losses import preference_loss
from minilpo.lpo import HeadScore, fit, train_lpo, training_of
from minilpo.preferences import (
    RULES,
    PreferencePairs,
    all_pairs,
    best_worst_pairs,
    constrained_pairs,
    gap_pairs,
    top_bottom_pairs,
)
from minilpo.seeds import python_rng
from minilpo.tasks import Task, split_of
from minilpo.training import Written
from tests.conftest import CHOICES, seeded

COLD_OR_WARM = Temperatures([0.0, 1.5])


class Bandit(Task):
    """A task for any prompt: the reward is the share of different words in the response."""

    name = "bandit"

    def prompt(self, rng):
        things, others = rng.choice(["apples", "shells", "cards"]), rng.choice(["pens", "cakes"])
        return f"Mia has {rng.randint(3, 15)} {things}. How many {others} are left?"

    def reward(self, prompt, response):
        return float(len(set(response.split())) / max(1, len(response.split())))


def small(level="sequence", **settings):
    """A short training."""
    defaults = {
        "rounds": 2,
        "prompts": 16,
        "samples": 8,
        "epochs": 20,
        "pairs_per_batch": 8,
        "head_learning_rate": 0.01,
    }
    return LPOConfig(**{**defaults, "validation_prompts": 4, **settings}).resolved(level)


def new_head(choices=COLD_OR_WARM, level="sequence", kind=AdaptiveDecoder):
    return kind(16, len(choices), level, n_hidden=16, generator=seeded(0))


def pairs_of(chosen, rejected):
    """Pairs that count the same."""
    chosen, rejected = torch.as_tensor(chosen), torch.as_tensor(rejected)
    return PreferencePairs(chosen, rejected, 0, torch.ones(len(chosen)))


def same(a, b):
    """Whether two modules, or states of modules, are equal to the bit."""
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def kept_in(states):
    """What a training does after each round, to keep all that is needed to go on."""
    return [lambda training, round: states.append(copy.deepcopy(training.state_dict()))]


# One step


def test_one_step_of_lpo_by_hand_with_two_prompts_and_three_temperatures():
    """From rewards to the head's new weights, every number worked out with a pencil."""
    # Three responses to each of two prompts, each written at one of the temperatures 0, 1 and 2.
    decisions = Decisions(
        features=torch.randn(2, 4, generator=seeded(0)).repeat_interleave(3, 0),  # per prompt
        choice_ids=torch.tensor([[0], [1], [2], [2], [0], [1]]),
        mask=torch.ones(6, 1, dtype=torch.bool),
    )
    rewards = torch.tensor([[0.2, 0.9, 0.5], [1.0, 0.4, 0.6]])

    # The best and the worst response to each prompt. Rows 0 to 2 belong to the first prompt, where
    # 0.9 beats 0.2; rows 3 to 5 to the second, where 1.0 beats 0.4.
    pairs = best_worst_pairs(rewards, seeded(0))
    assert (pairs.chosen.tolist(), pairs.rejected.tolist()) == ([1, 3], [0, 4])
    # So temperature 1 won against 0 once, and temperature 2 won against 0 once.
    assert decisions.choice_ids[pairs.chosen, 0].tolist() == [1, 2]
    assert decisions.choice_ids[pairs.rejected, 0].tolist() == [0, 0]

    # An untrained head gives each of three temperatures 1 / 3, so each score is log(1 / 3).
    head = AdaptiveDecoder(4, 3, n_hidden=5, generator=seeded(1))
    config = LPOConfig(loss="eq10", reference="none", beta=2.0, epochs=1, pairs_per_batch=2)
    scores, _ = HeadScore(head, config)(decisions)
    assert scores.tolist() == pytest.approx([-1.0986] * 6, abs=1e-4)

    # The margins are log(1 / 3) - log(1 / 3) = 0, and the losses -log sigmoid(2 * 0) = log 2.
    margins = scores[pairs.chosen] - scores[pairs.rejected]
    assert margins.tolist() == [0.0, 0.0]
    losses = preference_loss(scores[pairs.chosen], scores[pairs.rejected], beta=2.0)
    assert losses.tolist() == pytest.approx([0.6931, 0.6931], abs=1e-4)

    # The derivative of -log sigmoid(2 * margin) by the margin is -2 * sigmoid(-2 * margin), here
    # -2 * 1/2 = -1. The margin is the logit of what was chosen minus that of what was rejected: the
    # normaliser cancels. So the first pair has the gradient (+1, -1, 0) on the logits of the three
    # temperatures, the second (+1, 0, -1), and their mean is (1, -1/2, -1/2). The last layer adds
    # its bias to the logits, so this is the gradient of the bias.
    losses.mean().backward()
    assert head.mlp[-1].bias.grad.tolist() == pytest.approx([1.0, -0.5, -0.5])
    # Its weights are still zero, and let no gradient through to the layers before it.
    assert not head.mlp[0].weight.grad.any() and not head.mlp[2].weight.grad.any()

    # One step of plain gradient descent at rate 0.1, from a bias of 0: -0.1 times the gradient.
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    fit(HeadScore(head, config), decisions, pairs, optimizer, config, seeded(2))
    assert head.mlp[-1].bias.tolist() == pytest.approx([-0.1, 0.05, 0.05])
    # Temperature 0 lost twice: it is less likely now, after either prompt.
    probs = head(decisions.features).softmax(-1)
    assert (probs[:, 0] < 1 / 3).all() and (probs[:, 1:] > 1 / 3).any(1).all()


# Whole trainings


@pytest.mark.parametrize(
    "level, loss, rule",
    [
        (level, loss, rule)
        for level in ("sequence", "token")
        for loss in LOSSES
        for rule in ("best_worst", "nll")
        # eq11_marginal is for one temperature per response. With eq11, the NLL is about the words.
        if (level, loss) != ("token", "eq11_marginal")
        and (loss in ("eq9", "eq10") or rule != "nll")
    ],
)
def test_every_loss_finds_the_temperature_that_pays_and_leaves_the_language_model_alone(
    model, lm, level, loss, rule
):
    """Reward = share of different words. A greedy response repeats itself, so warm must win."""
    before = copy.deepcopy(model.state_dict())
    head, config = new_head(level=level), small(level, loss=loss, pairs=rule)
    log = train_lpo(lm, [Bandit()], head, COLD_OR_WARM, config, seed=0)
    assert same(model, before)
    first, last = log[0]["epochs"][0], log[0]["epochs"][-1]
    assert last["loss"] < first["loss"] and last["margin"] > first["margin"]
    assert last["entropy"] < first["entropy"]
    at_least = 0.7 if rule == "nll" else 0.9  # the NLL doesn't look at the rejected
    assert last["pair_accuracy"] > at_least
    assert log[0]["pairs"] + log[0]["dropped_prompts"] == 16
    prompts = [Bandit().prompt(python_rng(1, "new"))]
    made = generate(lm, prompts, GreedyHead(head, COLD_OR_WARM), seeded(0)).decisions
    mean = COLD_OR_WARM.table[made.choice_ids[made.mask]].mean()
    assert mean > 1.5 * (0.95 if level == "sequence" else 0.6)
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"]


def test_lpo_resumes_to_the_bit_and_keeps_the_head_that_is_best_on_held_out_prompts(lm):
    """Whichever round it was interrupted after."""
    choices = Temperatures([0.0, 0.7, 1.5])
    config = small(rounds=3, samples=4, epochs=2)
    whole, states = new_head(choices), []
    training = training_of(lm, whole, config, after_round=kept_in(states))
    log = train_lpo(lm, [Bandit()], whole, choices, config, 0, training)
    assert len(states) == len(log) == 3
    best = max(entry["validation_reward"] for entry in log)
    assert states[-1]["best"]["validation_reward"] == best
    assert same(whole, states[-1]["best"]["head"])
    assert not same(states[0]["head"], states[1]["head"])
    for state in states:
        resumed, later = new_head(choices), []
        training = training_of(lm, resumed, config, after_round=kept_in(later))
        training.load_state_dict(copy.deepcopy(state))
        assert train_lpo(lm, [Bandit()], resumed, choices, config, 0, training) == log
        assert same(resumed, whole)
        for got, expected in zip(later, states[len(state["log"]) :], strict=True):
            assert same(got["head"], expected["head"]) and got["log"] == expected["log"]
            for parameter, moments in expected["optimizer"].items():
                assert same(got["optimizer"][parameter], moments)


def test_each_round_is_on_new_prompts_and_validation_always_on_the_same_held_out_ones(lm):
    asked, rounds, splits = [], [], ("train", "validation", "test")

    class Recording(Bandit):
        def reward(self, prompt, response):
            asked.append(prompt)
            return super().reward(prompt, response)

    def after_round(training, round):
        rounds.append(
            {split: {prompt for prompt in asked if split_of(prompt) == split} for split in splits}
        )
        asked.clear()

    head, config = new_head(), small(rounds=3, samples=4, epochs=1)
    training = training_of(lm, head, config, after_round=[after_round])
    train_lpo(lm, [Recording()], head, COLD_OR_WARM, config, 0, training)
    trained_on, validated_on, never_seen = ([seen[split] for seen in rounds] for split in splits)
    assert [len(prompts) for prompts in trained_on] == [16] * 3
    assert [len(prompts) for prompts in validated_on] == [4] * 3
    assert all(trained_on[a] != trained_on[b] for a, b in [(0, 1), (0, 2), (1, 2)])
    assert validated_on[0] == validated_on[1] == validated_on[2]
    assert not any(never_seen)


def test_of_rounds_that_are_equally_good_on_held_out_prompts_the_first_is_kept(lm):
    class EqualOnValidation(Bandit):
        def reward(self, prompt, response):
            return 0.5 if split_of(prompt) == "validation" else super().reward(prompt, response)

    head, config, after = new_head(), small(rounds=3, epochs=2), []
    training = training_of(lm, head, config, after_round=kept_in(after))
    log = train_lpo(lm, [EqualOnValidation()], head, COLD_OR_WARM, config, 0, training)
    assert [entry["validation_reward"] for entry in log] == [0.5] * 3
    assert [same(head, state["head"]) for state in after] == [True, False, False]


def test_a_reward_that_never_varies_is_an_error_that_says_what_to_change(lm):
    class Flat(Bandit):
        def reward(self, prompt, response):
            return 0.5

    config = small(prompts=4, samples=2, validation_prompts=2)
    with pytest.raises(ValueError, match="different reward"):
        train_lpo(lm, [Flat()], new_head(), COLD_OR_WARM, config, seed=0)


def simulated(p, q, n_prompts, n_samples, seed):
    """Responses in several contexts.

    Choice k is right with probability p[c, k] and drawn with q[c, k].
    """
    contexts = len(p)
    states = torch.randn(contexts, 16, generator=seeded(seed))
    of_prompt = torch.arange(n_prompts) % contexts
    ids = torch.multinomial(
        q[of_prompt], n_samples, replacement=True, generator=seeded(seed + 1)
    )  # (P, N)
    right = torch.rand(n_prompts, n_samples, generator=seeded(seed + 2))
    rewards = (right < p[of_prompt].gather(1, ids)).float()
    decisions = Decisions(
        features=states[of_prompt].repeat_interleave(n_samples, 0),
        choice_ids=ids.flatten()[:, None],
        mask=torch.ones(n_prompts * n_samples, 1, dtype=torch.bool),
    )
    return states, decisions, best_worst_pairs(rewards, seeded(seed + 3))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["best_worst", "nll"])
def test_the_real_head_lands_on_the_closed_forms_in_several_contexts_at_once(rule, seed):
    """12,000 prompts of 8 samples, every probability within 0.05 of the closed form.

    That is (p / (1 - p))^(1 / beta) for Eq. 10, and q p for the NLL.
    """
    beta = [0.5, 1.0, 2.0, 1.0][seed]
    p = 0.2 + 0.6 * torch.rand(2, 4, generator=seeded(seed + 20))
    q = 0.1 + torch.rand(2, 4, generator=seeded(seed + 30))
    q /= q.sum(1, keepdim=True)
    states, decisions, pairs = simulated(p, q, 12_000, 8, seed)
    head = AdaptiveDecoder(16, 4, n_hidden=32, generator=seeded(seed))
    config = LPOConfig(loss="eq10", pairs=rule, beta=beta, epochs=4, pairs_per_batch=1000)
    config = config.resolved("sequence")
    for rate in (3e-3, 3e-3, 1e-3, 3e-4):
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        fit(HeadScore(head, config), decisions, pairs, optimizer, config, seeded(seed))
    expected = p * q if rule == "nll" else (p / (1 - p)) ** (1 / beta)
    got = head(states).softmax(-1).detach()
    torch.testing.assert_close(got, expected / expected.sum(1, keepdim=True), atol=0.05, rtol=0)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_with_a_frozen_language_model_eq_9_gives_the_head_of_eq_10(lm, level):
    heads = []
    for loss in ("eq9", "eq10"):
        heads.append(new_head(level=level))
        config = small(level, loss=loss, epochs=2)
        train_lpo(lm, [Bandit()], heads[-1], COLD_OR_WARM, config, seed=0)
    assert same(*heads)


TWO_PROMPTS = [
    "Mia has 7 apples. How many pens are left?",
    "Tell me a story of three sentences about a fox in the forest.",
]


def written_by(lm, head):
    """Six responses to each of two prompts of unlike length."""
    policy = SampledHead(head, CHOICES)
    return generate(lm, TWO_PROMPTS, policy, seeded(0), n_samples=6, max_new_tokens=20)


@pytest.fixture
def responses(lm, head):
    """A rollout of two prompts, and its rewards."""
    rollout = written_by(lm, head)
    return rollout, score(rollout, [Bandit(), Bandit()])


def log_probabilities(lm, rollout):
    """Of the responses' words, (R, T), and 0 behind them."""
    token_ids = rollout.token_ids[rollout.response_mask].long()
    logprobs = forward_rollout(lm, rollout)[1].log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]
    return unpack(logprobs, rollout.response_mask)


def test_reading_responses_again_gives_the_log_probabilities_and_states_of_one_at_a_time(
    lm, responses
):
    rollout, _ = responses
    hidden_states = unpack(forward_rollout(lm, rollout)[0], rollout.response_mask)
    logprobs, model, tokenizer = log_probabilities(lm, rollout), lm.model, lm.tokenizer
    for row in range(12):
        prompt = [*tokenizer.encode(rollout.prompts[row // 6]), tokenizer.sep_id]
        n = int(rollout.response_mask[row].sum())
        ids = torch.tensor([[*prompt, *rollout.token_ids[row, :n].tolist()]])
        h = model(ids[:, :-1])[0, len(prompt) - 1 :]
        expected = model.logits(h).log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(logprobs[row, :n], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(hidden_states[row, :n], h, atol=1e-4, rtol=1e-4)
        stored = rollout.decisions.features[row]
        torch.testing.assert_close(stored, h[0], atol=1e-4, rtol=1e-4)


def test_joint_training_makes_the_words_of_better_responses_likelier_than_a_frozen_copy_finds_them(
    lm, responses
):
    rollout, rewards = responses
    pairs = best_worst_pairs(rewards, seeded(0))
    before = GPTLanguageModel(copy.deepcopy(lm.model), lm.tokenizer)
    head = AdaptiveDecoder(16, 3, n_hidden=8, generator=seeded(0))
    config = small(loss="eq9", train_lm=True)
    joint = JointScore(lm, head, config)
    optimizer = torch.optim.Adam([*head.parameters(), *lm.model.parameters()], lr=1e-3)
    fit(joint, rollout, pairs, optimizer, config, seeded(0))
    gains = log_probabilities(lm, rollout) - log_probabilities(before, rollout)  # 0 behind the end
    chosen, rejected = (gains[side].sum(1).mean() for side in (pairs.chosen, pairs.rejected))
    assert chosen > rejected + 0.5
    assert same(joint.reference.model, before.model) and not same(lm.model, before.model)


def test_joint_training_resumes_to_the_bit_and_keeps_the_model_that_belongs_to_the_best_head(
    model, tokenizer
):
    config, choices = small(loss="eq9", train_lm=True, epochs=2, rounds=3), CHOICES
    states, results = [], []
    for start in (None, 1):
        lm, head = GPTLanguageModel(copy.deepcopy(model), tokenizer), new_head(choices)
        after_round = kept_in(states) if start is None else []
        training = training_of(lm, head, config, after_round=after_round)
        if start is not None:
            training.load_state_dict(copy.deepcopy(states[start]))
        log = train_lpo(lm, [Bandit()], head, choices, config, 0, training)
        results.append((log, lm.model, head))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1]) and same(results[0][2], results[1][2])
    assert not torch.equal(results[0][1].token_embedding.weight, model.token_embedding.weight)
    best = states[-1]["best"]
    assert same(results[0][1], best["model"]) and same(results[0][2], best["head"])


def test_only_responses_that_are_in_a_pair_are_kept_and_the_pairs_still_point_at_them(
    lm, head, monkeypatch
):
    monkeypatch.setattr("minilpo.lpo.PROMPTS_AT_ONCE", 7)
    config, rounds = small(rounds=1, prompts=20, samples=4, epochs=1), []
    keep = lambda training, round: rounds.append(round)  # noqa: E731
    training = training_of(lm, head.requires_grad_(True), config, after_round=[keep])
    [entry] = train_lpo(lm, [Bandit()], head, CHOICES, config, 0, training)
    rollout, pairs, prompts = rounds[0].rollout, rounds[0].pairs, rounds[0].written.prompts
    assert len(prompts) == len(set(prompts)) == 20 > 2 * 7
    rewards = torch.tensor(
        [Bandit().reward(p, r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)]
    )
    assert (rewards[pairs.chosen] > rewards[pairs.rejected]).all()
    assert [rollout.prompts[i] for i in pairs.chosen.tolist()] == [
        rollout.prompts[i] for i in pairs.rejected.tolist()
    ]
    assert len(pairs) + pairs.n_dropped == len(prompts) and entry["pairs"] == len(pairs)
    in_pairs = torch.cat([pairs.chosen, pairs.rejected]).tolist()
    assert sorted(in_pairs) == list(range(len(rollout.responses)))
    assert sum(entry["chosen_share"]["bandit"]) == pytest.approx(1)


def formed(rule, rollout, rewards, tasks):
    """The pairs that a rule forms, by its name."""
    config = small(pairs=rule, pairs_per_prompt=2)
    return RULES[rule].pairs(Scored(rollout, tasks, rewards), config, seeded(0))


def test_the_constrained_rule_looks_at_the_parts_that_the_task_names(responses):
    class Ruled(Bandit):
        quality, constraint = "length", "spread"

        def parts(self, prompt, response):
            return {"length": len(response) / 200, "spread": self.reward(prompt, response)}

    rollout, rewards = responses
    pairs = formed("constrained", rollout, rewards, [Ruled()] * 2)
    parts = [Ruled().parts("", response) for response in rollout.responses]
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        assert parts[chosen]["length"] >= parts[rejected]["length"]
        assert parts[chosen]["spread"] >= parts[rejected]["spread"]
    assert len(pairs.chosen) + pairs.n_dropped == 2


def test_pairs_are_formed_by_the_rule_that_is_named_of_rewards_where_there_is_no_constraint(
    responses,
):
    rollout, rewards = responses
    expected = {
        "best_worst": best_worst_pairs(rewards, seeded(0)),
        "top_bottom": top_bottom_pairs(rewards, 2, seeded(0)),
        "all": all_pairs(rewards),
        "gap": gap_pairs(rewards),
        "constrained": constrained_pairs(rewards, rewards, seeded(0)),
        "nll": best_worst_pairs(rewards, seeded(0)),
    }
    assert set(expected) == set(RULES)
    of_row = rewards.flatten()
    for rule, pairs in expected.items():
        got = formed(rule, rollout, rewards, [Bandit()] * 2)
        for name in ("chosen", "rejected", "weights"):
            assert torch.equal(getattr(got, name), getattr(pairs, name))
        assert (of_row[got.chosen] > of_row[got.rejected]).all() and len(got) >= 2


def test_the_constant_head_learns_from_the_first_round_and_says_the_same_to_everything(lm):
    head, constant, config = new_head(), new_head(kind=ConstantHead), small(rounds=1)
    control = fitting(constant, config)
    training = training_of(lm, head, config, after_round=[control])
    train_lpo(lm, [Bandit()], head, COLD_OR_WARM, config, 0, training)
    probs = constant(torch.randn(5, 16, generator=seeded(3))).softmax(-1)
    assert (probs == probs[0]).all() and probs[0, 1] > 0.6
    other = new_head()
    train_lpo(lm, [Bandit()], other, COLD_OR_WARM, config, seed=0)
    assert same(head, other)  # it changes nothing


def test_the_constant_head_is_fitted_in_the_first_round_only_and_comes_back_when_training_resumes(
    lm,
):
    def trained(rounds, state=None, after_round=()):
        head, constant = new_head(), new_head(kind=ConstantHead)
        config = small(rounds=rounds, epochs=2)
        after_round = [fitting(constant, config), *after_round]
        options = {"also": {"constant_head": constant}, "after_round": after_round}
        training = training_of(lm, head, config, **options)
        if state:
            training.load_state_dict(copy.deepcopy(state))
        train_lpo(lm, [Bandit()], head, COLD_OR_WARM, config, 0, training)
        return constant

    states = []
    one = trained(1, after_round=kept_in(states))
    assert not same(one, new_head(kind=ConstantHead))
    assert same(one, trained(3)) and same(one, trained(3, state=states[0]))


def test_pairs_with_the_same_temperature_on_both_sides_count_neither_for_nor_against_the_accuracy():
    head = AdaptiveDecoder(16, 3, n_hidden=8, generator=seeded(0))
    head.mlp[-1].bias.data = torch.tensor([0.0, 1.0, 2.0])  # the third temperature is the likeliest
    _, decisions, _ = simulated(torch.full((1, 3), 0.5), torch.full((1, 3), 1 / 3), 4, 16, 0)
    row = [decisions.choice_ids[:, 0].tolist().index(k) for k in range(3)]  # one by each choice
    config, standing_still = small(epochs=1), torch.optim.SGD(head.parameters(), lr=0.0)
    for sides, expected in [
        ([(2, 0), (2, 1), (0, 1), (0, 0), (1, 1), (2, 2), (2, 2)], 2 / 3),
        ([(0, 2), (1, 1)], 0.0),
        ([(1, 1), (2, 2)], 0.5),  # nothing to be right about
    ]:
        pairs = pairs_of(*([row[k] for k in side] for side in zip(*sides, strict=True)))
        options = standing_still, config, seeded(0)
        [epoch] = fit(HeadScore(head, config), decisions, pairs, *options)
        assert epoch["pair_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_log_of_joint_training_describes_the_joint_loss_of_the_model_as_it_has_become(
    lm, level
):
    """Eq. 9, counted again one response at a time.

    The states that were stored before would give Eq. 10.
    """
    head = AdaptiveDecoder(16, 3, level, n_hidden=8, generator=seeded(0))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(2))
    rollout, task_of = written_by(lm, head), [Bandit()] * 2
    scored, written = (
        Scored(rollout, task_of, score(rollout, task_of)),
        Written(task_of, TWO_PROMPTS),
    )
    written.keep(scored, all_pairs(scored.rewards))
    rollout, pairs = written.in_comparisons()
    made, model, tokenizer, before = (
        rollout.decisions,
        lm.model,
        lm.tokenizer,
        copy.deepcopy(lm.model),
    )
    config = small(level, loss="eq9", train_lm=True)
    joint = JointScore(lm, head, config)
    optimizer = torch.optim.Adam([*head.parameters(), *model.parameters()], lr=3e-3)
    log = fit(joint, rollout, pairs, optimizer, config, seeded(0))
    scores, entropies = [], []
    assert 6 < len(rollout.responses) <= 12
    for row, text in enumerate(rollout.prompts):
        prompt = [*tokenizer.encode(text), tokenizer.sep_id]
        words = rollout.token_ids[row, rollout.response_mask[row]].long()
        ids = torch.tensor([[*prompt, *words.tolist()]])
        now, then = (
            gpt.logits(gpt(ids)[0, len(prompt) - 1 : -1]).log_softmax(-1) for gpt in (model, before)
        )
        chosen = made.choice_ids[row, made.mask[row]]  # one, or one per token
        log_choices = head(model(ids)[0, len(prompt) - 1 :][: len(chosen)]).log_softmax(-1)
        of_words = (now - then).gather(-1, words[:, None]).sum()
        of_choices = (log_choices.gather(-1, chosen[:, None]) + torch.tensor(3.0).log()).sum()
        scores.append(of_words + of_choices)
        entropies.append(-(log_choices.exp() * log_choices).sum(-1))
    entropies = torch.cat(entropies)
    margin = torch.stack(
        [
            scores[a] - scores[b]
            for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)
        ]
    )
    assert margin.abs().min() > 0.05  # far from rounding
    entropy_before = entropy(head(made.features)).mean()  # of the head on what was stored
    assert abs(entropies.mean() - entropy_before) > 0.01
    expected = {
        "loss": -torch.nn.functional.logsigmoid(margin).mean(),
        "margin": margin.mean(),
        "pair_accuracy": (margin > 0).float().mean(),
        "entropy": entropies.mean(),
    }
    assert log[-1] == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-3
    )
    assert len(log) == config.epochs and log[-1]["loss"] < log[0]["loss"]


def test_only_our_own_language_model_can_be_trained_jointly(lm):
    class Foreign:
        end_ids, sentence_starts, max_length = lm.end_ids, lm.sentence_starts, lm.max_length

    config = small(loss="eq9", train_lm=True)
    with pytest.raises(ValueError, match="GPTLanguageModel to train, got Foreign"):
        training_of(Foreign(), new_head(), config)
    training_of(Foreign(), new_head(), small(loss="eq9"))  # the head alone can be


# Numbers that aren't finite


def test_a_fit_that_diverges_ends_at_once_and_names_the_flags_that_may_have_caused_it(
    lm, responses
):
    rollout, rewards = responses
    made, pairs = rollout.decisions, best_worst_pairs(rewards, seeded(0))
    config = small(loss="eq9", beta=2.5, pairs_per_batch=1)

    def message(config, what, unused=None, rate=torch.inf, pairs=pairs):
        head = AdaptiveDecoder(16, 3, n_hidden=8, generator=seeded(0))
        head.unused = unused
        scored = JointScore(lm, head, config) if config.train_lm else HeadScore(head, config)
        parameters = [p for module in scored.trained.values() for p in module.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=rate)
        with pytest.raises(
            ValueError, match=f"^the {what} must stay finite, got NaN or infinity in epoch 1 of "
        ) as error:
            examples = rollout if config.train_lm else made
            fit(scored, examples, pairs, optimizer, config, seeded(0))
        return str(error.value)

    said = message(config, "loss")  # of the second pair
    assert said.endswith(
        "in epoch 1 of 20 of LPO; lower --head-learning-rate (now 0.01) or --beta (now 2.5)"
    )
    said = message(replace(config, pairs="nll"), "loss")
    assert said.endswith("lower --head-learning-rate (now 0.01)")  # it has no beta
    # No loss comes after a single step, but the head would be kept.
    one_step = replace(config, pairs_per_batch=100, epochs=1)
    message(one_step, "loss or weights")
    broken = torch.nn.Parameter(torch.tensor(torch.inf))  # a weight that no score depends on
    message(one_step, "loss or weights", unused=broken, rate=0.0)
    a, b = 0, (made.choice_ids[:6, 0] != made.choice_ids[0, 0]).nonzero()[0].item()
    two_against_one = pairs_of([a, a, b], [b, b, a])
    infinite_loss = replace(one_step, beta=1e3)
    message(infinite_loss, "loss or weights", rate=1e34, pairs=two_against_one)
    said = message(replace(config, train_lm=True), "loss")
    assert said.endswith(
        "--head-learning-rate (now 0.01) or --lm-learning-rate (now 0.0001) or --beta (now 2.5)"
    )


BROKEN = "the language model's logits must be finite"


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("broken", ["token_embedding.weight", "norm.weight", "blocks.0.up.bias"])
def test_a_language_model_that_is_not_finite_is_named_as_the_cause_and_more_samples_are_not_advised(
    lm, level, broken
):
    dict(lm.model.named_parameters())[broken].fill_(torch.nan)
    with pytest.raises(ValueError, match=BROKEN) as error:
        train_lpo(lm, [Bandit()], new_head(level=level), COLD_OR_WARM, small(level), seed=0)
    assert "--samples" not in str(error.value) and "--head-learning-rate" not in str(error.value)
