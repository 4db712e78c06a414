"""The engine by itself, with sources that cost nothing and fail when told to."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.admission import REQUEST_KEY
from service.engine.engine import POLL_SECONDS, STANDSTILL, Engine, Limits
from service.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    InferenceFailed,
    QueueFull,
    RequestError,
)
from service.inference.seeds import ImageSource

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
    """Keeps what it was asked for; ``gate`` holds every batch back while it is cleared."""

    batches: list[list[tuple[FakeSource, range]]] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, batch: Sequence[tuple[ImageSource, range]], *, alone: bool) -> list[Any]:
        pieces = cast(list[tuple[FakeSource, range]], list(batch))
        self.batches.append(pieces)
        self.alone.append(alone)
        assert self.gate.wait(10)
        assert len({source.model for source, _ in pieces}) == 1
        for source, _ in pieces:
            if source.hangs is not None:
                assert source.hangs.wait(10)
            if source.fails:
                raise ValueError("as told")
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
    limits = {"images": LIMIT, "wait": 10.0, "timeout": 10.0, "stall": 10.0}
    threads, encoders = changes.pop("threads", 2), changes.pop("encoders", 0)
    running = Engine(
        network,
        probe,
        threads=threads,
        encoders=encoders,
        limits=Limits(**cast(Any, limits | changes)),
    )
    await running.start()
    try:
        yield running
        # Whatever happened, nothing is left over, once what was under way is through.
        network.gate.set()
        await until(lambda: running.admitted == 0)
        assert not running._jobs
        assert running._crew._backlog.images == 0
    finally:
        network.gate.set()
        await running.close()


async def ask(running: Engine, source: FakeSource, count: int, **options: Any) -> list[Any]:
    results, _ = await running.run(
        cast(ImageSource, source), count, lambda frame, pixels: pixels, **options
    )
    return results


async def until(condition: Any) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


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
@given(requests=REQUESTS, threads=st.integers(1, 4), encoders=st.integers(0, 2))
def test_each_caller_gets_exactly_its_images(
    requests: list[dict[str, Any]], threads: int, encoders: int
) -> None:
    """Whatever comes when, is cancelled or fails; and never more is admitted than may be."""

    async def one(running: Engine, request: dict[str, Any]) -> None:
        await asyncio.sleep(request["after"])
        source = FakeSource(MODELS[request["model"]], fails=request["fails"])
        expected = [(source, position) for position in range(request["count"])]

        def finish(frame: Any, pixels: Any) -> Any:
            assert running.admitted <= LIMIT
            if request["finish"] == "bad":
                raise KeyError("as told")
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

    async def all_of_them() -> None:
        network = FakeNetwork()
        async with engine(network, threads=threads, encoders=encoders) as running:
            await asyncio.gather(*(one(running, request) for request in requests))
            # It still works.
            source = FakeSource()
            assert await ask(running, source, 3) == [(source, i) for i in range(3)]

    asyncio.run(all_of_them())


def test_images_of_several_requests_share_a_batch() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1) as running:
            # 1. A batch is under way; requests for 3, 2 and 20 images arrive.
            network.gate.clear()
            tasks = [asyncio.create_task(ask(running, FakeSource(), 1))]
            await until(lambda: network.batches)
            sources = [FakeSource() for _ in range(3)]
            for source, count in zip(sources, (3, 2, 20), strict=True):
                tasks.append(asyncio.create_task(ask(running, source, count)))
            await asyncio.sleep(0.01)
            network.gate.set()
            answers = await asyncio.gather(*tasks)
            # Result: batches are full, whoever asked, and each caller has its own.
            sizes = [[len(chunk) for _, chunk in batch] for batch in network.batches]
            assert sizes == [[1], [3, 2, 3], [8], [8], [1]]
            assert answers[3] == [(sources[2], i) for i in range(20)]

    asyncio.run(scenario())


def test_models_do_not_mix_and_take_turns() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1) as running:
            network.gate.clear()
            tasks = [asyncio.create_task(ask(running, FakeSource(), 1))]
            await until(lambda: network.batches)
            for model in (0, 0, 1):
                source = FakeSource(MODELS[model])
                tasks.append(asyncio.create_task(ask(running, source, 2 * BATCH)))
            await asyncio.sleep(0.01)
            network.gate.set()
            await asyncio.gather(*tasks)
            turns = [MODELS.index(batch[0][0].model) for batch in network.batches]
            assert turns == [0, 0, 1, 0, 1, 0, 0]

    asyncio.run(scenario())


def test_a_lone_image_is_computed_at_once_and_alone() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=4) as running:
            await ask(running, FakeSource(), 1)
            assert network.alone == [True]
            # Two are not: each is given to a thread.
            network.gate.clear()
            two = asyncio.create_task(ask(running, FakeSource(), 2))
            await until(lambda: len(network.batches) == 3)
            network.gate.set()
            await two
            assert network.alone == [True, False, False]

    asyncio.run(scenario())


def test_all_threads_share_a_request() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=4) as running:
            network.gate.clear()
            task = asyncio.create_task(ask(running, FakeSource(), 12))
            await until(lambda: len(network.batches) == 4)
            network.gate.set()
            await task
            assert [len(batch[0][1]) for batch in network.batches] == [3, 3, 3, 3]
            assert not any(network.alone)

    asyncio.run(scenario())


def test_a_large_request_lets_small_ones_by() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000) as running:
            network.gate.clear()
            stream = running.stream(cast(ImageSource, FakeSource()), 5000, lambda _, pixels: pixels)
            large = [asyncio.create_task(ask(running, FakeSource(), 1000))]
            reader = asyncio.ensure_future(anext(stream))
            await until(lambda: network.batches)
            await asyncio.sleep(0.01)
            before = len(network.batches)
            small = FakeSource()
            task = asyncio.create_task(ask(running, small, 1))
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

    asyncio.run(scenario())


def test_admission_is_counted_in_images_whatever_they_come_as() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network) as running:
            await ask(running, FakeSource(), 10)  # so that a rate is known
            network.gate.clear()
            tasks = [asyncio.create_task(ask(running, FakeSource(), 90))]
            tasks += [asyncio.create_task(ask(running, FakeSource(), 1)) for _ in range(10)]
            await asyncio.sleep(0.01)
            assert running.admitted == LIMIT
            for count in (1, 50):
                with pytest.raises(
                    QueueFull, match=f"no room for {count} images: 100 wait"
                ) as caught:
                    await ask(running, FakeSource(), count)
                rate = running.rate
                assert rate is not None
                assert int(caught.value.headers()["Retry-After"]) == max(1, round(count / rate))
            with pytest.raises(QueueFull):
                await anext(running.stream(cast(ImageSource, FakeSource()), 500, lambda *_: 0))
            network.gate.set()
            await asyncio.gather(*tasks)
            assert len(await ask(running, FakeSource(), LIMIT)) == LIMIT

    asyncio.run(scenario())


def test_what_would_wait_too_long_is_refused_and_told_when_its_turn_comes() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000, wait=0.5) as running:

            def slowly(frame: Any, pixels: Any) -> None:
                time.sleep(0.005)

            source = cast(ImageSource, FakeSource())
            await running.run(source, 40, slowly)  # about 200 images a second
            # A large request takes turns with others: they wait for a batch of it, not for all.
            large = asyncio.create_task(running.run(source, 200, slowly))
            await asyncio.sleep(0.01)
            small = [asyncio.create_task(running.run(source, 1, slowly)) for _ in range(20)]
            await asyncio.sleep(0.01)
            assert not any(task.done() and task.exception() for task in [large, *small])
            told = []
            refused = 0
            for number in range(400):
                REQUEST_KEY.set(number)  # who asks, and for what, is another each time
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

    asyncio.run(scenario())


def test_who_comes_back_when_told_finds_room_whoever_else_asks() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000, wait=0.5) as running:

            def slowly(frame: Any, pixels: Any) -> None:
                time.sleep(0.005)

            source = cast(ImageSource, FakeSource())
            accepted: list[asyncio.Task[Any]] = []

            async def refusal(request: int) -> int | None:
                """What a request is told; None once it is let in."""
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
            full = running.admitted
            # 2. One is told to come back, and meanwhile strangers go on.
            told = await refusal(7)
            assert told == 1
            end = time.monotonic() + told
            longest = 0
            while time.monotonic() < end:
                await refusal(next(strangers))
                await asyncio.sleep(0.005)
                longest = max(longest, running.admitted if time.monotonic() > end - 0.2 else 0)
            # Result: they have left room, and it is let in when they are not.
            assert longest < 0.8 * full
            while await refusal(next(strangers)) is None:
                pass
            assert await refusal(7) is None
            assert await refusal(7) is not None
            await asyncio.gather(*accepted)

    asyncio.run(scenario())


def test_what_a_batch_raises_fails_that_batch_and_nothing_else() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1) as running:
            network.gate.clear()
            first = asyncio.create_task(ask(running, FakeSource(), 1))
            await until(lambda: network.batches)
            bad = asyncio.create_task(ask(running, FakeSource(fails=True), 30))
            good = asyncio.create_task(ask(running, FakeSource(), 8))
            await asyncio.sleep(0.01)
            network.gate.set()
            with pytest.raises(InferenceFailed):
                await bad
            assert len(await good) == 8
            assert len(await first) == 1
            # Of what failed, the rest was not tried.
            assert network.images == 1 + BATCH + 8

    asyncio.run(scenario())


def test_a_thread_that_hangs_is_replaced() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, stall=0.2) as running:
            # 1. A request hangs, another waits behind it.
            hangs = threading.Event()
            stuck = asyncio.create_task(ask(running, FakeSource(hangs=hangs), 1))
            await until(lambda: network.batches)
            behind = asyncio.create_task(ask(running, FakeSource(), 3))
            # Result: the first fails, the other is answered, and the engine is ready.
            with pytest.raises(InferenceFailed, match="did not come to an end"):
                await stuck
            assert len(await behind) == 3
            assert running.ready
            # 2. The thread comes back after all. Result: it ends, and nobody notices.
            threads = threading.active_count()
            hangs.set()
            await until(lambda: threading.active_count() == threads - 1)
            assert len(await ask(running, FakeSource(), 2)) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("hanging", [1, 2, 5])
def test_an_encoder_that_hangs_is_replaced(hanging: int) -> None:
    """One, all, and more than have room: requests that do not hang are answered."""

    async def scenario() -> None:
        network = FakeNetwork()
        before = threading.active_count()
        async with engine(network, threads=1, encoders=2, stall=0.2) as running:
            hangs = threading.Event()

            def stuck(frame: Any, pixels: Any) -> None:
                hangs.wait(10)

            source = cast(ImageSource, FakeSource())
            tasks = [asyncio.create_task(running.run(source, BATCH, stuck)) for _ in range(hanging)]
            await until(lambda: len(network.batches) >= min(hanging, 5))
            behind = asyncio.create_task(ask(running, FakeSource(), 3))
            for task in tasks:
                with pytest.raises(InferenceFailed, match="did not come to an end"):
                    await task
            assert len(await behind) == 3
            assert running.ready
            assert running.admitted == 0
            # The threads come back after all. Result: they end, and nobody notices.
            hangs.set()
            await until(lambda: threading.active_count() == before + 3)
            assert len(await ask(running, FakeSource(), 5 * BATCH)) == 5 * BATCH

    asyncio.run(scenario())


def test_threads_that_hang_do_not_keep_it_from_closing() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        hangs = threading.Event()
        async with engine(network, threads=1, encoders=1, stall=0.2) as running:
            with pytest.raises(InferenceFailed):
                await running.run(
                    cast(ImageSource, FakeSource()), 1, lambda frame, pixels: hangs.wait(10)
                )
        (left,) = [thread for thread in threading.enumerate() if thread.name == "encode"]
        assert left.daemon
        hangs.set()
        left.join()

    asyncio.run(scenario())


def test_without_a_thread_that_can_compute_it_is_not_ready() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        broken = threading.Event()

        def probe() -> None:
            if broken.is_set():
                network.gate.wait(10)

        async with engine(network, probe, threads=1, stall=0.1) as running:
            assert running.ready
            broken.set()
            network.gate.clear()
            with pytest.raises(InferenceFailed):
                await ask(running, FakeSource(), 1)
            # The new thread hangs as well, in its proof.
            assert not running.ready
            network.gate.set()
            await until(lambda: running.ready)
            assert len(await ask(running, FakeSource(), 1)) == 1

    asyncio.run(scenario())


def test_a_thread_that_hangs_when_it_proves_itself_again_is_replaced() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        hangs, released = threading.Event(), threading.Event()

        def probe() -> None:
            if hangs.is_set():
                hangs.clear()  # for one thread
                released.wait(10)

        async with engine(network, probe, threads=1, stall=0.2) as running:
            hangs.set()
            with pytest.raises(InferenceFailed, match="could not be run"):
                await ask(running, FakeSource(fails=True), 1)
            assert len(await ask(running, FakeSource(), 3)) == 3
            released.set()

    asyncio.run(scenario())


def test_who_stood_still_did_not_hang() -> None:
    """Nor is anything late that waited meanwhile."""

    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, stall=0.5, timeout=1.0) as running:
            network.gate.clear()
            task = asyncio.create_task(ask(running, FakeSource(), 1))
            await until(lambda: network.batches)
            await asyncio.sleep(POLL_SECONDS / 2)
            time.sleep(STANDSTILL + 0.5)  # as if the process was stopped
            await asyncio.sleep(2 * POLL_SECONDS)
            network.gate.set()
            assert len(await task) == 1

    asyncio.run(scenario())


def test_it_closes_whatever_else_hangs() -> None:
    async def scenario() -> None:
        released = threading.Event()
        async with engine(FakeNetwork()):
            hanging = [asyncio.ensure_future(asyncio.to_thread(released.wait)) for _ in range(40)]
            await asyncio.sleep(0)
        released.set()
        await asyncio.gather(*hanging)

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_what_passes_its_deadline_is_not_computed() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, timeout=0.2) as running:
            network.gate.clear()
            with pytest.raises(DeadlineExceeded, match="not done within"):
                await ask(running, FakeSource(), 30)
            network.gate.set()
            assert len(await ask(running, FakeSource(), 1)) == 1
            assert network.images == BATCH + 1

    asyncio.run(scenario())


def test_what_nobody_waits_for_is_not_computed() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1) as running:
            network.gate.clear()
            first = asyncio.create_task(ask(running, FakeSource(), 1))
            await until(lambda: network.batches)
            with pytest.raises(ClientDisconnected):
                await ask(running, FakeSource(), 50, receive=gone)
            cancelled = asyncio.create_task(ask(running, FakeSource(), 50))
            await asyncio.sleep(POLL_SECONDS)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            network.gate.set()
            await first
            assert network.images == 1

    asyncio.run(scenario())


def test_a_stream_waits_for_its_reader() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network) as running:
            source = FakeSource()
            stream = running.stream(cast(ImageSource, source), 1000, lambda _, pixels: pixels)
            assert await anext(stream) == [(source, i) for i in range(BATCH)]
            await until(lambda: network.images >= 64)
            await asyncio.sleep(0.05)
            assert network.images == 64  # the window of two threads
            # What is done and waits for its reader takes no room from others.
            assert len(await ask(running, FakeSource(), LIMIT)) == LIMIT
            await stream.aclose()

    asyncio.run(scenario())


def test_streams_wait_for_room_once_they_are_let_in() -> None:
    async def read(running: Engine, count: int) -> int:
        source = cast(ImageSource, FakeSource())
        return sum([len(batch) async for batch in running.stream(source, count, lambda *_: 0)])

    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=5 * BATCH) as running:
            found = await asyncio.gather(read(running, 200), read(running, 333))
            assert list(found) == [200, 333]

    asyncio.run(scenario())


def test_streams_take_one_turn_each() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000) as running:
            network.gate.clear()
            streams = [
                running.stream(cast(ImageSource, FakeSource()), 1000, lambda *_: 0)
                for _ in range(4)
            ]
            readers = [asyncio.ensure_future(anext(stream)) for stream in streams]
            await until(lambda: network.batches)
            await asyncio.sleep(0.01)
            small = FakeSource()
            task = asyncio.create_task(ask(running, small, 1))
            await asyncio.sleep(0.01)
            network.gate.set()
            await task
            sources = [[source for source, _ in batch] for batch in network.batches]
            assert next(i for i, batch in enumerate(sources) if small in batch) <= 5
            await asyncio.gather(*readers)
            for stream in streams:
                await stream.aclose()

    asyncio.run(scenario())


def test_streams_do_not_shut_requests_out() -> None:
    """However many there are and however long they last; nor are they shut out themselves."""

    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000, wait=0.5) as running:

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

    asyncio.run(scenario())


def slow_by(seconds: float, frame: Any, pixels: Any) -> None:
    time.sleep(seconds)


def test_what_an_image_costs_is_known_of_each_model() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        models = [FakeModel(name="quick"), FakeModel(name="slow")]
        async with engine(network, lambda: time.sleep(0.01), threads=1) as running:
            crew = running._crew
            assert running.rate is None
            assert 50 < (crew.rate_of("quick") or 0) < 110  # as of the probe
            for model, seconds in zip(models, (0.0, 0.005), strict=True):
                finish = functools.partial(slow_by, seconds)
                await running.run(cast(ImageSource, FakeSource(model)), 40, finish)
            slow, quick = (crew.rate_of(name) or 0 for name in ("slow", "quick"))
            assert quick > 5 * slow
            assert running.rate == slow == crew.rate_of("another")

    asyncio.run(scenario())


def test_while_every_batch_fails_it_is_not_ready() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        broken = threading.Event()

        def probe() -> None:
            if broken.is_set():
                raise ValueError("as told")

        async with engine(network, probe, threads=1) as running:
            broken.set()
            with pytest.raises(InferenceFailed):
                await ask(running, FakeSource(fails=True), 1)
            await until(lambda: not running.ready)
            broken.clear()
            await until(lambda: running.ready)
            assert len(await ask(running, FakeSource(), 1)) == 1

    asyncio.run(scenario())


def test_what_would_be_done_too_late_is_refused_at_once() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, images=10_000, timeout=1.0) as running:

            def slowly(frame: Any, pixels: Any) -> None:
                time.sleep(0.01)

            source = cast(ImageSource, FakeSource())
            await running.run(source, 10, slowly)  # about 100 images a second
            first = asyncio.create_task(running.run(source, 60, slowly))
            await asyncio.sleep(0.01)
            with pytest.raises(QueueFull):
                await running.run(source, 60, slowly)
            await first

    asyncio.run(scenario())


def test_a_thread_that_comes_back_does_not_spoil_the_rate() -> None:
    async def scenario() -> None:
        network = FakeNetwork()
        async with engine(network, threads=1, stall=0.2) as running:
            await ask(running, FakeSource(), 50)
            before = running.rate
            hangs = threading.Event()
            threads = threading.active_count()
            with pytest.raises(InferenceFailed):
                await ask(running, FakeSource(hangs=hangs), 1)
            hangs.set()
            await until(lambda: threading.active_count() == threads)
            after = running.rate
            assert before is not None and after is not None
            assert after > before / 4  # 0.2 s for an image would make it a thousandth

    asyncio.run(scenario())


def test_every_error_has_an_answer() -> None:
    for error in (QueueFull("x", retry_after=3), ClientDisconnected("x"), DeadlineExceeded("x")):
        assert isinstance(error, RequestError)
        assert error.problem()["status"] == error.status
