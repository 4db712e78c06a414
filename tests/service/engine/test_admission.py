"""Admission control of the engine: queue limit, waiting time, deadline, Retry-After."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from service.engine.admission import MAX_RETRY_AFTER, retry_after
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
            ):
                await generate(running, FakeSource(), count)
        with pytest.raises(QueueFull):
            await anext(running.stream(cast(ImageSource, FakeSource()), 500, lambda *_: 0))
        network.gate.set()
        await asyncio.gather(*tasks)
        assert len(await generate(running, FakeSource(), LIMIT)) == LIMIT


@pytest.mark.anyio
async def test_request_that_would_start_after_max_wait_is_rejected() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000, max_wait=0.5) as running:

        def slowly(frame: Any, pixels: Any) -> None:
            time.sleep(0.005)

        source = cast(ImageSource, FakeSource())
        await running.run(source, 40, slowly)  # at most 200 images a second
        network.gate.clear()
        # Round-robin: other requests wait for one batch of a large one.
        tasks = [asyncio.create_task(running.run(source, 200, slowly))]
        tasks += [asyncio.create_task(running.run(source, 1, slowly)) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert running.queued_images == 220
        # Result: half a second of work is admitted, whatever else is queued behind it.
        with pytest.raises(QueueFull):
            for _ in range(100):
                tasks.append(asyncio.create_task(running.run(source, 1, slowly)))
                await asyncio.sleep(0.001)
                if tasks[-1].done():
                    await tasks.pop()
        network.gate.set()
        await asyncio.gather(*tasks)


def test_retry_after_is_the_queued_work_with_jitter() -> None:
    for queued, throughput, bounds in (
        (10, 100.0, (1, 2)),
        (300, 100.0, (3, 6)),
        (700, 100.0, (7, MAX_RETRY_AFTER)),
        (10_000, 100.0, (MAX_RETRY_AFTER, MAX_RETRY_AFTER)),
        (10, None, (1, 2)),
    ):
        found = [retry_after(queued, throughput) for _ in range(1000)]
        assert (min(found), max(found)) == bounds


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
