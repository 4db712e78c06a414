"""Evaluation reports of served models, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import attribute, manifest
from tests.helpers.onnx_files import model, put
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server

REPORT = "<!doctype html><title>faces: évaluation</title>"
ADVICE = "For your 400 images: do not add any."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def reports(folder: Path) -> Iterator[Server]:
    """Version 1 has no report, version 2 has one."""
    put(folder, "faces", 1, model(manifest(name="faces")))
    hair = manifest(attribute("hair", "red", "black"), name="faces")
    advised = hair.model_copy(update={"recommendation": ADVICE})
    path = put(folder, "faces", 2, model(advised))
    path.with_name("report.html").write_text(REPORT)
    with serve("--models", str(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def client(reports: Server) -> httpx.Client:
    return reports.client


def test_report_is_a_page_that_runs_and_loads_nothing(client: httpx.Client) -> None:
    answer = client.get("/models/faces/2/report")
    assert (answer.status_code, answer.text) == (200, REPORT)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    (policy,) = answer.headers.get_list("content-security-policy")
    assert {each.strip() for each in policy.split(";")} >= {
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "sandbox",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_caches_ask_whether_the_report_has_changed(client: httpx.Client, folder: Path) -> None:
    first = client.get("/models/faces/latest/report")
    assert first.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": first.headers["etag"]}
    same = client.get("/models/faces/2/report", headers=known)
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    (folder / "faces" / "2" / "report.html").write_text(f"{REPORT} 2")
    assert client.get("/models/faces/2/report", headers=known).text == f"{REPORT} 2"
    (folder / "faces" / "2" / "report.html").write_text(REPORT)


def test_head_gives_the_length(client: httpx.Client) -> None:
    answer = client.head("/models/faces/2/report")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(REPORT.encode())


@pytest.mark.parametrize(
    ("path", "title", "detail"),
    [
        ("faces/1", "No report", "version 1 of 'faces' has no report.html"),
        ("faces/3", "Unknown model or version", "there are: 1, 2, latest"),
        ("other/1", "Unknown model or version", "there are: faces"),
    ],
)
def test_missing_report_is_a_problem(
    client: httpx.Client, path: str, title: str, detail: str
) -> None:
    answer = client.get(f"/models/{path}/report")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == title and detail in answer.json()["detail"]


def test_version_names_its_report_and_its_advice(client: httpx.Client) -> None:
    without, found = client.get("/models/faces").json()["versions"]
    assert (without["report"], without["recommendation"]) == (None, None)
    assert (found["report"], found["recommendation"]) == ("/models/faces/2/report", ADVICE)
    assert client.get("/models/faces/2").json() == found
