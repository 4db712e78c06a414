"""State shared by the routes: created once by the app, injected into each request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from service.api.auth.access import AccessControl
from service.engine.engine import Engine
from service.engine.stream_limit import StreamLimit
from service.errors import StartupError
from service.inference.session import SessionFactory
from service.models.model_set import ModelSet
from service.models.registry import ModelRegistry, ReloadReport, describe_changes
from service.observability import metrics
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    settings: Settings
    runtime: SessionFactory
    registry: ModelRegistry
    engine: Engine
    effective: dict[str, Any]
    """The constant part of ``InfoAnswer``."""
    access: AccessControl
    streams: StreamLimit
    software: str
    """Versions of all software that may change the bytes of an image, besides the model."""
    reload_workers: Callable[[], None]
    """Start a reload in every process of this server, this one included, without waiting for it.

    Raises ``ReloadUnsupported`` on a cluster, whose replicas reload in another way.
    """

    async def reload(self) -> ReloadReport:
        """Read API keys and models again, in this process."""
        warnings = []
        before = self.access.keys_by_name
        try:
            await self.access.reload()
        except StartupError as error:
            warnings = [f"the API keys stay as they were: {error}"]
            log.error("%s", warnings[0])
        if changed := describe_changes(before, self.access.keys_by_name):
            log.info("API keys: %s", changed)
        report = await self.registry.reload()
        report = replace(
            report,
            warnings=[*warnings, *report.warnings],
            failed=bool(warnings) or report.failed,
        )
        metrics.RELOAD_FAILED.set(report.failed)
        return report

    async def reload_all(self) -> ReloadReport:
        """Reload in all workers, and report on this one. Raises ``ReloadUnsupported``.

        This process receives the signal too, so it reloads at most twice, however many clients
        request it.
        """
        self.reload_workers()  # first, as the client may disconnect during the reload below
        return await self.reload()

    @property
    def models(self) -> ModelSet:
        """Snapshot of the served models. Read it once per request: a reload may replace it."""
        return self.registry.models


def state_of(request: Request) -> State:
    state: State = request.app.state.figment
    return state


async def _state(request: Request) -> State:
    return state_of(request)  # a coroutine, as FastAPI runs plain functions in a thread


CurrentState = Annotated[State, Depends(_state)]
