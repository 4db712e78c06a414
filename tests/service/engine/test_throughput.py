"""Measured throughput."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any, cast

import pytest

from service.errors import InferenceFailed
from service.inference.source import ImageSource
from tests.helpers.fake_engine import FakeModel, FakeNetwork, FakeSource, engine, generate, until


def slow_by(seconds: float, frame: Any, pixels: Any) -> None:
    time.sleep(seconds)


@pytest.mark.anyio
async def test_throughput_is_measured_for_each_model() -> None:
    network = FakeNetwork()
    models = [FakeModel(name="quick"), FakeModel(name="slow")]
    async with engine(network, lambda: time.sleep(0.01), threads=1) as running:
        pool = running._pool
        assert running.images_per_second is None
        assert 50 < (pool.throughput("quick") or 0) < 110  # as of the probe
        for model, seconds in zip(models, (0.0, 0.005), strict=True):
            finish = functools.partial(slow_by, seconds)
            await running.run(cast(ImageSource, FakeSource(model)), 40, finish)
        slow, quick = (pool.throughput(name) or 0 for name in ("slow", "quick"))
        assert quick > 5 * slow
        assert running.images_per_second == slow == pool.throughput("another")


@pytest.mark.anyio
async def test_returning_hung_thread_does_not_change_the_throughput() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, hang_timeout=0.2) as running:
        await generate(running, FakeSource(), 50)
        before = running.images_per_second
        hangs = threading.Event()
        threads = threading.active_count()
        with pytest.raises(InferenceFailed):
            await generate(running, FakeSource(hangs=hangs), 1)
        hangs.set()
        await until(lambda: threading.active_count() == threads)
        after = running.images_per_second
        assert before is not None and after is not None
        assert after > before / 4  # 0.2 s for an image would make it a thousandth
