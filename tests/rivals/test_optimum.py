"""The exact optimum of Eq. 10 against enumeration, another formula, simulation and gradients."""

import itertools
import math
import re
from pathlib import Path

import pytest
import torch

from minilpo.losses import preference_loss
from minilpo.preferences import PAIRS
from minilpo.rivals.optimum import bradley_terry, optimum, simulate, wins
from tests.conftest import seeded

EXAMPLE = [{0.9: 0.9, 0.0: 0.1}, {0.8: 1.0}, {0.95: 0.5, 0.2: 0.5}]
COUNTEREXAMPLE = [{0.6: 1.0}, {1.0: 0.55, 0.0: 0.45}]
RULE_NAMES = ("best_worst", "all", "gap")
every_rule = pytest.mark.parametrize("pairs", RULE_NAMES)


def random_case(seed, n_choices=3, values=(0.0, 0.3, 0.5, 1.0)):
    """Choices that share some rewards, so that there are ties, and how often each is sampled."""
    parts = torch.rand(n_choices, len(values), generator=seeded(seed), dtype=torch.float64)
    parts = parts * (torch.rand(parts.shape, generator=seeded(seed + 1)) < 0.7)
    parts[:, 0] += 0.1
    parts /= parts.sum(1, keepdim=True)
    sampled = 0.2 + torch.rand(n_choices, generator=seeded(seed + 2), dtype=torch.float64)
    rewards = [dict(zip(values, row, strict=True)) for row in parts.tolist()]
    return rewards, (sampled / sampled.sum()).tolist()


def enumerated(rewards, sampled, n, pairs):
    """The win matrix by going through everything that n samples can be."""
    cells = [(i, x, sampled[i] * p) for i, of in enumerate(rewards) for x, p in of.items() if p]
    won = torch.zeros(len(rewards), len(rewards), dtype=torch.float64)
    for drawn in itertools.product(cells, repeat=n):
        p = math.prod(of_cell for _, _, of_cell in drawn)
        best, worst = max(x for _, x, _ in drawn), min(x for _, x, _ in drawn)
        if pairs == "best_worst":
            chosen = [i for i, x, _ in drawn if x == best]
            rejected = [i for i, x, _ in drawn if x == worst]
            for i, j in itertools.product(chosen, rejected) if best > worst else []:
                won[i, j] += p / len(chosen) / len(rejected)
        else:
            for (i, x, _), (j, y, _) in itertools.permutations(drawn, 2):
                won[i, j] += p * (max(x - y, 0) if pairs == "gap" else x > y)
    return won


@every_rule
@pytest.mark.parametrize("n, seed", [(2, 0), (3, 0), (3, 10)])
def test_wins_are_what_going_through_all_that_the_samples_can_be_gives(pairs, n, seed):
    rewards, sampled = random_case(seed)
    expected = enumerated(rewards, sampled, n, pairs)
    torch.testing.assert_close(wins(rewards, n, pairs, sampled), expected)
    assert (expected > 0).sum() >= 7


@every_rule
@pytest.mark.parametrize("n", [2, 6])
def test_wins_are_what_the_real_rules_give_on_simulated_samples(pairs, n):
    """60,000 prompts: within 0.02 of a pair per prompt and 2% of it."""
    rewards, sampled = random_case(20)
    choice_ids, drawn = simulate(rewards, 60_000, n, seeded(0), sampled)
    ids = choice_ids.flatten()
    shares = torch.bincount(ids) / len(ids)
    torch.testing.assert_close(shares, torch.tensor(sampled), atol=0.01, rtol=0, check_dtype=False)
    formed = PAIRS[pairs](drawn, n, seeded(1))
    cells = 3 * ids[formed.chosen] + ids[formed.rejected]
    found = torch.bincount(cells, weights=formed.weights, minlength=9).view(3, 3) / 60_000
    expected = wins(rewards, n, pairs, sampled)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02, check_dtype=False)


@every_rule
def test_at_the_optimum_eq_10_has_no_slope_and_every_step_away_makes_it_worse(pairs):
    rewards, sampled = random_case(30, n_choices=4)
    beta, won = 0.7, wins(rewards, 5, pairs, sampled)
    logits = optimum(rewards, 5, pairs, beta, sampled).log().requires_grad_()

    def loss(logits):
        chosen, rejected = torch.meshgrid(logits, logits, indexing="ij")
        return (won.flatten() * preference_loss(chosen.flatten(), rejected.flatten(), beta)).sum()

    least = loss(logits)
    [slope] = torch.autograd.grad(least, logits)
    assert slope.abs().max() < 1e-9
    for step in 0.1 * torch.randn(50, 4, generator=seeded(0), dtype=torch.float64):
        assert loss(logits + step - step.mean()) > least


def test_the_worked_example_prefers_another_choice_at_every_number_of_samples():
    expected = {2: [0.50, 0.17, 0.33], 4: [0.63, 0.07, 0.30], 16: [0.065, 0.001, 0.934]}
    for n, probs in expected.items():
        assert optimum(EXAMPLE, n).tolist() == pytest.approx(probs, abs=0.005)
    for pairs in ("all", "gap"):
        assert torch.allclose(optimum(EXAMPLE, 2, pairs), optimum(EXAMPLE, 16, pairs))
    assert torch.allclose(optimum(EXAMPLE, 2, "all"), optimum(EXAMPLE, 2, "best_worst"))
    assert optimum(EXAMPLE, 16, "gap").tolist() == pytest.approx([0.458, 0.430, 0.112], abs=0.001)


