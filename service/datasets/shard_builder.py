"""Build one file of a dataset: its bytes are a pure function of the spec and the file's number.

A file can therefore be built again by another process or machine after a failed attempt.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.core import cpus
from service.core.image_info import ImageInfo, Pixels
from service.core.labels import ParsedLabel
from service.core.text import first_line
from service.datasets.manifest import DatasetFile, DatasetPlan, ModelIdentity, packing_software
from service.datasets.shard_writer import open_shard
from service.datasets.shards import LabelledIndices, Shards
from service.datasets.storage import Storage
from service.errors import DatasetError, FigmentError
from service.formats import images
from service.formats.records import ImageRecord
from service.inference.model import Model, model_of
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.inference.source import run_batch
from service.inference.versions import software_of

if TYPE_CHECKING:
    from service.settings import Device


@dataclass(frozen=True)
class BuildSpec:
    """Everything that determines a file besides its number, and its destination."""

    model_file: Path
    """``NAME/VERSION/model.onnx``."""
    origin: ModelIdentity
    plan: DatasetPlan
    storage: Storage
    device: Device

    @property
    def shards(self) -> Shards:
        request = self.plan.request
        return Shards(LabelledIndices(request.offset, request.counts), self.plan.per_file)

    def file_names(self, number: int) -> list[str]:
        return self.plan.file_names(self.origin.model, number)

    def read_model(self) -> bytes:
        """Content of the model file. Raises ``DatasetError`` if it has changed."""
        try:
            content = self.model_file.read_bytes()
        except OSError as error:
            raise DatasetError(f"cannot read {self.model_file}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.origin.model_sha256:
            raise DatasetError(f"{self.model_file} has changed while the set was built")
        return content


@dataclass(frozen=True)
class ShardTask:
    """File to build, or to verify if it is ``known`` from the manifest."""

    number: int
    known: tuple[DatasetFile, ...] = ()


@dataclass(frozen=True)
class ShardResult:
    """Result of a task."""

    task: ShardTask
    files: tuple[DatasetFile, ...]
    """Files that exist; empty if a known file is missing or has changed."""
    software: str = ""
    """Software that computed the images; empty if none were computed."""
    packed_by: str = ""


class ShardBuilder:
    """Runs tasks one after another. The model is loaded for the first file to build."""

    def __init__(self, spec: BuildSpec, read_model: Callable[[], bytes] | None = None) -> None:
        """``read_model``: source of the model's content if its file is not on this machine."""
        self._spec = spec
        self._read_model = read_model or spec.read_model
        self._shards = spec.shards

    def run(self, task: ShardTask) -> ShardResult | DatasetError:
        """Return the result, or a ``DatasetError`` for the parent process to raise."""
        try:
            if task.known:
                unchanged = all(self._spec.storage.has(file) for file in task.known)
                return ShardResult(task, task.known if unchanged else ())
            files = self._build(task.number)
            return ShardResult(task, files, software_of(self._runtime.provider), packing_software())
        except FigmentError as error:
            return DatasetError(str(error))
        except Exception as error:  # a library's error, in one line
            (name, *_) = self._spec.file_names(task.number)
            return DatasetError(f"{name} cannot be built: {first_line(error)}")

    def _build(self, number: int) -> tuple[DatasetFile, ...]:
        spec, manifest = self._spec, self._model.manifest
        shape = (self._shards.size(number), *manifest.image_shape)
        with open_shard(
            spec.plan, spec.storage, spec.origin.model, number, manifest.values, shape
        ) as shard:
            for batch in self._batches(number):
                shard.add(self._records(batch))
            return shard.end()

    def _batches(self, number: int) -> Iterator[list[tuple[ImageInfo, Pixels]]]:
        request = self._spec.plan.request
        samples = SeedImages(
            model=self._model,
            seed=self._spec.origin.seed,
            indices=self._shards.indices(number),
            labels=self._labels,
            truncation=request.truncation,
        )
        count, size = len(samples.indices), self._model.largest_batch
        for first in range(0, count, size):
            chunk = range(first, min(first + size, count))
            ((frames, pixels),) = run_batch([(samples, chunk)], exclusive=False)
            yield list(zip(frames, pixels, strict=True))

    def _records(self, batch: list[tuple[ImageInfo, Pixels]]) -> list[ImageRecord]:
        encode = images.raw_record if self._spec.plan.format == "npy" else images.png_record
        return list(self._map(lambda pair: encode(*pair), batch))

    @functools.cached_property
    def _content(self) -> bytes:
        return self._read_model()

    @functools.cached_property
    def _runtime(self) -> SessionFactory:
        runtime = SessionFactory(self._spec.device)
        runtime.probe_cuda([self._content])
        return runtime

    @functools.cached_property
    def _model(self) -> Model:
        return model_of(self._spec.model_file, self._content, self._runtime)

    @functools.cached_property
    def _labels(self) -> list[ParsedLabel]:
        labels = self._spec.plan.request.label_list
        return [self._model.vocabulary.resolve(label) for label in labels]

    @functools.cached_property
    def _map(self) -> Callable[..., Iterator[Any]]:
        """Serial on a CPU, with a process for each core. A GPU outruns one encoding thread."""
        if self._runtime.device == "cuda":
            return ThreadPoolExecutor(cpus.available()).map
        return map
