"""What a Rollout holds and how it is put together, taken apart, read again and scored: each by a plain count."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.rollout import MIXED, Rollout, concatenate, generate, read, score, unpack
from tests.conftest import TEMPERATURES, seeded

SHORT, LONG = "Mia has 7 apples. How many apples are left?", "Tell me a story of three sentences about a fox in the forest."


def made(lengths, n_samples=1, T=None, S=None, seed=0):
    """A rollout of responses of these lengths, T tokens wide, with a decision for each of the first S tokens."""
    R, T = len(lengths), T or max(lengths)
    S = T if S is None else S
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    return Rollout(
        prompts=[f"prompt {p}" for p in range(R // n_samples)],
        n_samples=n_samples,
        responses=[f"response {r} of {seed}" for r in range(R)],
        token_ids=torch.randint(1, 9, (R, T), generator=seeded(seed)) * mask,
        response_mask=mask,
        hidden_states=torch.randn(int(mask[:, :S].sum()), 4, generator=seeded(seed + 1)),
        temperature_ids=torch.randint(0, 3, (R, S), generator=seeded(seed + 2)) * mask[:, :S],
        decision_mask=mask[:, :S],
        temperature_choices=torch.tensor(TEMPERATURES),
        choice_logprobs=-torch.rand(R, T, 3, generator=seeded(seed + 3)) * mask[..., None],
    )


def same(a, b):
    """Whether two rollouts hold the same; what stands behind a response means nothing."""
    for name in ("token_ids", "choice_logprobs"):
        assert torch.equal(getattr(a, name)[a.response_mask], getattr(b, name)[b.response_mask])
    assert torch.equal(a.temperature_ids[a.decision_mask], b.temperature_ids[b.decision_mask])
    assert torch.equal(a.hidden_states, b.hidden_states)
    return (a.prompts, a.responses, a.n_samples) == (b.prompts, b.responses, b.n_samples)


def test_rows_in_any_order_and_more_than_once_bring_along_all_that_is_theirs():
    rollout, order = made([3, 1, 5, 2, 4, 1], n_samples=2), [4, 0, 0, 3]
    some = rollout.rows(torch.tensor(order))
    assert some.prompts == ["prompt 2", "prompt 0", "prompt 0", "prompt 1"] and some.n_samples == 1
    starts = [0, 3, 4, 9, 11, 15]
    for row, r in enumerate(order):
        n = [3, 1, 5, 2, 4, 1][r]
        alone = some.rows(torch.tensor([row]))
        assert alone.responses == [rollout.responses[r]] and alone.response_mask.sum() == n
        for name in ("token_ids", "temperature_ids", "choice_logprobs", "decision_mask"):
            assert torch.equal(getattr(alone, name)[0], getattr(rollout, name)[r])
        assert torch.equal(alone.hidden_states, rollout.hidden_states[starts[r] : starts[r] + n])
    assert torch.equal(some.temperature_choices, rollout.temperature_choices)


@pytest.mark.parametrize("S", [None, 1])
def test_rollouts_of_unlike_length_put_together_are_the_same_responses(S):
    parts = [made([3, 1], S=S), made([2, 5, 4], S=S, seed=10), made([1], S=S, seed=20)]
    whole = concatenate(parts)
    assert whole.token_ids.shape == (6, 5) and whole.choice_logprobs.shape == (6, 5, 3)
    assert whole.prompts == [prompt for part in parts for prompt in part.prompts]
    first = 0
    for part in parts:
        rows = torch.arange(first, first + len(part.responses))
        assert same(whole.rows(rows), part)
        assert torch.equal(whole.response_mask[rows].sum(1), part.response_mask.sum(1))
        first += len(part.responses)
    ruled = [Rollout(**{**vars(part), "hidden_states": None}) for part in (made([3]), made([2]))]
    assert concatenate(ruled).hidden_states is None


def test_a_temperature_is_that_of_its_id_and_none_where_it_was_mixed():
    rollout = made([2, 2])
    rollout.temperature_ids[:] = torch.tensor([[2, 0], [MIXED, 1]])
    temperatures = rollout.temperatures
    assert temperatures[0].tolist() == [1.0, 0.0] and temperatures[1, 0].isnan() and temperatures[1, 1] == 0.5


def test_decided_tokens_are_the_first_where_one_decision_is_for_all_and_else_every_one():
    assert made([3, 1], S=1).decided_tokens.tolist() == [[True, False, False], [True, False, False]]
    assert made([3, 1]).decided_tokens.tolist() == [[True, True, True], [True, False, False]]


def test_packed_values_go_to_their_places_with_their_kind_and_shape():
    mask = torch.tensor([[False, True], [True, True]])
    for values in (torch.tensor([1.5, 2.5, 3.5]), torch.tensor([[1, 2], [3, 4], [5, 6]])):
        places = unpack(values, mask)
        assert places.dtype == values.dtype and places.shape == (2, 2, *values.shape[1:])
        assert torch.equal(places[mask], values) and not places[0, 0].any()


def test_a_reward_is_of_the_task_the_prompt_and_the_response_of_its_row():
    class Sum:
        name = "sum"

        def __init__(self, base):
            self.base = base

        def reward(self, prompt, response):
            return (self.base + 10 * int(prompt.split()[1]) + int(response.split()[1])) / 1000

    rewards = score(made([1] * 6, n_samples=3), [Sum(100), Sum(200)])
    torch.testing.assert_close(rewards, torch.tensor([[0.100, 0.101, 0.102], [0.213, 0.214, 0.215]]))


def test_responses_are_read_again_in_a_window_no_wider_than_the_block(model, tokenizer):
    """A short prompt with a long response beside a long prompt with a short one: together they would be too wide."""
    model = model.double()
    model.norm.bias -= 20 * model.token_embedding.weight[tokenizer.eos_id]  # no response ends by itself
    head = AdaptiveDecoder(16, TEMPERATURES, "token", n_hidden=8, generator=seeded(1)).double().requires_grad_(False)
    long_prompt = " ".join([LONG] * 5)
    parts = [generate(model, tokenizer, [prompt], head, seeded(0), n_samples=2) for prompt in (SHORT, long_prompt)]
    widest = max(len(tokenizer.encode(prompt)) for prompt in (SHORT, long_prompt)) + 1 + parts[0].token_ids.shape[1]
    assert widest > model.config.block_size
    whole = concatenate(parts)
    torch.testing.assert_close(read(model, tokenizer, whole), torch.cat([read(model, tokenizer, part) for part in parts]))
    torch.testing.assert_close(read(model, tokenizer, whole), whole.hidden_states)


@pytest.mark.parametrize("rows_per_batch", [1, 4, 12, 13, 1000])
def test_the_progress_counts_each_response_once_however_they_are_batched(model, tokenizer, rows_per_batch):
    told = []
    prompts, rule = [LONG, SHORT, LONG.replace("three", "five")], FixedTemperatures([0.0, 1.0])
    options = {"n_samples": 4, "max_new_tokens": 3, "rows_per_batch": rows_per_batch, "progress": told.append}
    rollout = generate(model, tokenizer, prompts, rule, seeded(0), **options)
    at_once = max(1, rows_per_batch // 4)
    assert told == [4 * len(prompts[start : start + at_once]) for start in range(0, 3, at_once)]
    assert rollout.prompts == prompts and rollout.n_samples == 4 and len(rollout.responses) == 12
    assert torch.equal(rollout.temperature_choices, torch.tensor([0.0, 1.0]))


def test_the_defaults_are_one_response_to_each_prompt_at_the_likeliest_temperature(model, tokenizer, head):
    plain = generate(model, tokenizer, [LONG, SHORT], head, seeded(0))
    spelled = generate(model, tokenizer, [LONG, SHORT], head, seeded(0), n_samples=1, selection="greedy")
    assert plain.responses == spelled.responses and plain.n_samples == 1
    assert torch.equal(plain.temperature_ids[:, 0], head(plain.hidden_states).argmax(-1))


def reads(model):
    """The (rows, tokens) of every reading by the model from now on."""
    shapes = []
    model.register_forward_pre_hook(lambda model, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


def test_the_tensors_are_as_wide_as_the_longest_response_and_nothing_is_read_in_vain(model, tokenizer, head):
    model = model.double()
    end = model.token_embedding.weight[tokenizer.eos_id]
    model.norm.bias += 6 * end / (end @ end)  # responses end early
    shapes = reads(model)
    options = {"n_samples": 4, "selection": "sample", "max_new_tokens": 40}
    rollout = generate(model, tokenizer, [LONG, SHORT], head.double(), seeded(0), **options)
    longest = int(rollout.response_mask.sum(1).max())
    assert rollout.token_ids.shape[1] == longest == len(shapes) < 40  # the prompts, and each token but the last
    model.norm.bias -= 26 * end / (end @ end)  # and now never
    shapes.clear()
    rollout = generate(model, tokenizer, [LONG, SHORT], head, seeded(0), **options)
    assert rollout.token_ids.shape[1] == len(shapes) == 40


def test_prompts_of_like_length_are_read_together(model, tokenizer, head):
    shapes, prompts = reads(model), [LONG, SHORT, LONG.replace("three", "four"), SHORT.replace("7", "9")]
    generate(model, tokenizer, prompts, head, seeded(0), n_samples=4, rows_per_batch=8, max_new_tokens=1)
    assert shapes == [(2, len(tokenizer.encode(prompt)) + 1) for prompt in (SHORT, LONG)]


def test_a_prompt_may_leave_room_for_a_single_token(model, tokenizer, head):
    words = ["fox"] * (model.config.block_size - 2)  # a token each, and the end mark of the prompt
    assert generate(model, tokenizer, [" ".join(words)], head, seeded(0)).token_ids.shape == (1, 1)
    with pytest.raises(ValueError, match="must leave room for a response"):
        generate(model, tokenizer, [" ".join([*words, "fox"])], head, seeded(0))
