"""Several processes that serve on one socket, and one that looks after them."""

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

from service.core.process import ENDING, end_with_parent, signals_blocked, unblock_signals
from service.errors import StartupError
from service.observability import metrics
from service.server import hangup, signals
from service.server.listening import LAST, stop_accepting
from service.settings import Settings, to_environment

LOOK = 0.5
"""Seconds between two looks at signals; a process that ends is seen at once."""
PAUSE = 1.0
"""Seconds until a process is started in place of one that has ended."""
LONGEST_PAUSE = 60.0
"""Processes that do not live as long as this are started after pauses that double, up to this."""

SILENCE = 30.0
"""Seconds without a heartbeat after which a process is killed; at least 3 ``hang_timeout``."""

SHARED_MEMORY = "/dev/shm"

Beat = ctypes.c_double
"""Shared: when a process last said that it lives, by ``time.monotonic``; 0 before it serves."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class WorkerSlot:
    """Of one process after another. Times are those of ``time.monotonic``."""

    process: SpawnProcess
    beat: Beat
    started: float
    pause: float = 0
    due: float | None = None
    """When another is started; None while this one lives."""


class WorkerProcesses:
    """Worker processes on one socket: replaces those that die, forwards signals to all.

    ``factory`` is ``module:function``. Each process imports it and calls it with its settings; it
    returns the app, or raises ``StartupError``.
    """

    def __init__(self, settings: Settings, factory: str) -> None:
        self._settings = settings
        self._factory = factory
        self._context = multiprocessing.get_context("spawn")
        self._places: list[WorkerSlot] = []
        self._signals: list[int] = []
        self._serves = self._context.Event()
        """Some process has served: the settings are good, and one that fails is started again."""
        self._looked = self._since = time.monotonic()
        """When it looked last, and from when on those who are silent are counted as such."""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the status to end with.

        As of one process: 0, and 128 and its number after a second signal.
        """
        from service.server.server import configuration

        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, self._hear)
        folder = tempfile.mkdtemp(prefix="figment-metrics-", dir=_in_memory())
        os.environ[metrics.SHARED] = folder
        to_environment(self._settings)
        try:
            with configuration("", self._settings).bind_socket() as shared:
                try:
                    for _ in range(self._settings.workers):
                        self._places.append(WorkerSlot(*self._start(shared), time.monotonic()))
                    status = self._look_after(shared)
                except OSError as error:
                    log.error("no process can be started (%s)", error)
                    status = STARTUP_FAILURE
                finally:  # whatever happens, none is left to itself
                    second = self._end(shared)
                return second or status
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, shared: socket.socket) -> tuple[SpawnProcess, Beat]:
        beat = self._context.Value("d", 0, lock=False)
        process = self._context.Process(
            target=_work, args=(self._factory, shared, self._serves, beat)
        )
        with signals_blocked():  # or they would end it before it can hear them
            process.start()
        return process, beat

    def _look_after(self, shared: socket.socket) -> int:
        """Until the end."""
        while True:
            wait([process.sentinel for process in self._alive()], timeout=LOOK)
            while self._signals:
                number = self._signals.pop(0)
                if number != signal.SIGHUP or hangup.terminal_is_gone():
                    return 0
                self._tell_all(number)
            now = time.monotonic()
            self._kill_silent(now)
            for place in self._places:
                if place.due is not None:
                    if now >= place.due:
                        self._start_another(place, shared, now)
                elif not place.process.is_alive():
                    multiprocess.mark_process_dead(place.process.pid)  # type: ignore[no-untyped-call]
                    if not self._serves.is_set() and place.process.exitcode != 0:
                        log.error("no process can serve")
                        return STARTUP_FAILURE
                    what = f"process {place.process.pid} ended ({place.process.exitcode})"
                    self._plan_another(place, now, what)

    def _kill_silent(self, now: float) -> None:
        """Kill those that serve and hang: nothing else would tell, and nothing else ends them."""
        silence = max(SILENCE, 3 * self._settings.hang_timeout)
        if now - self._looked > silence / 2:  # it is all of us that stood still
            self._since = now
        self._looked = now
        for place in self._places:
            last = place.beat.value
            if last and max(last, self._since) < now - silence and place.process.is_alive():
                log.error(
                    "process %s has given no sign of life for %g s: it is killed",
                    *(place.process.pid, silence),
                )
                place.process.kill()

    def _start_another(self, place: WorkerSlot, shared: socket.socket, now: float) -> None:
        try:
            place.process, place.beat = self._start(shared)
            place.started, place.due = now, None
        except OSError as error:  # no memory, or as many processes as there may be
            place.started = now
            self._plan_another(place, now, f"no process can be started ({error})")

    def _plan_another(self, place: WorkerSlot, now: float, what: str) -> None:
        """After a pause that grows: what cannot start would keep a core busy."""
        if now - place.started > LONGEST_PAUSE:
            place.pause = 0
        place.pause = min(max(2 * place.pause, PAUSE), LONGEST_PAUSE)
        place.due = now + place.pause
        log.error("%s; another is started in %g s", what, place.pause)

    def _end(self, shared: socket.socket) -> int:
        """Have all end well; at a second signal, at once. Returns the status of that, or 0."""
        status = 0
        self._tell_all(signal.SIGTERM)
        threading.Thread(target=self._close, args=(shared,), daemon=True).start()
        while alive := [process.sentinel for process in self._alive()]:
            again = [number for number in self._signals if number != signal.SIGHUP]
            if again:
                status = 128 + again[0]
                self._tell_all(signal.SIGKILL)
            self._kill_silent(time.monotonic())
            wait(alive, timeout=LOOK)
        return status

    def _close(self, shared: socket.socket) -> None:
        """Close the socket when the processes do."""
        time.sleep(self._settings.shutdown_delay)
        stop_accepting(shared.fileno())
        time.sleep(LAST)
        shared.close()

    def _tell_all(self, number: int) -> None:
        for process in self._alive():
            if process.pid is not None:
                os.kill(process.pid, number)

    def _alive(self) -> list[SpawnProcess]:
        return [place.process for place in self._places if place.process.is_alive()]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def _in_memory() -> str | None:
    """Where files take memory, if there is such a place; else None.

    Metrics are mapped into memory. Where a disk is full, to write to such a file ends the process.
    """
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None


def _work(factory: str, shared: socket.socket, serves: Event, beat: Beat) -> None:
    """One process. Its settings are in the environment."""
    hangup.ignore()
    signals.exit_on_signal()
    unblock_signals()
    os.setsid()  # or a terminal's Ctrl-C would reach it beside what its parent tells it
    threading.Thread(target=end_with_parent, args=(_end,), daemon=True).start()
    from service.observability.logging import log_to_stderr
    from service.server.server import WorkerContext, serve

    create_app = pkgutil.resolve_name(factory)
    settings = Settings()
    log_to_stderr(settings.log_format)
    try:
        gate = create_app(settings)
    except StartupError as error:
        log.error("%s", error)
        sys.exit(STARTUP_FAILURE)
    serves.set()
    serve(gate, settings, WorkerContext(shared, beat))


def _end() -> None:
    """Nobody would end a process whose parent was killed."""
    shutil.rmtree(os.environ[metrics.SHARED], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
