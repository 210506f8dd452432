"""LPO: every loss finds what pays, resumes to the bit, and leaves alone what it should."""

import copy
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import LOSSES, LPOConfig
from minilpo.lpo import collect_pairs, entropy, fit, form_pairs, response_scores, train_lpo
from minilpo.preferences import PreferencePairs, all_pairs, best_worst_pairs, constrained_pairs, top_bottom_pairs
from minilpo.rollout import Rollout, generate, score, unpack
from minilpo.seeds import python_rng
from minilpo.tasks import split_of
from minilpo.word_scores import WordScores
from tests.conftest import seeded


class Bandit:
    """A task for any prompt: the reward is the share of different words in the response."""

    name = "bandit"

    def prompt(self, rng):
        things, others = rng.choice(["apples", "shells", "cards"]), rng.choice(["pens", "cakes"])
        return f"Mia has {rng.randint(3, 15)} {things}. How many {others} are left?"

    def demonstration(self, prompt, rng):
        raise NotImplementedError

    def reward(self, prompt, response):
        return float(len(set(response.split())) / max(1, len(response.split())))


def small(level="sequence", **settings):
    """A short training."""
    defaults = {"rounds": 2, "prompts": 16, "samples": 8, "epochs": 20, "pairs_per_batch": 8, "head_learning_rate": 0.01}
    return LPOConfig(**{**defaults, "validation_prompts": 4, **settings}).resolved(level)


@pytest.mark.parametrize(
    "level, loss", [("sequence", loss) for loss in LOSSES] + [("token", loss) for loss in LOSSES if loss != "eq11_marginal"]
)  # eq11_marginal is for one temperature a response
def test_every_loss_finds_the_temperature_that_pays_and_leaves_the_language_model_alone(model, tokenizer, level, loss):
    """Reward = share of different words. A greedy response repeats itself, so the warm temperature must win."""
    before = copy.deepcopy(model.state_dict())
    head = AdaptiveDecoder(16, [0.0, 1.5], level, n_hidden=16, generator=seeded(0))
    log = train_lpo(model, tokenizer, [Bandit()], head, small(level, loss=loss), seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    first, last = log[0]["epochs"][0], log[0]["epochs"][-1]
    assert last["loss"] < first["loss"] and last["margin"] > first["margin"] and last["entropy"] < first["entropy"]
    assert last["pair_accuracy"] > (0.7 if loss == "nll" else 0.9)  # the NLL doesn't look at the rejected
    assert log[0]["pairs"] + log[0]["dropped_prompts"] == 16
    chosen = generate(model, tokenizer, [Bandit().prompt(python_rng(1, "new"))], head, seeded(0))
    assert chosen.temperatures[chosen.decision_mask].mean() > 1.5 * (0.95 if level == "sequence" else 0.6)
    assert log[1]["sampled_reward"] > log[0]["sampled_reward"]


def test_lpo_resumes_to_the_bit_and_keeps_the_head_that_is_best_on_held_out_prompts(model, tokenizer):
    config = LPOConfig(rounds=3, prompts=16, samples=4, epochs=2, n_hidden=16, validation_prompts=4)
    heads, states, logs = [], [], []
    for state in (None, 0):
        head = AdaptiveDecoder(16, [0.0, 0.7, 1.5], n_hidden=16, generator=seeded(0))
        state = None if state is None else states[0]
        save = (lambda s, _: states.append(copy.deepcopy(s))) if state is None else None
        logs.append(train_lpo(model, tokenizer, [Bandit()], head, config, seed=0, state=state, save=save))
        heads.append(head)
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True))
    best = max(entry["validation_reward"] for entry in logs[0])
    assert states[-1]["best"]["validation_reward"] == best
    assert all(torch.equal(heads[0].state_dict()[name], tensor) for name, tensor in states[-1]["best"]["head"].items())


