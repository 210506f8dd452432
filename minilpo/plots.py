"""Arrays to matplotlib axes. Every function draws on the axes it is given and returns one sentence that says what is shown.

Colours are Okabe and Ito's, which people with any common colour-blindness can tell apart.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"


def own_style() -> AbstractContextManager[None]:
    """While it lasts, figures look the same, whatever the user's own settings for matplotlib are."""
    return matplotlib.style.context("default")


def figure(n_rows: int, n_columns: int, width: float = 3.3, height: float = 2.9) -> tuple[Figure, np.ndarray]:
    """A figure that belongs to no window, and its axes, (n_rows, n_columns)."""
    fig = Figure(figsize=(width * n_columns, height * n_rows), dpi=150, layout="constrained")
    axes = fig.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
    return fig, axes


def reward_by_temperature(
    ax: Axes, name: str, temperatures: Sequence[float], fixed: Sequence[float], chosen: float, adaptive: float
) -> str:
    """A task's mean reward at every fixed temperature, and the head's point at the mean of its chosen temperatures."""
    best = int(np.argmax(fixed))
    ax.plot(temperatures, fixed, "o-", color=BLUE, label="fixed temperature", markersize=4)
    ax.plot([chosen], [adaptive], "*", color=ORANGE, markersize=14, markeredgecolor="black", label="head", zorder=3)
    ax.set(ylim=(0, 1.02), xlabel="temperature", ylabel="mean reward")
    ax.set_title(f"{name}: best at {temperatures[best]:g}")
    ax.set_xticks(list(temperatures))
    low = int(np.argmin(fixed))
    return (
        f"{name}: the mean reward of a fixed temperature is highest at {temperatures[best]:g} ({fixed[best]:.2f}) and "
        f"lowest at {temperatures[low]:g} ({fixed[low]:.2f}); the head gets {adaptive:.2f} at {chosen:.2f} on average."
    )


def win_rates(ax: Axes, temperatures: Sequence[float], rates: Sequence[float], intervals: Sequence[Sequence[float]]) -> str:
    """How often the head beats each fixed temperature, in percent, with 95% intervals."""
    rates, bounds = 100 * np.asarray(rates), 100 * np.asarray(intervals)
    places = np.arange(len(temperatures))
    ax.bar(places, rates, color=BLUE, width=0.7)
    ax.errorbar(places, rates, yerr=[rates - bounds[:, 0], bounds[:, 1] - rates], fmt="none", color="black", capsize=3)
    ax.axhline(50, color=GREY, linestyle="--", linewidth=1)
    ax.text(1.01, 50, "even", color=GREY, fontsize=8, va="center", transform=ax.get_yaxis_transform())
    wins = int((bounds[:, 0] > 50).sum())
    ax.set_xticks(places, [f"{t:g}" for t in temperatures])
    ax.set(ylim=(0, 100), xlabel="fixed temperature", ylabel="win-rate of the head (%)")
    ax.set_title(f"The head beats {wins} of {len(rates)} fixed temperatures")
    pairs = ", ".join(f"{t:g}: {rate:.1f}%" for t, rate in zip(temperatures, rates, strict=True))
    return f"Win-rate of the head against each fixed temperature, a tie counting half: {pairs}; {wins} intervals are above 50%."


def choice_histogram(ax: Axes, name: str, temperatures: Sequence[float], shares: Sequence[float], chosen: float) -> str:
    """How often the head chose each temperature on a task's prompts, in percent."""
    ax.bar(np.arange(len(shares)), 100 * np.asarray(shares), color=GREEN, width=0.8)
    ax.set_xticks(np.arange(len(shares)), [f"{t:g}" for t in temperatures])
    ax.set(ylim=(0, 102), xlabel="chosen temperature", ylabel="share of choices (%)", title=f"{name}: mean {chosen:.2f}")
    said = [f"{t:g} for {100 * share:.0f}%" for t, share in zip(temperatures, shares, strict=True) if share >= 0.005]
    return f"{name}: the head chose temperature {', '.join(said)} of the prompts (token level: of the tokens)."


def curve(
    ax: Axes,
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str,
    breaks: Sequence[float] = (),
) -> str:
    """One or two quantities over the course of a training; a dotted line at each of the `breaks`."""
    for place in breaks:
        ax.axvline(place, color=GREY, linestyle=":", linewidth=1)
    for (label, y), color, style in zip(lines.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
        ax.plot(x, y, style, color=color, label=label, marker="o" if len(x) <= 30 else None, markersize=3)
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize=8)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    changes = "; ".join(f"{label} goes from {y[0]:.3g} to {y[-1]:.3g}" for label, y in lines.items())
    return f"{title}: {changes} ({xlabel} {x[0]:g} to {x[-1]:g})."
