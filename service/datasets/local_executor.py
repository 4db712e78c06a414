"""Build files in worker processes of this machine, each with its own model on one core.

If a process is killed, all are replaced, and the files in progress are built again. Worker
processes exit when the parent dies.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from service.core.process import end_with_parent, signals_blocked, unblock_signals
from service.datasets.shard_builder import BuildSpec, ShardBuilder, ShardResult, ShardTask
from service.errors import DatasetError

MAX_ATTEMPTS = 3
"""Attempts at one file before the build fails."""

# A forked process would inherit ONNX Runtime in an undefined state.
SPAWN = multiprocessing.get_context("spawn")


def run(spec: BuildSpec, tasks: deque[ShardTask], *, processes: int) -> Generator[ShardResult]:
    """Yield the results of ``tasks`` in any order; tasks may be added while it runs.

    Raises ``DatasetError``.
    """
    attempts: Counter[int] = Counter()
    while tasks:
        pool = ProcessPoolExecutor(processes, SPAWN, initializer=_start, initargs=(spec,))
        running: dict[Future[ShardResult | DatasetError], ShardTask] = {}
        try:
            while tasks or running:
                while tasks and len(running) < processes:
                    with signals_blocked():  # until a new process installs its handlers
                        future = pool.submit(_build, tasks[0])
                    running[future] = tasks.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    if isinstance(result, DatasetError):
                        raise result
                    yield result
        except BrokenProcessPool:
            attempts.update(task.number for task in running.values())
            if lost := [t for t in running.values() if attempts[t.number] == MAX_ATTEMPTS]:
                raise _too_many_lost(spec, lost) from None
            tasks.extendleft(running.values())
        finally:
            for process in multiprocessing.active_children():  # the pool's; there are no others
                process.kill()
            pool.shutdown()


def _too_many_lost(spec: BuildSpec, lost: list[ShardTask]) -> DatasetError:
    (name, *_) = spec.file_names(lost[0].number)
    others = f" and {len(lost) - 1} other files were" if lost[1:] else " was"
    return DatasetError(
        f"processes were lost {MAX_ATTEMPTS} times while {name}{others} built, most likely for "
        "lack of memory"
    )


_builder: ShardBuilder
"""Builder of a worker process."""


def _start(spec: BuildSpec) -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    unblock_signals()
    threading.Thread(target=end_with_parent, daemon=True).start()
    global _builder
    _builder = ShardBuilder(spec)


def _build(task: ShardTask) -> ShardResult | DatasetError:
    return _builder.run(task)
