"""The single steps of LPO, each against a plain count: on responses made up here, without text."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch

from minilpo.adaptive_decoder import (
    AdaptiveDecoder,
    ConstantHead,
    Decisions,
    MarginalDecisions,
    unpack,
)
from minilpo.config import LPOConfig
from minilpo.constant_control import fitting
from minilpo.decoding.policies import GreedyHead, SampledHead
from minilpo.decoding.rollout import Rollout, Scored, score
from minilpo.joint_score import JointScore
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.losses import SCORES, choice_scores, latent_scores, marginal_scores
from minilpo.lpo import LEARNING_RULES, VALIDATION_SAMPLES, HeadScore, fit, train_lpo, training_of
from minilpo.machine.files import misfit
from minilpo.preferences import (
    RULES,
    PreferencePairs,
    all_pairs,
    best_worst_pairs,
    constrained_pairs,
    gap_pairs,
    top_bottom_pairs,
)
from minilpo.run.forms import lpo_log_form, wrong_rounds
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Task, mixed_prompts, split_of
from minilpo.training import Training, Written, describe_fit, optimizer_of
from tests.conftest import CHOICES, seeded
from tests.standin import Model, Told, Warmth, Words, Writer, language_model, rewards_of


def config_of(level="token", **settings):
    return LPOConfig(**{"epochs": 3, "pairs_per_batch": 4, **settings}).resolved(level)


def rollout_of(level="token", n_prompts=4, n_samples=3, seed=0):
    """Responses of 1 to 5 tokens, with a decision for each or for the first alone."""
    R, T, K = n_prompts * n_samples, 5, len(CHOICES)
    lengths = torch.randint(1, T + 1, (R, 1), generator=seeded(seed))
    lengths[0], lengths[-1] = T, 1
    response_mask = torch.arange(T) < lengths
    mask = response_mask if level == "token" else response_mask[:, :1]
    return Rollout(
        prompts=[f"prompt {p}" for p in range(n_prompts)],
        n_samples=n_samples,
        responses=[f"response {r}" for r in range(R)],
        token_ids=torch.randint(0, 9, (R, T), generator=seeded(seed + 1)),
        response_mask=response_mask,
        decisions=Decisions(
            features=torch.randn(int(mask.sum()), 16, generator=seeded(seed + 2)),
            choice_ids=torch.randint(0, K, mask.shape, generator=seeded(seed + 3)) * mask,
            mask=mask,
        ),
    )


def marginal(rollout, seed=4):
    """The decisions of a rollout with constants for Eq. 11 that are made up."""
    made, shape = rollout.decisions, (*rollout.response_mask.shape, len(CHOICES))
    logprobs = -3 * torch.rand(shape, generator=seeded(seed))
    features, ids, mask = made.features, made.choice_ids, made.mask
    return MarginalDecisions(features, ids, mask, logprobs, rollout.response_mask)


def head_of(level="token", seed=0):
    head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(seed))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(seed + 1))
    return head


def scores_of(score, examples):
    return score(examples)[0]


def same(a, b):
    """Whether two modules, or states of modules, are equal to the bit."""
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


WEIGHTS = torch.tensor([1.0, 0.5, 0.25, 2.0, 1.5, 0.75])
PAIRS = PreferencePairs(
    torch.tensor([0, 3, 6, 9, 1, 4]), torch.tensor([2, 5, 8, 11, 2, 3]), 1, WEIGHTS
)


# Pairs


class Rated(Task):
    """A task without a rule."""

    name = "rated"


class Ruled(Task):
    """A task with a rule.

    Response r to prompt p has (7 r + p) mod 10 tenths of taste, and 3 r mod 10 tenths of the rule.
    """

    name, quality, constraint = "ruled", "taste", "rule"

    def parts(self, prompt, response):
        p, r = int(prompt.split()[1]), int(response.split()[1])
        return {"rule": 3 * r % 10 / 10, "other": 1.0, "taste": (7 * r + p) % 10 / 10}


def same_pairs(a, b):
    return (
        a.chosen.tolist() == b.chosen.tolist()
        and a.rejected.tolist() == b.rejected.tolist()
        and a.weights.tolist() == b.weights.tolist()
        and a.n_dropped == b.n_dropped
    )


def formed(rollout, rewards, tasks, **settings):
    """The pairs that the configuration asks for."""
    config = config_of(**settings)
    return RULES[config.pairs].pairs(Scored(rollout, tasks, rewards), config, seeded(5))


def test_the_configuration_names_the_rule_that_forms_the_pairs():
    rollout, rewards = rollout_of(n_samples=6), torch.randint(0, 4, (4, 6), generator=seeded(0)) / 4
    expected = {
        "best_worst": best_worst_pairs(rewards, seeded(5)),
        "nll": best_worst_pairs(rewards, seeded(5)),
        "top_bottom": top_bottom_pairs(rewards, 2, seeded(5)),
        "all": all_pairs(rewards),
        "gap": gap_pairs(rewards),
    }
    for rule, pairs in expected.items():  # whatever parts the task has
        got = formed(rollout, rewards, [Ruled()] * 4, pairs=rule, pairs_per_prompt=2)
        assert same_pairs(got, pairs)
    got = formed(rollout, rewards, [Rated()] * 4, pairs="constrained")
    assert same_pairs(got, constrained_pairs(rewards, rewards, seeded(5)))
    assert len({len(pairs.chosen) for pairs in expected.values()}) == 3
    assert set(expected) | {"constrained"} == set(RULES)


def test_the_constrained_rule_has_the_parts_of_tasks_with_a_rule_and_the_reward_of_the_others():
    rollout = rollout_of(n_samples=6)
    rewards = torch.rand(4, 6, generator=seeded(0))
    quality, constraint = rewards.clone(), rewards.clone()
    for p in (1, 3):
        for n in range(6):
            parts = Ruled().parts(f"prompt {p}", f"response {6 * p + n}")
            quality[p, n], constraint[p, n] = parts["taste"], parts["rule"]
    tasks = [Rated(), Ruled(), Rated(), Ruled()]
    before = rewards.clone()
    pairs = formed(rollout, rewards, tasks, pairs="constrained")
    assert same_pairs(pairs, constrained_pairs(quality, constraint, seeded(5)))
    assert not same_pairs(pairs, constrained_pairs(rewards, rewards, seeded(5)))
    assert torch.equal(rewards, before)


# Scores


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", ["uniform", "none"])
def test_the_score_of_a_response_is_that_of_the_loss_with_the_options_of_the_configuration(
    level, reduce, reference
):
    rollout, head, uniform = rollout_of(level), head_of(level), reference == "uniform"
    made = marginal(rollout)
    logits = unpack(head(made.features), made.mask)
    drawn = (logits, made.choice_ids, made.mask)
    latent = (logits, made.choice_logprobs, rollout.response_mask)
    expected = {
        "eq9": choice_scores(*drawn, reduce=reduce, uniform_reference=uniform),
        "eq10": choice_scores(*drawn, reduce=reduce, uniform_reference=uniform),
        "eq11": latent_scores(*latent, reduce=reduce, uniform_reference=uniform),
    }
    if level == "sequence":
        expected["eq11_marginal"] = marginal_scores(*latent, uniform_reference=uniform)
    settings = {"reduce": reduce, "reference": reference}
    for loss, scores in expected.items():
        score = HeadScore(head, config_of(level, loss=loss, **settings))
        torch.testing.assert_close(scores_of(score, made), scores)
    # The baseline compares nothing, so there is nothing to compare the head with.
    score = HeadScore(head, config_of(level, loss="eq10", pairs="nll", **settings))
    without = choice_scores(*drawn, reduce=reduce, uniform_reference=False)
    torch.testing.assert_close(scores_of(score, made), without)


def test_only_the_losses_that_sum_over_temperatures_need_their_constants():
    made = rollout_of("sequence").decisions
    for loss in ("eq9", "eq10"):
        score = HeadScore(head_of("sequence"), config_of("sequence", loss=loss))
        assert scores_of(score, made).shape == (12,) and not SCORES[loss].is_marginal
    assert all(SCORES[loss].is_marginal for loss in ("eq11", "eq11_marginal")) and len(SCORES) == 4


def model_of(seed):
    model = Model()
    torch.nn.init.normal_(model.token_embedding.weight, generator=seeded(seed))
    return model


def joint_score_of(head, model, config):
    """The frozen copy is another model, so that the words' scores aren't 0."""
    joint = JointScore(GPTLanguageModel(model, Words()), head, config)
    joint.reference = GPTLanguageModel(model_of(9), Words())
    return joint


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", ["uniform", "none"])
def test_the_joint_score_is_that_of_the_words_and_that_of_the_choices_counted_one_by_one(
    level, reduce, reference
):
    """`Model` sees one token: before the first of a response, the end mark of the prompt."""
    rollout, head, model, frozen = rollout_of(level), head_of(level), model_of(0), model_of(9)
    config = config_of(level, loss="eq9", train_lm=True, reduce=reduce, reference=reference)
    scores, packed = joint_score_of(head, model, config)(rollout)
    made, logits = rollout.decisions, []
    for row in range(12):
        words, choices, last = [], [], Words.sep_id
        for t in range(int(rollout.response_mask[row].sum())):
            token, state = int(rollout.token_ids[row, t]), model.token_embedding.weight[last]
            now, then = (
                gpt.logits(gpt.token_embedding.weight[last]).softmax(-1)[token].item()
                for gpt in (model, frozen)
            )
            words.append(math.log(now / then))
            if t < made.mask.shape[1]:
                logits.append(head(state))
                prob = logits[-1].softmax(-1)[made.choice_ids[row, t]].item()
                choices.append(math.log(prob * (3 if reference == "uniform" else 1)))
            last = token
        means = sum(words) / len(words) + sum(choices) / len(choices)
        expected = means if reduce == "mean" else sum(words) + sum(choices)
        assert scores[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    torch.testing.assert_close(packed, torch.stack(logits))


# The step


@pytest.mark.parametrize(
    "loss, rule, joint",
    [
        ("eq10", "best_worst", False),
        ("eq10", "gap", False),
        ("eq10", "nll", False),
        ("eq9", "best_worst", True),
    ],
)
def test_a_fit_is_plain_gradient_descent_on_the_mean_loss_of_a_batch_in_the_order_of_the_generator(
    loss, rule, joint
):
    rollout = rollout_of()
    config = config_of(loss=loss, pairs=rule, beta=0.7, train_lm=joint)
    # 6 weighted pairs in batches of 4, three times
    if joint:
        trained, by_hand = (joint_score_of(head_of(), model_of(0), config) for _ in range(2))
    else:
        trained, by_hand = (HeadScore(head_of(), config) for _ in range(2))
    examples = trained.examples(language_model(), rollout, CHOICES)
    parameters, slow_parameters = (
        [p for module in score.trained.values() for p in module.parameters()]
        for score in (trained, by_hand)
    )
    assert len(parameters) == 6 + joint
    log = fit(trained, examples, PAIRS, torch.optim.SGD(parameters, lr=0.1), config, seeded(3))
    order = seeded(3)
    for _ in range(3):
        shuffled = torch.randperm(6, generator=order).tolist()
        for batch in (shuffled[:4], shuffled[4:]):
            total = 0.0
            for pair in batch:
                rows = torch.stack([PAIRS.chosen[pair], PAIRS.rejected[pair]])
                chosen, rejected = scores_of(by_hand, examples.rows(rows))
                of_pair = -(0.7 * (chosen - rejected)).sigmoid().log()
                total = total + WEIGHTS[pair] * (-chosen if rule == "nll" else of_pair)
            gradients = torch.autograd.grad(total / len(batch), slow_parameters)
            for parameter, gradient in zip(slow_parameters, gradients, strict=True):
                parameter.data -= 0.1 * gradient
    for parameter, expected in zip(parameters, slow_parameters, strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-4, rtol=1e-3)
    told = describe_fit(trained, examples, PAIRS, LEARNING_RULES["lpo"], config)
    assert len(log) == 3 and log[-1] == pytest.approx(told)
    assert log[0]["loss"] > log[1]["loss"] > log[2]["loss"]


# Tensors are enough: no text, no tokens, no language model


@dataclass
class Ratings:
    """What a rule is told of responses, without any responses."""

    rewards: torch.Tensor  # (P, N)
    parts: tuple = ()

    def quality_and_constraint(self):
        return self.parts or (self.rewards, self.rewards)


@pytest.mark.parametrize("rule", ["best_worst", "top_bottom", "all", "gap"])
@pytest.mark.parametrize(
    "pays",  # (contexts, K): the share of right responses that each choice gives
    [[[0.2, 0.5, 0.8]], [[0.8, 0.5, 0.2], [0.2, 0.5, 0.8]], [[0.3, 0.8, 0.3], [0.8, 0.2, 0.3]]],
    ids=["one context", "two contexts", "two other contexts"],
)
def test_a_head_learns_a_bandit_from_tensors_alone_a_choice_for_each_context(pays, rule):
    pays, P, N = torch.tensor(pays), 400, 8
    states = torch.randn(len(pays), 6, generator=seeded(0))  # what the head can tell contexts by
    context = torch.arange(P) % len(pays)
    choice_ids = torch.randint(0, 3, (P, N), generator=seeded(1))
    is_right = torch.rand(P, N, generator=seeded(2)) < pays[context[:, None], choice_ids]
    decisions = Decisions(
        features=states[context].repeat_interleave(N, 0),
        choice_ids=choice_ids.reshape(-1, 1),
        mask=torch.ones(P * N, 1, dtype=torch.bool),
    )
    head = AdaptiveDecoder(6, 3, n_hidden=8, generator=seeded(3))
    settings = {"loss": "eq10", "pairs": rule, "epochs": 6, "pairs_per_batch": 64}
    config = LPOConfig(**settings, head_learning_rate=0.02)
    pairs = RULES[rule].pairs(Ratings(is_right.float()), config, seeded(4))
    score = HeadScore(head, config)
    fit(score, decisions, pairs, optimizer_of(score, config), config, seeded(5))
    probs = head(states).softmax(-1)
    assert probs.argmax(-1).tolist() == pays.argmax(-1).tolist()
    assert (probs.amax(-1) > 0.5).all()  # more than all others together


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", SCORES)
def test_any_score_goes_with_any_rule_and_fitting_lowers_its_loss(loss, rule, level):
    if level == "token" and loss == "eq11_marginal":
        with pytest.raises(ValueError, match="eq11_marginal must come with --level sequence"):
            config_of(level, loss=loss)
        return
    settings = {"loss": loss, "pairs": rule, "epochs": 8, "pairs_per_prompt": 2}
    config = config_of(level, **settings, head_learning_rate=0.01)
    made = marginal(rollout_of(level, n_prompts=6, n_samples=6))
    rewards, *parts = torch.rand(3, 6, 6, generator=seeded(0))
    pairs = RULES[rule].pairs(Ratings(rewards, tuple(parts)), config, seeded(1))
    assert 4 <= len(pairs) <= 6 * 15
    score = HeadScore(head_of(level), config)
    before = describe_fit(score, made, pairs, LEARNING_RULES["lpo"], config)
    log = fit(score, made, pairs, optimizer_of(score, config), config, seeded(2))
    assert log[-1]["loss"] < log[0]["loss"] < before["loss"]


# The loop


TASKS = [Warmth("hot", True), Warmth("icecold", False)]


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr("minilpo.lpo.generate", writer := Writer())
    monkeypatch.setattr("minilpo.evaluation.measure.generate", writer)
    monkeypatch.setattr("minilpo.lpo.PROMPTS_AT_ONCE", 4)
    return writer


def one_round(config, head=None, tasks=TASKS, seed=0):
    """Trains for one round and returns the `Round` and its entry in the log."""
    head, rounds = head or head_of(), []
    keep = lambda training, round: rounds.append(round)  # noqa: E731
    lm, config = language_model(), replace(config, rounds=1)
    training = training_of(lm, head, config, after_round=[keep])
    [entry] = train_lpo(lm, tasks, head, CHOICES, config, seed, training)
    return rounds[0], entry


def test_rounds_write_for_new_prompts_with_the_head_and_for_the_same_held_out_ones_greedily(writer):
    config = config_of(
        rounds=3,
        prompts=11,
        samples=5,
        validation_prompts=3,
        epochs=2,
        loss="eq10",
        head_learning_rate=0.01,
    )
    lm, head, recorder, saved = language_model(), head_of(), Told(), []

    def save(training, round):
        state = {**training.state_dict(), "head": copy.deepcopy(training.state_dict()["head"])}
        saved.append((state, training.take_seconds()))

    training = training_of(lm, head, config, after_round=[save], progress=recorder)
    log = train_lpo(lm, TASKS, head, CHOICES, config, 7, training)
    expected = []
    for round in range(3):
        rng = python_rng(7, f"LPO prompts {round}")
        _, prompts = mixed_prompts(TASKS, 6, "train", rng)  # 12 for 11: as many of each
        for part in range(3):
            seed = torch_generator(7, f"LPO round {round} part {part}").initial_seed()
            some = prompts[4 * part : 4 * part + 4]
            expected.append((lm, some, "SampledHead", seed, 5))
        held_out = mixed_prompts(TASKS, 3, "validation", python_rng(7, "validation prompts"))[1]
        seed = torch_generator(7, "validation").initial_seed()
        expected.append((lm, held_out, "GreedyHead", seed, VALIDATION_SAMPLES))
    assert writer.calls == expected
    assert all(policy.head is head and policy.choices is CHOICES for policy in writer.policies)
    assert recorder.begun == [(3 * (60 + 24), 0)] and recorder.done == [20, 20, 20, 24] * 3
    for round, entry in enumerate(log):
        sampled = writer.calls[4 * round : 4 * round + 3], writer.texts[4 * round : 4 * round + 3]
        rewards = [
            reward
            for call, texts in zip(*sampled, strict=True)
            for reward in rewards_of(TASKS, call[1], texts)
        ]
        assert entry["round"] == round + 1 and len(entry["epochs"]) == 2
        assert entry["sampled_reward"] == pytest.approx(sum(rewards) / 60)
        of_prompt = [rewards[start : start + 5] for start in range(0, 60, 5)]
        flat = sum(max(five) == min(five) for five in of_prompt)
        assert entry["dropped_prompts"] == flat and entry["pairs"] == 12 - flat
        greedy = rewards_of(TASKS, writer.calls[4 * round + 3][1], writer.texts[4 * round + 3])
        assert entry["validation_reward"] == pytest.approx(sum(greedy) / 24)
    assert [set(state) for state, _ in saved] == [{"head", "optimizer", "log", "best"}] * 3
    assert all(
        set(seconds) == {"lpo", "rollout"} and 0 < min(seconds.values()) < 60
        for _, seconds in saved
    )
    first_of_best = max(log, key=lambda entry: entry["validation_reward"])["round"]
    assert saved[-1][0]["best"]["round"] == first_of_best and log is saved[-1][0]["log"]
    assert same(head, saved[first_of_best - 1][0]["head"])


def test_a_training_that_is_gone_on_with_says_what_was_done_before(writer):
    settings = {"prompts": 8, "samples": 5, "validation_prompts": 2, "loss": "eq10", "epochs": 1}
    config, lm, head = config_of(rounds=3, **settings), language_model(), head_of()
    training = training_of(lm, head, replace(config, rounds=2))
    train_lpo(lm, TASKS, head, CHOICES, replace(config, rounds=2), 0, training)
    state, recorder = copy.deepcopy(training.state_dict()), Told()
    training = training_of(lm, head, config, progress=recorder)
    training.load_state_dict(state)
    log = train_lpo(lm, TASKS, head, CHOICES, config, 0, training)
    per_round = 8 * 5 + 4 * VALIDATION_SAMPLES
    assert recorder.begun == [(3 * per_round, 2 * per_round)] and sum(recorder.done) == per_round
    assert [entry["round"] for entry in log] == [1, 2, 3]


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_joint_training_changes_head_and_model_at_their_own_rates_and_resumes_with_both(
    writer, reduce
):
    settings = {"rounds": 3, "prompts": 10, "samples": 4, "validation_prompts": 2, "loss": "eq9"}
    config = config_of(**settings, reduce=reduce, train_lm=True, epochs=1)
    results, states = [], []
    save = lambda training, _: states.append(copy.deepcopy(training.state_dict()))  # noqa: E731
    for start in (None, 1):
        head, model = head_of(), model_of(0).requires_grad_(False)
        lm = GPTLanguageModel(model, Words())
        training = training_of(lm, head, config, after_round=[] if start else [save])
        if start:
            training.load_state_dict(copy.deepcopy(states[start]))
        results.append((train_lpo(lm, TASKS, head, CHOICES, config, 0, training), head, model))
        joint = training.score
        assert type(joint) is JointScore and joint.lm is lm and joint.config.reduce == reduce
        assert joint.trained == {"head": head, "model": model}
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1]) and same(results[0][2], results[1][2])
    assert not same(states[0]["model"], model_of(0)) and not same(states[0]["head"], head_of())
    best = states[-1]["best"]
    assert same(results[0][1], best["head"]) and same(results[0][2], best["model"])


@pytest.mark.parametrize("loss", ["eq9", "eq10", "eq11"])
def test_the_constant_control_is_fitted_to_the_first_round_after_the_head_and_comes_back(
    writer, monkeypatch, loss
):
    """Comes back when training resumes. With Eq. 9 the language model is trained, but not by it."""
    settings = {"prompts": 10, "samples": 4, "validation_prompts": 2, "epochs": 2}
    config, states = config_of(rounds=3, loss=loss, train_lm=loss == "eq9", **settings), []
    made_up = lambda lm, rollout, choices: marginal(rollout)  # noqa: E731
    monkeypatch.setattr("minilpo.lpo.marginal_decisions", made_up)  # `Writer` always says the same

    def constant_of():
        return ConstantHead(16, len(CHOICES), "token", n_hidden=8, generator=seeded(0))

    def trained(rounds, state=None):
        head, constant = head_of(), constant_of()
        lm = GPTLanguageModel(model_of(0).requires_grad_(False), Words())
        save = lambda training, _: states.append(copy.deepcopy(training.state_dict()))  # noqa: E731
        after_round = [fitting(constant, config), save]
        options = {"also": {"constant_head": constant}, "after_round": after_round}
        training = training_of(lm, head, replace(config, rounds=rounds), **options)
        if state:
            training.load_state_dict(copy.deepcopy(state))
        train_lpo(lm, TASKS, head, CHOICES, replace(config, rounds=rounds), 0, training)
        return constant

    lm = GPTLanguageModel(model_of(0).requires_grad_(False), Words())
    head, by_hand = head_of(), constant_of()
    written, generator = collected(writer, config, head, seed=0, lm=lm)
    rollout, pairs = written.in_comparisons()
    training = training_of(lm, head, config)
    made = marginal(rollout) if loss == "eq11" else rollout.decisions
    examples = rollout if config.train_lm else made
    fit(training.score, examples, pairs, training.optimizer, config, generator)
    alone = HeadScore(by_hand, config)
    fit(alone, made, pairs, optimizer_of(alone, config), config, generator)
    three = trained(3)
    resumed = trained(3, state=states[0])
    parts = ["head", "optimizer", "log", "best", "constant_head"] + ["model"] * config.train_lm
    assert set(states[0]) == set(parts)
    assert not same(by_hand, constant_of())
    for constant in (
        trained(1),
        three,
        resumed,
        states[0]["constant_head"],
        states[2]["constant_head"],
    ):
        assert same(by_hand, constant)


def collected(writer, config, head, seed, lm, tasks=TASKS):
    """The first round's responses and pairs, made here, and the generator of its gradient steps."""
    rng, n = python_rng(seed, "LPO prompts 0"), -(-config.prompts // len(tasks))
    written = Written(*mixed_prompts(tasks, n, "train", rng))
    for part, task_of, prompts in written.parts(4):
        policy, draws = (
            SampledHead(head, CHOICES),
            torch_generator(seed, f"LPO round 0 part {part}"),
        )
        rollout = writer(lm, prompts, policy, draws, n_samples=config.samples)
        rewards = score(rollout, task_of)
        written.keep(Scored(rollout, task_of, rewards), best_worst_pairs(rewards, draws))
    return written, torch_generator(seed, "LPO round 0")


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_one_round_teaches_the_head_what_each_task_wants(writer, level):
    head = head_of(level)
    config = config_of(
        level,
        prompts=160,
        samples=8,
        validation_prompts=4,
        epochs=20,
        head_learning_rate=0.02,
        loss="eq10",
    )
    _, entry = one_round(config, head)
    assert entry["validation_reward"] == 1 > entry["sampled_reward"] + 0.2
    assert entry["chosen_share"]["hot"][2] > entry["rejected_share"]["hot"][2] + 0.2
    assert entry["chosen_share"]["icecold"][0] > entry["rejected_share"]["icecold"][0] + 0.2


def test_what_is_collected_are_the_pairs_of_all_prompts_and_the_shares_of_each_task(writer):
    settings = {"prompts": 14, "samples": 3, "validation_prompts": 2, "loss": "eq10", "epochs": 1}
    round, entry = one_round(config_of("sequence", **settings), head_of("sequence"))
    rollout, pairs, prompts = round.rollout, round.pairs, round.written.prompts
    assert [len(call[1]) for call in writer.calls] == [4, 4, 4, 2, 4] and rollout.n_samples == 1
    texts = [text for part in writer.texts[:4] for text in part]
    rewards = torch.tensor(rewards_of(TASKS, prompts, texts)).view(14, 3)
    assert 2 <= (rewards.amax(1) == rewards.amin(1)).sum() <= 10  # prompts that give no pair
    for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        assert rollout.prompts[a] == rollout.prompts[b]
        own = rewards[prompts.index(rollout.prompts[a])]
        of_pair = [rollout.responses[a], rollout.responses[b]]
        got = rewards_of(TASKS, [rollout.prompts[a], rollout.prompts[b]], of_pair)
        assert got == pytest.approx([own.max().item(), own.min().item()])
    assert {rollout.prompts[a] for a in pairs.chosen.tolist()} == {
        prompt for prompt, own in zip(prompts, rewards, strict=True) if own.max() > own.min()
    }
    assert entry["pairs"] == len(pairs) == 14 - pairs.n_dropped == 14 - entry["dropped_prompts"]
    assert entry["sampled_reward"] == pytest.approx(rewards.mean().item())
    for side, rows in (("chosen_share", pairs.chosen), ("rejected_share", pairs.rejected)):
        assert list(entry[side]) == ["hot", "icecold"]
        for name, shares in entry[side].items():
            # A response is the name of the temperature that it was written at.
            own = [
                rollout.responses[r] for r in rows.tolist() if rollout.prompts[r].startswith(name)
            ]
            assert shares == pytest.approx([own.count(k) / len(own) for k in CHOICES.names])


def test_constants_of_eq_11_are_computed_where_a_loss_needs_them_and_only_there(
    writer, monkeypatch
):
    asked, lm = [], language_model()
    constants = marginal(rollout_of())
    compute = lambda *arguments: asked.append(arguments) or constants  # noqa: E731
    monkeypatch.setattr("minilpo.lpo.marginal_decisions", compute)
    rollout = rollout_of("sequence")
    for loss, needs in [("eq9", 0), ("eq10", 0), ("eq11", 1), ("eq11_marginal", 1)]:
        config = config_of("sequence", loss=loss)
        examples = HeadScore(head_of("sequence"), config).examples(lm, rollout, CHOICES)
        assert len(asked) == needs
        assert examples is (constants if needs else rollout.decisions)
        assert all(arguments == (lm, rollout, CHOICES) for arguments in asked)
        asked.clear()


@pytest.mark.parametrize("loss", ["eq11", "eq11_marginal"])
def test_a_round_is_fitted_to_the_constants_of_the_responses_in_its_pairs(writer, loss):
    settings = {"prompts": 8, "samples": 5, "validation_prompts": 2, "epochs": 1}
    round, _ = one_round(config_of("sequence", loss=loss, **settings), head_of("sequence"))
    assert isinstance(round.examples, MarginalDecisions)
    assert round.examples.choice_logprobs.shape == (len(round.rollout.responses), 3, len(CHOICES))
    assert torch.equal(round.examples.token_mask, round.rollout.response_mask)


def test_the_validation_reward_is_the_mean_over_all_responses_to_all_held_out_prompts(writer):
    settings = {"prompts": 8, "samples": 4, "validation_prompts": 3, "loss": "eq10", "epochs": 1}
    round, entry = one_round(config_of(**settings), seed=5)
    _, prompts, how, seed, n_samples = writer.calls[-1]
    held_out = mixed_prompts(TASKS, 3, "validation", python_rng(5, "validation prompts"))[1]
    assert (prompts, how, n_samples) == (held_out, "GreedyHead", VALIDATION_SAMPLES)
    assert seed == torch_generator(5, "validation").initial_seed()
    assert type(writer.policies[-1]) is GreedyHead and len(writer.texts[-1]) == 24
    mean = sum(rewards_of(TASKS, prompts, writer.texts[-1])) / 24
    assert entry["validation_reward"] == round.validation_reward == pytest.approx(mean)


class Strict(Warmth):
    """With a rule that is about the task of the prompt."""

    quality, constraint = "taste", "rule"

    def parts(self, prompt, response):
        assert prompt.startswith(self.name)
        return {"taste": 0.5, "rule": self.reward(prompt, response)}


def test_what_is_collected_by_the_constrained_rule_looks_at_the_parts_of_its_own_responses(writer):
    tasks = [Strict("hot", True), Strict("icecold", False)]
    settings = {"prompts": 14, "samples": 5, "validation_prompts": 2, "epochs": 1}
    round, _ = one_round(config_of(loss="eq10", pairs="constrained", **settings), tasks=tasks)
    rollout, pairs = round.rollout, round.pairs
    of_name, kept = {task.name: task for task in tasks}, []
    for prompt, response in zip(rollout.prompts, rollout.responses, strict=True):
        kept.append(of_name[prompt.split()[0]].parts(prompt, response)["rule"])
    assert len(pairs) > 7 and all(
        kept[a] > kept[b] for a, b in zip(pairs.chosen, pairs.rejected, strict=True)
    )


def test_the_weights_of_pairs_stay_with_them_when_the_parts_of_a_round_are_put_together(writer):
    settings = {"prompts": 10, "samples": 4, "validation_prompts": 2, "epochs": 1}
    round, entry = one_round(config_of(loss="eq10", pairs="gap", **settings))
    rollout, pairs = round.rollout, round.pairs
    rewards = [
        {task.name: task for task in TASKS}[prompt.split()[0]].reward(prompt, response)
        for prompt, response in zip(rollout.prompts, rollout.responses, strict=True)
    ]
    sides = pairs.chosen.tolist(), pairs.rejected.tolist()
    gaps = [rewards[a] - rewards[b] for a, b in zip(*sides, strict=True)]
    assert pairs.weights.tolist() == pytest.approx(gaps, abs=1e-6) and min(gaps) > 0
    assert len(set(pairs.weights.tolist())) > 2 and entry["pairs"] == len(gaps) > 10


def test_a_round_without_a_pair_says_how_many_prompts_there_were_and_what_to_change(writer):
    head = head_of("sequence")
    head.mlp[-1].bias.data[1] = 1e4  # it always takes the same: all responses are equal
    with pytest.raises(
        ValueError,
        match="at least one of 6 prompts must have responses of different reward, got none; draw",
    ):
        one_round(config_of("sequence", prompts=6, samples=4, validation_prompts=2), head)


class Settled(Warmth):
    """After the first round, every response is as good as every other."""

    def __init__(self):
        super().__init__("settled", warm=True)
        self.rounds = 0

    def reward(self, prompt, response):
        return 0.5 if self.rounds else super().reward(prompt, response)

    def count(self, training, ended):
        self.rounds += 1


@pytest.mark.parametrize("settings", [{"loss": "eq10"}, {"loss": "eq10", "rule": "regression"}])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_later_round_without_a_pair_changes_nothing_and_loses_nothing(writer, level, settings):
    task, kept = Settled(), []
    keep = lambda training, ended: kept.append(copy.deepcopy(training.state_dict()))  # noqa: E731
    config = config_of(level, rounds=3, prompts=6, samples=4, validation_prompts=2, **settings)
    lm, head = language_model(), head_of(level)
    training = training_of(lm, head, config, after_round=[keep, task.count])
    log = train_lpo(lm, [task], head, CHOICES, config, 0, training)
    assert [entry["pairs"] > 0 for entry in log] == [True, False, False]
    assert [len(entry["epochs"]) for entry in log] == [config.epochs, 0, 0]
    assert log[1]["dropped_prompts"] == 6 and log[1]["sampled_reward"] == 0.5
    assert set(log[1]["chosen_share"]["settled"]) == {0.0}
    assert same(kept[1]["head"], kept[0]["head"]) and same(head, training.best["head"])
    assert wrong_rounds(log, 3, config.epochs) is None
    assert misfit(log, lpo_log_form([task], len(CHOICES))) is None


def test_the_log_of_a_round_has_as_many_epochs_as_were_asked_for_or_none_without_a_pair():
    entry = {"round": 1, "pairs": 5, "epochs": [{}, {}]}
    assert wrong_rounds([entry], 1, 2) is None
    assert "2 epochs instead of 3" in wrong_rounds([entry], 1, 3)
    assert "2 epochs instead of 0" in wrong_rounds([{**entry, "pairs": 0}], 1, 2)
    assert "counts [1]" in wrong_rounds([entry], 2, 2)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_prompt_that_is_too_long_is_named_before_anything_is_written(writer, split):
    class Long(Warmth):
        def prompt(self, rng):
            short = super().prompt(rng)
            long = short + " and on" * 99
            return long if split_of(long) == split and rng.random() < 0.2 else short

    config = config_of("sequence", rounds=4, prompts=8, samples=2, validation_prompts=8)
    message = "tokens, 'long [0-9]+ and on and on.*'; shorten it, or use a model with a larger max"
    with pytest.raises(ValueError, match=message):
        train_lpo(language_model(), [Long("long", True)], head_of("sequence"), CHOICES, config, 0)
    assert not writer.calls


def test_a_training_that_is_passed_is_the_one_that_is_gone_on_with(writer):
    """Else `train_lpo` makes its own, with the same result."""
    settings = {"rounds": 2, "prompts": 6, "samples": 4, "validation_prompts": 2, "epochs": 1}
    config, lm = config_of(loss="eq10", **settings), language_model()
    heads = [head_of(), head_of()]
    training = training_of(lm, heads[0], config)
    assert type(training) is Training
    logs = [
        train_lpo(lm, TASKS, heads[0], CHOICES, config, 0, training),
        train_lpo(lm, TASKS, heads[1], CHOICES, config, 0),
    ]
    assert logs[0] == logs[1] and same(*heads) and logs[0] is training.log
