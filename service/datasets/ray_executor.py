"""Build files on a Ray cluster, one task for each file.

Plain tasks instead of Ray Data: its ``map_batches`` retries a file that kills its process for ever
and never names it. A task is retried ``MAX_ATTEMPTS - 1`` times.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Generator
from typing import Any

from service.core.text import first_line
from service.datasets.local_executor import MAX_ATTEMPTS
from service.datasets.shard_builder import BuildSpec, ShardBuilder, ShardResult, ShardTask
from service.errors import DatasetError

MAX_TASKS = 1000
"""Tasks submitted at a time: enough for Ray's autoscaler to see the demand."""


def run(
    spec: BuildSpec,
    tasks: deque[ShardTask],
    *,
    max_tasks: int | None,
    address: str,
) -> Generator[ShardResult]:
    """Same as ``local_executor.run``, on the cluster at ``address``.

    max_tasks: tasks at a time; if None, as many as the cluster has cores for.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise DatasetError(
            f'--ray needs Ray, which is not installed: pip install "figment[ray]" ({error})'
        ) from error
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise DatasetError(
            f"cannot connect to a Ray cluster at {address}: {first_line(error)}. If it requires a "
            "token, set RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token"
        ) from error
    try:
        signal.signal(signal.SIGTERM, terminate)  # ray.init() replaced the handler
        content = [ray.put(spec.read_model())]
        remote = ray.remote(max_retries=MAX_ATTEMPTS - 1, num_cpus=1)(_build_shard)
        running: dict[Any, ShardTask] = {}
        while tasks or running:
            while tasks and len(running) < (max_tasks or MAX_TASKS):
                task = tasks.popleft()
                running[remote.remote(spec, content, task)] = task
            ((ref,), _) = ray.wait(list(running), num_returns=1)
            task = running.pop(ref)
            try:
                result = ray.get(ref)
            except RayError as error:
                (name, *_) = spec.file_names(task.number)
                raise DatasetError(f"{name} cannot be built on the cluster: {error}") from error
            if isinstance(result, DatasetError):
                raise result
            yield result
    finally:
        ray.shutdown()  # cancels running tasks


_builders: dict[str, ShardBuilder] = {}
"""Builders of this process by model content, so that a model is loaded once, not per task."""


def _build_shard(
    spec: BuildSpec, content: list[Any], task: ShardTask
) -> ShardResult | DatasetError:
    """Ray task. ``content`` is in a list so that Ray fetches it only when it is read."""
    import ray

    (reference,) = content
    builder = _builders.setdefault(reference.hex(), ShardBuilder(spec, lambda: ray.get(reference)))
    return builder.run(task)
