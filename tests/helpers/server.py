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
from typing import IO

import httpx

from tests.helpers.forked import PROGRAMS, ForkedProcess

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


Process = subprocess.Popen[str] | ForkedProcess


class Server:
    """A running server. ``client`` is bound to its address; ``log`` grows as it writes."""

    def __init__(self, process: Process, url: str, log: list[str]) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.client = httpx.Client(base_url=url, timeout=60)


@contextmanager
def serve(
    *options: str, program: Sequence[str] = ("service",), variables: Mapping[str, str] = NONE
) -> Iterator[Server]:
    """Start a server and wait until it listens; end it with SIGTERM."""
    process, stderr = _start(command(*options, program=program), variables)
    log: list[str] = []
    listening = threading.Event()
    reader = threading.Thread(target=_read, args=(stderr, log, listening))
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


def _start(argv: Sequence[str], variables: Mapping[str, str]) -> tuple[Process, IO[str]]:
    """Process and its stderr."""
    env = environment() | dict(variables)
    _, _, *words = argv
    if words[0] in PROGRAMS and not variables:  # libraries read some when they are imported
        read, write = os.pipe()
        with os.fdopen(write, "w"):
            return ForkedProcess(words, env, write), os.fdopen(read)
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, process.stderr


def _read(stderr: IO[str], log: list[str], listening: threading.Event) -> None:
    with stderr:
        for line in stderr:
            log.append(line)
            if "running on" in line:
                listening.set()
    listening.set()  # the process exited; the log says why
