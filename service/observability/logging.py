"""The log: on stderr, each line with the id of the request that it is about."""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from service.observability.stderr import Stderr
from service.settings import LogFormat

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered, if one is."""
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(given: bytes | None) -> str:
    """An id for a request: the one it brought, where that fits into a line, else a new one."""
    if given is not None and SANE_ID.fullmatch(given):
        return given.decode()
    return secrets.token_hex(8)


class _WithRequest(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = REQUEST_ID.get()
        return True


class _Text(logging.Formatter):
    """``INFO what happened [request id]``."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        # On one line, whatever a caller has put into it.
        line = super().formatMessage(record)
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)

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


def log_to_stderr(format_: LogFormat) -> None:
    """Have all that is logged, ours and that of libraries, written in one way."""
    handler = Stderr()
    handler.addFilter(_WithRequest())
    if format_ == "json":
        fields = ["levelname", "name", "message"]
        names = {"levelname": "level", "name": "logger"}
        handler.setFormatter(_Json(fields, rename_fields=names, timestamp=True))
    else:
        handler.setFormatter(_Text("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
