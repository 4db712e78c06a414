"""What the routes share: made once by the app, handed to each request."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from service.api.auth.access import AccessControl
from service.engine.engine import Engine
from service.errors import StartupError, TooManyStreams
from service.inference.session import SessionFactory
from service.models import changes
from service.models.model_set import ModelSet
from service.models.registry import ModelRegistry, ReloadReport
from service.observability import metrics
from service.settings import Settings

log = logging.getLogger(__name__)


class Streams:
    """Room for so many sets at a time; to enter where there is none raises ``TooManyStreams``."""

    def __init__(self, most: int, timeout: float) -> None:
        self._most = most
        self._under_way = 0
        self._retry_after = math.ceil(timeout)

    def __enter__(self) -> None:
        if self._under_way == self._most:
            raise TooManyStreams(
                f"{self._most} sets are being sent, and no more may be at a time. Try again in "
                f"{self._retry_after} s",
                retry_after=self._retry_after,
            )
        self._count(1)

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def _count(self, more: int) -> None:
        self._under_way += more
        metrics.STREAMS.set(self._under_way)


def tell_workers(settings: Settings) -> None:
    """Have all processes of this server reload, if there are several."""
    parent = multiprocessing.parent_process()
    if settings.workers > 1 and parent is not None and parent.is_alive():
        assert parent.pid is not None
        os.kill(parent.pid, signal.SIGHUP)


@dataclass(frozen=True)
class State:
    settings: Settings
    runtime: SessionFactory
    catalogue: ModelRegistry
    engine: Engine
    effective: dict[str, Any]
    """What was chosen at the start (see ``InfoAnswer``)."""
    access: AccessControl
    streams: Streams
    software: str
    """What of ours may change the bytes of an image, besides its model."""
    tell_all: Callable[[Settings], None] = tell_workers
    """Has all who serve the same reload, each as soon as it can; raises ``OneOfMany`` where they
    are told in another way."""

    async def reload(self) -> ReloadReport:
        """Read keys and models anew, in this process."""
        warnings = []
        before = self.access.by_name
        try:
            self.access.reload()
        except StartupError as error:
            warnings = [f"the API keys stay as they were: {error}"]
            log.error("%s", warnings[0])
        if told := changes.told(before, self.access.by_name):
            log.info("API keys: %s", told)
        report = await self.catalogue.reload()
        report = replace(
            report,
            warnings=[*warnings, *report.warnings],
            failed=bool(warnings) or report.failed,
        )
        metrics.RELOAD_FAILED.set(report.failed)
        return report

    async def reload_all(self) -> ReloadReport:
        """As ``reload``, and have all workers do so. Raises ``OneOfMany``.

        This one is told as well: it reloads twice then, however many have asked.
        """
        self.tell_all(self.settings)  # first: whoever asks may leave while they wait
        return await self.reload()

    @property
    def library(self) -> ModelSet:
        """What is served now. A request asks once: a reload may exchange it any time."""
        return self.catalogue.library


def state_of(request: Request) -> State:
    state: State = request.app.state.figment
    return state


async def _state(request: Request) -> State:
    return state_of(request)  # a coroutine: FastAPI hands plain functions to a thread


CurrentState = Annotated[State, Depends(_state)]
