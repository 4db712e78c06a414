"""What stands between callers and replicas on Ray Serve, without Ray."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.cluster import proxy
from service.cluster.proxy import AHEAD, STEP, TAKEN, TOLD, Forwarding, Paced

SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/generate",
    "headers": [(b"authorization", b"Bearer key"), (b"x-request-timeout-seconds", b"0")],
}
Serve = Callable[[Scope, Receive, Send], Awaitable[None]]


class Caller:
    """Sends a body, in parts, and keeps what it gets; ``leave`` hangs up."""

    def __init__(self, *body: bytes) -> None:
        self._messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": True} for part in body
        ]
        self._messages[-1]["more_body"] = False
        self._gone = asyncio.Event()
        self.got: list[Message] = []

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


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


async def answer(send: Send, status: int = 200, media: bytes = b"image/png") -> None:
    """As a replica does, through Serve, which says the request's id once more."""
    headers = [(b"content-type", media), (b"x-request-id", b"a"), (b"X-Request-ID", b"a")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"made"})


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PAUSE", 0)


def test_a_request_whose_replica_dies_is_asked_of_another() -> None:
    async def test() -> None:
        bodies = []

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            bodies.append((await receive())["body"])
            scope["headers"].append((b"x-of-serve", b"1"))  # as Serve's own middleware does
            assert len([name for name, _ in scope["headers"] if name == b"x-of-serve"]) == 1
            if len(bodies) == 3:
                await answer(send)

        caller = Caller(b'{"n"', b": 1}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert bodies == [b'{"n": 1}'] * 3
        assert caller.status == 200
        assert caller.got[1]["body"] == b"made"

    run(test())


def test_one_that_kills_every_replica_is_given_up() -> None:
    async def test() -> None:
        asked = 0

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal asked
            asked += 1

        caller = Caller(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert asked == proxy.ATTEMPTS
        assert caller.status == 503
        assert caller.header(b"retry-after") == [b"1"]
        assert caller.problem["type"] == "urn:figment:not-ready"

    run(test())


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def test() -> None:
        asked = 0

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal asked
            asked += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})

        caller = Caller(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert asked == 1
        assert caller.got[-1]["more_body"], "it must not end as if it were whole"

    run(test())


def test_who_has_left_is_not_asked_for_again() -> None:
    async def test() -> None:
        asked = 0

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal asked
            asked += 1
            await receive()
            caller.leave()
            assert (await receive())["type"] == "http.disconnect"

        caller = Caller(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert asked == 1
        assert caller.got == []

    run(test())


@pytest.mark.parametrize("given", [b"our-own", b"two words", b"\xff"])
def test_a_request_has_one_id_and_cannot_steer_serve(given: bytes) -> None:
    async def test() -> None:
        seen: dict[bytes, bytes] = {}

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            seen.update(scope["headers"])
            await answer(send)

        caller = Caller(b"{}")
        scope = {**SCOPE, "headers": [*SCOPE["headers"], (b"x-request-id", given)]}
        await Forwarding(serve)(scope, caller.receive, caller.send)
        assert set(seen) == {b"authorization", b"x-request-id"}
        assert caller.header(b"x-request-id") == [seen[b"x-request-id"]]
        assert (seen[b"x-request-id"] == given) == (given == b"our-own")
        assert caller.header(b"x-content-type-options") == [b"nosniff"]

    run(test())


@pytest.mark.parametrize(("status", "retry_after"), [(503, [b"1"]), (404, [])])
def test_what_serve_answers_itself_is_a_problem(status: int, retry_after: list[bytes]) -> None:
    async def test() -> None:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(send, status, b"text/plain; charset=utf-8")

        caller = Caller(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert caller.status == caller.problem["status"] == status
        assert caller.problem["detail"] == "made"
        assert caller.header(b"retry-after") == retry_after

    run(test())


def test_a_body_is_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "BODY_SECONDS", 0.05)

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it was asked")

    async def test() -> None:
        large = Caller(*([b" " * (1 << 20)] * 9))
        await Forwarding(never)(SCOPE, large.receive, large.send)
        assert large.status == 413
        assert large.problem["type"] == "urn:figment:body-too-large"
        slow = Caller(b"{")
        slow._messages[0]["more_body"] = True
        await Forwarding(never)(SCOPE, slow.receive, slow.send)
        assert slow.status == 408
        gone = Caller(b"{")
        gone._messages[0]["more_body"] = True
        gone.leave()
        await Forwarding(never)(SCOPE, gone.receive, gone.send)
        assert gone.got == []

    run(test())


def test_a_replica_sends_no_more_than_a_bound_ahead_of_its_reader() -> None:
    """Through both, with nothing between them that would wait for anybody."""
    piece = b"x" * 50_000  # which goes to the caller as it is
    pieces = 400

    async def test() -> None:
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
            assert TAKEN in scope["extensions"]
            replica = asyncio.create_task(Paced(app)(scope, receive, crossing.put))
            while True:
                message = await crossing.get()
                await send(message)
                if message["type"] == "http.response.body" and not message["more_body"]:
                    break
            await replica

        class Slow(Caller):
            async def send(self, message: Message) -> None:
                if message["type"] == "http.response.body":
                    await reads.acquire()
                await super().send(message)

        caller = Slow(b"{}")
        whole = asyncio.create_task(Forwarding(serve)(SCOPE, caller.receive, caller.send))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert AHEAD - len(piece) <= sent <= AHEAD + len(piece), "and nothing was taken"
        for _ in range(2 * AHEAD // len(piece)):
            reads.release()
            for _ in range(20):
                await asyncio.sleep(0)
        taken = sum(len(message.get("body", b"")) for message in caller.got)
        assert taken <= sent <= taken + AHEAD + TOLD + len(piece)
        for _ in range(pieces):
            reads.release()
        await whole
        assert sum(len(m.get("body", b"")) for m in caller.got) == pieces * len(piece)

    run(test())


def test_errors_of_serves_receive_are_a_caller_who_has_left() -> None:
    async def test() -> None:
        async def fails() -> Message:
            raise RuntimeError("the proxy is gone")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert await receive() == {"type": "http.disconnect"}

        await Paced(app)({**SCOPE}, fails, Caller(b"{}").send)

    run(test())


@pytest.mark.parametrize("size", [10_000, 10_000_000])
def test_who_reads_slowly_is_told_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """``size``: bytes of each message of a replica; the caller takes few at a time."""
    now = 0.0
    monkeypatch.setattr(proxy, "time", SimpleNamespace(monotonic=lambda: now))
    told: list[tuple[float, int]] = []

    class Slow(Caller):
        async def send(self, message: Message) -> None:
            nonlocal now
            now += len(message.get("body", b"")) / 10_000
            await super().send(message)
            await asyncio.sleep(0)

    async def test() -> None:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            async def listen() -> None:
                while (message := await receive())["type"] != "http.disconnect":
                    if message["type"] == TAKEN:
                        told.append((now, message["bytes"]))

            listening = asyncio.create_task(listen())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(40):
                body = {"type": "http.response.body", "body": b"x" * size}
                await send({**body, "more_body": True})
                if now > 40:
                    break
            await send({"type": "http.response.body", "body": b""})
            listening.cancel()

        caller = Slow(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        pauses = [b[0] - a[0] for a, b in itertools.pairwise([(0.0, 0), *told])]
        assert len(told) >= 5 and max(pauses) < 15, "seconds in which the replica hears nothing"
        assert [taken for _, taken in told] == sorted({taken for _, taken in told})
        taken = b"".join(message.get("body", b"") for message in caller.got)
        assert not caller.got[-1].get("more_body", False)
        assert len(taken) % size == 0 and len(taken) >= told[-1][1]

    run(test())


def test_a_large_message_comes_whole() -> None:
    async def test() -> None:
        for size in (0, 1, STEP, STEP + 1, 3 * STEP):
            content = random.Random(size).randbytes(size)

            async def serve(
                scope: Scope, receive: Receive, send: Send, content: bytes = content
            ) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": content})

            caller = Caller(b"{}")
            await Forwarding(serve)(SCOPE, caller.receive, caller.send)
            bodies = caller.got[1:]
            assert b"".join(message["body"] for message in bodies) == content
            assert max(len(message["body"]) for message in bodies) <= STEP
            more = [message.get("more_body", False) for message in bodies]
            assert more == [True] * (len(bodies) - 1) + [False]

    run(test())


def test_a_body_that_is_too_large_by_its_own_word_is_not_read() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("it was asked")

    async def test() -> None:
        for length in (b"8388609", b"9" * 30):
            caller = Caller(b"{}")
            scope = {**SCOPE, "headers": [(b"content-length", length)]}
            await Forwarding(never)(scope, never, caller.send)  # nor is it told to go on
            assert caller.status == 413
            assert caller.problem["type"] == "urn:figment:body-too-large"
            assert caller.header(b"connection") == [b"close"], "or the rest would be read"

    run(test())


def test_what_serve_began_to_say_of_one_replica_is_not_the_answer_of_the_next() -> None:
    async def test() -> None:
        asked = 0

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                headers = [(b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 500, "headers": headers})
            else:
                await answer(send)

        caller = Caller(b"{}")
        await Forwarding(serve)(SCOPE, caller.receive, caller.send)
        assert caller.status == 200
        assert caller.got[1]["body"] == b"made"

    run(test())


@pytest.mark.parametrize("version", ["2.3", "2.4", "3.0"])
def test_a_stream_hears_what_was_taken_whatever_the_server_speaks(version: str) -> None:
    async def test() -> None:
        piece, pieces = b"x" * 100_000, 3 * AHEAD // 100_000
        taken: asyncio.Queue[Message] = asyncio.Queue()
        sent = 0

        async def send(message: Message) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            taken.put_nowait({"type": TAKEN, "bytes": sent})

        async def body() -> AsyncIterator[bytes]:
            for _ in range(pieces):
                yield piece

        scope = {**SCOPE, "asgi": {"spec_version": version}, "extensions": {TAKEN: {}}}
        await Paced(StreamingResponse(body()))(scope, taken.get, send)
        assert sent == pieces * len(piece)

    run(test())