def test_prompts_of_a_round_are_new_ones_for_training_and_always_the_same_held_out_ones_for_validation(model, tokenizer):
    asked, rounds, splits = [], [], ("train", "validation", "test")

    class Recording(Bandit):
        def reward(self, prompt, response):
            asked.append(prompt)
            return super().reward(prompt, response)

    def save(state, seconds):
        rounds.append({split: {prompt for prompt in asked if split_of(prompt) == split} for split in splits})
        asked.clear()

    head = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16, generator=seeded(0))
    train_lpo(model, tokenizer, [Recording()], head, small(rounds=3, samples=4, epochs=1), seed=0, save=save)
    trained_on, validated_on, never_seen = ([seen[split] for seen in rounds] for split in splits)
    assert [len(prompts) for prompts in trained_on] == [16] * 3 and [len(prompts) for prompts in validated_on] == [4] * 3
    assert all(trained_on[a] != trained_on[b] for a, b in [(0, 1), (0, 2), (1, 2)])
    assert validated_on[0] == validated_on[1] == validated_on[2]
    assert not any(never_seen)


def test_of_rounds_that_are_equally_good_on_held_out_prompts_the_first_is_kept(model, tokenizer):
    class EqualOnValidation(Bandit):
        def reward(self, prompt, response):
            return 0.5 if split_of(prompt) == "validation" else super().reward(prompt, response)

    head, after = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16, generator=seeded(0)), []
    save = lambda state, _: after.append(copy.deepcopy(state["head"]))  # noqa: E731
    log = train_lpo(model, tokenizer, [EqualOnValidation()], head, small(rounds=3, epochs=2), seed=0, save=save)
    assert [entry["validation_reward"] for entry in log] == [0.5] * 3
    kept = [all(torch.equal(head.state_dict()[name], tensor) for name, tensor in state.items()) for state in after]
    assert kept == [True, False, False]


def test_a_reward_that_never_varies_is_an_error_that_says_what_to_change(model, tokenizer):
    class Flat(Bandit):
        def reward(self, prompt, response):
            return 0.5

    head = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16)
    with pytest.raises(ValueError, match="different reward"):
        train_lpo(model, tokenizer, [Flat()], head, LPOConfig(prompts=4, samples=2, validation_prompts=2), seed=0)


def simulated(p, q, n_prompts, n_samples, seed):
    """Responses in several contexts, where temperature k is right with probability p[c, k] and drawn with q[c, k]."""
    contexts, K = p.shape
    states = torch.randn(contexts, 16, generator=seeded(seed))
    of_prompt = torch.arange(n_prompts) % contexts
    ids = torch.multinomial(q[of_prompt], n_samples, replacement=True, generator=seeded(seed + 1))  # (P, N)
    rewards = (torch.rand(n_prompts, n_samples, generator=seeded(seed + 2)) < p[of_prompt].gather(1, ids)).float()
    rows = n_prompts * n_samples
    ones = torch.ones(rows, 1, dtype=torch.bool)
    rollout = Rollout(
        prompts=[""] * n_prompts,
        n_samples=n_samples,
        responses=[""] * rows,
        token_ids=torch.zeros(rows, 1, dtype=torch.int32),
        response_mask=ones,
        hidden_states=states[of_prompt].repeat_interleave(n_samples, 0),
        temperature_ids=ids.flatten()[:, None],
        decision_mask=ones,
        temperature_choices=torch.linspace(0, 1, K),
    )
    pairs = best_worst_pairs(rewards, seeded(seed + 3))
    used, row = torch.cat([pairs.chosen, pairs.rejected]).unique(return_inverse=True)
    return states, rollout.rows(used), PreferencePairs(*row.chunk(2), pairs.n_dropped)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loss", ["eq10", "nll"])
