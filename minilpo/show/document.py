"""HTML pages that stand alone: no script, no network, and every text is escaped.

`fill` makes each part of a page from a template. It escapes all values but `Html`, so a text that a
model or a task wrote can't become a command.
"""

import base64
import html
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilpo import __version__
from minilpo.machine.text import printable

FOLDER = Path(__file__).parent
WORDS = (FOLDER / "words.css").read_text("utf-8")
WIDE = 700  # CSS pixels; a wider picture gets room beside the text, or scrolls
SHARPER = 150 / 96  # dots of a figure per CSS pixel


class Html(str):
    """A part of a page, ready to be written."""


class _Filler(string.Formatter):
    """Escapes values, control characters as Python writes them. A list's items are joined."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list):
            return "".join(self.format_field(item, format_spec) for item in value)
        if isinstance(value, Html):
            return value
        return html.escape(printable(format(value, format_spec)))


def fill(template: str, *values: Any, **named: Any) -> Html:
    """Fills a template as `str.format` does, and escapes each value that isn't `Html`.

    >>> fill("<p>{}, {n:.1f} {word}</p>", "1 < 2", n=3.14, word=fill("<b>{}</b>", "&"))
    '<p>1 &lt; 2, 3.1 <b>&amp;</b></p>'
    """
    return Html(_Filler().vformat(template, values, named))


def document(title: str, *parts: Html) -> str:
    """Makes a whole page of a title, which is its first heading too, and parts.

    >>> page = document("1 < 2", fill("<p>Yes.</p>"))
    >>> "<h1>1 &lt; 2</h1>" in page, "<p>Yes.</p>" in page
    (True, True)
    """
    frame = (FOLDER / "frame.html").read_text("utf-8")
    style = Html((FOLDER / "page.css").read_text("utf-8") + WORDS)
    return fill(frame, title=title, style=style, body=[*parts], version=__version__)


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "numbers"
) -> Html:
    """Makes a table; the first cell of each row is its heading. A too wide one scrolls alone.

    `heads` are the headings of the columns, `kind` is a class of `page.css`.
    """
    lines = []
    for first, *others in rows:
        cells = [fill("<td>{}</td>", cell) for cell in others]
        lines.append(fill('<tr><th scope="row">{}</th>{}</tr>\n', first, cells))
    columns = [fill('<th scope="col">{}</th>', head) for head in heads]
    parts = (
        '<table class="{}"><caption><span>{}</span></caption><thead><tr>{}</tr></thead>\n{}</table>'
    )
    return _scrolling(fill(parts, kind, caption, columns, lines), caption)


def _scrolling(part: Html, name: str, kind: str = "scroll") -> Html:
    # With tabindex it can be scrolled by keys too.
    region = '<div class="{}" role="region" aria-label="{}" tabindex="0">{}</div>\n'
    return fill(region, kind, name, part)


def pictures(pngs: Sequence[bytes], texts: Sequence[str]) -> Html:
    """Puts pictures into the page: as many beside each other as there is room for.

    Each has a text for readers who can't see it. A single wide one scrolls where it is too wide.
    """
    images, width = [], 0.0
    for png, text in zip(pngs, texts, strict=True):
        # Every PNG has its size there. A page that knows it doesn't jump while it loads.
        width, height = (int.from_bytes(png[i : i + 4], "big") / SHARPER for i in (16, 20))
        image = '<img alt="{}" width="{:.0f}" height="{:.0f}" src="data:image/png;base64,{}">\n'
        images.append(fill(image, text, width, height, base64.b64encode(png).decode()))
    if len(images) == 1 and width > WIDE:
        return _scrolling(images[0], "Figure", "scroll wide")
    return fill('<div class="panels">{}</div>\n', images)


def contents(chapters: dict[str, Html]) -> Html:
    """Makes chapters under their headings, and before them a list of links to them."""
    links, sections = [], []
    for number, (heading, chapter) in enumerate(chapters.items(), 1):
        links.append(fill('<li><a href="#part-{}">{}</a></li>\n', number, heading))
        section = '<section><h2 id="part-{}">{}</h2>\n{}</section>\n'
        sections.append(fill(section, number, heading, chapter))
    return fill('<nav aria-label="Contents"><ul>\n{}</ul></nav>\n{}', links, sections)
