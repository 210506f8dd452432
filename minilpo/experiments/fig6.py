"""Figure 6: responses in which every word carries the temperature it was written with."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from minilpo import plots, strip
from minilpo.evaluation import by_place_in_sentence, sentence_starts
from minilpo.experiments.base import Finding, Numbers, Row
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.report import strips_of

PAPER = "a response coloured by temperature: cold where the constraint binds, warm elsewhere"
SHOWN = 2  # responses a task
PLACES = {"first_word_temperature": "first word of a sentence", "other_temperature": "all other tokens"}


def measure(lab: Lab) -> Numbers:
    """The first test prompts of every task with the token-level head, and the mean temperature by place."""
    test, head = lab.fixed("test"), lab.head("token")
    rollout, _ = lab.adaptive(head, test)
    starts, numbers = sentence_starts(lab.tokenizer), {}
    for name in MIXTURE:
        rows = (test.names == name).nonzero()[0]
        own = rollout.rows(lab.tensor(rows))
        shown = strips_of(own.rows(lab.tensor(range(SHOWN))), lab.tokenizer)
        numbers[name] = {
            "strips": [[s.prompt, list(s.pieces), s.temperatures, s.choices] for s in shown],
            **by_place_in_sentence(own, starts),
        }
    return numbers


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """The mean temperature by task and place."""
    rows = [Row(f"{name}: {said}", [seed[name][place] for seed in seeds]) for name in MIXTURE for place, said in PLACES.items()]
    named = {row.label: row for row in rows}
    cold, warm = (named[f"constrained_story: {said}"] for said in PLACES.values())
    difference = Row("constrained_story: difference", [b - a for a, b in zip(cold.ours, warm.ours, strict=True)])
    agrees = difference.sign() > 0
    sentence = (
        "The direction agrees: in constrained stories the first word of a sentence is colder than the rest."
        if agrees
        else "The direction doesn't agree beyond the interval over seeds."
    )
    return Finding([*rows, difference], agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """One response of each task, from the first seed."""
    shown = [_strip(seeds[0][name]["strips"][0]) for name in MIXTURE]
    fig, axes = plots.figure(1, 1, width=6.2, height=0.26 * strip.height(shown))
    strip.draw(axes[0, 0], shown)
    fig.suptitle("Every word on the colour of its temperature")
    return fig


def more_files(seeds: Sequence[Numbers]) -> dict[str, bytes]:
    """The same, and more of it, as a page and as plain text."""
    shown = [_strip(content) for name in MIXTURE for content in seeds[0][name]["strips"]]
    text = "\n\n".join(f"{s.prompt}\n{strip.plain(s)}" for s in shown)
    page = strip.html_page(shown, "Which temperature wrote which word")
    return {"strip.html": page.encode(), "strip.txt": (text + "\n").encode()}


def _strip(content: list) -> strip.Strip:
    return strip.Strip(*content)
