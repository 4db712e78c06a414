"""Build files in worker processes of this machine, each with its own model on one core.

A killed process is replaced and its file built again. Worker processes exit when the parent dies.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from service.core.process import (
    end_with_parent,
    exit_reason,
    signals_blocked,
    unblock_signals,
)
from service.datasets.shard_builder import (
    BuildSpec,
    OnProgress,
    ShardBuilder,
    ShardResult,
    ShardTask,
)
from service.errors import DatasetError

MAX_ATTEMPTS = 3
"""Lost processes for one file before the build fails."""

# A forked process would inherit ONNX Runtime in an undefined state.
SPAWN = multiprocessing.get_context("spawn")


class _Worker:
    """One worker process and its current task."""

    def __init__(self, spec: BuildSpec) -> None:
        self.connection, child_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(spec, child_end), daemon=True)
        with signals_blocked():  # until the process installs its handlers
            self.process.start()
        child_end.close()
        self.task: ShardTask | None = None
        self.reported = 0
        """Images of the current file reported so far."""

    def start(self, task: ShardTask) -> None:
        self.task, self.reported = task, 0
        with suppress(OSError):  # killed meanwhile: the next recv() fails
            self.connection.send(task)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    spec: BuildSpec, tasks: deque[ShardTask], on_progress: OnProgress, *, processes: int
) -> Iterator[ShardResult]:
    """Yield the results of ``tasks`` in any order; tasks may be added while it runs.

    processes: number of worker processes.
    on_progress: images finished since the last call; negative when a killed process's images must
    be built again.

    Raises ``DatasetError``.
    """
    lost: Counter[int] = Counter()
    workers: dict[Connection, _Worker] = {}
    try:
        while tasks or any(worker.task for worker in workers.values()):
            idle = [worker for worker in workers.values() if worker.task is None]
            while tasks and (idle or len(workers) < processes):
                if not idle:
                    worker = _Worker(spec)
                    workers[worker.connection] = worker
                    idle.append(worker)
                idle.pop().start(tasks.popleft())
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                worker = workers[connection]
                task = worker.task
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    del workers[connection]
                    worker.stop()
                    if task is not None:
                        on_progress(-worker.reported)
                        lost[task.number] += 1
                        if lost[task.number] == MAX_ATTEMPTS:
                            raise _too_many_lost(spec, task, worker.process.exitcode) from None
                        tasks.appendleft(task)
                    continue
                if isinstance(message, int):
                    worker.reported += message
                    on_progress(message)
                    continue
                worker.task = None
                if isinstance(message, DatasetError):
                    raise message
                yield message
    finally:
        for worker in workers.values():
            worker.stop()


def _too_many_lost(spec: BuildSpec, task: ShardTask, code: int | None) -> DatasetError:
    (name, *_) = spec.file_names(task.number)
    return DatasetError(
        f"{MAX_ATTEMPTS} processes were lost to {name}; the last {exit_reason(code)}"
    )


def _work(spec: BuildSpec, connection: Connection) -> None:
    """Main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    unblock_signals()
    threading.Thread(target=end_with_parent, daemon=True).start()
    builder = ShardBuilder(spec)
    while True:
        connection.send(builder.run(connection.recv(), connection.send))
