"""What happens around LPO: what is kept of a round, what is logged of it, and going on later."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions
from minilpo.config import LPOConfig
from minilpo.constant_control import fitting
from minilpo.decoding.rollout import Rollout, Scored
from minilpo.joint_score import JointScore
from minilpo.losses import nll_loss, preference_loss
from minilpo.lpo import LEARNING_RULES, HeadScore, train_lpo, training_of
from minilpo.preferences import (
    RULES,
    PreferencePairs,
    all_pairs,
    best_worst_pairs,
    gap_pairs,
    top_bottom_pairs,
)
from minilpo.training import (
    Round,
    Training,
    Written,
    describe_fit,
    entropy,
    optimizer_of,
    share_of_choices,
)
from tests.conftest import CHOICES, seeded
from tests.standin import Warmth, Writer, language_model

TASKS = [Warmth("hot", True), Warmth("icecold", False)]


def config_of(**settings):
    few = {"rounds": 3, "prompts": 8, "samples": 5, "validation_prompts": 2, "epochs": 2}
    return LPOConfig(**{**few, "loss": "eq10", "pairs_per_batch": 4, **settings}).resolved("token")


def head_of(level="token", kind=AdaptiveDecoder, seed=0):
    head = kind(16, len(CHOICES), level, n_hidden=8, generator=seeded(seed))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(seed + 1))
    return head


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
    texts = [f"{prompts[r // n_samples]} {r % n_samples}" for r in range(R)]
    return Rollout(
        list(prompts), n_samples, texts, token_ids * decisions.mask, decisions.mask, decisions
    )


def same(a, b):
    """Whether two modules, or states of modules, are equal to the bit."""
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# What is kept of a round


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_the_prompts_come_in_parts_in_order_each_with_its_task(size):
    prompts, task_of = [f"prompt {p}" for p in range(5)], [TASKS[p % 2] for p in range(5)]
    parts = list(Written(task_of, prompts).parts(size))
    assert [number for number, _, _ in parts] == list(range(len(parts)))
    assert [prompt for _, _, part in parts for prompt in part] == prompts
    assert [task for _, part, _ in parts for task in part] == task_of
    sizes = [len(part) for _, _, part in parts]
    assert sizes[:-1] == [size] * (len(sizes) - 1) and 1 <= sizes[-1] <= size


@pytest.mark.parametrize(
    "form",
    [
        lambda rewards: best_worst_pairs(rewards, seeded(0)),
        lambda rewards: top_bottom_pairs(rewards, 2, seeded(0)),
        all_pairs,
        gap_pairs,
    ],
    ids=["best_worst", "top_bottom", "all", "gap"],
)
@pytest.mark.parametrize("size", [1, 2, 6])
def test_of_what_was_written_only_responses_in_pairs_are_kept_and_pairs_still_point_at_them(
    form, size
):
    prompts, N = [f"prompt {p}" for p in range(6)], 4
    rewards = torch.randint(0, 3, (6, N), generator=seeded(3)) / 2
    rewards[4] = 0.5  # gives no pair, so that a part of one prompt keeps nothing
    whole, written = rollout_of(prompts, N), Written([TASKS[0]] * 6, prompts)
    for part, task_of, _ in written.parts(size):
        rows = torch.arange(part * size * N, (part * size + len(task_of)) * N)
        some = replace(whole.rows(rows), prompts=prompts[part * size :][:size], n_samples=N)
        own = rewards[part * size :][:size]
        written.keep(Scored(some, task_of, own), form(own))
    rollout, pairs = written.in_comparisons()
    expected = form(rewards) if size == 6 else None
    assert torch.equal(written.rewards, rewards)
    assert rollout.n_samples == 1 and len(rollout.prompts) == len(rollout.responses)
    in_pairs = set(torch.cat([pairs.chosen, pairs.rejected]).tolist())
    assert in_pairs == set(range(len(rollout.responses)))
    assert pairs.n_dropped == sum(len(set(row)) == 1 for row in rewards.tolist()) >= 1
    # A text says which response it is: everything of it has come along.
    for row, text in enumerate(rollout.responses):
        p, n = map(int, text.split()[1:])
        was = whole.rows(torch.tensor([p * N + n]))
        assert rollout.prompts[row] == prompts[p]
        now, width = rollout.rows(torch.tensor([row])), was.response_mask.shape[1]
        assert torch.equal(now.decisions.features, was.decisions.features)
        assert now.decisions.choice_ids[0, :width].tolist() == was.decisions.choice_ids[0].tolist()
        assert now.token_ids[0, :width].tolist() == was.token_ids[0].tolist()
    named = [
        (rollout.responses[a], rollout.responses[b], weight)
        for a, b, weight in zip(
            pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.weights.tolist(), strict=True
        )
    ]
    for chosen, rejected, _ in named:
        (p, n), (q, m) = (map(int, text.split()[1:]) for text in (chosen, rejected))
        assert p == q and rewards[p, n] > rewards[q, m]
    if expected is not None:
        sides = expected.chosen.tolist(), expected.rejected.tolist(), expected.weights.tolist()
        texts = whole.responses
        assert named == [(texts[a], texts[b], w) for a, b, w in zip(*sides, strict=True)]


# What is logged


def test_the_entropy_is_0_for_a_sure_head_and_log_k_for_a_uniform_one():
    logits = torch.tensor(
        [
            [[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]],
            [[math.log(3), 0.0, -50.0, -50.0], [1.0] * 4],
        ]
    )
    mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = torch.tensor([[math.log(4), 0.0], [mixed, math.log(4)]])
    torch.testing.assert_close(entropy(logits), expected)


def test_the_share_of_a_choice_counts_decisions_and_not_padding():
    made = decisions_of([5, 2, 3, 1, 4, 1, 2, 1])
    rows = torch.tensor([0, 3, 4, 4])
    drawn = [
        int(k)
        for r in rows
        for k, was_made in zip(made.choice_ids[r], made.mask[r], strict=True)
        if was_made
    ]
    shares = share_of_choices(made, rows, 3)
    assert shares == pytest.approx([drawn.count(k) / len(drawn) for k in range(3)])
    assert share_of_choices(made, rows, 5) == pytest.approx([*shares, 0, 0])  # never made
    assert share_of_choices(made, rows[:0], 3) == [0, 0, 0]
    always_first = replace(made, choice_ids=torch.zeros_like(made.choice_ids))
    one_decision = torch.tensor([7])
    for some in (rows, one_decision):
        assert share_of_choices(always_first, some, 3) == [1, 0, 0]


@pytest.mark.parametrize("rule", ["best_worst", "gap", "nll"])
def test_the_log_of_an_epoch_is_a_plain_mean_over_pairs_and_decisions(rule):
    # 300 responses are more than are looked at together. Each is in one pair.
    lengths = torch.randint(1, 6, (300,), generator=seeded(0)).tolist()
    made, head, config = decisions_of(lengths), head_of(), config_of(pairs=rule, beta=0.7)
    weights = torch.rand(150, generator=seeded(2)) if rule == "gap" else torch.ones(150)
    shuffled = torch.randperm(300, generator=seeded(1))
    pairs = PreferencePairs(shuffled[:150], shuffled[150:], 0, weights)
    scores, _ = HeadScore(head, config)(made)
    margins = [
        (scores[a] - scores[b]).item()
        for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)
    ]
    losses = [math.log1p(math.exp(-0.7 * margin)) for margin in margins]
    if rule == "nll":
        losses = [-scores[a].item() for a in pairs.chosen.tolist()]
    weighted = [w * loss for w, loss in zip(weights.tolist(), losses, strict=True)]
    differing = [margin for margin in margins if margin != 0]
    probs = head(made.features).softmax(-1)
    expected = {
        "loss": sum(weighted) / 150,
        "margin": sum(margins) / 150,
        "pair_accuracy": sum(margin > 0 for margin in differing) / len(differing),
        "entropy": -(probs * probs.log()).sum().item() / sum(lengths),
    }
    told = describe_fit(HeadScore(head, config), made, pairs, LEARNING_RULES["lpo"], config)
    assert told == pytest.approx(expected, rel=1e-4)
    assert 0.2 < expected["pair_accuracy"] < 0.8


def test_a_rule_has_the_loss_of_the_baseline_if_it_is_the_baseline_and_else_that_of_preferences():
    chosen, rejected = torch.randn(2, 5, generator=seeded(0))
    for name, rule in RULES.items():
        expected = preference_loss(chosen, rejected, 0.7)
        if name == "nll":
            expected = nll_loss(chosen)
        assert torch.equal(rule.loss(chosen, rejected, 0.7), expected)


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr("minilpo.lpo.generate", writer := Writer())
    monkeypatch.setattr("minilpo.evaluation.measure.generate", writer)
    return writer


def trained(config, after_round=(), state=None, head=None, **options):
    """The training of a head on the two tasks; gone on with from a state, if there is one."""
    head, lm = head or head_of(), language_model()
    training = training_of(lm, head, config, after_round=after_round, **options)
    if state:
        training.load_state_dict(copy.deepcopy(state))
    train_lpo(lm, TASKS, head, CHOICES, config, 0, training)
    return training


def test_an_entry_of_the_log_has_its_parts_in_a_fixed_order_for_whoever_reads_the_file(writer):
    for entry in trained(config_of()).log:
        assert list(entry) == [
            "round",
            "sampled_reward",
            "pairs",
            "dropped_prompts",
            "chosen_share",
            "rejected_share",
            "validation_reward",
            "epochs",
        ]
        assert list(entry["chosen_share"]) == list(entry["rejected_share"]) == ["hot", "icecold"]
        for epoch in entry["epochs"]:
            assert list(epoch) == ["loss", "margin", "pair_accuracy", "entropy"]
    numbers = [entry["round"], entry["pairs"], entry["dropped_prompts"]]
    assert all(type(number) is int for number in numbers)


def test_the_shares_of_a_task_are_those_of_its_own_responses_and_zeros_if_it_has_no_pair(writer):
    rounds = []
    tasks = [*TASKS, Flat("same", True)]
    lm, head, config = language_model(), head_of("sequence"), config_of(rounds=1, prompts=12)
    keep = lambda training, round: rounds.append(round)  # noqa: E731
    training = training_of(lm, head, config, after_round=[keep])
    [entry] = train_lpo(lm, tasks, head, CHOICES, config, 0, training)
    rollout, pairs = rounds[0].rollout, rounds[0].pairs
    for side, rows in (("chosen_share", pairs.chosen), ("rejected_share", pairs.rejected)):
        assert list(entry[side]) == ["hot", "icecold", "same"]
        assert entry[side]["same"] == [0, 0, 0]
        for name in ("hot", "icecold"):
            own = [rollout.responses[r] for r in rows if rollout.prompts[r].startswith(name)]
            shares = [own.count(k) / len(own) for k in CHOICES.names]
            assert entry[side][name] == pytest.approx(shares)


class Flat(Warmth):
    """All responses are as good."""

    def reward(self, prompt, response):
        return 0.5


# Going on later


@pytest.mark.parametrize("rule", ["best_worst", "gap"])
def test_a_training_that_is_interrupted_after_any_round_ends_with_the_same_bits(writer, rule):
    config, states = config_of(pairs=rule), []
    keep = lambda training, round: states.append(copy.deepcopy(training.state_dict()))  # noqa: E731
    whole = trained(config, [keep])
    assert len(states) == 3 and not same(states[0]["head"], states[2]["head"])
    for state in states:
        again, later = trained(config, state=state), []
        assert again.log == whole.log and again.best.keys() == whole.best.keys()
        assert same(again.score.head, whole.score.head)
        assert again.best["round"] == whole.best["round"]
        assert same(again.best["head"], whole.best["head"])
        # The optimizer's memory is a part of it: from the round after on, too.
        keep = lambda training, round, later=later: later.append(  # noqa: E731
            copy.deepcopy(training.state_dict())
        )
        trained(config, [keep], state)
        for got, expected in zip(later, states[len(state["log"]) :], strict=True):
            assert same(got["head"], expected["head"])
            for number, moments in expected["optimizer"].items():
                assert same(got["optimizer"][number], moments)


def test_without_the_optimizers_memory_a_training_would_go_on_in_another_way(writer):
    """So the test above would notice if it were lost."""
    config, states = config_of(), []
    keep = lambda training, round: states.append(copy.deepcopy(training.state_dict()))  # noqa: E731
    trained(config, [keep])
    after = []
    note = lambda training, round: after.append(copy.deepcopy(training.state_dict()))  # noqa: E731
    trained(config, [note], {**states[0], "optimizer": {}})
    assert not same(after[0]["head"], states[1]["head"])


def test_a_state_says_what_belongs_to_the_training_and_takes_it_all_up_again():
    config, heads = config_of(), {"constant_head": head_of(kind=ConstantHead, seed=5)}
    lm = language_model()
    training = Training(HeadScore(head_of(), config), config, also=heads)
    assert list(training.state_dict()) == ["head", "constant_head", "optimizer", "log", "best"]
    joint = JointScore(lm, head_of(), config_of(loss="eq9", train_lm=True))
    parts = ["head", "model", "optimizer", "log", "best"]
    assert list(Training(joint, config).state_dict()) == parts
    other = {"constant_head": head_of(kind=ConstantHead, seed=7)}
    fresh = Training(HeadScore(head_of(seed=9), config), config, also=other)
    fresh.load_state_dict(copy.deepcopy(training.state_dict()))
    assert same(fresh.score.head, training.score.head)
    assert same(other["constant_head"], heads["constant_head"])


def test_the_best_so_far_is_kept_as_it_was_and_comes_back_in_the_end():
    config, head = config_of(), head_of()
    training, states = Training(HeadScore(head, config), config), []
    written = Written([TASKS[0]], ["hot 1"])
    rollout, rewards = rollout_of(["hot 1"], 2), torch.tensor([[0.0, 1.0]])
    written.keep(Scored(rollout, [TASKS[0]], rewards), best_worst_pairs(rewards, seeded(0)))
    made, pairs = written.in_comparisons()
    for reward in (0.3, 0.6, 0.6, 0.1):
        head.mlp[-1].bias.data += 1.0  # it goes on changing
        states.append(copy.deepcopy(head.state_dict()))
        training.end_round(Round(written, made, pairs, made.decisions, seeded(0), [], reward))
    assert training.best["round"] == 2 and training.best["validation_reward"] == 0.6
    assert same(training.best["head"], states[1]) and not same(head, states[1])
    training.restore_best()
    assert same(head, states[1])


def test_the_optimizer_is_adam_with_a_rate_for_the_head_and_another_for_the_language_model():
    lm, head = language_model(), head_of()
    config = config_of(loss="eq9", train_lm=True, head_learning_rate=0.03, lm_learning_rate=0.002)
    optimizer = optimizer_of(JointScore(lm, head, config), config)
    assert type(optimizer) is torch.optim.Adam
    assert [group["lr"] for group in optimizer.param_groups] == [0.03, 0.002]
    for group, module in zip(optimizer.param_groups, (head, lm.model), strict=True):
        assert all(a is b for a, b in zip(group["params"], module.parameters(), strict=True))
    [group] = optimizer_of(HeadScore(head, config), config).param_groups
    assert group["lr"] == 0.03 and len(group["params"]) == 6


# Around the rounds


def test_after_each_round_all_that_is_to_be_done_is_done_in_order_with_the_round_already_logged(
    writer,
):
    done = []
    acts = [
        lambda training, round, name=name: done.append(
            (name, round.validation_reward, len(training.log))
        )
        for name in "ab"
    ]
    log = trained(config_of(), acts).log
    rewards = [entry["validation_reward"] for entry in log]
    assert done == [(name, rewards[n], n + 1) for n in range(3) for name in "ab"]


def test_a_round_takes_the_time_of_writing_and_judging_apart_from_that_of_fitting(
    writer, monkeypatch
):
    # Made, begun, after writing, after fitting, after the held-out prompts
    ticks, told = iter([0.0, 1.0, 4.0, 9.0, 16.0]), []
    monkeypatch.setattr("minilpo.training.perf_counter", lambda: next(ticks))
    tell = lambda training, round: told.append(training.take_seconds())  # noqa: E731
    trained(config_of(rounds=1), [tell])
    assert told == [{"lpo": 9 - 4, "rollout": 4 - 1 + 16 - 9}]


def test_fitting_the_constant_head_counts_as_fitting_and_each_round_has_its_own_seconds(
    writer, monkeypatch
):
    # Round 1 as above, then the constant head from 16 to 26; round 2 without it
    times = [0.0, 1.0, 4.0, 9.0, 16.0, 26.0, 28.0, 40.0, 41.0, 50.0]
    ticks, told, config = iter(times), [], config_of(rounds=2)
    monkeypatch.setattr("minilpo.training.perf_counter", lambda: next(ticks))
    tell = lambda training, round: told.append(training.take_seconds())  # noqa: E731
    control = head_of(kind=ConstantHead)
    trained(config, [fitting(control, config), tell])
    first = {"lpo": 9 - 4 + 26 - 16, "rollout": 4 - 1 + 16 - 9 + 28 - 26}
    assert told == [first, {"lpo": 41 - 40, "rollout": 40 - 28 + 50 - 41}]
