"""HTML pages that stand alone: no script, no network, and every text is escaped.

A part of a page is `Html`, made by `element` and the functions that build on it. Any other `str` is
a text, and `element` escapes it: a text that a model or a task wrote can't become a command.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from minilpo.machine.text import printable

# Pictures and styles may come from the page itself, and nothing may come from elsewhere.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
# Black on every colour of a temperature is easy to read, in the dark too.
WORDS = """
.strip { line-height: 2.2; }
.word { display: inline-block; max-width: 100%; overflow-wrap: anywhere; line-height: 1.2;
  padding: .1em .3em; border-radius: .25em; box-sizing: border-box; text-align: center;
  color: #000; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.word small { display: block; font-size: .7em; }
.whole { line-height: 1.6; }
.badge { margin-right: .4em; padding: .1em .6em; border-radius: 1em; }
"""
STYLE = Path(__file__).with_name("page.css").read_text("utf-8") + WORDS
WIDE = 700  # CSS pixels; a wider picture gets room beside the text, or scrolls
SHARPER = 150 / 96  # dots of a figure per CSS pixel


class Html(str):
    """A part of a page, ready to be written."""


def escaped(text: str) -> Html:
    """Escapes a text, control characters as Python writes them; leaves `Html` alone.

    >>> escaped("a < b & c"), escaped(Html("<b>"))
    ('a &lt; b &amp; c', '<b>')
    """
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def element(name: str, *parts: str, **attributes: str) -> Html:
    """Makes an element of a page. Its parts are `Html`, or texts to be escaped.

    Attributes are written as Python can: class_ for class, aria_label for aria-label.

    >>> element("p", "1 < 2, ", element("b", "true"), class_="quiet")
    '<p class="quiet">1 &lt; 2, <b>true</b></p>'
    """
    words = [name]
    for key, value in attributes.items():
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escaped(value)}"')
    opening = Html(f"<{' '.join(words)}>")
    if name == "img":  # it holds nothing and isn't closed
        return opening
    return Html(f"{opening}{''.join(map(escaped, parts))}</{name}>")


def joined(parts: Sequence[Html], between: str = "\n") -> Html:
    """Joins parts of a page."""
    return Html(between.join(parts))


def listed(items: Sequence[str]) -> Html:
    """Makes a list with a point before each item."""
    return element("ul", *[element("li", item) for item in items])


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], **attributes: str
) -> Html:
    """Makes a table; the first cell of each row is its heading. A too wide one scrolls alone.

    Cells and `heads`, the headings of the columns, are texts or `Html`.
    """
    lines = []
    for first, *others in rows:
        cells = [element("td", cell) for cell in others]
        lines.append(element("tr", element("th", first, scope="row"), *cells))
    columns = [element("th", head, scope="col") for head in heads]
    parts = (
        element("caption", element("span", caption)),
        element("thead", element("tr", *columns)),
        element("tbody", joined(lines)),
    )
    return _scrolling(element("table", *parts, **attributes), caption)


def _scrolling(part: Html, caption: str) -> Html:
    # With tabindex it can be scrolled by keys too.
    scrolls = {"class_": "scroll", "role": "region", "aria_label": caption, "tabindex": "0"}
    return element("div", part, **scrolls)


def picture(png: bytes, text: str, caption: str) -> Html:
    """Makes a figure, with its bytes in the page. `text` is for readers who can't see it."""
    image, below = _image(png, text), element("figcaption", caption)
    if _size(png)[0] <= WIDE:
        return element("figure", image, below)
    return element("figure", _scrolling(image, caption), below, class_="wide")


def pictures(pngs: Sequence[bytes], texts: Sequence[str], caption: str) -> Html:
    """Makes one figure of several small pictures: as many beside each other as there is room for.

    Each has a text for readers who can't see it.
    """
    images = [_image(png, text) for png, text in zip(pngs, texts, strict=True)]
    return element(
        "figure", element("div", *images, class_="panels"), element("figcaption", caption)
    )


def _size(png: bytes) -> tuple[float, float]:
    """Reads width and height, in CSS pixels, from where every PNG has them."""
    width, height = (int.from_bytes(png[start : start + 4], "big") / SHARPER for start in (16, 20))
    return width, height


def _image(png: bytes, text: str) -> Html:
    width, height = _size(png)  # a page that knows the size doesn't jump while it loads
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return element("img", alt=text, width=f"{width:.0f}", height=f"{height:.0f}", src=source)


def contents(chapters: dict[str, Html]) -> Html:
    """Makes chapters under their headings, and before them a list of links to them."""
    links, parts = [], []
    for number, (heading, content) in enumerate(chapters.items(), 1):
        name = f"part-{number}"
        links.append(element("li", element("a", heading, href=f"#{name}")))
        parts.append(element("section", element("h2", heading, id=name), Html("\n"), content))
    return joined([element("nav", element("ul", *links), aria_label="Contents"), *parts])


def document(title: str, *parts: str) -> str:
    """Makes a whole page of a title, which is its first heading too, and parts.

    >>> page = document("1 < 2", element("p", "Yes."))
    >>> "<h1>1 &lt; 2</h1>" in page, "<p>Yes.</p>" in page
    (True, True)
    """
    main = element("main", joined([element("h1", title), *map(escaped, parts)]))
    return PAGE.format(policy=POLICY, title=escaped(title), style=STYLE, body=main)
