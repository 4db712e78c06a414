"""``python -m service``, forked from a process that has imported it.

The imports are most of what a start costs: a second of processor time. They leave the same in each
process; all else, from the command line to the exit of the interpreter, is the process's own.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAMS = ("service", "tests.helpers.bare_server")
"""Modules that may run here. Others replace parts of the service before they import it."""
IMPORTS = (
    *("service.app", "service.cli.main", "service.server.server", "service.server.workers"),
    *("service.models.object_store", "tests.helpers.bare_server"),
)


class ForkedProcess:
    """``python -m`` of one of ``PROGRAMS``, with methods as of ``Popen``.

    stdin and stdout are ``/dev/null``.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stderr: int) -> None:
        assert command[0] in PROGRAMS
        self.returncode: int | None = None
        self._keeper, theirs = socket.socketpair()
        with theirs:
            _, origin = _origin()
            socket.send_fds(origin, [b"fork"], [stderr, theirs.fileno()])
        self._keeper.sendall(json.dumps([command, env]).encode() + b"\n")
        self.pid = int(self._keeper.recv(32))

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._keeper], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("service", timeout or 0)
            self.returncode = int(self._keeper.recv(32))
            self._keeper.close()
        return self.returncode


@functools.cache
def _origin() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process that has imported the service, which ends with this one; a connection to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the service asks for its terminal when it is imported
        )
    return process, ours


def main() -> None:
    """Fork for each request; returns in the forked process, with its command in ``sys.argv``."""
    for module in IMPORTS:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=int(sys.argv[1]))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 4, 2)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    requests.close()
    _start(*descriptors)


def _start(stderr: int, reports: int) -> None:
    """Return in a child process that is as if started by the command; report its end."""
    with socket.socket(fileno=reports) as test, test.makefile() as lines:
        command, env = json.loads(lines.readline())
        if child := os.fork():
            test.sendall(str(child).encode())
            os.close(stderr)
            _, status = os.waitpid(child, 0)
            test.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
    os.dup2(stderr, sys.stderr.fileno())
    os.close(stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = command


if __name__ == "__main__":
    main()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
