"""Our own language model as transformers' GPT-2, behind the adapter: the same tokens, the same head."""

import pytest
import torch

from minilpo.config import LPOConfig
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.decoding.rollout import forward_rollout, marginal_decisions
from minilpo.lpo import train_lpo
from tests.conftest import CHOICES, ending_early, head_of, seeded
from tests.huggingface.tiny import exported
from tests.lm.test_language_model import PROMPTS
from tests.standin import Varied


@pytest.fixture
def both(lm):
    return ending_early(lm), exported(lm)


POLICIES = {
    f"{kind.__name__} {level}": lambda lm, kind=kind, level=level: kind(head_of(level), CHOICES)
    for kind in (GreedyHead, SampledHead, MixedHead)
    for level in ("sequence", "token")
}
POLICIES["fixed"] = lambda lm: Fixed(CHOICES)
POLICIES["by place"] = lambda lm: ByPlace(CHOICES, [(0, 2), (2, 1)], lm.sentence_starts)


@pytest.mark.parametrize("name", POLICIES)
def test_another_library_behind_the_interface_writes_the_same_tokens(both, name):
    policy, options = POLICIES[name](both[0]), {"n_samples": 5, "max_new_tokens": 12}
    ours, theirs = (generate(lm, PROMPTS, policy, seeded(3), **options) for lm in both)
    lengths = ours.response_mask.sum(1)
    assert len(set(lengths.tolist())) > 2 and lengths.min() < 12  # some end early
    assert torch.equal(ours.token_ids, theirs.token_ids) and ours.responses == theirs.responses
    assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)
    torch.testing.assert_close(ours.decisions.features, theirs.decisions.features)
    torch.testing.assert_close(*(forward_rollout(lm, ours) for lm in both))
    torch.testing.assert_close(
        *(marginal_decisions(lm, ours, CHOICES).choice_logprobs for lm in both)
    )


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_head_learns_through_another_library_what_it_learns_through_ours(both, tasks, level):
    task, settings = Varied(tasks[0], most=20), dict(validation_prompts=2, n_hidden=8)
    config = LPOConfig(rounds=1, prompts=12, samples=4, epochs=4, **settings).resolved(level)
    logs, weights = [], []
    for lm in both:
        head = head_of(level).double().requires_grad_(True)
        logs.append(train_lpo(lm, [task], head, CHOICES, config, 0))
        weights.append([parameter.detach() for parameter in head.parameters()])
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-4)
    assert logs[0][0]["epochs"][-1]["loss"] < logs[0][0]["epochs"][0]["loss"]
    for key in ("pairs", "sampled_reward", "validation_reward", "chosen_share"):
        assert [entry[key] for entry in logs[0]] == [entry[key] for entry in logs[1]]


def test_texts_become_the_same_tokens_and_tokens_the_same_texts(both):
    lm, other = both
    assert other.encode(PROMPTS) == lm.encode(PROMPTS)
    words = lm.tokenizer.encode(PROMPTS[0])
    assert other.decode(words) == lm.decode(words) == PROMPTS[0]
    assert other.end_ids == lm.end_ids and other.max_length == lm.max_length
    assert set(lm.sentence_starts[1:]) <= set(other.sentence_starts)
