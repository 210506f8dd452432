"""Our own language model as transformers' GPT-2, behind the adapter: the same tokens, the same head."""

import random

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.decoding.rollout import forward_rollout, marginal_decisions, score
from minilpo.lpo import train_lpo
from minilpo.rivals.by_config import training_of
from minilpo.tasks import draw_prompts
from tests.conftest import CHOICES, seeded
from tests.huggingface.tiny import exported
from tests.lm.test_language_model import PROMPTS, head_of, that_ends
from tests.standin import Varied


@pytest.fixture
def lm(lm):
    return that_ends(lm)


@pytest.fixture
def other(lm):
    return exported(lm)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("kind", [GreedyHead, SampledHead, MixedHead])
def test_another_library_behind_the_interface_writes_the_same_tokens(lm, other, level, kind):
    policy = kind(head_of(level), CHOICES)
    options = {"n_samples": 5, "max_new_tokens": 12}
    ours, theirs = (generate(any_, PROMPTS, policy, seeded(3), **options) for any_ in (lm, other))
    lengths = ours.response_mask.sum(1)
    assert len(set(lengths.tolist())) > 2 and lengths.min() < 12  # some end early
    assert torch.equal(ours.token_ids, theirs.token_ids)
    assert torch.equal(ours.response_mask, theirs.response_mask)
    assert ours.responses == theirs.responses
    assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)
    torch.testing.assert_close(ours.decisions.features, theirs.decisions.features)
    for a, b in zip(forward_rollout(lm, ours), forward_rollout(other, theirs), strict=True):
        torch.testing.assert_close(a, b)
    constants = [marginal_decisions(any_, ours, CHOICES) for any_ in (lm, other)]
    torch.testing.assert_close(constants[0].choice_logprobs, constants[1].choice_logprobs)


def test_rules_made_by_hand_write_the_same_through_another_library(lm, other):
    for policy in (Fixed(CHOICES), ByPlace(CHOICES, [(0, 2), (2, 1)], lm.sentence_starts)):
        options = {"n_samples": 6, "max_new_tokens": 10}
        ours, theirs = (
            generate(any_, PROMPTS, policy, seeded(3), **options) for any_ in (lm, other)
        )
        assert torch.equal(ours.token_ids, theirs.token_ids)
        assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_head_learns_through_another_library_what_it_learns_through_ours(lm, other, tasks, level):
    task, settings = Varied(tasks[0], most=20), dict(validation_prompts=2, n_hidden=8)
    config = LPOConfig(rounds=1, prompts=12, samples=4, epochs=16, **settings).resolved(level)
    prompts = draw_prompts(task, 4, "test", random.Random(0))
    logs, weights, gains = [], [], []
    for any_ in (lm, other):
        head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(1)).double()

        def reward(any_=any_, head=head):
            written = generate(any_, prompts, GreedyHead(head, CHOICES), seeded(4), n_samples=4)
            return score(written, [task] * len(prompts)).mean().item()

        before = reward()
        logs.append(train_lpo(any_, [task], head, CHOICES, config, 0))
        weights.append([parameter.detach() for parameter in head.parameters()])
        gains.append(reward() - before)
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for key in ("pairs", "sampled_reward", "validation_reward", "chosen_share"):
        assert [entry[key] for entry in logs[0]] == [entry[key] for entry in logs[1]]
    assert gains[0] == gains[1] > 0.05


def test_only_our_own_language_model_can_be_trained_too(other):
    config = LPOConfig(loss="eq9", train_lm=True)
    with pytest.raises(ValueError, match="must have a GPTLanguageModel to train, got HuggingFace"):
        training_of(other, head_of("token"), config)


def test_texts_become_the_same_tokens_and_tokens_the_same_texts(lm, other):
    assert other.encode(PROMPTS) == lm.encode(PROMPTS)
    words = lm.tokenizer.encode(PROMPTS[0])
    assert other.decode(words) == lm.decode(words) == PROMPTS[0]
    assert other.end_ids == lm.end_ids and other.max_length == lm.max_length
    assert set(lm.sentence_starts[1:]) <= set(other.sentence_starts)
