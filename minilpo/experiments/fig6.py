"""Figure 6: responses in which every word carries the temperature it was written with."""

import torch

from minilpo.evaluation.summary import by_place_in_sentence
from minilpo.experiments.base import Finding, Numbers, Row, direction
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.show import plots, strip
from minilpo.show.report import strips_of

PAPER = "a response coloured by temperature: cold where the constraint binds, warm elsewhere"
SHOWN = 2  # responses per task
PLACES = {
    "first_word_temperature": "first word of a sentence",
    "other_temperature": "all other tokens",
}


def measure(lab: Lab) -> Numbers:
    """Keeps responses to each task's first test prompts, and the mean temperature by place."""
    test, head, starts = lab.fixed("test"), lab.head("token"), lab.lm.sentence_starts
    rollout, _ = lab.adaptive(head.greedy, test)
    numbers = {}
    for name in MIXTURE:
        of_task = rollout.rows(torch.from_numpy((test.names == name).nonzero()[0]))
        shown = strips_of(of_task.rows(torch.arange(SHOWN)), head.choices.names, lab.lm)
        numbers[name] = {
            "strips": [[s.prompt, s.pieces, s.choice_ids, list(s.names)] for s in shown],
            **by_place_in_sentence(of_task, lab.config.temperatures, starts),
        }
    return numbers


def conclude(found: Numbers) -> Finding:
    """Compares the two places in constrained stories; shows the first seed's responses."""
    rows = []
    for name in MIXTURE:
        rows += [Row(f"{name}: {words}", found[name][place]) for place, words in PLACES.items()]
    cold, warm = (found["constrained_story"][place] for place in PLACES)
    warmer = Row("constrained_story: difference", warm - cold)
    agrees = warmer.sign() > 0
    verdict = warmer.told("colder than", "warmer than", "not clearly different from")
    how = f"in constrained stories the first word of a sentence is {verdict} the rest "
    # The responses of the figure and more, as a page and as plain text.
    shown = [strip.Strip(*content) for name in MIXTURE for content in found[name]["strips"][0]]
    text = "\n\n".join(f"{s.prompt}\n{strip.plain(s)}" for s in shown)
    page = strip.html_page(shown, "Which temperature wrote which word")
    files = {"strip.html": page.encode(), "strip.txt": (text + "\n").encode()}
    return Finding([*rows, warmer], agrees, direction(agrees, f"{how}({warmer.text(2)})."), files)


def draw(found: Numbers) -> plots.Figure:
    """Draws one response of each task, from the first seed."""
    shown = [strip.Strip(*found[name]["strips"][0][0]) for name in MIXTURE]
    fig, axes = plots.figure(1, 1, width=6.2)
    strip.draw(axes[0, 0], shown)
    fig.suptitle("Every word on the colour of its temperature")
    return fig
