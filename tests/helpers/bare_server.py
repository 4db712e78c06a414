"""The HTTP server and its worker processes around a small app without models.

It starts in a third of the service's time, for tests of processes, signals and connections.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from service.api.auth.access import AccessControl
from service.api.middleware.gateway import Gateway
from service.observability import metrics
from service.observability.logging import log_to_stderr
from service.server import signals
from service.server.server import serve
from service.server.workers import WorkerProcesses
from service.settings import Settings

PROGRAM = ("tests.helpers.bare_server",)
PARTS, PART = 20, b"x" * 1000


def create_app(settings: Settings) -> Gateway:
    app = FastAPI(lifespan=_lifespan)

    @app.get("/readyz")
    async def ready() -> str:
        return "ready"

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    @app.get("/stream")
    async def stream() -> Response:
        """A second of data."""
        length = {"Content-Length": str(PARTS * len(PART))}
        return StreamingResponse(_parts(), headers=length)

    return Gateway(app, AccessControl(settings), origins=(), log_requests=False)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def reload() -> None:
        pass

    signals.reload_on_sighup(reload)
    yield


async def _parts() -> AsyncIterator[bytes]:
    for _ in range(PARTS):
        yield PART
        await asyncio.sleep(1 / PARTS)


def main() -> None:
    """Serve with the options ``--name value`` of the service."""
    names = [option.removeprefix("--").replace("-", "_") for option in sys.argv[1::2]]
    settings = Settings.model_validate(dict(zip(names, sys.argv[2::2], strict=True)))
    signals.ignore_sighup()
    signals.exit_on_signal()
    log_to_stderr(settings.log_format)
    if settings.workers > 1:
        sys.exit(WorkerProcesses(settings, "tests.helpers.bare_server:create_app").serve())
    serve(create_app(settings), settings)


if __name__ == "__main__":
    main()
