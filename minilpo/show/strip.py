"""The temperature strip: a text whose every word carries its temperature (the paper's Figure 6).

Four forms of the same: plain text with names, terminal colours, a self-contained HTML page, and
matplotlib axes. Colours run from blue (cold) over white to orange (warm), which people with any
common colour-blindness can tell apart; page and axes show the names too.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from minilpo.machine.text import printable
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

    >>> strip = Strip("Tell me of a fox.", [" The", " fox", "."], [0, 1, 1], ["0.2", "0.8"])
    >>> plain(strip)
    'The[0.2] fox[0.8].[0.8]'
    """

    prompt: str
    pieces: Sequence[str]  # the tokens' texts, each with its leading space
    choice_ids: Sequence[int]  # the choice that wrote each piece
    names: Sequence[str]  # of all K choices, from cold to warm

    def words(self) -> Iterator[tuple[str, int]]:
        """Pairs each piece with its choice."""
        return zip(self.pieces, self.choice_ids, strict=True)


def warmth(k: int, K: int) -> float:
    """The place of choice k among K from cold to warm, from 0 to 1."""
    return k / max(1, K - 1)


def background(k: int, K: int) -> str:
    """The colour behind a word that choice k of K wrote, as #rrggbb.

    >>> background(0, K=2), background(1, K=2)
    ('#76b2e7', '#f5a65c')
    """
    place = 2 * warmth(k, K)
    low, high, part = (COLD, NEUTRAL, place) if place <= 1 else (NEUTRAL, WARM, place - 1)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def plain(strip: Strip) -> str:
    """Writes the text with the name of its choice after each piece."""
    return "".join(f"{printable(piece)}[{strip.names[k]}]" for piece, k in strip.words()).strip()


def terminal(strip: Strip) -> str:
    """Writes the text in colours, with a legend."""

    def paint(text: str, k: int) -> str:
        place = warmth(k, len(strip.names)) * (len(BLUE_TO_ORANGE) - 1)
        return f"\x1b[38;5;{BLUE_TO_ORANGE[round(place)]}m{printable(text)}\x1b[0m"

    text = "".join(paint(piece, k) for piece, k in strip.words())
    legend = "; ".join(paint(name, k) for k, name in enumerate(strip.names))
    return f"{text.strip()}\n\ntemperature: {legend}"


def html_page(strips: Sequence[Strip], title: str) -> str:
    """A page that needs nothing but itself, with a name under each word."""
    parts = [html_legend(strips[0].names if strips else [])]
    for strip in strips:
        parts += [element("p", element("b", strip.prompt)), html_words(strip)]
    return document(title, *parts, style=STYLE)


def html_words(strip: Strip) -> Html:
    """A paragraph of a page: the words, each on its colour and with its name, for `STYLE`."""
    parts: list[Html] = []
    for piece, k in strip.words():
        name = element("small", strip.names[k])
        parts.append(Html(" " * piece[:1].isspace()))
        parts.append(_html_word(k, len(strip.names), piece.strip(), name))
    return element("p", *parts, class_="strip")


def html_legend(names: Sequence[str]) -> Html:
    """A paragraph that says which colour is which temperature."""
    words = [_html_word(k, len(names), name) for k, name in enumerate(names)]
    return element("p", "Temperature: ", joined(words, " "))


def _html_word(k: int, K: int, *parts: str) -> Html:
    return element("span", *parts, class_="word", style=f"background:{background(k, K)}")


def lines_of(strip: Strip, columns: int = COLUMNS) -> list[list[tuple[int, str, int]]]:
    """Breaks a strip into lines: of each piece its first column, stripped text and choice.

    >>> lines_of(Strip("", [" one", " two", "."], [0, 1, 1], ["0", "1"]), columns=6)
    [[(0, 'one', 0)], [(0, 'two', 1), (3, '.', 1)]]
    """
    lines: list[list[tuple[int, str, int]]] = [[]]
    column = 0
    for piece, k in strip.words():
        text = piece.strip()
        gap = 1 if piece[:1].isspace() and lines[-1] else 0
        # What stands under a short word may need more room than the word, which is then centred.
        width = max(len(text), int(SMALL * len(strip.names[k])))
        if lines[-1] and column + gap + width > columns:
            lines.append([])
            column = gap = 0
        lines[-1].append((column + gap + (width - len(text)) // 2, text, k))
        column += gap + width
    return lines


def legend_of(names: Sequence[str]) -> list[tuple[int, int]]:
    """Finds where each name stands in the legend of a drawing: its column and its line, from 0.

    >>> legend_of(["0", "0.5"])
    [(13, 0), (18, 0)]
    """
    places: list[tuple[int, int]] = []
    column, line = LEGEND, 0
    for name in names:
        if column > LEGEND and column + len(name) > COLUMNS:
            column, line = LEGEND, line + 1
        places.append((column, line))
        column += max(5, len(name) + 1)
    return places


def height(strips: Sequence[Strip]) -> int:
    """How many lines `draw` fills, legend and prompts included."""
    prompts = sum(len(textwrap.wrap(strip.prompt, COLUMNS)) for strip in strips)
    legend = max((line for _, line in legend_of(strips[0].names)), default=0) if strips else 0
    return 2 + legend + prompts + sum(len(lines_of(strip)) + 1 for strip in strips)


def draw(ax: Axes, strips: Sequence[Strip]) -> str:
    """Draws the strips, the name under each word, and a legend. Returns one sentence on it."""
    ax.set(xlim=(0, COLUMNS), ylim=(height(strips), 0))
    ax.axis("off")
    font: dict[str, Any] = {"family": "monospace", "fontsize": 9, "va": "center"}

    def put(column: float, y: float, text: str, colour: str, under: str = "") -> None:
        box = (column - 0.1, y - 0.32), len(text) + 0.2, 0.64
        ax.add_patch(Rectangle(*box, facecolor=colour, edgecolor="none"))
        ax.text(column, y, text, **font)
        ax.text(column + len(text) / 2, y + 0.47, under, fontsize=5, ha="center", va="center")

    names = strips[0].names
    ax.text(0, 0.5, "temperature", **font)
    y = 0.5
    for k, (column, line) in enumerate(legend_of(names)):
        y = line + 0.5
        put(column, y, names[k], background(k, len(names)))
    y += 1.5
    for strip in strips:
        for words in textwrap.wrap(strip.prompt, COLUMNS):
            ax.text(0, y, words, **(font | {"weight": "bold"}))
            y += 1
        for pieces in lines_of(strip):
            for column, text, k in pieces:
                put(column, y, text, background(k, len(names)), names[k])
            y += 1
        y += 1
    return f"{len(strips)} responses, each word on the colour of its temperature."
