"""A browser for the tests of pages, with everything that it says and asks for kept.

A test that takes the `chromium` fixture is skipped where there is no browser, or no playwright to
drive it. Where MINILPO_TEST_BROWSER=required is set, it fails instead: then nothing is left out.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--no-first-run", "--disable-dev-shm-usage"),
]
WIDTHS = (390, 1280, 1920)  # pixels: a telephone, a laptop, a projector
CONTRAST = 4.5  # WCAG AA for text; 3 is enough for large text
LOW_CONTRAST = Path(__file__).with_name("low_contrast.js").read_text("utf-8")


@pytest.fixture(scope="module")
def chromium():
    """A running browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return give_up("playwright isn't installed (pip install playwright)")
    with sync_playwright() as playwright:
        paths = [shutil.which(name) for name in BROWSERS]
        paths.append(playwright.chromium.executable_path)
        there = [path for path in paths if path and Path(path).exists()]
        if not there:
            return give_up("no Chromium or Chrome is installed (playwright install chromium)")
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # it refuses a sandbox of its own
        arguments = [*ARGUMENTS, "--no-sandbox"] if is_root else ARGUMENTS
        browser = playwright.chromium.launch(executable_path=there[0], args=arguments)
        yield browser
        browser.close()


def give_up(reason: str) -> None:
    """Skips the test, or fails if a browser is required."""
    if os.environ.get("MINILPO_TEST_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


class Visit:
    """A page, and what was said and asked for since it was opened."""

    def __init__(self, page):
        self.page, self.messages, self.errors, self.requests = page, [], [], []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", self._refuse)

    def _refuse(self, dialog) -> None:
        self.errors.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def assert_quiet(self, address: str) -> None:
        """Asserts that nothing was complained of, and nothing beyond an address was asked for."""
        assert self.messages == [] and self.errors == []
        assert [url for url in self.requests if not url.startswith((address, "data:"))] == []

    def low_contrast(self) -> list[str]:
        """Finds visible texts that are hard to read by WCAG AA, each with its contrast."""
        return self.page.evaluate(LOW_CONTRAST, [CONTRAST, 3.0])

    def too_wide(self) -> list[int]:
        """Finds the widths of the window, out of `WIDTHS`, at which one has to scroll sideways."""
        found = []
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            scrolls = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            if self.page.evaluate(scrolls):
                found.append(width)
        return found


@contextlib.contextmanager
def visit(browser, address: str, **options):
    """Opens a page in a browser that remembers nothing; options are those of playwright."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(15_000)
    try:
        opened = Visit(context.new_page())
        opened.page.goto(address)
        yield opened
    finally:
        context.close()
