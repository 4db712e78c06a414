"""The library in service, and its exchange for another while requests are under way."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from service.core.manifest import Kind
from service.errors import StartupError
from service.inference.model import Model
from service.inference.session import SessionFactory
from service.models import changes
from service.models.model_set import ModelSet, RejectedModel
from service.models.object_store import local_copy
from service.models.repository import load_models
from service.models.sandbox import ModelSandbox
from service.observability import metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReloadReport:
    """What a reload came to. Versions are told as ``NAME/VERSION``."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    refused: list[RejectedModel]
    """All that is not served as it lies in the folder, changed or not."""
    warnings: list[str]
    """Why nothing was exchanged, or which configured default is not served."""
    aliases: dict[str, dict[str, int]]
    """In effect now, of each model that has some."""
    failed: bool = False
    """What is in effect is older than what lies there, which could not be taken up."""


class ModelRegistry:
    """Holds a library. Whoever asks for it keeps what was given, whatever comes after."""

    def __init__(
        self,
        source: str | Path,
        runtime: SessionFactory,
        chosen: dict[Kind, str | None],
        vetter: ModelSandbox,
    ) -> None:
        """Load all of ``source``, a folder or an address. Raises ``StartupError``."""
        self._source = source
        self._runtime = runtime
        self._vetter = vetter
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[ReloadReport] | None = None
        """The reload that has not begun yet."""
        self.library = load_models(local_copy(source), runtime, chosen, vetter=vetter)
        _count(ModelSet({}, [], chosen), self.library)

    async def reload(self) -> ReloadReport:
        """Look through the folder again, then serve what is there, all at once.

        One is under way and one waits, at most: who asks shares what has not begun yet, and so is
        told of all that was there when they asked. It goes on if whoever waits leaves.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._reload())
        return await asyncio.shield(self._waiting)

    def close(self) -> None:
        """Have a reload that is under way end, with nothing changed."""
        self._vetter.close()

    async def _reload(self) -> ReloadReport:
        async with self._turn:
            self._waiting = None
            return await asyncio.to_thread(self._exchange)

    def _exchange(self) -> ReloadReport:
        before = self.library
        try:
            after = load_models(
                local_copy(self._source),
                self._runtime,
                before.chosen,
                vetter=self._vetter,
                before=before,
            )
        except StartupError as error:
            after, warnings = before, [f"nothing was changed: {error}"]
        else:
            self.library = after
            _count(before, after)
            warnings = after.missing_defaults()
        _log_changes(before, after, warnings)
        return replace(_compare(before, after, warnings), failed=after is before)


def _compare(before: ModelSet, after: ModelSet, warnings: list[str]) -> ReloadReport:
    old, new = _versions(before), _versions(after)
    return ReloadReport(
        added=[place for place in new if place not in old],
        changed=[place for place in new if place in old and new[place] is not old[place]],
        removed=[place for place in old if place not in new],
        refused=after.refused,
        warnings=warnings,
        aliases={name: means for name, means in after.aliases.items() if means},
    )


def _count(before: ModelSet, after: ModelSet) -> None:
    """For the metrics: what came and went."""
    old, new = _versions(before), _versions(after)
    for place, model in (old | new).items():
        info = metrics.MODEL_INFO
        if place in old and old[place] is not new.get(place):
            metrics.MODEL_LOADS.labels("removed" if place not in new else "changed").inc()
            info.labels(old[place].name, old[place].version, old[place].sha256).set(0)
        if place not in old:
            metrics.MODEL_LOADS.labels("added").inc()
        if place in new:
            info.labels(model.name, model.version, model.sha256).set(1)
    for refusal in after.refused:
        if refusal not in before.refused:
            metrics.MODEL_LOADS.labels("refused").inc()
    metrics.MODELS_REFUSED.set(len(after.refused))


def _versions(library: ModelSet) -> dict[str, Model]:
    return {
        f"{name}/{number}": model
        for name, versions in library.models.items()
        for number, model in versions.items()
    }


def _log_changes(before: ModelSet, after: ModelSet, warnings: list[str]) -> None:
    done = [changes.told(_versions(before), _versions(after))]
    for name in after.models:
        moved = changes.moved(before.aliases.get(name, {}), after.aliases.get(name, {}))
        done.append(moved and f"{name}: {moved}")
    log.info("models reloaded: %s", "; ".join(filter(None, done)) or "nothing new")
    for warning in warnings:
        log.warning("%s", warning)
