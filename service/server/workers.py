"""Worker processes that serve on one socket, and the parent process that supervises them."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pkgutil
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from types import FrameType

from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE

from service.core.process import (
    TERMINATION_SIGNALS,
    end_with_parent,
    signals_blocked,
    unblock_signals,
)
from service.errors import StartupError
from service.observability import metrics
from service.server import signals
from service.settings import Settings, to_environment

POLL_SECONDS = 0.5
"""Interval at which signals are handled; an exit of a worker process wakes the parent at once."""
MIN_BACKOFF_SECONDS = 1.0
"""Delay before a worker process that exited is replaced."""
MAX_BACKOFF_SECONDS = 60.0
"""Limit of the delay, which doubles while replacements live shorter than this."""

HEARTBEAT_TIMEOUT_SECONDS = 30.0
"""A process without a heartbeat for this long is killed; at least three times ``hang_timeout``."""

SHARED_MEMORY = "/dev/shm"

Heartbeat = ctypes.c_double
"""In shared memory: last sign of life of a process, by ``time.monotonic``; 0 before it serves."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class WorkerSlot:
    """One worker process at a time: its heartbeat and restart backoff, by ``time.monotonic``."""

    process: SpawnProcess
    heartbeat: Heartbeat
    started: float
    backoff: float = 0
    restart_at: float | None = None
    """None while the process runs."""


