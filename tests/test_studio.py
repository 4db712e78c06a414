"""The studio in a real browser, over a real server. Screenshots are left in test-output/studio."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Dialog,
    Page,
    Route,
    expect,
    sync_playwright,
)
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from service.routes.studio import FILES
from tests.conftest import attribute, manifest
from tests.onnx_files import model, put
from tests.server import MODELS, ROOT, Server, environment, serve

SHOTS = ROOT / "test-output" / "studio"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# What keeps a browser from looking for hosts of its own.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOWN = (
    "() => [...document.querySelectorAll('#grid img')]"
    ".filter((image) => image.complete && image.naturalWidth).length"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED in a browser: no chromium; install Debian's package of that name")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not complain."""
    made = context.new_page()
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    yield made
    assert complaints == []


def until(page: Page, question: str, seconds: float = 10) -> Any:
    """Playwright's own waiting evaluates strings in the page, which its security policy forbids."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := page.evaluate(question):
            return answer
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {question}")


def open_studio(page: Page, server: Server, query: str = "") -> None:
    page.goto(f"{server.url}/{query}")
    until(page, f"() => ({SHOWN})() >= 12")


def sources(page: Page) -> list[str]:
    """The addresses of the images in the grid."""
    found: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('#grid img')].map((i) => i.getAttribute('src'))"
    )
    return found


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def chip(page: Page, attribute_: str, value: str) -> None:
    """Choose a value."""
    page.locator("#attributes fieldset", has_text=attribute_).get_by_label(value, exact=True).check(
        force=True
    )


def test_first_images_come_within_a_second_and_the_page_is_light(
    page: Page, server: Server
) -> None:
    sizes: list[int] = []
    page.on(
        "response",
        lambda answer: sizes.append(len(answer.body())) if "/studio/" in answer.url else None,
    )
    page.goto(f"{server.url}/")
    page.wait_for_timeout(200)
    until(page, f"() => ({SHOWN})() >= 12")
    first = page.evaluate(
        "() => Math.min(...performance.getEntriesByType('resource')"
        ".filter(({name}) => name.includes('/images/')).map(({responseEnd}) => responseEnd))"
    )
    assert first < 1000
    assert 10_000 < sum(sizes) + len(httpx.get(f"{server.url}/").content) < 100_000


def test_nothing_foreign_may_run(server: Server) -> None:
    answer = server.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text and "onclick" not in answer.text
    assert not re.search(r"https?://", answer.text)
    files = [f"/studio/{name}" for name in FILES]
    assert set(files) >= set(re.findall(r"/studio/[\w.]+", answer.text))
    for name in files:
        found = server.client.get(name)
        assert found.status_code == 200
        assert found.headers["content-security-policy"] == policy
        again = server.client.get(name, headers={"If-None-Match": found.headers["etag"]})
        assert again.status_code == 304
        assert b"innerHTML" not in found.content
    assert server.client.get("/studio/nope.js").status_code == 404
    assert server.client.get("/studio/..%2fapp.py").status_code == 404


def test_choices_make_the_images_and_the_pages_address(page: Page, server: Server) -> None:
    open_studio(page, server)
    assert sources(page)[0] == "/images/anime-faces/2/1/0.png"
    chip(page, "eyes", "red")
    chip(page, "hair", "black")
    page.fill("#seed", "77")
    page.fill("#truncation", "0.5")
    expected = "/images/anime-faces/2/77/0.png?label=black+hair%2C+red+eyes&truncation=0.5"
    until(page, f"() => document.querySelector('#grid img')?.getAttribute('src') === '{expected}'")
    until(page, f"() => ({SHOWN})() >= 12")
    asked = {"label": "red eyes, black hair", "seed": 77, "truncation": 0.5, "n": 3}
    rows = server.client.post("/generate", json=asked).json()["images"]
    assert sources(page)[:3] == [row["url"] for row in rows]  # as the service spells them
    page.screenshot(path=SHOTS / "chosen.png")

    other = page.context.new_page()
    other.goto(page.url)  # the link shows the same
    until(other, f"() => ({SHOWN})() >= 12")
    assert sources(other)[:12] == sources(page)[:12]
    expect(other.locator("#seed")).to_have_value("77")
    expect(other.locator("#attributes input:checked").nth(1)).to_have_value("red")

    page.select_option("#model", "digits")
    until(page, "() => document.querySelector('#grid img')?.src.includes('/images/digits/2/77/0')")
    page.select_option("#version", "1")
    until(page, "() => document.querySelector('#grid img')?.src.includes('/images/digits/1/77/0')")
    assert query(page)["model"] == ["digits"] and query(page)["version"] == ["1"]
    expect(page.locator("#verify-row")).to_be_hidden()


def test_more_images_come_as_one_scrolls(page: Page, server: Server) -> None:
    open_studio(page, server)
    page.wait_for_timeout(500)
    before = len(sources(page))
    for _ in range(4):
        page.mouse.move(600, 500)
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(300)
    found = sources(page)
    assert len(found) > before + 96
    indices = [int(index) for url in found for index in re.findall(r"/(\d+)\.png", url)]
    assert indices == list(range(len(found)))


def test_verified_images(page: Page, server: Server) -> None:
    open_studio(page, server)
    chip(page, "eyes", "red")
    page.fill("#verify", "0.95")
    until(page, "() => document.querySelector('#found').textContent.includes('verified')")
    until(page, f"() => ({SHOWN})() >= 12")
    asked = {"label": "red eyes", "seed": 1, "n": 24, "verify": 0.95}
    rows = server.client.post("/generate", json=asked).json()["images"]
    assert sources(page)[:24] == [row["url"] for row in rows]

    page.fill("#verify", "0.99")
    chip(page, "eyes", "any")
    page.wait_for_timeout(600)
    assert query(page)["verify"] == ["0.99"]


def test_an_image_can_be_looked_at_and_made_again(
    page: Page, server: Server, tmp_path: Path
) -> None:
    open_studio(page, server, "?label.eyes=red&truncation=0.8&seed=5")
    page.click("#grid a >> nth=3")
    expect(page.locator("#detail-title")).to_have_text("Image 3 of seed 5")
    address = page.locator("#address").inner_text()
    assert address == "/images/anime-faces/2/5/3.png?label=red+eyes&truncation=0.8"
    image = server.client.get(address).content
    until(page, "() => document.querySelector('#large').naturalWidth === 64")

    expect(page.locator("#labels tr")).to_have_count(2)
    asked = {"label": "red eyes", "seed": 5, "offset": 3, "truncation": 0.8}
    (row,) = server.client.post("/generate", json=asked).json()["images"]
    told = page.locator("#labels").inner_text()
    assert row["labels"]["hair"] in told and "red" in told
    assert re.search(r"\d+\.\d %", told)

    curl = page.locator("#curl").inner_text()
    subprocess.run(["bash", "-c", curl], cwd=tmp_path, check=True)
    assert (tmp_path / "anime-faces-2-5-3.png").read_bytes() == image
    program = page.locator("#python").inner_text() + "\nprint(images.tobytes().hex(), labels)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    with Image.open(io.BytesIO(image)) as picture:
        assert np.asarray(picture).tobytes().hex() in done.stdout
    with page.expect_download() as download:
        page.click("#save")
    assert Path(download.value.path()).read_bytes() == image

    until(page, "() => document.querySelectorAll('#neighbours img').length === 10")
    before = page.locator("#neighbours img").first.get_attribute("src")
    page.fill("#strength", "0.9")
    page.locator("#strength").dispatch_event("change")
    until(page, f"() => document.querySelector('#neighbours img').src !== {json.dumps(before)}")
    page.screenshot(path=SHOTS / "detail.png")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("[data-copy=curl]")
    expect(page.locator("[data-copy=curl]")).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == curl

    page.locator("#detail-title").click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-title")).to_have_text("Image 4 of seed 5")
    assert query(page)["image"] == ["4"]
    page.reload()  # the link opens it
    expect(page.locator("#detail-title")).to_have_text("Image 4 of seed 5")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    until(page, "() => !location.search.includes('image=')")


def pin_two(page: Page, server: Server) -> None:
    open_studio(page, server, "?seed=5")
    for nth, end in ((0, "start"), (1, "end")):
        page.click(f"#grid a >> nth={nth}")
        page.click(f"[data-pin={end}]")
        page.keyboard.press("Escape")
    expect(page.locator("#film")).to_be_visible()


def frame(page: Page, position: int) -> Any:
    """The pixels that are shown at a position."""
    page.fill("#position", str(position))
    data = page.evaluate("() => document.getElementById('frame').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_way_between_two_images(page: Page, server: Server, tmp_path: Path) -> None:
    pin_two(page, server)
    for position, index in ((0, 0), (63, 1)):
        content = server.client.get(f"/images/anime-faces/2/5/{index}.png").content
        with Image.open(io.BytesIO(content)) as image:
            assert np.abs(frame(page, position) - np.asarray(image)).max() <= 1
    assert np.abs(frame(page, 31) - frame(page, 0)).mean() > 5
    assert "% of the way" in (page.locator("#frame").get_attribute("aria-label") or "")
    page.screenshot(path=SHOTS / "between.png")

    slowest = page.evaluate(
        """() => {
          const slider = document.getElementById("position");
          return Math.max(...Array.from({ length: 64 }, (_, i) => {
            const start = performance.now();
            slider.value = i;
            slider.dispatchEvent(new Event("input"));
            return performance.now() - start;
          }));
        }"""
    )
    assert slowest < 16  # a frame of the screen

    page.click("#play")
    before = page.locator("#position").input_value()
    page.wait_for_timeout(400)
    assert page.locator("#position").input_value() != before
    page.click("#play")
    for format_ in ("gif", "webp"):
        with page.expect_download() as download:
            page.click(f"[data-film={format_}]")
        with Image.open(download.value.path()) as film:
            film.seek(32)  # raises EOFError where there are fewer frames

    page.reload()  # the link shows the same
    expect(page.locator("#film")).to_be_visible()
    page.click("#unpin")
    expect(page.locator("#pins")).to_be_hidden()
    assert "start" not in query(page)


def test_a_set_to_take_home(page: Page, server: Server, tmp_path: Path) -> None:
    open_studio(page, server, "?model=digits&seed=5")
    page.fill("#count", "200")
    page.select_option("#format", "zip")
    page.locator("#balance").get_by_label("digit").check(force=True)
    expect(page.locator("#estimate")).to_contain_text("10 labels, 20 or more of each.")
    expect(page.locator("#estimate")).to_contain_text(re.compile(r"About [\d.]+ kB, in about 1 s"))
    with page.expect_download() as download:
        page.click("#download")
    content = Path(download.value.path()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        rows = archive.read("metadata.csv").decode().splitlines()[1:]
    assert sorted({row.split(",")[1] for row in rows}) == [str(digit) for digit in range(10)]
    said = page.locator("#estimate").inner_text()
    (estimated,) = re.findall(r"About ([\d.]+) kB", said)
    assert float(estimated) * 1000 == pytest.approx(len(content), rel=0.3)
    page.screenshot(path=SHOTS / "take.png")

    command = page.locator("#command").inner_text()
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "service", "fetch"]
    page.fill("#count", "20000")
    page.click("#download")
    page.fill("#count", "19999")  # one at a time
    expect(page.locator("#download")).to_be_disabled()
    page.click("#cancel")
    expect(page.locator("#progress-said")).to_have_text("Cancelled.")
    subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    made = json.loads((tmp_path / "digits" / "manifest.json").read_text())
    assert made["images"] == 200 and made["complete"]

    page.fill("#count", "1000000")
    expect(page.locator("#estimate")).to_contain_text("Too many for a browser: use the command.")
    expect(page.locator("#download")).to_be_disabled()


def test_the_card_of_a_model(page: Page, server: Server) -> None:
    open_studio(page, server)
    page.click("#show-card")
    expect(page.locator("#card-title")).to_have_text("anime-faces, version 2")
    about = server.client.get("/models/anime-faces/2").json()["manifest"]
    told = page.locator("#card").inner_text()
    assert about["provenance"]["dataset"]["licence"] in told
    for metric in about["metrics"]:
        assert metric["name"].replace("_", " ") in told
    until(page, "() => document.querySelector('#samples').naturalWidth === 512")
    page.screenshot(path=SHOTS / "card.png")


def test_what_is_refused_is_told(context: BrowserContext, server: Server) -> None:
    page = context.new_page()  # which complains to its console of a 422
    open_studio(page, server)
    page.evaluate(
        "() => Object.assign(document.getElementById('verify'), {max: 0.9999999, step: 'any'})"
    )
    page.fill("#verify", "0.9999999")
    expect(page.locator("#found")).to_contain_text("never saw the labels that were drawn")
    page.fill("#verify", "0")
    expect(page.locator("#found")).to_have_text("")
    until(page, f"() => ({SHOWN})() >= 12")


def test_a_server_that_is_away_is_told_and_waited_for(context: BrowserContext) -> None:
    page = context.new_page()  # which complains to its console that nobody answers
    with serve("--models", str(MODELS)) as first:
        port = first.url.rpartition(":")[2]
        open_studio(page, first)
    page.fill("#seed", "9")
    expect(page.locator("#trouble")).to_contain_text("cannot be reached", timeout=10_000)
    page.screenshot(path=SHOTS / "away.png")
    with serve("--models", str(MODELS), "--port", port):
        expect(page.locator("#trouble")).to_be_hidden(timeout=20_000)
        until(page, f"() => ({SHOWN})() >= 12", 20)
        assert sources(page)[0] == "/images/anime-faces/2/9/0.png"


HOSTILE = "<img src=x onerror=alert(1)>", "\"'`; alert(2) //", "</option><script>alert(3)</script>"


def test_texts_of_models_and_links_are_never_markup(page: Page, tmp_path: Path) -> None:
    put(tmp_path, "odd", 1, model(manifest(attribute("<b>name</b>", *HOSTILE), name="odd")))
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    with serve("--models", str(tmp_path)) as server:
        page.goto(
            f"{server.url}/?model=%3Cscript%3Ealert(4)%3C/script%3E&label.x=%3Cimg%20src=x%3E"
        )
        until(page, f"() => ({SHOWN})() >= 12")
        for text in (*HOSTILE, "<b>name</b>"):
            assert text in page.locator("#attributes").inner_text()
        chip(page, "<b>name</b>", HOSTILE[0])
        page.wait_for_timeout(500)
        page.click("#grid a >> nth=1")
        until(page, "() => document.querySelectorAll('#labels td').length")
        assert HOSTILE[0] in page.locator("#labels").inner_text()
        page.keyboard.press("Escape")
        page.click("#show-card")
        page.wait_for_timeout(300)
        assert page.locator("#attributes b, #attributes img, #labels img, #card b").count() == 0
    assert dialogs == []


def test_everything_works_by_keyboard(page: Page, server: Server) -> None:
    open_studio(page, server)
    page.locator("#attributes input").first.focus()
    page.keyboard.press("ArrowRight")
    assert query(page)["label.hair"] == ["aqua"]
    until(page, "() => document.querySelector('#grid img')?.src.includes('aqua+hair')")
    page.locator("#grid a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("Image 1 of seed 1")
    inside = page.evaluate(
        "() => document.querySelector('#detail').contains(document.activeElement)"
    )
    assert inside
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    # All of the images are one stop on the way to what comes after them.
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("() => !!document.activeElement.closest('aside')"):
            break
    assert page.evaluate("() => !!document.activeElement.closest('aside')")


def test_back_closes_an_image(page: Page, server: Server) -> None:
    open_studio(page, server)
    page.click("#grid a >> nth=2")
    expect(page.locator("#detail-title")).to_have_text("Image 2 of seed 1")
    page.go_back()
    expect(page.locator("#detail")).to_be_hidden()
    assert urlsplit(page.url).netloc == urlsplit(server.url).netloc
    page.go_forward()
    expect(page.locator("#detail-title")).to_have_text("Image 2 of seed 1")


def test_links_that_say_nothing_sensible(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    strange = (
        "image=1.5&seed=1.7&verify=abc&truncation=9&version=99",
        "start=seed%3Dabc&end=seed%3D-1%26index%3D-4%26truncation%3D7",
        "label.constructor=x&label.__proto__=y&label.eyes=nothing",
    )
    open_studio(page, server, f"?{'&'.join(strange)}")
    page.wait_for_timeout(600)
    assert all(text not in page.url for text in ("NaN", "abc", "nothing", "constructor"))
    images = [url for url in asked if "/images/" in url]
    assert not any("NaN" in url or "undefined" in url for url in images)
    assert len(images) <= 2 * len(set(images))  # none is asked for again and again


def test_a_pin_of_another_model_is_told_once(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_studio(page, server, "?model=digits&start=seed%3D1%26index%3D0%26label%3Dred+eyes")
    until(page, "() => document.querySelector('#pin-start.missing')")
    page.wait_for_timeout(500)
    assert sum("red+eyes" in url for url in asked) <= 3


def test_a_busy_server_is_told_and_asked_when_it_says(
    context: BrowserContext, server: Server
) -> None:
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
    expect(page.locator("#trouble")).to_contain_text("no room for 1 images Asking again in 1 s.")
    page.wait_for_timeout(1500)
    first = len(set(sources(page)))
    assert len(refused) <= first + 3  # each image once, and then one at a time
    busy = False
    until(page, f"() => ({SHOWN})() >= 12", 20)
    expect(page.locator("#trouble")).to_be_hidden()


def test_what_was_chosen_last_is_shown(page: Page, server: Server) -> None:
    """Whichever answer comes first."""
    held: list[Route] = []
    open_studio(page, server)
    page.route("**/models/digits/2", lambda route: held.append(route))
    page.select_option("#model", "digits")
    until(page, "() => true")
    page.wait_for_timeout(200)
    page.select_option("#model", "anime-faces-free")
    until(page, "() => document.querySelector('#grid img')?.src.includes('/anime-faces-free/')")
    (route,) = held
    route.continue_()
    page.wait_for_timeout(700)
    assert sources(page)[0].startswith("/images/anime-faces-free/")
    expect(page.locator("#model")).to_have_value("anime-faces-free")


def test_an_answer_that_is_cut_is_asked_for_again(page: Page, server: Server) -> None:
    open_studio(page, server)
    cuts: list[str] = []

    def cut(route: Route) -> None:
        if cuts:
            route.continue_()
        else:
            cuts.append(route.request.url)
            route.fulfill(status=200, content_type="application/json", body='{"images": [')

    page.route("**/generate", cut)
    page.fill("#verify", "0.5")
    until(page, "() => document.querySelector('#found').textContent.includes('verified')")
    assert len(cuts) == 1


def test_nothing_can_be_chosen_before_there_is_a_model(page: Page, server: Server) -> None:
    held: list[Route] = []
    page.route("**/models", lambda route: held.append(route))
    page.goto(f"{server.url}/?model=digits&version=1")
    expect(page.locator("#found")).to_have_text("Loading the models.")
    with pytest.raises(PlaywrightTimeout):
        page.click("#another-seed", timeout=500)
    assert query(page) == {"model": ["digits"], "version": ["1"]}
    held[0].continue_()
    until(page, f"() => ({SHOWN})() >= 12")
    assert sources(page)[0] == "/images/digits/1/1/0.png"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_accessible_and_fits(
    browser: Browser, server: Server, scheme: Any, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    pin_two(page, server)
    name = f"{scheme}-{width}"
    for step in ("page", "detail", "card"):
        if step == "detail":
            page.click("#grid a >> nth=2")
            until(page, "() => document.querySelectorAll('#neighbours img').length")
            until(page, "() => document.querySelectorAll('#labels meter').length")
        if step == "card":
            page.keyboard.press("Escape")
            page.click("#show-card")
            until(page, "() => document.querySelector('#samples').naturalWidth > 0")
        page.screenshot(path=SHOTS / f"{step}-{name}.png")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        overflow = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, step
    context.close()
