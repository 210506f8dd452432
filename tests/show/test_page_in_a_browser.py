"""`report.html` as a browser shows it: quiet, readable, and never wider than the window."""

import pytest

from minilpo.show.page import Shown, run_page
from minilpo.show.strip import Strip
from tests.browser import chromium, visit  # noqa: F401
from tests.show.test_page import FOUR_NAMES, NASTY, metrics, whole, words  # noqa: F401

CODE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def address(whole, tmp_path_factory):  # noqa: F811
    """A page with long and hostile responses."""
    texts = [*NASTY, CODE, "x" * 200, "many words " * 40]
    hostile = [Shown(CODE, 0.5, words(text, 2, prompt=text)) for text in texts]
    cold_to_warm = Strip("All", [f" {name}" for name in FOUR_NAMES], range(4), FOUR_NAMES)
    responses = whole["responses"][0], hostile, [Shown("ant", 0.0, cold_to_warm)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(run_page(**whole | {"responses": responses}), encoding="utf-8")
    return path.as_uri()


def test_the_page_is_quiet_and_asks_for_nothing(chromium, address):  # noqa: F811
    with visit(chromium, address) as opened:
        opened.page.wait_for_load_state("networkidle")
        opened.assert_quiet(address)
        assert "run of minilpo" in opened.page.title()  # no code in a response was run


def test_every_picture_is_shown(chromium, address):  # noqa: F811
    with visit(chromium, address) as opened:
        widths = opened.page.eval_on_selector_all("img", "found => found.map(i => i.naturalWidth)")
        assert len(widths) == 11 and min(widths) > 0


def test_the_page_never_scrolls_sideways(chromium, address):  # noqa: F811
    with visit(chromium, address) as opened:
        assert opened.too_wide() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_easy_to_read(chromium, address, scheme):  # noqa: F811
    with visit(chromium, address, color_scheme=scheme) as opened:
        assert opened.low_contrast() == []


def test_the_policy_of_the_page_stops_a_script_that_got_in_all_the_same(
    chromium,  # noqa: F811
    address,
    whole,  # noqa: F811
    tmp_path,
):
    path = tmp_path / "spoiled.html"
    path.write_text(run_page(**whole).replace("</main>", f"{CODE}</main>"), encoding="utf-8")
    with visit(chromium, path.as_uri()) as opened:
        assert opened.page.title() != "run" and "Content Security Policy" in opened.messages[0]


def test_a_table_too_wide_for_a_telephone_shows_it_and_scrolls_by_keys(chromium, address):  # noqa: F811
    with visit(chromium, address, viewport={"width": 200, "height": 900}) as opened:
        region = opened.page.locator("div.scroll").first
        style = "region => getComputedStyle(region).backgroundAttachment"
        # A shadow at each edge, and a cover that moves away from it with the content.
        assert region.evaluate(style) == "local, local, scroll, scroll"
        region.focus()
        for _ in range(50):  # keys scroll smoothly: it takes some frames
            opened.page.keyboard.press("ArrowRight")
            opened.page.wait_for_timeout(20)
        assert region.evaluate("region => region.scrollLeft") > 0
