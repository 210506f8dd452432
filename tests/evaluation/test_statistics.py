"""Means, win-rates and intervals: against counts by hand and against what is known in closed form."""

import random

import numpy as np
import pytest

from minilpo.evaluation.statistics import (
    bootstrap_interval,
    mean_over_tasks,
    ratio_interval,
    seed_interval,
    wilson_interval,
    win_points,
    win_shares,
)


def test_every_task_counts_the_same_column_by_column():
    names = np.array(["b", "a", "b", "c", "b", "b"])
    assert mean_over_tasks(np.array([1.0, 0.5, 0.0, 0.2, 0.0, 1.0]), names) == pytest.approx(
        (0.5 + 0.5 + 0.2) / 3
    )
    columns = np.array([[1.0, 3], [0, 5], [0, 3], [0, 1], [0, 3], [0, 3]])
    np.testing.assert_allclose(mean_over_tasks(columns, names), [1 / 12, 3])


def test_the_better_gets_the_point_and_a_tie_is_shared():
    assert win_points(np.array([0.9, 0.2, 0.3, 0.0]), np.array([0.1, 0.2, 0.4, 0.0])).tolist() == [
        1,
        0.5,
        0,
        0.5,
    ]


@pytest.mark.parametrize("n", [50, 100])
def test_the_bootstrap_has_the_width_that_is_known_for_many_values(n):
    """1.96 standard errors to either side, of the mean over two tasks of which one has four times
    as many prompts.
    """
    rng = np.random.default_rng(0)
    values, names = rng.normal(3, 1, 5 * n), np.array(["a"] * n + ["b"] * 4 * n)
    low, high = bootstrap_interval(values, names, 5000, rng)
    error = np.hypot(values[:n].std() / n**0.5, values[n:].std() / (4 * n) ** 0.5) / 2
    mean = mean_over_tasks(values, names)
    assert type(low) is type(high) is float
    assert [low, high] == pytest.approx([mean - 1.96 * error, mean + 1.96 * error], abs=0.1 * error)


def test_the_bootstrap_draws_from_the_given_generator_and_each_value_as_often_as_the_others():
    values, names = np.array([0.0, 0, 0, 1]), np.array(["a"] * 4)
    first, again, other = (
        bootstrap_interval(values, names, 50, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert bootstrap_interval(values, names, 1000, np.random.default_rng(0)) == [
        0,
        0.75,
    ]  # 0.1% of means are 1


def students_quantile(degrees):
    """Its expansion in 1 / degrees of freedom (Abramowitz and Stegun, 26.7.5), right to 0.0015 of
    it from 10 degrees on.
    """
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


@pytest.mark.parametrize("n", [11, 20, 30, 31, 32, 33, 40, 100, 1000])
def test_an_interval_over_seeds_is_students_in_the_table_and_beyond_it(n):
    values = np.random.default_rng(n).normal(5, 2, n)
    half = students_quantile(n - 1) * values.std(ddof=1) / n**0.5
    low, high = seed_interval(values.tolist())
    assert (low + high) / 2 == pytest.approx(values.mean()) and (high - low) / 2 == pytest.approx(
        half, rel=0.0015
    )


def test_an_interval_over_a_few_seeds_is_the_one_in_the_books():
    assert seed_interval([1.0, 2.0]) == pytest.approx([1.5 - 12.706 / 2, 1.5 + 12.706 / 2])
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx([2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5])
    assert seed_interval([0.7, 0.7]) == pytest.approx([0.7, 0.7])
    assert seed_interval([0.7]) is seed_interval([]) is None


# Several responses per prompt, ratios, small groups


def test_several_responses_win_by_all_pairs_of_them():
    first = np.array([[1.0, 0.5], [0.0, 0.0]])
    other = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    # Against 1, .5 and 0: the first wins with 1 against two and ties once, with .5 it wins once.
    by_hand = [(0.5 + 1 + 1 + 0 + 0.5 + 1) / 6, (0.5 + 0.5 + 0 + 0.5 + 0.5 + 0) / 6]
    assert win_shares(first, other) == pytest.approx(by_hand)
    np.testing.assert_allclose(win_shares(first, other) + win_shares(other, first), 1)
    assert win_shares(first, first).tolist() == [0.5, 0.5]  # the same responses: neither wins
    single, one = first[:, :1], other[:, :1]
    assert win_shares(single, one).tolist() == win_points(single[:, 0], one[:, 0]).tolist()


def slow_ratio_interval(part, whole, names, resamples=3000):
    """Resamples as `ratio_interval` does, one prompt at a time."""
    rng = random.Random(0)
    groups = [[row for row, own in enumerate(names) if own == name] for name in set(names)]
    ratios = []
    for _ in range(resamples):
        picks = [rng.choices(group, k=len(group)) for group in groups]
        sums = [
            sum(sum(values[row] for row in rows) / len(rows) for rows in picks)
            for values in (part, whole)
        ]
        ratios.append(sums[0] / sums[1])
    ratios.sort()
    return [ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]]


def test_the_interval_of_a_ratio_resamples_both_means_together():
    rng = np.random.default_rng(1)
    names = np.array(["a"] * 60 + ["b"] * 20)
    whole = rng.normal(1, 0.8, 80)
    part = 0.7 * whole + rng.normal(0, 0.3, 80)
    found = ratio_interval(part, whole, names, 4000, 0)
    assert found == pytest.approx(slow_ratio_interval(part, whole, names.tolist()), abs=0.03)
    # Were they resampled apart, it would be several times as wide.
    assert ratio_interval(2 * whole, whole, names, 400, 0) == pytest.approx([2, 2])
    assert ratio_interval(-part, whole, names, 4000, 0) == pytest.approx([-found[1], -found[0]])


@pytest.mark.parametrize("mean, has_one", [(3.0, True), (1.0, False), (0.0, False), (-3.0, False)])
def test_a_ratio_to_what_may_be_0_or_less_has_no_interval(mean, has_one):
    """In standard errors: 3 above 0 is enough, 1 isn't, and nothing below."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 400)
    whole = (noise - noise.mean()) / noise.std() + mean / 20
    found = ratio_interval(np.ones(400), whole, np.array(["a"] * 400), 1000, 0)
    assert (found is not None) == has_one
    if found:
        assert found[0] < 20 / mean < found[1] < np.inf


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        (0, 10, 0.0, 0.2775),  # known values, as in Newcombe, Statistics in Medicine 17 (1998)
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_values_in_the_books(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx([low, high], abs=0.00006)
    mirrored = wilson_interval(n - successes, n)
    assert mirrored == pytest.approx([1 - high, 1 - low], abs=0.00006)


@pytest.mark.parametrize("successes, n", [(0.0, 1), (3.0, 7), (5.25, 9), (40.0, 41), (6.0, 6)])
def test_wilsons_bounds_are_1_96_of_their_own_standard_errors_away_from_what_was_seen(successes, n):
    """Wilson defined them so."""
    p = successes / n
    for bound in wilson_interval(successes, n):
        if 0 < bound < 1:
            assert abs(p - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / n) ** 0.5)
        else:
            assert bound == p
