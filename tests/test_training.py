"""What stands around LPO: a round's pairs, what is logged of it, and going on later."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import Decisions
from minilpo.config import LPOConfig
from minilpo.decoding.rollout import Rollout, choice_shares
from minilpo.decoding.sampling import entropy
from minilpo.lpo import lpo_loss, response_scores, train_lpo
from minilpo.preferences import PAIRS, PreferencePairs, best_worst_pairs
from minilpo.rivals.joint import JointState
from minilpo.tasks import Prompt
from minilpo.training import PROMPTS_AT_ONCE, TrainState, describe_fit, draw_prompts, join, split
from tests.conftest import CHOICES, seeded
from tests.standin import Warmth, Writer, head_of, language_model, same

TASKS = [Warmth("hot", True), Warmth("icecold", False)]


def config_of(**settings):
    few = {"rounds": 3, "prompts": 8, "samples": 5, "validation_prompts": 2, "epochs": 2}
    return LPOConfig(**{**few, "loss": "eq10", "pairs_per_batch": 4, **settings})


def decisions_of(lengths, seed=0):
    """Rows of so many decisions each."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Decisions(
        features=torch.randn(sum(lengths), 16, generator=seeded(seed)),
        choice_ids=torch.randint(0, len(CHOICES), mask.shape, generator=seeded(seed + 1)) * mask,
        mask=mask,
    )


def rollout_of(prompts, n_samples, seed=0):
    """Responses of 1 to 4 tokens, whose texts are their rows."""
    R = len(prompts) * n_samples
    lengths = torch.randint(1, 5, (R,), generator=seeded(seed)).tolist()
    decisions = decisions_of(lengths, seed + 1)
    token_ids = torch.randint(1, 9, decisions.mask.shape, generator=seeded(seed + 2))
    texts = [f"{prompts[r // n_samples].text} {r % n_samples}" for r in range(R)]
    return Rollout(
        [prompt.text for prompt in prompts],
        n_samples,
        texts,
        token_ids * decisions.mask,
        decisions.mask,
        decisions,
    )


# Prompts


def test_every_round_has_prompts_of_its_own_of_every_task_and_none_is_held_out_too():
    config = config_of(prompts=7)
    rounds, held_out = draw_prompts(TASKS, config, seed=0)
    assert [[p.task.name for p in part] for part in rounds] == [["hot"] * 4 + ["icecold"] * 4] * 3
    assert [prompt.task.name for prompt in held_out] == ["hot"] * 2 + ["icecold"] * 2
    assert rounds[0] != rounds[1] != rounds[2]
    assert not {p.text for part in rounds for p in part} & {p.text for p in held_out}
    assert draw_prompts(TASKS, config, seed=0) == (rounds, held_out)
    assert draw_prompts(TASKS, config, seed=1)[0] != rounds


@pytest.mark.parametrize("n", [1, PROMPTS_AT_ONCE, PROMPTS_AT_ONCE + 1, 3 * PROMPTS_AT_ONCE])
def test_the_prompts_of_a_round_are_split_in_order_into_chunks_of_at_most_so_many(n):
    chunks = split(range(n))
    assert [number for chunk in chunks for number in chunk] == list(range(n))
    assert {len(chunk) for chunk in chunks[:-1]} <= {PROMPTS_AT_ONCE}
    assert 1 <= len(chunks[-1]) <= PROMPTS_AT_ONCE


# Pairs


@pytest.mark.parametrize("name", ["best_worst", "top_bottom", "all", "gap"])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_of_a_round_only_responses_in_pairs_are_kept_and_pairs_still_point_at_them(name, size):
    prompts, N = [Prompt(f"prompt {p}", TASKS[0]) for p in range(6)], 4
    rewards = torch.randint(0, 3, (6, N), generator=seeded(3)) / 2
    rewards[4] = 0.5  # gives no pair, so that a chunk of one prompt keeps nothing
    whole, chunks = rollout_of(prompts, N), []
    for first in range(0, 6, size):
        own, rows = rewards[first : first + size], torch.arange(first * N, (first + size) * N)
        rows_in_pairs, pairs = PAIRS[name](own, 2, seeded(0)).compact()
        chunks.append((own, whole.rows(rows[rows_in_pairs]), pairs))
    joined, rollout, pairs = join(chunks, may_be_empty=False)
    assert torch.equal(joined, rewards)
    assert rollout.n_samples == 1 and len(rollout.prompts) == len(rollout)
    assert {*pairs.chosen.tolist(), *pairs.rejected.tolist()} == set(range(len(rollout)))
    assert pairs.n_dropped == sum(len(set(row)) == 1 for row in rewards.tolist()) >= 1
    # A text says which response it is: everything of it has come along.
    for row, text in enumerate(rollout.responses):
        p, n = map(int, text.split()[1:])
        was, now = whole.rows(torch.tensor([p * N + n])), rollout.rows(torch.tensor([row]))
        width = was.response_mask.shape[1]
        assert rollout.prompts[row] == prompts[p].text
        assert torch.equal(now.decisions.features, was.decisions.features)
        assert torch.equal(now.decisions.choice_ids[:, :width], was.decisions.choice_ids)
        assert torch.equal(now.token_ids[:, :width], was.token_ids)
    sides = pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.weights.tolist()
    named = [
        (rollout.responses[a], rollout.responses[b], w) for a, b, w in zip(*sides, strict=True)
    ]
    for chosen, rejected, _ in named:
        (p, n), (q, m) = (map(int, text.split()[1:]) for text in (chosen, rejected))
        assert p == q and rewards[p, n] > rewards[q, m]
    if size == 6:
        expected = PAIRS[name](rewards, 2, seeded(0))
        sides = expected.chosen.tolist(), expected.rejected.tolist(), expected.weights.tolist()
        texts = whole.responses
        assert named == [(texts[a], texts[b], w) for a, b, w in zip(*sides, strict=True)]


