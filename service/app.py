"""The service's parts, put together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from service import __version__, cpus, problems
from service.engine import Engine
from service.manifest import Kind
from service.middleware import BodyLimit, HeadAsGet
from service.models import load_library
from service.routes import generate, health, images, interpolate, models
from service.routes.state import State
from service.runtime import Runtime
from service.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Load and warm the models, then make the app that serves them.

    Raises ``StartupError``.
    """
    runtime = Runtime(settings.device)
    chosen: dict[Kind, str | None] = {
        "unconditional": settings.default_model,
        "conditional": settings.default_conditional_model,
    }
    library = load_library(settings.models, runtime, chosen)
    # One GPU is fed by one thread: more would only wait for each other's launches.
    threads = 1 if runtime.device == "cuda" else settings.threads or cpus.available()
    engine = Engine(threads)
    log.info("device %s (%s), threads %d", runtime.device, runtime.reason, threads)
    served = [f"{name} {sorted(versions)}" for name, versions in library.models.items()]
    log.info("models %s", ", ".join(served))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPIOffline(
        title="Figment",
        version=__version__,
        description="Labelled synthetic images on demand, each at a permanent address.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.figment = State(settings, runtime, library, engine)
    for routes in (generate, interpolate, images, models, health):
        app.include_router(routes.router)
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(HeadAsGet)

    @app.get("/", include_in_schema=False)
    async def front_page() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
