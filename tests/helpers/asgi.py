"""ASGI client without a network, and the answer of a replica."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Scope, Send

SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/generate",
    "headers": [(b"authorization", b"Bearer key"), (b"x-request-timeout-seconds", b"0")],
}


class ScriptedClient:
    """Sends a body in parts and records the messages that it gets; ``leave`` disconnects."""

    def __init__(self, *body: bytes) -> None:
        self._messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": True} for part in body
        ]
        self._messages[-1]["more_body"] = False
        self._gone = asyncio.Event()
        self.got: list[Message] = []

    async def request(self, app: ASGIApp, scope: Scope = SCOPE) -> None:
        """Send the request to ``app``. Raises ``TimeoutError`` after 30 s."""
        async with asyncio.timeout(30):
            await app(scope, self.receive, self.send)

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        status: int = self.got[0]["status"]
        return status

    def header(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.got[0]["headers"] if key == name]

    @property
    def problem(self) -> dict[str, Any]:
        assert self.header(b"content-type") == [b"application/problem+json"]
        found: dict[str, Any] = json.loads(self.got[1]["body"])
        return found


async def answer(send: Send, status: int = 200, media: bytes = b"image/png") -> None:
    """Answer of a replica through Serve, which repeats the request's id."""
    headers = [(b"content-type", media), (b"x-request-id", b"a"), (b"X-Request-ID", b"a")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"made"})
