"""What a Rollout holds and how it is put together, taken apart, read again and scored.

Each by a plain count.
"""

import pytest
import torch

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, GreedyHead, SampledHead
from minilpo.decoding.rollout import MarginalDecisions, Rollout, concatenate, forward_rollout, score
from minilpo.tasks import Task
from tests.conftest import CHOICES, head_of, seeded
from tests.decoding.test_rollout import reads

SHORT, LONG = (
    "Mia has 7 apples. How many apples are left?",
    "Tell me a story of three sentences about a fox in the forest.",
)


def made(lengths, n_samples=1, T=None, S=None, seed=0, C=4):
    """A rollout of responses of these lengths, T tokens wide, with a decision for each of the first
    S tokens.
    """
    R, T = len(lengths), T or max(lengths)
    S = T if S is None else S
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    decisions = MarginalDecisions(
        features=torch.randn(int(mask[:, :S].sum()), C, generator=seeded(seed + 1)),
        choice_ids=torch.randint(0, 3, (R, S), generator=seeded(seed + 2)) * mask[:, :S],
        mask=mask[:, :S],
        choice_logprobs=-torch.rand(R, T, 3, generator=seeded(seed + 3)) * mask[..., None],
        token_mask=mask,
    )
    return Rollout(
        prompts=[f"prompt {p}" for p in range(R // n_samples)],
        n_samples=n_samples,
        responses=[f"response {r} of {seed}" for r in range(R)],
        token_ids=torch.randint(1, 9, (R, T), generator=seeded(seed)) * mask,
        response_mask=mask,
        decisions=decisions,
    )


def same(a, b):
    """Whether two rollouts hold the same; what stands behind a response means nothing."""
    assert torch.equal(a.token_ids[a.response_mask], b.token_ids[b.response_mask])
    mine, other = a.decisions, b.decisions
    assert torch.equal(mine.choice_ids[mine.mask], other.choice_ids[other.mask])
    assert torch.equal(mine.features, other.features)
    return (a.prompts, a.responses, a.n_samples) == (b.prompts, b.responses, b.n_samples)


LENGTHS = [3, 1, 5, 2, 4, 1]
STARTS = [0, 3, 4, 9, 11, 15]  # where the features of each of them begin


def test_rows_in_any_order_and_more_than_once_bring_along_all_that_is_theirs():
    rollout, order = made(LENGTHS, n_samples=2), [4, 0, 0, 3]
    some = rollout.rows(torch.tensor(order))
    assert some.prompts == ["prompt 2", "prompt 0", "prompt 0", "prompt 1"] and some.n_samples == 1
    for row, r in enumerate(order):
        n, alone = LENGTHS[r], some.rows(torch.tensor([row]))
        assert alone.responses == [rollout.responses[r]] and alone.response_mask.sum() == n
        assert torch.equal(alone.token_ids[0], rollout.token_ids[r])
        own, whole = alone.decisions, rollout.decisions
        for name in ("choice_ids", "mask", "choice_logprobs", "token_mask"):
            assert torch.equal(getattr(own, name)[0], getattr(whole, name)[r])
        assert torch.equal(own.features, whole.features[STARTS[r] : STARTS[r] + n])


def test_prompts_in_another_order_bring_along_all_their_responses():
    rollout = made(LENGTHS, n_samples=2)
    turned = rollout.sorted_by(torch.tensor([2, 0, 1]))
    rows = [4, 5, 0, 1, 2, 3]
    assert turned.prompts == ["prompt 2", "prompt 0", "prompt 1"] and turned.n_samples == 2
    assert turned.responses == [rollout.responses[r] for r in rows]
    assert [turned.prompt_of(row) for row in range(6)] == [rollout.prompt_of(r) for r in rows]
    one_by_one = rollout.rows(torch.tensor(rows))
    assert same(turned.rows(torch.arange(6)), one_by_one)
    assert same(turned.sorted_by(torch.tensor([1, 2, 0])), rollout)


def test_the_prompt_of_a_row_is_the_one_it_responds_to():
    rollout = made(LENGTHS, n_samples=3)
    assert [rollout.prompt_of(row) for row in range(6)] == ["prompt 0"] * 3 + ["prompt 1"] * 3


@pytest.mark.parametrize("S", [None, 1, 0])
def test_rollouts_of_unlike_length_put_together_are_the_same_responses(S):
    """With a decision for every token, one for all, or none."""
    parts = [made([3, 1], S=S), made([2, 5, 4], S=S, seed=10), made([1], S=S, seed=20)]
    whole = concatenate(parts)
    assert whole.token_ids.shape == (6, 5)
    assert whole.decisions.choice_ids.shape == (6, 5 if S is None else S)
    assert whole.prompts == [prompt for part in parts for prompt in part.prompts]
    first = 0
    for part in parts:
        rows = torch.arange(first, first + len(part.responses))
        assert same(whole.rows(rows), part)
        assert torch.equal(whole.response_mask[rows].sum(1), part.response_mask.sum(1))
        first += len(part.responses)
    ruled = concatenate([made([3], S=S, C=0), made([2], S=S, C=0)])  # no head has read anything
    assert ruled.decisions.features.shape == (int(ruled.decisions.mask.sum()), 0)


def test_a_reward_is_of_the_task_the_prompt_and_the_response_of_its_row():
    class Sum(Task):
        name = "sum"

        def __init__(self, base):
            self.base = base

        def reward(self, prompt, response):
            return (self.base + 10 * int(prompt.split()[1]) + int(response.split()[1])) / 1000

    rewards = score(made([1] * 6, n_samples=3), [Sum(100), Sum(200)])
    torch.testing.assert_close(
        rewards, torch.tensor([[0.100, 0.101, 0.102], [0.213, 0.214, 0.215]])
    )


def test_responses_are_read_again_in_a_window_no_wider_than_the_block(lm):
    """A short prompt with a long response beside a long prompt with a short one: together they
    would be too wide.
    """
    model = lm.model.double()
    # No response ends by itself.
    model.norm.bias -= 20 * model.token_embedding.weight[lm.tokenizer.eos_id]
    policy = GreedyHead(head_of("token").double(), CHOICES)
    prompts = SHORT, " ".join([LONG] * 5)
    parts = [generate(lm, [prompt], policy, seeded(0), n_samples=2) for prompt in prompts]
    longest = max(len(lm.tokenizer.encode(prompt)) for prompt in prompts) + 1
    assert longest + parts[0].token_ids.shape[1] > model.config.block_size
    whole = concatenate(parts)
    for of_whole, *of_parts in zip(
        forward_rollout(lm, whole), *(forward_rollout(lm, part) for part in parts), strict=True
    ):
        torch.testing.assert_close(of_whole, torch.cat(of_parts))
    torch.testing.assert_close(forward_rollout(lm, whole)[0], whole.decisions.features)


@pytest.mark.parametrize("rows_per_batch", [1, 4, 12, 13, 1000])
def test_the_progress_counts_each_response_once_however_they_are_batched(lm, rows_per_batch):
    told = []
    prompts = [LONG, SHORT, LONG.replace("three", "five")]
    options = {"n_samples": 4, "max_new_tokens": 3, "progress": told.append}
    options["rows_per_batch"] = rows_per_batch
    rollout = generate(lm, prompts, Fixed(Temperatures([0.0, 1.0])), seeded(0), **options)
    at_once = max(1, rows_per_batch // 4)
    assert told == [4 * len(prompts[start : start + at_once]) for start in range(0, 3, at_once)]
    assert rollout.prompts == prompts and rollout.n_samples == 4 and len(rollout.responses) == 12
    assert rollout.decisions.choice_ids[:, 0].tolist() == [0, 1] * 6


def test_the_default_is_one_response_to_each_prompt(lm, head):
    policy = GreedyHead(head, CHOICES)
    plain = generate(lm, [LONG, SHORT], policy, seeded(0))
    spelled = generate(lm, [LONG, SHORT], policy, seeded(0), n_samples=1)
    assert plain.responses == spelled.responses and plain.n_samples == 1
    made = plain.decisions
    assert torch.equal(made.choice_ids[:, 0], head(made.features).argmax(-1))


def test_the_tensors_are_as_wide_as_the_longest_response_and_nothing_is_read_in_vain(lm, head):
    model = lm.model.double()
    end = model.token_embedding.weight[lm.tokenizer.eos_id]
    model.norm.bias += 6 * end / (end @ end)  # responses end early
    shapes, policy = reads(model), SampledHead(head.double(), CHOICES)
    options = {"n_samples": 4, "max_new_tokens": 40}
    rollout = generate(lm, [LONG, SHORT], policy, seeded(0), **options)
    longest = int(rollout.response_mask.sum(1).max())
    # The prompts are read, and each token but the last.
    assert rollout.token_ids.shape[1] == longest == len(shapes) < 40
    model.norm.bias -= 26 * end / (end @ end)  # and now never
    shapes.clear()
    rollout = generate(lm, [LONG, SHORT], policy, seeded(0), **options)
    assert rollout.token_ids.shape[1] == len(shapes) == 40


def test_prompts_of_like_length_are_read_together(lm, head):
    prompts = [LONG, SHORT, LONG.replace("three", "four"), SHORT.replace("7", "9")]
    shapes, options = reads(lm.model), {"n_samples": 4, "rows_per_batch": 8, "max_new_tokens": 1}
    generate(lm, prompts, GreedyHead(head, CHOICES), seeded(0), **options)
    assert shapes == [(2, len(lm.tokenizer.encode(prompt)) + 1) for prompt in (SHORT, LONG)]


def test_a_prompt_may_leave_room_for_a_single_token(lm, head):
    # A token each, and the end mark of the prompt.
    words, policy = ["fox"] * (lm.model.config.block_size - 2), GreedyHead(head, CHOICES)
    assert generate(lm, [" ".join(words)], policy, seeded(0)).token_ids.shape == (1, 1)
    with pytest.raises(ValueError, match="must leave room for a response"):
        generate(lm, [" ".join([*words, "fox"])], policy, seeded(0))
