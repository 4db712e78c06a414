"""OpenTelemetry traces, if OpenTelemetry's own environment variables name an endpoint.

Each request has a span, a child of the client's ``traceparent``, with a child span for queueing and
one for computing. Attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from starlette.types import Scope

from service import __version__
from service.observability.timing import Timing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MIN_ERROR_STATUS = 500

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def start() -> None:
    """Start to export spans if an endpoint is configured."""
    global _provider, _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    # Imported late: the import takes 0.1 s, which only traced servers should pay for.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "figment")
    resource = Resource.create({"service.name": name, "service.version": __version__})
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("figment", __version__)


def stop() -> None:
    """Export the remaining spans and stop."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


def request(scope: Scope) -> AbstractContextManager[None]:
    """Context of a span for one request."""
    return nullcontext() if _tracer is None else _request(_tracer, scope)


@contextmanager
def _request(tracer: Tracer, scope: Scope) -> Iterator[None]:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
    with tracer.start_as_current_span(
        scope["method"], extract(headers), kind=SpanKind.SERVER, attributes=attributes
    ):
        yield


def record_answer(scope: Scope, route: str, status: int, request_id: str) -> None:
    """Add route, status and request id to the span of a request at its end.

    ``status`` is 0 if no answer was sent.
    """
    if _tracer is None:
        return
    from opentelemetry.trace import StatusCode, get_current_span

    span = get_current_span()
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("figment.request_id", request_id)
    if status >= MIN_ERROR_STATUS or not status:
        span.set_status(StatusCode.ERROR)


def record_images(timing: Timing, seconds: float, images: int) -> None:
    """Add spans for images that have just been computed, ``seconds`` after their request."""
    if _tracer is None:
        return
    end = time.time_ns()
    requested = end - int(1e9 * seconds)
    started = min(end, requested + int(1e9 * timing.queue))
    _tracer.start_span("wait", start_time=requested).end(started)
    attributes = {
        "figment.images": images,
        "figment.inference_seconds": timing.inference,
        "figment.encode_seconds": timing.encode,
    }
    _tracer.start_span("compute", start_time=started, attributes=attributes).end(end)
