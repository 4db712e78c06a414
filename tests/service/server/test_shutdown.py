"""Graceful shutdown: accepted requests are answered, and the exit status is 0."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.bare_server import PART, PARTS, PROGRAM
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until
from tests.helpers.worker_processes import wait_until_all_ready, wait_until_ready, workers_of

pytestmark = pytest.mark.server

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class Clients:
    """Send requests without a pause, each over its own connection, until the server closes it."""

    def __init__(self, server: Server, count: int) -> None:
        self.answered, self.lost = 0, list[str]()
        self._url = server.url
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while True:
                try:
                    answer = client.post("/generate", json={"n": 3, "seed": 3})
                except httpx.ConnectError:  # refused: it was not accepted
                    return
                except httpx.HTTPError as error:
                    with self._lock:
                        self.lost.append(repr(error))
                    return
                with self._lock:
                    if answer.status_code == 200 and len(answer.json()["images"]) == 3:
                        self.answered += 1
                    else:
                        self.lost.append(answer.text)
                if answer.headers.get("Connection") == "close":
                    return

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


@pytest.mark.slow
@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_accepted_requests_are_answered(plain_models: Path, number: int, workers: str) -> None:
    options = ("--models", str(plain_models), "--workers", workers, "--max-wait", "30")
    with serve(*options, "--shutdown-delay", "0.5") as server:
        wait_until_ready(server)
        clients = Clients(server, 16)
        wait_until(lambda: clients.answered >= 32)
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        clients.join()
        assert clients.lost == []
        assert not any("Traceback" in line for line in server.log)


@WORKERS
def test_stream_is_finished(plain_models: Path, workers: str) -> None:
    with serve("--models", str(plain_models), "--workers", workers) as server:
        wait_until_ready(server)
        with server.client.stream("POST", "/generate?format=npy", json={"n": 30_000}) as answer:
            parts = answer.iter_bytes()
            got = len(next(parts))
            server.process.terminate()
            got += sum(len(part) for part in parts)
        assert got == int(answer.headers["Content-Length"])
        assert server.process.wait(20) == 0


@WORKERS
def test_streams_are_cut_after_the_drain_time(plain_models: Path, workers: str) -> None:
    """Both a stream without end and a client that does not read. The client sees the cut."""
    options = ("--models", str(plain_models), "--workers", workers, "--drain", "1")
    with serve(*options) as server:
        wait_until_ready(server)
        endless = {"n": 10_000_000}
        with (
            server.client.stream("POST", "/generate?format=zip", json=endless) as answer,
            httpx.Client(base_url=server.url) as another,
            another.stream("POST", "/generate?format=npy", json=endless),  # not read
        ):
            parts = answer.iter_bytes()
            next(parts)
            server.process.terminate()
            started = time.monotonic()
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in parts:
                    pass
            assert server.process.wait(20) == 0
            assert time.monotonic() - started < 10
        assert not any("Traceback" in line for line in server.log), "".join(server.log)


@WORKERS
def test_readiness_fails_before_requests_are_refused(plain_models: Path, workers: str) -> None:
    options = ("--models", str(plain_models), "--workers", workers, "--shutdown-delay", "2")
    with serve(*options) as server:
        wait_until_all_ready(server, int(workers))
        server.process.terminate()
        wait_until(lambda: "".join(server.log).count("shutting down: ") == int(workers))
        with httpx.Client(base_url=server.url) as fresh:
            for path in ("/readyz", "/v2/health/ready", "/v2/models/plain/ready"):
                refused = fresh.get(path)
                assert refused.status_code == 503
                assert refused.headers["Connection"] == "close"
            assert fresh.get("/healthz").status_code == 200
            assert fresh.post("/generate", json={"n": 1}).status_code == 200
        assert server.process.wait(20) == 0


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_exits_at_once(number: int, workers: str) -> None:
    options = ("--workers", workers, "--shutdown-delay", "30", "--drain", "30")
    with serve(*options, program=PROGRAM) as server:
        wait_until_all_ready(server, int(workers))
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "".join(server.log).count("shutting down: ") == int(workers))
        assert server.process.poll() is None
        server.process.send_signal(number)
        started = time.monotonic()
        assert server.process.wait(20) == 128 + number
        assert time.monotonic() - started < 3
        psutil.wait_procs(children, timeout=5)
        assert not any(child.is_running() for child in children)


def test_signal_to_the_whole_process_group_counts_once() -> None:
    """As systemd sends it. The signal that the parent forwards is no second one."""
    with serve("--workers", "2", program=PROGRAM) as server:
        wait_until_all_ready(server, 2)
        with server.client.stream("GET", "/stream") as answer:
            parts = answer.iter_bytes()
            got = len(next(parts))
            for worker in workers_of(server):
                worker.terminate()
            server.process.terminate()
            got += sum(len(part) for part in parts)
        assert got == PARTS * len(PART)
        assert server.process.wait(20) == 0


STILL_COMPUTING = """
import threading, time
import numpy, onnxruntime
from service.core.process import COMPUTE_THREAD
from service.server.server import force_exit

session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
latent = numpy.zeros((64, session.get_inputs()[0].shape[1]), numpy.float32)

def compute():
    while True:
        session.run(None, {{"latent": latent}})

for _ in range(2):
    threading.Thread(target=compute, name=COMPUTE_THREAD, daemon=True).start()
time.sleep(0.1)
force_exit()
raise SystemExit("force_exit returned")
"""


def test_threads_that_still_compute_do_not_crash_the_exit(plain_models: Path) -> None:
    file = str(plain_models / "plain" / "1" / "model.onnx")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", STILL_COMPUTING.format(model=file)], timeout=60
        )
        assert done.returncode == 0
