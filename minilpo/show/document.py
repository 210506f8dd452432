"""HTML pages that stand alone: no script, no network, and every text is escaped.

A part of a page is `Html`, made by `element` and the functions that build on it. Any other `str` is
a text, and `element` escapes it: nothing that a model or a task wrote can become a command.
"""

import base64
import html
from collections.abc import Sequence

from minilpo.machine.text import printable

# Of pictures and styles only those in the page itself; of everything else, nothing.
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
STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2.5rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3.5rem 0 1rem; padding-top: 1.2rem;
  border-top: 1px solid #d8d8d8; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
a { color: #0b5a8e; }
code { font: .9em ui-monospace, monospace; }
ol, ul { padding-left: 1.5rem; }
li { margin: .35rem 0; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li { display: inline-block; margin: 0 1.2rem .2rem 0; }
.verdict { font-size: 1.15rem; padding: .8rem 1rem; background: #f2f5f8;
  border-left: 4px solid #0b5a8e; }
.quiet { color: #595959; font-size: .9rem; }
.scroll { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: #595959; padding-bottom: .5rem; }
caption span { display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: .35rem .55rem; border-bottom: 1px solid #d8d8d8; text-align: right;
  vertical-align: top; }
thead th { border-bottom: 2px solid #8a8a8a; vertical-align: bottom; }
tr > :first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: normal; }
.plain th, .plain td { text-align: left; }
.settings code { white-space: nowrap; }
.settings td:nth-child(2) { overflow-wrap: anywhere; min-width: 5rem; }
figure { margin: 2rem 0; }
figcaption { color: #595959; font-size: .9rem; }
img { display: block; max-width: 100%; height: auto; }
@media (min-width: 60rem) {
  .wide { width: min(100vw - 4rem, 80rem); margin-left: calc(50% - min(50vw - 2rem, 40rem)); }
  .wide figcaption { max-width: 44rem; margin: 0 auto; }
}
@media (max-width: 60rem) {
  .wide img { max-width: none; width: 52rem; }
}
@media (max-width: 30rem) {
  table { font-size: .8rem; }
  th, td { padding: .35rem .3rem; }
}
@media print {
  body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .response { break-inside: avoid; }
  .scroll { overflow: visible; }
  .wide { width: auto; margin-left: 0; }
  .wide img { width: auto; max-width: 100%; }
}
"""
WIDE = 700  # CSS pixels; a broader picture has room beside the text, or scrolls
SHARPER = 150 / 96  # figures are drawn with so many dots per CSS pixel


class Html(str):
    """A part of a page, as it stands there."""


def escaped(text: str) -> Html:
    """A text as a page shows it, control characters as Python writes them; `Html` is left alone.

    >>> escaped("a < b & c"), escaped(Html("<b>"))
    ('a &lt; b &amp; c', '<b>')
    """
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def element(name: str, *parts: str, **attributes: str) -> Html:
    """An element of a page: its parts are `Html`, or texts to be escaped.

    Attributes are written as Python can: class_ for class, aria_label for aria-label.

    >>> element("p", "1 < 2, ", element("b", "true"), class_="quiet")
    '<p class="quiet">1 &lt; 2, <b>true</b></p>'
    """
    return Html(f"<{_opening(name, attributes)}>{''.join(map(escaped, parts))}</{name}>")


def _opening(name: str, attributes: dict[str, str]) -> str:
    words = [name]
    for key, value in attributes.items():
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escaped(value)}"')
    return " ".join(words)


def joined(parts: Sequence[Html], between: str = "\n") -> Html:
    """Parts one after the other."""
    return Html(between.join(parts))


def listed(items: Sequence[str]) -> Html:
    """A list with a point before each item."""
    return element("ul", *[element("li", item) for item in items])


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], **attributes: str
) -> Html:
    """A table; the first cell of each row is its heading. Where it is too wide, it scrolls alone.

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
    """A figure, its bytes within the page. `text` tells those who can't see it what it shows."""
    # Where every PNG says how large it is: a page that knows doesn't jump while it loads.
    width, height = (int.from_bytes(png[start : start + 4], "big") / SHARPER for start in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    image = Html(f"<{_opening('img', {'alt': text, **size, 'src': source})}>")
    below = element("figcaption", caption)
    if width <= WIDE:
        return element("figure", image, below)
    return element("figure", _scrolling(image, caption), below, class_="wide")


def contents(chapters: dict[str, Html]) -> Html:
    """Chapters under their headings, and before them a list of links to them."""
    links, parts = [], []
    for number, (heading, content) in enumerate(chapters.items(), 1):
        name = f"part-{number}"
        links.append(element("li", element("a", heading, href=f"#{name}")))
        parts.append(element("section", element("h2", heading, id=name), Html("\n"), content))
    return joined([element("nav", element("ul", *links), aria_label="Contents"), *parts])


def document(title: str, *parts: str, style: str = "") -> str:
    """A whole page: its title, which is its first heading too, and parts. Styled beyond `STYLE`.

    >>> page = document("1 < 2", element("p", "Yes."))
    >>> "<h1>1 &lt; 2</h1>" in page, "<p>Yes.</p>" in page
    (True, True)
    """
    main = element("main", joined([element("h1", title), *map(escaped, parts)]))
    return PAGE.format(policy=POLICY, title=escaped(title), style=STYLE + style, body=main)
