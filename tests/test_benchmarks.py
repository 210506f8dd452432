"""What the benchmark compares has the same result on both sides."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.config import LPOConfig
from minilpo.pretraining import collate, encode_examples, language_model_loss
from minilpo.rollout import generate, with_choice_logprobs
from tests.conftest import TEMPERATURES, seeded

pytest.importorskip("transformers")
from tests.benchmarks.measure import exponent, side_by_side  # noqa: E402
from tests.benchmarks.peer import transformers_loss, transformers_model, transformers_sample  # noqa: E402
from tests.benchmarks.speed import FASTER_PEER, run_prompts_again, run_texts_again, sampling_flops, training_flops  # noqa: E402

PROMPTS = ["Tell me a story of three sentences about a fox in the forest.", "Mia has 7 apples. How many apples are left?"]


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_running_the_transformer_again_gives_what_the_rollout_had_stored(model, tokenizer, level):
    head = AdaptiveDecoder(16, TEMPERATURES, level, n_hidden=8, generator=seeded(1)).requires_grad_(False)
    rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), n_samples=3, selection="sample", max_new_tokens=12)
    rollout = with_choice_logprobs(model, tokenizer, rollout)
    rollout = rollout.rows(torch.arange(6))
    [again] = run_texts_again(model, tokenizer, [rollout], LPOConfig(loss="eq11"))
    torch.testing.assert_close(again.hidden_states, rollout.hidden_states, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.choice_logprobs, rollout.choice_logprobs, atol=1e-3, rtol=1e-3)
    if level == "sequence":
        [again] = run_prompts_again(model, tokenizer, [rollout], LPOConfig(loss="eq10"))
        torch.testing.assert_close(again.hidden_states, rollout.hidden_states, atol=1e-4, rtol=1e-4)


def test_transformers_writes_what_we_write_where_nothing_is_left_to_chance(model, tokenizer):
    """From a model whose logits are so far apart that temperature 1 is as good as greedy; prompts of unlike length."""
    model.token_embedding.weight *= 300
    ours = generate(model, tokenizer, PROMPTS, FixedTemperatures([0.0]), seeded(0), n_samples=2, max_new_tokens=9)
    prompts = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(PROMPTS)]
    theirs = transformers_sample(transformers_model(model).eval(), prompts, 2, 9, tokenizer.pad_id, tokenizer.eos_id)
    assert ours.token_ids[:, : theirs.shape[1]].tolist() == theirs.tolist()


def test_the_loss_that_is_timed_is_the_same_on_both_sides_on_a_padded_batch(model, tokenizer, pairs):
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
    timed = side_by_side(lambda turn: calls.append(("ours", turn)), lambda turn: calls.append(("theirs", turn)), 2)
    assert [name for name, _ in calls] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [turn for _, turn in calls] == [0, 0, 1, 1, 2, 2] and len(timed.ours) == len(timed.theirs) == 2
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
