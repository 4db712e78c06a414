"""Metrics, logs and traces of a running service."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helpers.process_stats import Figures, metric
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until
from tests.helpers.worker_processes import workers_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=["1", "2"])
def server(request: pytest.FixtureRequest, plain_models: Path) -> Iterator[Server]:
    """A server of one worker process, and one of two."""
    options = ("--models", str(plain_models), "--workers", request.param, "--max-wait", "30")
    logs = ("--log-format", "json", "--log-requests")
    with serve(*options, "--max-images", "64", *logs) as running:
        wait_until(lambda: answers(running))
        yield running


@pytest.fixture(scope="module")
def impatient(plain_models: Path) -> Iterator[Server]:
    options = ("--models", str(plain_models), "--timeout", "1", "--log-requests")
    with serve(*options) as running:
        yield running


def answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_metrics_add_up_over_worker_processes(server: Server) -> None:
    """Each request opens a connection, so that all workers get some."""
    before = Figures(server)
    for number in range(20):
        httpx.post(f"{server.url}/generate", json={"n": 3, "seed": number})
    assert httpx.post(f"{server.url}/generate", json={"n": 65}).status_code == 422
    assert httpx.post(f"{server.url}/generate", json={"model": "none"}).status_code == 404
    assert httpx.get(f"{server.url}/images/plain/1/3/0.webp").status_code == 200
    assert httpx.post(f"{server.url}/generate?format=zip", json={"n": 100}).status_code == 200
    assert httpx.head(f"{server.url}/healthz").status_code == 200

    def rise(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    # Workers count a request when it has ended, which its client may see earlier.
    wait_until(lambda: Figures(server)("streams") == Figures(server)("queue_images") == 0)
    after = Figures(server)
    requests = "http_requests_total"
    assert rise(requests, method="POST", route="/generate", status="200") == 21
    assert rise(requests, route="/generate", status="422") == 1
    image = "/images/{model}/{version}/{seed}/{index}.{extension}"
    assert rise(requests, route=image, status="200") == 1
    assert rise(requests, method="HEAD", route="/healthz", status="200") == 1
    assert rise("images_total", model="plain", version="1", format="json") == 60
    assert rise("images_total", format="webp") == 1
    assert rise("images_total", format="zip") == 100
    assert rise("batch_images_sum", model="plain") == 161
    assert rise("key_images_total", key="none") == 161
    assert rise("rejections_total", reason="answer-too-large") == 1
    assert rise("rejections_total", reason="unknown-model-or-version") == 1
    assert rise("http_request_seconds_count", route="/generate") == 23
    batches = rise("inference_seconds_count")
    assert batches == rise("encode_seconds_count") >= 21
    wait_until(lambda: Figures(server)("images_per_second") > 0)


def test_unknown_paths_add_no_metric_labels(server: Server) -> None:
    for number in range(20):
        httpx.get(f"{server.url}/wp-admin/{number}")
        httpx.get(f"{server.url}/models/{number}")
    figures = Figures(server)
    assert figures("http_requests_total", route="none", status="404") >= 20
    assert figures("http_requests_total", route="/models/{name}", status="404") == 20
    assert "wp-admin" not in httpx.get(f"{server.url}/metrics").text


def test_log_lines_have_a_request_id(server: Server) -> None:
    answer = server.client.get("/nowhere", headers={"X-Request-ID": "from-the-caller.1"})
    assert answer.headers["X-Request-ID"] == "from-the-caller.1"
    odd = server.client.get("/nowhere", headers={"X-Request-ID": 'a"b {}' * 50})
    assert re.fullmatch("[0-9a-f]{16}", odd.headers["X-Request-ID"])
    for line in list(server.log):
        told = json.loads(line)
        assert {"timestamp", "level", "logger", "message"} <= told.keys(), line


def test_metrics_survive_a_killed_worker(plain_models: Path) -> None:
    with serve("--models", str(plain_models), "--workers", "2") as server:
        wait_until(lambda: answers(server))
        for number in range(10):
            httpx.post(f"{server.url}/generate", json={"n": 3, "seed": number})
        child, *_ = workers_of(server)
        child.kill()
        wait_until(lambda: any(f"worker process {child.pid} exited" in line for line in server.log))
        wait_until(lambda: answers(server))
        assert metric(server, "figment_images_total") == 30


def test_aborted_stream_is_counted(impatient: Server) -> None:
    ask = {"n": 1_000_000}
    with impatient.client.stream("POST", "/generate?format=zip", json=ask) as answer:
        parts = answer.iter_raw(1)
        next(parts)  # and no more
        wait_until(lambda: Figures(impatient)("streams_cut_total", reason="reader") == 1)
    assert Figures(impatient)("streams_cut_total") == 1
    assert Figures(impatient)("streams") == 0


IMAGE = "/images/plain/1/3/0.png?truncation=0.5"


def log_line(server: Server, request_id: str) -> str:
    """Line of the log about a request for an image."""
    server.client.get(IMAGE, headers={"X-Request-ID": request_id}).raise_for_status()
    wait_until(lambda: any(request_id in line for line in server.log))
    (line,) = [line for line in server.log if request_id in line]
    return line


def test_log_requests_logs_every_request(server: Server) -> None:
    told = json.loads(log_line(server, "mine"))
    assert told["request_id"] == "mine"
    assert told["status"] == 200
    assert told["route"] == "/images/{model}/{version}/{seed}/{index}.{extension}"
    assert 0 < told["seconds"] < 10


def test_log_requests_logs_every_request_as_text(impatient: Server) -> None:
    line = log_line(impatient, "mine")
    assert line == "INFO GET /images/plain/1/3/0.png 200, 127.0.0.1 [mine]\n"


class Collector:
    """Receives spans over HTTP, as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(sent)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def test_traces_are_sent_to_the_configured_endpoint(
    plain_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serve("--models", str(plain_models)) as server:
        headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "mine"}
        ask = {"n": 3, "seed": 3}
        server.client.post("/generate", json=ask, headers=headers).raise_for_status()
        server.client.get("/models/none")
        server.process.send_signal(signal.SIGTERM)  # sends what has not been sent
        assert server.process.wait(30) == 0
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /generate", "wait", "compute", "GET /models/{name}"}
    request = spans["POST /generate"]
    assert request.trace_id.hex() == trace
    assert request.parent_span_id.hex() == parent
    attributes = {item.key: item.value for item in request.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["figment.request_id"].string_value == "mine"
    for name in ("wait", "compute"):
        child = spans[name]
        assert child.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= child.start_time_unix_nano
        assert child.end_time_unix_nano <= request.end_time_unix_nano
    collector.server.shutdown()
    collector.server.server_close()
