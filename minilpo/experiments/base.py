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
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from minilpo.evaluation.statistics import seed_interval

Numbers = dict[str, Any]  # what `measure` returns: the numbers of one seed


@dataclass(frozen=True)
class Row:
    """One line of the table: our number on every seed, and the paper's number beside it."""

    label: str
    ours: list[float]
    paper: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.ours))

    @property
    def ci95(self) -> list[float] | None:
        """95% interval over seeds; None for a single seed."""
        return seed_interval(self.ours)

    @property
    def subject(self) -> str:
        """The task or the level that the label begins with, up to a colon."""
        return self.label.split(":")[0]

    def sign(self) -> int:
        """+1 if the interval is above 0, -1 if it is below, else 0, as for a single seed."""
        low, high = self.ci95 or (0.0, 0.0)
        return int(low > 0) - int(high < 0)

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


class Experiment(Protocol):
    """The names that a module of `minilpo.experiments` must have."""

    PAPER: str

    def measure(self, lab: Any) -> Numbers:
        """Measures one seed."""

    def conclude(self, seeds: Sequence[Numbers]) -> Finding:
        """Puts the seeds together."""

    def draw(self, seeds: Sequence[Numbers]) -> Figure:
        """Draws what was found."""


def values_of(seeds: Sequence[Numbers], *keys: Any) -> list[Any]:
    """What every seed holds under some keys, one within the other.

    >>> values_of([{"token": {"reward": 0.5}}, {"token": {"reward": 0.6}}], "token", "reward")
    [0.5, 0.6]
    """
    return [reduce(getitem, keys, seed) for seed in seeds]


def percent(label: str, shares: Sequence[float], paper: str = "") -> Row:
    """A row of shares, in percent."""
    return Row(f"{label} (%)", [100 * share for share in shares], paper)


def percent_at(
    label: str,
    temperatures: Sequence[float],
    shares: Sequence[Sequence[float]],
    papers: Mapping[float, str] | None = None,
) -> list[Row]:
    """A row in percent for each temperature, from each seed's list of shares."""
    papers = papers or {}
    rows = []
    for k, t in enumerate(temperatures):
        values = [of_seed[k] for of_seed in shares]
        rows.append(percent(f"{label} t={t:g}", values, papers.get(t, "")))
    return rows


def difference(
    label: str, first: Sequence[float], second: Sequence[float], paper: str = "", scale: float = 1
) -> Row:
    """A row of first minus second, seed by seed."""
    pairs = zip(first, second, strict=True)
    return Row(label, [scale * (a - b) for a, b in pairs], paper)


def direction(agrees: bool, how: str) -> str:
    """The sentence that a table ends with: whether the direction is the paper's.

    Args:
        agrees: whether every comparison is, beyond its interval over seeds.
        how: what was found; it must be true in both cases.
    """
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
    """Which differences are above 0, which below, and which can't be told, for a sentence.

    Args:
        differences: by the name of what is subtracted, or of what it is about.
        above, below, undecided: what is said of each sort; `{}` stands for the names.

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

    Args:
        values: one array-like per seed, all of the same shape.

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
    """Bars at the means over seeds, with their intervals. Returns the means, (K,).

    Args:
        ax: where to draw.
        places: (K,) the middle of each bar.
        values: one list of K per seed.
        scale: what to multiply by; 100 for shares in percent.
        options: passed on to `ax.bar`.
    """
    mean, half = mean_and_half(values)
    ax.bar(places, scale * mean, yerr=scale * half, **{"width": 0.4, "capsize": 3, **options})
    return mean


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
