"""The threads that compute images.

ONNX Runtime and the encoders let go of the interpreter's lock, so threads are as good as processes
here. A request is cut into chunks, which every thread takes from one queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.runtime import CHUNK

T = TypeVar("T")


class Engine:
    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="figment")

    async def in_chunks(self, count: int, work: Callable[[range], list[T]]) -> list[T]:
        """``work`` over ``range(count)``, a chunk of at most ``CHUNK`` at a time, in order."""
        loop = asyncio.get_running_loop()
        chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        futures = [loop.run_in_executor(self._pool, work, chunk) for chunk in chunks]
        try:
            return [result for results in await asyncio.gather(*futures) for result in results]
        finally:
            for future in futures:
                future.cancel()  # of effect only where a chunk failed and others still wait

    async def call(self, work: Callable[[], T]) -> T:
        """``work`` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
