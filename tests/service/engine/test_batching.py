"""Batches: which images share one, and in what order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.engine import Engine
from service.errors import InferenceFailed, QueueFull
from service.inference.source import ImageSource
from tests.helpers.fake_engine import (
    BATCH,
    LIMIT,
    MODELS,
    FakeNetwork,
    FakeSource,
    engine,
    generate,
    until,
)

REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, 60),
            "model": st.sampled_from(range(len(MODELS))),
            "after": st.floats(0, 0.01),
            "cancel": st.none() | st.floats(0, 0.01),
            "fails": st.booleans(),
            "finish": st.sampled_from(["good", "good", "good", "bad"]),
            "stream": st.booleans(),
        }
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(requests=REQUESTS, threads=st.integers(1, 4), concurrent=st.integers(1, 4))
def test_each_client_gets_exactly_its_images(
    requests: list[dict[str, Any]], threads: int, concurrent: int
) -> None:
    """Whatever comes when, is cancelled or fails; and never more is admitted than may be."""

    async def one(running: Engine, request: dict[str, Any]) -> None:
        await asyncio.sleep(request["after"])
        source = FakeSource(MODELS[request["model"]], fails=request["fails"])
        expected = [(source, position) for position in range(request["count"])]

        def finish(frame: Any, pixels: Any) -> Any:
            assert running.queued_images <= LIMIT
            if request["finish"] == "bad":
                raise KeyError("on purpose")
            return pixels

        async def images() -> list[Any]:
            if not request["stream"]:
                return (await running.run(cast(ImageSource, source), request["count"], finish))[0]
            found = []
            async with aclosing(
                running.stream(cast(ImageSource, source), request["count"], finish)
            ) as batches:
                async for batch in batches:
                    found += batch
            return found

        try:
            found = await asyncio.wait_for(images(), request["cancel"])
        except TimeoutError:
            assert request["cancel"] is not None
        except QueueFull as error:
            assert int(error.headers()["Retry-After"]) >= 1
        except InferenceFailed:
            pass  # its own fault, or that of one in the same batch
        except KeyError:
            assert request["finish"] == "bad"
        else:
            assert not request["fails"]
            assert request["finish"] == "good"
            assert found == expected

    async def run_all() -> None:
        network = FakeNetwork()
        async with engine(network, threads=threads, concurrent_batches=concurrent) as running:
            await asyncio.gather(*(one(running, request) for request in requests))
            # It still works.
            source = FakeSource()
            assert await generate(running, source, 3) == [(source, i) for i in range(3)]

    asyncio.run(run_all())


@pytest.mark.anyio
async def test_images_of_several_requests_share_a_batch() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1) as running:
        # 1. A batch is running; requests for 3, 2 and 20 images arrive.
        network.gate.clear()
        tasks = [asyncio.create_task(generate(running, FakeSource(), 1))]
        await until(lambda: network.batches)
        sources = [FakeSource() for _ in range(3)]
        for source, count in zip(sources, (3, 2, 20), strict=True):
            tasks.append(asyncio.create_task(generate(running, source, count)))
        await asyncio.sleep(0.01)
        network.gate.set()
        answers = await asyncio.gather(*tasks)
        # Result: batches are full, and each client gets its own images.
        sizes = [[len(chunk) for _, chunk in batch] for batch in network.batches]
        assert sizes == [[1], [3, 2, 3], [8], [8], [1]]
        assert answers[3] == [(sources[2], i) for i in range(20)]


@pytest.mark.anyio
async def test_models_alternate_and_never_share_a_batch() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1) as running:
        network.gate.clear()
        tasks = [asyncio.create_task(generate(running, FakeSource(), 1))]
        await until(lambda: network.batches)
        for model in (0, 0, 1):
            source = FakeSource(MODELS[model])
            tasks.append(asyncio.create_task(generate(running, source, 2 * BATCH)))
        await asyncio.sleep(0.01)
        network.gate.set()
        await asyncio.gather(*tasks)
        turns = [MODELS.index(batch[0][0].model) for batch in network.batches]
        assert turns == [0, 0, 1, 0, 1, 0, 0]


@pytest.mark.anyio
async def test_single_image_is_computed_at_once_and_exclusively() -> None:
    network = FakeNetwork()
    async with engine(network, threads=4) as running:
        await generate(running, FakeSource(), 1)
        assert network.exclusive == [True]
        # Two are not: each is given to a thread.
        network.gate.clear()
        two = asyncio.create_task(generate(running, FakeSource(), 2))
        await until(lambda: len(network.batches) == 3)
        network.gate.set()
        await two
        assert network.exclusive == [True, False, False]


@pytest.mark.anyio
async def test_idle_threads_share_a_request() -> None:
    network = FakeNetwork()
    async with engine(network, threads=4) as running:
        network.gate.clear()
        task = asyncio.create_task(generate(running, FakeSource(), 12))
        await until(lambda: len(network.batches) == 4)
        network.gate.set()
        await task
        assert [len(batch[0][1]) for batch in network.batches] == [3, 3, 3, 3]
        assert not any(network.exclusive)


@pytest.mark.anyio
async def test_small_request_overtakes_large_ones() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1, queue_images=10_000) as running:
        network.gate.clear()
        stream = running.stream(cast(ImageSource, FakeSource()), 5000, lambda _, pixels: pixels)
        large = [asyncio.create_task(generate(running, FakeSource(), 1000))]
        reader = asyncio.ensure_future(anext(stream))
        await until(lambda: network.batches)
        await asyncio.sleep(0.01)
        before = len(network.batches)
        small = FakeSource()
        task = asyncio.create_task(generate(running, small, 1))
        await asyncio.sleep(0.01)
        network.gate.set()
        await task
        # Result: it waited for two batches of each of the others at most.
        at = next(
            number
            for number, batch in enumerate(network.batches)
            if small in [source for source, _ in batch]
        )
        assert at - before <= 5
        await asyncio.gather(*large, reader)
        await stream.aclose()


@pytest.mark.anyio
async def test_error_fails_only_its_batch() -> None:
    network = FakeNetwork()
    async with engine(network, threads=1) as running:
        network.gate.clear()
        first = asyncio.create_task(generate(running, FakeSource(), 1))
        await until(lambda: network.batches)
        bad = asyncio.create_task(generate(running, FakeSource(fails=True), 30))
        good = asyncio.create_task(generate(running, FakeSource(), 8))
        await asyncio.sleep(0.01)
        network.gate.set()
        with pytest.raises(InferenceFailed):
            await bad
        assert len(await good) == 8
        assert len(await first) == 1
        # Of what failed, the rest was not tried.
        assert network.images == 1 + BATCH + 8
