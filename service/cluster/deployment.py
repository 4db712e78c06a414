"""The app on Ray Serve, on as many machines as there are: ``serve run service.cluster:app``.

Each replica is the whole app, with models, queue and threads of its own. Ray decides how many
there are and where; Serve's proxies take requests on every machine and hand each to a replica.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

from service.app import assemble, load
from service.cluster.autoscaling import QUEUE, RATE, WORK, ImageQueuePolicy
from service.cluster.proxy import Paced
from service.errors import NotReady, ReloadUnsupported, StartupError
from service.inference.runtime_check import check_installation
from service.observability.logging import log_to_stderr
from service.observability.metrics import KEY_IMAGES
from service.settings import Settings, check_environment

try:
    import ray
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
    from ray.serve.metrics import Counter, Gauge
    from ray.serve.schema import LoggingConfig
except ImportError as error:
    raise ImportError(f'Ray is missing: pip install "figment[ray]" ({error})') from error

# Read by Serve's proxies, which inherit them where `serve run` starts Ray; elsewhere they stand
# in ops/ray/serve.yaml. The second: a replica on another machine is better than a queue on this.
os.environ.setdefault(
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "service.cluster.proxy.middlewares"
)
os.environ.setdefault("RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING", "0")

MOST_REQUESTS = 8192
"""At a time in a replica, and waiting in a proxy: more than its queue of images lets in, so that
it is the queue that refuses, with the time when to come back."""


def fitted(settings: Settings, resources: dict[str, float]) -> Settings:
    """``settings`` for a replica that Ray gave so many ``CPU`` and ``GPU``.

    Raises ``StartupError`` where it would lie open.
    """
    has_keys = settings.api_keys is not None or settings.api_keys_file is not None
    if not (has_keys or settings.allow_anonymous):
        raise StartupError(
            "on a cluster others can ask, and there is no API key. Set FIGMENT_API_KEYS "
            "(`python -m service key NAME` makes one), or, if everyone who can reach it may use "
            "it, FIGMENT_ALLOW_ANONYMOUS=true"
        )
    device = settings.device
    if device == "auto":
        device = "cuda" if resources.get("GPU") else "cpu"
    return settings.model_copy(
        update={
            "host": "0.0.0.0",  # where Serve listens is not known here: it may be anywhere
            "workers": 1,
            "threads": settings.threads or max(1, math.ceil(resources.get("CPU", 1))),
            "device": device,
        }
    )


def refer_to_config() -> None:
    """Raises ``ReloadUnsupported``: replicas are told of new models together."""
    raise ReloadUnsupported(
        "this reaches one replica of several. Have all reload by another value in user_config of "
        "the Serve config, and `serve deploy`"
    )


class Figment:
    """What a replica does, by the names that Serve calls."""

    def __init__(self) -> None:
        """Raises ``StartupError``."""
        check_environment()
        check_installation()
        settings = Settings()
        log_to_stderr(settings.log_format)
        # Ray gives some of its functions no types; below as well.
        resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
        self._state = replace(load(fitted(settings, resources)), reload_workers=refer_to_config)
        self._queue = Gauge("figment_queue_images", "Images queued or running.")
        self._rate = Gauge("figment_images_per_second", "Images that can be made per second.")
        self._images = Counter("figment_images_asked", "Images that were asked for.")
        self._asked, self._looked = 0.0, time.monotonic()

    def __serve_build_asgi_app__(self) -> Paced:
        return Paced(assemble(self._state))

    async def reconfigure(self, user_config: Any) -> None:
        """Any other value of it: keys and models are read anew, while requests go on.

        What cannot be taken up is logged, and what was there goes on serving: a replica that
        failed here would be ended, and the next one find the same.
        """
        await self._state.reload()

    async def check_health(self) -> None:
        """Raises ``NotReady``: Serve starts another replica instead of one that stays so."""
        if not self._state.engine.ready:
            raise NotReady(
                "no worker thread has sent a heartbeat within "
                f"{self._state.engine.heartbeat_timeout:g} s"
            )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For ``scaling.py``, and for Ray's own metrics, which name the replica."""
        engine, now = self._state.engine, time.monotonic()
        asked = _asked()
        new, seconds = asked - self._asked, now - self._looked
        self._asked, self._looked = asked, now
        told = {
            QUEUE: float(engine.queued_images),
            RATE: engine.images_per_second or 0.0,
            WORK: new / seconds,
        }
        self._queue.set(told[QUEUE])
        self._rate.set(told[RATE])
        if new:
            self._images.inc(new)
        return told


def _asked() -> float:
    """Images that were computed or are about to be, since the start."""
    samples = (sample for family in KEY_IMAGES.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


app = serve.deployment(
    name="figment",
    ray_actor_options={"num_cpus": 1},
    autoscaling_config=AutoscalingConfig(
        min_replicas=2,
        max_replicas=8,
        upscale_delay_s=10,
        downscale_delay_s=300,
        look_back_period_s=15,
        policy=AutoscalingPolicy(policy_function=ImageQueuePolicy),  # type: ignore[no-untyped-call]  # as above
    ),
    max_ongoing_requests=MOST_REQUESTS,
    max_queued_requests=MOST_REQUESTS,
    backpressure_config=BackpressureConfig(retry_after_s=1),
    logging_config=LoggingConfig(enable_access_log=False),  # FIGMENT_LOG_REQUESTS is ours
    graceful_shutdown_timeout_s=40,
    health_check_period_s=5,
    health_check_timeout_s=10,
)(serve.ingress()(Figment)).bind()