def test_of_a_safe_choice_and_a_gamble_that_is_worse_on_average_only_the_gap_takes_the_safe_one():
    """Of all pairs the safe one wins .45; by gaps .45 times .6 counts against .55 times .4."""
    for n in (4, 16):
        safe = {pairs: optimum(COUNTEREXAMPLE, n, pairs)[0] for pairs in RULE_NAMES}
        assert safe["all"] == pytest.approx(0.45) and safe["best_worst"] < 0.45
        assert safe["gap"] == pytest.approx(0.27 / 0.49)


def test_the_gap_prefers_the_higher_mean_of_two_choices_but_not_always_of_three():
    for seed in range(6):
        rewards, sampled = random_case(seed, n_choices=2)
        means = [sum(x * p for x, p in of.items()) for of in rewards]
        probs = optimum(rewards, 7, "gap", sampled=sampled)
        assert (probs[0] > probs[1]) == (means[0] > means[1])
    rewards = [{0.8: 0.7, 0.4: 0.3}, {0.9: 0.8, 0.0: 0.2}, {0.4: 1.0}]  # 0.68, 0.72 and 0.40
    assert optimum(rewards, 2, "gap").argmax() == 0


@every_rule
@pytest.mark.parametrize("n, beta", [(2, 1.0), (5, 0.5), (16, 2.0)])
def test_right_or_wrong_gives_the_closed_form_whatever_is_sampled_and_however_often(pairs, n, beta):
    p = torch.tensor([0.9, 0.8, 0.6, 0.3], dtype=torch.float64)
    odds = (p / (1 - p)) ** (1 / beta)
    rewards = [{1.0: right, 0.0: 1 - right} for right in p.tolist()]
    for sampled in (None, [0.4, 0.3, 0.2, 0.1], [0.01, 0.01, 0.9, 0.08]):
        torch.testing.assert_close(optimum(rewards, n, pairs, beta, sampled), odds / odds.sum())


def test_of_many_samples_and_very_rare_wins_the_fit_still_balances_wins_and_losses():
    for n in (64, 256):
        won = wins(EXAMPLE, n)
        strengths = bradley_terry(won)
        won.fill_diagonal_(0)
        expected_wins = (won + won.T) * torch.sigmoid(strengths[:, None] - strengths)
        torch.testing.assert_close(expected_wins.sum(1), won.sum(1), rtol=1e-9, atol=0)
    gambles = [{1.0: 1.0}, {0.3: 1.0}, {0.0: 1e-5, 0.5: 1 - 1e-5}]
    for n in (10, 16, 64, 118):  # rounding leaves no less than nothing
        assert (wins(gambles, n, sampled=[1e-18, 0.2, 0.8]) >= 0).all()
    rare = torch.tensor([[0, 2e-25, 0], [1e-25, 0, 3.0], [0, 1.0, 0]])
    assert bradley_terry(rare).tolist() == pytest.approx([0, -math.log(2), -math.log(6)])


# Where it is at infinity, or nowhere


def test_a_choice_that_never_loses_gets_everything():
    assert optimum([{0.5: 1.0}, {0.9: 0.5, 0.6: 0.5}], 4).tolist() == [0, 1]
    # Those that nobody else beats are fitted among themselves.
    among = [{1.0: 0.75, 0.5: 0.25}, {1.0: 0.5, 0.5: 0.5}]
    probs = optimum([{0.2: 1.0}, *among, {0.1: 0.5, 0.3: 0.5}], 2)
    assert probs.tolist() == pytest.approx([0, 0.75, 0.25, 0])


def test_a_chain_of_wins_counts_as_much_as_a_win():
    circle = torch.tensor([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])
    assert bradley_terry(circle).tolist() == pytest.approx([0, 0, 0])
    assert bradley_terry(circle * torch.tensor([[1.0], [1.0], [0]])).tolist() == [0, -math.inf, -math.inf]  # fmt: skip


@pytest.mark.parametrize(
    "rewards, sampled",
    [
        ([{0.5: 1.0}, {0.5: 1.0}], None),  # always a tie
        ([{0.9: 1.0}, {0.9: 1.0}, {0.1: 1.0}], None),  # both beat the third, neither the other
        ([{1.0: 0.5, 0.0: 0.5}, {1.0: 1.0}], [1.0, 0.0]),  # never sampled
    ],
)
def test_choices_that_no_pair_compares_leave_the_optimum_open_and_that_is_said(rewards, sampled):
    with pytest.raises(ValueError, match="without a comparison"):
        optimum(rewards, 4, sampled=sampled)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_samples": 1}, "n_samples must be at least 2"),
        ({"pairs": "nll"}, "pairs must be best_worst, all or gap, got 'nll'"),
        ({"beta": 0.0}, "beta must be above 0, got 0.0"),
        ({"sampled": [1.0]}, "one probability per choice, 2, got 1"),
        ({"sampled": [0.7, 0.7]}, "sampled must be probabilities that add up to 1"),
        ({"rewards": [{1.0: 1.2, 0.0: -0.2}, {1.0: 1.0}]}, "rewards must be probabilities"),
        ({"rewards": [{}, {1.0: 1.0}]}, "rewards must be probabilities"),
        ({"rewards": []}, "rewards must have at least two choices"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(change, message):
    arguments = {"rewards": COUNTEREXAMPLE, "n_samples": 4, **change}
    with pytest.raises(ValueError, match=message):
        optimum(**arguments)


def test_the_page_on_pairs_shows_what_its_lines_print(capsys):
    page = (Path(__file__).parents[2] / "tutorials" / "pairs.md").read_text(encoding="utf-8")
    code, printed = re.findall(r"```(?:python)?\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == printed
    [line] = re.findall(r"`(optimum\(.*\))`", page)
    assert eval(line, {"optimum": optimum}).argmax() == 0
