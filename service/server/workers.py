"""Worker processes that serve on one socket, below uvicorn's parent process.

Added to uvicorn's: growing pauses between restarts, heartbeats of the event loop, SIGHUP as reload,
a second signal that ends all at once, and shared metrics.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from multiprocessing.connection import wait

import uvicorn
from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess, Process

from service.core.process import (
    TERMINATION_SIGNALS,
    end_with_parent,
    signals_blocked,
    unblock_signals,
)
from service.errors import StartupError
from service.observability import metrics
from service.server import signals
from service.settings import Settings

POLL_SECONDS = 0.5
"""Interval at which uvicorn handles signals and checks the processes."""
MIN_BACKOFF_SECONDS = 1.0
"""Delay before a worker process that exited is replaced."""
MAX_BACKOFF_SECONDS = 60.0
"""Limit of the delay, which doubles while replacements live shorter than this."""
HEARTBEAT_TIMEOUT_SECONDS = 30.0
"""A process without a heartbeat for this long is killed; at least three times ``hang_timeout``."""
KILL_SECONDS = 10.0
"""Added to the configured shutdown times; processes exit by themselves after half of this."""
SHARED_MEMORY = "/dev/shm"

log = logging.getLogger(__name__)


class Worker(Process):
    """A worker process. The parent process pings it, and its event loop answers."""

    settings: Settings
    started = 0.0
    backoff = 0.0
    """Delay before the last restart in this place."""
    restart_at: float | None = None
    """None while the process runs."""
    has_served = False
    _unanswered = 0
    """Checks since the last answer to a ping."""

    def start(self) -> None:
        self.started = time.monotonic()
        with signals_blocked():  # until the process has installed its handlers
            super().start()
        self.parent_conn.send(b"ping")

    def is_alive(self, timeout: float = HEARTBEAT_TIMEOUT_SECONDS) -> bool:
        """False if the process has ended, or has served and leaves a ping unanswered.

        Does not wait. ``timeout`` is in checks, not in time: a pause of the machine is no hang.
        """
        if self.parent_conn.poll():
            self.parent_conn.recv()
            self.parent_conn.send(b"ping")
            self.has_served, self._unanswered = True, 0
        elif self.has_served:
            self._unanswered += 1
        return self.process.is_alive() and self._unanswered * POLL_SECONDS < timeout

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Main function of the process."""
        signals.ignore_sighup()
        signals.exit_on_signal()
        unblock_signals()
        os.setsid()  # a terminal's Ctrl-C reaches the parent only, which forwards it
        threading.Thread(target=end_with_parent, args=(_on_parent_exit,), daemon=True).start()
        from service.observability.logging import log_to_stderr
        from service.server.server import serve

        log_to_stderr(self.settings.log_format)
        try:
            gateway = pkgutil.resolve_name(str(self.config.app))(self.settings)
        except StartupError as error:
            log.error("%s", error)
            sys.exit(STARTUP_FAILURE)
        serve(gateway, self.settings, sockets, self.child_conn)


