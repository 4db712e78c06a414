"""Outermost ASGI middleware: request id, authentication, metrics, error handling.

An exception becomes a problem response; if the response has started, the connection is aborted.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Sequence

from fastapi import Request
from prometheus_client import Counter, Histogram
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.auth import host_check
from service.api.auth.access import AccessControl
from service.api.auth.rate_limit import SCOPE_KEY, set_client
from service.api.http_constants import NOTHING_ACTIVE
from service.api.paths import DOCS, READINESS
from service.errors import MalformedRequest, NotReady
from service.observability import metrics, tracing
from service.observability.logging import REQUEST_ID, request_id

ABORT = "figment.abort"
"""ASGI extension of our HTTP server: a function that closes the connection at once."""
DOCS_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
)
"""Policy of Swagger's page, which contains a script."""
EXPOSED = (
    *("Retry-After", "X-Request-ID", "Content-Location", "Content-Disposition", "Server-Timing"),
    *("Figment-Model", "Figment-Version", "Figment-Seed", "Figment-Tried"),
)
"""Headers that pages of other origins may read."""
SERVER_ERROR = 500

log = logging.getLogger(__name__)


class Gateway:
    def __init__(
        self, app: ASGIApp, access: AccessControl, *, origins: Sequence[str], log_requests: bool
    ) -> None:
        """``origins``: those whose pages may send requests from a browser.

        ``log_requests``: log every request, not only those that fail.
        """
        self._app = app
        self._http: ASGIApp = self._answer
        if origins:  # outside of everything else, so that a page can read why it is rejected
            self._http = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type"),
                expose_headers=EXPOSED,
            )
        self._access = access
        self._log_requests = log_requests
        self.draining = False
        self.failed = False
        """True once the process must end, because a worker thread hangs."""

    def fail(self) -> None:
        """Have the HTTP server drain, and end the process with an error status."""
        self.failed = True

    def drain(self) -> None:
        """Close every connection after its next answer, and fail readiness probes.

        Called from a signal handler, so it must not wait for a lock.
        """
        self.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._http if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = _RequestContext(self, scope, send)
        with tracing.request(scope):
            try:
                if self.draining and READINESS.fullmatch(scope["path"]):
                    raise NotReady("the service is shutting down")
                self._access.check_host(context.host())
                set_client(scope, self._access.admit(scope["path"], context.authorization))
                await self._app(scope, receive, context.send)
            except asyncio.CancelledError:
                if not self.draining:
                    raise
                context.abort("the service is shutting down")
            except Exception as error:
                if context.complete:
                    return  # FastAPI raises errors it has answered, for servers that log them
                if context.status:
                    log.error("an answer failed", exc_info=error)
                    context.abort("it failed")
                else:
                    answer = problems.answer(error, Request(scope))
                    await answer(scope, receive, context.send)
            finally:
                context.record(self._log_requests)


class _RequestContext:
    """One request: its headers of interest, its id, and the state of its answer."""

    def __init__(self, gateway: Gateway, scope: Scope, send: Send) -> None:
        self._gateway = gateway
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self.status = 0
        """Status of the answer; 0 before it has started."""
        self.complete = False
        hosts, keys, sent_id = [], [], None
        for name, value in scope["headers"]:
            if name == b"authorization":
                keys.append(value)
            elif name == b"host":
                hosts.append(value)
            elif name == b"x-request-id":
                sent_id = value
        # Of a repeated key, a proxy in front may have checked another one.
        self.authorization = keys[0] if len(keys) == 1 else b""
        self._hosts = hosts
        self._id = request_id(sent_id)
        REQUEST_ID.set(self._id)

    def host(self) -> bytes:
        """Host header. Raises ``MalformedRequest`` unless there is one (RFC 9112, 3.2)."""
        if not self._hosts and self._scope["http_version"] == "1.1":
            raise MalformedRequest("the request has no Host header, which HTTP/1.1 requires")
        if len(self._hosts) > 1 and not all(map(host_check.names_this_machine, self._hosts)):
            raise MalformedRequest(f"the request has {len(self._hosts)} Host headers, not one")
        return self._hosts[0] if self._hosts else b""

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._id.encode())]
            if self._scope["path"] == DOCS:
                headers.append(DOCS_POLICY)
            elif not any(name == NOTHING_ACTIVE[0] for name, _ in headers):  # a page sets its own
                headers.append(NOTHING_ACTIVE)
            if self._gateway.draining:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif not message.get("more_body", False):
            self.complete = True
        return self._send(message)

    def abort(self, reason: str) -> None:
        method, path = self._scope["method"], self._scope["path"]
        log.info("aborted the answer to %s %s: %s", method, path, reason)
        abort(self._scope)

    def record(self, log_all: bool) -> None:
        """Record the request in metrics, traces and the log."""
        seconds = time.perf_counter() - self._started
        # The route, not the path, which would make endless label values.
        route = getattr(self._scope.get("route"), "path", "none")
        method = self._scope["method"]
        count, duration = _request_metrics(method, route, self.status)
        count.inc()
        duration.observe(seconds)
        tracing.record_answer(self._scope, route, self.status, self._id)
        if log_all or self.status >= SERVER_ERROR:
            client = self._scope.get(SCOPE_KEY)
            origin = {"key": client.name if client else None, "client": self._client_host()}
            log.log(
                logging.ERROR if self.status >= SERVER_ERROR else logging.INFO,
                "%s %d, %s",
                f"{method} {self._scope['path']}",
                self.status,
                " at ".join(filter(None, origin.values())),
                extra=origin
                | {"status": self.status, "seconds": round(seconds, 4), "route": route},
            )

    def _client_host(self) -> str:
        host, _ = self._scope["client"] or ("nowhere", 0)
        return str(host)


@functools.lru_cache(1024)
def _request_metrics(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Counter and histogram of a kind of request.

    Cached, as finding them takes as long as the rest of ``record``.
    """
    return (
        metrics.REQUESTS.labels(method, route, status),
        metrics.REQUEST_TIME.labels(route),
    )


def abort(scope: Scope) -> None:
    """Close the connection of a request, so that its client sees that the answer is incomplete."""
    close = scope.get("extensions", {}).get(ABORT)
    if close is not None:
        close()
