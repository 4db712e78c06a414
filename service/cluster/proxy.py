"""Between a caller and a replica on Ray Serve: what our own HTTP server does and Serve's does not.

``Forwarding`` stands in each of Serve's proxies. A request whose replica dies before its answer
has begun goes to another; what a replica may send ahead of its reader is bounded, as the proxy
tells it what was taken; bodies are bounded; and Serve's own errors look like ours.

``Paced`` stands in each replica, and waits for what it is told: Serve itself takes all that it is
given, and would keep a set of a million images in memory for a reader who takes ten.
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

TAKEN = "figment.taken"
"""An extension of ASGI, and the type of its messages: so many bytes have gone to the caller."""
AHEAD = 4 << 20
"""Bytes that a replica sends before it hears that they were taken."""
TOLD = 1 << 19
"""Bytes after which it is told."""
TELLING = 1.0
"""Seconds after which it is told of less: who reads slowly does read."""
STEP = 1 << 16
"""Bytes that a reader is given at a time, to know what was taken of a large message."""
BODY_SECONDS = 30.0
"""In which a body must have come in."""
ATTEMPTS = 3
"""Replicas that one request may have die under it: it may be the request that kills them."""
PAUSE = 0.1
"""Seconds between two of them."""
STEERING = frozenset(
    (
        *(b"x-request-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled"),
        *(b"serve_multiplexed_model_id", b"serve-multiplexed-model-id"),
    )
)
"""Headers by which Serve would have a caller switch off its timeouts, or choose a replica."""
OWN_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS]


def middlewares() -> list[Middleware]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: Serve's proxies call it as they start."""
    return [Middleware(Forwarding)]


class Forwarding:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _ProxiedRequest(scope, send)
        try:
            body = await _whole_body(scope, receive)
        except RequestError as error:  # on a connection that stayed, the rest would be read
            await passage.refuse(error, [("Connection", "close")])
            return
        if body is None:
            return
        try:
            await passage.forward(self._app, body, receive)
        except NotReady as error:
            await passage.refuse(error)


class _ProxiedRequest:
    """One request on its way through a proxy."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        self._id = request_id(given[0] if given else None).encode()
        kept = [field for field in scope["headers"] if field[0] not in STEERING]
        self._headers = [*kept, (b"x-request-id", self._id)]
        self._scope = scope
        self._send = send
        self._begun = False
        """The caller has got something of an answer."""
        self._of_serve: Message | None = None
        """The head of an answer that is Serve's own, until its body comes."""
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._taken = self._told = 0
        self._when = time.monotonic()
        """It was told."""

    async def forward(self, app: ASGIApp, body: bytes, receive: Receive) -> None:
        """Raises ``NotReady`` where no replica answers."""
        watch = asyncio.create_task(self._until_gone(receive))
        try:
            for _ in range(ATTEMPTS):
                self._of_serve = None
                await app(self._copy(), self._replay(body), self._pass_on)
                if self._begun or watch.done():
                    return
                await asyncio.sleep(PAUSE)
        finally:
            watch.cancel()
        raise NotReady("no replica has answered; try again")

    async def refuse(self, error: RequestError, fields: Iterable[tuple[str, str]] = ()) -> None:
        await self._answer(error.problem(), [*error.headers().items(), *fields])

    async def _until_gone(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self._messages.put_nowait(message)

    def _copy(self) -> Scope:
        extensions = {**self._scope.get("extensions", {}), TAKEN: {}}
        return {**self._scope, "headers": list(self._headers), "extensions": extensions}

    def _replay(self, body: bytes) -> Receive:
        """What a replica hears: the body, what was taken of its answer, and that we have left."""
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return first.pop() if first else await self._messages.get()

        return receive

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Twice the same: the replica's, and Serve's.
            fields = [field for field in message["headers"] if field[0].lower() != b"x-request-id"]
            media = next((value for name, value in fields if name.lower() == b"content-type"), b"")
            message["headers"] = fields
            if message["status"] >= 400 and media.startswith(b"text/plain"):
                self._of_serve = message
                return
            message["headers"] += [(b"x-request-id", self._id), *OWN_HEADERS]
        elif self._of_serve is not None:
            await self._answer_for_serve(self._of_serve, message)
            return
        self._begun = True
        for part in _parts(message):
            await self._send(part)
            self._taken += len(part.get("body", b""))
            self._tell()

    def _tell(self) -> None:
        new, now = self._taken - self._told, time.monotonic()
        if new >= TOLD or (new and now - self._when >= TELLING):
            self._told, self._when = self._taken, now
            self._messages.put_nowait({"type": TAKEN, "bytes": self._taken})

    async def _answer_for_serve(self, head: Message, message: Message) -> None:
        status = head["status"]
        detail = message.get("body", b"").decode(errors="replace") or "no replica can be asked"
        waits = [field for field in head["headers"] if field[0].lower() == b"retry-after"]
        fields = [(name.decode(), value.decode()) for name, value in waits]
        await self._answer(problem(status, http.HTTPStatus(status).phrase, detail), fields)

    async def _answer(self, body: dict[str, object], fields: Iterable[tuple[str, str]]) -> None:
        content = problem_bytes(body)
        status = body["status"]
        given = dict(fields)
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            given.setdefault("Retry-After", "1")
        headers = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", self._id),
            NOTHING_ACTIVE,
            *OWN_HEADERS,
            *((name.lower().encode(), value.encode()) for name, value in given.items()),
        ]
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _parts(message: Message) -> Iterator[Message]:
    """The same in messages of no more than ``STEP`` bytes each."""
    body = message.get("body", b"")
    last = max(0, len(body) - 1) // STEP * STEP
    for start in range(0, last, STEP):
        yield {"type": message["type"], "body": body[start : start + STEP], "more_body": True}
    yield {**message, "body": body[last:]} if last else message


async def _whole_body(scope: Scope, receive: Receive) -> bytes | None:
    """None if the caller leaves before it has come. Raises ``BodyTooLarge``, ``RequestTimeout``."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read_body(scope, receive, MAX_RAW)  # routes have narrower bounds
    except ClientDisconnected:
        return None
    except TimeoutError:
        raise RequestTimeout(f"the body did not come in within {BODY_SECONDS:g} s") from None


class Paced:
    """An app that sends no more than ``AHEAD`` bytes ahead of what its proxy says was taken."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # From 2.4 on, Starlette does not listen while it streams: nobody would hear what was taken.
        scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.3"}
        pace = _Pace(receive, send, told=TAKEN in scope.get("extensions", {}))
        await self._app(scope, pace.receive, pace.send)


class _Pace:
    """``told``: the proxy does tell what was taken."""

    def __init__(self, receive: Receive, send: Send, *, told: bool) -> None:
        self._receive = receive
        self._send = send
        self._ahead = AHEAD if told else math.inf
        self._sent = self._taken = 0
        self._moved = asyncio.Event()

    async def receive(self) -> Message:
        """Who streams listens for the caller's leaving all the while, and so for this."""
        try:
            while (message := await self._receive())["type"] == TAKEN:
                self._taken = message["bytes"]
                self._moved.set()
        except Exception:  # the caller has left, or the proxy is gone: Serve has an error for each
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        self._sent += len(message.get("body", b""))
        while message.get("more_body", False) and self._sent - self._taken > self._ahead:
            self._moved.clear()
            await self._moved.wait()
