"""`report.html` of a reproduction: each experiment's claim, conclusion, table and figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from minilpo.config import RunConfig
from minilpo.experiments.base import Finding
from minilpo.machine.text import decimal
from minilpo.show.document import Html, contents, document, fill, pictures, table
from minilpo.show.page import settings
from minilpo.show.report import interval

NAME = "report.html"
WORDS = (
    "Each experiment of the paper that is repeated here, on language models of half a million "
    "parameters, which were trained from nothing for every seed. Ours are toys: only "
    "directions compare, never numbers. An interval says where the mean over seeds lies; "
    "a direction counts only if it holds beyond the interval."
)
SETTINGS = (
    "Where the experiments start from. Each takes the tasks, the level and the losses that it "
    "is about, and every seed from 0 on."
)


@dataclass(frozen=True)
class Result:
    """An experiment over all its seeds, ready to be written."""

    name: str
    paper: str  # the paper's finding
    n_seeds: int
    finding: Finding
    png: bytes
    text: str  # the figure in words

    @property
    def is_own(self) -> bool:
        """True for an experiment that isn't in the paper."""
        return self.paper.startswith("(not in the paper)")


def reproduction_page(config: RunConfig, results: Sequence[Result]) -> str:
    """Writes the page of a reproduction: the same for the same results, in any order."""
    results = sorted(results, key=lambda result: (result.is_own, result.name))
    chapters = {result.name: _chapter(result) for result in results}
    chapters["All settings"] = fill("<p>{}</p>{}", SETTINGS, settings(config))
    heads = ["experiment", "seeds", "what came out"]
    rows = [[result.name, str(result.n_seeds), result.finding.sentence] for result in results]
    return document(
        "The paper in miniature",
        fill('<p class="verdict">{}</p>\n<p>{}</p>\n', _verdict(results), WORDS),
        table("Every experiment that this folder has.", heads, rows, kind="plain"),
        contents(chapters),
    )


def _verdict(results: Sequence[Result]) -> str:
    several = [result for result in results if result.n_seeds > 1]
    agrees, others = (
        ", ".join(result.name for result in several if result.finding.agrees == kind) or "none"
        for kind in (True, False)
    )
    words = f"Came out as the paper or the control says: {agrees}. Didn't: {others}."
    single = ", ".join(result.name for result in results if result.n_seeds == 1)
    return f"{words} Can't be told from a single seed: {single}." if single else words


def _chapter(result: Result) -> Html:
    seeds = "one seed" if result.n_seeds == 1 else f"{result.n_seeds} seeds"
    caption = (
        f"{result.name}, {seeds}: means and 95% intervals over seeds, and the paper's numbers."
    )
    heads = ["number", "ours", "95% interval", "paper"]
    where = "About: " if result.is_own else "In the paper: "
    said = "<p><b>{}</b>{}.</p>\n<p><b>Here: </b>{}</p>\n{}"
    said += "<figure>{}<figcaption>{}</figcaption></figure>"
    numbers = []
    for r in result.finding.rows:
        numbers.append([r.label, decimal(r.mean), interval(r.ci95) or "one seed", r.paper])
    rows = table(caption, heads, numbers)
    drawn = pictures([result.png], [result.text]), f"{result.name}, {seeds}."
    return fill(said, where, result.paper, result.finding.sentence, rows, *drawn)


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
