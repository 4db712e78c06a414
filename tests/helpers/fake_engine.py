"""Fake sources and a fake network that run in a real engine and fail on request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from service.engine.engine import Engine
from service.engine.limits import Limits
from service.inference.source import ImageSource

LIMIT = 100
BATCH = 8


@dataclass(eq=False)
class FakeModel:
    largest_batch: int = BATCH
    name: str = "fake"


MODELS = (FakeModel(), FakeModel())


@dataclass(eq=False)
class FakeSource:
    """Its image at a position is ``(self, position)``."""

    model: FakeModel = MODELS[0]
    fails: bool = False
    hangs: threading.Event | None = None


@dataclass
class FakeNetwork:
    """Records its batches; blocks every batch while ``gate`` is cleared."""

    batches: list[list[tuple[FakeSource, range]]] = field(default_factory=list)
    exclusive: list[bool] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, batch: Sequence[tuple[ImageSource, range]], *, exclusive: bool) -> list[Any]:
        pieces = cast(list[tuple[FakeSource, range]], list(batch))
        self.batches.append(pieces)
        self.exclusive.append(exclusive)
        assert self.gate.wait(10)
        assert len({source.model for source, _ in pieces}) == 1
        for source, _ in pieces:
            if source.hangs is not None:
                assert source.hangs.wait(10)
            if source.fails:
                raise ValueError("on purpose")
        return [
            (list(chunk), [(source, position) for position in chunk]) for source, chunk in pieces
        ]

    @property
    def images(self) -> int:
        return sum(len(chunk) for batch in self.batches for _, chunk in batch)


@asynccontextmanager
async def engine(
    network: FakeNetwork, probe: Any = lambda: None, **changes: Any
) -> AsyncIterator[Engine]:
    limits = {"queue_images": LIMIT, "max_wait": 10.0, "timeout": 10.0, "hang_timeout": 10.0}
    threads, encoders = changes.pop("threads", 2), changes.pop("encoders", 0)
    on_hang = changes.pop("on_hang", lambda: None)
    running = Engine(
        network,
        probe,
        threads=threads,
        encoders=encoders,
        limits=Limits(**cast(Any, limits | changes)),
    )
    await running.start(on_hang)
    try:
        yield running
        # Result of every test: no job or image is left once the running batches end.
        network.gate.set()
        await until(lambda: running.queued_images == 0)
        assert not running._jobs
        assert running._pool._queue.images == 0
    finally:
        network.gate.set()
        await running.close()


async def generate(running: Engine, source: FakeSource, count: int, **options: Any) -> list[Any]:
    results, _ = await running.run(
        cast(ImageSource, source), count, lambda frame, pixels: pixels, **options
    )
    return results


async def until(condition: Callable[[], object]) -> None:
    """Wait up to 10 s, without blocking the event loop, until other threads make this true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
