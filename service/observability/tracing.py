"""OpenTelemetry traces, where its own environment variables say where to send them.

A span for each request, which goes on with the trace of its caller, and within it one for waiting
and one for computing. https://opentelemetry.io/docs/specs/semconv/http/http-spans names the rest.
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
FAILED = 500

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def start() -> None:
    """Send spans from now on, if that is configured."""
    global _provider, _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    # Not before: it takes a tenth of a second that nobody else should wait for.
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
    """Send what has not been sent."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


def request(scope: Scope) -> AbstractContextManager[None]:
    """A span around a request."""
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


def tell(scope: Scope, route: str, status: int, request_id: str) -> None:
    """What is known of a request at its end."""
    if _tracer is None:
        return
    from opentelemetry.trace import StatusCode, get_current_span

    span = get_current_span()
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("figment.request_id", request_id)
    if status >= FAILED or not status:
        span.set_status(StatusCode.ERROR)


def computed(timing: Timing, seconds: float, images: int) -> None:
    """Images have just been computed, within ``seconds`` of being asked for."""
    if _tracer is None:
        return
    end = time.time_ns()
    asked = end - int(1e9 * seconds)
    begun = min(end, asked + int(1e9 * timing.queue))
    _tracer.start_span("wait", start_time=asked).end(begun)
    attributes = {
        "figment.images": images,
        "figment.inference_seconds": timing.inference,
        "figment.encode_seconds": timing.encode,
    }
    _tracer.start_span("compute", start_time=begun, attributes=attributes).end(end)
