"""Eq. 9 trains the words too: its scores are a plain count, better responses become likelier.

What every loop promises (rounds without pairs, prompts that are too long) is tested in `test_lpo`.
"""

import copy
import math

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, unpack
from minilpo.decoding import SampledHead
from minilpo.decoding.generate import generate
from minilpo.decoding.rollout import forward_rollout, score
from minilpo.decoding.sampling import entropy
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.preferences import all_pairs, best_worst_pairs
from minilpo.rivals.joint import JointState, fit_joint, response_scores
from tests.conftest import CHOICES, seeded
from tests.standin import Words, Writer, language_model
from tests.test_lpo import (
    TASKS,
    WEIGHTED,
    Bandit,
    close,
    descend,
    head_of,
    kept_in,
    new_head,
    rollout_of,
    same,
    small,
    tiny,
    train,
)

JOINT = {"loss": "eq9", "train_lm": True}
TWO_PROMPTS = [
    "Mia has 7 apples. How many pens are left?",
    "Tell me a story of three sentences about a fox in the forest.",
]


def state_of(lm, head, config):
    """The frozen copy is another model, so that the words' scores aren't 0."""
    state = JointState(lm, head, config)
    state.reference = language_model(9)
    return state


def written_by(lm, head):
    """Six responses to each of two prompts of unlike length, and their rewards."""
    options = {"n_samples": 6, "max_new_tokens": 20}
    rollout = generate(lm, TWO_PROMPTS, SampledHead(head, CHOICES), seeded(0), **options)
    return rollout, score(rollout, [Bandit()] * 2)


def log_probabilities(lm, rollout):
    """Of the responses' words, (R, T), and 0 after them."""
    token_ids = rollout.token_ids[rollout.response_mask].long()
    logprobs = forward_rollout(lm, rollout)[1].log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]
    return unpack(logprobs, rollout.response_mask)


