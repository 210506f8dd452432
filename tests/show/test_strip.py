"""The temperature strip in its four forms."""

import itertools
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilpo.show import plots
from minilpo.show.strip import (
    BLUE_TO_ORANGE,
    Strip,
    background,
    draw,
    has_colours,
    html_page,
    plain,
    terminal,
)

PIECES, NAMES = [" The", " fox", " sleeps", "."], ["0", "0.2", "0.4", "0.6", "0.8", "1"]
K = len(NAMES)


@given(st.lists(st.sampled_from(range(K)), min_size=4, max_size=4))
def test_words_carry_the_names_of_their_choices_or_their_colours_in_the_legend(choice_ids):
    strip = Strip("", PIECES, choice_ids, NAMES)
    shown = plain(strip)
    assert "\x1b" not in shown and re.sub(r"\[.*?\]", "", shown) == "The fox sleeps."
    assert re.findall(r"\[(.*?)\]", shown) == [NAMES[k] for k in choice_ids]
    text, legend = terminal(strip).split("\n\ntemperature: ")
    painted = r"\x1b\[38;5;(\d+)m(.*?)\x1b\[0m"
    assert re.sub(painted, r"\2", legend) == "; ".join(NAMES)
    colour_of = {name: colour for colour, name in re.findall(painted, legend)}
    assert list(colour_of) == NAMES and len(set(colour_of.values())) == K
    pairs = zip(choice_ids, PIECES, strict=True)
    assert re.findall(painted, text) == [(colour_of[NAMES[k]], piece) for k, piece in pairs]
    assert re.sub(painted, r"\2", text) == " The fox sleeps."


@pytest.mark.parametrize("names", [["0.7"], ["0", "1"], ["0.1", "0.2", "0.3"]])
def test_colours_run_from_blue_for_the_lowest_temperature_to_orange_for_the_highest(names):
    shown = terminal(Strip("", [" a"], [0], names))
    places = [BLUE_TO_ORANGE.index(int(colour)) for colour in re.findall(r";5;(\d+)m", shown)]
    assert places[0] == places[1] == 0 and places == sorted(places)
    assert len(names) == 1 or places[-1] == len(BLUE_TO_ORANGE) - 1


def test_every_piece_needs_a_temperature():
    strip = Strip("", PIECES, [0], NAMES)
    for form in (plain, terminal, lambda strip: html_page([strip], "")):
        with pytest.raises(ValueError):
            form(strip)


def linear_of(colour):
    """Red, green and blue of #rrggbb in linear light, as accessible web pages define it."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def test_black_text_is_easy_to_read_on_every_colour():
    for k in range(K):  # the strictest level asks for a contrast of 7
        assert (linear_of(background(k, K)) @ [0.2126, 0.7152, 0.0722] + 0.05) / 0.05 > 7


def test_cold_and_warm_differ_for_the_colour_blind():
    """Machado and others (2009): the colours that red- and green-blind people see."""
    red = [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]
    green = [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]
    parts = [[int(background(k, K)[i : i + 2], 16) / 255 for i in (1, 3, 5)] for k in range(K)]
    blues = [-0.003882, -0.048116, 1.051998], [-0.011820, 0.042940, 0.968881]
    for (to_red, to_green), to_blue in zip((red, green), blues, strict=True):
        colours = np.array(parts) @ np.array([to_red, to_green, to_blue]).T
        assert all(np.linalg.norm(a - b) > 0.08 for i, a in enumerate(colours) for b in colours[:i])
        assert np.linalg.norm(colours[0] - colours[-1]) > 0.4


VOID = {"meta", "img", "wbr"}


class Reader(HTMLParser):
    """The contents of a page; fails if an element isn't closed where it should be."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(page)
        self.text = " ".join(self.text.split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


NASTY = ["<script>alert(1)</script>", '" onmouseover="x', "&amp;", "</style>", "'"]


def test_a_page_stands_alone_and_escapes_every_text():
    page = html_page([Strip(" ".join(NASTY), NASTY, [0] * 5, ["0", "1"])], NASTY[0])
    read = Reader(page)
    assert not {"script", "link", "img", "iframe"} & set(read.tags)
    names = {name for _, attributes in read.attributes for name in attributes}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "style"}
    assert "://" not in page and "url(" not in page
    assert all(text in read.text for text in NASTY)


def test_a_page_shows_every_word_with_its_temperature_and_a_legend():
    read = Reader(html_page([Strip("Speak!", PIECES, [0, 4, 5, 1], NAMES)], "Words"))
    assert "The0 fox0.8 sleeps1.0.2" in read.text and "Speak!" in read.text
    assert "Temperature: 0 0.2 0.4 0.6 0.8 1" in read.text
    colours = [span["style"].split(":")[1] for span in read.all("span")]
    assert len(set(colours[:6])) == 6 and colours[6:] == [background(k, K) for k in (0, 4, 5, 1)]
    page = html_page([Strip("Speak!", PIECES, [4] * 4, NAMES)], "Words")
    read = Reader(page)  # one badge stands before a response that one temperature wrote
    assert "t=0.8 The fox sleeps." in read.text and read.tags.count("small") == 0
    assert page.count(background(4, K)) == 2  # in the legend and on the badge


@pytest.mark.parametrize(
    "is_terminal, environment, colours",
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "0"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm-256color"}, True),
        (False, {"TERM": "xterm-256color"}, False),
    ],
)
def test_colours_are_for_terminals_that_show_them(is_terminal, environment, colours, monkeypatch):
    monkeypatch.setattr(os, "environ", environment)
    assert has_colours(SimpleNamespace(isatty=lambda: is_terminal)) == colours


def test_the_drawing_has_every_word_and_name_inside_its_axes_and_none_over_another():
    strips = [Strip("Speak!", PIECES * 12, [0, 4, 5, 1] * 12, NAMES)] * 2
    fig, [[ax]] = plots.figure(1, 1, width=6.2)
    assert "2 responses" in draw(ax, strips)
    texts = [text.get_text() for text in ax.texts]
    counts = [texts.count(text) for text in ("sleeps", "0.8", "Speak!", "temperature")]
    assert counts == [24, 24 + 1, 2, 1]
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() not in NAMES]
    assert all(fig.bbox.x0 < box.x0 and box.x1 < fig.bbox.x1 for box in boxes)
    assert all(0 < box.y0 and box.y1 < fig.bbox.y1 for box in boxes)
    for before, box in itertools.pairwise(boxes):
        assert box.x0 >= before.x1 - 1 or box.y1 < before.y0  # pixels
