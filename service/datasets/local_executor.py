"""Files made by processes of this machine, each with a model of its own on one core.

A process that is killed is replaced, and its file made again. The processes end with the one that
started them, however that ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from service.core.process import end_with_parent, signals_blocked, unblock_signals
from service.datasets.shard_builder import (
    BuildSpec,
    OnProgress,
    ShardBuilder,
    ShardResult,
    ShardTask,
)
from service.errors import DatasetError

MAX_ATTEMPTS = 3
"""Processes that may be lost to one file, until it is blamed for that."""

# Forked, they would inherit ONNX Runtime in whatever state it is.
SPAWN = multiprocessing.get_context("spawn")


class _Worker:
    """A process, and what it is at."""

    def __init__(self, recipe: BuildSpec) -> None:
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(recipe, theirs), daemon=True)
        with signals_blocked():  # until it says what is to become of them
            self.process.start()
        theirs.close()
        self.job: ShardTask | None = None
        self.told = 0
        """Images of its file that are made."""

    def begin(self, job: ShardTask) -> None:
        self.job, self.told = job, 0
        with suppress(OSError):  # killed meanwhile: who waits for what it says sees that
            self.connection.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    recipe: BuildSpec, jobs: deque[ShardTask], tell: OnProgress, *, most: int
) -> Iterator[ShardResult]:
    """What comes of ``jobs``, in any order; more may be added meanwhile.

    ``most``: processes at a time. ``tell`` is told of images made, and of those lost as less than
    none. Raises ``DatasetError``.
    """
    lost: Counter[int] = Counter()
    workers: dict[Connection, _Worker] = {}
    try:
        while jobs or any(worker.job for worker in workers.values()):
            idle = [worker for worker in workers.values() if worker.job is None]
            while jobs and (idle or len(workers) < most):
                if not idle:
                    worker = _Worker(recipe)
                    workers[worker.connection] = worker
                    idle.append(worker)
                idle.pop().begin(jobs.popleft())
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                worker = workers[connection]
                job = worker.job
                try:
                    said = connection.recv()
                except (EOFError, OSError):
                    del workers[connection]
                    worker.end()
                    if job is not None:
                        tell(-worker.told)
                        lost[job.number] += 1
                        if lost[job.number] == MAX_ATTEMPTS:
                            raise _blamed(recipe, job, worker.process.exitcode) from None
                        jobs.appendleft(job)
                    continue
                if isinstance(said, int):
                    worker.told += said
                    tell(said)
                    continue
                worker.job = None
                if isinstance(said, DatasetError):
                    raise said
                yield said
    finally:
        for worker in workers.values():
            worker.end()


def _blamed(recipe: BuildSpec, job: ShardTask, code: int | None) -> DatasetError:
    (name, *_) = recipe.names(job.number)
    how = f"ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"
    hint = ", most likely for want of memory" if code == -signal.SIGKILL else ""
    return DatasetError(f"{MAX_ATTEMPTS} processes were lost to {name}; the last was {how}{hint}")


def _work(recipe: BuildSpec, connection: Connection) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the one that started this
    unblock_signals()
    threading.Thread(target=end_with_parent, daemon=True).start()
    maker = ShardBuilder(recipe)
    while True:
        connection.send(maker.do(connection.recv(), connection.send))
