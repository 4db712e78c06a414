"""What is served: models by name and version, aliases, defaults, and what was refused."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, get_args

from service.core.manifest import Kind
from service.errors import UnknownModel
from service.inference.model import Model
from service.models import aliases


@dataclass(frozen=True)
class RejectedModel:
    """A file or version that is not served, by its place in the models folder, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ModelSet:
    """All models that are served. It does not change: a reload makes another."""

    models: dict[str, dict[int, Model]]
    refused: list[RejectedModel]
    chosen: dict[Kind, str | None]
    """The configured default of each kind, where there is one; else it is the first by name."""
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each model, names of its versions, all of which are served. See ``aliases.py``."""

    @functools.cached_property
    def _defaults(self) -> dict[Kind, str | None]:
        """The model of each kind for a request that names none, where there is one."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        found: dict[Kind, str | None] = {}
        for kind in kinds:
            names, name = self.names(kind), self.chosen.get(kind)
            found[kind] = name if name in names else next(iter(names), None)
        return found

    def missing_defaults(self) -> list[str]:
        """Of each kind whose configured default is not served, that and what is."""
        return [
            f"{name!r} cannot be the default {kind} model; there are: "
            f"{', '.join(self.names(kind)) or 'none'}"
            for kind, name in self.chosen.items()
            if name is not None and name not in self.names(kind)
        ]

    def names(self, kind: Kind) -> list[str]:
        """The models of ``kind``, by the version that is taken where none is named."""
        return [name for name in self.models if self.get(name).manifest.kind == kind]

    def verified(self) -> list[str]:
        """The models that have a verifier, by the version that is taken where none is named."""
        return [name for name in self.models if self.get(name).verifier is not None]

    def versions(self, name: str) -> dict[int, Model]:
        """All versions of a model. Raises ``UnknownModel``."""
        if name not in self.models:
            raise UnknownModel(
                f"no model {name[:80]!r}; there are: {', '.join(self.models)}",
                models=list(self.models),
            )
        return self.models[name]

    @functools.cached_property
    def _usual(self) -> dict[str, Model]:
        """Of each name, the version for a request that names none."""
        return {
            name: versions[self.aliases.get(name, {}).get(aliases.DEFAULT, max(versions))]
            for name, versions in self.models.items()
        }

    def meanings(self, name: str) -> dict[str, int]:
        """All aliases of a model, with the versions that they mean. Raises ``UnknownModel``."""
        return {**self.aliases.get(name, {}), aliases.LATEST: max(self.versions(name))}

    def get(self, name: str, version: int | str | None = None) -> Model:
        """A model by name and by version or alias. Raises ``UnknownModel``.

        Without a version: the one that the alias ``default`` means, else the highest.
        """
        versions = self.versions(name)
        if version is None:
            return self._usual[name]
        number = version if isinstance(version, int) else self.meanings(name).get(version)
        if number not in versions:
            there = [*map(str, sorted(versions)), *sorted(self.meanings(name))]
            raise UnknownModel(
                f"model {name!r} has no version {version!r}; there are: {', '.join(there)}",
                versions=sorted(versions),
                aliases=self.meanings(name),
            )
        return versions[number]

    def choose(self, name: str | None, version: int | str | None, *, labelled: bool) -> Model:
        """The model of that name, else the default: a conditional one for what is labelled.

        Raises ``UnknownModel``.
        """
        if name is None:
            plain = not labelled and self._defaults["unconditional"] is not None
            usual = self.default("unconditional" if plain else "conditional")
            return usual if version is None else self.get(usual.name, version)
        return self.get(name, version)

    def default(self, kind: Kind) -> Model:
        """The model for a request that names none. Raises ``UnknownModel``."""
        name = self._defaults[kind]
        if name is None:
            raise UnknownModel(f"no {kind} model is served; name one of: {', '.join(self.models)}")
        return self.get(name)

    def batches(self) -> dict[str, dict[str, Any]]:
        """How each version is run, for people to read."""
        return {
            f"{name}/{number}": model.executor.describe()
            for name, versions in self.models.items()
            for number, model in versions.items()
        }
