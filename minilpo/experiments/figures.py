"""Bars and lines over seeds with their 95% intervals, and a figure in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from minilpo.evaluation.statistics import seed_interval


def mean_and_half(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean over S seeds and half its 95% interval, 0 for one seed, of (S, ...).

    >>> mean, half = mean_and_half([[0.1], [0.2], [0.3]])
    >>> mean.round(2).tolist(), half.round(2).tolist()
    ([0.2], [0.25])
    """
    stacked = np.asarray(values, dtype=float)
    columns = stacked.reshape(len(stacked), -1).T.tolist()
    intervals = [seed_interval(column) or (0.0, 0.0) for column in columns]
    half = np.array([(high - low) / 2 for low, high in intervals])
    return stacked.mean(0), half.reshape(stacked.shape[1:])


def draw_bars(
    ax: Axes, places: ArrayLike, values: ArrayLike, scale: float = 100, **options: Any
) -> np.ndarray:
    """Draws a bar with its interval at each of K places, from (S, K). Returns the means, (K,).

    Heights are multiplied by `scale`, by default to percent.
    """
    mean, half = mean_and_half(values)
    ax.bar(places, scale * mean, yerr=scale * half, **{"width": 0.4, "capsize": 3, **options})
    return mean


def draw_side_by_side(
    ax: Axes, values: Mapping[str, ArrayLike], colours: Sequence[str], **options: Any
) -> list[np.ndarray]:
    """Draws two bars at each place 0, 1, ...: `draw_bars` for both labels in `values`."""
    means = []
    for (label, of_label), colour, shift in zip(values.items(), colours, (-0.2, 0.2), strict=True):
        places = np.arange(np.shape(of_label)[1]) + shift
        means.append(draw_bars(ax, places, of_label, color=colour, label=label, **options))
    return means


def draw_line(ax: Axes, places: ArrayLike, values: ArrayLike, **options: Any) -> None:
    """Draws a line through the means over seeds, with their intervals, from (S, K)."""
    mean, half = mean_and_half(values)
    ax.errorbar(places, mean, yerr=half, fmt="o-", capsize=3, markersize=4, **options)


def described(fig: Figure) -> str:
    """Describes a figure by its own headings.

    >>> from minilpo.show import plots
    >>> fig, [[ax]] = plots.figure(1, 1)
    >>> _ = ax.set(title="Cold wins", xlabel="temperature", ylabel="mean reward")
    >>> described(fig)
    'Figure: Cold wins (mean reward, by temperature). The numbers are in the table.'
    """
    parts = [fig.get_suptitle()] if fig.get_suptitle() else []
    for ax in fig.axes:
        axes = f" ({ax.get_ylabel()}, by {ax.get_xlabel()})" if ax.get_xlabel() else ""
        title = ax.get_title().replace("\n", ": ")
        if title or axes:
            parts.append(f"{title or 'a panel'}{axes}")
    return f"Figure: {'; '.join(parts)}. The numbers are in the table."
