"""Who decides: when it is asked, what it sees, and that each row keeps what is its own."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, unpack
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import (
    ByPlace,
    Fixed,
    GreedyHead,
    MixedHead,
    Policy,
    SampledHead,
    Step,
)
from tests.conftest import CHOICES, ending_early, head_of, seeded

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. How many apples are left?",
]
SEP, STOP, WORD = 1, 2, 5


def step_of(rows, last=None, hidden_states=None, uniforms=None, position=0):
    """A step with as many rows; what isn't given doesn't matter."""
    B = len(rows)
    return Step(
        torch.tensor(rows),
        torch.zeros(B, 16) if hidden_states is None else hidden_states,
        torch.randn(B, 9, generator=seeded(0)),
        torch.full((B,), WORD) if last is None else torch.tensor(last),
        torch.tensor(position),
        torch.zeros(B) if uniforms is None else uniforms,
    )


@pytest.mark.parametrize("kind", [GreedyHead, SampledHead, MixedHead])
@pytest.mark.parametrize("n_choices", [2, 4])
def test_a_head_with_another_number_of_choices_is_refused(kind, n_choices):
    said = f"must have as many choices as there are, 3, got {n_choices}; make it with"
    with pytest.raises(ValueError, match=said):
        kind(AdaptiveDecoder(16, n_choices), CHOICES)


def test_a_head_is_read_in_three_ways():
    head, states = head_of(), torch.randn(4000, 16, generator=seeded(3))
    weights = head(states).softmax(-1)
    step = step_of(
        range(4000), hidden_states=states, uniforms=torch.rand(4000, generator=seeded(4))
    )
    assert GreedyHead(head, CHOICES).choose(step).tolist() == [
        max(range(3), key=row.__getitem__) for row in weights.tolist()
    ]
    drawn = SampledHead(head, CHOICES).choose(step)
    for k in range(3):  # as often as the mean probability, up to five standard errors
        share, probs = (drawn == k).double().mean(), weights[:, k].double()
        error = (probs * (1 - probs)).sum().sqrt() / 4000
        assert abs(share - probs.mean()) < 5 * error
    assert torch.equal(MixedHead(head, CHOICES).choose(step), weights)
    for kind in (GreedyHead, SampledHead, MixedHead):
        assert torch.equal(kind(head, CHOICES).features(step), states)
        assert kind(head, CHOICES).level == "sequence"
        assert kind(head_of("token"), CHOICES).level == "token"


def test_the_mixture_is_that_of_its_weights_and_draws_by_the_uniform_number():
    step, policy = step_of([0, 1]), MixedHead(head_of(), CHOICES)
    weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    probs = policy.probs(step, weights)
    for row in range(2):
        of_row = [CHOICES.probs(step.logits, torch.tensor([k, k]), step.position) for k in range(3)]
        expected = sum(weights[row, k] * of_row[k][row] for k in range(3))
        torch.testing.assert_close(probs[row], expected)
    cumulative = probs[0].cumsum(0)
    for u in torch.rand(50, generator=seeded(5)):
        expected = next(v for v in range(9) if cumulative[v] > u)
        assert policy.draw(step, weights, u.expand(2))[0] == expected


def test_fixed_gives_row_i_option_i_modulo_their_number_whatever_has_left():
    policy = Fixed(CHOICES)
    assert policy.level == "sequence"
    assert policy.choose(step_of(range(7))).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert policy.choose(step_of([1, 5, 6])).tolist() == [1, 2, 0]
    assert policy.features(step_of([1, 5, 6])).shape == (3, 0)
    alone = Fixed(Temperatures([0.7]))  # ordinary decoding
    assert alone.choose(step_of([4, 9])).tolist() == [0, 0]


def test_by_place_gives_the_first_word_of_a_sentence_its_own_option():
    policy = ByPlace(CHOICES, [(0, 2), (1, 0)], [SEP, STOP])
    assert policy.level == "token"
    last = [SEP, SEP, STOP, STOP, WORD, WORD, WORD]
    assert policy.choose(step_of(range(7), last)).tolist() == [0, 1, 0, 1, 2, 0, 2]
    assert policy.choose(step_of([1, 6], [WORD, STOP])).tolist() == [0, 0]  # rows have left
    assert policy.features(step_of([1, 6])).shape == (2, 0)


class Noting(Policy):
    """Takes one option always, and notes all that it is asked and told."""

    def __init__(self, level):
        super().__init__(CHOICES)
        self.level, self.started, self.asked, self.told = level, [], [], []

    def start(self, n_rows):
        self.started.append(n_rows)

    def choose(self, step):
        self.asked.append(step)
        return torch.full_like(step.rows, 2)

    def observe(self, step, token_ids):
        self.told.append((step, token_ids.clone()))


def test_one_choice_is_made_per_response_and_one_per_token_of_the_rows_still_going(lm):
    lm = ending_early(lm)
    options = {"n_samples": 6, "max_new_tokens": 14}
    per_response, per_token = Noting("sequence"), Noting("token")
    rollouts = [
        generate(lm, PROMPTS, policy, seeded(3), **options) for policy in (per_response, per_token)
    ]
    assert rollouts[0].responses == rollouts[1].responses
    assert per_response.started == per_token.started == [12]
    assert len(per_response.asked) == 1 and per_response.asked[0].rows.tolist() == [*range(12)]
    lengths = rollouts[1].response_mask.sum(1)
    assert len(set(lengths.tolist())) > 3
    assert len(per_token.asked) == int(lengths.max())
    assert [int(step.position) for step in per_token.asked] == [*range(len(per_token.asked))]
    of_row = row_in_rollout(lm)
    widths = []
    for t, step in enumerate(per_token.asked):
        rows = of_row[step.rows]
        widths.append(len(rows))
        going = (lengths > t).nonzero()[:, 0].tolist()
        assert set(going) <= set(rows.tolist())  # nobody is forgotten
        last = rollouts[1].token_ids[rows, t - 1].long() if t else None
        is_going = lengths[rows] > t
        if t:
            assert torch.equal(step.last_token_ids[is_going], last[is_going])
        else:
            assert set(step.last_token_ids.tolist()) == {lm.tokenizer.sep_id}
        assert step.hidden_states.shape == (len(rows), 16)
        assert step.logits.shape == (len(rows), lm.tokenizer.vocab_size)
        assert ((step.uniforms >= 0) & (step.uniforms < 1)).all()
        # What was drawn is told to the policy, row by row.
        told_step, token_ids = per_token.told[t]
        assert torch.equal(told_step.rows, step.rows)
        assert torch.equal(token_ids[is_going], rollouts[1].token_ids[rows[is_going], t].long())
    assert len(per_token.told) == len(per_response.told) == len(per_token.asked)
    assert widths[0] == 12 and len(set(widths)) >= 3  # rows did leave, more than once


def row_in_rollout(lm):
    """(12,) the row in the rollout of each row of the batch, where prompts stand by length."""
    lengths = [len(ids) for ids in lm.encode(PROMPTS)]
    order = sorted(range(len(PROMPTS)), key=lengths.__getitem__)
    return torch.tensor([6 * p + n for p in order for n in range(6)])


class Counting(Policy):
    """A state per row: the sum of its tokens so far decides, and is kept as the feature."""

    level = "token"

    def start(self, n_rows):
        self.sums = torch.zeros(n_rows, dtype=torch.long)

    def choose(self, step):
        return self.sums[step.rows] % len(self.choices)

    def features(self, step):
        return self.sums[step.rows, None].double()

    def observe(self, step, token_ids):
        self.sums[step.rows] += token_ids


@pytest.mark.parametrize("rows_per_batch", [6, 100])
def test_a_state_per_row_stays_with_its_row_though_rows_leave_at_different_times(
    lm, rows_per_batch
):
    options = {"n_samples": 6, "max_new_tokens": 14, "rows_per_batch": rows_per_batch}
    policy = Counting(Temperatures([0.7, 1.0, 2.0]))  # greedily all would end at once
    rollout = generate(ending_early(lm), PROMPTS, policy, seeded(3), **options)
    lengths = rollout.response_mask.sum(1).tolist()
    assert len(set(lengths)) > 3
    features = unpack(rollout.decisions.features, rollout.decisions.mask)
    for row, length in enumerate(lengths):
        total = 0
        for t in range(length):
            assert features[row, t].item() == total
            assert rollout.decisions.choice_ids[row, t] == total % 3
            total += int(rollout.token_ids[row, t])


class Switching(Policy):
    """Greedy for a row's first tokens, then hot: by its own step."""

    level = "token"

    def choose(self, step):
        return torch.full_like(step.rows, 0 if step.position < 3 else 1)


def test_a_policy_of_ones_own_decides_how_each_token_is_drawn(lm):
    lm.model.double()
    choices, options = Temperatures([0.0, 100.0]), {"n_samples": 8, "max_new_tokens": 9}
    rollout = generate(lm, PROMPTS[:1], Switching(choices), seeded(0), **options)
    greedy = generate(lm, PROMPTS[:1], Fixed(Temperatures([0.0])), seeded(1), max_new_tokens=3)
    assert rollout.token_ids[:, :3].tolist() == greedy.token_ids.tolist() * 8
    assert len({tuple(ids) for ids in rollout.token_ids[:, 3:].tolist()}) == 8
    assert rollout.decisions.choice_ids[0].tolist() == [0] * 3 + [1] * (
        rollout.decisions.mask.shape[1] - 3
    )
