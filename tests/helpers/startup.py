"""Starts that the service refuses."""

from __future__ import annotations

import subprocess

from tests.helpers.server import ROOT, command, environment


def refuse(*options: str, **settings: str) -> str:
    """Start the service, which must exit with an error status. Returns its stderr."""
    done = subprocess.run(
        command(*options),
        cwd=ROOT,
        env=environment() | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2, 3)  # 3 is uvicorn's
    assert "Traceback" not in done.stderr
    return done.stderr
