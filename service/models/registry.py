"""Model registry: holds the served models and swaps them on reload, while requests continue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from service.core.manifest import Kind
from service.errors import StartupError
from service.inference.session import SessionFactory
from service.models.model_set import ModelSet, RejectedModel
from service.models.object_store import local_copy
from service.models.repository import load_models
from service.models.sandbox import ModelSandbox
from service.observability import metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReloadReport:
    """Result of a reload. Versions are written ``NAME/VERSION``."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    refused: list[RejectedModel]
    """Rejected files and versions, new or not."""
    warnings: list[str]
    """Reason why nothing changed, or configured defaults that are not served."""
    aliases: dict[str, dict[str, int]]
    """Aliases now in effect, of each model that has some."""
    failed: bool = False
    """True if the reload failed and the previous models are still served."""


class ModelRegistry:
    """Holds the current ``ModelSet``, which callers may keep across reloads."""

    def __init__(
        self,
        source: str | Path,
        runtime: SessionFactory,
        configured_defaults: dict[Kind, str | None],
        sandbox: ModelSandbox,
    ) -> None:
        """Load all models of ``source``, a folder or a URL. Raises ``StartupError``."""
        self._source = source
        self._runtime = runtime
        self._sandbox = sandbox
        self._lock = asyncio.Lock()
        self._waiting: asyncio.Task[ReloadReport] | None = None
        """Reload that has not started yet."""
        self.models = load_models(local_copy(source), runtime, configured_defaults, sandbox=sandbox)
        _count_changes(ModelSet({}, [], configured_defaults), self.models)

    async def reload(self) -> ReloadReport:
        """Check the source again and swap the served models, all at once.

        At most one reload runs and one waits. Callers share the waiting one, so each sees the files
        present when it asked. Cancelling a caller does not cancel the reload.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._reload())
        return await asyncio.shield(self._waiting)

    def close(self) -> None:
        """Abort a running reload; it changes nothing."""
        self._sandbox.close()

    async def _reload(self) -> ReloadReport:
        async with self._lock:
            self._waiting = None
            return await asyncio.to_thread(self._swap)

    def _swap(self) -> ReloadReport:
        before = self.models
        try:
            after = load_models(
                local_copy(self._source),
                self._runtime,
                before.configured_defaults,
                sandbox=self._sandbox,
                before=before,
            )
        except StartupError as error:
            after, warnings = before, [f"nothing was changed: {error}"]
        else:
            self.models = after
            _count_changes(before, after)
            warnings = after.missing_defaults()
        _log_changes(before, after, warnings)
        return replace(_compare(before, after, warnings), failed=after is before)


def describe_changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Differences by name: ``added b, c; changed a; removed d``; empty if there are none."""
    names = {
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and after[name] != before[name]],
        "removed": [name for name in before if name not in after],
    }
    return "; ".join(f"{change} {', '.join(which)}" for change, which in names.items() if which)


def _describe_moves(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Changed aliases: ``canary none -> 3, stable 1 -> 2``; empty if there are none."""
    return ", ".join(
        f"{alias} {before.get(alias, 'none')} -> {after.get(alias, 'none')}"
        for alias in sorted({*before, *after})
        if before.get(alias) != after.get(alias)
    )


def _compare(before: ModelSet, after: ModelSet, warnings: list[str]) -> ReloadReport:
    old, new = before.by_version(), after.by_version()
    return ReloadReport(
        added=[path for path in new if path not in old],
        changed=[path for path in new if path in old and new[path] is not old[path]],
        removed=[path for path in old if path not in new],
        refused=after.refused,
        warnings=warnings,
        aliases={name: versions for name, versions in after.aliases.items() if versions},
    )


def _count_changes(before: ModelSet, after: ModelSet) -> None:
    """Update the metrics of served, loaded and rejected models."""
    old, new = before.by_version(), after.by_version()
    for path, model in (old | new).items():
        info = metrics.MODEL_INFO
        if path in old and old[path] is not new.get(path):
            metrics.MODEL_LOADS.labels("removed" if path not in new else "changed").inc()
            info.labels(old[path].name, old[path].version, old[path].sha256).set(0)
        if path not in old:
            metrics.MODEL_LOADS.labels("added").inc()
        if path in new:
            info.labels(model.name, model.version, model.sha256).set(1)
    for rejected in after.refused:
        if rejected not in before.refused:
            metrics.MODEL_LOADS.labels("refused").inc()
    metrics.MODELS_REFUSED.set(len(after.refused))


def _log_changes(before: ModelSet, after: ModelSet, warnings: list[str]) -> None:
    changes = [describe_changes(before.by_version(), after.by_version())]
    for name in after.models:
        moves = _describe_moves(before.aliases.get(name, {}), after.aliases.get(name, {}))
        changes.append(moves and f"{name}: {moves}")
    log.info("models reloaded: %s", "; ".join(filter(None, changes)) or "nothing new")
    for warning in warnings:
        log.warning("%s", warning)
