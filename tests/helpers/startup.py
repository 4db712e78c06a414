"""Starts that the service refuses."""

from __future__ import annotations

import tempfile

from tests.helpers.forked import ForkedProcess
from tests.helpers.server import command, environment


def refuse(*options: str, **settings: str) -> str:
    """Start the service, which must exit with an error status. Returns its stderr."""
    _, _, *words = command(*options)
    with tempfile.TemporaryFile("w+") as file:
        status = ForkedProcess(words, environment() | settings, file.fileno()).wait(60)
        file.seek(0)
        stderr = file.read()
    assert status in (1, 2, 3)  # 3 is uvicorn's
    assert "Traceback" not in stderr
    return stderr
