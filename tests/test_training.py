"""The two trainings: they learn, they resume to the bit, and they leave alone what they should."""

import copy

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig, ModelConfig, PretrainConfig
from minilpo.model import GPT
from minilpo.seeds import python_rng
from minilpo.training import encode_examples, language_model_loss, pretrain, train_lpo, training_batches
from tests.conftest import seeded


@pytest.fixture(scope="module")
def examples(tokenizer, pairs):
    return encode_examples(tokenizer, pairs)


def new_model(tokenizer):
    return GPT(ModelConfig(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=32, block_size=110), seeded(0))


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
    padding = sum((batch == tokenizer.pad_id).sum().item() for batch in some) / sum(batch.numel() for batch in some)
    assert padding < 0.08
    lengths = [batch.shape[1] for batch in some]
    assert lengths != sorted(lengths)


def test_the_loss_is_the_mean_over_targets_of_all_logits(tokenizer, examples):
    model = new_model(tokenizer)
    token_ids, mask = next(training_batches(examples, 8, tokenizer.pad_id, python_rng(0, "order")))
    logprobs = model.logits(model(token_ids[:, :-1])).log_softmax(-1)
    expected = -logprobs.gather(-1, token_ids[:, 1:, None])[..., 0][mask].mean()
    torch.testing.assert_close(language_model_loss(model, token_ids, mask), expected)


def test_pretraining_lowers_the_held_out_loss_and_resumes_to_the_bit(tokenizer, examples):
    config, states = PretrainConfig(steps=230, batch_size=16, warmup_steps=10), []
    whole = new_model(tokenizer)
    log = pretrain(
        whole, examples, examples[:64], tokenizer.pad_id, config, 0, save=lambda s, _: states.append(copy.deepcopy(s))
    )
    assert log[-1]["held_out_loss"] < 0.8 * log[0]["held_out_loss"]
    assert [entry["step"] for entry in log] == [100, 200, 230]
    resumed = new_model(tokenizer)
    again = pretrain(resumed, examples, examples[:64], tokenizer.pad_id, config, 0, state=states[1])
    assert again == log
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


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


def test_lpo_finds_the_temperature_that_pays_and_leaves_the_language_model_alone(model, tokenizer):
    """Reward = share of different words. A greedy response repeats itself, so the warm temperature must win."""
    before = copy.deepcopy(model.state_dict())
    head = AdaptiveDecoder(16, [0.0, 1.5], n_hidden=16, generator=seeded(0))
    config = LPOConfig(
        rounds=2, prompts=16, samples=8, epochs=20, pairs_per_batch=8, head_learning_rate=0.01, validation_prompts=4
    )
    log = train_lpo(model, tokenizer, [Bandit()], head, config, seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    probs = head(torch.randn(1, 16, generator=seeded(0))).softmax(-1)[0]
    first, last = log[0]["epochs"][0], log[0]["epochs"][-1]
    assert last["loss"] < first["loss"] and last["margin"] > first["margin"] and last["entropy"] < first["entropy"]
    assert probs[1] > 0.9 and last["pair_accuracy"] > 0.95
    assert log[0]["pairs"] + log[0]["dropped_prompts"] == 16


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
