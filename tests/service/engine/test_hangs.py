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
async def test_hung_thread_is_replaced() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, hang_timeout=0.2) as running:
        # 1. A request hangs, another waits behind it.
        hangs = threading.Event()
        stuck = asyncio.create_task(generate(running, FakeSource(hangs=hangs), 1))
        await until(lambda: network.batches)
        behind = asyncio.create_task(generate(running, FakeSource(), 3))
        # Result: the first fails, the other is answered, and the engine is ready.
        with pytest.raises(InferenceFailed, match="did not finish within"):
            await stuck
        assert len(await behind) == 3
        assert running.ready
        # 2. The hung thread returns. Result: it ends, and nothing else changes.
        threads = threading.active_count()
        hangs.set()
        await until(lambda: threading.active_count() == threads - 1)
        assert len(await generate(running, FakeSource(), 2)) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("hanging", [1, 2, 5])
async def test_hung_encoder_is_replaced(hanging: int) -> None:
    """One, all, and more than have room: requests that do not hang are answered."""

    network = FakeNetwork()
    before = threading.active_count()
    async with engine(network, threads=1, encoders=2, hang_timeout=0.2) as running:
        hangs = threading.Event()

        def stuck(frame: Any, pixels: Any) -> None:
            hangs.wait(10)

        source = cast(ImageSource, FakeSource())
        tasks = [asyncio.create_task(running.run(source, BATCH, stuck)) for _ in range(hanging)]
        await until(lambda: len(network.batches) >= min(hanging, 5))
        behind = asyncio.create_task(generate(running, FakeSource(), 3))
        for task in tasks:
            with pytest.raises(InferenceFailed, match="did not finish within"):
                await task
        assert len(await behind) == 3
        assert running.ready
        assert running.queued_images == 0
        # The hung threads return. Result: they end, and nothing else changes.
        hangs.set()
        await until(lambda: threading.active_count() == before + 3)
        assert len(await generate(running, FakeSource(), 5 * BATCH)) == 5 * BATCH


@pytest.mark.anyio
async def test_hung_threads_do_not_block_close() -> None:
    network = FakeNetwork()
    hangs = threading.Event()
    async with engine(network, threads=1, encoders=1, hang_timeout=0.2) as running:
        with pytest.raises(InferenceFailed):
            await running.run(
                cast(ImageSource, FakeSource()), 1, lambda frame, pixels: hangs.wait(10)
            )
    (left,) = [thread for thread in threading.enumerate() if thread.name == "encode"]
    assert left.daemon
    hangs.set()
    left.join()


@pytest.mark.anyio
async def test_engine_is_not_ready_while_all_threads_hang() -> None:
    network = FakeNetwork()
    broken = threading.Event()

    def probe() -> None:
        if broken.is_set():
            network.gate.wait(10)

    async with engine(network, probe, threads=1, hang_timeout=0.1) as running:
        assert running.ready
        broken.set()
        network.gate.clear()
        with pytest.raises(InferenceFailed):
            await generate(running, FakeSource(), 1)
        # The new thread hangs as well, in its proof.
        assert not running.ready
        network.gate.set()
        await until(lambda: running.ready)
        assert len(await generate(running, FakeSource(), 1)) == 1


@pytest.mark.anyio
async def test_thread_hung_in_repeated_warm_up_is_replaced() -> None:
    network = FakeNetwork()
    hangs, released = threading.Event(), threading.Event()

    def probe() -> None:
        if hangs.is_set():
            hangs.clear()  # for one thread
            released.wait(10)

    async with engine(network, probe, threads=1, hang_timeout=0.2) as running:
        hangs.set()
        with pytest.raises(InferenceFailed, match="could not be run"):
            await generate(running, FakeSource(fails=True), 1)
        assert len(await generate(running, FakeSource(), 3)) == 3
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
        assert running.ready


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
        await until(lambda: not running.ready)
        broken.clear()
        await until(lambda: running.ready)
        assert len(await generate(running, FakeSource(), 1)) == 1
