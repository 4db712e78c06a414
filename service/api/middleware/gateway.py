"""What every request passes, those on the shortcut too: its id, its key, its place in the metrics.

Whatever goes wrong behind it is answered, or cut where an answer has begun; nothing gets through
to the HTTP server.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Sequence

from fastapi import Request
from prometheus_client import Counter, Histogram
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.auth.access import SCOPE, AccessControl, set_client
from service.api.http_constants import NOTHING_ACTIVE
from service.engine.admission import REQUEST_KEY
from service.errors import NotReady
from service.observability import metrics, tracing
from service.observability.logging import REQUEST_ID, request_id

ABORT = "figment.cut"
"""An extension of ASGI by our HTTP server: a function that ends the connection as it is."""
DOCS = "/docs"
STUDIO, STUDIO_FILES = "/", "/studio/"
DOCS_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
)
"""Swagger's page has a script in it."""
READY = re.compile(r"/readyz|/v2/(health|models/.+)/ready")
EXPOSED = (
    *("Retry-After", "X-Request-ID", "Content-Location", "Content-Disposition", "Server-Timing"),
    *("Figment-Model", "Figment-Version", "Figment-Seed", "Figment-Tried"),
)
"""Headers that pages of other origins may read."""
FAILED = 500

log = logging.getLogger(__name__)


class Gateway:
    def __init__(
        self, app: ASGIApp, access: AccessControl, *, origins: Sequence[str], log_requests: bool
    ) -> None:
        """``origins``: whose pages may ask, from a browser.

        ``log_requests``: a line for each, not only for those that fail.
        """
        self._app = app
        self._begin: ASGIApp = self._pass
        if origins:  # outside of all else: a page is to see why it is refused
            self._begin = CORSMiddleware(
                self._pass,
                allow_origins=origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type"),
                expose_headers=EXPOSED,
            )
        self._access = access
        self._log_requests = log_requests
        self.draining = False

    def drain(self) -> None:
        """From now on every answer says that it is the last one on its connection.

        Called in the middle of anything, as a signal comes: it must not wait for a lock.
        """
        self.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._begin if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        with tracing.request(scope):
            await self._answer(scope, receive, _RequestContext(self, scope, send))

    async def _answer(self, scope: Scope, receive: Receive, passage: _RequestContext) -> None:
        try:
            if self.draining and READY.fullmatch(scope["path"]):
                raise NotReady("the service is ending")
            REQUEST_KEY.set(_request(scope, passage.authorization))
            self._access.check_host(passage.host)
            set_client(scope, self._access.admit(scope["path"], passage.authorization))
            await self._app(scope, receive, passage.send)
        except asyncio.CancelledError:
            if not self.draining:
                raise
            passage.cut("the service ends")
        except Exception as error:
            if passage.complete:
                return  # FastAPI raises what it has answered, for servers that log it
            if passage.status:
                log.error("an answer failed", exc_info=error)
                passage.cut("it failed")
            else:
                answer = problems.answer(error, Request(scope))
                await answer(scope, receive, passage.send)
        finally:
            passage.record(self._log_requests)


def _request(scope: Scope, authorization: bytes) -> int:
    """For ``line.REQUEST_KEY``, to which a body may be added."""
    host, _ = scope["client"] or (None, 0)
    return hash((host, authorization, scope["path"], scope["query_string"]))


class _RequestContext:
    """One request on its way."""

    def __init__(self, gate: Gateway, scope: Scope, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self.status = 0
        """Of its answer; 0 until that has begun."""
        self.complete = False
        self.host = self.authorization = b""
        given = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                # Of two, whoever is in front may have looked at the other one.
                self.authorization = b"" if self.authorization else value
            elif name == b"host":
                self.host = value
            elif name == b"x-request-id":
                given = value
        self._id = request_id(given)
        REQUEST_ID.set(self._id)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._id.encode())]
            path = self._scope["path"]
            if path == DOCS:
                headers.append(DOCS_POLICY)
            elif path != STUDIO and not path.startswith(STUDIO_FILES):  # which have their own
                headers.append(NOTHING_ACTIVE)
            if self._gate.draining:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def cut(self, why: str) -> None:
        log.info("the answer to %s %s is cut: %s", self._scope["method"], self._scope["path"], why)
        abort(self._scope)

    def record(self, logs: bool) -> None:
        seconds = time.perf_counter() - self._started
        route = getattr(self._scope.get("route"), "path", "none")  # or the labels had no end
        method = self._scope["method"]
        count, time_taken = _told(method, route, self.status)
        count.inc()
        time_taken.observe(seconds)
        tracing.record_answer(self._scope, route, self.status, self._id)
        if logs or self.status >= FAILED:
            caller = self._scope.get(SCOPE)
            who = {"key": caller.name if caller else None, "client": self._client()}
            asked = f"{method} {self._scope['path']}"
            log.log(
                logging.ERROR if self.status >= FAILED else logging.INFO,
                "%s %d, %s",
                asked,
                self.status,
                " at ".join(filter(None, who.values())),
                extra=who | {"status": self.status, "seconds": round(seconds, 4), "route": route},
            )

    def _client(self) -> str:
        host, _ = self._scope["client"] or ("nowhere", 0)
        return str(host)


@functools.lru_cache(1024)
def _told(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Looking them up each time would take as long as all else here."""
    return (
        metrics.REQUESTS.labels(method, route, status),
        metrics.REQUEST_TIME.labels(route),
    )


def abort(scope: Scope) -> None:
    """End the connection of a request, so that its caller sees that the answer is not whole."""
    end = scope.get("extensions", {}).get(ABORT)
    if end is not None:
        end()
