"""What can be chosen: probabilities by plain loops over tokens, and draws that follow them."""

import itertools
import math

import pytest
import torch

from minilpo.decoding.choices import Choices, FirstTokens, Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed
from tests.conftest import seeded

NOW = torch.tensor(0)
TABLE = list(
    itertools.product((0.0, 0.3, 1.0, 2.0), (0, 1, 3, 50), (1.0, 0.9, 0.5, 0.01), (0.0, 0.05, 0.5))
)


def every_combination():
    """Temperatures with and without every rule, alone and together: 192 options."""
    temperatures, top_k, top_p, min_p = zip(*TABLE, strict=True)
    return Temperatures(temperatures, top_k=top_k, top_p=top_p, min_p=min_p)


def plain_probs(logits, temperature, top_k, top_p, min_p):
    """The probabilities of the tokens, one after the other, from a list of logits."""
    V = len(logits)
    if temperature == 0:
        weights = [0.0] * V
        weights[logits.index(max(logits))] = 1.0
    else:
        weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    likeliest_first = sorted(range(V), key=lambda v: -weights[v])  # equals as they stood
    kept = likeliest_first[:top_k] if top_k else likeliest_first
    # The likeliest that together reach top_p of what is left.
    total, reached, nucleus = sum(weights[v] for v in kept), 0.0, []
    for v in kept:
        if reached < top_p * total:
            nucleus.append(v)
        reached += weights[v]
    kept = [v for v in nucleus if weights[v] >= min_p * weights[nucleus[0]]]
    total = sum(weights[v] for v in kept)
    return [weights[v] / total if v in kept else 0.0 for v in range(V)]


def is_clear(logits, temperature, top_k, top_p, min_p):
    """Whether no token is so near to the limit of a rule that rounding could decide about it."""
    probs = sorted(plain_probs(logits, temperature, top_k, 1.0, 0.0), reverse=True)
    reached = [*itertools.accumulate(probs)]
    at_limit = [abs(before - top_p) for before in reached[:-1]] if top_p < 1 else []
    at_limit += [abs(p - min_p * probs[0]) for p in probs if p and min_p]
    return min(at_limit, default=1.0) > 1e-6


def test_every_combination_of_rules_has_the_probabilities_of_a_plain_loop_over_tokens():
    choices, V, compared = every_combination(), 12, 0
    for seed in range(6):
        logits = 3 * torch.randn(V, generator=seeded(seed), dtype=torch.float64)
        found = choices.probs(logits.expand(len(choices), V), torch.arange(len(choices)), NOW)
        for option, probs in zip(TABLE, found.tolist(), strict=True):
            if is_clear(logits.tolist(), *option):
                assert probs == pytest.approx(plain_probs(logits.tolist(), *option)), option
                compared += 1
    assert compared > 0.99 * 6 * len(TABLE)


def test_rows_of_other_options_and_of_other_logits_never_meddle_with_each_other():
    choices = every_combination()
    logits = 3 * torch.randn(400, 9, generator=seeded(0), dtype=torch.float64)
    ids = torch.randint(0, len(choices), (400,), generator=seeded(1))
    together = choices.probs(logits, ids, NOW)
    for row in range(400):
        alone = choices.probs(logits[row : row + 1], ids[row : row + 1], NOW)[0]
        torch.testing.assert_close(together[row], alone)


def test_an_option_without_a_rule_keeps_every_token_also_beside_options_that_have_one():
    """In single precision too, where the probabilities of the likelier tokens may add up to 1."""
    logits, first = 3 * torch.randn(200, 500, generator=seeded(0)), torch.zeros(200).long()
    alone = Temperatures([1.0]).probs(logits, first, NOW)
    for rule in ({"top_k": [0, 5]}, {"top_p": [1.0, 0.9]}, {"min_p": [0.0, 0.1]}):
        beside = Temperatures([1.0, 1.0], **rule).probs(logits, first, NOW)
        assert torch.equal(beside > 0, alone > 0), rule
        torch.testing.assert_close(beside, alone)


def test_of_equal_tokens_the_first_are_kept():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0]])
    for rule in ({"top_k": [2]}, {"top_p": [0.5]}):
        probs = Temperatures([1.0], **rule).probs(logits, torch.tensor([0]), NOW)[0]
        assert probs.tolist() == pytest.approx([0, 0.5, 0.5, 0])
    assert Temperatures([0.0]).probs(logits, torch.tensor([0]), NOW).tolist() == [[0, 1, 0, 0]]


