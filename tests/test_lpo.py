"""LPO: each step is what a plain count gives, and a whole training finds what pays.

The first half needs no text: responses are made up here, or written by a stand-in that says nothing
but what was chosen. The second half trains on a very small language model.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch

from minilpo import config as settings_of
from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions, unpack
from minilpo.config import DEFAULT_LOSS, LOSSES, LPOConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding import GreedyHead, Rollout, SampledHead, Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.rollout import MarginalDecisions, score
from minilpo.losses import choice_scores, latent_scores, marginal_scores
from minilpo.lpo import fit, lpo_loss, response_scores, train_lpo
from minilpo.preferences import (
    PAIRS,
    PreferencePairs,
    all_pairs,
    best_worst_pairs,
    constrained_pairs,
    gap_pairs,
    top_bottom_pairs,
)
from minilpo.rivals.by_config import training_of
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Prompt, Task, mixed_prompts, split_of
from minilpo.training import VALIDATION_SAMPLES, describe_fit, form_pairs
from tests.conftest import CHOICES, seeded
from tests.standin import Warmth, Writer, head_of, kept_in, language_model, rewards_of, same

COLD_OR_WARM = Temperatures([0.0, 1.5])
TASKS = [Warmth("hot", True), Warmth("icecold", False)]
LEVELS_AND_LOSSES = [
    (level, loss)
    for level in ("sequence", "token")
    for loss in LOSSES
    if (level, loss) != ("token", "eq11_marginal")  # it is for one temperature per response
]
TRAININGS = {  # every loop promises what is tested with it
    "lpo": {"loss": "eq10"},
    "eq9": {"loss": "eq9", "train_lm": True},
    "regression": {"loss": "eq10", "rule": "regression"},
}


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
    sizes = {"rounds": 2, "prompts": 16, "samples": 8, "validation_prompts": 4}
    steps = {"epochs": 20, "pairs_per_batch": 8, "head_learning_rate": 0.01}
    return LPOConfig(**{**sizes, **steps, **settings}).resolved(level)


def tiny(level="token", **settings):
    """One that is shorter still, for the stand-ins."""
    sizes = {"rounds": 1, "prompts": 14, "samples": 4, "validation_prompts": 2, "epochs": 1}
    return small(level, **{"loss": "eq10", **sizes, **settings})


def new_head(choices=COLD_OR_WARM, level="sequence", kind=AdaptiveDecoder):
    return kind(16, len(choices), level, n_hidden=16, generator=seeded(0))


def train(lm, tasks, head, choices, config, seed=0, saved=None, callbacks=(), **options):
    """Trains as the configuration says, from the beginning or a saved state; returns the log."""
    loop, _, state = training_of(lm, head, config)
    if saved:
        state.load_state_dict(copy.deepcopy(saved))
    state.callbacks += callbacks
    return loop(lm, tasks, head, choices, config, seed, state, **options)


# Made-up responses


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


def marginal(rollout):
    """The decisions of a rollout with constants for Eq. 11 that are made up."""
    made, shape = rollout.decisions, (*rollout.response_mask.shape, len(CHOICES))
    logprobs = -3 * torch.rand(shape, generator=seeded(4))
    chosen = made.features, made.choice_ids, made.mask
    return MarginalDecisions(*chosen, logprobs, rollout.response_mask)


def pairs_of(chosen, rejected, weights=None):
    """Pairs that count the same, if nothing else is said."""
    chosen, rejected = torch.as_tensor(chosen), torch.as_tensor(rejected)
    return PreferencePairs(
        chosen, rejected, 0, torch.ones(len(chosen)) if weights is None else weights
    )


WEIGHTED = pairs_of(
    [0, 3, 6, 9, 1, 4], [2, 5, 8, 11, 2, 3], torch.tensor([1.0, 0.5, 0.25, 2.0, 1.5, 0.75])
)


def adam(head, config):
    return torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)


class Rated(Task):
    """A task without a rule; response r to prompt p has (5 r + p) mod 9 eighths."""

    name = "rated"

    def reward(self, prompt, response):
        p, r = int(prompt.split()[1]), int(response.split()[1])
        return (5 * r + p) % 9 / 8


class Ruled(Rated):
    """A task with a rule; the parts of its reward have nothing to do with the reward."""

    name, quality, constraint = "ruled", "taste", "rule"

    def parts(self, prompt, response):
        p, r = int(prompt.split()[1]), int(response.split()[1])
        return {"rule": 3 * r % 10 / 10, "other": 1.0, "taste": (7 * r + p) % 10 / 10}


def formed(rollout, tasks, **settings):
    """The pairs that the configuration asks for, and the rewards of the responses."""
    prompts = [Prompt(text, task) for text, task in zip(rollout.prompts, tasks, strict=True)]
    rewards = score(rollout, tasks)
    return form_pairs(rollout, rewards, prompts, small(**settings), seeded(5)), rewards


def same_pairs(a, b):
    sides = (vars(a).values(), vars(b).values())
    return all(torch.equal(*map(torch.as_tensor, two)) for two in zip(*sides, strict=True))


# One step by hand


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
    scores, _ = response_scores(head, decisions, config)
    assert scores.tolist() == pytest.approx([-1.0986] * 6, abs=1e-4)

    # The margins are log(1 / 3) - log(1 / 3) = 0, and the losses -log sigmoid(2 * 0) = log 2.
    assert (scores[pairs.chosen] - scores[pairs.rejected]).tolist() == [0.0, 0.0]
    losses = lpo_loss(scores, pairs, config)
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
    fit(head, decisions, pairs, optimizer, config, seeded(2))
    assert head.mlp[-1].bias.tolist() == pytest.approx([-0.1, 0.05, 0.05])
    # Temperature 0 lost twice: it is less likely now, after either prompt.
    probs = head(decisions.features).softmax(-1)
    assert (probs[:, 0] < 1 / 3).all() and (probs[:, 1:] > 1 / 3).any(1).all()


# Pairs


def test_the_configuration_names_the_pairs_that_are_formed():
    rollout = rollout_of(n_samples=6)
    _, rewards = formed(rollout, [Ruled()] * 4)
    expected = {
        "best_worst": best_worst_pairs(rewards, seeded(5)),
        "nll": best_worst_pairs(rewards, seeded(5)),
        "top_bottom": top_bottom_pairs(rewards, 2, seeded(5)),
        "all": all_pairs(rewards),
        "gap": gap_pairs(rewards),
    }
    for name, pairs in expected.items():  # whatever parts the task has
        assert same_pairs(formed(rollout, [Ruled()] * 4, pairs=name, pairs_per_prompt=2)[0], pairs)
    assert len({len(pairs) for pairs in expected.values()}) == 3
    assert {*expected, "constrained"} == set(settings_of.PAIRS_OR_NLL) == {*PAIRS, "nll"}


def test_constrained_pairs_have_the_parts_of_tasks_with_a_rule_and_the_reward_of_the_others():
    rollout = rollout_of(n_samples=6)
    pairs, rewards = formed(
        rollout, [Rated(), Ruled(), Rated(), Ruled()], loss="eq10", pairs="constrained"
    )
    quality, constraint = rewards.clone(), rewards.clone()
    for p in (1, 3):
        for n in range(6):
            parts = Ruled().parts(f"prompt {p}", f"response {6 * p + n}")
            quality[p, n], constraint[p, n] = parts["taste"], parts["rule"]
    assert same_pairs(pairs, constrained_pairs(quality, constraint, seeded(5)))
    assert not same_pairs(pairs, constrained_pairs(rewards, rewards, seeded(5)))


# Scores


@pytest.mark.parametrize("level, loss", LEVELS_AND_LOSSES)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", ["uniform", "none"])
def test_the_score_of_a_response_is_that_of_the_loss_with_the_options_of_the_configuration(
    level, loss, reduce, reference
):
    """Eq. 9 and 10 look at what was drawn; only Eq. 11 needs to know what could have been."""
    rollout, head, uniform = rollout_of(level), head_of(level), reference == "uniform"
    made = rollout.decisions if loss in ("eq9", "eq10") else marginal(rollout)
    logits = head(made.features)
    if loss == "eq11_marginal":
        function, options = marginal_scores, {}
    else:
        function, options = latent_scores if loss == "eq11" else choice_scores, {"reduce": reduce}
    steps = (made.choice_ids, made.mask)
    if function is not choice_scores:
        steps = (made.choice_logprobs, rollout.response_mask)
    unpacked = unpack(logits, made.mask)
    expected = function(unpacked, *steps, uniform_reference=uniform, **options)
    config = small(level, loss=loss, reduce=reduce, reference=reference)
    scores, packed = response_scores(head, made, config)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(packed, logits)


# The step


def descend(optimizer, scores_of, pairs, config, generator):
    """Gradient steps on the mean loss of a batch, one pair after the other."""
    for _ in range(config.epochs):
        for batch in torch.randperm(len(pairs), generator=generator).split(config.pairs_per_batch):
            total = 0.0
            for pair in batch:
                rows = torch.stack([pairs.chosen[pair], pairs.rejected[pair]])
                chosen, rejected = scores_of(rows)
                of_pair = -(config.beta * (chosen - rejected)).sigmoid().log()
                total += -chosen if config.pairs == "nll" else pairs.weights[pair] * of_pair
            optimizer.zero_grad()
            (total / len(batch)).backward()
            optimizer.step()


def close(a, b):
    """Fails unless two modules, or states of modules, are equal up to rounding."""
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    torch.testing.assert_close(dict(a), dict(b), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["best_worst", "gap", "nll"])
def test_a_fit_is_plain_gradient_descent_on_the_mean_loss_of_a_batch_in_the_order_of_the_generator(
    name,
):
    """6 weighted pairs in batches of 4, three times."""
    made, trained, by_hand = rollout_of().decisions, head_of(), head_of()
    config = tiny(pairs=name, beta=0.7, epochs=3, pairs_per_batch=4)
    slow, quick = (torch.optim.SGD(head.parameters(), lr=0.1) for head in (by_hand, trained))
    log = fit(trained, made, WEIGHTED, quick, config, seeded(3))
    scores_of = lambda rows: response_scores(by_hand, made.rows(rows), config)[0]  # noqa: E731
    descend(slow, scores_of, WEIGHTED, config, seeded(3))
    close(trained, by_hand)
    described = describe_fit(trained, made, WEIGHTED, config, response_scores, lpo_loss)
    assert len(log) == 3 and log[-1] == pytest.approx(described)
    assert log[0]["loss"] > log[1]["loss"] > log[2]["loss"]


@pytest.mark.parametrize("level, loss", LEVELS_AND_LOSSES)
@pytest.mark.parametrize("name", settings_of.PAIRS_OR_NLL)
def test_any_score_goes_with_any_pairs_and_fitting_lowers_its_loss(level, loss, name):
    config = small(level, loss=loss, pairs=name, epochs=8, pairs_per_prompt=2)
    rollout = rollout_of(level, n_prompts=6, n_samples=6)
    made = rollout.decisions if loss in ("eq9", "eq10") else marginal(rollout)
    pairs, _ = formed(rollout, [Ruled()] * 6, pairs=name, pairs_per_prompt=2)
    assert 4 <= len(pairs) <= 6 * 15
    head = head_of(level)
    before = describe_fit(head, made, pairs, config, response_scores, lpo_loss)
    log = fit(head, made, pairs, adam(head, config), config, seeded(2))
    assert log[-1]["loss"] < log[0]["loss"] < before["loss"]


def test_pairs_with_the_same_temperature_on_both_sides_count_neither_for_nor_against_the_accuracy():
    head = AdaptiveDecoder(16, 3, n_hidden=8, generator=seeded(0))
    head.mlp[-1].bias.data = torch.tensor([0.0, 1.0, 2.0])  # the third temperature is the likeliest
    decisions = Decisions(torch.zeros(3, 16), torch.arange(3)[:, None], torch.ones(3, 1).bool())
    standing_still = torch.optim.SGD(head.parameters(), lr=0.0)
    for sides, expected in [
        ([(2, 0), (2, 1), (0, 1), (0, 0), (1, 1), (2, 2), (2, 2)], 2 / 3),
        ([(0, 2), (1, 1)], 0.0),
        ([(1, 1), (2, 2)], 0.5),  # nothing to be right about
    ]:
        pairs = pairs_of(*zip(*sides, strict=True))
        [epoch] = fit(head, decisions, pairs, standing_still, tiny("sequence"), seeded(0))
        assert epoch["pair_accuracy"] == pytest.approx(expected)


# Where it leads: tensors are enough, no text, no tokens, no language model


def simulated(pays, drawn, n_prompts, n_samples, seed):
    """Responses in several contexts: states that tell them apart, decisions, and rewards, (P, N).

    Choice k is right with probability pays[c, k] and drawn with drawn[c, k].
    """
    states = torch.randn(len(pays), 16, generator=seeded(seed))
    of_prompt = torch.arange(n_prompts) % len(pays)
    ids = torch.multinomial(drawn[of_prompt], n_samples, True, generator=seeded(seed + 1))  # (P, N)
    right = torch.rand(n_prompts, n_samples, generator=seeded(seed + 2))
    decisions = Decisions(
        features=states[of_prompt].repeat_interleave(n_samples, 0),
        choice_ids=ids.flatten()[:, None],
        mask=torch.ones(n_prompts * n_samples, 1, dtype=torch.bool),
    )
    return states, decisions, (right < pays[of_prompt].gather(1, ids)).float()


@pytest.mark.parametrize("name, seed", [*(("best_worst", seed) for seed in range(3)), ("nll", 1)])
def test_the_real_head_lands_on_the_closed_forms_in_several_contexts_at_once(name, seed):
    """12,000 prompts of 8 samples, every probability within 0.05 of the closed form.

    That is (p / (1 - p))^(1 / beta) for Eq. 10, and q p for the NLL.
    """
    beta = [0.5, 1.0, 2.0][seed]
    p = 0.2 + 0.6 * torch.rand(2, 4, generator=seeded(seed + 20))
    q = 0.1 + torch.rand(2, 4, generator=seeded(seed + 30))
    q /= q.sum(1, keepdim=True)
    states, decisions, rewards = simulated(p, q, 12_000, 8, seed)
    pairs = best_worst_pairs(rewards, seeded(seed + 3))
    head = AdaptiveDecoder(16, 4, n_hidden=32, generator=seeded(seed))
    config = LPOConfig(loss="eq10", pairs=name, beta=beta, epochs=4, pairs_per_batch=1000)
    for rate in (3e-3, 3e-3, 1e-3, 3e-4):
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        fit(head, decisions, pairs, optimizer, config, seeded(seed))
    expected = p * q if name == "nll" else (p / (1 - p)) ** (1 / beta)
    got = head(states).softmax(-1).detach()
    torch.testing.assert_close(got, expected / expected.sum(1, keepdim=True), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["best_worst", "top_bottom", "all", "gap"])
@pytest.mark.parametrize("pays", [[[0.2, 0.5, 0.8]], [[0.3, 0.8, 0.3], [0.8, 0.2, 0.3]]])
def test_a_head_learns_from_tensors_alone_which_choice_pays_in_each_context(pays, name):
    pays = torch.tensor(pays)
    states, decisions, rewards = simulated(pays, torch.ones_like(pays), 400, 8, seed=0)
    head = AdaptiveDecoder(16, 3, n_hidden=8, generator=seeded(3))
    config = small(epochs=6, pairs_per_batch=64, head_learning_rate=0.02)
    pairs = PAIRS[name](rewards, 4, seeded(4))
    fit(head, decisions, pairs, adam(head, config), config, seeded(5))
    probs = head(states).softmax(-1)
    assert probs.argmax(-1).tolist() == pays.argmax(-1).tolist()
    assert (probs.amax(-1) > 0.5).all()  # more than all others together


# The loop, where a stand-in writes


@pytest.fixture
def writer(monkeypatch):
    """Writes four prompts at once."""
    monkeypatch.setattr("minilpo.training.PROMPTS_AT_ONCE", 4)
    return Writer()


def one_round(writer, config, head=None, tasks=TASKS, seed=0):
    """Trains for one round: what it was fitted to, and its entry in the log."""
    head, seen = head or head_of(), []
    keep = lambda state, rollout, pairs: seen.append((rollout, pairs))  # noqa: E731
    options = {"callbacks": [keep], "respond": writer.respond}
    [entry] = train(language_model(), tasks, head, CHOICES, config, seed, **options)
    return *seen[0], entry


def test_rounds_write_for_new_prompts_with_the_head_and_for_the_same_held_out_ones_greedily(writer):
    config = tiny(rounds=3, prompts=11, samples=5, validation_prompts=3, epochs=2)
    lm, head, states = language_model(), head_of(), []
    options = {"callbacks": [kept_in(states)], "respond": writer.respond}
    log = train(lm, TASKS, head, CHOICES, config, 7, **options)
    expected = []
    for n in range(3):
        prompts = mixed_prompts(TASKS, 6, "train", python_rng(7, f"LPO prompts {n}"))
        texts = [prompt.text for prompt in prompts]  # 12 for 11: as many of each
        key = torch_generator(7, f"LPO round {n}").initial_seed()
        expected += [(lm, texts[i : i + 4], "SampledHead", key, 5) for i in (0, 4, 8)]
        held_out = mixed_prompts(TASKS, 3, "validation", python_rng(7, "validation prompts"))
        key = torch_generator(7, "validation").initial_seed()
        texts = [prompt.text for prompt in held_out]
        expected.append((lm, texts, "GreedyHead", key, VALIDATION_SAMPLES))
    assert writer.calls == expected
    assert len({tuple(call[1]) for call in expected}) == 3 * 3 + 1  # new ones, and one held out
    assert all(policy.head is head and policy.choices is CHOICES for policy in writer.policies)
    for n, entry in enumerate(log):
        calls = [*zip(writer.calls, writer.texts, strict=True)][4 * n : 4 * n + 4]
        *sampled, greedy = (torch.tensor(rewards_of(TASKS, call[1], said)) for call, said in calls)
        rewards = torch.cat(sampled).view(12, 5)
        flat = int((rewards.amax(1) == rewards.amin(1)).sum())
        assert entry["round"] == n + 1 and len(entry["epochs"]) == 2
        assert entry["dropped_prompts"] == flat and entry["pairs"] == 12 - flat
        assert entry["sampled_reward"] == pytest.approx(rewards.mean().item())
        assert entry["validation_reward"] == pytest.approx(greedy.mean().item())
    assert [set(state) for state in states] == [{"head", "optimizer", "log", "best"}] * 3
    first_of_best = max(log, key=lambda entry: entry["validation_reward"])["round"]
    assert states[-1]["best"]["round"] == first_of_best
    assert same(head, states[first_of_best - 1]["head"])


class Ruling(Warmth):
    """With a rule, which is about the task of the prompt, and nothing else."""

    quality, constraint = "taste", "rule"

    def parts(self, prompt, response):
        assert prompt.startswith(self.name)
        return {"taste": 0.5, "rule": self.reward(prompt, response)}


@pytest.mark.parametrize("name", ["best_worst", "gap", "constrained"])
def test_a_training_is_what_a_plain_loop_makes_that_keeps_every_response_where_it_is(writer, name):
    """The same draws in the same order: per chunk the responses and the ties, then the batches."""
    config, states = tiny(rounds=2, pairs=name, pairs_per_batch=4, epochs=2), []
    tasks, lm = [Ruling("hot", True), Ruling("icecold", False)], language_model()
    options = {"callbacks": [kept_in(states)], "respond": writer.respond}
    train(lm, tasks, head_of(), CHOICES, config, **options)
    head = head_of()
    optimizer = adam(head, config)

    def scores_of(rows):
        for features, ids in (made[row] for row in rows.tolist()):  # 3 choices each
            yield (head(features).log_softmax(-1)[range(3), ids] + math.log(3)).sum()

    for n in range(2):
        generator, made, pairs = torch_generator(0, f"LPO round {n}"), [], []
        prompts = mixed_prompts(tasks, 7, "train", python_rng(0, f"LPO prompts {n}"))
        for i in range(0, 14, 4):
            draw = lm, prompts[i : i + 4], SampledHead(head, CHOICES), generator
            rollout, rewards = writer.respond(*draw, n_samples=4)
            parts = torch.stack([torch.full_like(rewards, 0.5), rewards])
            of_chunk = PAIRS[name](parts if name == "constrained" else rewards, 4, generator)
            first = len(made)
            sides = of_chunk.chosen + first, of_chunk.rejected + first, of_chunk.weights
            pairs += zip(*(side.tolist() for side in sides), strict=True)
            packed = rollout.decisions.features.view(-1, 3, 16)
            made += zip(packed, rollout.decisions.choice_ids, strict=True)
        *sides, weights = zip(*pairs, strict=True)
        descend(optimizer, scores_of, pairs_of(*sides, torch.tensor(weights)), config, generator)
        close(states[n]["head"], head)
        assert states[n]["log"][-1]["pairs"] == len(pairs) >= 8


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_one_round_teaches_the_head_what_each_task_wants(writer, level):
    config = tiny(level, prompts=160, samples=8, epochs=20, head_learning_rate=0.02)
    _, _, entry = one_round(writer, config, head_of(level))
    assert entry["validation_reward"] == 1 > entry["sampled_reward"] + 0.2
    assert entry["chosen_share"]["hot"][2] > entry["rejected_share"]["hot"][2] + 0.2
    assert entry["chosen_share"]["icecold"][0] > entry["rejected_share"]["icecold"][0] + 0.2


def test_only_responses_in_a_pair_are_kept_and_the_pairs_of_all_chunks_still_point_at_them(writer):
    rollout, pairs, entry = one_round(writer, tiny("sequence", samples=3), head_of("sequence"))
    assert [len(call[1]) for call in writer.calls[:-1]] == [4, 4, 4, 2] and rollout.n_samples == 1
    sides = pairs.chosen.tolist(), pairs.rejected.tolist()
    assert sorted(sides[0] + sides[1]) == list(range(len(rollout)))  # the others are gone
    expected = []  # of each prompt its best and its worst response
    for call, texts in zip(writer.calls[:-1], writer.texts[:-1], strict=True):
        for prompt, own in zip(call[1], zip(*[iter(texts)] * 3, strict=True), strict=True):
            order = sorted(own, key=lambda text: rewards_of(TASKS, [prompt], [text]))
            expected += [(prompt, order[-1], order[0])] * (order[0] != order[-1])
    texts, prompts = rollout.responses, rollout.prompts
    got = [(prompts[a], texts[a], texts[b]) for a, b in zip(*sides, strict=True)]
    assert got == expected and [prompts[b] for b in sides[1]] == [found[0] for found in got]
    assert 4 <= len(got) == entry["pairs"] == 14 - entry["dropped_prompts"] <= 12
    for side, rows in zip(("chosen_share", "rejected_share"), sides, strict=True):
        assert list(entry[side]) == ["hot", "icecold"]
        for name, shares in entry[side].items():
            # A response is the name of the temperature that it was written at.
            own = [texts[row] for row in rows if prompts[row].startswith(name)]
            assert shares == pytest.approx([own.count(k) / len(own) for k in CHOICES.names])


def test_the_log_names_every_task_also_if_two_ask_the_same(writer):
    """As another task with the same wording but another reward would: both have the same shares."""
    tasks = [Warmth("hot", True), Warmth("icecold", False)]
    for task in tasks:
        task.prompt = lambda rng: f"tea {rng.randrange(30)}"
    n = sum(split_of(f"tea {i}") == "train" for i in range(30))  # all that there are
    _, _, entry = one_round(writer, tiny(prompts=2 * n, validation_prompts=1), tasks=tasks)
    assert set(entry["chosen_share"]) == {"hot", "icecold"}
    assert [sum(shares) for shares in entry["chosen_share"].values()] == pytest.approx([1, 1])


@pytest.mark.parametrize("level, loss", LEVELS_AND_LOSSES)
def test_eq_11_is_fitted_to_its_constants_of_the_responses_in_pairs_and_no_other_loss_has_any(
    writer, level, loss
):
    rollout, pairs, _ = one_round(writer, tiny(level, loss=loss), head_of(level))
    made = rollout.decisions
    assert isinstance(made, MarginalDecisions) == (loss in ("eq11", "eq11_marginal"))
    assert len(made) == len(rollout) == 2 * len(pairs)
    if isinstance(made, MarginalDecisions):
        assert made.choice_logprobs.shape == (len(rollout), 3, len(CHOICES))
        assert torch.equal(made.token_mask, rollout.response_mask)


@pytest.mark.parametrize("settings", [{"rule": "grpo"}, {"loss": "eq9", "train_lm": True}])
def test_settings_of_another_loop_are_refused_before_anything_is_written(lm, settings):
    config = LPOConfig(rounds=1, prompts=2, **settings)
    with pytest.raises(ValueError, match="must be lpo, without train_lm; else see rivals"):
        train_lpo(lm, [], head_of("sequence"), CHOICES, config, 0, respond=None)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_loss_that_no_one_named_is_the_default_of_the_level(writer, level):
    logs = []
    for loss in ("default", DEFAULT_LOSS[level]):
        config = replace(tiny(level), loss=loss)
        logs.append(one_round(writer, config, head_of(level))[2])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_a_first_round_without_a_pair_says_what_to_change(writer, settings):
    head = head_of("sequence")
    head.mlp[-1].bias.data[1] = 1e4  # it always takes the same: all responses are equal
    message = "must have.* responses of different reward.*; draw more --samples or --prompts"
    with pytest.raises(ValueError, match=message):
        one_round(writer, tiny("sequence", prompts=6, **settings), head)


class Settled(Warmth):
    """After the first round, every response is as good as every other."""

    def __init__(self):
        super().__init__("settled", warm=True)
        self.rounds = 0

    def reward(self, prompt, response):
        return 0.5 if self.rounds else super().reward(prompt, response)

    def count(self, *_):
        self.rounds += 1


@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_later_round_without_a_pair_changes_nothing_and_loses_nothing(writer, level, settings):
    task, states = Settled(), []
    config, head = tiny(level, rounds=3, prompts=6, epochs=3, **settings), head_of(level)
    options = {"callbacks": [kept_in(states), task.count], "respond": writer.respond}
    log = train(language_model(), [task], head, CHOICES, config, **options)
    assert [entry["pairs"] > 0 for entry in log] == [True, False, False]
    assert [len(entry["epochs"]) for entry in log] == [3, 0, 0]
    assert log[1]["dropped_prompts"] == 6 and log[1]["sampled_reward"] == 0.5
    assert log[1]["chosen_share"] == log[1]["rejected_share"] == {"settled": [0.0] * 3}
    for name in {"head", "model"} & set(states[0]):
        assert same(states[0][name], states[2][name])
    assert same(head, states[2]["best"]["head"])


@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_prompt_that_is_too_long_is_named_before_anything_is_written(writer, split, settings):
    class Long(Warmth):
        def prompt(self, rng):
            short = super().prompt(rng)
            long = short + " and on" * 99
            return long if split_of(long) == split and rng.random() < 0.2 else short

    config = tiny("sequence", rounds=4, prompts=8, validation_prompts=8, **settings)
    message = "tokens, 'long [0-9]+ and on and on.*'; shorten it, or use a larger model"
    with pytest.raises(ValueError, match=message):
        one_round(writer, config, head_of("sequence"), [Long("long", True)])
    assert not writer.calls


def test_eq_11_marginal_is_refused_at_token_level_before_anything_is_written(writer):
    with pytest.raises(ValueError, match="eq11_marginal must come with --level sequence"):
        one_round(writer, LPOConfig(loss="eq11_marginal"))
    assert not writer.calls


@pytest.mark.parametrize("loss", ["eq9", "eq10", "eq11"])
def test_the_constant_head_is_fitted_to_the_pairs_of_the_first_round_alone(writer, loss):
    """By Eq. 10 or 11, also where Eq. 9 trains the language model. It changes nothing else."""
    config, states, seen = tiny(rounds=3, loss=loss, train_lm=loss == "eq9", epochs=2), [], []
    with_control, alone, constant = head_of(), head_of(), new_head(CHOICES, "token", ConstantHead)
    before, keep = copy.deepcopy(constant), lambda _, *round: seen.append(round)
    callbacks = [fit_constant(constant, config, seed=7), keep]
    for head, after in ((with_control, callbacks), (alone, [kept_in(states)])):
        options = {"callbacks": after, "respond": writer.respond}
        train(language_model(), TASKS, head, CHOICES, config, 7, **options)
    (rollout, pairs), *_ = seen
    by_hand = copy.deepcopy(before)
    generator = torch_generator(7, "constant control")
    fit(by_hand, rollout.decisions, pairs, adam(by_hand, config), config, generator)
    assert same(by_hand, constant) and not same(before, constant)
    assert same(with_control, alone)
    # A training that goes on after the first round leaves it as it was saved.
    callbacks = [fit_constant(constant, config, seed=7)]
    options = {"callbacks": callbacks, "respond": writer.respond, "saved": states[0]}
    train(language_model(), TASKS, head_of(), CHOICES, config, 7, **options)
    assert same(by_hand, constant)


# Whole trainings of a very small language model


@pytest.mark.parametrize(
    "level, loss, name",
    [
        (level, loss, name)
        for level, loss in LEVELS_AND_LOSSES
        for name in ("best_worst", "nll")
        if loss in ("eq9", "eq10") or name != "nll"  # with Eq. 11, the NLL is about the words
    ],
)
def test_every_loss_finds_the_temperature_that_pays_and_leaves_the_language_model_alone(
    model, lm, level, loss, name
):
    """Reward = share of different words. A greedy response repeats itself, so warm must win."""
    before = copy.deepcopy(model.state_dict())
    head, config = new_head(level=level), small(level, loss=loss, pairs=name)
    log = train_lpo(lm, [Bandit()], head, COLD_OR_WARM, config, seed=0)
    assert same(model, before)
    first, last = log[0]["epochs"][0], log[0]["epochs"][-1]
    assert last["loss"] < first["loss"] and last["margin"] > first["margin"]
    assert last["entropy"] < first["entropy"]
    at_least = 0.7 if name == "nll" else 0.9  # the NLL doesn't look at the rejected
    assert last["pair_accuracy"] > at_least
    assert log[0]["pairs"] + log[0]["dropped_prompts"] == 16
    prompts = [Bandit().prompt(python_rng(1, "new"))]
    made = generate(lm, prompts, GreedyHead(head, COLD_OR_WARM), seeded(0)).decisions
    mean = COLD_OR_WARM.table[made.choice_ids[made.mask]].mean()
    assert mean > 1.5 * (0.95 if level == "sequence" else 0.6)
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"]


def test_lpo_resumes_to_the_bit_and_keeps_the_head_that_is_best_on_held_out_prompts(lm):
    """Whichever round it was interrupted after."""
    choices, config = Temperatures([0.0, 0.7, 1.5]), small(rounds=3, samples=4, epochs=2)
    whole, states = new_head(choices), []
    log = train(lm, [Bandit()], whole, choices, config, callbacks=[kept_in(states)])
    assert len(states) == len(log) == 3
    best = max(entry["validation_reward"] for entry in log)
    assert states[-1]["best"]["validation_reward"] == best
    assert same(whole, states[-1]["best"]["head"])
    assert not same(states[0]["head"], states[1]["head"])
    for saved in states:
        resumed, later = new_head(choices), []
        options = {"saved": saved, "callbacks": [kept_in(later)]}
        assert train(lm, [Bandit()], resumed, choices, config, **options) == log
        assert same(resumed, whole)
        for got, expected in zip(later, states[len(saved["log"]) :], strict=True):
            assert same(got["head"], expected["head"]) and got["log"] == expected["log"]
            for parameter, moments in expected["optimizer"].items():
                assert same(got["optimizer"][parameter], moments)
    alone = new_head(choices)  # without a state, `train_lpo` makes its own
    assert train_lpo(lm, [Bandit()], alone, choices, config, seed=0) == log and same(alone, whole)


def test_of_rounds_that_are_equally_good_on_held_out_prompts_the_first_is_kept(lm):
    class EqualOnValidation(Bandit):
        def reward(self, prompt, response):
            return 0.5 if split_of(prompt) == "validation" else super().reward(prompt, response)

    head, config, states = new_head(), small(rounds=3, epochs=2), []
    tasks, callbacks = [EqualOnValidation()], [kept_in(states)]
    log = train(lm, tasks, head, COLD_OR_WARM, config, callbacks=callbacks)
    assert [entry["validation_reward"] for entry in log] == [0.5] * 3
    assert [same(head, state["head"]) for state in states] == [True, False, False]


def test_the_constant_head_learns_what_pays_and_says_the_same_to_everything(lm):
    constant, config = new_head(kind=ConstantHead), small(rounds=1)
    callbacks = [fit_constant(constant, config, seed=0)]
    train(lm, [Bandit()], new_head(), COLD_OR_WARM, config, callbacks=callbacks)
    probs = constant(torch.randn(5, 16, generator=seeded(3))).softmax(-1)
    assert (probs == probs[0]).all() and probs[0, 1] > 0.6


# Numbers that aren't finite


def test_a_fit_that_diverges_ends_after_an_epoch_and_names_the_flags_that_may_have_caused_it():
    made = rollout_of("sequence").decisions
    config = tiny("sequence", beta=2.5, pairs_per_batch=1, epochs=9)
    pairs = best_worst_pairs(torch.rand(4, 3, generator=seeded(0)), seeded(0))

    def message(config, rate, pairs=pairs, unused=None):
        head = head_of("sequence")
        head.unused = unused
        optimizer, n_steps = torch.optim.SGD(head.parameters(), lr=rate), []
        optimizer.register_step_post_hook(lambda *_: n_steps.append(1))
        with pytest.raises(ValueError, match="^loss and weights must stay finite") as error:
            fit(head, made, pairs, optimizer, config, seeded(0))
        assert len(n_steps) == -(-len(pairs) // config.pairs_per_batch)  # one epoch
        return str(error.value)

    assert message(config, rate=torch.inf).endswith(
        "lower --head-learning-rate (now 0.01), for pairs also --beta (now 2.5), with --train-lm also "
        "--lm-learning-rate (now 0.0001)"
    )
    one_step = tiny("sequence", pairs_per_batch=100)  # no loss comes after it
    message(one_step, rate=torch.inf)
    broken = torch.nn.Parameter(torch.tensor(torch.inf))  # a weight that no score depends on
    message(one_step, rate=0.0, unused=broken)
    a, b = 0, (made.choice_ids[:, 0] != made.choice_ids[0, 0]).nonzero()[0].item()
    infinite_loss = tiny("sequence", pairs_per_batch=100, beta=1e3)
    message(infinite_loss, rate=1e34, pairs=pairs_of([a, a, b], [b, b, a]))


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("broken", ["token_embedding.weight", "norm.weight", "blocks.0.up.bias"])
def test_a_language_model_that_is_not_finite_is_named_as_the_cause_and_more_samples_are_not_advised(
    lm, level, broken
):
    dict(lm.model.named_parameters())[broken].fill_(torch.nan)
    with pytest.raises(ValueError, match="language model's logits must be finite") as error:
        train_lpo(lm, [Bandit()], new_head(level=level), COLD_OR_WARM, small(level), seed=0)
    assert "--samples" not in str(error.value) and "--head-learning-rate" not in str(error.value)
