"""The studio with failing servers, incomplete answers, hostile texts and API keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, Route, expect

from tests.conftest import attribute, manifest
from tests.helpers.onnx_files import model, put, verifier
from tests.helpers.server import Server, serve
from tests.studio.pages import SHOTS, SHOWN, arrived, chip, open_studio, sources, until

pytestmark = [pytest.mark.browser, pytest.mark.server]


HOSTILE = "<img src=x onerror=alert(1)>", "\"'`; alert(2) //", "</option><script>alert(3)</script>"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model with a verifier, and one of hostile texts."""
    folder = tmp_path_factory.mktemp("models")
    eyes = manifest(attribute("eyes", "red", "blue"), name="eyes")
    path = put(folder, "eyes", 1, model(eyes))
    path.with_name("verifier.onnx").write_bytes(verifier(("eyes", 2)))
    put(folder, "odd", 1, model(manifest(attribute("<b>name</b>", *HOSTILE), name="odd")))
    with serve("--models", str(folder)) as running:
        yield running


def test_rejected_request_shows_its_reason(context: BrowserContext, small: Server) -> None:
    page = context.new_page()  # which complains to its console of a 422
    page.goto(f"{small.url}/?model=eyes&verify=0.9999999")
    told = page.locator("#found")  # after a search of thousands of images
    expect(told).to_contain_text("never saw the labels that were drawn", timeout=20_000)
    page.select_option("#verify", "0")
    expect(told).to_have_text("")
    until(page, f"() => ({SHOWN})() >= 12")


def test_unreachable_server_is_shown_and_retried(context: BrowserContext, tmp_path: Path) -> None:
    page = context.new_page()  # which complains to its console that nobody answers
    page.clock.install()
    put(tmp_path, "tiny", 1, model(manifest()))
    with serve("--models", str(tmp_path)) as first:
        port = first.url.rpartition(":")[2]
        open_studio(page, first)
    page.fill("#seed", "9")
    expect(page.locator("#trouble")).to_contain_text("cannot be reached", timeout=10_000)
    page.screenshot(path=SHOTS / "away.png")
    with serve("--models", str(tmp_path), "--port", port):
        page.clock.fast_forward(10_000)  # of the wait until the next retry
        expect(page.locator("#trouble")).to_be_hidden(timeout=20_000)
        until(page, f"() => ({SHOWN})() >= 12", 20)
        shown = page.evaluate("() => document.querySelector('#grid img').dataset.source")
        assert shown == "/images/tiny/1/9/0.png"