def test_the_temperature_is_applied_first_and_then_one_rule_after_the_other():
    """Each rule is asked of what the one before has left: another order would keep other tokens."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()

    def kept(temperature=1.0, **rules):
        choices = Temperatures([temperature], **{name: [value] for name, value in rules.items()})
        return [round(p, 4) for p in choices.probs(logits, torch.tensor([0]), NOW)[0].tolist()]

    assert kept(top_p=0.65) == [0.5714, 0.4286, 0, 0]
    hot = kept(2.0, top_p=0.65)  # the hotter, the more tokens it takes to reach the same share
    assert [p > 0 for p in hot] == [True, True, True, False]
    # Of the two likeliest alone, the first has 0.57: it reaches 0.55 on its own.
    assert kept(top_k=2, top_p=0.55) == [1, 0, 0, 0]
    assert kept(top_p=0.55) == [0.5714, 0.4286, 0, 0]
    assert kept(min_p=0.45) == [0.4444, 0.3333, 0.2222, 0]


def test_drawn_tokens_are_as_frequent_as_they_are_probable():
    """Pearson's statistic, with a bound that chance exceeds in one of ten thousand tests."""
    choices, n = every_combination(), 20_000
    logits = 2 * torch.randn(6, generator=seeded(0))
    uniforms = torch.rand(n, generator=seeded(1))
    for k in range(0, len(choices), 7):
        ids = torch.full((n,), k)
        drawn = choices.draw(logits.expand(n, -1), ids, NOW, uniforms)
        expected = n * choices.probs(logits[None], ids[:1], NOW)[0]
        counts = torch.bincount(drawn, minlength=6)
        possible = expected > 0
        assert not counts[~possible].any()
        statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
        assert statistic < 28.0  # with 5 degrees of freedom 25.7, fewer need less


def test_the_short_way_to_draw_at_a_temperature_draws_the_same_tokens():
    choices = Temperatures([0.0, 0.2, 0.7, 1.0, 3.0])
    for seed in range(5):
        logits = 2 * torch.randn(2000, 40, generator=seeded(seed))
        logits[::7, 20] = logits[::7, 3] = 9.0  # equals: greedy takes the first
        ids = torch.randint(0, 5, (2000,), generator=seeded(10 + seed))
        uniforms = torch.rand(2000, generator=seeded(20 + seed))
        general = Choices.draw(choices, logits, ids, NOW, uniforms)
        assert torch.equal(choices.draw(logits, ids, NOW, uniforms), general)
        with_rules = Temperatures([0.0, 0.2, 0.7, 1.0, 3.0, 1.0], top_k=[0, 0, 0, 0, 0, 1])
        assert torch.equal(with_rules.draw(logits, ids, NOW, uniforms), general)


def test_drawing_the_option_then_the_token_has_the_frequencies_of_the_mixture():
    """Eq. 5 and Eq. 6 draw from the same distribution."""
    logits, n = torch.tensor([1.0, 0.5, -1.0, 0.0]), 200_000
    choices = Temperatures([0.0, 0.4, 2.0], top_k=[0, 0, 3])
    weights = torch.tensor([0.2, 0.5, 0.3])
    ids = torch.multinomial(weights, n, replacement=True, generator=seeded(0))
    uniforms = torch.rand(n, generator=seeded(1))
    token_ids = choices.draw(logits.expand(n, 4), ids, NOW, uniforms)
    [expected] = choices.mixture(logits[None], weights[None], NOW)
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    frequencies = torch.bincount(token_ids, minlength=4) / n
    torch.testing.assert_close(frequencies, expected, atol=0.004, rtol=0)


def test_the_mixture_is_the_weighted_sum_of_the_probabilities_of_all_options():
    choices = every_combination()
    logits = 2 * torch.randn(3, 7, generator=seeded(0), dtype=torch.float64)
    weights = torch.rand(3, len(choices), generator=seeded(1), dtype=torch.float64)
    weights /= weights.sum(1, keepdim=True)
    mixed = choices.mixture(logits, weights, NOW)
    for row in range(3):
        expected = [0.0] * 7
        for k, weight in enumerate(weights[row].tolist()):
            probs = choices.probs(logits[row : row + 1], torch.tensor([k]), NOW)[0].tolist()
            expected = [sum_ + weight * p for sum_, p in zip(expected, probs, strict=True)]
        assert mixed[row].tolist() == pytest.approx(expected)


def test_logprobs_are_the_logs_of_the_probabilities_down_to_the_floor():
    logits = torch.randn(30, 6, generator=seeded(0))
    token_ids = torch.randint(0, 6, (30,), generator=seeded(1))
    choices = Temperatures([0.0, 0.1, 1.0, 1.0], top_k=[0, 0, 0, 3])
    for floor, options in ((-20.0, {}), (-3.0, {"floor": -3.0})):
        logprobs = choices.logprobs(logits, token_ids, NOW, **options)
        assert logprobs.shape == (30, 4)
        for row, token_id in enumerate(token_ids.tolist()):
            for k in range(4):
                probs = choices.probs(logits[row : row + 1], torch.tensor([k]), NOW)[0]
                p = probs[token_id].item()
                expected = max(math.log(p), floor) if p else floor
                assert logprobs[row, k].item() == pytest.approx(expected, abs=1e-4)
        assert set(logprobs[:, 0].tolist()) == {0.0, floor}
        assert (logprobs[:, 3] == floor).any()


