"""Prometheus metrics of the service.

Each metric is defined here and recorded where its event happens. With several worker processes,
each writes its values to files in a shared folder, and ``/metrics`` of any of them returns the sum.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# They would double the number of series. (Some of prometheus_client's functions have no types.)
disable_created_metrics()  # type: ignore[no-untyped-call]

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: the folder of these files."""
MEDIA_TYPE = CONTENT_TYPE_LATEST

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
IMAGES = (1, 2, 4, 8, 12, 16, 32, 64)

# Requests.
REQUESTS = Counter("figment_http_requests", "Completed requests.", ["method", "route", "status"])
REQUEST_TIME = Histogram(
    "figment_http_request_seconds",
    "From the head of a request to the last byte of its answer.",
    ["route"],
    buckets=REQUEST_SECONDS,
)
REJECTIONS = Counter(
    "figment_rejections", "Rejected and failed requests, by the type of the problem.", ["reason"]
)
CONNECTIONS = Gauge("figment_connections", "Open connections.", multiprocess_mode="livesum")
STREAMS = Gauge("figment_streams", "Sets being sent.", multiprocess_mode="livesum")
STREAMS_CUT = Counter("figment_streams_cut", "Sets that ended before their last byte.", ["reason"])

# Images.
IMAGES_MADE = Counter(
    "figment_images",
    "Images sent, by the format of the answer.",
    ["model", "version", "format"],
)
KEY_IMAGES = Counter("figment_key_images", "Images computed for each API key.", ["key"])
QUEUE_IMAGES = Gauge(
    "figment_queue_images", "Images queued or running.", multiprocess_mode="livesum"
)
QUEUE_TIME = Histogram(
    "figment_queue_seconds",
    "From the arrival of a request until its first image started; without sets.",
    buckets=REQUEST_SECONDS,
)
RATE = Gauge(
    "figment_images_per_second",
    "Measured throughput in images per second.",
    multiprocess_mode="livesum",
)
BATCH_IMAGES = Histogram("figment_batch_images", "Images in a batch.", ["model"], buckets=IMAGES)
INFERENCE_TIME = Histogram(
    "figment_inference_seconds", "Time to compute a batch.", ["model"], buckets=BATCH_SECONDS
)
ENCODE_TIME = Histogram(
    "figment_encode_seconds",
    "Time to encode the images of a batch.",
    ["model"],
    buckets=BATCH_SECONDS,
)
BATCHES_FAILED = Counter("figment_batches_failed", "Batches that raised an error.")
THREADS_HUNG = Counter(
    "figment_threads_hung", "Worker threads that hung in a batch or died; their process then ends."
)

# The service itself.
INFO = Gauge(
    "figment_info",
    "Always 1; labels name the version and device in use.",
    ["version", "device", "provider", "onnxruntime"],
    multiprocess_mode="livemax",
)
MODEL_INFO = Gauge(
    "figment_model_info",
    "1 for each model that is served, 0 for one that was before a reload.",
    ["model", "version", "sha256"],
    multiprocess_mode="livemax",
)
MODEL_LOADS = Counter("figment_model_loads", "Model files checked, by outcome.", ["outcome"])
MODELS_REFUSED = Gauge(
    "figment_models_refused",
    "Files in the models folder that are not served.",
    multiprocess_mode="livemax",
)
RELOAD_FAILED = Gauge(
    "figment_reload_failed",
    "1 while keys or models are older than their files because the last reload failed.",
    multiprocess_mode="livemax",
)
READY = Gauge(
    "figment_ready",
    "1 while a worker thread can compute; with several worker processes, in all of them.",
    multiprocess_mode="livemin",
)
DRAINING = Gauge("figment_draining", "1 during graceful shutdown.", multiprocess_mode="livemax")
LOOP_LAG = Gauge(
    "figment_event_loop_lag_seconds",
    "Delay of the event loop in seconds.",
    multiprocess_mode="livemax",
)


def exposition() -> bytes:
    """Every metric, in the text format of Prometheus."""
    if SHARED not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # as above
    return generate_latest(registry)
