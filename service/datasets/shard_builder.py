"""One file of images, straight from the model: a pure function of the recipe and its number.

Whoever makes a file makes the same bytes, so a file may be made again, by another process or on
another machine, whatever became of the first attempt.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from service.core import cpus
from service.core.image_info import ImageInfo, Pixels
from service.core.labels import ParsedLabel
from service.core.text import first_line
from service.datasets.manifest import DatasetFile, DatasetPlan, packing, stem
from service.datasets.request import ModelIdentity
from service.datasets.shards import LabelledIndices, Shards
from service.datasets.storage import Storage
from service.errors import DatasetError, FigmentError
from service.formats import images
from service.formats.records import record_of, table_header, table_row
from service.formats.registry import SUFFIXES, open_writer
from service.inference.model import Model, model_of
from service.inference.seeds import SeedImages
from service.inference.session import SessionFactory
from service.inference.source import run_batch
from service.inference.versions import software_of

if TYPE_CHECKING:
    from service.settings import Device

OnProgress = Callable[[int], object]
"""Is told of images as they are made."""


@dataclass(frozen=True)
class BuildSpec:
    """All that a file follows from besides its number, and where it goes."""

    model_file: Path
    """``NAME/VERSION/model.onnx``."""
    origin: ModelIdentity
    plan: DatasetPlan
    target: Storage
    device: Device

    @property
    def shards(self) -> Shards:
        order = self.plan.order
        return Shards(LabelledIndices(order.offset, order.counts), self.plan.per_file)

    def names(self, number: int) -> list[str]:
        """What a file is called; and the table beside it, where it is an array."""
        name = stem(self.origin.model, number)
        tables = [f"{name}.csv"] if self.plan.format == "npy" else []
        return [f"{name}{SUFFIXES[self.plan.format]}", *tables]

    def read_model(self) -> bytes:
        """The model file. Raises ``DatasetError`` where it is not what it was."""
        try:
            content = self.model_file.read_bytes()
        except OSError as error:
            raise DatasetError(f"cannot read {self.model_file}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.origin.model_sha256:
            raise DatasetError(f"{self.model_file} has changed while the set was made")
        return content


@dataclass(frozen=True)
class ShardTask:
    """A file to make; or, where it is ``known``, to look whether it is as it was made."""

    number: int
    known: tuple[DatasetFile, ...] = ()


@dataclass(frozen=True)
class ShardResult:
    """What came of a job."""

    job: ShardTask
    files: tuple[DatasetFile, ...]
    """Those that are there; none where a known file is gone, or is not what it was."""
    software: str = ""
    """What made the images; nothing where none were made."""
    packed_by: str = ""


class ShardBuilder:
    """Does jobs, one after the other. The model is loaded when a first image is wanted."""

    def __init__(self, recipe: BuildSpec, read_model: Callable[[], bytes] | None = None) -> None:
        """``read_model``: where its file is not at hand, something else that gives its content."""
        self._recipe = recipe
        self._read_model = read_model or recipe.read_model
        self._shards = recipe.shards

    def do(self, job: ShardTask, tell: OnProgress) -> ShardResult | DatasetError:
        """``DatasetError`` is returned, for it is to be raised elsewhere."""
        try:
            if job.known:
                good = all(self._recipe.target.holds(file) for file in job.known)
                return ShardResult(job, job.known if good else ())
            files = self._make(job.number, tell)
            return ShardResult(job, files, software_of(self._runtime.provider), packing())
        except FigmentError as error:
            return DatasetError(str(error))
        except Exception as error:  # of a library, in one line like all others
            (name, *_) = self._recipe.names(job.number)
            return DatasetError(f"{name} cannot be made: {first_line(error)}")

    def _make(self, number: int, tell: OnProgress) -> tuple[DatasetFile, ...]:
        """Write a file, and the table beside it."""
        recipe, manifest = self._recipe, self._model.manifest
        attributes = [attribute.name for attribute in manifest.attributes]
        count = self._shards.size(number)
        shape = (count, *manifest.image_shape)
        of_each = [0] * len(recipe.plan.order.labels)
        names = recipe.names(number)
        with ExitStack() as stack:
            written = [_HashingFile(stack.enter_context(recipe.target.writing(n))) for n in names]
            file, *tables = written
            packed = stack.enter_context(
                closing(open_writer(recipe.plan.format, attributes, shape))
            )
            for table in tables:
                table.write(table_header(attributes))
            for batch in self._batches(number):
                for frame, _ in batch:
                    of_each[frame.index % len(of_each)] += 1
                file.write(packed.add(self._items(batch)))
                for table in tables:
                    rows = (record_of(frame) for frame, _ in batch)
                    table.write(b"".join(table_row(row, attributes) for row in rows))
                tell(len(batch))
            for piece in packed.end():
                file.write(piece)
        described = [file.described(names[0], count, of_each)]
        described += [t.described(n, 0, []) for t, n in zip(tables, names[1:], strict=True)]
        return tuple(described)

    def _batches(self, number: int) -> Iterator[list[tuple[ImageInfo, Pixels]]]:
        order = self._recipe.plan.order
        samples = SeedImages(
            model=self._model,
            seed=self._recipe.origin.seed,
            indices=self._shards.indices(number),
            labels=self._asked,
            truncation=order.truncation,
        )
        count, size = len(samples.indices), self._model.largest_batch
        for first in range(0, count, size):
            chunk = range(first, min(first + size, count))
            ((frames, pixels),) = run_batch([(samples, chunk)], exclusive=False)
            yield list(zip(frames, pixels, strict=True))

    def _items(self, batch: list[tuple[ImageInfo, Pixels]]) -> list[Any]:
        """What the packer takes."""
        if self._recipe.plan.format == "npy":
            return [pixels.tobytes() for _, pixels in batch]
        return list(self._map(lambda pair: images.png_record(*pair), batch))

    @functools.cached_property
    def _content(self) -> bytes:
        return self._read_model()

    @functools.cached_property
    def _runtime(self) -> SessionFactory:
        runtime = SessionFactory(self._recipe.device)
        runtime.probe_cuda([self._content])
        return runtime

    @functools.cached_property
    def _model(self) -> Model:
        return model_of(self._recipe.model_file, self._content, self._runtime)

    @functools.cached_property
    def _asked(self) -> list[ParsedLabel]:
        labels = self._recipe.plan.order.labels
        return [self._model.vocabulary.resolve(label) for label in labels if label is not None]

    @functools.cached_property
    def _map(self) -> Callable[..., Iterator[Any]]:
        """On a CPU there is a process for each core. A GPU makes images faster than one encodes."""
        if self._runtime.device == "cuda":
            return ThreadPoolExecutor(cpus.available()).map
        return map


class _HashingFile:
    """A file, and what is to be said of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)
        self._bytes += len(content)

    def described(self, name: str, images: int, labels: list[int]) -> DatasetFile:
        return DatasetFile(
            name=name,
            images=images,
            labels=labels,
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
        )
