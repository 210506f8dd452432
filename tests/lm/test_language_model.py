"""Our language model by its interface; others behind it are in tests/huggingface/."""

import pytest
import torch

from tests.conftest import ending_early, seeded

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. How many apples are left?",
    "Mia has 7 apples.",
]


@pytest.fixture
def lm(lm):
    return ending_early(lm)


@torch.inference_mode()
def test_reading_responses_again_is_reading_them_step_by_step(lm):
    """Hidden states and logits before each token, as `prefill`, `step` and `select` give them."""
    prompts, N, T = lm.encode(PROMPTS), 2, 7
    mask = torch.arange(T) < torch.tensor([4, 1, 7, 2, 5, 3])[:, None]
    token_ids = torch.randint(3, lm.tokenizer.vocab_size, (6, T), generator=seeded(0)) * mask
    repeated = [prompt for prompt in prompts for _ in range(N)]
    again = lm.forward_responses(repeated, token_ids.int(), mask)
    assert [len(part) for part in again] == [mask.sum()] * 2
    place_of = {place: i for i, place in enumerate(map(tuple, mask.nonzero().tolist()))}
    batch, rows = lm.prefill(prompts, N, T), torch.arange(6)
    for t in range(T - 1):
        for place, row in enumerate(rows.tolist()):
            if mask[row, t]:
                for found, whole in zip((batch.hidden_states, batch.logits), again, strict=True):
                    torch.testing.assert_close(found[place], whole[place_of[row, t]])
        if t % 2:  # rows leave at some times, and turn round
            keep = mask[rows, t + 1].nonzero()[:, 0].flip(0)
            batch.select(keep)
            rows = rows[keep]
        batch.step(token_ids[rows, t])
    assert len(rows) < 6
    last = again[1][place_of[2, T - 1]]
    torch.testing.assert_close(batch.logits[rows.tolist().index(2)], last)


def test_reading_again_passes_gradients_on_to_a_model_that_has_them(lm):
    prompts, mask = lm.encode(PROMPTS[:2]), torch.tensor([[True, True], [True, False]])
    token_ids = torch.tensor([[5, 6], [7, 0]])
    assert not any(part.requires_grad for part in lm.forward_responses(prompts, token_ids, mask))
    lm.model.requires_grad_(True)
    hidden_states, logits = lm.forward_responses(prompts, token_ids, mask)
    (hidden_states.sum() + logits.sum()).backward()
    assert all(parameter.grad is not None for parameter in lm.model.parameters())
    assert not lm.prefill(prompts, 1, 2).logits.requires_grad  # writing has none


def test_texts_become_tokens_and_tokens_texts(lm):
    tokenizer = lm.tokenizer
    for prompt, token_ids in zip(PROMPTS, lm.encode(PROMPTS), strict=True):
        assert token_ids == [*tokenizer.encode(prompt), tokenizer.sep_id]
        assert lm.decode(token_ids[:-1]) == prompt
    assert lm.end_ids == (tokenizer.eos_id,) and lm.max_length == lm.model.config.block_size
    assert tokenizer.pieces(list(lm.sentence_starts[1:])) == ["."]
    with pytest.raises(ValueError, match="Zebra"):
        lm.encode(["Zebra!"])


def test_each_sample_of_a_prompt_begins_where_the_prompt_ends(lm):
    """Row p * N + n is sample n of prompt p, whatever the padding."""
    prompts = lm.encode(PROMPTS)
    batch = lm.prefill(prompts, 3, 5)
    assert batch.hidden_states.shape == (9, 16)
    for p, prompt in enumerate(prompts):
        h = lm.model(torch.tensor([prompt]))[0, -1]
        for row in range(3 * p, 3 * p + 3):
            torch.testing.assert_close(batch.hidden_states[row], h)
            torch.testing.assert_close(batch.logits[row], lm.model.logits(h))
