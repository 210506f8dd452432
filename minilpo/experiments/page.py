"""`report.html` of a reproduction: each experiment's claim, conclusion, table and figure."""

from collections.abc import Mapping

from minilpo.config import RunConfig
from minilpo.experiments.base import Finding
from minilpo.machine.text import decimal
from minilpo.show.document import contents, document, fill, pictures, table
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


def reproduction_page(config: RunConfig, results: Mapping[str, tuple[str, Finding]]) -> str:
    """Writes the page of a reproduction, of the paper's claim and our finding by experiment.

    It is the same for the same results in any order: the paper's experiments come first.
    """
    own = {name for name, (paper, _) in results.items() if paper.startswith("(not in the paper)")}
    chapters, rows = {}, []
    came_out: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for name in sorted(results, key=lambda name: (name in own, name)):
        paper, finding = results[name]
        n_seeds = len(finding.rows[0].ours)
        came_out[finding.agrees if n_seeds > 1 else None].append(name)
        rows.append([name, str(n_seeds), finding.sentence])
        named = f"{name}, one seed" if n_seeds == 1 else f"{name}, {n_seeds} seeds"
        cells = []
        for row in finding.rows:
            bounds = interval(row.ci95) or "one seed"
            cells.append([row.label, decimal(row.mean), bounds, row.paper])
        caption = f"{named}: means and 95% intervals over seeds, and the paper's numbers."
        chapters[name] = fill(
            "<p><b>{}</b>{}.</p>\n<p><b>Here: </b>{}</p>\n{}"
            "<figure>{}<figcaption>{}.</figcaption></figure>",
            "About: " if name in own else "In the paper: ",
            paper,
            finding.sentence,
            table(caption, ["number", "ours", "95% interval", "paper"], cells),
            pictures([finding.files["figure.png"]], [finding.figure]),
            named,
        )
    chapters["All settings"] = fill("<p>{}</p>{}", SETTINGS, settings(config))
    agrees, others, single = (", ".join(names) or "none" for names in came_out.values())
    verdict = f"Came out as the paper or the control says: {agrees}. Didn't: {others}."
    if came_out[None]:
        verdict += f" Can't be told from a single seed: {single}."
    heads = ["experiment", "seeds", "what came out"]
    return document(
        "The paper in miniature",
        fill('<p class="verdict">{}</p>\n<p>{}</p>\n', verdict, WORDS),
        table("Every experiment that this folder has.", heads, rows, kind="plain"),
        contents(chapters),
    )
