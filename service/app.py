"""The service's parts, put together."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

import isal
import onnxruntime
import PIL
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from service import __version__, cpus, openapi, problems
from service.engine import Engine, Limits
from service.errors import StartupError
from service.manifest import Kind
from service.middleware import HeadAsGet
from service.models import Library, load_library
from service.routes import generate, health, images, interpolate, models, studio, variations
from service.routes.direct import Shortcut
from service.routes.state import State
from service.runtime import Runtime
from service.sampling import Samples, render
from service.server import log_to_stderr
from service.settings import Settings

log = logging.getLogger(__name__)


def create_worker() -> ASGIApp:
    """The app of one of several processes; its settings are in the environment."""
    log_to_stderr()
    return create_app(Settings())


def create_app(settings: Settings) -> ASGIApp:
    """Load and warm the models, then make the app that serves them.

    Raises ``StartupError``.
    """
    cores = settings.threads or math.ceil(cpus.available() / settings.workers)
    runtime = Runtime(settings.device, cores)
    if runtime.device == "cuda" and settings.workers > 1:
        raise StartupError("a GPU is fed by one process: FIGMENT_WORKERS must be 1")
    chosen: dict[Kind, str | None] = {
        "unconditional": settings.default_model,
        "conditional": settings.default_conditional_model,
    }
    library = load_library(settings.models, runtime, chosen)
    engine = Engine(
        render,
        lambda: _render_one(library),
        threads=runtime.threads,
        encoders=runtime.encoders,
        limits=Limits(settings.max_queue, settings.timeout, settings.stall),
    )
    effective = _effective(runtime, library)
    served = [f"{name} {sorted(versions)}" for name, versions in library.models.items()]
    log.info("models %s", ", ".join(served))
    log.info("device %s (%s), %s", runtime.device, runtime.reason, _in_a_line(effective, settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        gc.collect()
        gc.freeze()  # what is there by now stays: looking through it again takes 50 ms each time
        yield
        await engine.close()

    app = FastAPIOffline(
        title="Figment",
        version=__version__,
        description="Labelled synthetic images on demand, each at a permanent address.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy, to a scheme and a name that callers do not know
    )
    app.state.figment = State(settings, runtime, library, engine, effective, _software(runtime))
    for routes in (generate, interpolate, variations, images, models, health, studio):
        app.include_router(routes.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(HeadAsGet)

    # Middleware of the app does not see what takes the shortcut.
    return Shortcut(
        app, [*generate.router.routes, *interpolate.router.routes, *variations.router.routes]
    )


def _render_one(library: Library) -> None:
    """One image of the first model: what can do this can serve."""
    first = library.get(next(iter(library.models)))
    render([(Samples(first, seed=0, indices=range(1)), range(1))], alone=False)


def _effective(runtime: Runtime, library: Library) -> dict[str, Any]:
    """The part of ``GET /info`` that does not change."""
    return {
        "version": __version__,
        "device": runtime.device,
        "reason": runtime.reason,
        "provider": runtime.provider,
        "provider_options": runtime.provider_options,
        "onnxruntime": onnxruntime.__version__,
        "threads": runtime.threads,
        "encoders": runtime.encoders,
        "batches": {
            f"{name}/{number}": model.generator.describe()
            for name, versions in library.models.items()
            for number, model in versions.items()
        },
    }


def _software(runtime: Runtime) -> str:
    libraries = {
        "figment": __version__,
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "isal": isal.__version__,
        "pyarrow": metadata.version("pyarrow"),  # which is imported at the first use only
    }
    versions = [f"{name} {version}" for name, version in libraries.items()]
    return ", ".join([*versions, runtime.provider])


def _in_a_line(effective: dict[str, Any], settings: Settings) -> str:
    batches = {str(sizes) for sizes in effective["batches"].values()}
    parts = {
        "provider": effective["provider"],
        "options": effective["provider_options"] or "none",
        "threads": effective["threads"],
        "encoders": effective["encoders"],
        "batches": " or ".join(sorted(batches)),
        "workers": settings.workers,
        "queue": f"{settings.max_queue} images",
        "timeout": f"{settings.timeout:g} s",
        "stall": f"{settings.stall:g} s",
    }
    return ", ".join(f"{name} {value}" for name, value in parts.items())
