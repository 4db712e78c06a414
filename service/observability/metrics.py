"""What the service counts and measures, for Prometheus.

Each is defined here once and recorded where the truth is. With several workers, every process
leaves its numbers in files that all of them read, so that whoever answers tells the sum.
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

# Each of them would be told twice. (Some of prometheus_client's functions have no types.)
disable_created_metrics()  # type: ignore[no-untyped-call]

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder of these files; prometheus_client's own."""
MEDIA_TYPE = CONTENT_TYPE_LATEST

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
IMAGES = (1, 2, 4, 8, 12, 16, 32, 64)

# Requests.
REQUESTS = Counter(
    "figment_http_requests", "Requests that came to their end.", ["method", "route", "status"]
)
REQUEST_TIME = Histogram(
    "figment_http_request_seconds",
    "From the head of a request to the last byte of its answer.",
    ["route"],
    buckets=REQUEST_SECONDS,
)
REJECTIONS = Counter(
    "figment_rejections", "Requests that were refused or failed, by the type told.", ["reason"]
)
CONNECTIONS = Gauge(
    "figment_connections", "Connections that are open.", multiprocess_mode="livesum"
)
STREAMS = Gauge("figment_streams", "Sets that are being sent.", multiprocess_mode="livesum")
STREAMS_CUT = Counter("figment_streams_cut", "Sets that ended before their last byte.", ["reason"])

# Images.
IMAGES_MADE = Counter(
    "figment_images",
    "Images handed out, by the format of the answer.",
    ["model", "version", "format"],
)
KEY_IMAGES = Counter("figment_key_images", "Images computed for each API key.", ["key"])
QUEUE_IMAGES = Gauge(
    "figment_queue_images", "Images that wait or are under way.", multiprocess_mode="livesum"
)
QUEUE_TIME = Histogram(
    "figment_queue_seconds",
    "From the arrival of a request until the first of its images was begun; not of sets.",
    buckets=REQUEST_SECONDS,
)
RATE = Gauge(
    "figment_images_per_second",
    "Images that can be made per second, as measured last.",
    multiprocess_mode="livesum",
)
BATCH_IMAGES = Histogram("figment_batch_images", "Images in a batch.", ["model"], buckets=IMAGES)
INFERENCE_TIME = Histogram(
    "figment_inference_seconds", "Computing a batch.", ["model"], buckets=BATCH_SECONDS
)
ENCODE_TIME = Histogram(
    "figment_encode_seconds", "Encoding the images of a batch.", ["model"], buckets=BATCH_SECONDS
)
BATCHES_FAILED = Counter("figment_batches_failed", "Batches that raised an error.")
THREADS_REPLACED = Counter("figment_threads_replaced", "Threads that hung in a batch or died.")

# The service itself.
INFO = Gauge(
    "figment_info",
    "1, with what is in effect.",
    ["version", "device", "provider", "onnxruntime"],
    multiprocess_mode="livemax",
)
MODEL_INFO = Gauge(
    "figment_model_info",
    "1 for each model that is served, 0 for one that was.",
    ["model", "version", "sha256"],
    multiprocess_mode="livemax",
)
MODEL_LOADS = Counter(
    "figment_model_loads", "Model files that were looked at, and what came of it.", ["outcome"]
)
MODELS_REFUSED = Gauge(
    "figment_models_refused", "Files that are not served.", multiprocess_mode="livemax"
)
RELOAD_FAILED = Gauge(
    "figment_reload_failed",
    "1 while keys or models are older than what lies in their files: the last reload could not "
    "take them up.",
    multiprocess_mode="livemax",
)
READY = Gauge(
    "figment_ready",
    "1 while some thread is able to compute; of several workers, of all of them.",
    multiprocess_mode="livemin",
)
DRAINING = Gauge("figment_draining", "1 after the signal to end.", multiprocess_mode="livemax")
LOOP_LAG = Gauge(
    "figment_event_loop_lag_seconds",
    "How late the event loop came to what was due.",
    multiprocess_mode="livemax",
)


def exposition() -> bytes:
    """All of them, as Prometheus reads it."""
    if SHARED not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
