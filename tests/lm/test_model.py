"""The transformer: another implementation agrees, the cache and padding change nothing."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from minilpo.config import ModelConfig
from minilpo.lm.kv_cache import KVCache
from minilpo.lm.model import GPT
from tests.conftest import seeded
from tests.gpt2_weights import as_transformers_weights

CONFIG = ModelConfig(vocab_size=61, n_layer=3, n_head=4, n_embd=32, block_size=24)


def random_ids(*shape, seed=1):
    return torch.randint(0, CONFIG.vocab_size, shape, generator=seeded(seed))


@torch.no_grad()
def test_transformers_gpt2_with_our_weights_gives_the_same_logits():
    transformers = pytest.importorskip("transformers")
    model = GPT(CONFIG, seeded(0))
    # Biases and norms aren't at their initial zeros and ones, so that each of them counts.
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
    shape = dict(n_embd=CONFIG.n_embd, n_layer=CONFIG.n_layer, n_head=CONFIG.n_head)
    shape |= dict(n_positions=CONFIG.block_size, vocab_size=CONFIG.vocab_size)
    other = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    other.load_state_dict(as_transformers_weights(model))
    token_ids = random_ids(5, 24)
    expected = other(token_ids).logits
    torch.testing.assert_close(model.logits(model(token_ids)), expected, atol=1e-4, rtol=1e-4)


def test_later_tokens_never_change_earlier_hidden_states():
    model = GPT(CONFIG, seeded(0))
    token_ids = random_ids(2, 12)
    changed = token_ids.clone()
    changed[:, 7:] = 3
    before, after = model(token_ids), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_hidden_states_wanted_at_some_places_are_those_of_all_and_so_are_their_gradients():
    wanted = torch.rand(3, 10, generator=seeded(2)) < 0.4
    token_ids = random_ids(3, 10)
    models = [GPT(CONFIG, seeded(0)) for _ in range(2)]
    results = [models[0](token_ids)[wanted], models[1].forward_at(token_ids, wanted)]
    torch.testing.assert_close(*results)
    for result in results:
        (result**2).sum().backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pad_lengths", [(8, 5, 0), (0, 0, 0)])
@pytest.mark.parametrize("n_first", [1, 4, 11])
def test_reading_token_by_token_with_the_cache_equals_reading_at_once_whatever_the_padding(
    n_first, pad_lengths
):
    model = GPT(CONFIG, seeded(0))
    rows = [random_ids(20 - n, seed=n) for n in pad_lengths]
    pad_lengths = torch.tensor(pad_lengths)
    padded = torch.stack([F.pad(row, (20 - len(row), 0)) for row in rows])
    cache = KVCache(CONFIG, pad_lengths, 20)
    parts = [model(padded[:, :n_first], cache), model(padded[:, n_first : n_first + 3], cache)]
    parts += [model(padded[:, t : t + 1], cache) for t in range(n_first + 3, 20)]
    together = torch.cat(parts, dim=1)
    for row, padding, hidden in zip(rows, pad_lengths, together, strict=True):
        torch.testing.assert_close(hidden[padding:], model(row[None])[0], atol=1e-5, rtol=1e-4)


def test_a_cache_with_rows_copied_and_dropped_goes_on_as_if_it_had_always_been_so():
    model = GPT(CONFIG, seeded(0)).requires_grad_(False)
    token_ids = random_ids(3, 6)
    next_ids = random_ids(4, 2, seed=2)
    rows = torch.tensor([2, 0, 0, 2])
    cache = KVCache(CONFIG, torch.tensor([0, 2, 1]), 10, max_rows=4)
    model(token_ids, cache)
    cache.select(rows)
    fresh = KVCache(CONFIG, torch.tensor([1, 0, 0, 1]), 10)
    model(token_ids[rows], fresh)
    for t in range(2):
        column = next_ids[:, t : t + 1]
        torch.testing.assert_close(model(column, cache), model(column, fresh))


def test_the_same_generator_gives_the_same_weights_and_another_seed_others():
    weights = [GPT(CONFIG, seeded(seed)).token_embedding.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_memory_of_a_cache_is_free_as_soon_as_nobody_needs_it(model):
    """Without waiting for Python to look for objects that hold each other."""
    cache = KVCache(model.config, torch.zeros(2, dtype=torch.long), 8)
    model(torch.tensor([[3, 1, 4], [1, 5, 9]]), cache)
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()
