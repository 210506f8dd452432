"""Bars and lines over seeds with their 95% intervals, and a figure in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from minilpo.evaluation.statistics import seed_interval
from minilpo.show import plots


def mean_and_half(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean over S seeds and half its 95% interval, 0 for one seed, of (S, ...).

    >>> mean, half = mean_and_half([[0.1], [0.2], [0.3]])
    >>> mean.round(2).tolist(), half.round(2).tolist()
    ([0.2], [0.25])
    """
    stacked = np.asarray(values, dtype=float)
    columns = stacked.reshape(len(stacked), -1).T.tolist()
    intervals = np.array([seed_interval(column) or (0.0, 0.0) for column in columns])
    half = (intervals[:, 1] - intervals[:, 0]) / 2
    return stacked.mean(0), half.reshape(stacked.shape[1:])


def draw_bars(
    ax: Axes, names: Sequence[str], values: dict[str, Any], colours: Sequence[Any], scale: int = 100
) -> list[np.ndarray]:
    """Draws bars over seeds with their intervals, one or two side by side at each of K places.

    `values` are (S, K) by the label of a bar, in the colours given, one per label or K for it.
    Heights are multiplied by `scale`, by default to percent. Returns the means, (K,) per label.
    """
    means, width = [], 0.4 if len(values) > 1 else 0.7
    for i, (label, of_label) in enumerate(values.items()):
        mean, half = mean_and_half(of_label)
        places = np.arange(len(names)) + (i - (len(values) - 1) / 2) * width
        style: dict[str, Any] = {"width": width, "color": colours[i], "label": label, "capsize": 2}
        ax.bar(places, scale * mean, yerr=scale * half, **style)
        means.append(mean)
    plots.name_ticks(ax, names)
    return means


def draw_line(ax: Axes, places: ArrayLike, values: ArrayLike, **options: Any) -> None:
    """Draws a line through the means over seeds, with their intervals, from (S, K)."""
    mean, half = mean_and_half(values)
    ax.errorbar(places, mean, yerr=half, fmt="o-", capsize=3, markersize=4, **options)


def described(fig: plots.Figure) -> str:
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
