"""Batched generation equals writing one response at a time, and the Rollout holds what LPO needs.

Almost everything here is computed in double precision: two ways to compute the same thing then
never differ by enough to draw another word, whatever the machine, its instructions and its number
of threads.
"""

import pytest
import torch

from minilpo.adaptive_decoder import unpack
from minilpo.decoding.choices import FirstTokens, Temperatures
from minilpo.decoding.generate import generate, uniforms_of
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.decoding.rollout import forward_rollout, marginal_decisions
from minilpo.decoding.sampling import draw, token_probs
from tests.conftest import CHOICES, TEMPERATURES, ending_early, head_of, seeded

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. How many apples are left?",
    "In a box there are 9 cards. Then half of them break. Then the number doubles. "
    "How many cards are there now?",
]


@pytest.fixture
def model(model):
    return model.double()


@pytest.fixture
def head(head):
    return head.double()


PAIRS = [(0, 2), (2, 1), (1, 2)]  # of the rule by place
HEADS = {"greedy": GreedyHead, "sampled": SampledHead, "mixed": MixedHead}


def policy_of(how, level, starts):
    if how in HEADS:
        return HEADS[how](head_of(level).double(), CHOICES)
    return Fixed(CHOICES) if level == "sequence" else ByPlace(CHOICES, PAIRS, starts)


def one_at_a_time(lm, how, level, prompt, row, uniforms):
    """The plain reference for one row: no batch, no cache, no padding, no policy; the same uniform
    numbers, (T, 2).
    """
    model, tokenizer, head = lm.model, lm.tokenizer, head_of(level).double()
    temperatures = torch.tensor(TEMPERATURES, dtype=torch.float64)
    sequence = [*tokenizer.encode(prompt), tokenizer.sep_id]
    chosen, states, logprobs, weights = [], [], [], None
    while len(logprobs) < len(uniforms) and not (logprobs and sequence[-1] == tokenizer.eos_id):
        for_choice, for_token = uniforms[len(logprobs), :, None]
        h = model(torch.tensor([sequence]))[:, -1]
        by_temperature = [token_probs(model.logits(h), tau[None]) for tau in temperatures]
        if weights is None or level == "token":
            states.append(h)
            weights = head(h).softmax(-1)[0]
            if how == "greedy":
                k = int(weights.argmax())
            elif how == "sampled":
                k = int(draw(weights[None], for_choice))
            elif how == "rule" and level == "sequence":
                k = row % len(TEMPERATURES)
            elif how == "rule":
                k = PAIRS[row % len(PAIRS)][sequence[-1] not in lm.sentence_starts]
            if how != "mixed":
                chosen.append(k)
        if how == "mixed":
            probs = sum(w * p for w, p in zip(weights, by_temperature, strict=True))
        else:
            probs = by_temperature[chosen[-1]]
        token = int(draw(probs, for_token))
        logprobs.append(torch.tensor([p[0, token].log().clamp(min=-20) for p in by_temperature]))
        sequence.append(token)
    return sequence[-len(logprobs) :], chosen, torch.cat(states), torch.stack(logprobs)


def numbers_of(lm, prompt, n_samples, generator):
    """The uniform numbers of a prompt in the first call with a generator."""
    key = int(torch.randint(2**63 - 1, (), generator=generator))
    return uniforms_of(f"0 {prompt}", n_samples, lm.max_length, key)


def reads(model):
    """The (rows, tokens) of every reading by the model from now on."""
    shapes = []
    model.blocks[0].register_forward_pre_hook(
        lambda block, inputs: shapes.append(tuple(inputs[0].shape[:2]))
    )
    return shapes


WRITERS = [
    (level, how) for level in ("sequence", "token") for how in ("greedy", "sampled", "mixed")
]


def lines_of(rollout, prompt):
    """What the responses to one prompt are: tokens, choices, texts."""
    p, N = rollout.prompts.index(prompt), rollout.n_samples
    lines = []
    for row in range(p * N, (p + 1) * N):
        mask, made = rollout.response_mask[row], rollout.decisions.mask[row]
        ids, chosen = rollout.token_ids[row, mask], rollout.decisions.choice_ids[row, made]
        lines.append((ids.tolist(), chosen.tolist(), rollout.responses[row]))
    return lines


