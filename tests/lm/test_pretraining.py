"""Pretraining learns, and resumes to the bit."""

import copy

import pytest
import torch

from minilpo.config import ModelConfig, PretrainConfig
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import (
    Corpus,
    Pretraining,
    encode_examples,
    language_model_loss,
    pretrain,
    training_batches,
)
from minilpo.seeds import python_rng
from tests.conftest import seeded


@pytest.fixture(scope="module")
def examples(tokenizer, pairs):
    return encode_examples(tokenizer, pairs)


def new_model(tokenizer):
    shape = dict(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=32)
    return GPT(ModelConfig(**shape, block_size=110), seeded(0))


def test_every_example_is_read_once_a_pass_and_decodes_to_its_text(tokenizer, pairs, examples):
    batches = training_batches(examples, 32, tokenizer.pad_id, python_rng(0, "order"))
    seen = []
    while len(seen) < len(pairs):
        token_ids, target_mask = next(batches)
        for row, mask in zip(token_ids, target_mask, strict=True):
            ids = [i for i in row.tolist() if i != tokenizer.pad_id]
            sep = ids.index(tokenizer.sep_id)
            seen.append((tokenizer.decode(ids[:sep]), tokenizer.decode(ids[sep + 1 : -1])))
            assert row[1:][mask].tolist() == ids[sep + 1 :]  # the targets: the response and its end
    assert sorted(seen) == sorted(pairs)


def test_batches_are_mixed_and_waste_little_on_padding(tokenizer, examples):
    batches = training_batches(examples, 32, tokenizer.pad_id, python_rng(0, "order"))
    some = [next(batches)[0] for _ in range(60)]
    padding = sum((batch == tokenizer.pad_id).sum().item() for batch in some)
    assert padding < 0.08 * sum(batch.numel() for batch in some)
    lengths = [batch.shape[1] for batch in some]
    assert lengths != sorted(lengths)


def test_the_loss_is_the_mean_over_targets_of_all_logits(tokenizer, examples):
    model = new_model(tokenizer)
    token_ids, mask = next(training_batches(examples, 8, tokenizer.pad_id, python_rng(0, "order")))
    logprobs = model.logits(model(token_ids[:, :-1])).log_softmax(-1)
    expected = -logprobs.gather(-1, token_ids[:, 1:, None])[..., 0][mask].mean()
    torch.testing.assert_close(language_model_loss(model, token_ids, mask), expected)


def test_pretraining_lowers_the_held_out_loss_and_resumes_to_the_bit(tokenizer, examples):
    config, states, told = PretrainConfig(steps=230, batch_size=16, warmup_steps=10), [], []
    corpus = Corpus(examples, examples[:64], tokenizer.pad_id)
    whole, resumed = new_model(tokenizer), new_model(tokenizer)

    def keep(training):
        states.append(copy.deepcopy(training.state_dict()))

    log = pretrain(whole, corpus, config, 0, Pretraining(whole, config, after_log=keep))
    assert log[-1]["held_out_loss"] < 0.8 * log[0]["held_out_loss"]
    assert [entry["step"] for entry in log] == [100, 200, 230]
    assert [state["step"] for state in states] == [100, 200, 230]
    training = Pretraining(resumed, config)
    training.load_state_dict(states[1])
    assert pretrain(resumed, corpus, config, 0, training, told.append) == log
    assert told == [1] * 30
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_pretraining_that_diverges_ends_at_the_step_and_names_the_flags(tokenizer, examples):
    """A rate and a decay that are both allowed, but whose product makes every weight grow."""
    config = PretrainConfig(steps=300, batch_size=4, learning_rate=1, weight_decay=10)
    saved, told, model = [], [], new_model(tokenizer)

    def keep(training):
        saved.append(copy.deepcopy(training.state_dict()))

    corpus = Corpus(examples, examples[:8], tokenizer.pad_id)
    with pytest.raises(ValueError, match="^the loss must stay finite, got (nan|inf)") as error:
        pretrain(model, corpus, config, 0, Pretraining(model, config, keep), told.append)
    assert f"at step {len(told) + 1} of 300" in str(error.value)
    assert str(error.value).endswith("a lower --learning-rate (now 1) or --weight-decay (now 10)")
    # Nothing broken is saved.
    assert all(tensor.isfinite().all() for state in saved for tensor in state["model"].values())


def test_a_model_that_breaks_in_the_last_step_is_not_kept_either(tokenizer, examples):
    config, saved = PretrainConfig(steps=1, batch_size=4, learning_rate=1e-3, warmup_steps=0), []
    # More than the flag allows, so that one step is enough.
    object.__setattr__(config, "learning_rate", 1e38)
    model = new_model(tokenizer)
    training = Pretraining(model, config, after_log=saved.append)
    with pytest.raises(ValueError, match="at step 1 of 1"):
        pretrain(model, Corpus(examples, examples[:8], tokenizer.pad_id), config, 0, training)
    assert not saved
