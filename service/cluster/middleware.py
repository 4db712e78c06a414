"""Middleware of the HTTP servers on Ray Serve: headers as those of a plain server."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http_constants import SECURITY_HEADERS
from service.observability.logging import request_id

ID = b"x-request-id"
SERVE_HEADERS = frozenset(
    (
        *(b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"x-session-id"),
        *(b"serve_multiplexed_model_id", b"serve-multiplexed-model-id"),
    )
)
"""Removed from requests: a client could change Serve's timeouts, or make it fail."""
OWN_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS]


def middlewares() -> list[Middleware]:
    """Middleware for RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH; Serve calls this in each server."""
    return [Middleware(ServeHeaders)]


class ServeHeaders:
    """ASGI middleware: no headers of Serve in a request; one id, and ours, in an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        given = next((value for name, value in headers if name == ID), None)
        # Serve would also fail on an id that is not UTF-8.
        field = (ID, request_id(given).encode())
        kept = [each for each in headers if each[0] not in SERVE_HEADERS and each[0] != ID]

        async def send_with_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":  # sent by the replica, and by Serve
                others = [each for each in message["headers"] if each[0].lower() != ID]
                message["headers"] = [*others, field, *OWN_HEADERS]
            await send(message)

        await self._app({**scope, "headers": [*kept, field]}, receive, send_with_one_id)
