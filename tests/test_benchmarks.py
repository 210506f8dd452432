"""What the benchmark compares is the same work on both sides."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.config import LPOConfig
from minilpo.rollout import generate, with_choice_logprobs
from tests.conftest import TEMPERATURES, seeded

pytest.importorskip("transformers")
from tests.benchmarks.measure import exponent, side_by_side  # noqa: E402
from tests.benchmarks.peer import transformers_model, transformers_sample  # noqa: E402
from tests.benchmarks.speed import run_again, sampling_flops, training_flops  # noqa: E402

PROMPTS = ["Tell me a story of three sentences about a fox in the forest.", "Mia has 7 apples. How many apples are left?"]


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_running_the_transformer_again_gives_what_the_rollout_had_stored(model, tokenizer, level):
    head = AdaptiveDecoder(16, TEMPERATURES, level, n_hidden=8, generator=seeded(1)).requires_grad_(False)
    rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), n_samples=3, selection="sample", max_new_tokens=12)
    rollout = with_choice_logprobs(model, tokenizer, rollout)
    again = run_again(model, tokenizer, rollout, LPOConfig(loss="eq11"))
    torch.testing.assert_close(again.hidden_states, rollout.hidden_states, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.choice_logprobs, rollout.choice_logprobs, atol=1e-3, rtol=1e-3)


def test_transformers_writes_what_we_write_where_nothing_is_left_to_chance(model, tokenizer):
    """At a temperature next to 0, from a model whose logits are far apart."""
    model.token_embedding.weight *= 300
    ours = generate(model, tokenizer, PROMPTS[:1], FixedTemperatures([0.0]), seeded(0), max_new_tokens=9)
    prompt = [*tokenizer.encode(PROMPTS[0]), tokenizer.sep_id]
    theirs = transformers_sample(transformers_model(model).eval(), [prompt], 1, 9, tokenizer.pad_id, tokenizer.eos_id)
    n = theirs.shape[1]
    assert ours.token_ids[0, :n].tolist() == theirs[0].tolist()


def test_the_operations_counted_are_six_a_parameter_and_token_in_training_and_two_in_sampling(model):
    parameters = sum(p.numel() for p in [*model.blocks.parameters(), model.token_embedding.weight])
    C, L, n = model.config.n_embd, model.config.n_layer, 40
    assert sampling_flops(model, n) == 2 * n * parameters
    every_token_a_target = training_flops(model, [(range(n + 1), 0)])
    assert every_token_a_target == 6 * n * parameters + 6 * L * C * n**2
    assert training_flops(model, [(range(n + 1), 20)]) < every_token_a_target


def test_side_by_side_warms_up_first_and_takes_turns_at_going_first():
    calls = []
    timed = side_by_side(lambda turn: calls.append(("ours", turn)), lambda turn: calls.append(("theirs", turn)), 2)
    assert [name for name, _ in calls] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [turn for _, turn in calls] == [0, 0, 1, 1, 2, 2] and len(timed.ours) == len(timed.theirs) == 2
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
