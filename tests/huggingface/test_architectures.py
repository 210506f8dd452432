"""Reading step by step, with copied rows, dropped rows and padding, is reading each text at once."""

import functools

import pytest
import torch

from tests.conftest import seeded
from tests.huggingface.tiny import ARCHITECTURES, V, language_model

LENGTHS, N, T = (9, 3, 12), 2, 8  # longer than the sliding windows, which are of 4
close = functools.partial(torch.testing.assert_close, atol=2e-4, rtol=1e-3)


def plain(model, text):
    """Hidden states (T, C) and logits (T, V) of one text in one run, without cache or mask."""
    seen = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    logits = model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
    hook.remove()
    return seen[0][0], logits


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_step_by_step_is_at_once_in_every_architecture(name):
    lm = language_model(name)
    prompts = [torch.randint(3, V, (n,), generator=seeded(n)).tolist() for n in LENGTHS]
    token_ids = torch.randint(3, V, (len(LENGTHS) * N, T), generator=seeded(0))
    prompt_of, rows = [prompt for prompt in prompts for _ in range(N)], torch.arange(len(token_ids))
    texts = [prompt_of[row] + token_ids[row].tolist() for row in rows]
    parts = [[x[-T - 1 : -1] for x in plain(lm.model, text)] for text in texts]
    h, logits = map(torch.stack, zip(*parts, strict=True))  # (R, T, C) and (R, T, V)
    batch = lm.prefill(prompts, N, T)
    for t in range(T):
        close(batch.hidden_states, h[rows, t])
        close(batch.logits, logits[rows, t])
        if t in (2, 5):  # the first row leaves, the others turn round
            keep = torch.arange(1, len(rows)).flip(0)
            batch.select(keep)
            rows = rows[keep]
        batch.step(token_ids[rows, t])
    # And again at once, packed: responses of several lengths.
    mask = torch.arange(T) < torch.tensor([8, 1, 5, 0, 3, 8])[:, None]
    again = lm.forward_responses(prompt_of, token_ids * mask, mask)
    close(again, (h[mask], logits[mask]))


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite"])
@torch.inference_mode()
def test_the_logits_are_the_models_own_where_they_are_no_linear_map_of_the_hidden_states(name):
    lm = language_model(name)
    batch = lm.prefill([[3, 4, 5]], 1, 1)
    linear = lm.un_embedding(batch.hidden_states)
    assert not torch.allclose(linear, batch.logits, rtol=0.1)
    if name == "gemma2":
        assert batch.logits.abs().max() <= 2.0 < linear.abs().max()


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
@torch.inference_mode()
def test_a_long_prompt_beside_a_long_response_is_read_in_the_models_room(name):
    """Two texts of 64 tokens; side by side they would take more places than the model has."""
    lm, lengths = language_model(name), torch.tensor([[2], [62]])
    prompts, token_ids = [[5] * 62, [6] * 2], torch.randint(3, V, (2, 62), generator=seeded(0))
    mask = torch.arange(62) < lengths
    together = lm.forward_responses(prompts, token_ids, mask)
    apart = [lm.forward_responses([prompts[i]], token_ids[[i]], mask[[i]]) for i in (0, 1)]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        close(whole, torch.cat(parts))