def test_the_real_head_lands_on_the_closed_forms_in_several_contexts_at_once(loss, seed):
    """12,000 prompts of 8 samples: every probability within 0.05 of (p / (1 - p))^(1 / beta) for Eq. 10, of q p for the NLL."""
    beta = [0.5, 1.0, 2.0, 1.0][seed]
    p = 0.2 + 0.6 * torch.rand(2, 4, generator=seeded(seed + 20))
    q = 0.1 + torch.rand(2, 4, generator=seeded(seed + 30))
    q /= q.sum(1, keepdim=True)
    states, rollout, pairs = simulated(p, q, 12_000, 8, seed)
    head = AdaptiveDecoder(16, [0.0, 0.3, 0.6, 1.0], n_hidden=32, generator=seeded(seed))
    config = LPOConfig(loss=loss, beta=beta, epochs=1, pairs_per_batch=1000).resolved("sequence")
    for rate in (3e-3, 3e-3, 1e-3, 3e-4):
        fit(head, torch.optim.Adam(head.parameters(), lr=rate), rollout, pairs, replace(config, epochs=4), seeded(seed))
    expected = (p / (1 - p)) ** (1 / beta) if loss == "eq10" else p * q
    got = head(states).softmax(-1).detach()
    torch.testing.assert_close(got, expected / expected.sum(1, keepdim=True), atol=0.05, rtol=0)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_with_a_frozen_language_model_eq_9_gives_the_head_of_eq_10(model, tokenizer, level):
    heads = []
    for loss in ("eq9", "eq10"):
        head = AdaptiveDecoder(16, [0.0, 1.5], level, n_hidden=16, generator=seeded(0))
        train_lpo(model, tokenizer, [Bandit()], head, small(level, loss=loss, epochs=2), seed=0)
        heads.append(head)
    assert all(torch.equal(a, b) for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True))


TWO_PROMPTS = ["Mia has 7 apples. How many pens are left?", "Tell me a story of three sentences about a fox in the forest."]


@pytest.fixture
def responses(model, tokenizer, head):
    """A rollout of two prompts of unlike length, and its rewards."""
    rollout = generate(model, tokenizer, TWO_PROMPTS, head, seeded(0), n_samples=6, selection="sample", max_new_tokens=20)
    return rollout, score(rollout, [Bandit(), Bandit()])


