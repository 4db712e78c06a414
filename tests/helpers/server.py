"""A real server: ``python -m service`` in its own process, with a client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
START_SECONDS = 60
NONE: Mapping[str, str] = {}
allowed = False
"""True in tests with the marker ``server``."""


def command(*options: str, program: Sequence[str] = ("service",)) -> list[str]:
    """Command line of a server. ``program``: module to run instead of the service, and options."""
    assert allowed, "mark this test with pytest.mark.server"
    return [sys.executable, "-m", *program, "--port", "0", "--shutdown-delay", "0", *options]


def default_sigint() -> None:
    """``preexec_fn``: undo that a shell's background jobs, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """Environment of this process, without variables that would change the server."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FIGMENT_", "ORT_"))
    }


class Server:
    """A running server. ``client`` is bound to its address; ``log`` grows as it writes."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: list[str]) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.client = httpx.Client(base_url=url, timeout=60)


@contextmanager
def serve(
    *options: str, program: Sequence[str] = ("service",), variables: Mapping[str, str] = NONE
) -> Iterator[Server]:
    """Start a server and wait until it listens; end it with SIGTERM."""
    process = subprocess.Popen(
        command(*options, program=program),
        cwd=ROOT,
        env=environment() | dict(variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    listening = threading.Event()
    reader = threading.Thread(target=_read, args=(process, log, listening))
    reader.start()
    try:
        assert listening.wait(START_SECONDS), "".join(log)
        found = re.search(r"running on (http://\S+)", "".join(log))
        assert found, "".join(log)
        server = Server(process, found[1], log)
        with server.client:
            yield server
    finally:
        process.terminate()
        process.wait(30)
        reader.join()


def _read(process: subprocess.Popen[str], log: list[str], listening: threading.Event) -> None:
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            log.append(line)
            if "running on" in line:
                listening.set()
    listening.set()  # the process exited; the log says why
