"""Arrays to matplotlib axes. A plot draws on the axes it gets and returns one sentence on it.

Colours are Okabe and Ito's, which people with any common colour-blindness can tell apart.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.image
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from minilpo.setting import have_rules

LEVEL = 6  # more long names than these are written upwards
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"
# Without the version of matplotlib, which it would write into the file.
AS_PNG: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY)


def own_style() -> AbstractContextManager[None]:
    """Gives a context in which the user's settings of matplotlib change no figure."""
    return matplotlib.style.context("default")


def figure(
    n_rows: int, n_columns: int, width: float = 3.3, height: float = 2.9
) -> tuple[Figure, np.ndarray]:
    """Makes a figure that belongs to no window, and its axes, (n_rows, n_columns)."""
    fig = Figure(figsize=(width * n_columns, height * n_rows), dpi=150, layout="constrained")
    axes = fig.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
    return fig, axes


def grid(n: int) -> tuple[Figure, list[Axes]]:
    """Makes a figure of n panels: two in a row, or three if the last row is full then."""
    n_columns = 3 if n % 3 == 0 else min(n, 2)
    fig, axes = figure(-(-n // n_columns), n_columns)
    for ax in axes.flat[n:]:
        ax.remove()
    return fig, list(axes.flat[:n])


def png(fig: Figure) -> bytes:
    """Draws the figure into a file. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, **AS_PNG)
    return buffer.getvalue()


def panels(fig: Figure, whole: bytes) -> list[bytes]:
    """Cuts the file of a figure into one file per panel, each with its title and labels."""
    pixels = matplotlib.image.imread(io.BytesIO(whole))  # (height, width, 4)
    parts = []
    for ax in fig.axes:
        box = ax.get_tightbbox()
        assert box is not None  # only axes that can't be seen have none
        top, bottom = (max(0, len(pixels) - round(y)) for y in (box.y1 + 4, box.y0 - 4))
        left, right = max(0, round(box.x0) - 4), round(box.x1) + 4
        buffer, part = io.BytesIO(), np.ascontiguousarray(pixels[top:bottom, left:right])
        matplotlib.image.imsave(buffer, part, **AS_PNG)
        parts.append(buffer.getvalue())
    return parts


def legend(ax: Axes, **options: Any) -> None:
    """Adds a small legend without a frame."""
    ax.legend(frameon=False, fontsize=8, **options)


def name_ticks(ax: Axes, names: Sequence[str], *others: str) -> None:
    """Writes the names of the choices at 0, 1, ..., and other words after the last."""
    ticks = [name.replace(", ", "\n") for name in [*names, *others]]
    ax.set_xticks(np.arange(len(ticks)), ticks)
    if have_rules(names):  # long names stand beside each other in small type
        ax.tick_params("x", labelsize=7, labelrotation=0 if len(ticks) <= LEVEL else 90)


def bars(
    ax: Axes, names: Sequence[str], values: ArrayLike, xlabel: str, ylabel: str, **options: Any
) -> None:
    """Draws a bar for each choice, with their names below."""
    ax.bar(np.arange(len(names)), values, **{"color": BLUE, "width": 0.75, **options})
    name_ticks(ax, names)
    ax.set(xlabel=xlabel, ylabel=ylabel)


def name_level(ax: Axes, height: float, name: str, colour: str) -> None:
    """Draws a dashed line at a height and writes its name at its right end."""
    ax.axhline(height, color=colour, linestyle="--", linewidth=1.5)
    beside = ax.get_yaxis_transform()  # x as a share of the width, y as it is
    ax.text(1.01, height, name, color=colour, fontsize=8, va="center", transform=beside)


def reward_by_temperature(
    ax: Axes,
    name: str,
    temperatures: Sequence[float],
    fixed: Sequence[float],
    chosen: float,
    adaptive: float,
    names: Sequence[str] = (),
) -> str:
    """Draws a task's mean reward by fixed temperature. The head stands at its mean choice.

    Choices with rules need `names`: a temperature may be there twice, so each choice gets a place
    of its own, and the head is a line.
    """
    ticks = names or [f"{t:g}" for t in temperatures]
    best, low = int(np.argmax(fixed)), int(np.argmin(fixed))
    ax.set(ylim=(0, 1.02), xlabel="temperature", ylabel="mean reward")
    if names:
        bars(ax, names, fixed, "fixed temperature", "mean reward")
        name_level(ax, adaptive, "head", ORANGE)
    else:
        ax.plot(temperatures, fixed, "o-", color=BLUE, label="fixed temperature", markersize=4)
        star: dict[str, Any] = {"markersize": 14, "markeredgecolor": "black", "zorder": 3}
        ax.plot([chosen], [adaptive], "*", label="head", color=ORANGE, **star)
        ax.set_xticks(list(temperatures))
    where, gap = ("", "\n") if names else (f" at {chosen:.2f} on average", " ")
    ax.set_title(f"{name}:{gap}best at {ticks[best]}")
    return (
        f"{name}: the mean reward of a fixed temperature is highest at {ticks[best]} "
        f"({fixed[best]:.2f}) and lowest at {ticks[low]} ({fixed[low]:.2f}); "
        f"the head gets {adaptive:.2f}{where}."
    )


def win_rates(
    ax: Axes, names: Sequence[str], rates: Sequence[float], intervals: Sequence[Sequence[float]]
) -> str:
    """Draws how often the head beats each fixed choice, in percent, with 95% intervals."""
    percent, bounds = 100 * np.asarray(rates), 100 * np.asarray(intervals)
    whiskers = [percent - bounds[:, 0], bounds[:, 1] - percent]
    labels = "fixed temperature", "win-rate of the head (%)"
    bars(ax, names, percent, *labels, yerr=whiskers, capsize=3)
    name_level(ax, 50, "even", GREY)
    wins = int((bounds[:, 0] > 50).sum())
    ax.set(ylim=(0, 100), title=f"The head beats {wins} of {len(rates)} fixed temperatures")
    parts = "; ".join(f"{name}: {rate:.1f}%" for name, rate in zip(names, percent, strict=True))
    return (
        "Win-rate of the head against each fixed temperature, a tie counting half: "
        f"{parts}; {wins} intervals are above 50%."
    )


def choice_histogram(
    ax: Axes, name: str, names: Sequence[str], shares: Sequence[float], chosen: float
) -> str:
    """Draws how often the head chose each of the choices on a task's prompts, in percent."""
    labels = "chosen temperature", "share of choices (%)"
    bars(ax, names, 100 * np.asarray(shares), *labels, color=GREEN)
    ax.set(ylim=(0, 102), title=f"{name}: mean {chosen:.2f}")
    pairs = zip(names, shares, strict=True)
    parts = [f"{one} for {100 * share:.0f}%" for one, share in pairs if share >= 0.005]
    return (
        f"{name}: the head chose temperature {'; '.join(parts)} of the prompts "
        "(token level: of the tokens)."
    )


def curve(
    ax: Axes,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str,
    breaks: Sequence[float] = (),
) -> str:
    """Draws one or two quantities over a training, with a dotted line at each of the `breaks`."""
    for place in breaks:
        ax.axvline(place, color=GREY, linestyle=":", linewidth=1)
    dots: dict[str, Any] = {"marker": "o" if len(x) <= 30 else None, "markersize": 3}
    for (label, y), color, style in zip(lines.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
        ax.plot(x, y, style, color=color, label=label, **dots)
    if len(lines) > 1:
        legend(ax)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    changes = [f"{label} goes from {y[0]:.3g} to {y[-1]:.3g}" for label, y in lines.items()]
    return f"{title}: {'; '.join(changes)} ({xlabel} {x[0]:g} to {x[-1]:g})."
