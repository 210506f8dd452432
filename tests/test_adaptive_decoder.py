"""The temperature head."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from tests.conftest import seeded


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_an_untrained_head_is_exactly_uniform_whatever_it_reads(level):
    head = AdaptiveDecoder(16, [0.0, 0.3, 0.6, 1.0], level, generator=seeded(0))
    probs = head(100 * torch.randn(20, 16, generator=seeded(1))).softmax(-1)
    assert (probs == 0.25).all()


def test_greedy_takes_the_most_likely_choice_and_sampling_follows_the_head(head):
    h = torch.randn(1, 16, generator=seeded(5)).expand(100_000, 16)
    probs = head(h[:1])[0].softmax(-1)
    assert (head.choose(h[:9], "greedy", torch.rand(9)) == probs.argmax()).all()
    drawn = head.choose(h, "sample", torch.rand(100_000, generator=seeded(6)))
    torch.testing.assert_close(torch.bincount(drawn, minlength=3) / 100_000, probs, atol=0.006, rtol=0)


def test_the_head_has_three_layers_and_every_one_gets_a_gradient_after_the_first_step():
    head = AdaptiveDecoder(16, [0.0, 1.0], generator=seeded(0))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        head(torch.randn(8, 16, generator=seeded(1)))[:, 0].sum().backward()
        optimizer.step()
    weights = [parameter for parameter in head.parameters() if parameter.ndim == 2]
    assert len(weights) == 3 and all(weight.grad.abs().sum() > 0 for weight in weights)


def test_fixed_temperatures_go_round_by_row_whatever_was_read():
    rows = torch.tensor([0, 2, 3, 7])  # some have left the batch
    assert FixedTemperatures([0.1, 0.2, 0.3]).choose(rows, torch.randint(9, (4,))).tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize("bad", [dict(level="word"), dict(selection="beam")])
def test_an_unknown_level_or_selection_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad.values()))):
        head = AdaptiveDecoder(4, [0.0, 1.0], level=bad.get("level", "token"))
        head.choose(torch.zeros(1, 4), bad.get("selection", "greedy"), torch.zeros(1))
