"""Worker processes: dead, hung and unstartable ones, and their shared metrics."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from uvicorn.supervisors.multiprocess import SIGNALS

from service.observability import metrics
from service.server.workers import HEARTBEAT_TIMEOUT_SECONDS, POLL_SECONDS, WorkerProcesses
from service.settings import Settings
from tests.conftest import manifest
from tests.helpers import onnx_files
from tests.helpers.bare_server import PROGRAM
from tests.helpers.server import Server, serve
from tests.helpers.silent_workers import HungWorker, SilentWorker
from tests.helpers.waiting import wait_until
from tests.helpers.worker_processes import metrics_folders, wait_until_all_ready, workers_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serve("--workers", "2", program=PROGRAM) as running:
        wait_until_all_ready(running, 2)
        yield running


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Two worker processes. Tests may kill the oldest, which keeps the restart delays short."""
    wait_until(lambda: len(workers_of(shared_server)) == 2)
    return shared_server


def is_served(server: Server) -> bool:
    """True if a request over a new connection is answered."""
    return httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no such folder")
def test_metrics_of_workers_are_kept_in_shared_memory(server: Server) -> None:
    """On a full disk, a write to a mapped file would kill the process."""
    for worker in workers_of(server):
        (folder,) = metrics_folders(worker)
        assert folder.parent == Path("/dev/shm")


def test_metrics_of_a_worker_that_exited_are_dropped(server: Server) -> None:
    first = workers_of(server)[0]
    first.terminate()
    exited = f"process {first.pid} exited"
    wait_until(lambda: any(exited in line for line in server.log))
    assert "figment_draining 0.0" in httpx.get(f"{server.url}/metrics", timeout=30).text


def test_killed_worker_is_replaced_while_others_serve(server: Server) -> None:
    for _ in range(2):
        oldest, other = workers_of(server)
        oldest.kill()
        for _ in range(20):
            assert is_served(server)
        assert workers_of(server)[0] == other
        wait_until(lambda: len(workers_of(server)) == 2)
    assert server.process.poll() is None


@pytest.mark.slow
def test_worker_that_cannot_serve_is_retried_with_backoff(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    with serve("--models", str(folder), "--workers", "2", "--max-wait", "30") as server:
        wait_until_all_ready(server, 2)
        killed, other = workers_of(server)
        folder.rename(tmp_path / "away")
        killed.kill()
        delays: list[str] = []
        deadline = time.monotonic() + 60
        while len(delays) < 2:
            assert time.monotonic() < deadline
            assert httpx.post(f"{server.url}/generate", json={"n": 3}).status_code == 200
            delays = re.findall(r"restart in (\S+) s", "".join(server.log))
        assert delays == ["1", "2"]
        assert "the models folder" in "".join(server.log)
        (tmp_path / "away").rename(folder)
        wait_until(lambda: len(workers_of(server)) == 2)
        assert other.is_running()
        # Gauges are those of living processes; counters include processes that exited.
        text = server.client.get("/metrics").text
        assert re.search(r"^figment_queue_images 0.0$", text, re.MULTILINE)


def test_worker_that_cannot_be_started_is_retried(server: Server) -> None:
    """The parent process is at its limit of open files."""
    parent = psutil.Process(server.process.pid)
    soft, hard = parent.rlimit(psutil.RLIMIT_NOFILE)
    parent.rlimit(psutil.RLIMIT_NOFILE, (parent.num_fds(), hard))
    workers_of(server)[0].kill()
    failed = "cannot start a worker process"
    wait_until(lambda: is_served(server) and any(failed in line for line in server.log))
    parent.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: len(workers_of(server)) == 2)


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcesses]:
    """Parent process without workers, in this process."""
    monkeypatch.setenv(metrics.SHARED, str(tmp_path))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    parent = WorkerProcesses(Settings(port=0), "")
    yield parent
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for listener in parent.sockets:
        listener.close()


def test_worker_without_heartbeat_is_killed(
    parent: WorkerProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that still loads is not killed. The kill is logged once."""
    loads, hangs = parent.processes = [
        kind(parent.config, parent.sockets) for kind in (SilentWorker, HungWorker)
    ]
    for worker in parent.processes:
        worker.start()
    wait_until(lambda: hangs.is_alive() and hangs.has_served)
    for _ in range(int(HEARTBEAT_TIMEOUT_SECONDS / POLL_SECONDS) - 1):
        parent.keep_subprocess_alive()
        assert hangs.exitcode is None
    for _ in range(2):
        parent.keep_subprocess_alive()
    assert hangs.exitcode == -signal.SIGKILL
    assert loads.exitcode is None
    killed, exited = caplog.messages
    assert killed == f"worker process {hangs.pid} sent no heartbeat for 30 s; killing it"
    assert exited == f"worker process {hangs.pid} exited (-9); restart in 1 s"
    loads.kill()


def test_worker_killed_at_its_start_is_restarted(
    parent: WorkerProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one has served, even if the parent has not noticed yet: the settings are valid."""
    loads, serves = parent.processes = [
        kind(parent.config, parent.sockets) for kind in (SilentWorker, HungWorker)
    ]
    for worker in parent.processes:
        worker.start()
    wait_until(serves.parent_conn.poll)
    loads.process.kill()
    loads.process.join()
    parent.keep_subprocess_alive()
    assert caplog.messages == [f"worker process {loads.pid} exited (-9); restart in 1 s"]
    serves.kill()


def test_workers_exit_with_their_parent() -> None:
    with serve("--workers", "2", program=PROGRAM) as server:
        wait_until_all_ready(server, 2)
        children = workers_of(server)
        (folder,) = metrics_folders(children[0])
        server.process.kill()
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert len(gone) == 2
        assert not alive
        assert not folder.exists()
