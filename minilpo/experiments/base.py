"""The result of an experiment: rows of a table, one sentence, and a figure.

An experiment is a module with four names:

    PAPER     the paper's finding in one sentence
    measure   (lab) -> numbers of one seed, as JSON holds them
    conclude  (numbers over all seeds, see `over_seeds`) -> `Finding`
    draw      (the same numbers) -> a figure
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilpo.evaluation.statistics import seed_interval
from minilpo.machine.text import decimal

Numbers = dict[str, Any]
Values = Sequence[float] | np.ndarray


def over_seeds(seeds: Sequence[Any]) -> Any:
    """Stacks the numbers of S seeds: a number becomes an array (S,), a list of n (S, n).

    Keys that only some of the seeds have are left out.

    >>> over_seeds([{"token": {"reward": 0.5}}, {"token": {"reward": 0.75}}])
    {'token': {'reward': array([0.5 , 0.75])}}
    """
    if isinstance(seeds[0], dict):
        keys = [key for key in seeds[0] if all(key in seed for seed in seeds)]
        return {key: over_seeds([seed[key] for seed in seeds]) for key in keys}
    try:
        return np.array(seeds)
    except ValueError:  # lists of unlike lengths
        return [*seeds]


@dataclass(frozen=True)
class Row:
    """One line of the table: our number on every seed, and the paper's number beside it."""

    label: str
    ours: Values  # (S,)
    paper: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.ours))

    @property
    def ci95(self) -> list[float] | None:
        """95% interval over seeds; None for a single seed."""
        return seed_interval(np.asarray(self.ours).tolist())

    def sign(self, value: float = 0.0) -> int:
        """Returns +1 if the interval is above a value, -1 if below, else 0, as for one seed."""
        low, high = self.ci95 or (value, value)
        return int(low > value) - int(high < value)

    def told(self, above: str, below: str, undecided: str) -> str:
        """Picks the text for an interval above 0, below 0, or around it, as for a single seed.

        >>> Row("head - greedy", [0.1, 0.2]).told("gains", "loses", "can't be told")
        "can't be told"
        """
        return {1: above, -1: below, 0: undecided}[self.sign()]

    def text(self, decimals: int = 3) -> str:
        """Writes a difference for a sentence: the mean with its sign, and half the interval.

        >>> Row("head - greedy", [0.1, 0.2, 0.3]).text(), Row("head - greedy", [-0.1]).text()
        ('+0.200 ± 0.248', '-0.100')
        """
        mean = decimal(self.mean, "+", decimals)
        return f"{mean} ± {self.ci95[1] - self.mean:.{decimals}f}" if self.ci95 else mean

    @property
    def gains(self) -> str:
        """Says if the head gains, for a row "head - constant".

        >>> Row("head - constant", [0.1]).gains
        'neither clearly gains nor loses (+0.100)'
        """
        return f"{self.told('gains', 'loses', 'neither clearly gains nor loses')} ({self.text()})"


@dataclass(frozen=True)
class Finding:
    """The conclusion of an experiment over all seeds."""

    rows: list[Row]
    agrees: bool  # true if the direction is the paper's, beyond the interval over seeds
    sentence: str
    files: dict[str, bytes] = field(default_factory=dict)  # to be written, by name
    figure: str = ""  # the figure in words


def percent_at(
    label: str, temperatures: Values, shares: np.ndarray, papers: Mapping[float, str] | None = None
) -> list[Row]:
    """Makes a row in percent for each of K temperatures, from shares, (S, K)."""
    rows = []
    for k, t in enumerate(temperatures):
        rows.append(Row(f"{label} t={t:g} (%)", 100 * shares[:, k], (papers or {}).get(t, "")))
    return rows


def direction(agrees: bool, how: str) -> str:
    """Says if the direction is the paper's, and `how`, which must be true in both cases."""
    return f"The direction {'agrees' if agrees else 'does not agree everywhere'}: {how}"


def in_words(names: Sequence[str]) -> str:
    """Lists names in a sentence.

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
    """Tells in words which differences are above 0, which below, and which can't be told.

    Each difference has the name of the number that is subtracted; `{}` stands for the names.

    >>> compared({"Eq. 10": Row("", [-2.0, -2.1]), "Eq. 11": Row("", [-1.0, 1.0])})
    'below Eq. 10, not clearly different from Eq. 11'
    """
    parts = []
    for sign, words in ((1, above), (-1, below), (0, undecided)):
        names = [name for name, row in differences.items() if row.sign() == sign]
        if names:
            parts.append(words.format(in_words(names)))
    return ", ".join(parts)


def text_table(name: str, paper: str, finding: Finding) -> str:
    """Writes the result as plain text.

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
        interval = "{} to {:>7}".format(*map(decimal, row.ci95)) if row.ci95 else "one seed"
        line = f"{row.label:<{width}}{decimal(row.mean):>9}{interval:>22}{row.paper:>8}"
        lines.append(line.rstrip())
    return "\n".join([f"{name}: {paper}", "", *lines, "", finding.sentence])