def test_busy_server_is_retried_after_retry_after(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    busy = True
    refused: list[float] = []

    def answer(route: Route) -> None:
        if not busy:
            route.continue_()
            return
        refused.append(time.monotonic())
        body = json.dumps({"status": 429, "detail": "no room for 1 images"})
        route.fulfill(status=429, headers={"Retry-After": "1"}, body=body)

    page.route("**/images/**", answer)
    page.goto(f"{server.url}/")
    expect(page.locator("#trouble")).to_contain_text("no room for 1 images Retrying in 1 s.")
    first = len(set(sources(page)))
    arrived(page, refused, first + 2)
    # Each image once, and then one in a second.
    assert len(refused) <= first + 2 + refused[-1] - refused[0]
    busy = False
    until(page, f"() => ({SHOWN})() >= 12", 20)
    expect(page.locator("#trouble")).to_be_hidden()


def test_failed_image_keeps_its_place_and_says_why(context: BrowserContext, server: Server) -> None:
    page = context.new_page()  # which complains to its console of a 500
    problem = json.dumps({"status": 500, "detail": "The model failed."})
    page.route("**/images/*/*/*/3.png", lambda route: route.fulfill(status=500, body=problem))
    open_studio(page, server)
    failed = page.locator("#grid img >> nth=3")
    expect(failed).to_have_attribute("alt", "The model failed. Image 3, labels as drawn")
    page.screenshot(path=SHOTS / "failed.png")
    height = "(image) => image.getBoundingClientRect().height"
    assert failed.evaluate(height) == page.locator("#grid img >> nth=2").evaluate(height)


def test_incomplete_answer_is_retried(page: Page, server: Server) -> None:
    open_studio(page, server)
    cuts: list[str] = []

    def cut(route: Route) -> None:
        if cuts:
            route.continue_()
        else:
            cuts.append(route.request.url)
            route.fulfill(status=200, content_type="application/json", body='{"images": [')

    page.route("**/generate", cut)
    page.select_option("#verify", "0.5")
    until(page, "() => document.querySelector('#found').textContent.includes('confirmed')")
    assert len(cuts) == 1


def test_pin_of_another_model_says_why_it_fails(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_studio(page, server, "?model=digits&start=seed%3D1%26index%3D0%26label%3Dred+eyes")
    until(page, "() => document.querySelector('#pin-start').alt.includes(\"label 'red eyes'\")")
    page.wait_for_load_state("networkidle")
    assert sum("red+eyes" in url for url in asked) <= 3


def test_texts_of_models_and_links_are_escaped(page: Page, small: Server) -> None:
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    page.goto(f"{small.url}/?model=%3Cscript%3Ealert(4)%3C/script%3E&label.x=%3Cimg%20src=x%3E")
    expect(page.locator("#notice")).to_contain_text("no model <script>alert(4)</script>")
    page.select_option("#model", "odd")
    until(page, "() => document.querySelector('#grid img')?.src.includes('/images/odd/')")
    until(page, f"() => ({SHOWN})() >= 12")
    for text in (*HOSTILE, "<b>name</b>"):
        assert text in page.locator("#attributes").inner_text()
    with page.expect_response("**/images/**"):
        chip(page, "<b>name</b>", HOSTILE[0])
    until(page, f"() => ({SHOWN})() >= 12")
    page.click("#grid a >> nth=1")
    expect(page.locator("#labels")).to_contain_text(HOSTILE[0])
    page.keyboard.press("Escape")
    page.click("#show-card")
    expect(page.locator("#card-title")).to_have_text("odd, version 1")
    assert page.locator("#attributes b, #attributes img, #labels img, #card b").count() == 0
    assert dialogs == []


def test_key_dialog(context: BrowserContext, tmp_path: Path) -> None:
    eyes = attribute("eyes", "red", "blue")
    put(tmp_path, "tiny", 1, model(manifest(eyes)))
    page = context.new_page()  # which complains to its console of a 401
    key = "figment_for-the-studio"
    with serve("--models", str(tmp_path), "--api-keys", f"me:{key}") as server:
        page.goto(server.url)
        dialog = page.locator("#key")
        expect(dialog).to_be_visible()
        page.screenshot(path=SHOTS / "key.png")
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()  # there is nothing to see without
        page.fill("#key-given", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-why")).to_contain_text("no such API key")
        page.fill("#key-given", key)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        until(page, f"() => ({SHOWN})() >= 12")
        # Images of their own, neighbours and what is taken home all carry the key along.
        page.click("#grid a >> nth=2")
        until(page, "() => document.getElementById('large').naturalWidth > 1")
        until(page, "() => document.querySelectorAll('#neighbours:not([inert]) img').length === 10")
        expect(page.locator("#curl")).to_contain_text("Bearer $FIGMENT_API_KEY")
        for link in ("#save", "#address"):
            with page.expect_download() as download:
                page.click(link)
            assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
        page.keyboard.press("Escape")
        page.fill("#count", "20")
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.path().stat().st_size > 20 * 500
        # It stays in the tab, out of the address and of whatever outlives the tab.
        page.reload()
        until(page, f"() => ({SHOWN})() >= 12")
        assert key not in page.url
        assert page.evaluate("() => document.cookie + JSON.stringify({...localStorage})") == "{}"
        with context.new_page() as another:
            another.goto(server.url)
            expect(another.locator("#key")).to_be_visible()
