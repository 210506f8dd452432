"""Rules without a head: their formulas by plain loops over tokens, their limits, and their rows."""

import math

import pytest
import torch

from minilpo.adaptive_decoder import unpack
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, Step
from minilpo.decoding.sampling import entropy
from minilpo.rivals.rules import EDT, Dynatemp, Mirostat, TopNSigma
from tests.conftest import seeded
from tests.decoding.test_policies import PROMPTS, ending_early

NOW = torch.tensor(0)
TEMPERATURES = (0.0, 0.4, 1.0, 2.5)
ALL = {  # by name: the options, and the same by a plain loop over tokens
    "top-n-sigma": [(n, t) for n in (0.0, 0.5, 1.0, 3.0) for t in TEMPERATURES],
    "EDT": [(t, theta) for t in TEMPERATURES for theta in (0.0, 0.1, 1.0, 20.0)],
    "dynatemp": [
        (*low_high, exponent)
        for low_high in ((0.0, 0.0), (0.0, 2.5), (0.3, 1.0), (0.7, 0.7))
        for exponent in (0.5, 1.0, 3.0)
    ],
}
CHOICES = {"top-n-sigma": TopNSigma, "EDT": EDT, "dynatemp": Dynatemp}


def choices_of(name):
    """Every setting of a rule in the table."""
    return CHOICES[name](*zip(*ALL[name], strict=True))


