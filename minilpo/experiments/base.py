"""What an experiment is, and how its result is written: a JSON, a figure and a text table.

An experiment is a module with four names:

    PAPER     one sentence: what the paper shows there
    measure   (lab) -> numbers of one seed, as JSON holds them
    conclude  (seeds) -> `Finding`: rows for the table, and one sentence on the direction
    draw      (seeds) -> a figure
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from minilpo.evaluation.statistics import seed_interval

Numbers = dict[str, Any]  # what `measure` returns: the numbers of one seed


@dataclass(frozen=True)
class Row:
    """One line of the table: our number on every seed, and the paper's number beside it."""

    label: str
    ours: Sequence[float] | np.ndarray  # (seeds,)
    paper: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.ours))

    @property
    def ci95(self) -> list[float] | None:
        """95% interval over seeds; None for a single seed."""
        return seed_interval(np.asarray(self.ours).tolist())

    @property
    def subject(self) -> str:
        """The task or the level that the label begins with, up to a colon."""
        return self.label.split(":")[0]

    def sign(self, value: float = 0.0) -> int:
        """+1 if the interval is above a value, -1 if it is below, else 0, as for a single seed."""
        low, high = self.ci95 or (value, value)
        return int(low > value) - int(high < value)

    def told(self, above: str, below: str, undecided: str) -> str:
        """The text for an interval above 0, below 0, or around it, as for a single seed.

        >>> Row("head - greedy", [0.1, 0.2]).told("gains", "loses", "can't be told")
        "can't be told"
        """
        return {1: above, -1: below, 0: undecided}[self.sign()]

    def text(self, decimals: int = 3) -> str:
        """The mean with its sign and half the interval, for a sentence about a difference.

        >>> Row("head - greedy", [0.1, 0.2, 0.3]).text(), Row("head - greedy", [-0.1]).text()
        ('+0.200 ± 0.248', '-0.100')
        """
        mean = f"{self.mean:+.{decimals}f}"
        return f"{mean} ± {self.ci95[1] - self.mean:.{decimals}f}" if self.ci95 else mean


@dataclass(frozen=True)
class Finding:
    """What came out of an experiment over all seeds."""

    rows: list[Row]
    agrees: bool  # whether the direction is the paper's, beyond the interval over seeds
    sentence: str
    files: dict[str, bytes] = field(default_factory=dict)  # written beside the figure, by name


def values_of(seeds: Sequence[Numbers], *keys: Any) -> np.ndarray:
    """What every seed holds under some keys, one within the other: (seeds, ...).

    >>> seeds = [{"token": {"reward": 0.5}}, {"token": {"reward": 0.75}}]
    >>> values_of(seeds, "token", "reward")
    array([0.5 , 0.75])
    """
    return np.array([reduce(getitem, keys, seed) for seed in seeds])


def percent_at(
    label: str,
    temperatures: Sequence[float],
    shares: np.ndarray,
    papers: Mapping[float, str] | None = None,
) -> list[Row]:
    """A row in percent for each of K temperatures, from shares, (seeds, K)."""
    papers = papers or {}
    return [
        Row(f"{label} t={t:g} (%)", 100 * shares[:, k], papers.get(t, ""))
        for k, t in enumerate(temperatures)
    ]


def direction(agrees: bool, how: str) -> str:
    """Says whether the direction is the paper's, and `how`, which must be true in both cases."""
    return f"The direction {'agrees' if agrees else 'does not agree everywhere'}: {how}"


def in_words(names: Sequence[str]) -> str:
    """Names as a sentence lists them.

    >>> in_words(["math"]), in_words(["math", "story", "instruct"])
    ('math', 'math, story and instruct')
    """
    *firsts, last = names
    return f"{', '.join(firsts)} and {last}" if firsts else last


def compared(
    differences: Mapping[str, Row],
    above: str = "above {}",
    below: str = "below {}",
    undecided: str = "not clearly different from {}",
) -> str:
    """Tells which differences are above 0, which below, and which can't be told, for a sentence.

    `differences` go by the name of what is subtracted, or of what they are about; that name stands
    for `{}` in what is said of each sort.

    >>> compared({"Eq. 10": Row("", [-2.0, -2.1]), "Eq. 11": Row("", [-1.0, 1.0])})
    'below Eq. 10, not clearly different from Eq. 11'
    """
    parts = []
    for sign, words in ((1, above), (-1, below), (0, undecided)):
        names = [name for name, row in differences.items() if row.sign() == sign]
        if names:
            parts.append(words.format(in_words(names)))
    return ", ".join(parts)


def mean_and_half(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Element by element, the mean over seeds and half its 95% interval, 0 for a single seed.

    `values` are (seeds, ...).

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
    """Draws bars in the middle of `places`, (K,), from values, (seeds, K). Returns the means, (K,).

    A bar is as high as the mean over seeds times `scale`, by default in percent, and has its
    interval.
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
    """Draws a line through the means over seeds, with their intervals, from values, (seeds, K)."""
    mean, half = mean_and_half(values)
    ax.errorbar(places, mean, yerr=half, fmt="o-", capsize=3, markersize=4, **options)


def text_table(name: str, paper: str, finding: Finding) -> str:
    """The result as plain text.

    >>> finding = Finding([Row("gain", [0.1, 0.2, 0.3], "0.5")], True, "It agrees.")
    >>> print(text_table("fig0", "Nothing.", finding))
    fig0: Nothing.
    <BLANKLINE>
               ours        95% over seeds   paper
    gain      0.200      -0.048 to   0.448     0.5
    <BLANKLINE>
    It agrees.
    """
    width = max(len(row.label) for row in finding.rows) + 2
    lines = [f"{'':<{width}}{'ours':>9}{'95% over seeds':>22}   paper"]
    for row in finding.rows:
        low, high = row.ci95 or (np.nan, np.nan)
        interval = f"{low:.3f} to {high:7.3f}" if row.ci95 else "one seed"
        lines.append(f"{row.label:<{width}}{row.mean:9.3f}{interval:>22}{row.paper:>8}".rstrip())
    return "\n".join([f"{name}: {paper}", "", *lines, "", finding.sentence])
