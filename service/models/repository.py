"""Models folder: find, check, load and warm all models.

    models/<name>/aliases.json              optional
           <name>/<version>/model.onnx
                            verifier.onnx   optional
                            report.html     optional, read when it is requested

An invalid file is rejected with a reason, and the others are served.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Container, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from service.core.manifest import MODEL_FILE, VERIFIER_FILE, VERSION_PATTERN, Kind
from service.errors import InvalidAlias, InvalidModel, StartupError
from service.inference.model import Model, model_of, read_file
from service.inference.session import SessionFactory
from service.inference.verifier import load_verifier
from service.models import aliases
from service.models.model_set import ModelSet, RejectedModel
from service.models.sandbox import CheckResult, ModelSandbox

PREVIOUS_SERVED = "; the previous one is still served"

log = logging.getLogger(__name__)


def load_models(
    folder: Path,
    runtime: SessionFactory,
    configured_defaults: dict[Kind, str | None],
    *,
    sandbox: ModelSandbox | None = None,
    before: ModelSet | None = None,
) -> ModelSet:
    """Load every valid model below ``folder``.

    At a reload, models of ``before`` are kept if their files are unchanged or have become invalid.
    Raises ``StartupError`` if there is nothing to serve, or, at the start, if a model in
    ``configured_defaults`` is not served or is of the other kind.
    """
    if not folder.is_dir():
        raise StartupError(f"the models folder {folder} does not exist; set FIGMENT_MODELS")
    loading = _Loading(folder, runtime, sandbox or ModelSandbox(), before)
    models = loading.load(configured_defaults)
    for rejected in models.refused:
        log.warning("refused %s: %s", rejected.path, rejected.reason)
    if not models.models:
        reasons = "".join(f"\n  {rejected.path}: {rejected.reason}" for rejected in models.refused)
        raise StartupError(
            f"no model to serve in {folder} (looked for NAME/VERSION/{MODEL_FILE}){reasons}"
        )
    if before is None:
        for missing in models.missing_defaults():
            raise StartupError(missing)
    return models


class _Files(NamedTuple):
    """Paths of the files of one version."""

    model: Path
    verifier: Path | None


class _Loading:
    """One pass through the folder."""

    def __init__(
        self, folder: Path, runtime: SessionFactory, sandbox: ModelSandbox, before: ModelSet | None
    ) -> None:
        self._folder = folder
        self._runtime = runtime
        self._sandbox = sandbox
        self._first = before is None
        self._before = before or ModelSet({}, [], {})
        self._refused: list[RejectedModel] = []
        self._checks: Generator[CheckResult]
        """Results of the sandbox, which checks files while others are loaded."""
        self._results: dict[Path, CheckResult] = {}

    def load(self, configured_defaults: dict[Kind, str | None]) -> ModelSet:
        for path in (*self._folder.glob(MODEL_FILE), *self._folder.glob(f"[!.]*/{MODEL_FILE}")):
            self._reject(path, "is in the wrong folder: move it to NAME/VERSION/")
        found = _find(self._folder)
        folders = {each.model.parent for each in found}
        for path in sorted(self._folder.glob("[!.]*/[!.]*/")):
            if re.fullmatch(VERSION_PATTERN, path.name) and path not in folders:
                self._reject(path, f"has no {MODEL_FILE}")
        kept = {each: model for each in found if (model := self._unchanged(each)) is not None}
        new = [path for each in found if each not in kept for path in each if path]
        models: dict[str, dict[int, Model]] = {}
        with contextlib.closing(self._sandbox.check(new)) as self._checks:
            if self._first:  # with checked models only: the probe loads them
                self._runtime.probe_cuda(self._valid_models(new))
            for each in found:
                model = kept.get(each) or self._load(each)
                if model is not None:
                    models.setdefault(model.name, {})[model.version] = model
        named = {name: self._aliases(name, versions) for name, versions in models.items()}
        return ModelSet(models, self._refused, configured_defaults, named, self._folder)

    def _unchanged(self, files: _Files) -> Model | None:
        """The version as served before, if its files are unchanged."""
        before = self._served(files)
        if before is None or self._sha256(files.model) != before.sha256:
            return None
        verifier = None if files.verifier is None else self._sha256(files.verifier)
        return before if verifier == (before.verifier and before.verifier.sha256) else None

    def _sha256(self, path: Path) -> str:
        """Hash of a file; empty if it cannot be read."""
        try:
            return hashlib.sha256(read_file(path, self._sandbox.max_bytes)).hexdigest()
        except InvalidModel:
            return ""

    def _served(self, files: _Files) -> Model | None:
        """The version as served before."""
        name, version = files.model.parts[-3:-1]
        if not re.fullmatch(VERSION_PATTERN, version):
            return None
        return self._before.models.get(name, {}).get(int(version))

    def _valid_models(self, paths: list[Path]) -> Iterator[bytes]:
        """Contents of the models that pass the check."""
        for path in paths:
            if path.name == MODEL_FILE:
                with contextlib.suppress(InvalidModel):
                    yield self._checked_content(path)

    def _checked_content(self, path: Path) -> bytes:
        """Content of a file, once it is checked. Raises ``InvalidModel`` if it was rejected."""
        while path not in self._results:
            result = next(self._checks)
            self._results[result.path] = result
        return self._sandbox.checked_content(self._results[path])

    def _load(self, files: _Files) -> Model | None:
        """Load a new or changed version; returns the previous one, if any, if it is invalid."""
        before = self._served(files)
        try:
            content = self._checked_content(files.model)
            model = model_of(files.model, content, self._runtime)
        except InvalidModel as error:
            self._reject(files.model, str(error), PREVIOUS_SERVED if before else "")
            return before
        if files.verifier is None:
            return model
        try:
            content = self._checked_content(files.verifier)
            return replace(model, verifier=load_verifier(content, model.manifest, self._runtime))
        except InvalidModel as error:
            had_one = before is not None and before.verifier is not None
            self._reject(files.verifier, str(error), PREVIOUS_SERVED if had_one else "")
        # A version with a verifier must not become one without.
        if before is not None and (had_one or before.sha256 == model.sha256):
            return before
        return model

    def _aliases(self, name: str, served: Container[int]) -> dict[str, int]:
        """Aliases of a model to ``served`` versions; previous ones where new ones are invalid."""
        path = self._folder / name / aliases.FILE
        before = {
            alias: number
            for alias, number in self._before.aliases.get(name, {}).items()
            if number in served
        }
        try:
            history = aliases.read(path.parent)
        except InvalidAlias as error:
            self._reject(
                path, str(error), "; the previous aliases stay in effect" if before else ""
            )
            return before
        found = {}
        for alias, numbers in history.items():
            if numbers[-1] in served:
                found[alias] = numbers[-1]
                continue
            if alias in before:
                found[alias] = before[alias]
            kept = f"; it is still version {before[alias]}" if alias in before else ""
            self._reject(path, f"{alias!r}: version {numbers[-1]} is not served", kept)
        return found

    def _reject(self, path: Path, reason: str, kept: str = "") -> None:
        """Record a rejected file; ``kept`` says what is served instead."""
        relative = path.relative_to(self._folder).as_posix()
        self._refused.append(RejectedModel(relative, reason + kept))


def _find(folder: Path) -> list[_Files]:
    found = []
    # Names that begin with a dot are unfinished exports.
    for path in sorted(folder.glob(f"[!.]*/[!.]*/{MODEL_FILE}")):
        verifier = path.with_name(VERIFIER_FILE)
        found.append(_Files(path, verifier if verifier.exists() else None))
    return found
