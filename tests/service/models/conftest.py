"""One server for all tests of reloads. Each test begins with the same two models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.reload import fill, reload
from tests.helpers.server import Server, serve


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """Models folder and the server on it."""
    folder = fill(tmp_path_factory.mktemp("reload") / "models")
    with serve("--models", str(folder), "--threads", "2") as server:
        yield folder, server


@pytest.fixture
def server(running: tuple[Path, Server]) -> Server:
    """The running server, reset to version 1 of ``tiny`` and ``other``."""
    folder, server = running
    fill(folder)
    reload(server)
    return server


@pytest.fixture
def models(running: tuple[Path, Server]) -> Path:
    """Models folder of ``server``."""
    return running[0]
