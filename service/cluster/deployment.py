"""Ray Serve deployment: ``serve run service.cluster:app``.

Each replica is the whole app, with its own models, queue, threads and HTTP server. Ray decides how
many there are and on which machines; HAProxy on each machine sends each request to a replica.
"""

from __future__ import annotations

import http
import json
import math
import os
import time
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp

from service.api.http_constants import PROBLEM_MEDIA_TYPE
from service.app import assemble, load
from service.cluster.autoscaling import QUEUE, RATE, WORK, ImageQueuePolicy
from service.errors import NotReady, ReloadUnsupported, StartupError, problem
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


def _error(status: int, detail: str, more: str = "") -> str:
    """HAProxy's directive for an answer of its own: a problem."""
    body = json.dumps(problem(status, http.HTTPStatus(status).phrase, detail))
    return f"http-error status {status} content-type {PROBLEM_MEDIA_TYPE} string '{body}'{more}"


SERVE_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_RETRIES": "2",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "60",
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "\n".join(
        (
            "leastconn",
            "option http-buffer-request",
            "timeout http-request 30s",
            _error(502, "the replicas exited before they answered"),
            _error(503, "there is no replica at present; try again", " hdr Retry-After 1"),
            _error(504, "a replica sent nothing for 60 s"),
        )
    ),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.cluster.middleware.middlewares",
}
"""Variables of Serve's processes, which inherit them if `serve run` starts Ray; otherwise they come
from ops/ray/serve.yaml, which explains them."""

os.environ.update({**SERVE_ENVIRONMENT, **os.environ})

MAX_REQUESTS = 8192
"""Concurrent requests in a replica. More than its queue admits, so that the queue rejects requests,
with a Retry-After."""


def fitted(settings: Settings, resources: dict[str, float]) -> Settings:
    """Adapt the settings to the ``CPU`` and ``GPU`` assigned by Ray.

    Raises ``StartupError`` if the service would accept unauthenticated requests.
    """
    has_keys = settings.api_keys is not None or settings.api_keys_file is not None
    if not (has_keys or settings.allow_anonymous):
        raise StartupError(
            "a cluster is reachable from other machines, and there is no API key. Set "
            "FIGMENT_API_KEYS (`python -m service key NAME` makes one), or, if every client that "
            "can reach it may use it, FIGMENT_ALLOW_ANONYMOUS=true"
        )
    device = settings.device
    if device == "auto":
        device = "cuda" if resources.get("GPU") else "cpu"
    return settings.model_copy(
        update={
            "host": "0.0.0.0",  # the address of Serve is not known here; assume a public one
            "workers": 1,
            "threads": settings.threads or max(1, math.ceil(resources.get("CPU", 1))),
            "device": device,
        }
    )


def refer_to_config() -> None:
    """Raises ``ReloadUnsupported``: all replicas must reload together, by a new config."""
    raise ReloadUnsupported(
        "this request reaches only one of several replicas. To reload all, change user_config in "
        "the Serve config and run `serve deploy`"
    )


class Replica:
    """One replica. Serve calls its public methods by name."""

    def __init__(self) -> None:
        """Load the models. Raises ``StartupError``."""
        check_environment()
        check_installation()
        settings = Settings()
        log_to_stderr(settings.log_format)
        # Some of Ray's functions have no types, here and below.
        resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
        self._state = replace(load(fitted(settings, resources)), reload_workers=refer_to_config)
        self._queue = Gauge("figment_queue_images", "Images queued or running.")
        self._rate = Gauge("figment_images_per_second", "Throughput in images per second.")
        self._images = Counter("figment_images_asked", "Images requested.")
        self._images_before, self._measured_at = 0.0, time.monotonic()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return assemble(self._state)

    async def reconfigure(self, user_config: Any) -> None:
        """Reload API keys and models while requests continue; the value itself is not used.

        Errors are logged, and the previous keys and models stay. If this raised an error, Serve
        would replace the replica, and the next one would fail in the same way.
        """
        await self._state.reload()

    async def check_health(self) -> None:
        """Health check of Serve, which replaces a replica that keeps raising ``NotReady``."""
        if fault := self._state.engine.fault:
            raise NotReady(fault)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Metrics for ``autoscaling.py``; also exported as Ray metrics, labelled by replica."""
        engine, now = self._state.engine, time.monotonic()
        images = _requested_images()
        new, seconds = images - self._images_before, now - self._measured_at
        self._images_before, self._measured_at = images, now
        stats = {
            QUEUE: float(engine.queued_images),
            RATE: engine.images_per_second or 0.0,
            WORK: new / seconds,
        }
        self._queue.set(stats[QUEUE])
        self._rate.set(stats[RATE])
        if new:
            self._images.inc(new)
        return stats


def _requested_images() -> float:
    """Images charged to all keys since the start: computed, queued or running."""
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
    max_ongoing_requests=MAX_REQUESTS,
    max_queued_requests=MAX_REQUESTS,
    backpressure_config=BackpressureConfig(retry_after_s=1),
    logging_config=LoggingConfig(
        enable_access_log=False
    ),  # FIGMENT_LOG_REQUESTS logs requests instead
    graceful_shutdown_timeout_s=40,
    health_check_period_s=5,
    health_check_timeout_s=10,
)(serve.ingress()(Replica)).bind()
