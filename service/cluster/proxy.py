"""Middleware between client and replica on Ray Serve; adds what Serve's HTTP proxy lacks.

``RetryingProxy`` runs in each of Serve's proxies. It retries a request whose replica dies before
the response starts, limits request bodies, turns Serve's own errors into problem responses, and
acknowledges the bytes that the client has received.

``PacedReplica`` runs in each replica and waits for these acknowledgements (backpressure). Serve
itself buffers without limit: it would keep a set of a million images in memory for a client that
reads ten.
"""

from __future__ import annotations

import asyncio
import http
import math
import time
from collections.abc import Iterable, Iterator

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.body import read_body
from service.api.http_constants import (
    MAX_RAW,
    NOTHING_ACTIVE,
    PROBLEM_MEDIA_TYPE,
    SECURITY_HEADERS,
)
from service.errors import (
    ClientDisconnected,
    NotReady,
    RequestError,
    RequestTimeout,
    problem,
    problem_bytes,
)
from service.observability.logging import request_id

ACKNOWLEDGEMENT = "figment.taken"
"""ASGI extension, and the type of its messages: total ``bytes`` sent to the client so far."""
MAX_UNACKNOWLEDGED_BYTES = 4 << 20
"""A replica that has sent more waits for an acknowledgement."""
ACKNOWLEDGE_BYTES = 1 << 19
"""Bytes after which the proxy sends an acknowledgement."""
ACKNOWLEDGE_SECONDS = 1.0
"""Seconds after which it acknowledges fewer bytes, so that a slow client does not seem stuck."""
CHUNK_BYTES = 1 << 16
"""Size of the parts in which a message goes to the client, to acknowledge parts of a large one."""
BODY_SECONDS = 30.0
"""Time limit for receiving a request body."""
MAX_ATTEMPTS = 3
"""Replicas that one request may try, as the request itself may be what kills them."""
RETRY_PAUSE_SECONDS = 0.1
SERVE_HEADERS = frozenset(
    (
        *(b"x-request-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled"),
        *(b"serve_multiplexed_model_id", b"serve-multiplexed-model-id"),
    )
)
"""Removed from requests: with them a client could disable Serve's timeouts or choose a replica."""
OWN_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS]


def middlewares() -> list[Middleware]:
    """Middleware for RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH; Serve's proxies call this once."""
    return [Middleware(RetryingProxy)]


