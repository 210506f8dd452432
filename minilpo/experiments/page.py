"""`report.html` of a reproduction: every experiment's table and figure, and what the paper says."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from minilpo.config import RunConfig
from minilpo.experiments.base import Finding
from minilpo.show.document import Html, contents, document, element, joined, picture, table
from minilpo.show.page import colophon, settings

NAME = "report.html"


@dataclass(frozen=True)
class Result:
    """An experiment over all its seeds, ready to be written."""

    name: str
    paper: str  # what the paper shows there
    n_seeds: int
    finding: Finding
    png: bytes
    text: str  # what the figure shows, in words

    @property
    def is_own(self) -> bool:
        """Whether the paper hasn't this experiment."""
        return self.paper.startswith("(not in the paper)")


def described(fig: Figure) -> str:
    """What a figure shows, from its own headings.

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


def reproduction_page(config: RunConfig, results: Sequence[Result]) -> str:
    """The page of a reproduction: the same bytes for the same results, in any order."""
    results = sorted(results, key=lambda result: (result.is_own, result.name))
    chapters = {result.name: _chapter(result) for result in results}
    words = (
        "Each experiment of the paper that is repeated here, on language models of half a million "
        "parameters, which were trained from nothing for every seed. Ours are toys: only "
        "directions compare, never numbers. An interval says where the mean over seeds lies; "
        "a direction counts only if it holds beyond the interval."
    )
    changed = (
        "Where the experiments start from. Each takes the tasks, the level and the losses that it "
        "is about, and every seed from 0 on."
    )
    heads = ["experiment", "seeds", "what came out"]
    rows = [[result.name, str(result.n_seeds), result.finding.sentence] for result in results]
    return document(
        "The paper in miniature",
        element("p", _verdict(results), class_="verdict"),
        element("p", words),
        table("Every experiment that this folder has.", heads, rows, class_="plain"),
        contents({**chapters, "All settings": joined([element("p", changed), settings(config)])}),
        colophon(),
    )


def _verdict(results: Sequence[Result]) -> str:
    told = [result for result in results if result.n_seeds > 1]
    agrees = [result.name for result in told if result.finding.agrees]
    others = [result.name for result in told if not result.finding.agrees]
    untold = [result.name for result in results if result.n_seeds == 1]
    words = (
        f"Came out as the paper or the control says: {_names(agrees)}. Didn't: {_names(others)}."
    )
    return f"{words} Can't be told from a single seed: {_names(untold)}." if untold else words


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _chapter(result: Result) -> Html:
    rows = []
    for row in result.finding.rows:
        interval = f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}" if row.ci95 else "one seed"
        rows.append([row.label, f"{row.mean:.3f}", interval, row.paper])
    seeds = "one seed" if result.n_seeds == 1 else f"{result.n_seeds} seeds"
    caption = (
        f"{result.name}, {seeds}: means and 95% intervals over seeds, and the paper's numbers."
    )
    heads = ["number", "ours", "95% interval", "paper"]
    where = "About: " if result.is_own else "In the paper: "
    return joined(
        [
            element("p", element("b", where), f"{result.paper}."),
            element("p", element("b", "Here: "), result.finding.sentence),
            table(caption, heads, rows),
            picture(result.png, result.text, f"{result.name}, {seeds}."),
        ]
    )
