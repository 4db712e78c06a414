"""API keys, rate limits, CORS and the protection against DNS rebinding."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from service.api.auth.access import AccessControl
from service.api.paths import PROBES
from service.client import Figment
from service.core import api_keys
from service.errors import RequestRejected, StartupError, Unauthorized
from service.settings import Settings
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.responses import metric
from tests.helpers.server import ROOT, Server, environment, serve
from tests.helpers.startup import refuse
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

KEY, SLOW, STREAMING = (f"figment_for-the-{use}" for use in ("tests", "slow", "streams"))
PLAIN, ONCE, CUT = (f"figment_for-{use}" for use in ("plain-text", "one-request", "cut-sets"))
FROM_FILE, LIMITED_FROM_FILE = "figment_from-a-file", "figment_also-from-a-file"


def entry(name: str, key: str) -> str:
    return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    eyes = attribute("eyes", "red", "blue")
    onnx_files.put(folder, "eyes", 1, onnx_files.model(manifest(eyes, name="eyes")))
    return folder


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = {"team": KEY, "slow@64": SLOW, "streaming@20": STREAMING, "once@1": ONCE, "cut@5": CUT}
    entries = ",".join([*(entry(name, key) for name, key in keys.items()), f"me:{PLAIN}"])
    file = tmp_path_factory.mktemp("keys") / "keys"
    limited = entry("b@5", LIMITED_FROM_FILE)
    file.write_text(f"# who asks\n{entry('a', FROM_FILE)}  # the first\n\n{limited}\n")
    options = ("--models", str(models), "--max-images", "64", "--log-requests")
    access = ("--api-keys", entries, "--api-keys-file", str(file))
    with serve(*options, *access, "--cors-origins", "https://lab.example") as running:
        yield running


@pytest.fixture(scope="module")
def keyless(models: Path) -> Iterator[Server]:
    with serve("--models", str(models)) as running:
        yield running


@pytest.fixture(scope="module")
def anonymous(models: Path) -> Iterator[Server]:
    with serve("--models", str(models), "--host", "0.0.0.0", "--allow-anonymous") as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


GUARDED = [
    ("POST", "/generate"),
    ("POST", "/generate/conditional"),
    ("POST", "/interpolate"),
    ("POST", "/variations"),
    ("GET", "/images/plain/1/3/0.png"),
    ("GET", "/models"),
    ("GET", "/models/plain/1"),
    ("GET", "/info"),
    ("GET", "/metrics"),
    ("GET", "/v2"),
    ("GET", "/v2/models/plain"),
    ("GET", "/v2/models/plain/ready"),
    ("POST", "/v2/models/plain/infer"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_requests_without_a_valid_key_get_401(guarded: Server, method: str, path: str) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        bearer(KEY + "x"),
        bearer(KEY[:-1]),
        bearer(entry("team", KEY)),
        bearer(hashlib.sha256(KEY.encode()).hexdigest()),
    ]
    for headers in wrong:
        answer = guarded.client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == 401


def test_valid_key_gives_access_to_all_routes(guarded: Server) -> None:
    answer = guarded.client.post("/generate", json={"n": 2, "seed": 3}, headers=bearer(KEY))
    assert answer.status_code == 200
    url = answer.json()["images"][0]["url"]
    image = guarded.client.get(url, headers=bearer(KEY))
    assert image.status_code == 200
    # No shared cache may give it to those without a key.
    assert "private" in image.headers["Cache-Control"]
    for path in ("/models", "/info", "/metrics"):
        assert guarded.client.get(path, headers=bearer(KEY)).status_code == 200


def test_probes_and_pages_take_no_key(guarded: Server) -> None:
    for path in (*PROBES, "/", "/studio/studio.js", "/docs", "/openapi.json"):
        assert guarded.client.get(path).status_code == 200, path


def test_openapi_declares_which_routes_require_a_key(guarded: Server, keyless: Server) -> None:
    document = guarded.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) == (path not in PROBES), path
    assert "securitySchemes" not in keyless.client.get("/openapi.json").json()["components"]


def test_keys_appear_in_no_log_answer_or_metric(guarded: Server) -> None:
    guarded.client.post("/generate", json={"n": 1}, headers=bearer(KEY))
    guarded.client.get(f"/models?key={KEY}", headers=bearer(KEY))
    info = guarded.client.get("/info", headers=bearer(KEY)).text
    metrics = guarded.client.get("/metrics", headers=bearer(KEY)).text
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    for told in (info, metrics, "".join(guarded.log)):
        assert KEY not in told
        assert digest not in told
    assert 'figment_key_images_total{key="team"}' in metrics


def test_rate_limit_of_a_key(guarded: Server) -> None:
    """64 images per second, and 64 at once."""
    ask = {"n": 64, "model": "plain"}
    assert guarded.client.post("/generate", json=ask, headers=bearer(SLOW)).status_code == 200
    refused = guarded.client.post("/generate", json=ask, headers=bearer(SLOW))
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:figment:too-many-images-for-this-key"
    seconds = int(refused.headers["Retry-After"])
    assert seconds == 1
    # Others are not kept waiting, and it is right once the time has passed.
    assert guarded.client.post("/generate", json=ask, headers=bearer(KEY)).status_code == 200
    time.sleep(seconds)
    assert guarded.client.post("/generate", json=ask, headers=bearer(SLOW)).status_code == 200


def test_set_is_streamed_at_the_rate_of_its_key(guarded: Server) -> None:
    """20 images per second, and 64 at once."""
    started = time.monotonic()
    answer = guarded.client.post(
        "/generate?format=npy", json={"n": 96, "model": "plain"}, headers=bearer(STREAMING)
    )
    assert len(answer.content) == 96 * 16 * 16 * 3 + 128
    assert time.monotonic() - started > (96 - 64) / 20 - 0.5


def test_cors_allows_configured_origins_only(guarded: Server, keyless: Server) -> None:
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for origin, allowed in (("https://lab.example", True), ("https://evil.example", False)):
        answer = guarded.client.options("/generate", headers={"Origin": origin, **asks})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) == allowed
    answer = keyless.client.get("/models", headers={"Origin": "https://lab.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_security_headers(guarded: Server) -> None:
    for path in ("/models", "/nowhere", "/", "/docs"):
        headers = guarded.client.get(path, headers=bearer(KEY)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers.get_list("X-Content-Type-Options") == ["nosniff"]


def test_the_client_sends_its_key(guarded: Server, tmp_path: Path) -> None:
    batch = Figment(guarded.url, api_key=KEY).generate(3, seed=1, model="plain")
    assert batch.images.shape == (3, 16, 16, 3)
    with pytest.raises(RequestRejected, match="API key"):
        Figment(guarded.url).generate(1)
    fetch = [sys.executable, "-m", "service", "fetch", "-n", "5", "--model", "plain"]
    fetch += ["--server", guarded.url, "--out", str(tmp_path / "set")]
    with_key = environment() | {"FIGMENT_API_KEY": KEY}
    subprocess.run(fetch, cwd=ROOT, env=with_key, check=True, capture_output=True)
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert KEY not in "".join(path.read_text("latin-1") for path in (tmp_path / "set").iterdir())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "figment.example"])
def test_public_host_without_keys_is_a_startup_error(host: str) -> None:
    with pytest.raises(StartupError, match=r"Set FIGMENT_API_KEYS .* FIGMENT_ALLOW_ANONYMOUS"):
        AccessControl(Settings(host=host))


def test_public_host_without_keys_does_not_start(models: Path) -> None:
    said = refuse("--models", str(models), "--host", "0.0.0.0")
    assert "Error: FIGMENT_HOST is 0.0.0.0" in said


def test_public_host_starts_with_a_key(models: Path) -> None:
    key = ("--api-keys", entry("me", KEY))
    with serve("--models", str(models), "--host", "0.0.0.0", *key) as server:
        assert httpx.get(f"{local(server)}/readyz").status_code == 200


def test_public_host_starts_on_purpose(anonymous: Server) -> None:
    assert httpx.get(f"{local(anonymous)}/readyz").status_code == 200


def local(server: Server) -> str:
    """URL on this machine of a server that listens on all addresses."""
    return f"http://127.0.0.1:{httpx.URL(server.url).port}"


def test_keys_from_a_file(guarded: Server) -> None:
    for key in (FROM_FILE, LIMITED_FROM_FILE):
        assert guarded.client.get("/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ("team:sha256:abc", "API key 1 is not of the form"),
        ("team:sha256", "API key 1 is shorter than 8 characters, or a hash without a name"),
        ("sha256:" + "0" * 64, "API key 1 is shorter than 8 characters, or a hash without a name"),
        ("team:" + "0" * 64, "API key 1 is shorter than 8 characters, or a hash without a name"),
        (entry("team", KEY) + "," + entry("team", SLOW), "two API keys have the name of 'team'"),
        (entry("a", KEY) + "," + entry("b", KEY), "two API keys have the digest of 'a'"),
        ("a b:sha256:" + "0" * 64, "API key 1 is not of the form"),
        (" , ", "there is no API key"),
        ("", "there is no API key"),
    ],
)
def test_invalid_key_entries_are_rejected_and_not_quoted(entries: str, problem: str) -> None:
    with pytest.raises(StartupError) as raised:
        AccessControl(Settings(api_keys=SecretStr(entries)))
    assert problem in str(raised.value)
    assert not entries or entries not in str(raised.value)


def test_invalid_key_does_not_start(models: Path) -> None:
    said = refuse("--models", str(models), "--api-keys", "team:sha256:abc")
    assert "Error: API key 1 is not of the form" in said
    assert "abc" not in said


def test_plain_text_key_works_with_a_warning(guarded: Server) -> None:
    assert guarded.client.get("/models", headers=bearer(PLAIN)).status_code == 200
    assert any("'me' is given in plain text" in line for line in guarded.log)


def test_key_command_creates_keys() -> None:
    command = [sys.executable, "-m", "service", "key", "team", "--rate", "50"]
    told = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True).stdout
    secret = next(line.strip() for line in told.splitlines() if line.startswith("  figment_"))
    made = next(line.strip() for line in told.splitlines() if line.startswith("  team"))
    keyring = api_keys.read(made, None, None)
    assert keyring.find(f"bearer {secret}").name == "team"
    assert keyring.find(f"Bearer {secret}").rate == 50
    with pytest.raises(Unauthorized):
        keyring.find(f"Bearer {secret}x")
    with pytest.raises(StartupError):
        api_keys.make("no name")


def test_reload_does_not_reset_rate_limits(guarded: Server) -> None:
    ask = {"n": 60, "model": "plain"}
    with httpx.Client(base_url=guarded.url, headers=bearer(ONCE), timeout=60) as client:
        assert client.post("/generate", json=ask).status_code == 200
        client.post("/models/reload").raise_for_status()
        assert client.post("/generate", json=ask).status_code == 429


def test_aborted_sets_are_charged_for_computed_images(guarded: Server) -> None:
    ask = {"n": 10_000, "model": "plain"}
    with httpx.Client(base_url=guarded.url, headers=bearer(CUT), timeout=60) as client:
        before = metric(client, "figment_batch_images_sum", model="plain")
        for _ in range(10):
            with client.stream("POST", "/generate?format=npy", json=ask) as answer:
                if answer.status_code == 200:
                    parts = answer.iter_raw()
                    next(parts)
        made = metric(client, "figment_batch_images_sum", model="plain") - before
        assert 64 <= made <= 64 + 5 * 30
        assert metric(client, "figment_key_images_total", key="cut") == made


def test_rejected_requests_are_not_charged(guarded: Server) -> None:
    with httpx.Client(base_url=guarded.url, headers=bearer(KEY)) as client:
        before = metric(client, "figment_key_images_total", key="team")
        for body in ({"n": 65}, {"n": 5, "label": "blue hair"}, {"model": "none"}):
            answer = client.post("/generate", json=body)
            assert answer.status_code in (404, 422)
        assert metric(client, "figment_key_images_total", key="team") == before


def test_dns_rebinding_is_rejected(anonymous: Server, keyless: Server) -> None:
    """Otherwise a page could read all answers through a browser on this machine."""
    for host, status in (
        ("evil.example", 421),
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
    ):
        answer = keyless.client.get("/models", headers={"Host": host})
        assert answer.status_code == status, host
    plain = {"Content-Type": "text/plain;json"}  # a page may send it without a preflight request
    assert keyless.client.post("/generate", content="{}", headers=plain).status_code == 422
    answer = httpx.get(f"{local(anonymous)}/models", headers={"Host": "figment.example"})
    assert answer.status_code == 200


def test_request_paths_cannot_forge_log_lines(guarded: Server) -> None:
    guarded.client.get("/x%0aERROR%20forged%1b[2J", headers={"X-Request-ID": "forger"})

    def lines() -> list[str]:
        return [line for line in guarded.log if "forger" in line]

    wait_until(lambda: bool(lines()))
    assert lines() == ["INFO GET /x\\nERROR forged\\x1b[2J 401, 127.0.0.1 [forger]\n"]
