"""SIGHUP: models and keys are read anew, by all workers."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import manifest
from tests.helpers import onnx_files
from tests.helpers.server import ROOT, Server, command, environment, serve
from tests.helpers.waiting import wait_until

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    return folder


def statuses(server: Server, path: str, key: str | None = None) -> set[int]:
    """Of ten requests over connections of their own, so that all workers are asked."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    found = set()
    for _ in range(10):
        try:
            found.add(httpx.get(f"{server.url}{path}", headers=headers).status_code)
        except httpx.HTTPError:
            found.add(0)
    return found


@WORKERS
def test_all_workers_take_up_new_models(models: Path, workers: str) -> None:
    with serve("--models", str(models), "--workers", workers) as server:
        wait_until(lambda: statuses(server, "/readyz") == {200})
        onnx_files.put(models, "plain", 2, onnx_files.model(manifest(name="plain")))
        assert statuses(server, "/models/plain/2") == {404}
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: statuses(server, "/models/plain/2") == {200})
        # Asked of one of them, it reaches all.
        onnx_files.put(models, "plain", 3, onnx_files.model(manifest(name="plain")))
        assert server.client.post("/models/reload").json()["added"] == ["plain/3"]
        wait_until(lambda: statuses(server, "/models/plain/3") == {200})


@WORKERS
def test_keys_are_exchanged(models: Path, tmp_path: Path, workers: str) -> None:
    def entry(name: str, key: str) -> str:
        return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"

    keys = tmp_path / "keys"
    keys.write_text(entry("team", "old"))
    options = ("--models", str(models), "--workers", workers, "--api-keys-file", str(keys))
    with serve(*options) as server:
        wait_until(lambda: statuses(server, "/models", "old") == {200})
        keys.write_text(entry("team", "new") + entry("more", "another"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: statuses(server, "/models", "new") == {200})
        wait_until(lambda: statuses(server, "/models", "old") == {401})
        # A bad file opens nothing and closes nothing.
        keys.write_text("no key at all\n")
        headers = {"Authorization": "Bearer new"}
        told = server.client.post("/models/reload", headers=headers).json()
        assert "the API keys stay as they were" in told["warnings"][0]
        keys.write_text("")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert statuses(server, "/models", "another") == {200}
        assert statuses(server, "/models") == {401}


@WORKERS
def test_without_its_terminal_it_ends(models: Path, workers: str) -> None:
    """Or whoever closes a window would leave a service behind."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command("--models", str(models), "--workers", workers),
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    told = b""
    while told.count(b"Application startup complete") < int(workers):
        told += os.read(ours, 4096)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # the shell's, beside the kernel's
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()
