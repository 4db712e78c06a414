"""Worker threads that hang or cannot compute, and paused processes."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import pytest

from service.engine.engine import PAUSE_SECONDS, POLL_SECONDS
from service.errors import InferenceFailed
from service.inference.source import ImageSource
from tests.helpers.fake_engine import BATCH, FakeNetwork, FakeSource, engine, generate, until


@pytest.mark.anyio
async def test_hang_fails_its_requests_and_no_others() -> None:
    network, reports = FakeNetwork(), list[None]()
    options = {"threads": 2, "hang_timeout": 0.2, "on_hang": lambda: reports.append(None)}
    async with engine(network, **options) as running:
        # 1. A request hangs, others are computed by the second thread.
        hangs = threading.Event()
        stuck = asyncio.create_task(generate(running, FakeSource(hangs=hangs), 1))
        await until(lambda: network.batches)
        behind = [asyncio.create_task(generate(running, FakeSource(), 3)) for _ in range(5)]
        # Result: the first fails, the others are answered, and the engine is not ready.
        with pytest.raises(InferenceFailed, match=r"did not finish within 0\.2 s"):
            await stuck
        assert [len(images) for images in await asyncio.gather(*behind)] == [3] * 5
        assert running.fault == "a worker thread hangs"
        assert len(await generate(running, FakeSource(), 20)) == 20
        # 2. The hung thread returns. Result: its images are dropped, and the fault stays.
        hangs.set()
        await until(lambda: running.queued_images == 0)
        assert len(await generate(running, FakeSource(), 20)) == 20
        assert running.fault == "a worker thread hangs"
        assert len(reports) == 1


@pytest.mark.anyio
async def test_requests_fail_at_once_if_all_threads_hang() -> None:
    network = FakeNetwork()
    async with engine(network, threads=2, hang_timeout=0.2) as running:
        hangs = threading.Event()
        stuck = [
            asyncio.create_task(generate(running, FakeSource(hangs=hangs), 1)) for _ in range(2)
        ]
        await until(lambda: len(network.batches) == 2)
        behind = asyncio.create_task(generate(running, FakeSource(), 3))
        for task in stuck:
            with pytest.raises(InferenceFailed, match="did not finish within"):
                await task
        for late in (behind, generate(running, FakeSource(), 1)):
            with pytest.raises(InferenceFailed, match="all worker threads hang"):
                await late
        hangs.set()


@pytest.mark.anyio
@pytest.mark.parametrize("hanging", [1, 2])
async def test_hung_encoders_fail_their_requests(hanging: int) -> None:
    """One thread of two hangs: the other serves the rest, or there is none left."""
    network = FakeNetwork()
    async with engine(network, threads=1, encoders=2, hang_timeout=0.2) as running:
        hangs = threading.Event()

        def stuck(frame: Any, pixels: Any) -> None:
            hangs.wait(10)

        source = cast(ImageSource, FakeSource())
        tasks = [asyncio.create_task(running.run(source, BATCH, stuck)) for _ in range(hanging)]
        await until(lambda: len(network.batches) == hanging)
        behind = asyncio.create_task(generate(running, FakeSource(), 3))
        for task in tasks:
            with pytest.raises(InferenceFailed, match="did not finish within"):
                await task
        assert running.fault == "a worker thread hangs"
        if hanging == 1:
            assert len(await behind) == 3
        else:
            with pytest.raises(InferenceFailed, match="all worker threads hang"):
                await behind
        hangs.set()


@pytest.mark.anyio
async def test_hung_threads_do_not_block_close() -> None:
    network = FakeNetwork()
    hangs = threading.Event()
    async with engine(network, threads=1, encoders=1, hang_timeout=0.2) as running:
        with pytest.raises(InferenceFailed):
            await running.run(
                cast(ImageSource, FakeSource()), 1, lambda frame, pixels: hangs.wait(10)
            )
        await running.close()
        (left,) = [thread for thread in threading.enumerate() if thread.name == "encode"]
        assert left.daemon
        hangs.set()
        left.join()


@pytest.mark.anyio
async def test_hang_in_the_warm_up_after_a_failed_batch_is_found() -> None:
    network = FakeNetwork()
    hangs, released = threading.Event(), threading.Event()

    def probe() -> None:
        if hangs.is_set():
            released.wait(10)

    async with engine(network, probe, threads=1, hang_timeout=0.2) as running:
        hangs.set()
        with pytest.raises(InferenceFailed, match="could not be run"):
            await generate(running, FakeSource(fails=True), 1)
        with pytest.raises(InferenceFailed, match="all worker threads hang"):
            await generate(running, FakeSource(), 3)
        assert running.fault == "a worker thread hangs"
        released.set()


@pytest.mark.anyio
async def test_pause_of_the_process_is_no_hang() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, hang_timeout=0.5) as running:
        network.gate.clear()
        task = asyncio.create_task(generate(running, FakeSource(), 1))
        await until(lambda: network.batches)
        await asyncio.sleep(POLL_SECONDS / 2)
        time.sleep(PAUSE_SECONDS + 0.5)  # as if the process was stopped
        await asyncio.sleep(2 * POLL_SECONDS)
        network.gate.set()
        assert len(await task) == 1
        assert running.fault is None


@pytest.mark.anyio
async def test_close_works_while_asyncio_threads_hang() -> None:
    released = threading.Event()
    async with engine(FakeNetwork()):
        hanging = [asyncio.ensure_future(asyncio.to_thread(released.wait)) for _ in range(40)]
        await asyncio.sleep(0)
    released.set()
    await asyncio.gather(*hanging)


@pytest.mark.anyio
async def test_engine_is_not_ready_while_every_batch_fails() -> None:
    network = FakeNetwork()
    broken = threading.Event()

    def probe() -> None:
        if broken.is_set():
            raise ValueError("on purpose")

    async with engine(network, probe, threads=1) as running:
        broken.set()
        with pytest.raises(InferenceFailed):
            await generate(running, FakeSource(fails=True), 1)
        await until(lambda: running.fault is not None)
        broken.clear()
        await until(lambda: running.fault is None)
        assert len(await generate(running, FakeSource(), 1)) == 1
