"""Actions on pages of the studio. Screenshots go to test-output/studio."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.helpers.server import ROOT, Server

SHIFTS = """new PerformanceObserver((list) => {
  window.shifts = (window.shifts ?? []).concat(list.getEntries().map(({ value, sources }) => (
    [value, ...sources.map(({ node }) => node?.id || node?.nodeName)]
  )));
}).observe({ type: "layout-shift", buffered: true })"""
"""Notes what moves on a page, and by how much; what follows a click at once is among it."""
SHOTS = ROOT / "test-output" / "studio"
SHOWN = (
    "() => [...document.querySelectorAll('#grid img')]"
    ".filter((image) => image.complete && image.naturalWidth > 1).length"
)


def until(page: Page, condition: str, seconds: float = 10) -> Any:
    """Wait for a JavaScript condition, and return its value.

    Playwright's own waiting evaluates strings in the page, which its security policy forbids.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := page.evaluate(condition):
            return answer
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {condition}")


def arrived(page: Page, found: list[Any], count: int = 1) -> None:
    """Wait until an event handler of the page has put so many items into ``found``."""
    end = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < end, found
        page.wait_for_timeout(20)  # handlers run meanwhile


def drawn(page: Page) -> None:
    """Wait for two frames: what the page does with the events so far is visible then."""
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def open_studio(page: Page, server: Server, query: str = "") -> None:
    page.goto(f"{server.url}/{query}")
    until(page, f"() => ({SHOWN})() >= 12")


def sources(page: Page) -> list[str]:
    """Addresses of the images in the grid, those that have not come yet too."""
    found: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('#grid img')].map((image) => image.dataset.source)"
    )
    return found


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def chip(page: Page, attribute_: str, value: str) -> None:
    """Choose a value of an attribute."""
    page.locator("#attributes fieldset", has_text=attribute_).get_by_label(value, exact=True).check(
        force=True
    )


def pin_two(page: Page, server: Server) -> None:
    open_studio(page, server, "?seed=5")
    for nth, end in ((0, "start"), (1, "end")):
        page.click(f"#grid a >> nth={nth}")
        page.click(f"[data-pin={end}]")
        page.keyboard.press("Escape")
    expect(page.locator("#film")).to_be_visible()
