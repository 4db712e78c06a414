"""The end of the service: what was accepted is answered, and the status is 0."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI

from service.api.auth.access import AccessControl
from service.api.middleware.gateway import Gateway
from service.observability import metrics
from service.server.server import Server as Uvicorn
from service.server.server import configuration
from service.server.workers import HEARTBEAT_TIMEOUT_SECONDS, WorkerProcesses, WorkerSlot
from service.settings import Settings
from tests.conftest import manifest
from tests.helpers import onnx_files
from tests.helpers.server import ROOT, Server, command, environment, serve

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    return folder


def ready(server: Server) -> None:
    """With several workers, the socket is there before they are."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if server.client.get("/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("it is not ready: " + "".join(server.log))


class Callers:
    """Ask again as soon as they are answered, over connections of their own, until sent away."""

    def __init__(self, server: Server, count: int) -> None:
        self.answered, self.lost = 0, list[str]()
        self._url = server.url
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
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


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_accepted_is_lost(models: Path, number: int, workers: str) -> None:
    options = ("--models", str(models), "--workers", workers, "--max-wait", "30")
    for _ in range(3):
        with serve(*options, "--shutdown-delay", "0.5") as server:
            ready(server)
            callers = Callers(server, 16)
            while callers.answered < 32:
                time.sleep(0.01)
            os.kill(server.process.pid, number)
            assert server.process.wait(20) == 0
            callers.join()
            assert callers.lost == []
            assert not any("Traceback" in line for line in server.log)


@WORKERS
def test_a_stream_is_finished_first(models: Path, workers: str) -> None:
    with serve("--models", str(models), "--workers", workers) as server:
        ready(server)
        with server.client.stream("POST", "/generate?format=npy", json={"n": 30_000}) as answer:
            parts = answer.iter_bytes()
            got = len(next(parts))
            server.process.terminate()
            got += sum(len(part) for part in parts)
        assert got == int(answer.headers["Content-Length"])
        assert server.process.wait(20) == 0