class RetryingProxy:
    """ASGI middleware of a proxy: retries, body limits, error responses, acknowledgements."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _ProxiedRequest(scope, send)
        try:
            body = await _whole_body(scope, receive)
        except RequestError as error:  # an open connection would have to receive the rest
            await request.reject(error, [("Connection", "close")])
            return
        if body is None:
            return
        try:
            await request.forward(self._app, body, receive)
        except NotReady as error:
            await request.reject(error)


class _ProxiedRequest:
    """State of one request in a proxy."""

    def __init__(self, scope: Scope, send: Send) -> None:
        ids = [value for name, value in scope["headers"] if name == b"x-request-id"]
        self._id = request_id(ids[0] if ids else None).encode()
        kept = [field for field in scope["headers"] if field[0] not in SERVE_HEADERS]
        self._headers = [*kept, (b"x-request-id", self._id)]
        self._scope = scope
        self._send = send
        self._started = False
        """True once the response has started."""
        self._serve_error: Message | None = None
        """Head of an error of Serve itself, until its body arrives."""
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._sent_bytes = self._acknowledged_bytes = 0
        self._acknowledged_at = time.monotonic()

    async def forward(self, app: ASGIApp, body: bytes, receive: Receive) -> None:
        """Send the request to replicas until one responds. Raises ``NotReady`` if none does."""
        disconnect = asyncio.create_task(self._forward_disconnect(receive))
        try:
            for _ in range(MAX_ATTEMPTS):
                self._serve_error = None
                await app(self._scope_for_replica(), self._receive_for_replica(body), self._relay)
                if self._started or disconnect.done():
                    return
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
        finally:
            disconnect.cancel()
        raise NotReady("no replica has answered; try again")

    async def reject(self, error: RequestError, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Respond with a problem; ``fields`` are additional headers."""
        await self._respond(error.problem(), [*error.headers().items(), *fields])

    async def _forward_disconnect(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self._messages.put_nowait(message)

    def _scope_for_replica(self) -> Scope:
        extensions = {**self._scope.get("extensions", {}), ACKNOWLEDGEMENT: {}}
        return {**self._scope, "headers": list(self._headers), "extensions": extensions}

    def _receive_for_replica(self, body: bytes) -> Receive:
        """ASGI ``receive``: the whole body, then acknowledgements and the disconnect."""
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return first.pop() if first else await self._messages.get()

        return receive

    async def _relay(self, message: Message) -> None:
        """ASGI ``send``: to the client, except errors of Serve itself."""
        if message["type"] == "http.response.start":
            # Sent twice: by the replica and by Serve.
            fields = [field for field in message["headers"] if field[0].lower() != b"x-request-id"]
            media = next((value for name, value in fields if name.lower() == b"content-type"), b"")
            message["headers"] = fields
            if message["status"] >= 400 and media.startswith(b"text/plain"):
                self._serve_error = message
                return
            message["headers"] += [(b"x-request-id", self._id), *OWN_HEADERS]
        elif self._serve_error is not None:
            await self._respond_for_serve(self._serve_error, message)
            return
        self._started = True
        for chunk in _chunks(message):
            await self._send(chunk)
            self._sent_bytes += len(chunk.get("body", b""))
            self._acknowledge()

    def _acknowledge(self) -> None:
        new, now = self._sent_bytes - self._acknowledged_bytes, time.monotonic()
        late = now - self._acknowledged_at >= ACKNOWLEDGE_SECONDS
        if new >= ACKNOWLEDGE_BYTES or (new and late):
            self._acknowledged_bytes, self._acknowledged_at = self._sent_bytes, now
            self._messages.put_nowait({"type": ACKNOWLEDGEMENT, "bytes": self._sent_bytes})

    async def _respond_for_serve(self, head: Message, message: Message) -> None:
        """Respond with an error of Serve as a problem; keeps its status and Retry-After."""
        status = head["status"]
        detail = message.get("body", b"").decode(errors="replace") or "no replica is available"
        waits = [field for field in head["headers"] if field[0].lower() == b"retry-after"]
        fields = [(name.decode(), value.decode()) for name, value in waits]
        await self._respond(problem(status, http.HTTPStatus(status).phrase, detail), fields)

    async def _respond(self, body: dict[str, object], fields: Iterable[tuple[str, str]]) -> None:
        content = problem_bytes(body)
        status = body["status"]
        more = dict(fields)
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            more.setdefault("Retry-After", "1")
        headers = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", self._id),
            NOTHING_ACTIVE,
            *OWN_HEADERS,
            *((name.lower().encode(), value.encode()) for name, value in more.items()),
        ]
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _chunks(message: Message) -> Iterator[Message]:
    """``message`` as messages of at most ``CHUNK_BYTES`` each."""
    body = message.get("body", b"")
    last = max(0, len(body) - 1) // CHUNK_BYTES * CHUNK_BYTES
    for start in range(0, last, CHUNK_BYTES):
        yield {
            "type": message["type"],
            "body": body[start : start + CHUNK_BYTES],
            "more_body": True,
        }
    yield {**message, "body": body[last:]} if last else message


async def _whole_body(scope: Scope, receive: Receive) -> bytes | None:
    """Request body; None if the client disconnects. Raises ``BodyTooLarge``, ``RequestTimeout``."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read_body(scope, receive, MAX_RAW)  # routes have lower limits
    except ClientDisconnected:
        return None
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:g} s") from None


class PacedReplica:
    """ASGI middleware of a replica: at most ``MAX_UNACKNOWLEDGED_BYTES`` ahead of the client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # From 2.4 on, Starlette does not call receive while it streams, and acknowledgements
        # would not arrive.
        scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.3"}
        acknowledged = ACKNOWLEDGEMENT in scope.get("extensions", {})
        pacing = _Backpressure(receive, send, acknowledged=acknowledged)
        await self._app(scope, pacing.receive, pacing.send)


class _Backpressure:
    """``receive`` and ``send`` of one request; ``send`` never waits unless ``acknowledged``."""

    def __init__(self, receive: Receive, send: Send, *, acknowledged: bool) -> None:
        self._receive = receive
        self._send = send
        self._max_ahead = MAX_UNACKNOWLEDGED_BYTES if acknowledged else math.inf
        self._sent_bytes = self._acknowledged_bytes = 0
        self._acknowledgement = asyncio.Event()

    async def receive(self) -> Message:
        """Next message for the app. A streaming app always waits here for the disconnect."""
        try:
            while (message := await self._receive())["type"] == ACKNOWLEDGEMENT:
                self._acknowledged_bytes = message["bytes"]
                self._acknowledgement.set()
        except Exception:  # Serve raises errors if the client disconnects or the proxy dies
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Send, then wait while too many bytes are unacknowledged and more will follow."""
        await self._send(message)
        self._sent_bytes += len(message.get("body", b""))
        while (
            message.get("more_body", False)
            and self._sent_bytes - self._acknowledged_bytes > self._max_ahead
        ):
            self._acknowledgement.clear()
            await self._acknowledgement.wait()
