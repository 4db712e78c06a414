"""Admission control of the engine: queue limit, waiting time, deadline, reservations."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from service.engine.admission import REQUEST_KEY
from service.errors import ClientDisconnected, DeadlineExceeded, QueueFull, RequestError
from service.inference.source import ImageSource
from tests.helpers.fake_engine import LIMIT, FakeNetwork, FakeSource, engine, generate


@pytest.mark.anyio
async def test_queue_limit_counts_images_not_requests() -> None:
    network = FakeNetwork()
    async with engine(network) as running:
        await generate(running, FakeSource(), 10)  # so that a rate is known
        network.gate.clear()
        tasks = [asyncio.create_task(generate(running, FakeSource(), 90))]
        tasks += [asyncio.create_task(generate(running, FakeSource(), 1)) for _ in range(10)]
        await asyncio.sleep(0.01)
        assert running.queued_images == LIMIT
        for count in (1, 50):
            with pytest.raises(
                QueueFull, match=f"queue full: 100 images queued or running, {count} requested"
            ) as caught:
                await generate(running, FakeSource(), count)
            rate = running.images_per_second
            assert rate is not None
            assert int(caught.value.headers()["Retry-After"]) == max(1, round(count / rate))
        with pytest.raises(QueueFull):
            await anext(running.stream(cast(ImageSource, FakeSource()), 500, lambda *_: 0))
        network.gate.set()
        await asyncio.gather(*tasks)
        assert len(await generate(running, FakeSource(), LIMIT)) == LIMIT


@pytest.mark.anyio
async def test_requests_over_max_wait_get_staggered_retry_after() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000, max_wait=0.5) as running:

        def slowly(frame: Any, pixels: Any) -> None:
            time.sleep(0.005)

        source = cast(ImageSource, FakeSource())
        await running.run(source, 40, slowly)  # about 200 images a second
        # Round-robin: other requests wait for one batch of a large one.
        large = asyncio.create_task(running.run(source, 200, slowly))
        await asyncio.sleep(0.01)
        small = [asyncio.create_task(running.run(source, 1, slowly)) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert not any(task.done() and task.exception() for task in [large, *small])
        told = []
        refused = 0
        for number in range(400):
            REQUEST_KEY.set(number)  # a different request each time
            try:
                small.append(asyncio.create_task(running.run(source, 1, slowly)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if small[-1].done():
                    small[-1].result()
            except QueueFull as error:
                small.pop()
                refused += 1
                told.append(int(error.headers()["Retry-After"]))
        # Not all at once: as many a second as can be made.
        assert refused > 300
        assert told == sorted(told)
        assert max(told) >= 2
        await asyncio.gather(large, *small)


@pytest.mark.anyio
async def test_reserved_retry_is_admitted_before_new_requests() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000, max_wait=0.5) as running:

        def slowly(frame: Any, pixels: Any) -> None:
            time.sleep(0.005)

        source = cast(ImageSource, FakeSource())
        accepted: list[asyncio.Task[Any]] = []

        async def refusal(request: int) -> int | None:
            """Retry-After of a rejected request; None if it is admitted."""
            REQUEST_KEY.set(request)
            task = asyncio.create_task(running.run(source, 1, slowly))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if task.done():
                error = task.exception()
                assert isinstance(error, QueueFull)
                return int(error.headers()["Retry-After"])
            accepted.append(task)
            return None

        await running.run(source, 40, slowly)  # about 200 images a second
        # 1. Strangers ask, and never come back, until one is refused.
        strangers = iter(range(1000, 100_000))
        while await refusal(next(strangers)) is None:
            pass
        full = running.queued_images
        # 2. One gets a reservation, while strangers continue.
        told = await refusal(7)
        assert told == 1
        end = time.monotonic() + told
        longest = 0
        while time.monotonic() < end:
            await refusal(next(strangers))
            await asyncio.sleep(0.005)
            longest = max(longest, running.queued_images if time.monotonic() > end - 0.2 else 0)
        # Result: they have left room, and it is let in when they are not.
        assert longest < 0.8 * full
        while await refusal(next(strangers)) is None:
            pass
        assert await refusal(7) is None
        assert await refusal(7) is not None
        await asyncio.gather(*accepted)


@pytest.mark.anyio
async def test_request_that_would_miss_its_deadline_is_rejected_at_once() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000, timeout=1.0) as running:

        def slowly(frame: Any, pixels: Any) -> None:
            time.sleep(0.01)

        source = cast(ImageSource, FakeSource())
        await running.run(source, 10, slowly)  # about 100 images a second
        first = asyncio.create_task(running.run(source, 60, slowly))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            await running.run(source, 60, slowly)
        await first


def test_every_error_has_a_status() -> None:
    for error in (QueueFull("x", retry_after=3), ClientDisconnected("x"), DeadlineExceeded("x")):
        assert isinstance(error, RequestError)
        assert error.problem()["status"] == error.status
