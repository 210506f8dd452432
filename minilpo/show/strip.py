"""The temperature strip: a text whose every word carries its temperature (the paper's Figure 6).

Where the head chooses among settings, the legend has their names, and words their temperatures or,
where these don't tell the settings apart, the names too.

Four forms of the same: plain text with numbers, terminal colours, a self-contained HTML page, and
matplotlib axes. Colours run from blue (cold) over white to orange (warm), which people with any
common colour-blindness can tell apart; page and axes show the numbers too.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from minilpo.machine.text import Choice, between, kind_of_choice, label_of, printable
from minilpo.show.document import Html, document, element, joined

BLUE_TO_ORANGE = (27, 69, 111, 152, 223, 215, 208)  # of a terminal's 256 colours
# Backgrounds on which black text is easy to read.
COLD, NEUTRAL, WARM = (118, 178, 231), (247, 247, 247), (245, 166, 92)
COLUMNS = 78  # characters per line, where lines are broken by hand
LEGEND = 13  # where it begins
SMALL = 5 / 9  # the size of what stands under a word, in that of words
STYLE = """
.strip { line-height: 2.6; }
.word { display: inline-block; max-width: 100%; overflow-wrap: anywhere; line-height: 1.2;
  padding: .1em .25em; border-radius: .2em; box-sizing: border-box; text-align: center;
  color: #000; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.word small { display: block; font-size: .7em; }
"""


@dataclass(frozen=True)
class Strip:
    """A response, token by token.

    Args:
        prompt: what it responds to.
        pieces: the tokens' texts, each with its leading space.
        temperatures: one for each piece; or names of settings.
        choices: what could be chosen, from cold to warm: temperatures, or names of settings.

    >>> strip = Strip("Tell me of a fox.", [" The", " fox", "."], [0.2, 0.8, 0.8], [0.2, 0.8])
    >>> plain(strip)
    'The[0.2] fox[0.8].[0.8]'
    """

    prompt: str
    pieces: Sequence[str]
    temperatures: Sequence[Choice]
    choices: Sequence[Choice]

    def words(self) -> Iterator[tuple[str, Choice]]:
        """Each piece with its temperature."""
        return zip(self.pieces, self.temperatures, strict=True)


def warmth(temperature: Choice, choices: Sequence[Choice]) -> float:
    """The place of a temperature among the choices, from 0 (the lowest) to 1 (the highest).

    >>> warmth(0.5, [0.0, 0.5, 2.0]), warmth("1.2, min-p 0.1", ["0", "1.2, min-p 0.1", "1.2"])
    (0.5, 0.5)
    """
    if isinstance(temperature, str):
        place = choices.index(temperature)
    else:
        place = sum(choice < temperature - 1e-6 for choice in map(float, choices))
    return place / max(1, len(choices) - 1)


def background(temperature: Choice, choices: Sequence[Choice]) -> str:
    """The colour behind a word, as #rrggbb.

    >>> background(0.0, [0.0, 1.0]), background(1.0, [0.0, 1.0])
    ('#76b2e7', '#f5a65c')
    """
    place = 2 * warmth(temperature, choices)
    low, high, part = (COLD, NEUTRAL, place) if place <= 1 else (NEUTRAL, WARM, place - 1)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def mark(choice: Choice, choices: Sequence[Choice]) -> str:
    """What stands under a word: the temperature, where that tells the choices apart; or the name.

    >>> mark("1.2, min-p 0.1", ["0", "1.2, min-p 0.1"])
    '1.2'
    >>> mark("1.2, min-p 0.1", ["0", "1.2", "1.2, min-p 0.1"])
    '1.2, min-p 0.1'
    """
    name = label_of(choice)
    temperature = name.split(",")[0]
    others = [label_of(other).split(",")[0] for other in choices if label_of(other) != name]
    return name if temperature in others else temperature


def plain(strip: Strip) -> str:
    """The text with each temperature as a number after its piece."""
    return "".join(f"{printable(piece)}[{label_of(t)}]" for piece, t in strip.words()).strip()


def terminal(strip: Strip) -> str:
    """The text in colours, with a legend."""

    def paint(text: str, temperature: Choice) -> str:
        place = warmth(temperature, strip.choices) * (len(BLUE_TO_ORANGE) - 1)
        return f"\x1b[38;5;{BLUE_TO_ORANGE[round(place)]}m{printable(text)}\x1b[0m"

    text = "".join(paint(piece, t) for piece, t in strip.words())
    gap = between(strip.choices).strip(", ")
    legend = gap.join(paint(f" {label_of(choice)}", choice) for choice in strip.choices)
    return f"{text.strip()}\n\n{kind_of_choice(strip.choices)}:{legend}"


def html_page(strips: Sequence[Strip], title: str) -> str:
    """A page that needs nothing but itself, with a number under each word.

    It has no script, uses no network, and every piece of text is escaped.
    """
    parts = [html_legend(strips[0].choices if strips else [])]
    for strip in strips:
        parts += [element("p", element("b", strip.prompt)), html_words(strip)]
    return document(title, *parts, style=STYLE)


def html_words(strip: Strip) -> Html:
    """A paragraph of a page: the words, each on its colour and with its number, for `STYLE`."""
    parts: list[Html] = []
    for piece, temperature in strip.words():
        number = element("small", mark(temperature, strip.choices))
        parts.append(Html(" " * piece[:1].isspace()))
        parts.append(_html_word(temperature, strip.choices, piece.strip(), number))
    return element("p", *parts, class_="strip")


def html_legend(choices: Sequence[Choice]) -> Html:
    """A paragraph that says which colour is which temperature or setting."""
    words = [_html_word(choice, choices, label_of(choice)) for choice in choices]
    return element("p", f"{kind_of_choice(choices).capitalize()}: ", joined(words, " "))


def _html_word(temperature: Choice, choices: Sequence[Choice], *parts: str) -> Html:
    colour = background(temperature, choices)
    return element("span", *parts, class_="word", style=f"background:{colour}")


def lines_of(strip: Strip, columns: int = COLUMNS) -> list[list[tuple[int, str, Choice]]]:
    """Breaks a strip into lines: of each piece its first column, stripped text and temperature.

    >>> lines_of(Strip("", [" one", " two", "."], [0.0, 1.0, 1.0], [0.0, 1.0]), columns=6)
    [[(0, 'one', 0.0)], [(0, 'two', 1.0), (3, '.', 1.0)]]
    """
    lines: list[list[tuple[int, str, Choice]]] = [[]]
    column = 0
    for piece, temperature in strip.words():
        text = piece.strip()
        gap = 1 if piece[:1].isspace() and lines[-1] else 0
        # What stands under a short word may need more room than the word, which is then centred.
        width = max(len(text), int(SMALL * len(mark(temperature, strip.choices))))
        if lines[-1] and column + gap + width > columns:
            lines.append([])
            column = gap = 0
        lines[-1].append((column + gap + (width - len(text)) // 2, text, temperature))
        column += gap + width
    return lines


def legend_of(choices: Sequence[Choice]) -> list[tuple[int, int, Choice]]:
    """Where each choice stands in the legend of a drawing: its column and its line, from 0.

    >>> legend_of([0.0, 0.5])
    [(13, 0, 0.0), (18, 0, 0.5)]
    """
    places: list[tuple[int, int, Choice]] = []
    column, line = LEGEND, 0
    for choice in choices:
        if column > LEGEND and column + len(label_of(choice)) > COLUMNS:
            column, line = LEGEND, line + 1
        places.append((column, line, choice))
        column += max(5, len(label_of(choice)) + 1)
    return places


def height(strips: Sequence[Strip]) -> int:
    """How many lines `draw` fills, legend and prompts included."""
    prompts = sum(len(textwrap.wrap(strip.prompt, COLUMNS)) for strip in strips)
    legend = max((line for _, line, _ in legend_of(strips[0].choices)), default=0) if strips else 0
    return 2 + legend + prompts + sum(len(lines_of(strip)) + 1 for strip in strips)


def draw(ax: Axes, strips: Sequence[Strip]) -> str:
    """Draws the strips, the number under each word, and a legend. Returns one sentence on it."""
    ax.set(xlim=(0, COLUMNS), ylim=(height(strips), 0))
    ax.axis("off")
    font: dict[str, Any] = {"family": "monospace", "fontsize": 9, "va": "center"}

    def put(column: float, y: float, text: str, colour: str, number: str = "") -> None:
        box = (column - 0.1, y - 0.32), len(text) + 0.2, 0.64
        ax.add_patch(Rectangle(*box, facecolor=colour, edgecolor="none"))
        ax.text(column, y, text, **font)
        ax.text(column + len(text) / 2, y + 0.47, number, fontsize=5, ha="center", va="center")

    choices = strips[0].choices
    kind = kind_of_choice(choices)
    ax.text(0, 0.5, kind, **font)
    y = 0.5
    for column, n, choice in legend_of(choices):
        y = n + 0.5
        put(column, y, label_of(choice), background(choice, choices))
    y += 1.5
    for strip in strips:
        for line in textwrap.wrap(strip.prompt, COLUMNS):
            ax.text(0, y, line, **(font | {"weight": "bold"}))
            y += 1
        for pieces in lines_of(strip):
            for column, text, temperature in pieces:
                put(column, y, text, background(temperature, choices), mark(temperature, choices))
            y += 1
        y += 1
    said = f"{len(strips)} responses, each word on the colour of its {kind}"
    if kind == "setting":  # names have no mean
        return f"{said}."
    temperatures = [float(t) for strip in strips for t in strip.temperatures]
    mean = sum(temperatures) / max(1, len(temperatures))
    return f"{said}, {mean:.2f} on average over all tokens."