def test_a_round_without_a_pair_is_an_error_unless_it_may_be():
    rewards, prompts = (
        torch.full((2, 3), 0.5),
        [Prompt("hot 1", TASKS[0]), Prompt("hot 2", TASKS[0])],
    )
    rows, pairs = best_worst_pairs(rewards, seeded(0)).compact()
    chunks = [(rewards, rollout_of(prompts, 3).rows(rows), pairs)]
    joined, rollout, pairs = join(chunks, may_be_empty=True)
    assert torch.equal(joined, rewards) and len(rollout) == len(pairs) == 0 and pairs.n_dropped == 2
    with pytest.raises(ValueError, match="responses of different reward, but none has; draw more"):
        join(chunks, may_be_empty=False)


# What is logged


def test_the_entropy_is_0_for_a_sure_head_and_log_k_for_a_uniform_one():
    sure, uniform, mixed = [50.0, 0.0, 0.0, 0.0], [1.0] * 4, [math.log(3), 0.0, -50.0, -50.0]
    of_mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = torch.tensor([[math.log(4), 0.0], [of_mixed, math.log(4)]])
    torch.testing.assert_close(entropy(torch.tensor([[uniform, sure], [mixed, uniform]])), expected)


def test_the_share_of_a_choice_counts_a_tasks_own_decisions_and_not_padding():
    prompts = [Prompt(f"{task.name} {p}", task) for task in TASKS for p in range(2)]
    rollout, rows = rollout_of(prompts, 2), torch.tensor([0, 3, 3, 6])
    shares = choice_shares(rollout, rows, prompts, 5)
    for name, own in (("hot", [0, 3, 3]), ("icecold", [6])):
        made = rollout.decisions
        drawn = [k for r in own for k in made.choice_ids[r][made.mask[r]].tolist()]
        assert shares[name] == pytest.approx([drawn.count(k) / len(drawn) for k in range(5)])
    assert shares["hot"][3:] == [0, 0]  # never chosen
    assert choice_shares(rollout, rows[:3], prompts, 3)["icecold"] == [0, 0, 0]  # has no row
    always_first = torch.zeros_like(rollout.decisions.choice_ids)
    rollout = replace(rollout, decisions=replace(rollout.decisions, choice_ids=always_first))
    assert choice_shares(rollout, rows, prompts, 3) == {"hot": [1, 0, 0], "icecold": [1, 0, 0]}


@pytest.mark.parametrize("rule", ["best_worst", "gap", "nll"])
def test_the_log_of_an_epoch_is_a_plain_mean_over_pairs_and_decisions(rule):
    # 300 responses are more than are looked at together. Each is in one pair.
    lengths = torch.randint(1, 6, (300,), generator=seeded(0)).tolist()
    made, head, config = decisions_of(lengths), head_of(), config_of(pairs=rule, beta=0.7)
    weights = torch.rand(150, generator=seeded(2)) if rule == "gap" else torch.ones(150)
    shuffled = torch.randperm(300, generator=seeded(1))
    pairs = PreferencePairs(shuffled[:150], shuffled[150:], 0, weights)
    scores, _ = response_scores(head, made, config)
    margins = (scores[pairs.chosen] - scores[pairs.rejected]).tolist()
    losses = [math.log1p(math.exp(-0.7 * margin)) for margin in margins]
    if rule == "nll":
        losses = [-score for score in scores[pairs.chosen].tolist()]
    weighted = [w * loss for w, loss in zip(weights.tolist(), losses, strict=True)]
    differing = [margin for margin in margins if margin != 0]
    probs = head(made.features).softmax(-1)
    expected = {
        "loss": sum(weighted) / 150,
        "margin": sum(margins) / 150,
        "pair_accuracy": sum(margin > 0 for margin in differing) / len(differing),
        "entropy": -(probs * probs.log()).sum().item() / sum(lengths),
    }
    told = describe_fit(head, made, pairs, config, response_scores, lpo_loss)
    assert told == pytest.approx(expected, rel=1e-4)
    assert 0.2 < expected["pair_accuracy"] < 0.8


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_weight_that_is_no_number_any_more_ends_the_training_and_says_what_to_lower(broken):
    head, config = head_of(), config_of(head_learning_rate=0.5, beta=3.0)
    pairs = PreferencePairs(torch.tensor([0]), torch.tensor([1]), 0, torch.ones(1))
    head.mlp[-1].bias.data[:] = broken
    says = r"must stay finite.*--head-learning-rate \(now 0.5\), for pairs also --beta \(now 3\)"
    with pytest.raises(ValueError, match=says):
        describe_fit(head, decisions_of([1, 1]), pairs, config, response_scores, lpo_loss)


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr("minilpo.decoding.generate.generate", writer := Writer())
    return writer


