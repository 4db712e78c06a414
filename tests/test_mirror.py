"""Models from an object store. fsspec's in-memory one stands for S3: what differs is fsspec's."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from service import mirror
from service.errors import StartupError
from service.mirror import local_copy
from tests import onnx_files
from tests.conftest import manifest
from tests.server import serve
from tests.test_startup import refuse

URL = "memory://bucket/models"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty store, and a folder for copies that is ours alone."""
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
        if path.is_file() and path.name != mirror.RECORD
    }


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert local_copy(tmp_path) == tmp_path
    assert local_copy("models") == Path("models")


def test_what_is_served_is_brought_and_nothing_else(store: Any) -> None:
    served = {
        "faces/1/model.onnx": b"one",
        "faces/2/model.onnx": b"two",
        "faces/2/verifier.onnx": b"verifier",
        "faces/aliases.json": b"{}",
    }
    for path, content in served.items():
        put(store, path, content)
    for path in ("faces/2/README.md", "README.md", "faces/.3.tmp/model.onnx", "a/b/c/model.onnx"):
        put(store, path)
    assert files(local_copy(URL)) == served
    assert files(local_copy(f"{URL}/")) == served


def test_unchanged_files_are_not_brought_again(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx", b"one")
    put(store, "faces/2/model.onnx", b"two")
    folder = local_copy(URL)
    opened: list[str] = []
    plainly = type(store).open

    def watched(self: Any, path: str, *more: Any, **options: Any) -> Any:
        opened.append(path)
        return plainly(self, path, *more, **options)

    monkeypatch.setattr(type(store), "open", watched)
    assert local_copy(URL) == folder
    assert opened == []
    put(store, "faces/2/model.onnx", b"another")
    put(store, "faces/3/model.onnx", b"three")
    opened.clear()
    local_copy(URL)
    assert [path[-18:] for path in opened] == ["faces/2/model.onnx", "faces/3/model.onnx"]
    assert files(folder)["faces/2/model.onnx"] == b"another"
    (folder / "faces" / "1" / "model.onnx").unlink()  # by whoever tidies temporary files
    local_copy(URL)
    assert files(folder)["faces/1/model.onnx"] == b"one"


def test_what_is_gone_from_the_store_goes_here(store: Any) -> None:
    put(store, "faces/1/model.onnx")
    put(store, "digits/1/model.onnx")
    put(store, "digits/aliases.json")
    folder = local_copy(URL)
    store.rm("/bucket/models/digits", recursive=True)
    local_copy(URL)
    assert list(files(folder)) == ["faces/1/model.onnx"]
    assert not (folder / "digits").exists()


def test_a_file_is_there_whole_or_not_at_all(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "faces/1/model.onnx", b"one")
    folder = local_copy(URL)
    put(store, "faces/1/model.onnx", b"changed")
    put(store, "faces/2/model.onnx", b"two")

    def lost(source: Any, target: Any, size: int) -> None:
        target.write(b"half")
        raise ConnectionError("the store is gone\nfor good")

    monkeypatch.setattr(shutil, "copyfileobj", lost)
    with pytest.raises(StartupError, match=f"{URL} cannot be read: the store is gone$"):
        local_copy(URL)
    assert files(folder) == {"faces/1/model.onnx": b"one"}
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent.parent))
    assert local_copy(URL) == folder
    assert files(folder) == {"faces/1/model.onnx": b"changed", "faces/2/model.onnx": b"two"}


def test_an_empty_store_is_told_and_changes_nothing(store: Any) -> None:
    put(store, "faces/1/model.onnx", b"one")
    folder = local_copy(URL)
    store.rm("/bucket/models", recursive=True)
    with pytest.raises(StartupError, match=f"no folder with models at {URL} .looked for NAME"):
        local_copy(URL)
    assert files(folder) == {"faces/1/model.onnx": b"one"}


def test_a_record_that_cannot_be_read_has_all_brought_again(store: Any) -> None:
    put(store, "faces/1/model.onnx", b"one")
    folder = local_copy(URL)
    (folder / mirror.RECORD).write_text("{")
    (folder / "faces" / "1" / "model.onnx").write_bytes(b"two")
    assert files(local_copy(URL)) == {"faces/1/model.onnx": b"one"}
    assert list(json.loads((folder / mirror.RECORD).read_text())) == ["faces/1/model.onnx"]


def test_a_folder_for_copies_that_others_may_write_to_is_refused(store: Any) -> None:
    put(store, "faces/1/model.onnx")
    own = local_copy(URL).parent
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
def test_a_store_that_cannot_be_read_is_told_in_a_sentence(
    tmp_path: Path, url: str, said: str
) -> None:
    told = refuse("--models", url, TMPDIR=str(tmp_path))
    assert said in told
    assert url in told


def test_the_server_serves_from_an_address_and_reloads_from_it(tmp_path: Path) -> None:
    there = tmp_path / "store"
    onnx_files.put(there, "tiny", 1, onnx_files.model(manifest()))
    variables = {"TMPDIR": str(tmp_path)}
    with serve("--models", f"file://{there}", variables=variables) as server:
        onnx_files.put(there, "tiny", 2, onnx_files.model(manifest()))
        assert server.client.post("/models/reload").json()["added"] == ["tiny/2"]
        assert server.client.get("/models/tiny").json()["version"] == 2
        assert server.client.get("/images/tiny/2/3/0.png").status_code == 200
