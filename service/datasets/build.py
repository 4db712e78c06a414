"""Build a dataset without a server, and resume an interrupted build.

    OUT/
      manifest.json              plan, model identity, sha256 of every file
      README.md, croissant.json  the complete set, for people and programs
      anime-faces-00000.tar ...  the same number of images each, fewer in the last

Layout and bytes are those of ``fetch``. Files appear whole or not at all; the manifest lists those
that exist and is written every few seconds. Files that a killed build had not listed are built
again, to the same bytes.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from service.core.labels import Vocabulary
from service.core.latents import MAX_INDEX, draw_seed
from service.core.manifest import MODEL_FILE, VERSION_PATTERN
from service.datasets.manifest import (
    DatasetFile,
    DatasetManifest,
    DatasetPlan,
    LabelCount,
    ModelIdentity,
    load,
)
from service.datasets.repository import write_descriptions
from service.datasets.shard_builder import BuildSpec, ShardResult, ShardTask
from service.datasets.storage import Storage
from service.errors import DatasetError, FigmentError, InvalidAlias, InvalidModel
from service.inference.model import Model, model_of
from service.inference.session import SessionFactory
from service.models import aliases
from service.models.sandbox import ModelSandbox
from service.settings import Device

WRITE_SECONDS = 2.0
"""Seconds between writes of the manifest; more if a write is slow."""
MAX_WRITE_SHARE = 0.05
"""Largest share of the time spent writing the manifest."""
MAX_FILES = 1_000_000
"""The manifest lists them all and is kept in memory."""

OnProgress = Callable[[int], object]
"""Called with the number of images of a file."""
Execute = Callable[[BuildSpec, deque[ShardTask]], Generator[ShardResult]]
"""Executor of tasks: ``local_executor.run`` or ``ray_executor.run``."""


class DatasetBuild:
    """A dataset and the files that exist of it."""

    def __init__(self, spec: BuildSpec, model: Model, on_message: Callable[[str], None]) -> None:
        """``on_message``: called with a sentence for each irregularity."""
        self.spec = spec
        self._shards = spec.shards
        self._on_message = on_message
        self._files: dict[int, tuple[DatasetFile, ...]] = {}
        self._model = model.manifest
        self._software: list[str] = []
        self._packed_by: list[str] = []
        self._written = 0.0
        self._pause = WRITE_SECONDS

    @property
    def total(self) -> int:
        """Images of the complete dataset."""
        return self.spec.plan.request.count

    @property
    def kept(self) -> int:
        """Images in existing files."""
        return sum(map(_images, self._files.values()))

    def resume(self, manifest: DatasetManifest) -> None:
        """Continue an earlier build. Raises ``DatasetError`` if the model has changed."""
        if changes := manifest.origin.differences(self.spec.origin):
            raise DatasetError(
                f"the model has changed since {self.spec.storage} was started: {'; '.join(changes)}"
            )
        self._software, self._packed_by = list(manifest.software), list(manifest.packed_by)
        named = {file.name: file for file in manifest.files}
        for number in range(len(self._shards)):
            files = [named[name] for name in self.spec.file_names(number) if name in named]
            if len(files) == len(self.spec.file_names(number)):
                self._files[number] = tuple(files)

    def run(self, execute: Execute, on_found: OnProgress, on_progress: OnProgress) -> None:
        """Build the missing files.

        on_found: called for each existing file after it was verified.
        on_progress: called for each file that was built.

        Raises ``DatasetError``; the manifest then lists the finished files.
        """
        self.spec.storage.clean_up(self.spec.origin.model)
        checks = (ShardTask(number, files) for number, files in self._files.items())
        builds = (
            ShardTask(number) for number in range(len(self._shards)) if number not in self._files
        )
        tasks = deque([*checks, *builds])
        if not self._files:
            self._write()
        try:
            with closing(execute(self.spec, tasks)) as results:
                for result in results:
                    number = result.task.number
                    if result.task.known and result.files:
                        on_found(_images(result.files))
                    elif result.task.known:
                        self._on_message(
                            f"{result.task.known[0].name} is missing or has changed: building it "
                            "again"
                        )
                        del self._files[number]
                        self._write()
                        tasks.append(ShardTask(number))
                    else:
                        self._add(result)
                        on_progress(_images(result.files))
            self._check_all_there()
        except BaseException:
            with suppress(DatasetError):  # files that are not listed are built again
                self._write()
            raise
        finally:
            with suppress(DatasetError):
                self.spec.storage.clean_up(self.spec.origin.model)
        self._write()

    def _add(self, result: ShardResult) -> None:
        if result.software not in self._software:
            if self._software:
                self._on_message(
                    f"images are now computed by {result.software}, and were by "
                    f"{self._software[-1]}: they may differ from those of an uninterrupted build"
                )
            self._software.append(result.software)
        if result.packed_by not in self._packed_by:
            self._packed_by.append(result.packed_by)
        self._files[result.task.number] = result.files
        if time.monotonic() - self._written > self._pause:
            self._write()

    def _check_all_there(self) -> None:
        """Raise ``DatasetError`` for missing files: machines may not share the folder."""
        there = set(self.spec.storage.names())
        lost = []
        for number, files in list(self._files.items()):
            missing = [file.name for file in files if file.name not in there]
            if missing:
                del self._files[number]
                lost += missing
        if lost:
            others = f" and {len(lost) - 1:,} other files were" if lost[1:] else " was"
            raise DatasetError(f"{lost[0]}{others} built, but not found in {self.spec.storage}")

    def _write(self) -> None:
        began = time.monotonic()
        manifest = self._manifest()
        if manifest.complete:
            write_descriptions(self.spec.storage, manifest)
        self.spec.storage.write_manifest(manifest.to_json())
        self._written = time.monotonic()
        self._pause = max(WRITE_SECONDS, (self._written - began) / MAX_WRITE_SHARE)

    def _manifest(self) -> DatasetManifest:
        spec, request = self.spec, self.spec.plan.request
        numbers = sorted(self._files)
        files = [file for number in numbers for file in self._files[number]]
        label_counts = [file.labels for file in files if file.labels]
        images = [sum(column) for column in zip(*label_counts, strict=True)] or [0] * len(
            request.entries
        )
        return DatasetManifest(
            made_by="make-dataset",
            asked=spec.plan.fields(),
            origin=spec.origin,
            software=self._software,
            packed_by=self._packed_by,
            attributes=self._model.values,
            training_data=self._model.provenance.dataset,
            complete=len(numbers) == len(self._shards),
            images=self.kept,
            labels=[
                LabelCount(label=label, images=count, tried=count)
                for label, count in zip(request.entries, images, strict=True)
            ],
            next=self._shards.end(numbers[-1]) if numbers else request.offset,
            files=files,
        )


def _images(files: Sequence[DatasetFile]) -> int:
    return sum(file.images for file in files)


@contextmanager
def open_build(
    plan: DatasetPlan,
    storage: Storage,
    models: Path,
    device: Device,
    sandbox: ModelSandbox,
    on_message: Callable[[str], None],
) -> Iterator[DatasetBuild]:
    """Lock ``storage`` and prepare the build of ``plan``, or resume it. Raises ``DatasetError``.

    models: local models folder. on_message: called with a sentence for each irregularity.
    """
    if plan.request.verify is not None:
        raise DatasetError(
            "verify: verified images are found one after another, and files are built in parallel; "
            "use `figment fetch --plan`"
        )
    if (files := -(-plan.request.count // plan.per_file)) > MAX_FILES:
        raise DatasetError(
            f"the plan has {files:,} files, and a set may have at most {MAX_FILES:,}: raise "
            "images_per_file, or build several sets, each starting at the end of the previous one"
        )
    with storage.lock():
        manifest = load(storage, plan, "make-dataset")
        request = plan.request
        version = manifest.origin.version if manifest else request.version
        file = _find(models, str(request.model), version)
        content = _checked_content(file, sandbox)
        try:
            runtime = SessionFactory(device)
            runtime.probe_cuda([content])
            model = model_of(file, content, SessionFactory("cpu"))
            for label in request.label_list:
                model.vocabulary.resolve(label)
            plan.layout(model.manifest.values)
        except FigmentError as error:
            raise DatasetError(str(error)) from error
        random_seed = manifest.origin.seed if manifest else draw_seed()
        origin = ModelIdentity(
            model=model.name,
            version=model.version,
            model_sha256=model.sha256,
            verifier_sha256=None,
            latent_recipe=model.manifest.latent_recipe,
            seed=random_seed if request.seed is None else request.seed,
        )
        spec = BuildSpec(file, origin, plan, storage, "cuda" if runtime.device == "cuda" else "cpu")
        if spec.shards.end(len(spec.shards) - 1) > MAX_INDEX + 1:
            raise DatasetError(f"offset: the last index may be at most {MAX_INDEX}")
        dataset = DatasetBuild(spec, model, on_message)
        if manifest is not None:
            dataset.resume(manifest)
        yield dataset


def vocabulary_of(
    models: Path, name: str, version: int | str | None, sandbox: ModelSandbox
) -> Vocabulary:
    """Labels of a model in the folder ``models``. Raises ``DatasetError``."""
    file = _find(models, name, version)
    content = _checked_content(file, sandbox)
    try:
        return model_of(file, content, SessionFactory("cpu")).vocabulary
    except FigmentError as error:
        raise DatasetError(str(error)) from error


def _find(models: Path, name: str, wanted: int | str | None) -> Path:
    """Model file of a version or alias; by default of the alias ``default`` or the highest."""
    versions = {
        int(path.parent.name): path
        for path in models.glob(f"{name}/[!.]*/{MODEL_FILE}")
        if re.fullmatch(VERSION_PATTERN, path.parent.name)
    }
    if not versions:
        there = sorted({path.parent.parent.name for path in models.glob(f"[!.]*/*/{MODEL_FILE}")})
        raise DatasetError(
            f"no model {name!r} in {models}; available: {', '.join(there) or 'none'}"
        )
    try:
        history = aliases.read(models / name)
    except InvalidAlias as error:
        raise DatasetError(f"{models / name / aliases.FILE}: {error}") from error
    means = {alias: numbers[-1] for alias, numbers in history.items()}
    means[aliases.LATEST] = max(versions)
    if wanted is None:
        number: int | None = means.get(aliases.DEFAULT, max(versions))
    else:
        number = wanted if isinstance(wanted, int) else means.get(wanted)
    if number not in versions:
        known = [*map(str, sorted(versions)), *sorted(means)]
        raise DatasetError(
            f"model {name!r} has no version {wanted!r}; available: {', '.join(known)}"
        )
    return versions[number]


def _checked_content(file: Path, sandbox: ModelSandbox) -> bytes:
    """Content of a model file that passed the sandbox. Raises ``DatasetError``."""
    (result,) = sandbox.check([file])
    try:
        return sandbox.checked_content(result)
    except InvalidModel as error:
        raise DatasetError(f"{file}: {error}") from error
