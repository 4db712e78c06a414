"""Backpressure between a replica and a slow client, without Ray."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.cluster import proxy
from service.cluster.proxy import (
    ACKNOWLEDGE_BYTES,
    ACKNOWLEDGEMENT,
    CHUNK_BYTES,
    MAX_UNACKNOWLEDGED_BYTES,
    PacedReplica,
    RetryingProxy,
)
from tests.helpers.asgi import SCOPE, ScriptedClient

pytestmark = pytest.mark.anyio


async def test_replica_waits_for_a_slow_client() -> None:
    """Both middlewares, with an unlimited buffer between them."""
    piece = b"x" * 50_000  # which goes to the client as it is
    pieces = 400

    sent = 0
    reads = asyncio.Semaphore(0)
    crossing: asyncio.Queue[Message] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        listener = asyncio.create_task(listen())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(pieces):
            last = number == pieces - 1
            await send({"type": "http.response.body", "body": piece, "more_body": not last})
            sent += len(piece)
        listener.cancel()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        assert ACKNOWLEDGEMENT in scope["extensions"]
        replica = asyncio.create_task(PacedReplica(app)(scope, receive, crossing.put))
        while True:
            message = await crossing.get()
            await send(message)
            if message["type"] == "http.response.body" and not message["more_body"]:
                break
        await replica

    class Slow(ScriptedClient):
        async def send(self, message: Message) -> None:
            if message["type"] == "http.response.body":
                await reads.acquire()
            await super().send(message)

    client = Slow(b"{}")
    whole = asyncio.create_task(client.request(RetryingProxy(serve)))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert MAX_UNACKNOWLEDGED_BYTES - len(piece) <= sent <= MAX_UNACKNOWLEDGED_BYTES + len(piece), (
        "nothing is acknowledged yet"
    )
    for _ in range(2 * MAX_UNACKNOWLEDGED_BYTES // len(piece)):
        reads.release()
        for _ in range(20):
            await asyncio.sleep(0)
    taken = sum(len(message.get("body", b"")) for message in client.got)
    assert taken <= sent <= taken + MAX_UNACKNOWLEDGED_BYTES + ACKNOWLEDGE_BYTES + len(piece)
    for _ in range(pieces):
        reads.release()
    await whole
    assert sum(len(m.get("body", b"")) for m in client.got) == pieces * len(piece)


async def test_receive_error_counts_as_a_disconnect() -> None:
    async def fails() -> Message:
        raise RuntimeError("the proxy is gone")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.disconnect"}

    await PacedReplica(app)({**SCOPE}, fails, ScriptedClient(b"{}").send)


@pytest.mark.parametrize("size", [10_000, 10_000_000])
async def test_slow_client_is_acknowledged_regularly(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """``size``: bytes of each message of a replica; the client reads 10,000 bytes a second."""
    now = 0.0
    monkeypatch.setattr(proxy, "time", SimpleNamespace(monotonic=lambda: now))
    acknowledged: list[tuple[float, int]] = []

    class Slow(ScriptedClient):
        async def send(self, message: Message) -> None:
            nonlocal now
            now += len(message.get("body", b"")) / 10_000
            await super().send(message)
            await asyncio.sleep(0)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                if message["type"] == ACKNOWLEDGEMENT:
                    acknowledged.append((now, message["bytes"]))

        listening = asyncio.create_task(listen())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(40):
            body = {"type": "http.response.body", "body": b"x" * size}
            await send({**body, "more_body": True})
            if now > 40:
                break
        await send({"type": "http.response.body", "body": b""})
        listening.cancel()

    client = Slow(b"{}")
    await client.request(RetryingProxy(serve))
    pauses = [b[0] - a[0] for a, b in itertools.pairwise([(0.0, 0), *acknowledged])]
    assert len(acknowledged) >= 5 and max(pauses) < 15, (
        "seconds in which the replica gets no acknowledgement"
    )
    assert [taken for _, taken in acknowledged] == sorted({taken for _, taken in acknowledged})
    taken = b"".join(message.get("body", b"") for message in client.got)
    assert not client.got[-1].get("more_body", False)
    assert len(taken) % size == 0 and len(taken) >= acknowledged[-1][1]


async def test_large_message_arrives_whole_in_chunks() -> None:
    for size in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES):
        content = random.Random(size).randbytes(size)

        async def serve(
            scope: Scope, receive: Receive, send: Send, content: bytes = content
        ) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": content})

        client = ScriptedClient(b"{}")
        await client.request(RetryingProxy(serve))
        bodies = client.got[1:]
        assert b"".join(message["body"] for message in bodies) == content
        assert max(len(message["body"]) for message in bodies) <= CHUNK_BYTES
        more = [message.get("more_body", False) for message in bodies]
        assert more == [True] * (len(bodies) - 1) + [False]


@pytest.mark.parametrize("version", ["2.3", "2.4", "3.0"])
async def test_stream_receives_acknowledgements_under_any_asgi_version(version: str) -> None:
    piece, pieces = b"x" * 100_000, 3 * MAX_UNACKNOWLEDGED_BYTES // 100_000
    taken: asyncio.Queue[Message] = asyncio.Queue()
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        taken.put_nowait({"type": ACKNOWLEDGEMENT, "bytes": sent})

    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield piece

    scope = {**SCOPE, "asgi": {"spec_version": version}, "extensions": {ACKNOWLEDGEMENT: {}}}
    await PacedReplica(StreamingResponse(body()))(scope, taken.get, send)
    assert sent == pieces * len(piece)
