"""The log's way out: a thread that writes, so that nobody who logs waits for whoever reads.

A pipe that nobody empties would stop the event loop in the middle of a line; a full disk or a
reader who has gone must not matter either.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time

MOST = 10_000
"""Lines that wait to be written; what comes beyond is lost, and counted."""
LAST = 1.0
"""Seconds that the process waits at its end for the last lines to be written."""
NUMBER = 2
"""The file descriptor of stderr."""


def provide() -> None:
    """A stderr that goes nowhere, for a process that was started without one.

    To be called first: what libraries write there would go to whatever was opened in its place.
    """
    if sys.stderr is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, NUMBER)
        if nowhere != NUMBER:
            os.close(nowhere)
        os.set_inheritable(NUMBER, True)
        sys.stderr = os.fdopen(NUMBER, "w")


class Stderr(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(MOST)
        self._lost = 0
        self._stream = sys.stderr
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Called at the end."""
        deadline = time.monotonic() + LAST
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            lines = [self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get())
            if lost := self._lost:
                self._lost -= lost
                lines.append(self._tell(lost))
            try:
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
            except (OSError, ValueError):  # a full disk, a pipe that was closed: it may pass
                pass
            for _ in range(len(lines) - bool(lost)):
                self._lines.task_done()

    def _tell(self, lost: int) -> str:
        what = "%d lines of the log were lost: they came faster than they were written"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, what, (lost,), None)
        self.filter(record)
        return self.format(record)
