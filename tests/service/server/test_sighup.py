"""SIGHUP: every worker process reloads models and keys; without a terminal, the service exits."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import manifest
from tests.helpers import onnx_files
from tests.helpers.bare_server import PROGRAM
from tests.helpers.server import ROOT, Server, command, environment, serve
from tests.helpers.waiting import wait_until
from tests.helpers.worker_processes import wait_until_all_ready

pytestmark = pytest.mark.server

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    return folder


def statuses(server: Server, path: str, key: str | None = None) -> set[int]:
    """Statuses of ten requests over new connections, which reach every worker process."""
    headers = {"Connection": "close"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return set(_statuses(server.client, path, headers))


def _statuses(client: httpx.Client, path: str, headers: dict[str, str]) -> Iterator[int]:
    for _ in range(10):
        try:
            yield client.get(path, headers=headers).status_code
        except httpx.HTTPError:
            yield 0


@pytest.mark.slow
@WORKERS
def test_all_workers_load_new_models(models: Path, workers: str) -> None:
    with serve("--models", str(models), "--workers", workers) as server:
        wait_until_all_ready(server, int(workers))
        onnx_files.put(models, "plain", 2, onnx_files.model(manifest(name="plain")))
        assert statuses(server, "/models/plain/2") == {404}
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: statuses(server, "/models/plain/2") == {200})
        # A POST to one worker process reloads all of them.
        onnx_files.put(models, "plain", 3, onnx_files.model(manifest(name="plain")))
        assert server.client.post("/models/reload").json()["added"] == ["plain/3"]
        wait_until(lambda: statuses(server, "/models/plain/3") == {200})


@pytest.mark.slow
@WORKERS
def test_api_keys_are_replaced(models: Path, tmp_path: Path, workers: str) -> None:
    def entry(name: str, key: str) -> str:
        return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"

    keys = tmp_path / "keys"
    keys.write_text(entry("team", "old"))
    options = ("--models", str(models), "--workers", workers, "--api-keys-file", str(keys))
    with serve(*options) as server:
        wait_until_all_ready(server, int(workers))
        assert statuses(server, "/models", "old") == {200}
        keys.write_text(entry("team", "new") + entry("more", "another"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: statuses(server, "/models", "new") == {200})
        wait_until(lambda: statuses(server, "/models", "old") == {401})
        # An invalid file changes no key.
        keys.write_text("no key at all\n")
        headers = {"Authorization": "Bearer new"}
        report = server.client.post("/models/reload", headers=headers).json()
        assert "the API keys stay as they were" in report["warnings"][0]
        keys.write_text("")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "".join(server.log).count("there is no API key in") >= int(workers))
        assert statuses(server, "/models", "another") == {200}
        assert statuses(server, "/models") == {401}


def test_sighup_does_not_kill_workers_that_still_load() -> None:
    with serve("--workers", "2", program=PROGRAM) as server:
        for _ in range(20):  # from their first moments on
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        wait_until_all_ready(server, 2)
        assert not any("exited (" in line for line in server.log)


@WORKERS
def test_service_exits_when_its_terminal_is_closed(workers: str) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command("--workers", workers, program=PROGRAM),
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    written = b""
    while written.count(b"Application startup complete") < int(workers):
        written += os.read(ours, 4096)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # the shell's, beside the kernel's
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()
