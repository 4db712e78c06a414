"""Streams: backpressure, and fairness towards requests."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from service.engine.engine import Engine
from service.errors import QueueFull
from service.inference.source import ImageSource
from tests.helpers.fake_engine import BATCH, LIMIT, FakeNetwork, FakeSource, engine, generate, until


@pytest.mark.anyio
async def test_stream_computes_ahead_only_a_bounded_number_of_batches() -> None:
    network = FakeNetwork()
    async with engine(network) as running:
        source = FakeSource()
        stream = running.stream(cast(ImageSource, source), 1000, lambda _, pixels: pixels)
        assert await anext(stream) == [(source, i) for i in range(BATCH)]
        await until(lambda: network.images >= 64)
        await asyncio.sleep(0.05)
        assert network.images == 64  # the window of two threads
        # What is done and waits for its reader takes no room from others.
        assert len(await generate(running, FakeSource(), LIMIT)) == LIMIT
        await stream.aclose()


@pytest.mark.anyio
async def test_admitted_streams_wait_for_room_in_the_queue() -> None:
    async def read(running: Engine, count: int) -> int:
        source = cast(ImageSource, FakeSource())
        return sum([len(batch) async for batch in running.stream(source, count, lambda *_: 0)])

    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=5 * BATCH) as running:
        found = await asyncio.gather(read(running, 200), read(running, 333))
        assert list(found) == [200, 333]


@pytest.mark.anyio
async def test_all_batches_of_a_stream_share_one_place_in_the_round_robin() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000) as running:
        network.gate.clear()
        streams = [
            running.stream(cast(ImageSource, FakeSource()), 1000, lambda *_: 0) for _ in range(4)
        ]
        readers = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await until(lambda: network.batches)
        await asyncio.sleep(0.01)
        small = FakeSource()
        task = asyncio.create_task(generate(running, small, 1))
        await asyncio.sleep(0.01)
        network.gate.set()
        await task
        sources = [[source for source, _ in batch] for batch in network.batches]
        assert next(i for i, batch in enumerate(sources) if small in batch) <= 5
        await asyncio.gather(*readers)
        for stream in streams:
            await stream.aclose()


@pytest.mark.anyio
async def test_streams_do_not_starve_requests() -> None:
    """However many there are and however long they last; nor are they shut out themselves."""

    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000, max_wait=0.5) as running:

        def slowly(frame: Any, pixels: Any) -> None:
            time.sleep(0.005)

        source = cast(ImageSource, FakeSource())
        streams = [running.stream(source, 10_000, slowly) for _ in range(20)]
        readers = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await until(lambda: network.batches)
        await running.run(source, 40, slowly)  # about 200 images a second
        # Result: of 160 images of streams, a request waits for two batches.
        for _ in range(20):
            assert len((await running.run(source, 1, slowly))[0]) == 1
        more = running.stream(source, 100, slowly)
        with pytest.raises(QueueFull):  # of their own kind there are enough
            await anext(more)
        await asyncio.gather(*readers)
        for stream in streams:
            await stream.aclose()
