"""Means, win-rates and intervals: against counts by hand and against what is known in closed form."""

import numpy as np
import pytest

from minilpo.evaluation.statistics import (
    bootstrap_interval,
    mean_over_tasks,
    seed_interval,
    win_points,
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
