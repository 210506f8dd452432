"""Batched generation equals writing one response at a time, and the Rollout holds what LPO needs.

Almost everything here is computed in double precision: two ways to compute the same thing then never differ by enough to draw
another word, whatever the machine, its instructions and its number of threads.
"""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures, Rule, TwoTemperatures
from minilpo.rollout import MIXED, concatenate, generate, read, score, unpack, with_choice_logprobs
from minilpo.sampling import choice_logprobs, draw, mixture_probs, token_probs
from tests.conftest import TEMPERATURES, seeded

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. How many apples are left?",
    "In a box there are 9 cards. Then half of them break. Then the number doubles. How many cards are there now?",
]


@pytest.fixture
def model(model):
    return model.double()


@pytest.fixture
def head(head):
    return head.double()


def head_of(level):
    """A head that isn't uniform."""
    head = AdaptiveDecoder(16, TEMPERATURES, level, n_hidden=8, generator=seeded(1))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(2))
    return head.double().requires_grad_(False)


def one_at_a_time(model, tokenizer, head, prompt, row, selection, uniforms):
    """The plain reference for one row: no batch, no cache, no padding; the same uniform numbers, (T, 2)."""
    sequence = [*tokenizer.encode(prompt), tokenizer.sep_id]
    chosen, states, logprobs = [], [], []
    while len(logprobs) < len(uniforms) and not (logprobs and sequence[-1] == tokenizer.eos_id):
        for_temperature, for_token = uniforms[len(logprobs), :, None]
        h = model(torch.tensor([sequence]))[:, -1]
        if not states or head.level == "token":
            states.append(h)
            if isinstance(head, Rule):
                chosen.append(int(head.choose(torch.tensor([row]), torch.tensor(sequence[-1:]))))
            else:
                choice_probs = head(h).softmax(-1)
                chosen.append(MIXED if selection == "mixture" else int(head.choose(h, selection, for_temperature)))
        if selection == "mixture":
            probs = mixture_probs(model.logits(h), choice_probs, head.temperature_choices)
        else:
            probs = token_probs(model.logits(h), head.temperature_choices[chosen[-1:]])
        token = draw(probs, for_token)
        logprobs.append(choice_logprobs(model.logits(h), token, head.temperature_choices))
        sequence.append(int(token))
    return sequence[-len(logprobs) :], chosen, torch.cat(states), torch.cat(logprobs)


WRITERS = [(level, selection) for level in ("sequence", "token") for selection in ("greedy", "sample", "mixture")]


