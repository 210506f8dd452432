"""Means over tasks, win-rates, intervals: over prompts by bootstrap, over seeds by Student's t."""

from collections.abc import Sequence

import numpy as np


def mean_over_tasks(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The mean over prompts within each task, then over tasks, so that every task counts the same.

    Args:
        values: (P, ...) one value per prompt, or several.
        names: (P,) the task of each prompt.

    Returns:
        (...).

    >>> float(mean_over_tasks(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])))
    0.5
    """
    return np.mean([values[names == name].mean(0) for name in np.unique(names)], axis=0)


def win_points(rewards: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The paper's win-rate, prompt by prompt: 1 for the better, 0.5 each for a tie.

    Args:
        rewards: (P,).
        other: (P,) rewards on the same prompts.

    Returns:
        (P,) points of the first.

    >>> win_points(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.2])).tolist()
    [1.0, 0.5, 0.0]
    """
    return (rewards > other) + 0.5 * (rewards == other)


def bootstrap_interval(
    values: np.ndarray, names: np.ndarray, resamples: int, rng: np.random.Generator
) -> list[float]:
    """95% interval of `mean_over_tasks(values, names)`, by resampling prompts within each task.

    For a difference, pass the differences prompt by prompt: the interval is then paired, and how
    hard the prompts are doesn't widen it.

    Args:
        values: (P,) one value per prompt.
        names: (P,) the task of each prompt.
        resamples: how many times to resample.
        rng: draws the prompts.

    Returns:
        [low, high].

    >>> values, names = np.arange(100.0), np.array(["a"] * 100)
    >>> low, high = bootstrap_interval(values, names, 1000, np.random.default_rng(0))
    >>> low < 49.5 < high, round(high - low)
    (True, 11)
    """
    means, tasks = np.zeros(resamples), np.unique(names)
    for name in tasks:
        of_task = values[names == name]
        n = len(of_task)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # how often each is drawn
        means += counts @ of_task / n / len(tasks)
    return [float(bound) for bound in np.percentile(means, [2.5, 97.5])]


# The 97.5% quantile of Student's t with 1, 2, ... degrees of freedom.
T_QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
T_QUANTILES += [2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086]
T_QUANTILES += [2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


def seed_interval(values: Sequence[float]) -> list[float] | None:
    """95% interval of the mean over seeds, by Student's t: what another seed might have given.

    Args:
        values: one number per seed.

    Returns:
        [low, high]; None for a single seed.

    >>> [round(bound, 3) for bound in seed_interval([0.1, 0.2, 0.3])]
    [-0.048, 0.448]
    >>> seed_interval([0.1]) is None
    True
    """
    n = len(values)
    if n < 2:
        return None
    quantile = T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else 1.96 + 2.5 / (n - 1)
    half = quantile * float(np.std(values, ddof=1)) / n**0.5
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]
