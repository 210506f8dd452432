"""From logits to tokens: exact probabilities, and frequencies that follow them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from minilpo.decoding.sampling import draw, token_probs
from tests.conftest import seeded


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature():
    logits = torch.randn(4, 9, generator=seeded(0), dtype=torch.float64)
    temperatures = torch.tensor([0.3, 1.0, 2.0, 0.05], dtype=torch.float64)
    expected = (logits / temperatures[:, None]).exp()
    torch.testing.assert_close(
        token_probs(logits, temperatures), expected / expected.sum(-1, keepdim=True)
    )


def test_temperature_zero_puts_all_on_the_largest_logit_also_in_a_mixed_batch_with_huge_logits():
    logits = torch.tensor([[1e4, -1e4, 9e3], [1.0, 2.0, 0.0], [5.0, 5.0, 0.0]])
    probs = token_probs(logits, torch.tensor([0.0, 1.0, 0.0]))
    assert probs[0].tolist() == [1, 0, 0] and probs[2].tolist() == [1, 0, 0]
    torch.testing.assert_close(probs[1], logits[1].softmax(-1))


def test_a_very_low_temperature_approaches_greedy():
    logits = torch.randn(50, 20, generator=seeded(0))
    torch.testing.assert_close(
        token_probs(logits, torch.full((50,), 1e-4)),
        token_probs(logits, torch.zeros(50)),
        atol=1e-3,
        rtol=0,
    )


def test_drawn_frequencies_follow_the_probabilities():
    probs = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    ids = draw(probs.expand(200_000, 5), torch.rand(200_000, generator=seeded(0)))
    torch.testing.assert_close(
        torch.bincount(ids, minlength=5) / 200_000, probs, atol=0.004, rtol=0
    )


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda w: sum(w) > 0.01),
    st.floats(0, 1, exclude_max=True),
)
def test_an_index_of_probability_zero_is_never_drawn(weights, uniform):
    probs = torch.tensor([weights]) / sum(weights)
    drawn = draw(probs, torch.tensor([uniform]).clamp(max=1 - 2**-24))
    assert probs[0, drawn] > 0


def test_rows_whose_sum_is_a_little_off_1_are_drawn_from_as_if_it_were_1():
    for total in (0.9, 1.1):
        probs = total * torch.tensor([[0.5, 0.3, 0.2]]).expand(4, 3)
        assert draw(probs, torch.tensor([0.48, 0.52, 0.78, 0.82])).tolist() == [0, 1, 1, 2]


def test_a_draw_is_as_precise_as_the_more_precise_of_probabilities_and_uniform_numbers():
    """A thousand equal probabilities, added up in half precision, would leave most of them out."""
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    probs = torch.full((1000, 1000), 2.0**-10)
    for a, b in [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
    ]:
        assert torch.equal(draw(probs.to(a), uniforms.to(b)), torch.arange(1000))