@pytest.mark.parametrize("rows_per_batch", [12, 100])
@pytest.mark.parametrize("level, selection", [*WRITERS, ("sequence", "rule"), ("token", "rule")])
def test_a_batch_that_rows_leave_one_after_the_other_equals_writing_one_response_at_a_time(
    model, tokenizer, level, selection, rows_per_batch
):
    """What a row says depends on its own temperatures, uniform numbers and words, whoever else is in the batch or was."""
    head, N, T = head_of(level), 6, 14
    if selection == "rule":
        pairs, starts, selection = [(0, 2), (2, 1), (1, 2)], torch.tensor([tokenizer.sep_id]), "greedy"
        rule = FixedTemperatures(TEMPERATURES) if level == "sequence" else TwoTemperatures(TEMPERATURES, pairs, starts)
        head = rule.double()
    end = model.token_embedding.weight[tokenizer.eos_id]
    model.norm.bias += 4.5 * end / (end @ end)  # the end token's logit is 4.5 higher: rows end early, but not all at once
    shapes = []  # (rows, tokens) that the model reads: the prompts of a batch, then one token a row and step
    model.register_forward_pre_hook(lambda model, inputs: shapes.append(tuple(inputs[0].shape)))
    options = {"n_samples": N, "selection": selection, "max_new_tokens": T, "rows_per_batch": rows_per_batch}
    rollout = generate(model, tokenizer, PROMPTS, head, seeded(3), **options)
    narrower = [after < before for (before, _), (after, n) in zip(shapes[1:], shapes[2:], strict=False) if n == 1]
    assert sum(narrower) >= 2  # rows did leave, more than once
    rollout = with_choice_logprobs(model, tokenizer, rollout)
    uniforms = torch.rand(len(PROMPTS), N, T, 2, generator=seeded(3)).flatten(0, 1)
    for row in range(len(PROMPTS) * N):
        alone = one_at_a_time(model, tokenizer, head, PROMPTS[row // N], row % N, selection, uniforms[row])
        token_ids, chosen, hidden_states, logprobs = alone
        mask, decided = rollout.response_mask[row], rollout.decision_mask[row]
        assert rollout.token_ids[row, mask].tolist() == token_ids
        assert rollout.responses[row] == tokenizer.decode([i for i in token_ids if i != tokenizer.eos_id])
        assert rollout.temperature_ids[row, decided].tolist() == chosen
        torch.testing.assert_close(rollout.choice_logprobs[row, mask], logprobs)
        if not isinstance(head, Rule):
            torch.testing.assert_close(unpack(rollout.hidden_states, rollout.decision_mask)[row, decided], hidden_states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_model_of_any_precision_writes_with_a_head_and_draws_in_single_precision(model, tokenizer, level, dtype):
    """Also where padding stands in front of the shorter prompts."""
    head, model = head_of(level).float(), model.to(dtype)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.02}[dtype]
    for selection in ("greedy", "sample", "mixture"):
        rollout = generate(
            model, tokenizer, PROMPTS, head, seeded(0), n_samples=4, selection=selection, max_new_tokens=9, rows_per_batch=100
        )
        assert rollout.hidden_states.dtype == dtype and head(rollout.hidden_states).dtype == torch.float32
        again = read(model, tokenizer, rollout)[rollout.decided_tokens[rollout.response_mask]]
        torch.testing.assert_close(rollout.hidden_states, again, atol=tolerance, rtol=0)
        logprobs = with_choice_logprobs(model, tokenizer, rollout).choice_logprobs
        assert logprobs.dtype == torch.float32 and logprobs.isfinite().all()
    in_double = model.double()
    for p, prompt in enumerate(PROMPTS):
        h = in_double(torch.tensor([[*tokenizer.encode(prompt), tokenizer.sep_id]]))[0, -1]
        first = unpack(rollout.hidden_states, rollout.decision_mask)[4 * p, 0]
        torch.testing.assert_close(first.double(), h, atol=tolerance, rtol=0)


def test_temperature_zero_is_deterministic_and_equals_argmax_in_a_mixed_batch(model, tokenizer):
    head = FixedTemperatures([0.0, 1.0])
    first, second = (generate(model, tokenizer, PROMPTS, head, seeded(s), n_samples=4, max_new_tokens=8) for s in (0, 1))
    assert first.responses[0::2] == second.responses[0::2] and first.responses[0] == first.responses[2]
    assert first.responses[1::2] != second.responses[1::2]


def test_nothing_counts_behind_the_end_token(model, tokenizer, head):
    rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), n_samples=8, selection="sample", max_new_tokens=30)
    for token_ids, mask in zip(rollout.token_ids.tolist(), rollout.response_mask.tolist(), strict=True):
        length = sum(mask)
        assert mask == [True] * length + [False] * (len(mask) - length)
        assert tokenizer.eos_id not in token_ids[: length - 1] and set(token_ids[length:]) <= {tokenizer.pad_id}


def test_the_rewards_stand_in_the_row_of_their_prompt(model, tokenizer, head, tasks):
    class Echo:
        def reward(self, prompt, response):
            return float(prompt == PROMPTS[1])

    rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), n_samples=2, max_new_tokens=4)
    assert score(rollout, [Echo()] * 3).tolist() == [[0, 0], [1, 1], [0, 0]]


def test_some_rows_of_a_rollout_are_the_same_responses_and_parts_put_together_are_the_whole(model, tokenizer):
    head = AdaptiveDecoder(16, TEMPERATURES, "token", n_hidden=8, generator=seeded(1)).requires_grad_(False)
    rollouts = [
        generate(model, tokenizer, prompts, head, seeded(s), n_samples=3, selection="sample", max_new_tokens=length)
        for s, (prompts, length) in enumerate([(PROMPTS, 12), (PROMPTS[:1], 5)])
    ]
    some = rollouts[0].rows(torch.tensor([7, 0, 7]))
    assert some.prompts == [PROMPTS[2], PROMPTS[0], PROMPTS[2]] and some.n_samples == 1
    assert some.responses == [rollouts[0].responses[row] for row in (7, 0, 7)]
    mask = rollouts[0].decision_mask
    states = unpack(rollouts[0].hidden_states, mask)
    assert torch.equal(some.hidden_states, torch.cat([states[row, mask[row]] for row in (7, 0, 7)]))
    whole = concatenate([rollout.rows(torch.arange(len(rollout.responses))) for rollout in rollouts])
    assert whole.responses == rollouts[0].responses + rollouts[1].responses and len(whole.prompts) == 12
    assert whole.response_mask.sum(1).tolist() == [n for r in rollouts for n in r.response_mask.sum(1).tolist()]
    T = rollouts[1].token_ids.shape[1]
    assert torch.equal(whole.token_ids[9:, :T], rollouts[1].token_ids) and not whole.decision_mask[9:, T:].any()