def test_options_are_named_by_their_temperature_and_by_the_rules_that_they_have():
    choices = Temperatures(
        [0.0, 0.75, 1.0, 1.5], top_k=[0, 0, 40, 5], top_p=[1, 0.9, 1, 0.5], min_p=[0, 0, 0, 0.05]
    )
    assert choices.names == (
        "0",
        "0.75, top-p 0.9",
        "1, top-k 40",
        "1.5, top-k 5, top-p 0.5, min-p 0.05",
    )
    assert len(choices) == 4 and choices.temperatures == (0.0, 0.75, 1.0, 1.5)


@pytest.mark.parametrize(
    "table, said",
    [
        (dict(temperatures=[]), "temperatures must .*at least one, got 0"),
        (
            dict(temperatures=[0.5, -1.0]),
            "temperature must be 0 .greedy. or from 1e-06 to 100, got -1",
        ),
        (dict(temperatures=[1000.0]), "to 100, got 1000"),
        (dict(temperatures=[math.nan]), "temperature must be 0 .*, got nan"),
        (dict(temperatures=[0.5, 1e-38]), "from 1e-06 to 100, got 1e-38"),
        (dict(temperatures=[0.5, 1.0], top_k=[3]), "top_k must have one .*, 2 in all.*, got 1"),
        (dict(temperatures=[0.5], top_p=[0.5, 0.9]), "top_p must have one .*, 1 in all.*, got 2"),
        (dict(temperatures=[0.5], min_p=[]), "min_p must have one .*, 1 in all.*, got 0"),
        (dict(temperatures=[0.5], top_k=[-1]), "top_k must be a whole number from 0 .*, got -1"),
        (dict(temperatures=[0.5], top_k=[5.0]), "top_k must be a whole number .*, got 5.0"),
        (dict(temperatures=[0.5], top_p=[0.0]), "top_p must be above 0 and at most 1, got 0"),
        (dict(temperatures=[0.5], top_p=[1.1]), "top_p must be above 0 and at most 1, got 1.1"),
        (dict(temperatures=[0.5], top_p=[math.nan]), "top_p must be above 0.*, got nan"),
        (dict(temperatures=[0.5], min_p=[-0.1]), "min_p must be from 0 to 1, got -0.1"),
        (dict(temperatures=[0.5], min_p=[1.5]), "min_p must be from 0 to 1, got 1.5"),
    ],
)
def test_a_bad_table_is_refused_with_column_requirement_and_value(table, said):
    with pytest.raises(ValueError, match=said):
        Temperatures(table.pop("temperatures"), **table)


def test_only_the_first_token_is_forced():
    choices = FirstTokens([2, 4], ["think", "answer"], temperature=0.8)
    logits = torch.randn(2, 6, generator=seeded(0))
    ids = torch.tensor([0, 1])
    assert choices.probs(logits, ids, NOW).tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    plain = Temperatures([0.8])
    for position in (1, 2, 30):
        found = choices.probs(logits, ids, torch.tensor(position))
        torch.testing.assert_close(found, plain.probs(logits, torch.tensor([0, 0]), NOW))
    # Rows at different places, as where responses are read again.
    mixed = choices.probs(logits, ids, torch.tensor([3, 0]))
    torch.testing.assert_close(mixed[0], plain.probs(logits[:1], torch.tensor([0]), NOW)[0])
    assert mixed[1].tolist() == [0, 0, 0, 0, 1, 0]
    with pytest.raises(
        ValueError, match="names must have one value per option, 2 in all and at least one, got 1"
    ):
        FirstTokens([2, 4], ["think"])


def test_a_rollout_with_forced_first_tokens_begins_as_its_choice_says(lm):
    words = lm.tokenizer.ids_of([" The", " Then"])
    choices = FirstTokens(words, ["the", "then"], temperature=1.0)
    prompts = ["Tell me a story of three sentences about a fox in the forest.", "Mia has 7 apples."]
    rollout = generate(lm, prompts, Fixed(choices), seeded(0), n_samples=6, max_new_tokens=5)
    chosen = rollout.decisions.choice_ids[:, 0]
    assert chosen.tolist() == [0, 1] * 6
    assert torch.equal(rollout.token_ids[:, 0].long(), torch.tensor(words)[chosen])
    for row, response in enumerate(rollout.responses):
        assert response.startswith(("The", "Then")[row % 2])
    # The rest is drawn, not forced.
    assert len({tuple(ids) for ids in rollout.token_ids[:, 1:].tolist()}) > 6
