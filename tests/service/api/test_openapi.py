"""The service and its OpenAPI document, compared with each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EXAMPLES, attribute, manifest
from tests.helpers.onnx_files import model, put, verifier
from tests.helpers.server import ROOT, Server, environment, serve

pytestmark = pytest.mark.server

KEY = "figment_for-schemathesis"
HEADERS = {"Authorization": f"Bearer {KEY}"}
"""Headers of every request, except those that test access without a key."""
CASES = 2000
"""Minimum number of generated requests; most do not depend on ``EXAMPLES``."""
PHASES = ("examples", "coverage", "fuzzing", "stateful")
CONDITIONAL = manifest(
    attribute("hair", "red", "black"), attribute("eyes", "red", "blue"), name="faces"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Tiny models and low limits, so that thousands of answers take little time."""
    folder = tmp_path_factory.mktemp("models")
    put(folder, "faces", 1, model(CONDITIONAL))
    path = put(folder, "faces", 2, model(CONDITIONAL))
    path.with_name("verifier.onnx").write_bytes(verifier(("hair", 2), ("eyes", 2)))
    path.with_name("report.html").write_text("<!doctype html><title>faces</title>")
    put(folder, "free", 1, model(manifest(name="free")))
    bounds = ("--max-images", "16", "--max-set", "64")
    with serve("--models", str(folder), *bounds, "--api-keys", f"me:{KEY}") as running:
        running.client.headers.update(HEADERS)
        yield running


@pytest.mark.slow
def test_schemathesis_finds_no_fault(small: Server, tmp_path: Path) -> None:
    """Every check on every operation, with valid and invalid requests."""
    report = tmp_path / "report.json"
    options = {
        "checks": "all",
        "phases": ",".join(PHASES),
        "mode": "all",
        "max-examples": str(EXAMPLES),
        "seed": "1",
        "generation-database": "none",
        "report": "json",
        "report-json-path": str(report),
    }
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{small.url}/openapi.json"),
            *("--continue-on-failure", "--no-shrink", "--no-color"),
            *(f"--{name}={value}" for name, value in options.items()),
            *(f"--header={name}:{value}" for name, value in HEADERS.items()),
        ],
        cwd=tmp_path,  # it leaves files there
        env=environment()
        | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.helpers.openapi_hooks"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(report.read_text())
    assert {name: found["phases"][name]["status"] for name in PHASES} == dict.fromkeys(
        PHASES, "success"
    )
    operations = {
        f"{method.upper()} {path}"
        for path, item in document(small)["paths"].items()
        for method in item
    }
    assert found["operations"]["tested"] == len(operations)
    assert found["test_cases"]["generated"] >= CASES
    assert found["test_cases"]["unique_failures"] == 0
    # Requests get through to what they ask for, or little would be checked.
    accepted = {
        name: sum(phase["accepted"] for phase in phases.values())
        for name, phases in found["valid_rates"].items()
    }
    assert accepted.keys() == operations and all(accepted.values()), accepted
    assert "Traceback" not in "".join(small.log)


def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/openapi.json").json()
    return found


def test_bounds_are_those_in_effect(small: Server) -> None:
    schemas = document(small)["components"]["schemas"]
    single, several = schemas["GenerateRequest"]["properties"]["n"]["anyOf"]
    assert (single["maximum"], several["items"]["maximum"]) == (64, 64)
    assert schemas["VariationsRequest"]["properties"]["n"]["maximum"] == 16
    assert schemas["InterpolateRequest"]["properties"]["steps"]["maximum"] == 16
    assert schemas["ImagesRequest"]["properties"]["n"]["anyOf"][0]["maximum"] == 16


def test_formats_are_named(small: Server) -> None:
    formats = {
        path: parameter["schema"]["enum"]
        for path, item in document(small)["paths"].items()
        for parameter in item.get("post", {}).get("parameters", [])
        if parameter["name"] == "format"
    }
    images = ["json", "png", "webp", "jpeg"]
    sets = ["npy", "zip", "webdataset", "parquet"]
    assert {path: sorted(names) for path, names in formats.items()} == {
        "/generate": sorted(images + sets),
        "/generate/conditional": sorted(images + sets),
        "/interpolate": sorted(["json", "png", "gif", "webp"]),
        "/variations": sorted(images),
    }


def test_examples_work_on_this_server(small: Server) -> None:
    found = document(small)
    (example,) = found["components"]["schemas"]["GenerateRequest"]["examples"]
    assert example["label"] == "red eyes"
    parameters = found["paths"]["/models/{name}/{version}"]["get"]["parameters"]
    shown = {each["name"]: each["schema"]["examples"][0] for each in parameters}
    for path, item in found["paths"].items():
        bodies = item.get("post", {}).get("requestBody", {}).get("content", {})
        if content := bodies.get("application/json"):
            name = content["schema"]["$ref"].rpartition("/")[2]
            for body in found["components"]["schemas"][name]["examples"]:
                assert small.client.post(path.format(**shown), json=body).status_code == 200
    assert small.client.get("/models/{name}/{version}".format(**shown)).status_code == 200


def test_errors_are_documented_as_problems(small: Server) -> None:
    for path, item in document(small)["paths"].items():
        for method, operation in item.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    openai = path.startswith("/v1/")
                    media = "application/json" if openai else "application/problem+json"
                    assert list(answer["content"]) == [media], (method, path, status)
