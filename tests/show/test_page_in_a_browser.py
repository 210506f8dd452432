"""`report.html` as a browser shows it: quiet, readable, and never wider than the window."""

import pytest

from minilpo.show.strip import Strip
from tests.browser import chromium, visit  # noqa: F401
from tests.show.conftest import FOUR
from tests.show.test_page import NASTY, page_of, responses, whole, words  # noqa: F401

CODE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def address(metrics, responses, drawn, tmp_path_factory):  # noqa: F811
    """A page with long and hostile responses."""
    texts = [*NASTY, CODE, "x" * 200, "many words " * 40]
    hostile = [(CODE, 0.5, words(text, 2, prompt=text)) for text in texts]
    cold_to_warm = Strip("All", [f" {name}" for name in FOUR.names], range(4), FOUR.names)
    shown = responses[0], hostile, [("ant", 0.0, cold_to_warm)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(metrics, shown, shown=drawn.pictures), encoding="utf-8")
    return path.as_uri()


def test_the_page_shows_every_picture_is_quiet_and_asks_for_nothing(chromium, address):  # noqa: F811
    with visit(chromium, address) as opened:
        opened.page.wait_for_load_state("networkidle")
        opened.assert_quiet(address)
        assert "run of minilpo" in opened.page.title()  # no code in a response was run
        widths = opened.page.eval_on_selector_all("img", "found => found.map(i => i.naturalWidth)")
        assert len(widths) == 11 and min(widths) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_easy_to_read_and_nobody_scrolls_sideways(chromium, address, scheme):  # noqa: F811
    with visit(chromium, address, color_scheme=scheme) as opened:
        assert opened.low_contrast() == [] and opened.too_wide() == []


def test_the_policy_of_the_page_stops_a_script_that_got_in_all_the_same(
    chromium,  # noqa: F811
    whole,  # noqa: F811
    tmp_path,
):
    path = tmp_path / "spoiled.html"
    path.write_text(whole.replace("</main>", f"{CODE}</main>"), encoding="utf-8")
    with visit(chromium, path.as_uri()) as opened:
        assert opened.page.title() != "run" and "Content Security Policy" in opened.messages[0]


def test_a_table_too_wide_for_a_telephone_shows_it_and_scrolls_by_keys(chromium, address):  # noqa: F811
    narrow = {
        "viewport": {"width": 200, "height": 900},
        "bypass_csp": True,
    }  # `wait_for` needs eval
    with visit(chromium, address, **narrow) as opened:
        region = opened.page.locator("div.scroll").first
        style = "region => getComputedStyle(region).backgroundAttachment"
        # A shadow at each edge, and a cover that moves away from it with the content.
        assert region.evaluate(style) == "local, local, scroll, scroll"
        region.focus()
        opened.page.keyboard.press("ArrowRight")
        opened.page.wait_for_function("document.querySelector('div.scroll').scrollLeft > 0")