class WorkerProcesses:
    """Starts worker processes, replaces those that die, and forwards signals to all of them.

    ``factory`` is ``module:function``. Each process imports it and calls it with its settings; it
    returns the app, or raises ``StartupError``.
    """

    def __init__(self, settings: Settings, factory: str) -> None:
        self._settings = settings
        self._factory = factory
        self._context = multiprocessing.get_context("spawn")
        self._slots: list[WorkerSlot] = []
        self._pending_signals: list[int] = []
        self._any_served = self._context.Event()
        """Set once a process has served: the settings are valid, so later failures are retried."""
        self._last_check = self._silent_since = time.monotonic()
        """Heartbeats older than ``_silent_since`` count from then: the machine was paused."""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT and return the exit status.

        Same statuses as with one process: 0, or 128 + signal number after a second signal.
        """
        from service.server.server import configuration

        for number in (*TERMINATION_SIGNALS, signal.SIGHUP):
            signal.signal(number, self._queue_signal)
        folder = tempfile.mkdtemp(prefix="figment-metrics-", dir=_shared_memory_folder())
        os.environ[metrics.SHARED] = folder
        to_environment(self._settings)
        try:
            with configuration("", self._settings).bind_socket() as shared:
                try:
                    for _ in range(self._settings.workers):
                        self._slots.append(WorkerSlot(*self._start(shared), time.monotonic()))
                    status = self._monitor(shared)
                except OSError as error:
                    log.error("cannot start a worker process (%s)", error)
                    status = STARTUP_FAILURE
                finally:  # no worker process may outlive its parent
                    second = self._shut_down(shared)
                return second or status
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, shared: socket.socket) -> tuple[SpawnProcess, Heartbeat]:
        heartbeat = self._context.Value("d", 0, lock=False)
        process = self._context.Process(
            target=_run_worker, args=(self._factory, shared, self._any_served, heartbeat)
        )
        with signals_blocked():  # until the worker has installed its handlers
            process.start()
        return process, heartbeat

    def _monitor(self, shared: socket.socket) -> int:
        """Replace dead processes and forward SIGHUP until a signal to end; returns the status."""
        while True:
            wait([process.sentinel for process in self._alive()], timeout=POLL_SECONDS)
            while self._pending_signals:
                number = self._pending_signals.pop(0)
                if number != signal.SIGHUP or signals.terminal_is_closed():
                    return 0
                self._signal_all(number)
            now = time.monotonic()
            self._kill_hung(now)
            for slot in self._slots:
                if slot.restart_at is not None:
                    if now >= slot.restart_at:
                        self._restart(slot, shared, now)
                elif not slot.process.is_alive():
                    multiprocess.mark_process_dead(slot.process.pid)  # type: ignore[no-untyped-call]
                    if not self._any_served.is_set() and slot.process.exitcode != 0:
                        log.error("no worker process could start")
                        return STARTUP_FAILURE
                    what = f"worker process {slot.process.pid} exited ({slot.process.exitcode})"
                    self._schedule_restart(slot, now, what)

    def _kill_hung(self, now: float) -> None:
        """Kill processes that served and whose heartbeat has stopped: their event loop hangs."""
        limit = max(HEARTBEAT_TIMEOUT_SECONDS, 3 * self._settings.hang_timeout)
        if now - self._last_check > limit / 2:  # this process was paused, and the others with it
            self._silent_since = now
        self._last_check = now
        for slot in self._slots:
            last = slot.heartbeat.value
            if last and max(last, self._silent_since) < now - limit and slot.process.is_alive():
                log.error(
                    "worker process %s sent no heartbeat for %g s; killing it",
                    *(slot.process.pid, limit),
                )
                slot.process.kill()

    def _restart(self, slot: WorkerSlot, shared: socket.socket, now: float) -> None:
        try:
            slot.process, slot.heartbeat = self._start(shared)
            slot.started, slot.restart_at = now, None
        except OSError as error:  # no memory, or a limit on processes or files
            slot.started = now
            self._schedule_restart(slot, now, f"cannot start a worker process ({error})")

    def _schedule_restart(self, slot: WorkerSlot, now: float, what: str) -> None:
        """Restart after a growing delay: a process that cannot start would keep a core busy."""
        if now - slot.started > MAX_BACKOFF_SECONDS:
            slot.backoff = 0
        slot.backoff = min(max(2 * slot.backoff, MIN_BACKOFF_SECONDS), MAX_BACKOFF_SECONDS)
        slot.restart_at = now + slot.backoff
        log.error("%s; restart in %g s", what, slot.backoff)

    def _shut_down(self, shared: socket.socket) -> int:
        """Stop all processes gracefully; kill them at a second signal. Returns its status, or 0."""
        status = 0
        self._signal_all(signal.SIGTERM)
        shared.close()  # the workers accept what is left, and close it last
        while alive := [process.sentinel for process in self._alive()]:
            repeated = [number for number in self._pending_signals if number != signal.SIGHUP]
            if repeated:
                status = 128 + repeated[0]
                self._signal_all(signal.SIGKILL)
            self._kill_hung(time.monotonic())
            wait(alive, timeout=POLL_SECONDS)
        return status

    def _signal_all(self, number: int) -> None:
        for process in self._alive():
            if process.pid is not None:
                os.kill(process.pid, number)

    def _alive(self) -> list[SpawnProcess]:
        return [slot.process for slot in self._slots if slot.process.is_alive()]

    def _queue_signal(self, number: int, frame: FrameType | None) -> None:
        self._pending_signals.append(number)


def _shared_memory_folder() -> str | None:
    """Folder in memory for the metrics of all processes; None if there is none.

    The files are mapped. On a full disk, a write to a mapped file kills the process (SIGBUS).
    """
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None


def _run_worker(
    factory: str, shared: socket.socket, any_served: Event, heartbeat: Heartbeat
) -> None:
    """Main function of a worker process. Its settings are in the environment."""
    signals.ignore_sighup()
    signals.exit_on_signal()
    unblock_signals()
    os.setsid()  # a terminal's Ctrl-C reaches the parent only, which forwards it
    threading.Thread(target=end_with_parent, args=(_on_parent_exit,), daemon=True).start()
    from service.observability.logging import log_to_stderr
    from service.server.server import WorkerContext, serve

    create_app = pkgutil.resolve_name(factory)
    settings = Settings()
    log_to_stderr(settings.log_format)
    try:
        gateway = create_app(settings)
    except StartupError as error:
        log.error("%s", error)
        sys.exit(STARTUP_FAILURE)
    any_served.set()
    serve(gateway, settings, WorkerContext(shared, heartbeat))


def _on_parent_exit() -> None:
    """Shut this process down after its parent was killed, and remove the shared metrics."""
    shutil.rmtree(os.environ[metrics.SHARED], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
