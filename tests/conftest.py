from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.core.manifest import Attribute, DatasetInfo, Manifest, Provenance
from tests import helpers
from tests.helpers import onnx_files
from tests.helpers.once import made_once
from tests.helpers.server import MODELS, ROOT, Server, serve
from training.data import Dataset, load

# Without bytecode, each of some hundred processes compiles the service anew: 0.3 s.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The networks here are tiny: a second thread only waits for the first, and for whatever else runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here speaks TLS, and httpx would read the machine's certificates for each client: 30 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

REAL_DATA = Path(os.environ.get("TEST_DATA", ROOT.parent / "shared" / "data"))

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "40"))
"""Generated requests for each endpoint; ten times as many labels and addresses."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the fixture ``server``; files with slow tests come first.

    Else one of them would begin when the other workers of pytest-xdist have nothing left to do.
    """
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let only tests with the marker ``server`` or ``ray`` start one."""
    helpers.server.allowed = any(map(item.get_closest_marker, ("server", "ray")))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Event loop of tests marked ``anyio``."""
    return "asyncio"


@pytest.fixture(scope="session")
def plain_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one unconditional 16x16 model, ``plain`` version 1. Do not change it."""
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    return folder


@pytest.fixture(scope="session")
def face_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the latest shipped models of faces only, which load in a second less."""
    folder = tmp_path_factory.mktemp("faces")
    for path in ("anime-faces/2", "anime-faces-free/2"):
        (folder / path).parent.mkdir()
        (folder / path).symlink_to(MODELS / path)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The shipped models, served; patient, for the machine that tests may be slow."""
    with serve("--models", str(MODELS), "--max-wait", "30") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the anime faces and MNIST."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set TEST_DATA to its folder")
    return REAL_DATA


@pytest.fixture(scope="session")
def anime_faces(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    def read(path: Path) -> None:
        path.write_bytes(pickle.dumps(load(str(real_data / "anime-faces-64.zip"))))

    faces: Dataset = pickle.loads(made_once(tmp_path_factory, "faces.pickle", read).read_bytes())
    return faces


def attribute(name: str, *values: str) -> Attribute:
    share = 1 / len(values)
    return Attribute(name=name, values=values, frequencies=tuple(share for _ in values))


def manifest(*attributes: Attribute, name: str = "tiny", latent_size: int = 8) -> Manifest:
    """The manifest of a 16x16 RGB model."""
    return Manifest(
        name=name,
        kind="conditional" if attributes else "unconditional",
        latent_size=latent_size,
        height=16,
        width=16,
        channels=3,
        attributes=attributes,
        provenance=Provenance(
            dataset=DatasetInfo(name="none", licence="MIT", images=0, sha256="0" * 64),
            training={},
            code_version="0",
            date="2026-01-01",
        ),
    )
