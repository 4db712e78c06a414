"""Full disks, unread logs and too little memory."""

from __future__ import annotations

import fcntl
import io
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import manifest
from tests.helpers import faulty_server, onnx_files
from tests.helpers.ports import free_port
from tests.helpers.process_stats import Figures, unharmed, warm
from tests.helpers.server import ROOT, Server, command, environment, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

NO_ROOM = "no-room-for-temporary-files"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    large = manifest(name="large").model_copy(update={"height": 256, "width": 256})
    onnx_files.put(folder, "large", 1, onnx_files.model(large))
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    bounds = ("--max-wait", "60", "--default-model", "plain")
    with serve("--models", str(models), *bounds) as running:
        warm(running)
        yield running


@contextmanager
def at_most(server: Server, what: int, amount: int) -> Iterator[None]:
    """Set a resource limit of the server's process, and restore it afterwards."""
    process = psutil.Process(server.process.pid)
    soft, hard = process.rlimit(what)
    process.rlimit(what, (amount, hard))
    yield
    process.rlimit(what, (soft, hard))


def test_full_disk_is_answered_503(server: Server) -> None:
    """A format that needs temporary files is rejected at once; the others are served."""
    with unharmed(server):
        before = Figures(server)
        with at_most(server, psutil.RLIMIT_FSIZE, 0):
            answer = server.client.post("/generate?format=zip", json={"n": 100})
            assert answer.status_code == 503
            assert answer.json()["title"] == "No room for temporary files"
            assert "the temporary files of a set cannot be written" in answer.json()["detail"]
            for format_ in ("json", "npy", "webdataset", "parquet"):
                server.client.post(
                    f"/generate?format={format_}", json={"n": 100}
                ).raise_for_status()
        after = Figures(server)
        assert after("rejections_total") == before("rejections_total") + 1
        assert after("rejections_total", reason=NO_ROOM) == 1
        assert after("streams_cut_total") == before("streams_cut_total")


def test_disk_that_fills_up_aborts_the_set(server: Server) -> None:
    """The client sees the abort: the connection ends early, and the archive is invalid."""
    with unharmed(server):
        before = Figures(server)
        parts = []
        with (
            at_most(server, psutil.RLIMIT_FSIZE, 100_000),
            server.client.stream("POST", "/generate?format=zip", json={"n": 100_000}) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            assert answer.status_code == 200
            for part in answer.iter_raw():
                parts.append(part)
        assert len(parts) > 10
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(b"".join(parts)))
        wait_until(lambda: Figures(server)("streams") == 0)
        after = Figures(server)
        assert after("streams_cut_total", reason=NO_ROOM) == 1
        assert after("streams_cut_total") == before("streams_cut_total") + 1
        whole = server.client.post("/generate?format=zip", json={"n": 3000}).content
        assert len(zipfile.ZipFile(io.BytesIO(whole)).namelist()) == 3001
    assert not any("Traceback" in line for line in server.log)


def test_missing_temporary_folder_is_answered_503(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serve("--models", str(models), variables={"TMPDIR": str(folder)}) as server:
        server.client.post("/generate?format=zip", json={"n": 9}).raise_for_status()
        folder.rmdir()
        with unharmed(server):
            answer = server.client.post("/generate?format=zip", json={"n": 9})
            assert answer.status_code == 503
        folder.mkdir()
        server.client.post("/generate?format=zip", json={"n": 9}).raise_for_status()


def close(log: io.TextIOWrapper) -> None:
    log.close()


def leave_full(log: io.TextIOWrapper) -> None:
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)


@pytest.mark.parametrize("spoil", [close, leave_full])
def test_unread_log_blocks_no_request(
    models: Path, tmp_path: Path, spoil: Callable[[io.TextIOWrapper], None]
) -> None:
    """Neither a closed pipe nor a full one blocks a request."""
    options = ("--models", str(models), "--log-requests", "--default-model", "plain")
    process = subprocess.Popen(
        command(*options, program=("tests.helpers.faulty_server", str(tmp_path))),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = process.stderr
    assert isinstance(log, io.TextIOWrapper)
    try:
        found = next(found for line in log if (found := re.search(r"running on (http\S+)", line)))
        spoil(log)
        with httpx.Client(base_url=found[1], timeout=10) as client:
            for _ in range(100):  # each logs about 2,000 characters
                answer = client.post("/generate", json={"n": 1, "seed": faulty_server.RAISES})
                assert answer.status_code == 500
            assert client.post("/generate", json={"n": 100}).status_code == 200
            assert client.get("/readyz").status_code == 200
        process.terminate()
        if not log.closed:  # nothing was lost meanwhile
            assert log.read().count("batch failed") == 100
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        log.close()


def test_server_without_stderr(models: Path) -> None:
    """Output of libraries to stderr must not reach a connection with descriptor 2."""
    port = str(free_port())
    options = command("--models", str(models), "--port", port)
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *options], cwd=ROOT, env=environment()
    )
    try:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.ConnectError:
                return False

        wait_until(answers, 60)
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path("/dev/null")
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_out_of_memory_is_answered_503_and_recovers(server: Server) -> None:
    """Large requests fail with a sentence; small ones are served, and the service recovers."""
    process = psutil.Process(server.process.pid)
    with unharmed(server):
        room = process.memory_info().vms + (200 << 20)
        with at_most(server, psutil.RLIMIT_AS, room):
            for _ in range(3):
                answer = server.client.post("/generate", json={"model": "large", "n": 1000})
                assert answer.status_code == 503
                assert "not enough memory" in answer.json()["detail"]
                assert server.client.post("/generate", json={"n": 5}).status_code == 200
            assert server.client.get("/readyz").status_code == 200
        answer = server.client.post("/generate", json={"model": "large", "n": 300})
        assert len(answer.json()["images"]) == 300
