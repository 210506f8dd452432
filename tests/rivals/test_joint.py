"""Eq. 9 trains the words too. What every loop promises is tested in `test_lpo`."""

import copy
import math

import pytest
import torch

from minilpo.adaptive_decoder import unpack
from minilpo.cli import print_results
from minilpo.config import EvaluationConfig
from minilpo.decoding import SampledHead
from minilpo.decoding.generate import generate
from minilpo.decoding.rollout import forward_rollout, score
from minilpo.decoding.sampling import entropy
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.preferences import all_pairs, best_worst_pairs
from minilpo.rivals.joint import JointState, fit_joint, response_scores, words_and_head
from tests.conftest import CHOICES, seeded
from tests.lm.test_language_model import PROMPTS
from tests.standin import Writer, head_of, kept_in, language_model, same
from tests.test_lpo import TASKS, WEIGHTED, Bandit, close, descend, rollout_of, small, tiny, train

JOINT = {"loss": "eq9", "train_lm": True}


def written_by(lm, head):
    """Six responses to each of two prompts of unlike length, and their rewards."""
    options = {"n_samples": 6, "max_new_tokens": 20}
    rollout = generate(lm, PROMPTS[:2], SampledHead(head, CHOICES), seeded(0), **options)
    return rollout, score(rollout, [Bandit()] * 2)


def counted_again(state, head, rollout, config):
    """Eq. 9's scores, (R,), and the choice logits, (n, K), one response after the other."""
    made, scores, logits = rollout.decisions, [], []
    for row in range(len(rollout)):
        [prompt] = state.lm.encode([rollout.prompt_of(row)])
        words = rollout.token_ids[row, rollout.response_mask[row]].long()
        ids = torch.tensor([[*prompt, *words.tolist()]])
        states = [lm.model(ids)[0, len(prompt) - 1 : -1] for lm in (state.lm, state.reference)]
        now, then = (state.lm.model.logits(states[0]), state.reference.model.logits(states[1]))
        gains = now.log_softmax(-1) - then.log_softmax(-1)
        chosen = made.choice_ids[row, made.mask[row]]  # one, or one per token
        logits.append(head(states[0][: len(chosen)]))
        of_choices = logits[-1].log_softmax(-1).gather(-1, chosen[:, None])
        of_choices = of_choices + math.log(3) * (config.reference == "uniform")
        parts = gains.gather(-1, words[:, None]), of_choices
        scores.append(sum(getattr(part, config.reduce)() for part in parts))
    return torch.stack(scores), torch.cat(logits)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("reduce, reference", [("sum", "uniform"), ("mean", "none")])
def test_the_score_is_that_of_the_words_and_that_of_the_choices_counted_one_by_one(
    lm, level, reduce, reference
):
    head = head_of(level)
    config = small(level, reduce=reduce, reference=reference, **JOINT)
    state, (rollout, _) = JointState(lm, head, config), written_by(lm, head)
    with torch.no_grad():  # or the frozen copy would cancel the words
        for weight in state.reference.model.parameters():
            weight.mul_(1.1)
    scores, logits = counted_again(state, head, rollout, config)
    got = response_scores(state, head, rollout, config)
    torch.testing.assert_close(got, (scores, logits), atol=1e-4, rtol=1e-3)


# The step


