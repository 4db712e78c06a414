"""Non-blocking logging to stderr, each line with the id of its request.

A background thread writes to stderr; when its queue is full, lines are dropped and counted. So a
pipe that is not read, a full disk or a closed stderr never blocks the event loop or the exit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import re
import time
from contextvars import ContextVar
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from service.core.process import STDERR
from service.core.text import printable
from service.settings import LogFormat

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request being answered; None outside of requests."""
VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
MAX_QUEUED_LINES = 10_000
"""Bounds memory; further lines are dropped and counted."""
FLUSH_SECONDS = 1.0
"""Longest wait at exit for queued lines."""


def request_id(header: bytes | None) -> str:
    """Id for a request: its ``X-Request-ID`` if it is short plain ASCII, otherwise a random one."""
    if header is not None and VALID_ID.fullmatch(header):
        return header.decode()
    return f"{random.getrandbits(64):016x}"  # no system call, which would release the GIL


def log_to_stderr(format_: LogFormat) -> None:
    """Send all log records, our own and those of libraries, to stderr in one format."""
    lines: queue.Queue[Any] = queue.Queue(MAX_QUEUED_LINES)
    handler = _DroppingHandler(lines)
    handler.addFilter(_AddRequestId())
    if format_ == "json":
        fields = ["levelname", "name", "message"]
        names = {"levelname": "level", "name": "logger"}
        handler.setFormatter(_Json(fields, rename_fields=names, timestamp=True))
    else:
        handler.setFormatter(_Text("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    _StderrWriter(lines).start()


class _DroppingHandler(QueueHandler):
    """Drops and counts records while the queue is full, and reports them once it is not."""

    def __init__(self, lines: queue.Queue[Any]) -> None:
        super().__init__(lines)
        self._lines = lines
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped:
                self._lines.put_nowait(self._report())
                self._dropped = 0
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait for queued lines, at most ``FLUSH_SECONDS``; ``logging`` calls this at exit."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _report(self) -> Any:
        message = "%d log lines dropped: they came faster than stderr was read"
        report = logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, message, (self._dropped,), None
        )
        return self.prepare(report)


class _StderrWriter(QueueListener):
    """Writes to the file descriptor, without a lock that the exit of the process waits for."""

    def handle(self, record: logging.LogRecord) -> None:
        line = f"{record.message}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # a full disk may get room again; a closed pipe stays
            os.write(STDERR, line)


class _AddRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = REQUEST_ID.get()
        return True


class _Text(logging.Formatter):
    """``INFO message [request id]``."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))  # one line, whatever a client has sent

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname} {super().format(record)}"
        request = getattr(record, "request_id", None)
        return line if request is None else f"{line} [{request}]"


class _Json(JsonFormatter):
    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.pop("color_message", None)  # uvicorn's, for terminals
        if log_data.get("request_id") is None:
            log_data.pop("request_id", None)
