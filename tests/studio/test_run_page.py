"""The page of a run in a browser: it refreshes itself, in light and dark, on a desk and a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.helpers.small_runs import training
from tests.studio.pages import SHOTS
from tests.training import conftest as runs
from training.loop import page as run_page
from training.runs.run import Run

pytestmark = pytest.mark.browser

portraits, source = runs.portraits, runs.source
trained, evaluated = runs.trained, runs.evaluated


def unfinished(trained: Path, folder: Path) -> Run:
    """Copy of a run that has come half of its way, with a warning."""
    shutil.copytree(trained, folder)
    run = Run.open(folder)
    longer = run.config.model_copy(update={"kimg": 0.768})
    (folder / "config.json").write_text(longer.model_dump_json())
    (folder / "verdict.txt").write_text("the generator has collapsed. Try a lower --lr")
    return Run.open(folder)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_accessibility_and_layout(
    browser: Browser, trained: Path, evaluated: Path, tmp_path: Path, scheme: Any, width: int
) -> None:
    run = unfinished(trained, tmp_path / "run")
    run_page.write(run)
    compared = tmp_path / "compare.html"
    assert training("compare", trained, evaluated, "--out", compared).exit_code == 0
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    for name, path in (
        ("run", run.page),
        ("run-evaluated", evaluated / "index.html"),
        ("report", evaluated / "evaluation" / "report.html"),
        ("compare", compared),
    ):
        page.goto(path.as_uri())
        loaded = "() => [...document.images].every((image) => image.complete && image.naturalWidth)"
        assert page.evaluate(loaded), name
        page.screenshot(path=SHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, name
    assert errors == []
    context.close()


def watched(page: Page, trained: Path, folder: Path) -> Run:
    """Run that goes on, whose page is open and whose clock the test moves."""
    run = unfinished(trained, folder)
    (run.folder / "verdict.txt").unlink()
    run_page.write(run)
    page.clock.install()
    page.goto(run.page.as_uri())
    return run


def test_page_follows_the_run_until_it_is_paused(page: Page, trained: Path, tmp_path: Path) -> None:
    run = watched(page, trained, tmp_path / "run")
    expect(page.get_by_text("384 of 768 images shown")).to_be_visible()
    expect(page.locator("#stale")).to_be_hidden()

    run.log.append(run.log.lines()[-1] | {"shown": 416})
    run_page.write(run)
    page.clock.fast_forward(11_000)
    expect(page.get_by_text("416 of 768 images shown")).to_be_visible()

    page.get_by_role("button", name="Pause refreshing").click()
    run.log.append(run.log.lines()[-1] | {"shown": 448})
    run_page.write(run)
    page.clock.fast_forward(30_000)
    expect(page.get_by_text("416 of 768 images shown")).to_be_visible()
    page.get_by_role("button", name="Continue refreshing").click()
    page.clock.fast_forward(11_000)
    expect(page.get_by_text("448 of 768 images shown")).to_be_visible()


def test_page_of_a_killed_run_says_so(page: Page, trained: Path, tmp_path: Path) -> None:
    watched(page, trained, tmp_path / "run")
    expect(page.get_by_text("the run may have been stopped")).to_be_hidden()
    page.clock.fast_forward(1000 * (run_page.PATIENCE_SECONDS + 20))
    expect(page.get_by_text("the run may have been stopped")).to_be_visible()
