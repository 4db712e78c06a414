"""Served models: by name and version, with aliases, defaults, and rejected files."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from service.core.manifest import REPORT_FILE, Kind
from service.errors import InvalidModel, NoReport, UnknownModel
from service.inference.model import Model, read_file
from service.models import aliases

MAX_REPORT_BYTES = 64 << 20
"""The pictures of a report take a few megabytes."""


@dataclass(frozen=True)
class RejectedModel:
    """File or version that is not served: its path in the models folder, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class ModelSet:
    """Immutable snapshot of all served models; a reload makes another."""

    models: dict[str, dict[int, Model]]
    refused: list[RejectedModel]
    configured_defaults: dict[Kind, str | None]
    """Configured default model of each kind; None: the first by name."""
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    """Model to alias to version; every version is served. See ``aliases.py``."""
    folder: Path = Path()
    """Models folder that they were loaded from."""

    @functools.cached_property
    def _defaults(self) -> dict[Kind, str | None]:
        """Model of each kind for requests without a name; None if there is none of the kind."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        found: dict[Kind, str | None] = {}
        for kind in kinds:
            names, name = self.names(kind), self.configured_defaults.get(kind)
            found[kind] = name if name in names else next(iter(names), None)
        return found

    def missing_defaults(self) -> list[str]:
        """Sentences on configured defaults that are not served."""
        return [
            f"{name!r} cannot be the default {kind} model; there are: "
            f"{', '.join(self.names(kind)) or 'none'}"
            for kind, name in self.configured_defaults.items()
            if name is not None and name not in self.names(kind)
        ]

    def names(self, kind: Kind) -> list[str]:
        """Names of models whose default version is of ``kind``."""
        return [name for name in self.models if self.get(name).manifest.kind == kind]

    def verified(self) -> list[str]:
        """Names of models whose default version has a verifier."""
        return [name for name in self.models if self.get(name).verifier is not None]

    def versions(self, name: str) -> dict[int, Model]:
        """Versions of a model. Raises ``UnknownModel``."""
        if name not in self.models:
            raise UnknownModel(
                f"no model {name[:80]!r}; there are: {', '.join(self.models)}",
                models=list(self.models),
            )
        return self.models[name]

    @functools.cached_property
    def _default_versions(self) -> dict[str, Model]:
        """Model name to its version for requests that name none."""
        return {
            name: versions[self.aliases.get(name, {}).get(aliases.DEFAULT, max(versions))]
            for name, versions in self.models.items()
        }

    def aliases_of(self, name: str) -> dict[str, int]:
        """Aliases of a model and their versions, ``latest`` too. Raises ``UnknownModel``."""
        return {**self.aliases.get(name, {}), aliases.LATEST: max(self.versions(name))}

    def get(self, name: str, version: int | str | None = None) -> Model:
        """Model by name and by version or alias. Raises ``UnknownModel``.

        Without a version: the one of the alias ``default``, else the highest.
        """
        versions = self.versions(name)
        if version is None:
            return self._default_versions[name]
        number = version if isinstance(version, int) else self.aliases_of(name).get(version)
        if number not in versions:
            known = [*map(str, sorted(versions)), *sorted(self.aliases_of(name))]
            raise UnknownModel(
                f"model {name!r} has no version {version!r}; there are: {', '.join(known)}",
                versions=sorted(versions),
                aliases=self.aliases_of(name),
            )
        return versions[number]

    def report_file(self, model: Model) -> Path:
        """Evaluation report of a version, HTML; it may not exist."""
        return self.folder / model.name / str(model.version) / REPORT_FILE

    def report(self, model: Model) -> bytes:
        """Content of ``report_file``. Raises ``NoReport``."""
        try:
            return read_file(self.report_file(model), MAX_REPORT_BYTES)
        except InvalidModel as error:
            raise NoReport(
                f"version {model.version} of {model.name!r} has no {REPORT_FILE}; `figment "
                "evaluate` and `export` write one"
            ) from error

    def resolve(self, name: str | None, version: int | str | None, *, labelled: bool) -> Model:
        """Model of a request: by name, or the default; a conditional one if ``labelled``.

        Raises ``UnknownModel``.
        """
        if name is None:
            plain = not labelled and self._defaults["unconditional"] is not None
            default = self.default("unconditional" if plain else "conditional")
            return default if version is None else self.get(default.name, version)
        return self.get(name, version)

    def default(self, kind: Kind) -> Model:
        """Model for requests that name none. Raises ``UnknownModel``."""
        name = self._defaults[kind]
        if name is None:
            raise UnknownModel(f"no {kind} model is served; name one of: {', '.join(self.models)}")
        return self.get(name)

    def by_version(self) -> dict[str, Model]:
        """``NAME/VERSION`` to model."""
        return {
            f"{name}/{number}": model
            for name, versions in self.models.items()
            for number, model in versions.items()
        }

    def batches(self) -> dict[str, dict[str, Any]]:
        """Execution of each version, ``NAME/VERSION`` to its description in ``/info``."""
        return {path: model.executor.describe() for path, model in self.by_version().items()}
