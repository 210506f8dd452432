"""Means over tasks, win-rates, and 95% intervals, each as [low, high].

Intervals over prompts are by bootstrap or, for shares of few prompts, by Wilson's formula;
intervals over seeds are by Student's t.
"""

from collections.abc import Sequence

import numpy as np


def mean_over_tasks(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Averages over prompts within each task, then over tasks: every task counts the same.

    Args:
        values: (P, ...) one value per prompt, or several.
        names: (P,) the task of each prompt.

    >>> float(mean_over_tasks(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])))
    0.5
    """
    return np.mean([values[names == name].mean(0) for name in np.unique(names)], axis=0)


def win_points(rewards: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compares rewards on the same prompts, (P,): 1 for the better, 0.5 for a tie, as in the paper.

    >>> win_points(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.2])).tolist()
    [1.0, 0.5, 0.0]
    """
    return (rewards > other) + 0.5 * (rewards == other)


def win_shares(rewards: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Averages `win_points` over all N * M pairs of responses to a prompt, (P, N) and (P, M).

    >>> win_shares(np.array([[1.0, 0.5]]), np.array([[0.5, 0.0]])).tolist()
    [0.875]
    """
    return win_points(rewards[:, :, None], other[:, None, :]).mean((1, 2))


def bootstrap_interval(
    values: np.ndarray, names: np.ndarray, resamples: int, rng: np.random.Generator
) -> list[float]:
    """Finds the 95% interval of `mean_over_tasks`, by resampling prompts within each task.

    For a difference, pass the differences prompt by prompt: the interval is then paired, and how
    hard the prompts are doesn't widen it.

    Args:
        values, names: as in `mean_over_tasks`.
        resamples: how many times to resample.
        rng: draws the prompts.

    >>> values, names = np.arange(100.0), np.array(["a"] * 100)
    >>> low, high = bootstrap_interval(values, names, 1000, np.random.default_rng(0))
    >>> low < 49.5 < high, round(high - low)
    (True, 11)
    """
    return np.percentile(resampled_means(values, names, resamples, rng), [2.5, 97.5]).tolist()


def resampled_means(
    values: np.ndarray, names: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Computes `mean_over_tasks(values, names)` of resampled prompts, (resamples,).

    Which prompts are drawn depends on the generator and the names alone, not on the values: two
    calls with generators of one seed draw the same.
    """
    means, tasks = np.zeros(resamples), np.unique(names)
    for name in tasks:
        of_task = values[names == name]
        n = len(of_task)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # how often each is drawn
        means += counts @ of_task / n / len(tasks)
    return means


def ratio_interval(
    part: np.ndarray, whole: np.ndarray, names: np.ndarray, resamples: int, seed: int
) -> list[float] | None:
    """Finds the 95% interval of mean(part) / mean(whole), both by `mean_over_tasks`.

    The prompts are resampled once for both, (P,) each, so the interval is paired. A ratio to a mean
    near 0 may be anything: if that of `whole` is 0 or below in 1% of the resamples or more, there
    is no interval.

    >>> rng = np.random.default_rng(0)
    >>> whole, names = rng.normal(1, 0.1, 99), np.array(["a"] * 99)
    >>> [round(bound, 3) for bound in ratio_interval(whole / 2, whole, names, 200, 0)]
    [0.5, 0.5]
    >>> ratio_interval(whole, whole - 1, names, 200, 0) is None
    True
    """
    parts, wholes = (
        resampled_means(values, names, resamples, np.random.default_rng(seed))
        for values in (part, whole)
    )
    beyond = wholes <= 0
    if beyond.mean() >= 0.01:
        return None
    # The few that are left count as beyond every bound; so few don't move the percentiles.
    ratios = np.where(beyond, np.copysign(np.inf, parts), parts / np.where(beyond, 1, wholes))
    return np.percentile(ratios, [2.5, 97.5]).tolist()


Z_QUANTILE = 1.959964  # the 97.5% quantile of the normal distribution


def wilson_interval(successes: float, n: int) -> list[float]:
    """Finds the 95% interval of a probability from few trials: Wilson's score interval.

        (p + z² / 2n ± z √(p (1 - p) / n + z² / 4n²)) / (1 + z² / n),    p = successes / n

    It holds every probability under which p would be no further than z = 1.96 standard errors
    away. Unlike a bootstrap it has a width when all trials came out alike, and it stays within 0
    and 1. Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927).

    Args:
        successes: how many of the trials succeeded; a fraction where a trial is itself a mean.
        n: how many trials, at least 1.

    >>> [round(bound, 3) for bound in wilson_interval(20, 20)]
    [0.839, 1.0]
    """
    p, z = successes / n, Z_QUANTILE
    middle = p + z**2 / (2 * n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return [max(low, 0.0), min(high, 1.0)]  # rounding must not lead outside


# The 97.5% quantile of Student's t with 1, 2, ... degrees of freedom.
T_QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
T_QUANTILES += [2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086]
T_QUANTILES += [2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


def seed_interval(values: Sequence[float]) -> list[float] | None:
    """Finds the 95% interval of the mean over seeds, by Student's t; None for a single seed.

    It is about the mean: a single further seed may well lie outside.

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
