"""The benchmark runs to its end, and does the same work on both sides."""

import importlib

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, SampledHead
from minilpo.decoding.rollout import marginal_decisions
from minilpo.lm.pretraining import collate, encode_examples, language_model_loss
from minilpo.seeds import python_rng
from minilpo.tasks import Prompt, Task, mixed_prompts
from tests.conftest import CHOICES, seeded

pytest.importorskip("transformers")
from tests.benchmarks import scaling  # noqa: E402
from tests.benchmarks.measure import Timed, exponent, side_by_side  # noqa: E402
from tests.benchmarks.peer import transformers_loss, transformers_model, transformers_sample  # noqa: E402
from tests.benchmarks.speed import (  # noqa: E402
    FASTER_PEER,
    rollout_in_pairs,
    run_prompts_again,
    run_texts_again,
    sampling_flops,
    training_flops,
    write_without_end,
)

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. How many apples are left?",
]


def test_the_whole_benchmark_runs_to_its_end_in_small(tmp_path, capsys):
    figure = tmp_path / "x.png"
    benchmark = importlib.import_module("tests.benchmarks.__main__")
    benchmark.main(["--quick", "--demo", "--figure", str(figure)])
    printed = capsys.readouterr().out
    for row in ("pretraining", "sampling", "token-level head", "LPO epoch, token", "whole demo"):
        assert f"\n{row}" in printed
    assert printed.count("MB at the peak") == 1 and "rollout, samples" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_every_number_of_samples_whose_growth_is_measured_is_allowed():
    assert [LPOConfig(samples=n).samples for n in scaling.SAMPLES] == [*scaling.SAMPLES]


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_running_the_transformer_again_gives_what_the_rollout_had_stored(lm, level):
    head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(1))
    policy = SampledHead(head.requires_grad_(False), CHOICES)
    rollout = generate(lm, PROMPTS, policy, seeded(0), n_samples=3, max_new_tokens=12)
    rollout = rollout.rows(torch.arange(6))
    stored = marginal_decisions(lm, rollout, CHOICES)
    again = run_texts_again(lm, rollout, CHOICES, LPOConfig(loss="eq11"))
    torch.testing.assert_close(again.features, stored.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.choice_logprobs, stored.choice_logprobs, atol=1e-3, rtol=1e-3)
    assert torch.equal(again.choice_ids, stored.choice_ids)
    assert torch.equal(again.mask, stored.mask)
    assert torch.equal(again.token_mask, stored.token_mask)
    ways = [run_texts_again] + [run_prompts_again] * (level == "sequence")
    for way in ways:
        again = way(lm, rollout, CHOICES, LPOConfig(loss="eq10"))
        torch.testing.assert_close(again.features, stored.features, atol=1e-4, rtol=1e-4)
        assert torch.equal(again.choice_ids, stored.choice_ids)


def test_the_rollout_that_is_timed_holds_the_responses_of_its_pairs(lm, tasks):
    drawn = mixed_prompts(tasks, 4, "train", python_rng(0, "benchmark"))
    prompts = [Prompt(prompt.text, Length()) for prompt in drawn]
    head = AdaptiveDecoder(16, len(CHOICES), n_hidden=8, generator=seeded(1))
    config = LPOConfig(samples=6)
    rollout, pairs = rollout_in_pairs(lm, prompts, head, CHOICES, config, seeded(0))
    assert len(pairs) + pairs.n_dropped == 8 and len(pairs) > 4
    assert len(rollout.responses) == 2 * len(pairs) and rollout.n_samples == 1
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        assert rollout.prompts[chosen] == rollout.prompts[rejected]
        assert len(rollout.responses[chosen]) > len(rollout.responses[rejected])


class Length(Task):
    """The longer, the better."""

    name = "length"

    def reward(self, prompt, response):
        return 1 - 1 / (1 + len(response))


def test_the_sampling_that_is_timed_writes_as_many_tokens_as_asked_for_in_every_row(lm):
    steps = []

    class Looked(Fixed):
        def observe(self, step, token_ids):
            steps.append(token_ids)

    end = lm.model.token_embedding.weight[lm.tokenizer.eos_id]
    lm.model.norm.bias += 4.5 * end / (end @ end)  # otherwise many would have ended
    prompts = torch.randint(5, 50, (7, 6), generator=seeded(0))
    write_without_end(lm, prompts, 11, Looked(Temperatures([1.0])))
    assert torch.stack(steps).shape == (11, 7)
    assert (torch.stack(steps) == lm.tokenizer.eos_id).any()


def test_transformers_writes_what_we_write_where_nothing_is_left_to_chance(lm):
    """Its logits are so far apart that 1 is as good as greedy; prompts of unlike length."""
    lm.model.token_embedding.weight *= 300
    policy, pad_id, eos_id = Fixed(Temperatures([0.0])), lm.tokenizer.pad_id, lm.tokenizer.eos_id
    ours = generate(lm, PROMPTS, policy, seeded(0), n_samples=2, max_new_tokens=9)
    peer = transformers_model(lm.model).eval()
    theirs = transformers_sample(peer, lm.encode(PROMPTS), 2, 9, pad_id, eos_id)
    assert ours.token_ids[:, : theirs.shape[1]].tolist() == theirs.tolist()


def test_the_loss_that_is_timed_is_the_same_on_both_sides_on_a_padded_batch(
    model, tokenizer, pairs
):
    batch = collate(encode_examples(tokenizer, pairs[:4]), tokenizer.pad_id)
    assert (batch[0] == tokenizer.pad_id).any()
    for settings in ({}, FASTER_PEER):
        theirs = transformers_loss(transformers_model(model, **settings), *batch)
        torch.testing.assert_close(language_model_loss(model, *batch), theirs)


def test_the_operations_counted_are_six_a_weight_and_token_in_training_and_two_in_sampling(model):
    """In the last block, keys and values count at all tokens, all else at targets alone."""
    C, V, n, p = 16, model.config.vocab_size, 40, 30
    L = model.config.n_layer
    assert sampling_flops(model, n) == 2 * n * (12 * C**2 * L + V * C)
    everywhere = 12 * C**2 * (L - 1) + 2 * C**2
    expected = 6 * n * everywhere + 6 * (n - p) * (10 * C**2 + V * C) + 6 * C * (L * n**2 - p**2)
    assert training_flops(model, [(range(n + 1), p)]) == expected


def test_side_by_side_warms_up_first_and_takes_turns_at_going_first():
    calls = []
    timed = side_by_side(
        lambda turn: calls.append(("ours", turn)), lambda turn: calls.append(("theirs", turn)), 2
    )
    assert [name for name, _ in calls] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [turn for _, turn in calls] == [0, 0, 1, 1, 2, 2] and len(timed.ours) == len(
        timed.theirs
    ) == 2
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert Timed([2.0, 4.0], [6.0, 6.0]).per([1, 2], [3, 2]).ratios == [1.0, 1.5]
