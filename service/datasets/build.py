"""A set as a whole: what of it is there, what is missing, and the manifest that says so.

    OUT/
      manifest.json              the plan, where images come from, sha256 of every file
      anime-faces-00000.tar ...  of as many images each, but for the last

The same layout as a fetch leaves, and the same files. A file is there whole or not at all, and the
manifest names those that are there. It is written every few seconds: what a driver that is killed
had not written down is made again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from service.core.latents import MAX_INDEX, draw_seed
from service.core.manifest import MODEL_FILE, VERSION_PATTERN
from service.datasets.manifest import (
    MANIFEST,
    DatasetFile,
    DatasetManifest,
    DatasetPlan,
    LabelCount,
)
from service.datasets.request import ModelIdentity
from service.datasets.shard_builder import BuildSpec, OnProgress, ShardResult, ShardTask
from service.datasets.storage import Storage
from service.errors import DatasetError, FigmentError, InvalidAlias, InvalidModel
from service.inference.model import Model, model_of, read_file
from service.inference.session import SessionFactory
from service.models import aliases
from service.models.sandbox import ModelSandbox
from service.settings import Device

SECONDS = 2.0
"""Between two writes of the manifest; more where a write takes long."""
SHARE = 0.05
"""Of the time, at most, goes into writing it."""
MAX_FILES = 1_000_000
"""The manifest names them all, and is held in memory."""

Run = Callable[[BuildSpec, deque[ShardTask], OnProgress], Iterator[ShardResult]]
"""Does jobs somewhere: see ``processes.run``."""


class DatasetBuild:
    """The part of a set that is there."""

    def __init__(self, recipe: BuildSpec, model: Model, tell: Callable[[str], None]) -> None:
        """Nothing, until what is there is taken up. ``tell`` is told in a sentence what is odd."""
        self.recipe = recipe
        self._shards = recipe.shards
        self._tell = tell
        self._files: dict[int, tuple[DatasetFile, ...]] = {}
        self._attributes = [attribute.name for attribute in model.manifest.attributes]
        self._software: list[str] = []
        self._packed_by: list[str] = []
        self._written = 0.0
        self._pause = SECONDS

    @property
    def total(self) -> int:
        """Images, in the end."""
        return sum(self.recipe.plan.order.counts)

    @property
    def kept(self) -> int:
        """Images that are there."""
        return sum(files[0].images for files in self._files.values())

    def take_up(self, manifest: DatasetManifest) -> None:
        """Go on with what an earlier command has made. Raises ``DatasetError``."""
        if manifest.origin != self.recipe.origin:
            before, now = asdict(manifest.origin), asdict(self.recipe.origin)
            changed = [f"{n} is {now[n]}, and was {before[n]}" for n in now if now[n] != before[n]]
            raise DatasetError(
                f"the model has changed since {self.recipe.target} was begun: {'; '.join(changed)}"
            )
        self._software, self._packed_by = list(manifest.software), list(manifest.packed_by)
        named = {file.name: file for file in manifest.files}
        for number in range(len(self._shards)):
            files = [named[name] for name in self.recipe.names(number) if name in named]
            if len(files) == len(self.recipe.names(number)):
                self._files[number] = tuple(files)

    def fill(self, run: Run, found: OnProgress, made: OnProgress) -> None:
        """Make what is missing; ``found`` and ``made`` are told of images.

        Raises ``DatasetError``; what is there by then is in the manifest.
        """
        self.recipe.target.tidy(self.recipe.origin.model)
        looks = (ShardTask(number, files) for number, files in self._files.items())
        makes = (
            ShardTask(number) for number in range(len(self._shards)) if number not in self._files
        )
        jobs = deque([*looks, *makes])
        if not self._files:
            self._write()
        try:
            for done in run(self.recipe, jobs, made):
                number = done.job.number
                if done.job.known and done.files:
                    found(done.files[0].images)
                elif done.job.known:
                    self._tell(f"{done.job.known[0].name} is gone or has changed: made again")
                    del self._files[number]
                    self._write()
                    jobs.append(ShardTask(number))
                else:
                    self._add(done)
            self._check_all_there()
        except BaseException:
            with suppress(DatasetError):  # what it could not write down is made again
                self._write()
            raise
        finally:
            with suppress(DatasetError):
                self.recipe.target.tidy(self.recipe.origin.model)
        self._write()

    def _add(self, done: ShardResult) -> None:
        if done.software not in self._software:
            if self._software:
                self._tell(
                    f"images are made by {done.software} now, and were by {self._software[-1]}: "
                    "they may differ from those of a set made in one go"
                )
            self._software.append(done.software)
        if done.packed_by not in self._packed_by:
            self._packed_by.append(done.packed_by)
        self._files[done.job.number] = done.files
        if time.monotonic() - self._written > self._pause:
            self._write()

    def _check_all_there(self) -> None:
        """Where machines share no folder, a file may have gone where nobody looks."""
        there = set(self.recipe.target.names())
        gone = []
        for number, files in list(self._files.items()):
            missing = [file.name for file in files if file.name not in there]
            if missing:
                del self._files[number]
                gone += missing
        if gone:
            others = f" and {len(gone) - 1:,} other files were" if gone[1:] else " was"
            raise DatasetError(f"{gone[0]}{others} made, but not found in {self.recipe.target}")

    def _write(self) -> None:
        began = time.monotonic()
        text = self._manifest().model_dump_json(indent=1) + "\n"
        self.recipe.target.write_manifest(text.encode())
        self._written = time.monotonic()
        self._pause = max(SECONDS, (self._written - began) / SHARE)

    def _manifest(self) -> DatasetManifest:
        recipe, order = self.recipe, self.recipe.plan.order
        numbers = sorted(self._files)
        of_each = [self._files[number][0].labels for number in numbers]
        images = [sum(column) for column in zip(*of_each, strict=True)] or [0] * len(order.labels)
        return DatasetManifest(
            made_by="make-dataset",
            asked=recipe.plan.asked(),
            origin=recipe.origin,
            software=self._software,
            packed_by=self._packed_by,
            attributes=self._attributes,
            complete=len(numbers) == len(self._shards),
            images=self.kept,
            labels=[
                LabelCount(label=label, images=count, tried=count)
                for label, count in zip(order.labels, images, strict=True)
            ],
            next=self._shards.end(numbers[-1]) if numbers else order.offset,
            files=[file for number in numbers for file in self._files[number]],
        )


@contextmanager
def open_build(
    plan: DatasetPlan,
    target: Storage,
    models: Path,
    device: Device,
    vetter: ModelSandbox,
    tell: Callable[[str], None],
) -> Iterator[DatasetBuild]:
    """The set at ``target``, for this process alone. Raises ``DatasetError``.

    ``tell`` is told in a sentence what is worth knowing.
    """
    if (files := -(-sum(plan.order.counts) // plan.per_file)) > MAX_FILES:
        raise DatasetError(
            f"the plan asks for {files:,} files, and a set has {MAX_FILES:,} at most: raise "
            "images_per_file, or make several sets, each with the offset at which the last ends"
        )
    with target.held():
        manifest = _read_manifest(target, plan)
        file, order = _find(models, plan, manifest), plan.order
        content = _vetted(file, vetter)
        try:
            runtime = SessionFactory(device)
            runtime.probe_cuda([content])
            model = model_of(file, content, SessionFactory("cpu"))
            for label in order.labels:
                if label is not None:
                    model.vocabulary.resolve(label)
        except FigmentError as error:
            raise DatasetError(str(error)) from error
        drawn = manifest.origin.seed if manifest else draw_seed()
        origin = ModelIdentity(
            model=model.name,
            version=model.version,
            model_sha256=model.sha256,
            verifier_sha256=None,
            latent_recipe=model.manifest.latent_recipe,
            seed=drawn if order.seed is None else order.seed,
        )
        recipe = BuildSpec(
            file, origin, plan, target, "cuda" if runtime.device == "cuda" else "cpu"
        )
        if recipe.shards.end(len(recipe.shards) - 1) > MAX_INDEX + 1:
            raise DatasetError(f"offset: the last index may be at most {MAX_INDEX}")
        dataset = DatasetBuild(recipe, model, tell)
        if manifest is not None:
            dataset.take_up(manifest)
        yield dataset


def _read_manifest(target: Storage, plan: DatasetPlan) -> DatasetManifest | None:
    """That of a set of this plan; None where there is nothing yet."""
    content = target.manifest()
    if content is None:
        if others := target.names():
            raise DatasetError(
                f"{target} has no {MANIFEST}, but other files ({others[0]}): name an empty place, "
                "or a new one"
            )
        return None
    try:
        manifest = DatasetManifest.model_validate_json(content)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise DatasetError(f"{target}/{MANIFEST} is no manifest of a set: {why}") from None
    if manifest.made_by != "make-dataset":
        raise DatasetError(f"{target} holds a set of {manifest.made_by}: name another place")
    if differ := plan.differs(manifest.asked):
        raise DatasetError(
            f"{target} holds another set (it differs in {', '.join(differ)}): name another place"
        )
    return manifest


def _find(models: Path, plan: DatasetPlan, manifest: DatasetManifest | None) -> Path:
    """The model file of a plan; of the version that was taken at first, where a set was begun."""
    name, wanted = str(plan.order.model), plan.order.version
    versions = {
        int(path.parent.name): path
        for path in models.glob(f"{name}/[!.]*/{MODEL_FILE}")
        if re.fullmatch(VERSION_PATTERN, path.parent.name)
    }
    if not versions:
        there = sorted({path.parent.parent.name for path in models.glob(f"[!.]*/*/{MODEL_FILE}")})
        raise DatasetError(
            f"no model {name!r} in {models}; there are: {', '.join(there) or 'none'}"
        )
    try:
        history = aliases.read(models / name)
    except InvalidAlias as error:
        raise DatasetError(f"{models / name / aliases.FILE}: {error}") from error
    means = {alias: numbers[-1] for alias, numbers in history.items()}
    means[aliases.LATEST] = max(versions)
    if manifest is not None:
        number: int | None = manifest.origin.version
    elif wanted is None:
        number = means.get(aliases.DEFAULT, max(versions))
    else:
        number = wanted if isinstance(wanted, int) else means.get(wanted)
    if number not in versions:
        asked = number or wanted
        known = [*map(str, sorted(versions)), *sorted(means)]
        raise DatasetError(
            f"model {name!r} has no version {asked!r}; there are: {', '.join(known)}"
        )
    return versions[number]


def _vetted(file: Path, vetter: ModelSandbox) -> bytes:
    """The content of a model file that may be loaded, as it is before it is served."""
    (verdict,) = vetter.vet([file])
    content = b""
    try:
        if verdict.sha256 is None:
            raise InvalidModel(verdict.reason)
        content = read_file(file)
        if hashlib.sha256(content).hexdigest() != verdict.sha256:
            raise InvalidModel("changed while it was looked at")
    except InvalidModel as error:
        raise DatasetError(f"{file}: {error}") from error
    return content
