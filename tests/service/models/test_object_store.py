"""Models from an object store: fsspec's in-memory store instead of S3."""

from __future__ import annotations

import functools
import http.server
import logging
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from service.errors import StartupError
from service.models import object_store
from service.models.object_store import local_copy
from tests.conftest import manifest
from tests.helpers import onnx_files
from tests.helpers.server import serve
from tests.helpers.startup import refuse

URL = "memory://bucket/models"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Empty store; copies go to a folder of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


def put(store: Any, path: str, content: bytes = b"x") -> None:
    store.pipe_file(f"/bucket/models/{path}", content)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != object_store.LISTING
    }


def test_local_folder_is_used_in_place(tmp_path: Path) -> None:
    assert local_copy(tmp_path) == tmp_path
    assert local_copy("models") == Path("models")


def test_only_served_files_are_copied(store: Any) -> None:
    served = {
        "faces/1/model.onnx": b"one",
        "faces/2/model.onnx": b"two",
        "faces/2/verifier.onnx": b"verifier",
        "faces/2/report.html": b"report",
        "faces/aliases.json": b"{}",
    }
    for path, content in served.items():
        put(store, path, content)
    for path in ("faces/2/README.md", "README.md", "faces/.3.tmp/model.onnx", "a/b/c/model.onnx"):
        put(store, path)
    for path in ("Faces/1/model.onnx", "faces/01/model.onnx", "faces/new/model.onnx"):
        put(store, path)
    assert files(local_copy(URL)) == served
    assert files(local_copy(f"{URL}/")) == served


def test_unchanged_store_is_not_copied_again(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx", b"one")
    put(store, "digits/1/model.onnx", b"digit")
    first = local_copy(URL)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", None)
        assert local_copy(URL) == first
    store.rm("/bucket/models/digits", recursive=True)
    put(store, "faces/2/model.onnx", b"two")
    second = local_copy(URL)
    assert files(second) == {"faces/1/model.onnx": b"one", "faces/2/model.onnx": b"two"}
    assert files(first) == {"faces/1/model.onnx": b"one", "digits/1/model.onnx": b"digit"}
    put(store, "faces/2/model.onnx", b"new")  # of the same size
    third = local_copy(URL)
    assert files(third) == {"faces/1/model.onnx": b"one", "faces/2/model.onnx": b"new"}
    assert second.is_dir() and not first.exists()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("faces/1/model.onnx", None),  # as a cleaner of temporary files may do
        ("faces/1/model.onnx", b""),  # as a loss of power may do
        (object_store.LISTING, None),
        (object_store.LISTING, b"{"),
    ],
)
def test_incomplete_copy_is_replaced(store: Any, path: str, content: bytes | None) -> None:
    put(store, "faces/1/model.onnx", b"one")
    damaged = local_copy(URL) / path
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    assert files(local_copy(URL)) == {"faces/1/model.onnx": b"one"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_store_without_modification_times_is_read_on_each_copy(store: Any, tmp_path: Path) -> None:
    """Over HTTP, listings are names alone."""
    path = tmp_path / "store" / "faces" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    handler = functools.partial(Quiet, directory=tmp_path / "store")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            folder = local_copy(url)
            assert files(folder) == {"faces/1/model.onnx": b"one"}
            path.write_bytes(b"two")
            assert files(local_copy(url)) == {"faces/1/model.onnx": b"two"}
        finally:
            server.shutdown()
            thread.join()


def test_truncated_download_is_discarded(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx", b"whole")
    find = type(store).find

    def larger(self: Any, *path: Any, **options: Any) -> Any:
        found = find(self, *path, **options)
        return {name: {**info, "size": info["size"] + 1} for name, info in found.items()}

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "find", larger)
        with pytest.raises(StartupError, match="has 6 bytes, but 5 were received"):
            local_copy(URL)
    assert files(local_copy(URL)) == {"faces/1/model.onnx": b"whole"}


def test_failed_copy_leaves_nothing(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx", b"one")
    folder = local_copy(URL)
    killed = folder.with_name(object_store.UNFINISHED) / "faces" / "1"
    killed.mkdir(parents=True)
    (killed / "model.onnx").write_bytes(b"which may be what fills the disk")
    put(store, "faces/2/model.onnx", b"two")

    def lost(self: Any, path: str, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise ConnectionError("the store is gone\nfor good")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", lost)
        with pytest.raises(StartupError, match=f"{URL} cannot be read: the store is gone$"):
            local_copy(URL)
    assert list(folder.parent.iterdir()) == [folder]
    assert files(folder) == {"faces/1/model.onnx": b"one"}
    assert files(local_copy(URL)) == {"faces/1/model.onnx": b"one", "faces/2/model.onnx": b"two"}


def test_empty_store_is_an_error_and_changes_nothing(store: Any) -> None:
    put(store, "faces/1/model.onnx", b"one")
    folder = local_copy(URL)
    store.rm("/bucket/models", recursive=True)
    with pytest.raises(StartupError, match=f"no folder with models at {URL} .looked for NAME"):
        local_copy(URL)
    assert files(folder) == {"faces/1/model.onnx": b"one"}


def test_full_disk_is_a_startup_error(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store), "get_file", full)
    with pytest.raises(StartupError, match=f"{URL} cannot be read: .*No space left on device"):
        local_copy(URL)


def test_password_in_a_url_is_not_shown(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(url: str) -> Any:
        raise PermissionError(f"no pa@ss of user:pa%40ss for {url}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refused)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StartupError) as raised:
        local_copy("ftp://user:pa%40ss@host/models")
    assert str(raised.value) == (
        "the models at ftp://user:***@host/models cannot be read: no *** of user:*** for "
        "ftp://user:***@host/models"
    )
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    assert "pa%40ss" not in caplog.text


def test_processes_share_a_copy(store: Any) -> None:
    put(store, "faces/1/model.onnx")
    with ThreadPoolExecutor(4) as threads:
        copies = set(threads.map(lambda _: local_copy(URL), range(8)))
    assert len(copies) == 1


def test_folder_for_copies_writable_by_others_is_rejected(store: Any) -> None:
    put(store, "faces/1/model.onnx")
    own = local_copy(URL).parent.parent
    own.chmod(0o777)
    with pytest.raises(StartupError, match="others may write to"):
        local_copy(URL)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("abfs://bucket/models", "adlfs"),
        ("nothing://bucket", "nothing"),
        ("file:///nowhere/models", "no folder with models at file:///nowhere/models"),
    ],
)
@pytest.mark.usefixtures("store")
def test_unreadable_store_is_a_startup_error(url: str, said: str) -> None:
    with pytest.raises(StartupError) as raised:
        local_copy(url)
    assert said in str(raised.value)
    assert url in str(raised.value)


@pytest.mark.server
def test_server_does_not_start_without_its_store(tmp_path: Path) -> None:
    said = refuse("--models", "file:///nowhere/models", TMPDIR=str(tmp_path))
    assert "Error: there is no folder with models at file:///nowhere/models" in said


@pytest.mark.server
def test_server_loads_and_reloads_from_a_url(tmp_path: Path) -> None:
    there = tmp_path / "store"
    onnx_files.put(there, "tiny", 1, onnx_files.model(manifest()))
    variables = {"TMPDIR": str(tmp_path)}
    with serve("--models", f"file://{there}", variables=variables) as server:
        onnx_files.put(there, "tiny", 2, onnx_files.model(manifest()))
        assert server.client.post("/models/reload").json()["added"] == ["tiny/2"]
        assert server.client.get("/models/tiny").json()["version"] == 2
        assert server.client.get("/images/tiny/2/3/0.png").status_code == 200
