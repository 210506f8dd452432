"""The head, and what it has decided."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.decoding.rollout import MarginalDecisions
from tests.conftest import seeded


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_an_untrained_head_is_exactly_uniform_whatever_it_reads(level):
    head = AdaptiveDecoder(16, 4, level, generator=seeded(0))
    probs = head(100 * torch.randn(20, 16, generator=seeded(1))).softmax(-1)
    assert (probs == 0.25).all()


def test_hidden_states_of_another_width_are_refused_in_words():
    with pytest.raises(ValueError, match="must read 16 values, got 24; make one for 24"):
        AdaptiveDecoder(16, 3)(torch.ones(2, 24))


def test_the_head_has_three_layers_and_every_one_gets_a_gradient_after_the_first_step():
    head = AdaptiveDecoder(16, 2, generator=seeded(0))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        head(torch.randn(8, 16, generator=seeded(1)))[:, 0].sum().backward()
        optimizer.step()
    weights = [parameter for parameter in head.parameters() if parameter.ndim == 2]
    assert len(weights) == 3 and all(weight.grad.abs().sum() > 0 for weight in weights)


def test_an_unknown_level_is_refused_by_name():
    with pytest.raises(ValueError, match="word"):
        AdaptiveDecoder(4, 2, level="word")


def test_a_head_computes_in_its_own_precision_whatever_it_reads():
    head = AdaptiveDecoder(16, 3, generator=seeded(0))
    assert head(torch.zeros(2, 16, dtype=torch.float64)).dtype == torch.float32
    assert head.double()(torch.zeros(2, 16)).dtype == torch.float64


# What was decided


MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])


def test_what_is_unpacked_stands_row_by_row_where_the_mask_is_true_and_zeros_elsewhere():
    values = torch.randn(6, 2, generator=seeded(0))
    places, n = unpack(values, MASK), 0
    for row in range(3):
        for step in range(3):
            if MASK[row, step]:
                assert torch.equal(places[row, step], values[n])
                n += 1
            else:
                assert not places[row, step].any()
    assert n == 6


@pytest.mark.parametrize("rows", [[2, 0], [1, 1, 2], [0], []])
def test_rows_of_decisions_carry_all_that_belongs_to_them_in_the_order_that_is_asked_for(rows):
    made = MarginalDecisions(
        features=torch.randn(6, 4, generator=seeded(0)),
        choice_ids=torch.randint(0, 3, (3, 3), generator=seeded(1)),
        mask=MASK,
        choice_logprobs=torch.randn(3, 5, 3, generator=seeded(2)),
        token_mask=torch.rand(3, 5, generator=seeded(3)) < 0.5,
    )
    features = {0: made.features[:2], 1: made.features[2:3], 2: made.features[3:]}  # of each row
    index = torch.tensor(rows, dtype=torch.long)
    for decisions in (made, Decisions(made.features, made.choice_ids, made.mask)):
        some = decisions.rows(index)
        assert type(some) is type(decisions) and len(some.mask) == len(rows)
        expected = torch.cat([made.features[:0], *(features[row] for row in rows)])
        assert torch.equal(some.features, expected)
        for name in set(vars(some)) - {"features", "_starts"}:
            assert torch.equal(getattr(some, name), getattr(made, name)[index])
        assert torch.equal(some.rows(torch.arange(len(rows))).features, some.features)
