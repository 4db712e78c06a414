"""Deadlines, disconnects and cancelled requests."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.engine import POLL_SECONDS
from service.errors import ClientDisconnected, DeadlineExceeded
from tests.helpers.fake_engine import BATCH, FakeNetwork, FakeSource, engine, generate, until


@pytest.mark.anyio
async def test_request_past_its_deadline_is_not_computed() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, timeout=0.2) as running:
        network.gate.clear()
        with pytest.raises(DeadlineExceeded, match="not done within"):
            await generate(running, FakeSource(), 30)
        network.gate.set()
        assert len(await generate(running, FakeSource(), 1)) == 1
        assert network.images == BATCH + 1


@pytest.mark.anyio
async def test_disconnected_or_cancelled_request_is_not_computed() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    network = FakeNetwork()
    async with engine(network, threads=1) as running:
        network.gate.clear()
        first = asyncio.create_task(generate(running, FakeSource(), 1))
        await until(lambda: network.batches)
        with pytest.raises(ClientDisconnected):
            await generate(running, FakeSource(), 50, receive=gone)
        cancelled = asyncio.create_task(generate(running, FakeSource(), 50))
        await asyncio.sleep(POLL_SECONDS)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        network.gate.set()
        await first
        assert network.images == 1
