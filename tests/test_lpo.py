"""LPO: every loss finds what pays, resumes to the bit, and leaves alone what it should."""

import copy
from dataclasses import replace

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import LOSSES, LPOConfig
from minilpo.lpo import collect_pairs, fit, form_pairs, response_scores, train_lpo
from minilpo.preferences import best_worst_pairs
from minilpo.rollout import Rollout, generate, score, unpack
from minilpo.seeds import python_rng
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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_every_loss_finds_the_temperature_that_pays_and_leaves_the_language_model_alone(model, tokenizer, level, loss):
    """Reward = share of different words. A greedy response repeats itself, so the warm temperature must win."""
    if (level, loss) == ("token", "eq11_marginal"):
        return  # it is for one temperature a response
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
    return states, rollout, best_worst_pairs(rewards, seeded(seed + 3))


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


@pytest.fixture
def responses(model, tokenizer, head):
    """A rollout of two prompts of unlike length, and its rewards."""
    prompts = ["Mia has 7 apples. How many pens are left?", "Tell me a story of three sentences about a fox in the forest."]
    rollout = generate(model, tokenizer, prompts, head, seeded(0), n_samples=6, selection="sample", max_new_tokens=20)
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


def test_the_constant_head_learns_from_the_first_round_and_says_the_same_to_everything(model, tokenizer):
    head, constant = (kind(16, [0.0, 1.5], n_hidden=16, generator=seeded(0)) for kind in (AdaptiveDecoder, ConstantHead))
    train_lpo(model, tokenizer, [Bandit()], head, small(rounds=1), seed=0, constant_head=constant)
    probs = constant(torch.randn(5, 16, generator=seeded(3))).softmax(-1)
    assert (probs == probs[0]).all() and probs[0, 1] > 0.6
    other = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16, generator=seeded(0))
    train_lpo(model, tokenizer, [Bandit()], other, small(rounds=1), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))  # it changes nothing


def test_eq_11_without_its_constants_is_an_error_that_names_who_computes_them(model, tokenizer, responses):
    rollout, _ = responses
    with pytest.raises(ValueError, match="with_choice_logprobs"):
        response_scores(AdaptiveDecoder(16, [0.0, 0.5, 1.0], n_hidden=8), rollout, small(loss="eq11"))