def test_a_joint_fit_is_plain_gradient_descent_on_head_and_language_model():
    config, modules = tiny(epochs=3, pairs_per_batch=4, beta=0.7, **JOINT), []
    rollout = rollout_of()
    for by_hand in (False, True):
        lm, head = language_model(), head_of()
        state = JointState(lm, head, config)
        state.reference = language_model(9)  # another model, so that the words' scores aren't 0
        modules.append((head, lm.model))
        state.optimizer = torch.optim.SGD([*head.parameters(), *lm.model.parameters()], lr=0.1)
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
    head, config = head_of("sequence"), small(lm_learning_rate=3e-3, epochs=6, **JOINT)
    pairs, state = best_worst_pairs(rewards, seeded(0)), JointState(lm, head, config)
    fit_joint(state, head, rollout, pairs, config, seeded(0))
    ids = rollout.token_ids[rollout.response_mask].long()[:, None]
    now, then = (forward_rollout(any_, rollout)[1].log_softmax(-1) for any_ in (lm, before))
    gains = unpack((now - then).gather(-1, ids)[:, 0], rollout.response_mask)  # 0 after the end
    chosen, rejected = (gains[side].sum(1).mean() for side in (pairs.chosen, pairs.rejected))
    assert chosen > rejected + 0.5
    assert same(state.reference.model, before.model) and not same(lm.model, before.model)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_log_describes_the_joint_loss_of_the_model_as_it_has_become(lm, level):
    """The states that were stored before would give Eq. 10."""
    head, config = head_of(level), small(level, lm_learning_rate=5e-3, epochs=5, **JOINT)
    rollout, rewards = written_by(lm, head)
    rows, pairs = all_pairs(rewards).compact()
    rollout, state = rollout.rows(rows), JointState(lm, head, config)
    log = fit_joint(state, head, rollout, pairs, config, seeded(0))
    scores, logits = counted_again(state, head, rollout, config)
    margin = scores[pairs.chosen] - scores[pairs.rejected]
    assert margin.abs().min() > 0.05 and 6 < len(rollout) <= 12  # far from rounding
    stored = entropy(head(rollout.decisions.features)).mean()
    assert abs(entropy(logits).mean() - stored) > 0.01
    loss, accuracy = -torch.nn.functional.logsigmoid(margin), (margin > 0).float()
    means = [x.mean().item() for x in (loss, margin, accuracy, entropy(logits))]
    assert [*log[-1].values()] == pytest.approx(means, rel=1e-3)
    assert len(log) == config.epochs and log[-1]["loss"] < log[0]["loss"]


# The loop


def test_it_resumes_to_the_bit_and_keeps_the_model_that_belongs_to_the_best_head():
    config, states, results = tiny(epochs=2, rounds=3, **JOINT), [], []
    for start in (None, 0, 1):
        lm, head = language_model(), head_of()
        saved, callbacks = (None, [kept_in(states)]) if start is None else (states[start], [])
        options = {"saved": saved, "callbacks": callbacks, "respond": Writer().respond}
        results.append((train(lm, TASKS, head, CHOICES, config, **options), lm.model, head))
    log, trained, head = results[0]
    for again in results[1:]:
        assert again[0] == log and same(again[1], trained) and same(again[2], head)
    best = states[-1]["best"]
    assert same(trained, best["model"]) and same(head, best["head"])
    assert not same(trained, language_model().model)


def test_a_language_model_that_is_not_ours_can_not_be_trained():
    with pytest.raises(ValueError, match="GPTLanguageModel to train, got Writer"):
        JointState(Writer(), head_of(), tiny(**JOINT))


def test_the_head_alone_is_measured_on_the_language_model_of_before_on_all_test_prompts():
    before, policy, asked = language_model(3), object(), []

    def respond(lm, prompts, policy, generator, n_samples, **options):
        asked.append((lm, policy, len(prompts), n_samples))
        is_hot = torch.tensor([float(prompt.task.name == "hot") for prompt in prompts])
        return None, is_hot[:, None] * torch.tensor([1.0, 0.5])  # .75 for one task, 0 for the other

    mean = {"best_fixed": {"reward": 0.25}, "adaptive": 0.125}
    config = EvaluationConfig(test_prompts=3, samples_per_prompt=2)
    parts = words_and_head(before, TASKS, policy, config, 0, mean, respond)
    assert parts == {"head_alone": 0.375, "words_alone": 0.25, "both": 0.125}
    assert asked == [(before, policy, 6, 2)]


def test_what_head_and_words_are_worth_alone_is_printed_if_both_were_trained(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("minilpo.show.report.result_table", lambda metrics: "the table")
    joint = {"joint": {"head_alone": 0.9, "words_alone": 0.5, "both": 0.4}}
    says = "under Eq. 10, 0.900; words alone, at their best constant, 0.500; both 0.400"
    for parts in (joint, {}):
        print_results(tmp_path, {"seconds": {"total": 1.0}, **parts})
        assert (says in capsys.readouterr().out) == (parts is joint)