@pytest.mark.parametrize("ending", [-20, 4.5])
@pytest.mark.parametrize("level, how", [("sequence", "sampled"), ("token", "sampled")])
def test_a_response_depends_on_nothing_but_its_prompt_its_number_and_the_generator(
    lm, level, how, ending
):
    """Not on the other prompts of the call, of which one is much longer, on their order, on how
    many samples there are, or on how many rows are written together; also where responses end only
    because there is no more room.
    """
    end = lm.model.token_embedding.weight[lm.tokenizer.eos_id]
    lm.model.norm.bias += ending * end / (end @ end)
    policy, longer = policy_of(how, level, lm.sentence_starts), " ".join(PROMPTS)
    whole = generate(lm, [*PROMPTS, longer], policy, seeded(3), n_samples=6)
    calls = [
        generate(lm, [longer, *reversed(PROMPTS)], policy, seeded(3), n_samples=6),
        generate(lm, [*PROMPTS, longer], policy, seeded(3), n_samples=6, rows_per_batch=1),
        generate(lm, [*PROMPTS, longer], policy, seeded(3), n_samples=2),
    ]
    calls += [generate(lm, [p], policy, seeded(3), n_samples=6) for p in [*PROMPTS, longer]]
    for rollout in calls:
        for prompt in rollout.prompts:
            n = rollout.n_samples
            assert lines_of(rollout, prompt) == lines_of(whole, prompt)[:n]
    if ending < 0:  # every response takes all the room there is, and no more
        room = [lm.max_length - len(ids) for ids in lm.encode(whole.prompts) for _ in range(6)]
        assert whole.response_mask.sum(1).tolist() == room


def test_a_prompt_that_comes_twice_and_a_second_call_get_other_responses(lm):
    policy, draws = policy_of("sampled", "sequence", lm.sentence_starts), seeded(3)
    twice = generate(lm, PROMPTS[:1] * 2, policy, draws, n_samples=4)
    again = generate(lm, PROMPTS[:1], policy, draws, n_samples=4)
    alone = generate(lm, PROMPTS[:1], policy, seeded(3), n_samples=4)
    assert twice.responses[:4] == alone.responses
    assert len({*twice.responses, *again.responses}) > 6