class WorkerProcesses(Multiprocess):
    """Parent process of the worker processes.

    ``factory`` is ``module:function``. Each process imports it and calls it with ``settings``; it
    returns the app, or raises ``StartupError``.
    """

    processes: list[Worker]  # type: ignore[assignment]  # a list of what the base class has

    def __init__(self, settings: Settings, factory: str) -> None:
        config = uvicorn.Config(
            factory,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=None,
        )
        super().__init__(config, [config.bind_socket()])
        for number in {*SIGNALS} - {*TERMINATION_SIGNALS, signal.SIGHUP}:
            signal.signal(number, signal.SIG_DFL)
        self._settings = settings
        self._heartbeat_timeout = max(HEARTBEAT_TIMEOUT_SECONDS, 3 * settings.hang_timeout)
        self._status = 0
        self._any_served = False
        """True once a process has served: the settings are valid, so later failures are retried."""

    def serve(self) -> int:
        """Serve until SIGTERM or SIGINT and return the exit status.

        Same statuses as with one process: 0, or 128 + signal number after a second signal.
        """
        folder = tempfile.mkdtemp(prefix="figment-metrics-", dir=_shared_memory_folder())
        os.environ[metrics.SHARED] = folder
        try:
            self.run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._status

    def init_processes(self) -> None:
        try:
            for _ in range(self.processes_num):
                self.processes.append(self._start())
        except OSError as error:
            self._fail(f"cannot start a worker process ({error})")

    def keep_subprocess_alive(self) -> None:
        running = [worker for worker in self.processes if worker.restart_at is None]
        ended = [worker for worker in running if not worker.is_alive(self._heartbeat_timeout)]
        # Of all, before one that ended is taken for a sign of invalid settings.
        self._any_served |= any(worker.has_served for worker in running)
        for worker in ended:
            self._end(worker)
        for index, worker in enumerate(self.processes):
            if worker.restart_at is not None and time.monotonic() >= worker.restart_at:
                try:
                    self.processes[index] = self._start(worker.backoff)
                except OSError as error:  # no memory, or a limit on processes or files
                    self._schedule_restart(worker, f"cannot start a worker process ({error})")

    def handle_hup(self) -> None:
        if signals.terminal_is_closed():
            self.should_exit.set()
        else:
            self._signal_all(signal.SIGHUP)

    def terminate_all(self) -> None:
        super().terminate_all()
        for shared in self.sockets:  # the workers accept what is left, and close it last
            shared.close()

    def join_all(self) -> None:
        """Wait for all processes; kill them at a second signal, or if they take too long."""
        seconds = self._settings.shutdown_delay + self._settings.drain + KILL_SECONDS
        deadline = time.monotonic() + seconds
        while alive := [worker.process.sentinel for worker in self._alive()]:
            repeated = [number for number in self.signal_queue if number in TERMINATION_SIGNALS]
            if repeated:
                self._status = 128 + repeated[0]
            if repeated or time.monotonic() > deadline:
                self._signal_all(signal.SIGKILL)
            wait(alive, timeout=POLL_SECONDS)

    def _start(self, backoff: float = 0) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.settings, worker.backoff = self._settings, backoff
        worker.start()
        return worker

    def _end(self, worker: Worker) -> None:
        """Kill a process that hangs, and schedule the restart of any that has ended."""
        if worker.process.is_alive():
            message = "worker process %s sent no heartbeat for %g s; killing it"
            log.error(message, worker.pid, self._heartbeat_timeout)
        worker.kill()
        worker.process.join()
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
        if worker.exitcode and not self._any_served:
            self._fail("no worker process could start")
            return
        if time.monotonic() > worker.started + MAX_BACKOFF_SECONDS:
            worker.backoff = 0
        self._schedule_restart(worker, f"worker process {worker.pid} exited ({worker.exitcode})")

    def _schedule_restart(self, worker: Worker, what: str) -> None:
        """Restart after a growing delay: a process that cannot start would keep a core busy."""
        worker.backoff = min(max(2 * worker.backoff, MIN_BACKOFF_SECONDS), MAX_BACKOFF_SECONDS)
        worker.restart_at = time.monotonic() + worker.backoff
        log.error("%s; restart in %g s", what, worker.backoff)

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        self._status = STARTUP_FAILURE
        self.should_exit.set()

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.processes if worker.process.is_alive()]

    def _signal_all(self, number: int) -> None:
        for worker in self._alive():
            assert worker.pid is not None
            os.kill(worker.pid, number)


def _shared_memory_folder() -> str | None:
    """Folder in memory for the metrics of all processes; None if there is none.

    The files are mapped. On a full disk, a write to a mapped file kills the process (SIGBUS).
    """
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None


def _on_parent_exit() -> None:
    """Shut this process down after its parent was killed, and remove the shared metrics."""
    shutil.rmtree(os.environ[metrics.SHARED], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
