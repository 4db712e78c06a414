"""What happens to every request before a route sees it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1024 * 1024
"""Bytes: room for a thousand long labels."""


class BodyLimit:
    """Answer 413 to a body of more than ``MAX_BODY``, and do not read on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        received = int(declared) if declared.isdecimal() and int(declared) > MAX_BODY else 0

        async def counted() -> Message:
            nonlocal received
            if received > MAX_BODY:
                raise HTTPException(413, f"the body may have at most {MAX_BODY} bytes")
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(413, f"the body may have at most {MAX_BODY} bytes")
            return message

        await self._app(scope, counted, send)


class HeadAsGet:
    """Answer HEAD wherever GET is answered; the server leaves the body out (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
