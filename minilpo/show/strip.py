"""The temperature strip: a text whose every word carries its temperature (the paper's Figure 6).

It has four forms: plain text with names, terminal colours, HTML and matplotlib axes. Colours run
from blue (cold) over white to orange (warm): people with any common colour-blindness can tell them
apart. HTML and axes show the names too.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from matplotlib.axes import Axes

from minilpo.machine.text import printable
from minilpo.show.document import WORDS, Html, document, fill

BLUE_TO_ORANGE = (27, 69, 111, 152, 223, 215, 208)  # of a terminal's 256 colours
# Black text is easy to read on these.
COLD, NEUTRAL, WARM = (118, 178, 231), (247, 247, 247), (245, 166, 92)
COLUMNS = 78  # characters per line of a drawing
SMALL = 5 / 9  # the size of a name under a word, beside the word's
STYLE = WORDS  # for `html_strips` in a notebook


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
        """Gives each piece with its choice."""
        return zip(self.pieces, self.choice_ids, strict=True)


def background(k: int, K: int) -> str:
    """Picks the colour behind a word that choice k of K wrote, as #rrggbb.

    >>> background(0, K=2), background(1, K=2)
    ('#76b2e7', '#f5a65c')
    """
    place = 2 * k / max(1, K - 1)
    low, high, part = (COLD, NEUTRAL, place) if place <= 1 else (NEUTRAL, WARM, place - 1)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def plain(strip: Strip) -> str:
    """Writes the text with the name of its choice after each piece."""
    return "".join(f"{printable(piece)}[{strip.names[k]}]" for piece, k in strip.words()).strip()


def terminal(strip: Strip) -> str:
    """Writes the text in colours, with a legend."""

    def paint(text: str, k: int) -> str:
        place = round(k / max(1, len(strip.names) - 1) * (len(BLUE_TO_ORANGE) - 1))
        return f"\x1b[38;5;{BLUE_TO_ORANGE[place]}m{printable(text)}\x1b[0m"

    text = "".join(paint(piece, k) for piece, k in strip.words())
    names = "; ".join(paint(name, k) for k, name in enumerate(strip.names))
    return f"{text.strip()}\n\ntemperature: {names}"


def has_colours(stream: TextIO) -> bool:
    """Tells whether a stream shows colours: a terminal that isn't "dumb", if nobody objects.

    NO_COLOR objects (https://no-color.org): set to anything but an empty text.
    """
    is_dumb = os.environ.get("TERM") == "dumb"
    return stream.isatty() and not is_dumb and not os.environ.get("NO_COLOR")


def html_page(strips: Sequence[Strip], title: str) -> str:
    """Makes a page that stands alone, with a legend and each prompt over its response."""
    return document(title, html_strips(strips))


def html_strips(strips: Sequence[Strip]) -> Html:
    """Makes a legend, then each prompt over its response, in the style `STYLE`."""
    parts = [html_legend(strips[0].names)] if strips else []
    for strip in strips:
        parts.append(fill("<p><b>{}</b></p>\n{}", strip.prompt, html_words(strip)))
    return fill("{}", parts)


def html_words(strip: Strip) -> Html:
    """Makes a paragraph of the words, in the style `STYLE`.

    Each word stands on its colour, over its name. Where one choice wrote all of them, they stand
    behind one badge with its colour and name instead.
    """
    words, K = list(strip.words()), len(strip.names)
    if len({k for _, k in words}) == 1:
        k = words[0][1]
        badge = _on_colour(f"t={strip.names[k]}", k, K, "word badge")
        return fill('<p class="strip whole">{} {}</p>\n', badge, "".join(strip.pieces).strip())
    spans = []
    for piece, k in words:
        word = fill("{}<small>{}</small>", piece.strip(), strip.names[k])
        spans += [" " * piece[:1].isspace(), _on_colour(word, k, K)]
    return fill('<p class="strip">{}</p>\n', spans)


def html_legend(names: Sequence[str]) -> Html:
    """Makes a paragraph that says which colour is which temperature."""
    words = [fill(" {}", _on_colour(name, k, len(names))) for k, name in enumerate(names)]
    return fill("<p>Temperature:{}</p>\n", words)


def _on_colour(word: str, k: int, K: int, kind: str = "word") -> Html:
    return fill('<span class="{}" style="background:{}">{}</span>', kind, background(k, K), word)


def draw(ax: Axes, strips: Sequence[Strip]) -> str:
    """Draws a legend, then strips with the name under each word. Returns one sentence on it.

    The figure of `ax` becomes as high as they need.
    """
    font: dict[str, Any] = {"family": "monospace", "fontsize": 9, "va": "center"}
    names, y = strips[0].names, 0.5
    legend = Strip("temperature", [f" {name}" for name in names], range(len(names)), names)
    for strip in (legend, *strips):
        of_prompt: list[tuple[str, int | None]] = [
            (f" {word}", None) for word in strip.prompt.split()
        ]
        for words in (of_prompt, strip.words()):
            column = 0
            for piece, k in words:
                text, name = piece.strip(), "" if k is None else names[k]
                # The name under a short word may need more room than the word, which is centred.
                width = max(len(text), int(SMALL * len(name)))
                column += piece[:1].isspace() and column > 0
                if column and column + width > COLUMNS:
                    column, y = 0, y + 1
                place = column + (width - len(text)) // 2
                looks: dict[str, Any] = {"weight": "bold"}
                if k is not None:
                    colour = background(k, len(names))
                    looks = {"bbox": {"facecolor": colour, "edgecolor": "none", "pad": 1.5}}
                    below = place + len(text) / 2, y + 0.47, "" if name == text else name
                    ax.text(*below, fontsize=5, ha="center", va="center")
                ax.text(place, y, text, **font, **looks)
                column += width
            y += 1
        y += 0.5
    ax.set(xlim=(0, COLUMNS), ylim=(y, 0))
    ax.axis("off")
    ax.figure.set_figheight(0.28 * (y + 1))  # type: ignore[union-attr]  # inches, with a title
    return f"{len(strips)} responses, each word on the colour of its temperature."
