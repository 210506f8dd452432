"""Rules without a head: their formulas by plain loops over tokens, their limits, and their rows."""

import math

import pytest
import torch

from minilpo.decoding.policies import Step
from minilpo.decoding.sampling import entropy
from minilpo.rivals.rules import EDT, Dynatemp, Mirostat, TopNSigma
from tests.conftest import seeded

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


def test_top_n_sigma_measures_the_noise_among_tokens_that_can_come():
    logits, rule = torch.tensor([[3.0, 2.0, 0.0, 0.0]] * 2), TopNSigma([0.7, 0.9], [1.0, 1.0])
    never = torch.nn.functional.pad(logits, (0, 50), value=-math.inf)
    found, alone = (rule.probs(x, torch.arange(2), NOW) for x in (never, logits))
    assert torch.equal(found[:, :4], alone) and (found[:, 4:] == 0).all()


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
    assert EDT([0.8], [0.3]).names == ("0.8, EDT 0.3",)
    assert Dynatemp([0.0], [2.5], [1.0]).names == ("0 to 2.5, exponent 1",)
    assert Mirostat([2.0], [0.1]).names == ("mirostat 2, rate 0.1",)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: TopNSigma([-1.0], [1.0]), "n_sigmas must be 0 or above, got -1"),
        (lambda: TopNSigma([1.0], [math.nan]), "temperatures must be 0 or above, got nan"),
        (lambda: TopNSigma([1.0], [1e-38]), "from 1e-06 to 100, got 1e-38"),
        (lambda: EDT([0.1], [-1.0]), "thetas must be 0 or above, got -1"),
        (lambda: EDT([], []), "temperatures must have one value per option, 0 in all and at least"),
        (lambda: Dynatemp([0.0], [math.inf], [1.0]), "highs must be 0 or above, got inf"),
        (lambda: Dynatemp([0.0], [1.0], [0.0]), "exponents must be above 0, got 0"),
        (lambda: Mirostat([0.0], [0.1]), "targets must be above 0, got 0"),
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
    step = step_of([0, 1, 2, 3, 4], torch.randn(5, 8, generator=seeded(9)))
    assert policy.choose(step).tolist() == [2.0, 5.0, 2.0, 5.0, 2.0]
    # After many surprises the limit may be negative: still the likeliest token is said.
    probs = policy.probs(step, torch.full((5,), -1e9))
    assert torch.equal(probs.argmax(-1), step.logits.argmax(-1)) and (probs > 0).sum() == 5


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
