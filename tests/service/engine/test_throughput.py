"""Measured throughput."""

from __future__ import annotations

import functools
import time
from typing import Any, cast

import pytest

from service.inference.source import ImageSource
from tests.helpers.fake_engine import FakeModel, FakeNetwork, FakeSource, engine


def slow_by(seconds: float, frame: Any, pixels: Any) -> None:
    time.sleep(seconds)


@pytest.mark.anyio
async def test_throughput_is_measured_for_each_model() -> None:
    network = FakeNetwork()
    models = [FakeModel(name="quick"), FakeModel(name="slow")]
    async with engine(network, lambda: time.sleep(0.01), threads=1) as running:

        def throughput(model: str) -> float:
            return running._pool.load(model, stream=False).throughput or 0

        assert running.images_per_second is None
        assert 50 < throughput("quick") < 110  # as of the probe
        for model, seconds in zip(models, (0.0, 0.005), strict=True):
            finish = functools.partial(slow_by, seconds)
            await running.run(cast(ImageSource, FakeSource(model)), 40, finish)
        slow, quick = throughput("slow"), throughput("quick")
        assert quick > 5 * slow
        assert running.images_per_second == slow == throughput("another")
