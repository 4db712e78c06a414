"""A real browser, shared by all tests of the studio."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.studio.pages import SHOTS

# The same engine without the windows of a browser opens a page in a quarter of the processor time.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
# Without sandbox and GPU, and without connections that the browser opens by itself.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED in a browser: no Chromium; install chromium-headless-shell")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    # A low window needs fewer images.
    created = browser.new_context(viewport={"width": 1280, "height": 600}, accept_downloads=True)
    yield created
    created.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose console must stay free of errors."""
    created = context.new_page()
    errors: list[str] = []
    created.on("pageerror", lambda error: errors.append(str(error)))
    created.on(
        "console",
        lambda message: errors.append(message.text) if message.type == "error" else None,
    )
    yield created
    assert errors == []
