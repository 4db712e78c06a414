"""The models folder: find, vet, load, warm.

    models/<name>/aliases.json              optional
           <name>/<version>/model.onnx
                            verifier.onnx   optional

A file that cannot be served is refused with a reason; the rest go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import re
from collections.abc import Container, Iterator
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

GOES_ON = "; the one loaded before goes on serving"

log = logging.getLogger(__name__)


def load_models(
    folder: Path,
    runtime: SessionFactory,
    chosen: dict[Kind, str | None],
    *,
    vetter: ModelSandbox | None = None,
    before: ModelSet | None = None,
) -> ModelSet:
    """Load every model below ``folder`` that is fit to be served.

    With the library from ``before``, what has not changed is taken from there, and so is what has
    become unfit. Raises ``StartupError`` where there is nothing to serve, or, at the start, no
    model of the name and kind that ``chosen`` makes a default.
    """
    if not folder.is_dir():
        raise StartupError(f"the models folder {folder} does not exist; set FIGMENT_MODELS")
    loading = _Loading(folder, runtime, vetter or ModelSandbox(), before)
    library = loading.library(chosen)
    for refusal in library.refused:
        log.warning("refused %s: %s", refusal.path, refusal.reason)
    if not library.models:
        reasons = "".join(f"\n  {refusal.path}: {refusal.reason}" for refusal in library.refused)
        raise StartupError(
            f"no model to serve in {folder} (looked for NAME/VERSION/{MODEL_FILE}){reasons}"
        )
    if before is None:
        for missing in library.missing_defaults():
            raise StartupError(missing)
    return library


class _Files(NamedTuple):
    """Those of a version."""

    model: Path
    verifier: Path | None


class _Loading:
    """One look through the folder."""

    def __init__(
        self, folder: Path, runtime: SessionFactory, vetter: ModelSandbox, before: ModelSet | None
    ) -> None:
        self._folder = folder
        self._runtime = runtime
        self._vetter = vetter
        self._first = before is None
        self._before = before or ModelSet({}, [], {})
        self._refused: list[RejectedModel] = []

    def library(self, chosen: dict[Kind, str | None]) -> ModelSet:
        for path in (*self._folder.glob(MODEL_FILE), *self._folder.glob(f"[!.]*/{MODEL_FILE}")):
            self._refuse(path, "lies too high: put it into NAME/VERSION/")
        found = _find(self._folder)
        folders = {each.model.parent for each in found}
        for path in sorted(self._folder.glob("[!.]*/[!.]*/")):
            if re.fullmatch(VERSION_PATTERN, path.name) and path not in folders:
                self._refuse(path, f"has no {MODEL_FILE}")
        kept = {each: model for each in found if (model := self._unchanged(each)) is not None}
        verdicts = self._vet([each for each in found if each not in kept])
        models: dict[str, dict[int, Model]] = {}
        for each in found:
            model = kept.get(each) or self._load(each, verdicts)
            if model is not None:
                models.setdefault(model.name, {})[model.version] = model
        means = {name: self._aliases(name, versions) for name, versions in models.items()}
        return ModelSet(models, self._refused, chosen, means)

    def _unchanged(self, files: _Files) -> Model | None:
        """The version that was served before, if its files are what they were."""
        before = self._served(files)
        if before is None or self._sha256(files.model) != before.sha256:
            return None
        verifier = None if files.verifier is None else self._sha256(files.verifier)
        return before if verifier == (before.verifier and before.verifier.sha256) else None

    def _sha256(self, path: Path) -> str:
        """Of a file that can be read; else nothing."""
        try:
            return hashlib.sha256(read_file(path, self._vetter.max_bytes)).hexdigest()
        except InvalidModel:
            return ""

    def _served(self, files: _Files) -> Model | None:
        name, version = files.model.parts[-3:-1]
        if not re.fullmatch(VERSION_PATTERN, version):
            return None
        return self._before.models.get(name, {}).get(int(version))

    def _vet(self, found: list[_Files]) -> Iterator[CheckResult]:
        """Verdicts on models and on the verifiers beside them."""
        paths = [path for files in found for path in files if path is not None]
        verdicts = self._vetter.vet(paths)
        if not self._first:
            return verdicts
        # Whether CUDA works is found out with models, of which none is opened unvetted.
        tried: list[CheckResult] = []

        def contents() -> Iterator[bytes]:
            for verdict in verdicts:
                tried.append(verdict)
                if verdict.path.name == MODEL_FILE:
                    with contextlib.suppress(InvalidModel):
                        yield self._vetter.checked_content(verdict)

        self._runtime.probe_cuda(contents())
        return itertools.chain(tried, verdicts)

    def _load(self, files: _Files, verdicts: Iterator[CheckResult]) -> Model | None:
        """A new or changed version; where it is unfit, what was served before, if anything."""
        before = self._served(files)
        verdict = next(verdicts)
        try:
            model = model_of(files.model, self._vetter.checked_content(verdict), self._runtime)
        except InvalidModel as error:
            if files.verifier is not None:
                next(verdicts)
            self._refuse(files.model, str(error), GOES_ON if before else "")
            return before
        if files.verifier is None:
            return model
        try:
            content = self._vetter.checked_content(next(verdicts))
            return replace(model, verifier=load_verifier(content, model.manifest, self._runtime))
        except InvalidModel as error:
            had_one = before is not None and before.verifier is not None
            self._refuse(files.verifier, str(error), GOES_ON if had_one else "")
        # A version that can be verified does not become one that cannot.
        if before is not None and (had_one or before.sha256 == model.sha256):
            return before
        return model

    def _aliases(self, name: str, served: Container[int]) -> dict[str, int]:
        path = self._folder / name / aliases.FILE
        before = {
            alias: number
            for alias, number in self._before.aliases.get(name, {}).items()
            if number in served
        }
        try:
            history = aliases.read(path.parent)
        except InvalidAlias as error:
            self._refuse(path, str(error), "; those read before stay" if before else "")
            return before
        found = {}
        for alias, numbers in history.items():
            if numbers[-1] in served:
                found[alias] = numbers[-1]
                continue
            if alias in before:
                found[alias] = before[alias]
            goes_on = f"; it still means {before[alias]}" if alias in before else ""
            self._refuse(path, f"{alias!r}: version {numbers[-1]} is not served", goes_on)
        return found

    def _refuse(self, path: Path, reason: str, goes_on: str = "") -> None:
        place = path.relative_to(self._folder).as_posix()
        self._refused.append(RejectedModel(place, reason + goes_on))


def _find(folder: Path) -> list[_Files]:
    found = []
    # Names that begin with a dot are an export at work.
    for path in sorted(folder.glob(f"[!.]*/[!.]*/{MODEL_FILE}")):
        verifier = path.with_name(VERIFIER_FILE)
        found.append(_Files(path, verifier if verifier.exists() else None))
    return found
