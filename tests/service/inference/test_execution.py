"""Executors: each gives the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.inference import exactness, execution
from service.inference.exactness import choose_executor
from service.inference.execution import (
    BUCKETS,
    CHUNK,
    BucketedExecutor,
    FixedBatchExecutor,
    ThreadedExecutor,
)
from service.inference.session import SessionFactory
from tests.helpers.server import MODELS

FACES = MODELS / "anime-faces" / "2" / "model.onnx"


@pytest.fixture(scope="module")
def content() -> bytes:
    return FACES.read_bytes()


@pytest.fixture(scope="module")
def feeds(content: bytes) -> execution.Feeds:
    """More rows than the largest bucket."""
    random = np.random.default_rng(0)
    inputs = SessionFactory("cpu").create(content).get_inputs()
    return {
        node.name: random.standard_normal((70, node.shape[1]), dtype=np.float32) for node in inputs
    }


@pytest.fixture(scope="module")
def expected(content: bytes, feeds: execution.Feeds) -> Any:
    (images,) = SessionFactory("cpu").create(content).run(["image"], dict(feeds))
    return images


def part(feeds: execution.Feeds, rows: slice) -> execution.Feeds:
    return {name: values[rows] for name, values in feeds.items()}


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("cores", [1, 2])
def test_threaded_executor_is_exact(
    content: bytes, feeds: execution.Feeds, expected: Any, cores: int, exclusive: bool
) -> None:
    runtime = SessionFactory("cpu", cores)
    executor = choose_executor(runtime, content, runtime.create(content))
    assert isinstance(executor, ThreadedExecutor)
    for first, size in ((0, 1), (5, 1), (3, 7), (20, CHUNK)):
        rows = slice(first, first + size)
        assert np.array_equal(executor(part(feeds, rows), exclusive=exclusive), expected[rows])


def test_bucketed_executor_is_exact(content: bytes, feeds: execution.Feeds, expected: Any) -> None:
    """On the CPU, which runs the same code but for the provider."""
    runtime = SessionFactory("cpu")
    sessions = {size: runtime.create(content, batch=size) for size in BUCKETS}
    executor = BucketedExecutor(sessions, "cpu")
    assert executor.largest_batch == max(BUCKETS)
    kept = []
    for first, size in ((0, 1), (1, 2), (3, 8), (11, 9), (20, 16), (5, 64), (4, 1)):
        rows = slice(first, first + size)
        images = executor(part(feeds, rows), exclusive=False)
        assert np.array_equal(images, expected[rows])
        kept.append((images, rows))
    # What came before is not overwritten by what comes after.
    for images, rows in kept:
        assert np.array_equal(images, expected[rows])


def test_session_of_one_batch_size_rejects_others(content: bytes, feeds: Any) -> None:
    session = SessionFactory("cpu").create(content, batch=8)
    with pytest.raises(Exception, match="Expected: 8"):
        session.run(["image"], dict(part(feeds, slice(0, 7))))


def test_buckets_that_round_differently_are_not_used(
    content: bytes, feeds: execution.Feeds, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactness, "BUCKETS", (1, 16, 64))
    monkeypatch.setattr(SessionFactory, "device", "cuda")
    bound = execution.BoundSession

    # A variable as the base, for the name is about to be patched: mypy takes classes only.
    class OnCpu(bound):  # type: ignore[valid-type, misc]
        """With 1 or 64 images at once, the last byte is another."""

        def __init__(self, session: Any, size: int, device: str) -> None:
            super().__init__(session, size, "cpu")
            self.wrong = size in broken

        def __call__(self, feeds: execution.Feeds) -> Any:
            images = super().__call__(feeds)
            images[-1, -1, -1, -1] ^= self.wrong
            return images

    monkeypatch.setattr(execution, "BoundSession", OnCpu)
    runtime = SessionFactory("cpu")
    for wrong, used in ((set(), [1, 16, 64]), ({1}, [16, 64])):
        broken = wrong
        executor = choose_executor(runtime, content, runtime.create(content))
        assert executor.describe() == {"batches": used}
        rows = slice(2, 3)
        assert np.array_equal(executor(part(feeds, rows), exclusive=False), expected[rows])


def test_one_batch_size_is_used_if_images_depend_on_it(
    content: bytes, feeds: execution.Feeds, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rounding(ThreadedExecutor):
        def __call__(self, feeds: execution.Feeds, *, exclusive: bool) -> Any:
            images = super().__call__(feeds, exclusive=exclusive)
            return images + (len(images) == 3)

    monkeypatch.setattr(exactness, "ThreadedExecutor", Rounding)
    runtime = SessionFactory("cpu")
    executor = choose_executor(runtime, content, runtime.create(content))
    assert isinstance(executor, FixedBatchExecutor)
    assert executor.describe() == {"batches": [CHUNK]}
    for first, size in ((0, 1), (3, 7), (20, CHUNK)):
        rows = slice(first, first + size)
        assert np.array_equal(executor(part(feeds, rows), exclusive=False), expected[rows])