@pytest.mark.parametrize("rows_per_batch", [12, 100])
@pytest.mark.parametrize("level, how", [*WRITERS, ("sequence", "rule"), ("token", "rule")])
def test_a_batch_that_rows_leave_equals_writing_one_response_at_a_time(
    lm, level, how, rows_per_batch
):
    """What a row says depends on its own choices, uniform numbers and words, whoever else is in
    the batch or was.
    """
    tokenizer, N, T = lm.tokenizer, 6, 14
    shapes = reads(
        ending_early(lm).model
    )  # the prompts of a batch, then one token per row and step
    policy = policy_of(how, level, lm.sentence_starts)
    options = {"n_samples": N, "max_new_tokens": T, "rows_per_batch": rows_per_batch}
    rollout = generate(lm, PROMPTS, policy, seeded(3), **options)
    narrower = [
        after < before
        for (before, _), (after, n) in zip(shapes[1:], shapes[2:], strict=False)
        if n == 1
    ]
    assert sum(narrower) >= 2  # rows did leave, more than once
    decisions = marginal_decisions(lm, rollout, CHOICES)
    uniforms = torch.cat([numbers_of(lm, prompt, N, seeded(3)) for prompt in PROMPTS])[:, :T]
    features = unpack(decisions.features, decisions.mask)
    for row in range(len(PROMPTS) * N):
        alone = one_at_a_time(lm, how, level, PROMPTS[row // N], row % N, uniforms[row])
        token_ids, chosen, hidden_states, logprobs = alone
        mask, decided = rollout.response_mask[row], rollout.decisions.mask[row]
        assert rollout.token_ids[row, mask].tolist() == token_ids
        words = [i for i in token_ids if i != tokenizer.eos_id]
        assert rollout.responses[row] == tokenizer.decode(words)
        assert rollout.decisions.choice_ids[row, decided].tolist() == chosen
        assert torch.equal(decisions.token_mask[row], mask)
        torch.testing.assert_close(
            decisions.choice_logprobs[row, mask], logprobs.float(), atol=1e-4, rtol=1e-5
        )
        if how in ("greedy", "sampled"):
            torch.testing.assert_close(features[row, decided], hidden_states)
    if how == "mixed":  # no single choice wrote a token, so none is kept
        assert rollout.decisions.choice_ids.shape == rollout.decisions.mask.shape == (18, 0)
        assert len(rollout.decisions.features) == 0
    if how == "rule":  # nothing to learn from
        assert rollout.decisions.features.shape == (int(rollout.decisions.mask.sum()), 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_model_of_any_precision_writes_with_a_head_that_has_its_own(lm, level, dtype):
    """Also where padding stands in front of the shorter prompts. Head and sampling compute in
    single precision.
    """
    head, seen = head_of(level), []
    lm.model.to(dtype)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.02}[dtype]
    options = {"n_samples": 4, "max_new_tokens": 9, "rows_per_batch": 100}
    for kind in HEADS.values():

        class Looked(kind):
            def draw(self, step, choice, uniforms):
                seen.append(step)
                return super().draw(step, choice, uniforms)

        rollout = generate(lm, PROMPTS, Looked(head, CHOICES), seeded(0), **options)
        made = rollout.decisions
        assert made.features.dtype == head(made.features).dtype == torch.float32
        again, logits = forward_rollout(lm, rollout)
        assert again.dtype == logits.dtype == dtype
        if kind is not MixedHead:
            decided = torch.zeros_like(rollout.response_mask)
            decided[:, : made.mask.shape[1]] = made.mask
            again = again[decided[rollout.response_mask]].float()
            torch.testing.assert_close(made.features, again, atol=tolerance, rtol=0)
            written = rollout
        logprobs = marginal_decisions(lm, rollout, CHOICES).choice_logprobs
        assert logprobs.dtype == torch.float32 and logprobs.isfinite().all()
        assert all(rollout.responses)
    assert {step.logits.dtype for step in seen} == {torch.float32}
    assert {step.hidden_states.dtype for step in seen} == {torch.float32}
    in_double, tokenizer = lm.model.double(), lm.tokenizer
    for p, prompt in enumerate(PROMPTS):
        h = in_double(torch.tensor([[*tokenizer.encode(prompt), tokenizer.sep_id]]))[0, -1]
        first = unpack(written.decisions.features, written.decisions.mask)[4 * p, 0]
        torch.testing.assert_close(first.double(), h, atol=tolerance, rtol=0)


def test_temperature_zero_is_deterministic_and_equals_argmax_in_a_mixed_batch(lm):
    policy = Fixed(Temperatures([0.0, 1.0]))
    first, second = (
        generate(lm, PROMPTS, policy, seeded(s), n_samples=4, max_new_tokens=8) for s in (0, 1)
    )
    assert first.responses[0::2] == second.responses[0::2]
    assert first.responses[0] == first.responses[2]
    assert first.responses[1::2] != second.responses[1::2]


def test_nothing_counts_behind_the_end_token(lm, head):
    policy, eos_id = SampledHead(head, CHOICES), lm.tokenizer.eos_id
    rollout = generate(lm, PROMPTS, policy, seeded(0), n_samples=8, max_new_tokens=30)
    rows = zip(rollout.token_ids.tolist(), rollout.response_mask.tolist(), strict=True)
    for token_ids, mask in rows:
        length = sum(mask)
        assert mask == [True] * length + [False] * (len(mask) - length)
        assert eos_id not in token_ids[: length - 1] and set(token_ids[length:]) <= {0}


def test_log_probabilities_do_not_depend_on_how_responses_are_split_up_to_be_read_again(
    lm, head, monkeypatch
):
    """Whether a head decided or a rule."""
    rules = [Fixed(CHOICES), ByPlace(CHOICES, [(0, 2)], [1])]
    for policy in (GreedyHead(head, CHOICES), *rules):
        rollout = generate(lm, PROMPTS, policy, seeded(0), n_samples=4, max_new_tokens=12)
        whole = marginal_decisions(lm, rollout, CHOICES).choice_logprobs
        with monkeypatch.context() as patch:
            patch.setattr("minilpo.decoding.rollout.TOKENS_AT_ONCE", 40)  # tokens: 3 rows
            in_parts = marginal_decisions(lm, rollout, CHOICES).choice_logprobs
        torch.testing.assert_close(in_parts, whole, atol=1e-3, rtol=1e-3)
        for row in range(12):
            n, prompt = int(rollout.response_mask[row].sum()), rollout.prompt_of(row)
            said = rollout.token_ids[row, :n].tolist()
            ids = [*lm.tokenizer.encode(prompt), lm.tokenizer.sep_id, *said]
            logits = lm.model.logits(lm.model(torch.tensor([ids]))[0, -1 - n : -1])
            for k, temperature in enumerate(TEMPERATURES):
                probs = token_probs(logits, torch.full((n,), temperature))
                expected = probs[torch.arange(n), said].log().clamp(min=-20).float()
                torch.testing.assert_close(whole[row, :n, k], expected, atol=1e-3, rtol=1e-3)


def test_the_place_of_a_token_is_counted_in_its_own_response(lm):
    """Options that force the first token of a response leave every later token to the model."""
    forced = FirstTokens([5, 6], ["a", "b"], temperature=1.0)
    policy = Fixed(forced, order=[1])
    rollout = generate(lm, PROMPTS, policy, seeded(0), n_samples=2, max_new_tokens=4)
    first, *later = marginal_decisions(lm, rollout, forced).choice_logprobs.unbind(1)
    assert first.tolist() == [[-20.0, 0.0]] * 6
    for logprobs, mask in zip(later, rollout.response_mask[:, 1:].T, strict=True):
        a, b = logprobs[mask].unbind(1)
        assert mask.any() and torch.equal(a, b) and (a < 0).all() and (a > -20).all()


def test_gradients_may_go_through_everything_that_a_rollout_holds(lm, head):
    rollout = generate(lm, PROMPTS, GreedyHead(head, CHOICES), seeded(0), max_new_tokens=5)
    held = [*vars(rollout).values(), *vars(rollout.decisions).values()]
    tensors = [value for value in held if isinstance(value, torch.Tensor)]
    assert len(tensors) >= 5 and not any(tensor.is_inference() for tensor in tensors)


def test_a_response_is_never_longer_than_asked_for_and_by_default_as_long_as_the_model_allows(
    lm, head
):
    # No response ends by itself.
    lm.model.norm.bias -= 20 * lm.model.token_embedding.weight[lm.tokenizer.eos_id]
    rooms = [110 - len(lm.tokenizer.encode(prompt)) - 1 for prompt in PROMPTS]
    policy = GreedyHead(head, CHOICES)
    for asked, written in [(1, [1] * 3), (7, [7] * 3), (1000, rooms), (None, rooms)]:
        rollout = generate(lm, PROMPTS, policy, seeded(0), max_new_tokens=asked)
        assert rollout.response_mask.sum(1).tolist() == written


def test_what_can_not_be_written_is_refused_with_what_to_pass_instead(lm, head):
    policy = GreedyHead(head, CHOICES)
    with pytest.raises(ValueError, match="110.*123 tokens"):
        generate(lm, ["the fox" + " the fox" * 60], policy, seeded(0))
    with pytest.raises(ValueError, match=r"must be a list of texts, as in .*, got \[\]"):
        generate(lm, [], policy, seeded(0))
    with pytest.raises(ValueError, match="a list of texts, as in .*, got 'the fox'"):
        generate(lm, "the fox", policy, seeded(0))
    for n, most in [(1, 0), (1, -3), (0, 5)]:
        with pytest.raises(ValueError, match=f"must be at least 1, got {n}, {most}"):
            generate(lm, PROMPTS, policy, seeded(0), n_samples=n, max_new_tokens=most)


@pytest.mark.parametrize("most", [None, 1])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_broken_language_model_is_named_wherever_the_break_shows(lm, level, most):
    """Here in the embedding of a word that no prompt has: the hidden states are fine. With one
    token to write, all rows end in the same step.
    """
    policy = GreedyHead(head_of(level), CHOICES)
    lm.model.token_embedding.weight[lm.tokenizer.ids_of([" drum"])] = torch.nan
    with pytest.raises(ValueError, match="the language model's logits must be finite, got NaN"):
        generate(lm, PROMPTS, policy, seeded(0), max_new_tokens=most)