def trained(config, callbacks=(), state=None, tasks=TASKS, level="token"):
    """The training of a head on the two tasks; gone on with from a state, if there is one."""
    head, lm = head_of(level), language_model()
    training = TrainState(head, config)
    training.callbacks += callbacks
    if state:
        training.load_state_dict(copy.deepcopy(state))
    train_lpo(lm, tasks, head, CHOICES, config, 0, training)
    return training


def test_an_entry_of_the_log_has_its_parts_in_a_fixed_order_for_whoever_reads_the_file(writer):
    for entry in trained(config_of()).log:
        assert list(entry) == [
            *("round", "validation_reward", "sampled_reward", "dropped_prompts", "pairs"),
            *("chosen_share", "rejected_share", "epochs"),
        ]
        assert list(entry["chosen_share"]) == list(entry["rejected_share"]) == ["hot", "icecold"]
        for epoch in entry["epochs"]:
            assert list(epoch) == ["loss", "margin", "pair_accuracy", "entropy"]
    numbers = [entry["round"], entry["pairs"], entry["dropped_prompts"]]
    assert all(type(number) is int for number in numbers)


# Going on later


def test_a_state_says_what_belongs_to_the_training_and_takes_it_all_up_again():
    config = config_of()
    state = TrainState(head_of(), config)
    assert list(state.state_dict()) == ["head", "optimizer", "log", "best"]
    joint = JointState(language_model(), head_of(), config_of(loss="eq9", train_lm=True))
    assert list(joint.state_dict()) == ["head", "model", "optimizer", "log", "best"]
    fresh = TrainState(head_of(seed=9), config)
    fresh.load_state_dict(copy.deepcopy(state.state_dict()))
    assert same(fresh.modules["head"], state.modules["head"])


def test_the_best_so_far_is_kept_as_it_was_and_comes_back_in_the_end():
    head, prompts = head_of(), [Prompt("hot 1", TASKS[0])]
    state, states = TrainState(head, config_of()), []
    rollout, rewards = rollout_of(prompts, 2), torch.tensor([[0.0, 1.0]])
    pairs = best_worst_pairs(rewards, seeded(0))
    for reward in (0.3, 0.6, 0.6, 0.1):
        head.mlp[-1].bias.data += 1.0  # it goes on changing
        states.append(copy.deepcopy(head.state_dict()))
        state.end_round(prompts, rewards, rollout, pairs, [], torch.tensor([[reward]]))
    assert state.best["round"] == 2 and state.best["validation_reward"] == pytest.approx(0.6)
    assert same(state.best["head"], states[1]) and not same(head, states[1])
    state.restore(state.best)
    assert same(head, states[1])


def test_the_optimizer_is_adam_with_a_rate_for_the_head_and_another_for_the_language_model():
    lm, head = language_model(), head_of()
    config = config_of(loss="eq9", train_lm=True, head_learning_rate=0.03, lm_learning_rate=0.002)
    optimizer = JointState(lm, head, config).optimizer
    assert type(optimizer) is torch.optim.Adam
    assert [group["lr"] for group in optimizer.param_groups] == [0.03, 0.002]
    for group, module in zip(optimizer.param_groups, (head, lm.model), strict=True):
        assert all(a is b for a, b in zip(group["params"], module.parameters(), strict=True))
    [group] = TrainState(head, config).optimizer.param_groups
    assert group["lr"] == 0.03 and len(group["params"]) == 6


# Around the rounds


def test_after_each_round_all_callbacks_are_called_in_order_with_the_round_already_logged(writer):
    done = []
    callbacks = [
        lambda state, rollout, pairs, name=name: done.append((name, len(state.log), len(pairs)))
        for name in "ab"
    ]
    log = trained(config_of(), callbacks).log
    assert done == [(name, n, entry["pairs"]) for n, entry in enumerate(log, 1) for name in "ab"]
