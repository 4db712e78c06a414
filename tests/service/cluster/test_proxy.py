"""Retries, headers, bodies and errors of the proxy on Ray Serve, without Ray."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.cluster import proxy
from service.cluster.proxy import RetryingProxy
from tests.helpers.asgi import SCOPE, ScriptedClient, answer

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_retry_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "RETRY_PAUSE_SECONDS", 0)


async def test_request_of_a_dead_replica_is_retried() -> None:
    bodies = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append((await receive())["body"])
        scope["headers"].append((b"x-of-serve", b"1"))  # as Serve's own middleware does
        assert len([name for name, _ in scope["headers"] if name == b"x-of-serve"]) == 1
        if len(bodies) == 3:
            await answer(send)

    client = ScriptedClient(b'{"n"', b": 1}")
    await client.request(RetryingProxy(serve))
    assert bodies == [b'{"n": 1}'] * 3
    assert client.status == 200
    assert client.got[1]["body"] == b"made"


async def test_retries_stop_after_three_replicas() -> None:
    attempts = 0

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        attempts += 1

    client = ScriptedClient(b"{}")
    await client.request(RetryingProxy(serve))
    assert attempts == proxy.MAX_ATTEMPTS
    assert client.status == 503
    assert client.header(b"retry-after") == [b"1"]
    assert client.problem["type"] == "urn:figment:not-ready"


async def test_started_response_is_not_retried() -> None:
    attempts = 0

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        attempts += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    client = ScriptedClient(b"{}")
    await client.request(RetryingProxy(serve))
    assert attempts == 1
    assert client.got[-1]["more_body"], "it must not end as if it were whole"


async def test_disconnected_client_is_not_retried() -> None:
    attempts = 0

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        attempts += 1
        await receive()
        client.leave()
        assert (await receive())["type"] == "http.disconnect"

    client = ScriptedClient(b"{}")
    await client.request(RetryingProxy(serve))
    assert attempts == 1
    assert client.got == []


@pytest.mark.parametrize("given", [b"our-own", b"two words", b"\xff"])
async def test_request_has_one_id_and_no_headers_of_serve(given: bytes) -> None:
    seen: dict[bytes, bytes] = {}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope["headers"])
        await answer(send)

    client = ScriptedClient(b"{}")
    scope = {**SCOPE, "headers": [*SCOPE["headers"], (b"x-request-id", given)]}
    await client.request(RetryingProxy(serve), scope)
    assert set(seen) == {b"authorization", b"x-request-id"}
    assert client.header(b"x-request-id") == [seen[b"x-request-id"]]
    assert (seen[b"x-request-id"] == given) == (given == b"our-own")
    assert client.header(b"x-content-type-options") == [b"nosniff"]


@pytest.mark.parametrize(("status", "retry_after"), [(503, [b"1"]), (404, [])])
async def test_errors_of_serve_become_problems(status: int, retry_after: list[bytes]) -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, status, b"text/plain; charset=utf-8")

    client = ScriptedClient(b"{}")
    await client.request(RetryingProxy(serve))
    assert client.status == client.problem["status"] == status
    assert client.problem["detail"] == "made"
    assert client.header(b"retry-after") == retry_after


async def test_body_has_size_and_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "BODY_SECONDS", 0.05)

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("a replica got the request")

    large = ScriptedClient(*([b" " * (1 << 20)] * 9))
    await large.request(RetryingProxy(never))
    assert large.status == 413
    assert large.problem["type"] == "urn:figment:body-too-large"
    slow = ScriptedClient(b"{")
    slow._messages[0]["more_body"] = True
    await slow.request(RetryingProxy(never))
    assert slow.status == 408
    gone = ScriptedClient(b"{")
    gone._messages[0]["more_body"] = True
    gone.leave()
    await gone.request(RetryingProxy(never))
    assert gone.got == []


async def test_body_with_a_large_content_length_is_not_read() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("a replica got the request")

    for length in (b"8388609", b"9" * 30):
        client = ScriptedClient(b"{}")
        scope = {**SCOPE, "headers": [(b"content-length", length)]}
        await RetryingProxy(never)(scope, never, client.send)  # receive is not called either
        assert client.status == 413
        assert client.problem["type"] == "urn:figment:body-too-large"
        assert client.header(b"connection") == [b"close"], "or the rest would be read"


async def test_partial_error_of_one_replica_is_dropped_on_retry() -> None:
    attempts = 0

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
        else:
            await answer(send)

    client = ScriptedClient(b"{}")
    await client.request(RetryingProxy(serve))
    assert client.status == 200
    assert client.got[1]["body"] == b"made"