def plain_softmax(logits, temperature):
    """From a list of logits to a list of probabilities; at temperature 0 the first largest."""
    top = max(logits)
    if temperature == 0:
        return [float(v == logits.index(top)) for v in range(len(logits))]
    weights = [math.exp((logit - top) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def plain_entropy(logits):
    return -sum(p * math.log(p) for p in plain_softmax(logits, 1.0) if p > 0)


def plain_top_n_sigma(logits, n, temperature):
    mean = sum(logits) / len(logits)
    sigma = math.sqrt(sum((logit - mean) ** 2 for logit in logits) / len(logits))
    kept = [v for v in range(len(logits)) if logits[v] >= max(logits) - n * sigma]
    probs = plain_softmax([logits[v] for v in kept], temperature)
    return [probs[kept.index(v)] if v in kept else 0.0 for v in range(len(logits))]


def plain_edt(logits, highest, theta):
    return plain_softmax(logits, highest * math.pow(0.8, theta / plain_entropy(logits)))


def plain_dynatemp(logits, low, high, exponent):
    share = plain_entropy(logits) / math.log(len(logits))
    return plain_softmax(logits, low + (high - low) * math.pow(share, exponent))


PLAIN = {"top-n-sigma": plain_top_n_sigma, "EDT": plain_edt, "dynatemp": plain_dynatemp}


@pytest.mark.parametrize("name", ALL)
def test_every_setting_has_the_probabilities_of_a_plain_loop_over_tokens(name):
    choices = choices_of(name)
    for seed in range(8):
        spread = (0.3, 1.0, 3.0, 6.0)[seed % 4]
        logits = spread * torch.randn(11, generator=seeded(seed), dtype=torch.float64)
        found = choices.probs(logits.expand(len(choices), 11), torch.arange(len(choices)), NOW)
        for setting, probs in zip(ALL[name], found.tolist(), strict=True):
            expected = PLAIN[name](logits.tolist(), *setting)
            assert probs == pytest.approx(expected, abs=1e-6), setting  # settings are float32


@pytest.mark.parametrize("name", ALL)
def test_a_row_is_the_same_whatever_the_other_rows_and_sums_to_one(name):
    choices = choices_of(name)
    logits = 3 * torch.randn(100, 9, generator=seeded(0))
    logits[::7, 4:] = -math.inf  # tokens that never come
    ids = torch.randint(0, len(choices), (100,), generator=seeded(1))
    together = choices.probs(logits, ids, NOW)
    torch.testing.assert_close(together.sum(-1), torch.ones(100))
    for row in range(100):
        alone = choices.probs(logits[row : row + 1], ids[row : row + 1], NOW)[0]
        torch.testing.assert_close(together[row], alone)
    assert (together[::7, 4:] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_draws_are_as_frequent_as_the_probabilities(name):
    choices, n, logits = choices_of(name), 10_000, 2 * torch.randn(7, generator=seeded(2))
    for k in (1, len(choices) // 2 + 1, len(choices) - 1):
        ids, uniforms = torch.full((n,), k), torch.rand(n, generator=seeded(k))
        drawn = choices.draw(logits.expand(n, 7), ids, NOW, uniforms)
        probs = choices.probs(logits[None], ids[:1], NOW)[0]
        shares = torch.bincount(drawn, minlength=7) / n
        assert ((shares - probs).abs() <= 5 * (probs * (1 - probs) / n).sqrt()).all()


def test_temperature_0_is_greedy_and_a_rule_that_adds_nothing_leaves_the_plain_temperature():
    logits, ids = 3 * torch.randn(50, 9, generator=seeded(0)), torch.zeros(50, dtype=torch.long)
    for temperature, rules in (
        (0.0, (TopNSigma([2.0], [0.0]), EDT([0.0], [0.5]), Dynatemp([0.0], [0.0], [1.0]))),
        (0.7, (TopNSigma([100.0], [0.7]), EDT([0.7], [0.0]), Dynatemp([0.7], [0.7], [2.0]))),
    ):
        expected = Temperatures([temperature]).probs(logits, ids, NOW)
        for rule in rules:
            torch.testing.assert_close(rule.probs(logits, ids, NOW), expected)


def test_top_n_sigma_keeps_the_same_tokens_at_every_temperature_and_at_0_the_largest_alone():
    logits = 2 * torch.randn(50, 30, generator=seeded(0))
    cold, hot, none = (torch.full((50,), k) for k in range(3))
    choices = TopNSigma([1.0, 1.0, 0.0], [0.5, 3.0, 3.0])
    assert torch.equal(choices.probs(logits, cold, NOW) > 0, choices.probs(logits, hot, NOW) > 0)
    assert ((choices.probs(logits, hot, NOW) > 0).sum(-1) > 1).any()
    assert ((choices.probs(logits, none, NOW) > 0).sum(-1) == 1).all()


def test_top_n_sigma_measures_the_noise_among_tokens_that_can_come():
    logits, first = torch.tensor([[3.0, 2.0, 0.0, 0.0]]), torch.tensor([0])
    never = torch.cat([logits, torch.full((1, 50), -math.inf)], 1)
    found = TopNSigma([0.9], [1.0]).probs(never, first, NOW)
    assert torch.equal(found[:, :4], TopNSigma([0.9], [1.0]).probs(logits, first, NOW))
    assert (found[:, 4:] == 0).all()


def test_temperatures_by_entropy_run_from_cold_where_it_is_sure_to_hot_where_it_is_not():
    # From all on one token to all alike, 9 tokens.
    logits = torch.linspace(200, 0, 60)[:, None] * torch.eye(9)[:1]
    ids = torch.zeros(60, dtype=torch.long)
    for rule, low, high in (
        (EDT([1.2], [0.4]), 0.0, 1.2 * 0.8 ** (0.4 / math.log(9))),
        (Dynatemp([0.3], [2.5], [2.0]), 0.3, 2.5),
    ):
        temperatures = rule.temperatures(logits, ids)
        assert (temperatures.diff() >= 0).all()
        assert temperatures[0] == pytest.approx(low) and temperatures[-1] == pytest.approx(high)


@pytest.mark.parametrize("name", ["EDT", "dynatemp"])
def test_however_sure_the_model_is_no_probability_is_nan(name):
    """A temperature of 1e-40 divides 0 and -1 to 0 and -infinity, and no NaN."""
    choices, ids = choices_of(name), torch.arange(len(ALL[name]))
    for gap in (0.0, 1e-3, 1.0, 20.0, 60.0, 88.0, 95.0, 1e4, 1e30):
        logits = torch.tensor([[gap, *[0.0] * 8]]).expand(len(choices), 9)
        probs = choices.probs(logits, ids, NOW)
        assert probs.isfinite().all()
        torch.testing.assert_close(probs.sum(-1), torch.ones(len(choices)))
        assert (probs[:, 0] >= 1 / 9 - 1e-6).all()


def test_names_say_the_setting():
    assert TopNSigma([1.5], [0.8]).names == ("0.8, top-n-sigma 1.5",)
    assert EDT([0.8], [0.3]).names == ("0.8, EDT 0.3",)
    assert Dynatemp([0.0], [2.5], [1.0]).names == ("0 to 2.5, exponent 1",)
    assert Mirostat([2.0], [0.1]).names == ("mirostat 2, rate 0.1",)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: TopNSigma([-1.0], [1.0]), "n_sigmas must be 0 or above, got -1"),
        (lambda: TopNSigma([1.0], [math.nan]), "temperatures must be 0 or above, got nan"),
        (lambda: TopNSigma([1.0], [1e-38]), "from 1e-06 to 100, got 1e-38"),
        (lambda: TopNSigma([1.0, 2.0], [1.0]), "temperatures must have one value per option, 2 in"),
        (lambda: EDT([-0.1], [1.0]), "temperatures must be 0 or above, got -0.1"),
        (lambda: EDT([0.1], [-1.0]), "thetas must be 0 or above, got -1"),
        (lambda: EDT([], []), "temperatures must have one value per option, 0 in all and at least"),
        (lambda: Dynatemp([0.0], [math.inf], [1.0]), "highs must be 0 or above, got inf"),
        (lambda: Dynatemp([0.0], [1.0], [0.0]), "exponents must be above 0, got 0"),
        (lambda: Dynatemp([-1.0], [1.0], [1.0]), "lows must be 0 or above, got -1"),
        (lambda: Mirostat([0.0], [0.1]), "targets must be above 0, got 0"),
        (lambda: Mirostat([1.0], [-0.1]), "rates must be 0 or above, got -0.1"),
        (lambda: Mirostat([1.0], [0.1, 0.2]), "rates must have one value per option, 1 in all"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_in_words(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# Mirostat


def plain_mirostat(probs, limit):
    """The probabilities within a limit in bits, from a list of probabilities."""
    kept = [p if -math.log2(p) <= limit else 0.0 for p in probs]
    likeliest = probs.index(max(probs))
    kept[likeliest] = probs[likeliest]
    return [p / sum(kept) for p in kept]


def step_of(rows, logits):
    B = len(rows)
    last = torch.zeros(B, dtype=torch.long)
    return Step(torch.tensor(rows), torch.zeros(B, 4), logits, last, NOW, torch.zeros(B))


def test_mirostat_follows_its_algorithm_token_by_token_though_rows_leave():
    targets, rates = [1.0, 2.5], [0.3, 0.1]
    policy = Mirostat(targets, rates)
    policy.start(5)
    limits = {row: 2 * targets[row % 2] for row in range(5)}
    going = [[0, 1, 2, 3, 4], [0, 1, 3, 4], [1, 3, 4], [3], [3], [3]]
    for t, rows in enumerate(going):
        logits = 2 * torch.randn(len(rows), 8, generator=seeded(t), dtype=torch.float64)
        step = step_of(rows, logits)
        choice = policy.choose(step)
        assert choice.tolist() == pytest.approx([limits[row] for row in rows], abs=1e-5)
        found = policy.probs(step, choice)
        token_ids = policy.draw(step, choice, torch.rand(len(rows), generator=seeded(t + 100)))
        policy.observe(step, token_ids)
        for i, row in enumerate(rows):
            probs = plain_softmax(logits[i].tolist(), 1.0)
            assert found[i].tolist() == pytest.approx(plain_mirostat(probs, limits[row]), abs=1e-6)
            assert found[i, token_ids[i]] > 0
            surprise = -math.log2(probs[int(token_ids[i])])
            limits[row] -= rates[row % 2] * (surprise - targets[row % 2])
    policy.start(5)  # the next batch begins anew
    again = policy.choose(step_of([0, 1, 2, 3, 4], torch.zeros(5, 8)))
    assert again.tolist() == [2.0, 5.0, 2.0, 5.0, 2.0]


def test_mirostat_without_room_is_greedy_and_with_all_room_the_model_itself():
    logits = torch.randn(50, 9, generator=seeded(0))
    step = step_of(range(50), logits)
    for target, expected in ((1e-6, Temperatures([0.0])), (1000.0, Temperatures([1.0]))):
        policy = Mirostat([target], [0.1])
        policy.start(50)
        probs = expected.probs(logits, torch.zeros(50, dtype=torch.long), NOW)
        torch.testing.assert_close(policy.probs(step, policy.choose(step)), probs)
    policy.limits -= 1e9  # after many surprises the limit may even be negative
    probs = Temperatures([0.0]).probs(logits, torch.zeros(50, dtype=torch.long), NOW)
    torch.testing.assert_close(policy.probs(step, policy.choose(step)), probs)


def test_mirostat_brings_the_mean_surprise_near_its_target():
    """On long texts; without the feedback, this model's texts surprise by 4.3 bits."""
    n, logits = 400, torch.zeros(64)
    logits[:8] = 2.0
    for target in (3.5, 5.0):
        policy = Mirostat([target], [0.2])
        policy.start(n)
        total, generator = 0.0, seeded(0)
        for _ in range(60):
            step = step_of(range(n), logits.expand(n, 64))
            token_ids = policy.draw(step, policy.choose(step), torch.rand(n, generator=generator))
            policy.observe(step, token_ids)
            total += -logits.softmax(-1)[token_ids].log2().mean().item() / 60
        natural = entropy(logits).item() / math.log(2)
        assert abs(total - target) < abs(natural - target)


@pytest.mark.parametrize("rows_per_batch", [6, 100])
def test_in_a_generation_mirostats_limits_stay_with_their_rows(lm, rows_per_batch):
    """Every token has a probability above 0 by the algorithm, run again row by row."""
    lm = ending_early(lm)
    policy = Mirostat([2.0, 2.5, 3.0], [0.4, 0.2, 1.0])
    options = {"n_samples": 6, "max_new_tokens": 14, "rows_per_batch": rows_per_batch}
    rollout = generate(lm, PROMPTS, policy, seeded(3), **options)
    lengths = rollout.response_mask.sum(1).tolist()
    assert len(set(lengths)) > 3 and rollout.decisions.choice_ids.shape == (12, 0)
    prompts = [prompt for prompt in lm.encode(PROMPTS) for _ in range(6)]
    _, packed = lm.forward_responses(prompts, rollout.token_ids, rollout.response_mask)
    logits = unpack(packed, rollout.response_mask)  # (R, T, V)
    limited = 0
    for row, length in enumerate(lengths):
        target, rate = [(2.0, 0.4), (2.5, 0.2), (3.0, 1.0)][row % 3]
        limit = 2 * target
        for t in range(length):
            probs = plain_softmax(logits[row, t].tolist(), 1.0)
            token = int(rollout.token_ids[row, t])
            allowed = plain_mirostat(probs, limit)
            assert allowed[token] > 0
            limited += min(allowed) == 0
            limit -= rate * (-math.log2(probs[token]) - target)
    assert limited > 10


def test_rules_in_a_generation_are_tried_side_by_side_as_one_by_one(lm):
    """With `Fixed`, sample k of each prompt is by setting k, from its own uniform numbers."""
    lm.model.double()
    together = Fixed(Dynatemp([0.0, 0.0], [1.0, 3.0], [1.0, 0.5]))
    rollout = generate(lm, PROMPTS, together, seeded(3), n_samples=2, max_new_tokens=9)
    for k, (high, exponent) in enumerate(((1.0, 1.0), (3.0, 0.5))):
        alone = Fixed(Dynatemp([0.0], [high], [exponent]))
        single = generate(lm, PROMPTS, alone, seeded(3), n_samples=2, max_new_tokens=9)
        assert rollout.responses[k::2] == single.responses[k::2]
