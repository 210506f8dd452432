"""Batched generation equals writing one response at a time, and the Rollout holds what LPO needs."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures, TwoTemperatures
from minilpo.rollout import MIXED, concatenate, generate, score, unpack, with_choice_logprobs
from minilpo.sampling import choice_logprobs, draw, mixture_probs, token_probs
from tests.conftest import TEMPERATURES, seeded

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. How many apples are left?",
    "In a box there are 9 cards. Then half of them break. Then the number doubles. How many cards are there now?",
]


def one_at_a_time(model, tokenizer, head, prompts, n_samples, selection, generator, max_new_tokens):
    """The plain reference: no batch, no cache, no padding; the same uniform numbers."""
    uniforms = torch.rand(len(prompts), n_samples, max_new_tokens, 2, generator=generator)
    texts, ids, hiddens, logprobs = [], [], [], []
    for p, prompt in enumerate(prompts):
        for n in range(n_samples):
            sequence = [*tokenizer.encode(prompt), tokenizer.sep_id]
            start, chosen, read, per_choice = len(sequence), [], [], []
            for t in range(max_new_tokens):
                h = model(torch.tensor([sequence]))[:, -1]
                if t == 0 or head.level == "token":
                    read.append(h)
                    choice_probs = head(h).softmax(-1)
                    if selection != "mixture":
                        chosen.append(head.choose(h, selection, uniforms[p, n, t : t + 1, 0]))
                if selection == "mixture":
                    probs = mixture_probs(model.logits(h), choice_probs, head.temperature_choices)
                else:
                    probs = token_probs(model.logits(h), head.temperature_choices[chosen[-1]])
                token = draw(probs, uniforms[p, n, t : t + 1, 1])
                per_choice.append(choice_logprobs(model.logits(h), token, head.temperature_choices))
                sequence.append(int(token))
                if sequence[-1] == tokenizer.eos_id:
                    break
            texts.append(tokenizer.decode([i for i in sequence[start:] if i != tokenizer.eos_id]))
            ids.append([int(i) for i in chosen])
            hiddens.append(torch.cat(read))
            logprobs.append(torch.cat(per_choice))
    return texts, ids, hiddens, logprobs


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("selection", ["greedy", "sample", "mixture"])
def test_a_batch_of_mixed_temperatures_equals_writing_one_response_at_a_time(model, tokenizer, level, selection):
    head = AdaptiveDecoder(16, TEMPERATURES, level, n_hidden=8, generator=seeded(1))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(2))
    head.requires_grad_(False)
    model.token_embedding.weight[tokenizer.eos_id] += 0.5 * model.norm.weight  # so that rows end at different lengths
    rollout = generate(
        model,
        tokenizer,
        PROMPTS,
        head,
        seeded(3),
        n_samples=4,
        selection=selection,
        max_new_tokens=12,
        rows_per_batch=8,
    )
    rollout = with_choice_logprobs(model, tokenizer, rollout)
    hidden_states = unpack(rollout.hidden_states, rollout.decision_mask)
    texts, ids, hiddens, logprobs = one_at_a_time(model, tokenizer, head, PROMPTS, 4, selection, seeded(3), 12)
    assert rollout.responses == texts
    for row in range(12):
        mask = rollout.decision_mask[row]
        if selection == "mixture":
            assert (rollout.temperature_ids[row, mask] == MIXED).all()
        else:
            assert rollout.temperature_ids[row, mask].tolist() == ids[row]
        torch.testing.assert_close(hidden_states[row, mask], hiddens[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            rollout.choice_logprobs[row, rollout.response_mask[row]], logprobs[row], atol=1e-3, rtol=1e-3
        )


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


def test_a_prompt_that_fills_the_block_is_refused_with_its_length(model, tokenizer, head):
    with pytest.raises(ValueError, match="110.*123 tokens"):
        generate(model, tokenizer, ["the fox" + " the fox" * 60], head, seeded(0))
    with pytest.raises(ValueError, match="selection"):
        generate(model, tokenizer, PROMPTS, head, seeded(0), selection="beam")