@WORKERS
def test_what_takes_too_long_is_cut_and_seen_to_be(models: Path, workers: str) -> None:
    """Streams without end and readers who take nothing have as long as was set, and no more."""
    options = ("--models", str(models), "--workers", workers, "--drain", "1")
    with serve(*options) as server:
        ready(server)
        ask = {"n": 10_000_000}
        with (
            server.client.stream("POST", "/generate?format=zip", json=ask) as answer,
            httpx.Client(base_url=server.url) as another,
            another.stream("POST", "/generate?format=npy", json=ask),  # nobody reads
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
def test_readiness_goes_first(models: Path, workers: str) -> None:
    """While whoever sends requests finds out, they are taken still."""
    with serve("--models", str(models), "--workers", workers, "--shutdown-delay", "2") as server:
        ready(server)
        server.process.terminate()
        time.sleep(0.7)
        with httpx.Client(base_url=server.url) as fresh:
            for path in ("/readyz", "/v2/health/ready", "/v2/models/plain/ready"):
                gone = fresh.get(path)
                assert gone.status_code == 503
                assert gone.headers["Connection"] == "close"
            assert fresh.get("/healthz").status_code == 200
            assert fresh.post("/generate", json={"n": 1}).status_code == 200
        assert server.process.wait(20) == 0


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(models: Path, number: int, workers: str) -> None:
    options = ("--models", str(models), "--workers", workers)
    with serve(*options, "--shutdown-delay", "30", "--drain", "30") as server:
        ready(server)
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(number)
        started = time.monotonic()
        assert server.process.wait(20) == 128 + number
        assert time.monotonic() - started < 3
        psutil.wait_procs(children, timeout=5)
        assert not any(child.is_running() for child in children)


@WORKERS
@pytest.mark.parametrize("after", [0.2, 0.6, 1.0, 1.4])
def test_a_start_that_is_given_up(models: Path, workers: str, after: float) -> None:
    """Wherever it is: nothing was accepted, so there is nothing to complain of."""
    process = subprocess.Popen(
        command("--models", str(models), "--workers", workers),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    until_it_hears(process.pid)
    time.sleep(after)
    process.send_signal(signal.SIGHUP)
    process.terminate()
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert "Traceback" not in told


def until_it_hears(pid: int) -> None:
    """Of SIGTERM."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(re.findall(r"SigCgt:\s+(\w+)", status)[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def test_workers_that_still_load_hear_no_hangup(models: Path) -> None:
    with serve("--models", str(models), "--workers", "2") as server:
        for _ in range(20):  # from their first moments on
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        ready(server)
        assert not any("exited (" in line for line in server.log)


def test_an_end_told_to_each_of_a_group_is_one(models: Path) -> None:
    """As systemd does; what the supervisor passes on is no second one."""
    with serve("--models", str(models), "--workers", "2") as server:
        ready(server)
        with server.client.stream("POST", "/generate?format=npy", json={"n": 30_000}) as answer:
            parts = answer.iter_bytes()
            got = len(next(parts))
            for each in workers_of(psutil.Process(server.process.pid)):
                each.terminate()
            server.process.terminate()
            got += sum(len(part) for part in parts)
        assert got == int(answer.headers["Content-Length"])
        assert server.process.wait(20) == 0


def test_a_signal_waits_for_no_lock() -> None:
    """It comes in the middle of anything, such as counting: what holds the lock waits for it."""
    settings = Settings()
    gate = Gateway(FastAPI(), AccessControl(settings), origins=(), log_requests=False)
    server = Uvicorn(configuration(gate, settings), gate, shutdown_delay=0)
    told = threading.Thread(target=server.handle_exit, args=(signal.SIGTERM, None), daemon=True)
    with ExitStack() as stack:
        for gauge in (metrics.DRAINING, metrics.CONNECTIONS):
            stack.enter_context(gauge._value._lock)
        told.start()
        told.join(5)
        assert not told.is_alive()
    assert gate.draining


@pytest.mark.parametrize("how", ["shutdown", "timeout_keep_alive_handler"])
def test_a_request_that_has_come_is_answered_before_its_connection_is_closed(how: str) -> None:
    """The event loop may not have looked yet."""
    settings = Settings(port=0)
    app = FastAPI()
    app.get("/ask")(lambda: "answer")
    gate = Gateway(app, AccessControl(settings), origins=(), log_requests=False)
    server = Uvicorn(configuration(gate, settings), gate, shutdown_delay=0)

    async def scenario() -> None:
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
            for ends in (False, True):
                caller.sendall(b"GET /ask HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if ends:
                    (connection,) = server.server_state.connections
                    gate.drain()
                    getattr(connection, how)()
                answer = await asyncio.to_thread(caller.recv, 10_000)
                assert answer.endswith(b'"answer"')
            assert await asyncio.to_thread(caller.recv, 1) == b""
        server.should_exit = True
        await serving
        server.exit_timer.cancel()  # or it would end this process

    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(scenario())
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


STILL_COMPUTING = """
import threading, time
import numpy, onnxruntime
from service.server.server import force_exit
from service.core.process import COMPUTE_THREAD

session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
latent = numpy.zeros((64, session.get_inputs()[0].shape[1]), numpy.float32)

def compute():
    while True:
        session.run(None, {{"latent": latent}})

for _ in range(2):
    threading.Thread(target=compute, name=COMPUTE_THREAD, daemon=True).start()
time.sleep(0.1)
force_exit()
"""


def test_threads_that_are_still_at_a_batch_do_not_spoil_the_end(models: Path) -> None:
    file = str(models / "plain" / "1" / "model.onnx")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", STILL_COMPUTING.format(model=file)], timeout=60
        )
        assert done.returncode == 0


def test_a_worker_that_is_killed_is_replaced_while_others_serve(models: Path) -> None:
    options = ("--models", str(models), "--workers", "2", "--max-wait", "30")
    with serve(*options) as server:
        ready(server)
        supervisor = psutil.Process(server.process.pid)
        for _ in range(2):
            before = workers_of(supervisor)
            assert len(before) == 2
            before[0].kill()
            for _ in range(20):  # over new connections, which the other one takes
                answer = httpx.post(f"{server.url}/generate", json={"n": 1}, timeout=30)
                assert answer.status_code == 200
            deadline = time.monotonic() + 60
            while len(workers_of(supervisor)) < 2 or before[0] in workers_of(supervisor):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert server.process.poll() is None


def test_what_a_worker_told_of_itself_ends_with_it(models: Path) -> None:
    with serve("--models", str(models), "--workers", "2") as server:
        ready(server)
        first = workers_of(psutil.Process(server.process.pid))[0]
        first.terminate()
        deadline = time.monotonic() + 60
        while not any(f"process {first.pid} exited" in line for line in server.log):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "figment_draining 0.0" in httpx.get(f"{server.url}/metrics", timeout=30).text


def test_a_worker_that_cannot_be_replaced_leaves_the_others_alone(tmp_path: Path) -> None:
    """It is tried again and again, after longer and longer pauses, until it succeeds."""
    folder = tmp_path / "models"
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    with serve("--models", str(folder), "--workers", "2", "--max-wait", "30") as server:
        deadline = time.monotonic() + 60
        while "".join(server.log).count("startup complete") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        supervisor = psutil.Process(server.process.pid)
        killed, other = workers_of(supervisor)
        folder.rename(tmp_path / "away")
        killed.kill()
        pauses: list[str] = []
        while len(pauses) < 2:
            assert time.monotonic() < deadline
            assert httpx.post(f"{server.url}/generate", json={"n": 3}).status_code == 200
            pauses = re.findall(r"restart in (\S+) s", "".join(server.log))
        assert pauses == ["1", "2"]
        assert "the models folder" in "".join(server.log)
        (tmp_path / "away").rename(folder)
        while len(workers_of(supervisor)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert other.is_running()
        # Figures are those of the processes that live, and counts those of all.
        text = server.client.get("/metrics").text
        assert re.search(r"^figment_queue_images 0.0$", text, re.MULTILINE)


def test_a_worker_that_cannot_be_started_leaves_the_others_alone(models: Path) -> None:
    """There are as many processes as there may be."""
    with serve("--models", str(models), "--workers", "2") as server:
        ready(server)
        supervisor = psutil.Process(server.process.pid)
        handles = supervisor.rlimit(psutil.RLIMIT_NOFILE)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (supervisor.num_fds(), handles[1]))
        workers_of(supervisor)[0].kill()
        deadline = time.monotonic() + 60
        while not any("cannot start a worker process" in line for line in server.log):
            assert time.monotonic() < deadline
            assert httpx.post(f"{server.url}/generate", json={"n": 1}).status_code == 200
            time.sleep(0.1)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, handles)
        while len(workers_of(supervisor)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_who_is_silent_while_it_serves_is_killed() -> None:
    """And not who still loads, nor anyone for a pause that all of them made."""
    supervisor = WorkerProcesses(Settings(), "service.app:create_app")
    context = multiprocessing.get_context("spawn")
    now = time.monotonic()
    beats = {"loads": 0.0, "lives": now + 2 * HEARTBEAT_TIMEOUT_SECONDS, "hangs": now - 1}
    for beat in beats.values():
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        supervisor._slots.append(WorkerSlot(process, ctypes.c_double(beat), now))
    for later in (0, 10, 20, 29):
        supervisor._kill_hung(
            now + HEARTBEAT_TIMEOUT_SECONDS + later
        )  # all stood still before the first
        assert all(slot.process.is_alive() for slot in supervisor._slots)
    supervisor._kill_hung(now + 2 * HEARTBEAT_TIMEOUT_SECONDS + 0.1)
    *others, hangs = [slot.process for slot in supervisor._slots]
    hangs.join(10)
    assert hangs.exitcode == -signal.SIGKILL
    for process in others:
        assert process.is_alive()
        process.kill()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no such place")
def test_figures_of_several_processes_do_not_lie_on_a_disk(models: Path) -> None:
    """Where it is full, to write to what is mapped into memory would end them."""
    with serve("--models", str(models), "--workers", "2") as server:
        ready(server)
        for worker in workers_of(psutil.Process(server.process.pid)):
            (folder,) = figures_of(worker)
            assert folder.parent == Path("/dev/shm")


def test_workers_do_not_outlive_who_looks_after_them(models: Path) -> None:
    with serve("--models", str(models), "--workers", "2") as server:
        ready(server)
        children = workers_of(psutil.Process(server.process.pid))
        (folder,) = figures_of(children[0])
        server.process.kill()
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert len(gone) == 2
        assert not alive
        assert not folder.exists()


def test_a_port_in_use_is_told(models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            options = ("--models", str(models), "--port", port, "--workers", workers)
            with pytest.raises(AssertionError, match="ddress already in use"), serve(*options):
                pass


def figures_of(worker: psutil.Process) -> set[Path]:
    """The folders of the files in which it counts."""
    mapped = [Path(each.path) for each in worker.memory_maps()]
    return {path.parent for path in mapped if path.suffix == ".db"}


def workers_of(supervisor: psutil.Process) -> list[psutil.Process]:
    """Its processes that serve; multiprocessing has one of its own beside them."""
    return [
        child
        for child in supervisor.children()
        if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]
