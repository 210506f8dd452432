"""The single steps of LPO, each against a plain count: on responses made up here, without a language model."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import LPOConfig
from minilpo.losses import choice_scores, latent_scores, marginal_scores
from minilpo.lpo import (
    VALIDATION_SAMPLES,
    _optimizer,
    collect_pairs,
    describe_fit,
    entropy,
    fit,
    form_pairs,
    response_scores,
    share_of_choices,
    train_lpo,
    validation_reward,
)
from minilpo.preferences import PreferencePairs, all_pairs, best_worst_pairs, constrained_pairs, top_bottom_pairs
from minilpo.rollout import Rollout, unpack
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts
from minilpo.word_scores import WordScores
from tests.conftest import seeded
from tests.standin import CHOICES, Model, Warmth, Words, Writer, read, rewards_of


def config_of(level="token", **settings):
    return LPOConfig(**{"epochs": 3, "pairs_per_batch": 4, **settings}).resolved(level)


def rollout_of(level="token", n_prompts=4, n_samples=3, seed=0):
    """Responses of 1 to 5 tokens, with a decision for each or for the first alone."""
    R, T, K = n_prompts * n_samples, 5, len(CHOICES)
    lengths = torch.randint(1, T + 1, (R, 1), generator=seeded(seed))
    lengths[0], lengths[-1] = T, 1
    response_mask = torch.arange(T) < lengths
    decision_mask = response_mask if level == "token" else response_mask[:, :1]
    return Rollout(
        prompts=[f"prompt {p}" for p in range(n_prompts)],
        n_samples=n_samples,
        responses=[f"response {r}" for r in range(R)],
        token_ids=torch.randint(0, 9, (R, T), generator=seeded(seed + 1)),
        response_mask=response_mask,
        hidden_states=torch.randn(int(decision_mask.sum()), 16, generator=seeded(seed + 2)),
        temperature_ids=torch.randint(0, K, decision_mask.shape, generator=seeded(seed + 3)) * decision_mask,
        decision_mask=decision_mask,
        temperature_choices=torch.tensor(CHOICES),
        choice_logprobs=-3 * torch.rand(R, T, K, generator=seeded(seed + 4)),
    )


def head_of(level="token", seed=0):
    head = AdaptiveDecoder(16, CHOICES, level, n_hidden=8, generator=seeded(seed))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(seed + 1))
    return head


PAIRS = PreferencePairs(torch.tensor([0, 3, 6, 9, 1, 4]), torch.tensor([2, 5, 8, 11, 2, 3]), 1)


# Pairs


class Rated:
    """A task without a rule."""

    name = "rated"


class Ruled:
    """A task with a rule: response r to prompt p has taste (7 r + p) mod 10 tenths and keeps the rule to 3 r mod 10 tenths."""

    name, quality, constraint = "ruled", "taste", "rule"

    def parts(self, prompt, response):
        p, r = int(prompt.split()[1]), int(response.split()[1])
        return {"rule": 3 * r % 10 / 10, "other": 1.0, "taste": (7 * r + p) % 10 / 10}


def same_pairs(a, b):
    return a.chosen.tolist() == b.chosen.tolist() and a.rejected.tolist() == b.rejected.tolist() and a.n_dropped == b.n_dropped


def test_the_configuration_names_the_rule_that_forms_the_pairs():
    rollout, rewards = rollout_of(n_samples=6), torch.randint(0, 4, (4, 6), generator=seeded(0)) / 4

    def formed(task, **settings):
        return form_pairs(rollout, rewards, [task] * 4, config_of(**settings), seeded(5))

    expected = {
        "best_worst": best_worst_pairs(rewards, seeded(5)),
        "top_bottom": top_bottom_pairs(rewards, 2, seeded(5)),
        "all": all_pairs(rewards),
    }
    for rule, pairs in expected.items():  # whatever parts the task has
        assert same_pairs(formed(Ruled(), pairs=rule, pairs_per_prompt=2), pairs)
    assert same_pairs(formed(Rated(), pairs="constrained"), constrained_pairs(rewards, rewards, seeded(5)))
    assert len({len(pairs.chosen) for pairs in expected.values()}) == 3


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
    pairs = form_pairs(rollout, rewards, tasks, config_of(pairs="constrained"), seeded(5))
    assert same_pairs(pairs, constrained_pairs(quality, constraint, seeded(5)))
    assert not same_pairs(pairs, constrained_pairs(rewards, rewards, seeded(5))) and torch.equal(rewards, before)


# Scores


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", ["uniform", "none"])
def test_the_score_of_a_response_is_that_of_the_loss_with_the_options_of_the_configuration(level, reduce, reference):
    rollout, head, uniform = rollout_of(level), head_of(level), reference == "uniform"
    logits = unpack(head(rollout.hidden_states), rollout.decision_mask)
    drawn = (logits, rollout.temperature_ids, rollout.decision_mask)
    latent = (logits, rollout.choice_logprobs, rollout.response_mask)
    expected = {
        "eq9": choice_scores(*drawn, reduce=reduce, uniform_reference=uniform),
        "eq10": choice_scores(*drawn, reduce=reduce, uniform_reference=uniform),
        "nll": choice_scores(*drawn, reduce=reduce, uniform_reference=False),
        "eq11": latent_scores(*latent, reduce=reduce, uniform_reference=uniform),
    }
    if level == "sequence":
        expected["eq11_marginal"] = marginal_scores(*latent, uniform_reference=uniform)
    for loss, scores in expected.items():
        config = config_of(level, loss=loss, reduce=reduce, reference=reference)
        torch.testing.assert_close(response_scores(head, rollout, config), scores)


def test_only_the_losses_that_sum_over_temperatures_need_their_constants():
    rollout, head = replace(rollout_of("sequence"), choice_logprobs=None), head_of("sequence")
    for loss in ("eq9", "eq10", "nll"):
        assert response_scores(head, rollout, config_of("sequence", loss=loss)).shape == (12,)
    for loss in ("eq11", "eq11_marginal"):
        with pytest.raises(ValueError, match=f"loss {loss} must have a rollout with choice_logprobs"):
            response_scores(head, rollout, config_of("sequence", loss=loss))


# What is logged


def test_the_entropy_is_0_for_a_sure_head_and_log_k_for_a_uniform_one():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]], [[math.log(3), 0.0, -50.0, -50.0], [1.0] * 4]])
    mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(entropy(logits), torch.tensor([[math.log(4), 0.0], [mixed, math.log(4)]]))


def test_the_share_of_a_temperature_counts_decisions_and_not_padding():
    rollout = rollout_of()
    rows = torch.tensor([0, 4, 5, 5])
    drawn = [int(k) for r in rows for k, made in zip(rollout.temperature_ids[r], rollout.decision_mask[r], strict=True) if made]
    shares = share_of_choices(rollout, rows)
    assert shares == pytest.approx([drawn.count(k) / len(drawn) for k in range(3)])
    assert share_of_choices(rollout, rows[:0]) == [0, 0, 0]
    same = replace(rollout, temperature_ids=torch.zeros_like(rollout.temperature_ids))
    assert share_of_choices(same, rows) == share_of_choices(same, torch.tensor([11])) == [1, 0, 0]  # the last has one decision


@pytest.mark.parametrize("loss", ["eq10", "nll"])
def test_the_log_of_an_epoch_is_a_plain_mean_over_pairs_and_decisions(loss):
    rollout, head = rollout_of(n_prompts=100), head_of()  # 300 responses: more than are looked at together
    config = config_of(loss=loss, beta=0.7)
    pairs = PreferencePairs(torch.randperm(300, generator=seeded(1))[:150], torch.randperm(300, generator=seeded(2))[:150], 0)
    scores = response_scores(head, rollout, config)
    margins = [(scores[a] - scores[b]).item() for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)]
    losses = [math.log1p(math.exp(-0.7 * margin)) for margin in margins]
    if loss == "nll":
        losses = [-scores[a].item() for a in pairs.chosen.tolist()]
    differing = [margin for margin in margins if margin != 0]
    probs = head(rollout.hidden_states).softmax(-1)
    expected = {
        "loss": sum(losses) / 150,
        "margin": sum(margins) / 150,
        "pair_accuracy": sum(margin > 0 for margin in differing) / len(differing),
        "entropy": -(probs * probs.log()).sum().item() / len(rollout.hidden_states),
    }
    assert describe_fit(head, rollout, pairs, config) == pytest.approx(expected, rel=1e-4)
    assert 0.2 < expected["pair_accuracy"] < 0.8


# The step


def words_of(model, monkeypatch):
    """Reads responses again, as joint training does; the frozen copy is another model, so that the words' scores aren't 0."""
    monkeypatch.setattr("minilpo.word_scores.read", read)
    words = WordScores(model, Words(), "sum")
    words.reference = model_of(9)
    return words


def model_of(seed):
    model = Model()
    torch.nn.init.normal_(model.token_embedding.weight, generator=seeded(seed))
    return model


@pytest.mark.parametrize("loss, joint", [("eq10", False), ("nll", False), ("eq9", True)])
def test_a_fit_is_plain_gradient_descent_on_the_mean_loss_of_a_batch_in_the_order_of_the_generator(loss, joint, monkeypatch):
    rollout, config = rollout_of(), config_of(loss=loss, beta=0.7, train_lm=joint)  # 6 pairs in batches of 4, three times
    trained, by_hand = ([head_of(), *([model_of(0)] if joint else [])] for _ in range(2))
    words, slow_words = (words_of(models[1], monkeypatch) if joint else None for models in (trained, by_hand))
    parameters, slow_parameters = ([p for module in models for p in module.parameters()] for models in (trained, by_hand))
    head, plain = trained[0], by_hand[0]
    log = fit(head, torch.optim.SGD(parameters, lr=0.1), rollout, PAIRS, config, seeded(3), words)
    order = seeded(3)
    for _ in range(3):
        shuffled = torch.randperm(6, generator=order).tolist()
        for batch in (shuffled[:4], shuffled[4:]):
            sides = PAIRS.chosen[batch], PAIRS.rejected[batch]
            chosen, rejected = (response_scores(plain, rollout.rows(side), config, slow_words) for side in sides)
            loss_of_batch = -chosen.mean() if loss == "nll" else -(0.7 * (chosen - rejected)).sigmoid().log().mean()
            gradients = torch.autograd.grad(loss_of_batch, slow_parameters)
            for parameter, gradient in zip(slow_parameters, gradients, strict=True):
                parameter.data -= 0.1 * gradient
    for parameter, expected in zip(parameters, slow_parameters, strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-4, rtol=1e-3)
    assert len(log) == 3 and log[-1] == pytest.approx(describe_fit(head, rollout, PAIRS, config, words))
    assert log[0]["loss"] > log[1]["loss"] > log[2]["loss"]


# The loop


TASKS = [Warmth("hot", True), Warmth("icecold", False)]


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr("minilpo.lpo.generate", writer := Writer())
    monkeypatch.setattr("minilpo.lpo.PROMPTS_AT_ONCE", 4)
    return writer


def test_the_rounds_write_for_new_training_prompts_with_the_head_and_for_the_same_held_out_ones_greedily(writer):
    config = config_of(rounds=3, prompts=11, samples=5, validation_prompts=3, epochs=2, loss="eq10", head_learning_rate=0.01)
    model, tokenizer, saved, written = Model(), Words(), [], []
    head = head_of()
    save = lambda state, seconds: saved.append((dict(state), seconds))  # noqa: E731
    log = train_lpo(model, tokenizer, TASKS, head, config, 7, save=save, progress=written.append)
    expected = []
    for round in range(3):
        task_of, prompts = mixed_prompts(TASKS, 6, "train", python_rng(7, f"LPO prompts {round}"))  # 12 for 11: as many of each
        seed = torch_generator(7, f"LPO round {round}").initial_seed()
        expected += [(model, tokenizer, prompts[start : start + 4], seed, 5, "sample") for start in (0, 4, 8)]
        held_out = mixed_prompts(TASKS, 3, "validation", python_rng(7, "validation prompts"))[1]
        seed = torch_generator(7, "validation").initial_seed()
        expected.append((model, tokenizer, held_out, seed, VALIDATION_SAMPLES, "greedy"))
    assert writer.calls == expected
    assert written == [20, 20, 20, 24] * 3
    for round, entry in enumerate(log):
        sampled = writer.calls[4 * round : 4 * round + 3], writer.texts[4 * round : 4 * round + 3]
        rewards = [reward for call, texts in zip(*sampled, strict=True) for reward in rewards_of(TASKS, call[2], texts)]
        assert entry["round"] == round + 1 and len(entry["epochs"]) == 2
        assert entry["sampled_reward"] == pytest.approx(sum(rewards) / 60)
        of_prompt = [rewards[start : start + 5] for start in range(0, 60, 5)]
        flat = sum(max(five) == min(five) for five in of_prompt)
        assert entry["dropped_prompts"] == flat and entry["pairs"] == 12 - flat
        greedy = rewards_of(TASKS, writer.calls[4 * round + 3][2], writer.texts[4 * round + 3])
        assert entry["validation_reward"] == pytest.approx(sum(greedy) / 24)
    assert [set(state) for state, _ in saved] == [{"head", "optimizer", "log", "best"}] * 3
    assert all(set(seconds) == {"lpo", "rollout"} and 0 < min(seconds.values()) < 60 for _, seconds in saved)
    first_of_best = max(log, key=lambda entry: entry["validation_reward"])["round"]
    assert saved[-1][0]["best"]["round"] == first_of_best and log is saved[-1][0]["log"]
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, saved[first_of_best - 1][0]["head"][name])


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_joint_training_changes_head_and_model_at_their_own_rates_and_resumes_with_both(writer, monkeypatch, reduce):
    monkeypatch.setattr("minilpo.word_scores.read", read)
    made, plain_init = [], WordScores.__init__
    keep = lambda self, *arguments: made.append(arguments) or plain_init(self, *arguments)  # noqa: E731
    monkeypatch.setattr(WordScores, "__init__", keep)
    settings = {"rounds": 3, "prompts": 10, "samples": 4, "validation_prompts": 2, "loss": "eq9", "reduce": reduce}
    config, results, states = config_of(**settings, train_lm=True, epochs=1), [], []
    save = lambda state, _: states.append(copy.deepcopy(state))  # noqa: E731
    for state in (None, 1):
        head, model, words = head_of(), model_of(0).requires_grad_(False), Words()
        state = None if state is None else states[state]
        log = train_lpo(model, words, TASKS, head, config, 0, state=state, save=None if state else save)
        results.append((log, [*head.parameters(), *model.parameters()]))
        assert made[-1] == (model, words, reduce)
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert not torch.equal(states[0]["model"]["token_embedding.weight"], model_of(0).token_embedding.weight)
    best = states[-1]["best"]
    assert torch.equal(results[0][1][-1], best["model"]["token_embedding.weight"])
    assert torch.equal(results[0][1][0], best["head"]["mlp.0.weight"])


def test_the_constant_control_is_fitted_to_the_first_round_after_the_head_and_comes_back_when_training_resumes(writer):
    config, states = config_of(rounds=3, prompts=10, samples=4, validation_prompts=2, loss="eq10", epochs=2), []

    def trained(rounds, state=None):
        head, constant = head_of(), ConstantHead(16, CHOICES, "token", n_hidden=8, generator=seeded(0))
        save = lambda state, _: states.append(copy.deepcopy(state))  # noqa: E731
        options = {"constant_head": constant, "state": state, "save": save}
        train_lpo(Model(), Words(), TASKS, head, replace(config, rounds=rounds), 0, **options)
        return constant.state_dict()

    head, by_hand = head_of(), ConstantHead(16, CHOICES, "token", n_hidden=8, generator=seeded(0))
    drawn, generator = mixed_prompts(TASKS, 5, "train", python_rng(0, "LPO prompts 0")), torch_generator(0, "LPO round 0")
    rollout, pairs, _ = collect_pairs(Model(), Words(), *drawn, head, config, generator)
    for fitted in (head, by_hand):
        fit(fitted, _optimizer({"head": fitted}, config), rollout, pairs, config, generator)
    three = trained(3)
    resumed = trained(3, state=states[0])
    assert set(states[0]) == {"head", "optimizer", "log", "best", "constant_head"}
    for constant in (trained(1), three, resumed, states[0]["constant_head"], states[2]["constant_head"]):
        assert all(torch.equal(tensor, constant[name]) for name, tensor in by_hand.state_dict().items())


def test_the_optimizer_is_adam_with_a_rate_for_the_head_and_another_for_the_language_model():
    head, model = head_of(), Model()
    optimizer = _optimizer({"head": head, "model": model}, config_of(head_learning_rate=0.03, lm_learning_rate=0.002))
    assert type(optimizer) is torch.optim.Adam and [group["lr"] for group in optimizer.param_groups] == [0.03, 0.002]
    for group, module in zip(optimizer.param_groups, (head, model), strict=True):
        assert all(a is b for a, b in zip(group["params"], module.parameters(), strict=True))


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_one_round_teaches_the_head_what_each_task_wants(writer, level):
    head = head_of(level)
    config = config_of(
        level, rounds=1, prompts=40, samples=8, validation_prompts=4, epochs=20, head_learning_rate=0.02, loss="eq10"
    )
    log = train_lpo(Model(), Words(), TASKS, head, config, 0)
    assert log[-1]["validation_reward"] == 1 > log[0]["sampled_reward"] + 0.2
    assert log[0]["chosen_share"]["hot"][2] > log[0]["rejected_share"]["hot"][2] + 0.2
    assert log[0]["chosen_share"]["icecold"][0] > log[0]["rejected_share"]["icecold"][0] + 0.2


def test_what_is_collected_are_the_pairs_of_all_prompts_and_the_shares_of_each_task(writer):
    head, config = head_of("sequence"), config_of("sequence", samples=3, loss="eq10")
    task_of, prompts = mixed_prompts(TASKS, 7, "train", python_rng(0, "prompts"))
    written = []
    rollout, pairs, entry = collect_pairs(Model(), Words(), task_of, prompts, head, config, seeded(0), written.append)
    assert written == [12, 12, 12, 6] and rollout.n_samples == 1
    texts = [text for part in writer.texts for text in part]
    rewards = torch.tensor(rewards_of(TASKS, prompts, texts)).view(14, 3)
    assert 2 <= (rewards.amax(1) == rewards.amin(1)).sum() <= 10  # prompts that give no pair
    for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        assert rollout.prompts[a] == rollout.prompts[b]
        own = rewards[prompts.index(rollout.prompts[a])]
        got = rewards_of(TASKS, [rollout.prompts[a], rollout.prompts[b]], [rollout.responses[a], rollout.responses[b]])
        assert got == pytest.approx([own.max().item(), own.min().item()])
    assert {rollout.prompts[a] for a in pairs.chosen.tolist()} == {
        prompt for prompt, own in zip(prompts, rewards, strict=True) if own.max() > own.min()
    }
    assert entry["pairs"] == len(pairs.chosen) == 14 - pairs.n_dropped == 14 - entry["dropped_prompts"]
    assert entry["sampled_reward"] == pytest.approx(rewards.mean().item())
    for side, rows in (("chosen_share", pairs.chosen), ("rejected_share", pairs.rejected)):
        assert list(entry[side]) == ["hot", "icecold"]
        for name, shares in entry[side].items():
            own = [row for row in rows.tolist() if rollout.prompts[row].startswith(name)]
            assert shares == pytest.approx(share_of_choices(rollout, torch.tensor(own)))


def test_constants_of_eq_11_are_computed_where_a_loss_needs_them_and_only_there(writer, monkeypatch):
    asked, model, tokenizer = [], Model(), Words()
    add = lambda *arguments: asked.append(arguments) or replace(arguments[2], choice_logprobs=torch.zeros(0))  # noqa: E731
    monkeypatch.setattr("minilpo.lpo.with_choice_logprobs", add)
    task_of, prompts = mixed_prompts(TASKS, 4, "train", python_rng(0, "prompts"))
    for loss, needs in [("eq9", 0), ("eq10", 0), ("nll", 0), ("eq11", 1), ("eq11_marginal", 1)]:
        config = config_of("sequence", samples=5, loss=loss)
        rollout, _, _ = collect_pairs(model, tokenizer, task_of, prompts, head_of("sequence"), config, seeded(0))
        assert len(asked) == needs and (rollout.choice_logprobs is not None) == bool(needs)
        assert all(arguments[:2] == (model, tokenizer) for arguments in asked)
        asked.clear()


def test_the_validation_reward_is_the_mean_over_all_responses_to_all_prompts(writer):
    head, written = head_of(), []
    task_of, prompts = mixed_prompts(TASKS, 3, "validation", python_rng(0, "prompts"))
    reward = validation_reward("model", "tokenizer", head, task_of, prompts, seeded(5), written.append)
    assert writer.calls == [("model", "tokenizer", prompts, 5, VALIDATION_SAMPLES, "greedy")] and written == [24]
    assert reward == pytest.approx(sum(rewards_of(TASKS, prompts, writer.texts[0])) / 24)


class Strict(Warmth):
    """With a rule that is about the task of the prompt."""

    quality, constraint = "taste", "rule"

    def parts(self, prompt, response):
        assert prompt.startswith(self.name)
        return {"taste": 0.5, "rule": self.reward(prompt, response)}


def test_what_is_collected_by_the_constrained_rule_looks_at_the_parts_of_its_own_responses(writer):
    tasks = [Strict("hot", True), Strict("icecold", False)]
    task_of, prompts = mixed_prompts(tasks, 7, "train", python_rng(0, "prompts"))
    config = config_of(samples=5, loss="eq10", pairs="constrained")
    rollout, pairs, _ = collect_pairs(Model(), Words(), task_of, prompts, head_of(), config, seeded(0))
    of_name, kept = {task.name: task for task in tasks}, []
    for row, prompt in enumerate(rollout.prompts):
        kept.append(of_name[prompt.split()[0]].parts(prompt, rollout.responses[row])["rule"])
    assert len(pairs.chosen) > 7 and all(kept[a] > kept[b] for a, b in zip(pairs.chosen, pairs.rejected, strict=True))


def test_a_round_takes_the_time_of_writing_and_judging_apart_from_that_of_fitting(writer, monkeypatch):
    ticks, told = iter([1.0, 4.0, 9.0, 16.0]), []  # the start, after writing, after fitting, after the held-out prompts
    monkeypatch.setattr("minilpo.lpo.time.perf_counter", lambda: next(ticks))
    config = config_of(rounds=1, prompts=4, samples=4, validation_prompts=2, loss="eq10", epochs=1)
    train_lpo(Model(), Words(), TASKS, head_of(), config, 0, save=lambda state, seconds: told.append(seconds))
    assert told == [{"lpo": 9 - 4, "rollout": 4 - 1 + 16 - 9}]


@pytest.mark.parametrize("broken", ["weights", "hidden states"])
def test_a_round_without_a_pair_is_put_down_to_a_language_model_that_is_not_finite(writer, monkeypatch, broken):
    head, model = AdaptiveDecoder(16, [0.5], n_hidden=4, generator=seeded(0)), Model()
    if broken == "weights":
        model.token_embedding.weight.data[3, 4] = torch.nan
    else:
        monkeypatch.setattr("tests.standin.torch.randn", lambda n, generator: torch.full((n,), torch.inf))
    task_of, prompts = mixed_prompts(TASKS, 3, "train", python_rng(0, "prompts"))
    with pytest.raises(ValueError, match="the language model's weights and hidden states must be finite"):
        collect_pairs(model, Words(), task_of, prompts, head, config_of(samples=4), seeded(0))


def test_a_round_without_a_pair_says_how_many_prompts_there_were_and_what_to_change(writer):
    head = AdaptiveDecoder(16, [0.5], n_hidden=4, generator=seeded(0))  # one temperature: all responses are equal
    writer_task, prompts = mixed_prompts(TASKS, 3, "train", python_rng(0, "prompts"))
    with pytest.raises(
        ValueError, match="at least one of 6 prompts must have responses of different reward, got none; draw more"
    ):
        collect_pairs(Model(), Words(), writer_task, prompts, head, config_of(samples=4), seeded(0))
