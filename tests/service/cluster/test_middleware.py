"""Headers between Serve's HTTP servers, the app and the client, without Ray."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.cluster.middleware import ServeHeaders, middlewares

pytestmark = pytest.mark.anyio


async def test_serve_loads_the_middleware() -> None:
    assert repr(middlewares()) == "[Middleware(ServeHeaders)]"


@pytest.mark.parametrize("given", [b"our-own", b"two words", b"\xff", None])
async def test_request_has_one_id_and_no_headers_of_serve(given: bytes | None) -> None:
    seen: dict[bytes, bytes] = {}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope["headers"])
        response = PlainTextResponse("made", headers={"X-Request-ID": "of the app"})
        response.headers.append("X-Request-ID", "of Serve")
        await response(scope, receive, send)

    headers = [(b"X-Request-Timeout-Seconds", b"0"), (b"X-Session-ID", b"\xff"), (b"A", b"b")]
    headers += [(b"X-Request-ID", given)] if given is not None else []
    transport = httpx.ASGITransport(ServeHeaders(serve))
    async with httpx.AsyncClient(transport=transport, base_url="http://figment") as client:
        answer = await client.get("/", headers=headers)
    assert seen[b"a"] == b"b"
    assert not {b"x-request-timeout-seconds", b"x-session-id"} & set(seen)
    assert answer.headers.get_list("x-request-id") == [seen[b"x-request-id"].decode()]
    assert (seen[b"x-request-id"] == given) == (given == b"our-own")
    assert answer.headers["x-content-type-options"] == "nosniff"