def test_reading_responses_again_gives_the_log_probabilities_and_states_of_one_at_a_time(model, tokenizer, responses):
    rollout, _ = responses
    packed, logprobs = WordScores(model, tokenizer, "sum").read_words(model, rollout)
    hidden_states = unpack(packed, rollout.response_mask)
    for row in range(12):
        prompt = [*tokenizer.encode(rollout.prompts[row // 6]), tokenizer.sep_id]
        n = int(rollout.response_mask[row].sum())
        ids = torch.tensor([[*prompt, *rollout.token_ids[row, :n].tolist()]])
        h = model(ids[:, :-1])[0, len(prompt) - 1 :]
        expected = model.logits(h).log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(logprobs[row, :n], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(hidden_states[row, :n], h, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(rollout.hidden_states[row], h[0], atol=1e-4, rtol=1e-4)  # what the rollout stored


def test_joint_training_makes_the_words_of_better_responses_likelier_than_a_frozen_copy_finds_them(model, tokenizer, responses):
    rollout, rewards = responses
    pairs = best_worst_pairs(rewards, seeded(0))
    before = copy.deepcopy(model)
    words = WordScores(model.requires_grad_(True), tokenizer, "sum")
    head = AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8, generator=seeded(0))
    config = small(loss="eq9", train_lm=True)
    fit(head, torch.optim.Adam([*head.parameters(), *model.parameters()], lr=1e-3), rollout, pairs, config, seeded(0), words)
    gain = [
        words.read_words(model, rollout.rows(rows))[1] - words.read_words(before, rollout.rows(rows))[1]
        for rows in (pairs.chosen, pairs.rejected)
    ]
    masks = [rollout.response_mask[rows] for rows in (pairs.chosen, pairs.rejected)]
    chosen, rejected = ((g * m).sum(1).mean().item() for g, m in zip(gain, masks, strict=True))
    assert chosen > rejected + 0.5
    assert all(torch.equal(a, b) for a, b in zip(words.reference.parameters(), before.parameters(), strict=True))


def test_joint_training_resumes_to_the_bit_and_keeps_the_model_that_belongs_to_the_best_head(model, tokenizer):
    config, states, results = small(loss="eq9", train_lm=True, epochs=2, rounds=3), [], []
    for start in (None, 1):
        words, head = copy.deepcopy(model), AdaptiveDecoder(16, [0.0, 0.7, 1.5], n_hidden=16, generator=seeded(0))
        save = (lambda s, _: states.append(copy.deepcopy(s))) if start is None else None
        log = train_lpo(
            words, tokenizer, [Bandit()], head, config, seed=0, state=states[start] if start is not None else None, save=save
        )
        results.append((log, [*words.parameters(), *head.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert not torch.equal(results[0][1][0], model.token_embedding.weight)


def test_only_responses_that_are_in_a_pair_are_kept_and_the_pairs_still_point_at_them(model, tokenizer, head, monkeypatch):
    monkeypatch.setattr("minilpo.lpo.PROMPTS_AT_ONCE", 7)
    prompts = list(dict.fromkeys(Bandit().prompt(python_rng(0, str(i))) for i in range(60)))
    assert len(prompts) > 2 * 7
    config = small(samples=4)
    rollout, pairs, entry = collect_pairs(model, tokenizer, [Bandit()] * len(prompts), prompts, head, config, seeded(0))
    rewards = torch.tensor([Bandit().reward(p, r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)])
    assert (rewards[pairs.chosen] > rewards[pairs.rejected]).all()
    assert [rollout.prompts[i] for i in pairs.chosen.tolist()] == [rollout.prompts[i] for i in pairs.rejected.tolist()]
    assert len(pairs.chosen) + pairs.n_dropped == len(prompts) and entry["pairs"] == len(pairs.chosen)
    assert sorted(torch.cat([pairs.chosen, pairs.rejected]).tolist()) == list(range(len(rollout.responses)))
    assert sum(entry["chosen_share"]["bandit"]) == pytest.approx(1)


def test_the_constrained_rule_looks_at_the_parts_that_the_task_names(responses):
    class Ruled(Bandit):
        quality, constraint = "length", "spread"

        def parts(self, prompt, response):
            return {"length": len(response) / 200, "spread": self.reward(prompt, response)}

    rollout, rewards = responses
    config = small(pairs="constrained")
    pairs = form_pairs(rollout, rewards, [Ruled()] * 2, config, seeded(0))
    parts = [Ruled().parts("", response) for response in rollout.responses]
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        assert parts[chosen]["length"] >= parts[rejected]["length"] and parts[chosen]["spread"] >= parts[rejected]["spread"]
    assert len(pairs.chosen) + pairs.n_dropped == 2


def test_pairs_are_formed_by_the_rule_that_is_named_and_without_a_constraint_the_constrained_rule_looks_at_rewards(responses):
    rollout, rewards = responses
    expected = {
        "best_worst": best_worst_pairs(rewards, seeded(0)),
        "top_bottom": top_bottom_pairs(rewards, 2, seeded(0)),
        "all": all_pairs(rewards),
        "constrained": constrained_pairs(rewards, rewards, seeded(0)),
    }
    for rule, pairs in expected.items():
        formed = form_pairs(rollout, rewards, [Bandit()] * 2, small(pairs=rule, pairs_per_prompt=2), seeded(0))
        assert torch.equal(formed.chosen, pairs.chosen) and torch.equal(formed.rejected, pairs.rejected)
        assert (rewards.flatten()[formed.chosen] > rewards.flatten()[formed.rejected]).all() and len(formed.chosen) >= 2


def test_the_constant_head_learns_from_the_first_round_and_says_the_same_to_everything(model, tokenizer):
    head, constant = (kind(16, [0.0, 1.5], n_hidden=16, generator=seeded(0)) for kind in (AdaptiveDecoder, ConstantHead))
    train_lpo(model, tokenizer, [Bandit()], head, small(rounds=1), seed=0, constant_head=constant)
    probs = constant(torch.randn(5, 16, generator=seeded(3))).softmax(-1)
    assert (probs == probs[0]).all() and probs[0, 1] > 0.6
    other = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16, generator=seeded(0))
    train_lpo(model, tokenizer, [Bandit()], other, small(rounds=1), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))  # it changes nothing


def test_the_constant_head_is_fitted_in_the_first_round_only_and_comes_back_when_training_resumes(model, tokenizer):
    def trained(rounds, state=None, save=None):
        head, constant = (kind(16, [0.0, 1.5], n_hidden=16, generator=seeded(0)) for kind in (AdaptiveDecoder, ConstantHead))
        options = {"constant_head": constant, "state": state, "save": save}
        train_lpo(model, tokenizer, [Bandit()], head, small(rounds=rounds, epochs=2), seed=0, **options)
        return constant.state_dict()

    states = []
    one = trained(1, save=lambda state, _: states.append(copy.deepcopy(state)))
    for other in (trained(3), trained(3, state=states[0])):
        assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


def test_pairs_with_the_same_temperature_on_both_sides_count_neither_for_nor_against_the_accuracy():
    head = AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8, generator=seeded(0))
    head.mlp[-1].bias.data = torch.tensor([0.0, 1.0, 2.0])  # the third temperature is the likeliest
    _, rollout, _ = simulated(torch.full((1, 3), 0.5), torch.full((1, 3), 1 / 3), 4, 16, 0)
    row = [rollout.temperature_ids[:, 0].tolist().index(k) for k in range(3)]  # a response at each temperature
    config, standing_still = small(epochs=1), torch.optim.SGD(head.parameters(), lr=0.0)
    for sides, expected in [
        ([(2, 0), (2, 1), (0, 1), (0, 0), (1, 1), (2, 2), (2, 2)], 2 / 3),
        ([(0, 2), (1, 1)], 0.0),
        ([(1, 1), (2, 2)], 0.5),  # nothing to be right about
    ]:
        chosen, rejected = (torch.tensor([row[k] for k in side]) for side in zip(*sides, strict=True))
        [epoch] = fit(head, standing_still, rollout, PreferencePairs(chosen, rejected, 0), config, seeded(0))
        assert epoch["pair_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_log_of_joint_training_describes_the_joint_loss_of_the_model_as_it_has_become(model, tokenizer, level):
    """Eq. 9, counted again one response at a time; the states that were stored before would give Eq. 10."""
    head = AdaptiveDecoder(16, [0.0, 0.5, 1.0], level, n_hidden=8, generator=seeded(0))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(2))
    options = {"n_samples": 6, "selection": "sample", "max_new_tokens": 20}
    rollout = generate(model, tokenizer, TWO_PROMPTS, head, seeded(0), **options)
    pairs, before = best_worst_pairs(score(rollout, [Bandit()] * 2), seeded(0)), copy.deepcopy(model)
    config = small(level, loss="eq9", train_lm=True)
    words = WordScores(model.requires_grad_(True), tokenizer, "sum")
    optimizer = torch.optim.Adam([*head.parameters(), *model.parameters()], lr=3e-3)
    log = fit(head, optimizer, rollout, pairs, config, seeded(0), words)
    scores, entropies = [], []
    for row in range(12):
        prompt = [*tokenizer.encode(rollout.prompts[row // 6]), tokenizer.sep_id]
        written = rollout.token_ids[row, rollout.response_mask[row]].long()
        ids = torch.tensor([[*prompt, *written.tolist()]])
        now, then = (lm.logits(lm(ids)[0, len(prompt) - 1 : -1]).log_softmax(-1) for lm in (model, before))
        chosen = rollout.temperature_ids[row, rollout.decision_mask[row]]  # one, or one a token
        log_choices = head(model(ids)[0, len(prompt) - 1 :][: len(chosen)]).log_softmax(-1)
        of_words = (now - then).gather(-1, written[:, None]).sum()
        of_choices = (log_choices.gather(-1, chosen[:, None]) + torch.tensor(3.0).log()).sum()
        scores.append(of_words + of_choices)
        entropies.append(-(log_choices.exp() * log_choices).sum(-1))
    entropies = torch.cat(entropies)
    margin = torch.stack([scores[a] - scores[b] for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)])
    assert margin.abs().min() > 0.1  # far from rounding
    entropy_before = entropy(head(rollout.hidden_states)).mean().item()  # of the head on what the rollout stored
    assert abs(entropies.mean().item() - entropy_before) > 0.01
    expected = {
        "loss": -torch.nn.functional.logsigmoid(margin).mean(),
        "margin": margin.mean(),
        "pair_accuracy": (margin > 0).float().mean(),
        "entropy": entropies.mean(),
    }
    assert log[-1] == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-3)
    assert len(log) == config.epochs and log[-1]["loss"] < log[0]["loss"]


# Numbers that aren't finite


def test_a_fit_that_diverges_ends_at_once_and_names_the_flags_that_may_have_caused_it(model, tokenizer, responses):
    rollout, rewards = responses
    pairs, config = best_worst_pairs(rewards, seeded(0)), small(loss="eq9", beta=2.5, pairs_per_batch=1)

    def message(config, what, words=None, unused=(), rate=torch.inf, pairs=pairs):
        head = AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8, generator=seeded(0))
        parameters = [*head.parameters(), *(model.parameters() if words else []), *unused]
        with pytest.raises(ValueError, match=f"^the {what} must stay finite, got NaN or infinity in epoch 1 of ") as error:
            fit(head, torch.optim.SGD(parameters, lr=rate), rollout, pairs, config, seeded(0), words)
        return str(error.value)

    said = message(config, "loss")  # of the second pair
    assert said.endswith("in epoch 1 of 20 of LPO; lower --head-learning-rate (now 0.01) or --beta (now 2.5)")
    assert message(replace(config, loss="nll"), "loss").endswith("lower --head-learning-rate (now 0.01)")  # it has no beta
    one_step = replace(config, pairs_per_batch=100, epochs=1)  # no loss comes after it, but the head would be kept
    message(one_step, "loss or weights")
    message(one_step, "loss or weights", unused=[torch.nn.Parameter(torch.tensor(torch.inf))], rate=0.0)
    a, b = 0, (rollout.temperature_ids[:6, 0] != rollout.temperature_ids[0, 0]).nonzero()[0].item()
    two_against_one = PreferencePairs(torch.tensor([a, a, b]), torch.tensor([b, b, a]), 0)
    message(replace(one_step, beta=1e3), "loss or weights", rate=1e34, pairs=two_against_one)  # an infinite loss
    words = WordScores(model.requires_grad_(True), tokenizer, "sum")
    said = message(replace(config, train_lm=True), "loss", words)
    assert said.endswith("--head-learning-rate (now 0.01) or --lm-learning-rate (now 0.0001) or --beta (now 2.5)")


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("broken", ["token_embedding.weight", "norm.weight", "blocks.0.up.bias"])
def test_a_language_model_that_is_not_finite_is_named_as_the_cause_and_more_samples_are_not_advised(
    model, tokenizer, level, broken
):
    dict(model.named_parameters())[broken].fill_(torch.nan)
    head = AdaptiveDecoder(16, [0.0, 1.5], level, n_hidden=16, generator=seeded(0))
    with pytest.raises(ValueError, match="the language model's weights and hidden states must be finite") as error:
        train_lpo(model, tokenizer, [Bandit()], head, small(level), seed=0)
    assert "--samples" not in str(error.value) and "--head-learning-rate" not in str(error.value)


def test_hidden_states_that_are_not_finite_are_not_blamed_on_the_head(responses):
    rollout, rewards = responses
    rollout = replace(rollout, hidden_states=rollout.hidden_states.clone().fill_(torch.inf))
    head = AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8, generator=seeded(0))
    with pytest.raises(ValueError, match="the language model's weights and hidden states must be finite"):
        fit(head, torch.optim.Adam(head.parameters()), rollout, best_worst_pairs(rewards, seeded(0)), small(), seeded(0))


def test_eq_11_without_its_constants_is_an_error_that_names_who_computes_them(model, tokenizer, responses):
    rollout, _ = responses
    with pytest.raises(ValueError, match="with_choice_logprobs"):
        response_scores(AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8), rollout, small(loss="eq11"))
