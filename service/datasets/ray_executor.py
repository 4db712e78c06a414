"""Files made by a Ray cluster, each by a task of its own.

Plain tasks rather than Ray Data, which has infinite patience with a file that kills its process:
``map_batches`` starts over for ever and never says which one it was. A task has so many lives.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Iterator
from typing import Any

from service.core.text import first_line
from service.datasets.local_executor import MAX_ATTEMPTS
from service.datasets.shard_builder import (
    BuildSpec,
    OnProgress,
    ShardBuilder,
    ShardResult,
    ShardTask,
)
from service.errors import DatasetError

AHEAD = 1000
"""Most tasks that Ray knows of at a time: enough for it to see how large a cluster is wanted."""


def run(
    recipe: BuildSpec, jobs: deque[ShardTask], tell: OnProgress, *, most: int | None, address: str
) -> Iterator[ShardResult]:
    """As ``processes.run``, on the cluster at ``address``; ``most`` is left to it where None."""
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise DatasetError(
            f'--ray takes Ray, which is not installed: pip install "figment[ray]" ({error})'
        ) from error
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise DatasetError(
            f"no Ray cluster lets us in at {address}: {first_line(error)}. Where it asks for a "
            "token, set RAY_AUTH_MODE=token, and have the token in ~/.ray/auth_token"
        ) from error
    try:
        signal.signal(signal.SIGTERM, terminate)  # Ray has put its own in the place
        content = [ray.put(recipe.read_model())]
        task = ray.remote(max_retries=MAX_ATTEMPTS - 1, num_cpus=1)(_do)
        under_way: dict[Any, ShardTask] = {}
        while jobs or under_way:
            while jobs and len(under_way) < (most or AHEAD):
                job = jobs.popleft()
                under_way[task.remote(recipe, content, job)] = job
            ((ref,), _) = ray.wait(list(under_way), num_returns=1)
            job = under_way.pop(ref)
            try:
                said = ray.get(ref)
            except RayError as error:
                (name, *_) = recipe.names(job.number)
                raise DatasetError(f"{name} cannot be made on the cluster: {error}") from error
            if isinstance(said, DatasetError):
                raise said
            if not job.known:
                tell(recipe.shards.size(job.number))
            yield said
    finally:
        ray.shutdown()  # and with it all that is under way


_makers: dict[str, ShardBuilder] = {}
"""Of this process, by the model's content: a model is loaded once, and not for each task."""


def _do(recipe: BuildSpec, content: list[Any], job: ShardTask) -> ShardResult | DatasetError:
    """The task. ``content`` is in a list so that Ray does not bring it until it is asked for."""
    import ray

    (reference,) = content
    maker = _makers.setdefault(reference.hex(), ShardBuilder(recipe, lambda: ray.get(reference)))
    return maker.do(job, lambda images: None)
