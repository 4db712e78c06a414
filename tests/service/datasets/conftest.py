"""Models, the command, and an undisturbed build of the large set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import manifest
from tests.helpers.make_dataset import COLOURS, LARGE, SIZES, Command, build, read
from tests.helpers.onnx_files import model, put
from tests.helpers.server import Server, serve


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    put(folder, "tiny", 1, model(manifest(COLOURS, latent_size=4)))
    put(folder, "tiny", 2, model(manifest(COLOURS, SIZES)))
    put(folder, "free", 1, model(manifest(name="free")))
    return folder


@pytest.fixture
def command(models: Path, tmp_path: Path) -> Command:
    return Command(models, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The large set, made in one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(LARGE, models, out)
    return read(out)


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    with serve("--models", str(models), "--max-wait", "30") as running:
        yield running


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library ``datasets``, with a cache of its own; importing it takes a second."""
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


BUCKET = '''
import fnmatch, os, shutil
from fsspec.implementations.local import LocalFileSystem

class Bucket(LocalFileSystem):
    """Objects that appear whole, in a folder."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        name = str(path).removeprefix(os.environ["BUCKET"]).removeprefix("bucket://").strip("/")
        return os.environ["BUCKET"] + "/" + name

    def put_file(self, local, remote, **options):
        if "BUCKET_REFUSES" in os.environ:
            raise PermissionError("Access Denied to bucket://user:hunter2@team")
        if fnmatch.fnmatch(os.path.basename(remote), os.environ.get("BUCKET_LOSES", "")):
            return
        remote = self._strip_protocol(remote)
        os.makedirs(os.path.dirname(remote), exist_ok=True)
        part = f"{os.environ['BUCKET']}/{os.getpid()}.part"
        shutil.copyfile(local, part)
        os.replace(part, remote)

    def pipe_file(self, path, value, **options):
        with open(f"{os.environ['BUCKET']}/manifest.part", "wb") as file:
            file.write(value)
        self.put_file(file.name, path)
'''


@pytest.fixture
def bucket(command: Command) -> Path:
    """Object store at ``bucket://``, which fsspec finds in all processes of the command."""
    installed, content = command.folder / "installed", command.folder / "bucket"
    (installed / "bucket-1.dist-info").mkdir(parents=True)
    content.mkdir()
    (installed / "bucket.py").write_text(BUCKET)
    (installed / "bucket-1.dist-info" / "METADATA").write_text("Name: bucket\nVersion: 1\n")
    points = "[fsspec.specs]\nbucket = bucket:Bucket\n"
    (installed / "bucket-1.dist-info" / "entry_points.txt").write_text(points)
    command.variables = {"PYTHONPATH": str(installed), "BUCKET": str(content)}
    return content
