"""Assembly of the service: models, engine, routes and middleware; start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import onnxruntime
from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.api import openapi, problems
from service.api.auth.access import AccessControl
from service.api.fast_path import FastPath
from service.api.middleware.gateway import Gateway
from service.api.routes import (
    detect,
    docs,
    generate,
    health,
    images,
    info,
    latent_space,
    models,
    oip,
    openai,
    sets,
    studio,
)
from service.api.state import State
from service.core import cpus
from service.core.manifest import Kind
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.stream_limit import StreamLimit
from service.errors import StartupError
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.inference.source import run_batch
from service.inference.versions import software_of
from service.models.model_set import ModelSet
from service.models.registry import ModelRegistry
from service.models.sandbox import ModelSandbox
from service.observability import metrics, tracing
from service.server import signals
from service.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings, sandbox: ModelSandbox | None = None) -> Gateway:
    """Load and warm the models, and build the app that serves them. Raises ``StartupError``.

    ``sandbox``: one whose process was started in advance; else one is created.
    """
    return assemble(load(settings, sandbox))


def assemble(state: State) -> Gateway:
    """ASGI app for ``state``: routes, then the fast path, then the gateway around both."""
    settings, access = state.settings, state.access

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tracing.start()
        await state.engine.start(on_hang=gateway.fail)
        signals.reload_on_sighup(state.reload)
        gc.collect()
        gc.freeze()  # these objects stay: collecting them again takes 50 ms each time
        gc.set_threshold(
            10_000
        )  # requests leave no cycles: the default, 700, takes 4 % of a request
        yield
        state.registry.close()
        await state.engine.close()
        await asyncio.to_thread(tracing.stop)

    app = FastAPIOffline(
        title="Figment",
        version=__version__,
        description="Labelled synthetic images on demand, each at a permanent address.",
        lifespan=lifespan,
        docs_url=None,  # ``routes.docs`` has a page that works below a sub-path
        redoc_url=None,
        servers=[{"url": "."}],  # where the document is
        redirect_slashes=False,  # behind a proxy, scheme and host of the redirect would be wrong
    )
    app.state.figment = state
    # Only documents the key in OpenAPI; the gateway checks it.
    documented_key = [Security(HTTPBearer(auto_error=False))] if access.requires_key else []
    for routes in (generate, latent_space, images, sets, detect, models, oip, openai, info):
        app.include_router(routes.router, dependencies=documented_key)
    for routes in (docs, health, studio):
        app.include_router(routes.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(_HeadAsGet)

    # Requests on the fast path bypass the middleware of the app.
    fast_routes = [*generate.router.routes, *latent_space.router.routes]
    inner: ASGIApp = FastPath(app, fast_routes, state.engine.reject_if_full)
    gateway = Gateway(inner, access, origins=settings.origins, log_requests=settings.log_requests)
    return gateway


class _HeadAsGet:
    """Answer HEAD like GET. The HTTP server omits the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET", "is_head": True}
        try:
            await self._app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")  # for the metrics


def load(settings: Settings, sandbox: ModelSandbox | None = None) -> State:
    """State shared by the routes, with models loaded and warmed. Raises ``StartupError``."""
    access = AccessControl(settings)
    sandbox = sandbox or ModelSandbox(settings.max_model_bytes)
    cores = settings.threads or math.ceil(cpus.available() / settings.workers)
    runtime = SessionFactory(settings.device, cores)
    if runtime.device == "cuda" and settings.workers > 1:
        raise StartupError("a GPU is used by one process: FIGMENT_WORKERS must be 1")
    defaults: dict[Kind, str | None] = {
        "unconditional": settings.default_model,
        "conditional": settings.default_conditional_model,
    }
    registry = ModelRegistry(settings.models, runtime, defaults, sandbox)
    engine = Engine(
        run_batch,
        lambda: _render_one(registry.models),
        threads=runtime.threads,
        concurrent_batches=runtime.concurrent_batches,
        limits=Limits(
            queue_images=settings.max_queue,
            max_wait=settings.max_wait,
            timeout=settings.timeout,
            hang_timeout=settings.hang_timeout,
        ),
    )
    effective = _effective(runtime)
    _report_start(effective, registry.models, settings)
    return State(
        settings=settings,
        runtime=runtime,
        registry=registry,
        engine=engine,
        effective=effective,
        access=access,
        streams=StreamLimit(settings.max_streams, settings.timeout),
        software=software_of(runtime.provider),
        reload_workers=partial(_signal_supervisor, settings.workers),
    )


def _signal_supervisor(workers: int) -> None:
    """Have the parent process reload all workers (SIGHUP), if there are several."""
    parent = multiprocessing.parent_process()
    if workers > 1 and parent is not None and parent.is_alive():
        assert parent.pid is not None
        os.kill(parent.pid, signal.SIGHUP)


def _render_one(library: ModelSet) -> None:
    """Warm-up of a worker thread: compute one image of the first model."""
    first = library.get(next(iter(library.models)))
    run_batch([(SeedImages(first, seed=0, indices=range(1)), range(1))], exclusive=False)


def _effective(runtime: SessionFactory) -> dict[str, Any]:
    """The part of ``GET /info`` that does not change."""
    return {
        "version": __version__,
        "device": runtime.device,
        "reason": runtime.reason,
        "provider": runtime.provider,
        "provider_options": runtime.provider_options,
        "onnxruntime": onnxruntime.__version__,
        "threads": runtime.threads,
        "concurrent_batches": runtime.concurrent_batches,
    }


def _report_start(effective: dict[str, Any], library: ModelSet, settings: Settings) -> None:
    """Log models and settings, and set the info metric."""
    names = ("version", "device", "provider", "onnxruntime")
    metrics.INFO.labels(*(effective[name] for name in names)).set(1)
    served = [f"{name} {sorted(versions)}" for name, versions in library.models.items()]
    log.info("models %s", ", ".join(served))
    summary = _summary(effective, library, settings)
    log.info("device %s (%s), %s", effective["device"], effective["reason"], summary)


def _summary(effective: dict[str, Any], library: ModelSet, settings: Settings) -> str:
    batches = {str(sizes) for sizes in library.batches().values()}
    parts = {
        "provider": effective["provider"],
        "options": effective["provider_options"] or "none",
        "threads": effective["threads"],
        "concurrent batches": effective["concurrent_batches"],
        "batches": " or ".join(sorted(batches)),
        "workers": settings.workers,
        "queue": f"{settings.max_queue} images",
        "wait": f"{settings.max_wait:g} s",
        "timeout": f"{settings.timeout:g} s",
        "hang timeout": f"{settings.hang_timeout:g} s",
    }
    return ", ".join(f"{name} {value}" for name, value in parts.items())
