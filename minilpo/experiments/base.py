"""What an experiment is, and how its result is written: a JSON, a figure and a text table.

An experiment is a module with four names:

    PAPER    one sentence: what the paper shows there
    measure  (lab) -> numbers of one seed, as JSON holds them
    conclude (seeds) -> `Finding`: rows for the table, and one sentence on whether the direction agrees
    draw     (seeds) -> a figure
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from minilpo.statistics import seed_interval

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

    def sign(self) -> int:
        """+1 if the interval is above 0, -1 if it is below, else 0. Of a single seed nothing can be said: 0."""
        low, high = self.ci95 or (0.0, 0.0)
        return int(low > 0) - int(high < 0)


@dataclass(frozen=True)
class Finding:
    """What came out of an experiment over all seeds."""

    rows: list[Row]
    agrees: bool  # whether the direction is the paper's, beyond the interval over seeds
    sentence: str


class Experiment(Protocol):
    """The names that a module of `minilpo.experiments` must have."""

    PAPER: str

    def measure(self, lab: Any) -> Numbers:
        """Measures one seed."""

    def conclude(self, seeds: Sequence[Numbers]) -> Finding:
        """Puts the seeds together."""

    def draw(self, seeds: Sequence[Numbers]) -> Figure:
        """Draws what was found."""


def mean_and_half(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds and half the width of its 95% interval, element by element; 0 for a single seed.

    Args:
        values: one array-like a seed, all of the same shape.

    >>> mean, half = mean_and_half([[0.1], [0.2], [0.3]])
    >>> mean.round(2).tolist(), half.round(2).tolist()
    ([0.2], [0.25])
    """
    stacked = np.asarray(values, dtype=float)
    flat = stacked.reshape(len(stacked), -1)
    intervals = [seed_interval(column) for column in flat.T]
    half = np.array([0.0 if interval is None else (interval[1] - interval[0]) / 2 for interval in intervals])
    return stacked.mean(0), half.reshape(stacked.shape[1:])


def text_table(name: str, paper: str, finding: Finding) -> str:
    """The result as plain text.

    >>> print(text_table("fig0", "Nothing.", Finding([Row("gain", [0.1, 0.2, 0.3], "0.5")], True, "It agrees.")))
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