def test_two_temperatures_put_the_first_word_of_a_sentence_apart(model, tokenizer):
    starts = torch.tensor([tokenizer.sep_id, *tokenizer.ids_of(["."])])
    rule = TwoTemperatures([0.0, 0.7, 1.5], [(0, 2), (2, 1)], starts)
    rollout = generate(model, tokenizer, PROMPTS, rule, seeded(0), n_samples=4, max_new_tokens=30)
    before = torch.cat([torch.full((12, 1), tokenizer.sep_id), rollout.token_ids[:, :-1]], 1)
    first, mask = torch.isin(before, starts), rollout.response_mask
    for n, (at_first, at_rest) in enumerate([(0.0, 1.5), (1.5, 0.7)] * 2):
        row = torch.arange(n, 12, 4)
        assert (rollout.temperatures[row][mask[row] & first[row]] == at_first).all()
        assert (rollout.temperatures[row][mask[row] & ~first[row]] == torch.tensor(at_rest)).all()


def test_log_probabilities_under_every_temperature_do_not_depend_on_how_they_are_split_up(model, tokenizer, head, monkeypatch):
    """Neither where responses are read again nor where a rule decided and nothing was stored."""
    rules = [FixedTemperatures([0.0, 0.5, 1.0]), TwoTemperatures([0.0, 0.5, 1.0], [(0, 2)], torch.tensor([1]))]
    for decides in (head, *rules):
        rollout = generate(model, tokenizer, PROMPTS, decides, seeded(0), n_samples=4, max_new_tokens=12)
        whole = with_choice_logprobs(model, tokenizer, rollout).choice_logprobs
        monkeypatch.setattr("minilpo.rollout.READ_AT_ONCE", 5)
        monkeypatch.setattr("minilpo.rollout.TOKENS_AT_ONCE", 7)
        in_parts = with_choice_logprobs(model, tokenizer, rollout).choice_logprobs
        monkeypatch.undo()
        torch.testing.assert_close(in_parts, whole, atol=1e-3, rtol=1e-3)
        for row in range(12):
            n = int(rollout.response_mask[row].sum())
            ids = [*tokenizer.encode(PROMPTS[row // 4]), tokenizer.sep_id, *rollout.token_ids[row, :n].tolist()]
            logits = model.logits(model(torch.tensor([ids]))[0, -1 - n : -1])
            expected = choice_logprobs(logits, rollout.token_ids[row, :n].long(), rollout.temperature_choices)
            torch.testing.assert_close(whole[row, :n], expected, atol=1e-3, rtol=1e-3)


def test_gradients_may_go_through_everything_that_a_rollout_holds(model, tokenizer, head):
    rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), max_new_tokens=5)
    assert not any(value.is_inference() for value in vars(rollout).values() if isinstance(value, torch.Tensor))


def test_a_response_is_never_longer_than_asked_for_and_by_default_as_long_as_the_block_allows(model, tokenizer, head):
    model.norm.bias -= 20 * model.token_embedding.weight[tokenizer.eos_id]  # no response ends by itself
    longest = max(len(tokenizer.encode(prompt)) for prompt in PROMPTS) + 1
    for asked, written in [(1, 1), (7, 7), (1000, 110 - longest), (None, 110 - longest)]:
        rollout = generate(model, tokenizer, PROMPTS, head, seeded(0), max_new_tokens=asked)
        assert rollout.response_mask.sum(1).tolist() == [written] * 3


def test_what_can_not_be_written_is_refused_with_what_to_pass_instead(model, tokenizer, head):
    with pytest.raises(ValueError, match="110.*123 tokens"):
        generate(model, tokenizer, ["the fox" + " the fox" * 60], head, seeded(0))
    with pytest.raises(ValueError, match="selection"):
        generate(model, tokenizer, PROMPTS, head, seeded(0), selection="beam")
    with pytest.raises(ValueError, match="prompts must hold at least one text, got none"):
        generate(model, tokenizer, [], head, seeded(0))
    for name, value in [("max_new_tokens", 0), ("max_new_tokens", -3), ("n_samples", 0)]:
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
            generate(model, tokenizer, PROMPTS, head, seeded(0), **{name: value})