# Scores


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("reference", ["uniform", "none"])
def test_the_joint_score_is_that_of_the_words_and_that_of_the_choices_counted_one_by_one(
    level, reduce, reference
):
    """The stand-in sees one token: before the first of a response, the end mark of the prompt."""
    rollout, head, lm = rollout_of(level), head_of(level), language_model()
    config = tiny(level, reduce=reduce, reference=reference, **JOINT)
    state = state_of(lm, head, config)
    scores, packed = response_scores(state, head, rollout, config)
    made, logits, models = rollout.decisions, [], (lm.model, state.reference.model)
    for row in range(12):
        words, choices, last = [], [], Words.sep_id
        for t, token in enumerate(rollout.token_ids[row, rollout.response_mask[row]].tolist()):
            states = [model.token_embedding.weight[last] for model in models]
            both = zip(models, states, strict=True)
            now, then = (model.logits(h).softmax(-1)[token].item() for model, h in both)
            words.append(math.log(now / then))
            if t < made.mask.shape[1]:
                logits.append(head(states[0]))
                prob = logits[-1].softmax(-1)[made.choice_ids[row, t]].item()
                choices.append(math.log(prob * (3 if reference == "uniform" else 1)))
            last = token
        means = sum(words) / len(words) + sum(choices) / len(choices)
        expected = means if reduce == "mean" else sum(words) + sum(choices)
        assert scores[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    torch.testing.assert_close(packed, torch.stack(logits))


def test_reading_responses_again_gives_the_log_probabilities_and_states_of_one_at_a_time(lm, head):
    rollout, _ = written_by(lm, head)
    hidden_states = unpack(forward_rollout(lm, rollout)[0], rollout.response_mask)
    logprobs, model, tokenizer = log_probabilities(lm, rollout), lm.model, lm.tokenizer
    close_to = {"atol": 1e-4, "rtol": 1e-4}
    for row in range(12):
        prompt = [*tokenizer.encode(rollout.prompts[row // 6]), tokenizer.sep_id]
        n = int(rollout.response_mask[row].sum())
        ids = torch.tensor([[*prompt, *rollout.token_ids[row, :n].tolist()]])
        h = model(ids[:, :-1])[0, len(prompt) - 1 :]
        expected = model.logits(h).log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(logprobs[row, :n], expected, **close_to)
        torch.testing.assert_close(hidden_states[row, :n], h, **close_to)
        torch.testing.assert_close(rollout.decisions.features[row], h[0], **close_to)


# The step


def test_a_joint_fit_is_plain_gradient_descent_on_head_and_language_model():
    rollout, config, modules = (
        rollout_of(),
        tiny(epochs=3, pairs_per_batch=4, beta=0.7, **JOINT),
        [],
    )
    for by_hand in (False, True):
        lm, head = language_model(), head_of()
        state = state_of(lm, head, config)
        modules.append((head, lm.model))
        parameters = [*head.parameters(), *lm.model.parameters()]
        state.optimizer = torch.optim.SGD(parameters, lr=0.1)
        if by_hand:
            scores_of = lambda rows: response_scores(state, head, rollout.rows(rows), config)[0]  # noqa: B023, E731
            descend(state.optimizer, scores_of, WEIGHTED, config, seeded(3))
        else:
            log = fit_joint(state, head, rollout, WEIGHTED, config, seeded(3))
    for quick, slow in zip(*modules, strict=True):
        close(quick, slow)
    assert log[0]["loss"] > log[1]["loss"] > log[2]["loss"] and len(log) == 3


def test_the_words_of_better_responses_become_likelier_than_a_frozen_copy_finds_them(lm, head):
    rollout, rewards = written_by(lm, head)
    before = GPTLanguageModel(copy.deepcopy(lm.model), lm.tokenizer)
    head, config = head_of("sequence"), small(lm_learning_rate=1e-3, **JOINT)
    pairs, state = best_worst_pairs(rewards, seeded(0)), JointState(lm, head, config)
    fit_joint(state, head, rollout, pairs, config, seeded(0))
    gains = log_probabilities(lm, rollout) - log_probabilities(before, rollout)  # 0 after the end
    chosen, rejected = (gains[side].sum(1).mean() for side in (pairs.chosen, pairs.rejected))
    assert chosen > rejected + 0.5
    assert same(state.reference.model, before.model) and not same(lm.model, before.model)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_log_describes_the_joint_loss_of_the_model_as_it_has_become(lm, level):
    """Eq. 9, counted again one response at a time.

    The states that were stored before would give Eq. 10.
    """
    head, config = head_of(level), small(level, lm_learning_rate=3e-3, **JOINT)
    rollout, rewards = written_by(lm, head)
    rows, pairs = all_pairs(rewards).compact()
    rollout, model, tokenizer = rollout.rows(rows), lm.model, lm.tokenizer
    made, before, state = rollout.decisions, copy.deepcopy(model), JointState(lm, head, config)
    log = fit_joint(state, head, rollout, pairs, config, seeded(0))
    scores, entropies = [], []
    assert 6 < len(rollout) <= 12
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
        of_choices = (log_choices.gather(-1, chosen[:, None]) + math.log(3)).sum()
        scores.append(of_words + of_choices)
        entropies.append(-(log_choices.exp() * log_choices).sum(-1))
    margin = torch.stack(scores)[pairs.chosen] - torch.stack(scores)[pairs.rejected]
    assert margin.abs().min() > 0.05  # far from rounding
    mean_entropy = torch.cat(entropies).mean()
    # What was stored before would give another one.
    assert abs(mean_entropy - entropy(head(made.features)).mean()) > 0.01
    expected = {
        "loss": -torch.nn.functional.logsigmoid(margin).mean(),
        "margin": margin.mean(),
        "pair_accuracy": (margin > 0).float().mean(),
        "entropy": mean_entropy,
    }
    expected = {name: value.item() for name, value in expected.items()}
    assert log[-1] == pytest.approx(expected, rel=1e-3)
    assert len(log) == config.epochs and log[-1]["loss"] < log[0]["loss"]


# The loop


def test_it_resumes_to_the_bit_and_keeps_the_model_that_belongs_to_the_best_head(model, tokenizer):
    config, states, results = small(epochs=2, rounds=3, **JOINT), [], []
    for start in (None, 0, 1):
        lm, head = GPTLanguageModel(copy.deepcopy(model), tokenizer), new_head(CHOICES)
        saved, callbacks = (None, kept_in(states)) if start is None else (states[start], [])
        options = {"saved": saved, "callbacks": callbacks}
        results.append((train(lm, [Bandit()], head, CHOICES, config, **options), lm.model, head))
    log, trained, head = results[0]
    for again in results[1:]:
        assert again[0] == log and same(again[1], trained) and same(again[2], head)
    assert not torch.equal(trained.token_embedding.weight, model.token_embedding.weight)
    best = states[-1]["best"]
    assert same(trained, best["model"]) and same(head, best["head"])


def test_head_and_language_model_have_their_own_rates():
    """Adam's first step moves each weight by its rate."""
    rates = {"head_learning_rate": 0.02, "lm_learning_rate": 0.003, "pairs_per_batch": 100}
    lm, head = language_model(), head_of()
    train(lm, TASKS, head, CHOICES, tiny(**rates, **JOINT), respond=Writer().respond)
    steps = [(head, head_of(), 0.02), (lm.model, language_model().model, 0.003)]
    for trained, before, rate in steps:
        now, then = trained.state_dict(), before.state_dict()
        moved = max((now[name] - then[name]).abs().max().item() for name in now)
        assert moved == pytest.approx(rate, rel=1e-2)


def test_a_language_model_that_is_not_ours_can_not_be_trained_but_a_head_for_it_can(lm):
    class Foreign:
        end_ids, sentence_starts, max_length = lm.end_ids, lm.sentence_starts, lm.max_length
        encode, decode, prefill = lm.encode, lm.decode, lm.prefill

    head = AdaptiveDecoder(16, 3, generator=seeded(0))
    config = small(rounds=1, epochs=1, **JOINT)
    with pytest.raises(ValueError, match="GPTLanguageModel to train, got Foreign"):
        train(Foreign(), [Bandit()], head, CHOICES, config)
    train(Foreign(), [Bandit()], head, CHOICES, small(rounds=1, epochs=1, loss="eq9"))
