"""Fetch a dataset from a server into a folder, and resume an interrupted fetch.

    DIR/
      manifest.json              plan, model identity, sha256 of every file
      README.md, croissant.json  the complete set, for people and programs
      anime-faces-00000.tar ...  the same number of images each, fewer in the last
      anime-faces-00003.part     images of the next file, while the fetch is incomplete
      _info.json, _wids-*.json   indexes of a complete WebDataset set, for timm and wids

Files appear whole or not at all. A resumed fetch leaves the same files as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from service.client.figment import pixels
from service.client.http import HttpClient
from service.client.stream import ImageStream
from service.core.manifest import Manifest
from service.datasets.manifest import (
    DatasetFile,
    DatasetManifest,
    DatasetPlan,
    LabelCount,
    ModelIdentity,
    load,
    packing_software,
    stem,
)
from service.datasets.progress import Progress
from service.datasets.repository import write_descriptions
from service.datasets.shard_writer import open_shard
from service.datasets.storage import LocalStorage
from service.errors import (
    ClientError,
    DatasetError,
    FetchFailed,
    InvalidRequest,
    ModelChanged,
    RequestRejected,
)
from service.formats import webdataset
from service.formats.records import ImageRecord

BATCH_IMAGES = 256
"""Images packed at a time."""


class FetchedDataset:
    """A dataset and the images received of it."""

    def __init__(self, path: Path, plan: DatasetPlan, server: HttpClient) -> None:
        """Resume from the files at ``path``. Raises ``FetchFailed``, ``DatasetError``."""
        self._path = path
        self._storage = LocalStorage(path)
        self._plan = plan
        self._server = server
        self._part: IO[bytes] | None = None
        self._in_part = 0
        self.progress = Progress(plan.request)
        self._stream = ImageStream(server, plan.request, self.progress)
        self._manifest = load(self._storage, plan, "fetch")
        if self._manifest is not None:
            self._restore(self._manifest)

    @property
    def kept(self) -> int:
        """Images received."""
        return self._in_part + (self._manifest.images if self._manifest else 0)

    @property
    def total(self) -> int:
        """Images of the complete dataset."""
        return self._plan.request.count

    @property
    def origin(self) -> ModelIdentity | None:
        """None before the first image."""
        return self._stream.origin

    def label_counts(self) -> list[LabelCount]:
        """Images received of each label."""
        request, progress = self._plan.request, self.progress
        columns = request.entries, request.counts, progress.missing, progress.tried
        return [
            LabelCount(label=label, images=count - missing, tried=tried)
            for label, count, missing, tried in zip(*columns, strict=True)
        ]

    def run(self) -> Iterator[ImageRecord]:
        """Fetch the missing images; yield each after it is written."""
        before = self.label_counts(), self.progress.next
        for record, content in self._stream:
            manifest = self._manifest or self._start_manifest(*before)
            for name, value in (record.labels or {}).items():
                if value not in manifest.attributes.get(name, ()):
                    raise ClientError(f"image {record.index} has a label that its model lacks")
            if manifest.software != self._stream.software:
                manifest.software = list(self._stream.software)
                self._write(manifest)
            self._part = self._part or self._part_path(manifest).open("wb")
            self._part.write(content)
            self._in_part += 1
            if self._in_part == self._plan.per_file:
                self._pack(manifest)
            yield record
        if self._in_part and self._manifest is not None:
            self._pack(self._manifest)

    def close(self) -> None:
        """Close the part; images that could not be written are fetched again."""
        if self._part is not None:
            with suppress(OSError):
                self._part.close()

    # Resume.

    def _restore(self, manifest: DatasetManifest) -> None:
        self._stream.origin = manifest.origin
        self._stream.software = list(manifest.software)
        for entry in manifest.files:
            if not self._storage.has(entry):
                raise FetchFailed(
                    f"{self._path / entry.name} is missing or has changed since it was fetched; "
                    "fetch into a new folder"
                )
        if not manifest.complete and packing_software() not in manifest.packed_by:
            self._server.on_message(
                f"files are now packed by {packing_software()}, and were by "
                f"{manifest.packed_by[-1]}: they may differ from those of an uninterrupted fetch"
            )
            manifest.packed_by.append(packing_software())
        self.progress.next = manifest.next
        for label, count in enumerate(manifest.labels):
            self.progress.missing[label] -= count.images
            self.progress.tried[label] = count.tried
        self._storage.clean_up(manifest.origin.model)
        self._remove_other_parts(manifest)
        part = self._part_path(manifest)
        if part.exists():
            whole = self._recover(part)
            self._part = part.open("r+b")
            self._part.truncate(whole)
            self._part.seek(whole)
            if self._in_part == self._plan.per_file:
                self._pack(manifest)

    def _remove_other_parts(self, manifest: DatasetManifest) -> None:
        """Remove the parts that a killed fetch had packed but not deleted."""
        for path in self._path.glob(f"{manifest.origin.model}-[0-9]*.part"):
            if path != self._part_path(manifest):
                path.unlink()

    def _recover(self, part: Path) -> int:
        """Count the images of a truncated part; return the number of intact bytes."""
        whole = 0
        # A truncated end is expected: the fetch was killed, or power failed before a sync.
        with (
            part.open("rb") as file,
            suppress(ClientError, EOFError, ValueError),
        ):
            for record, content in webdataset.samples(file.read):
                pixels(record)
                self.progress.add(record.index)
                whole += len(content)
                self._in_part += 1
        return whole

    # Receive.

    def _start_manifest(self, labels: list[LabelCount], start: int) -> DatasetManifest:
        """Write the manifest once the first image tells the model's identity."""
        assert self.origin is not None
        model = self._describe(self.origin)
        try:
            self._plan.layout(model.values)
        except InvalidRequest as error:
            raise RequestRejected(error.problem()) from error
        self._manifest = DatasetManifest(
            asked=self._plan.fields(),
            origin=self.origin,
            software=list(self._stream.software),
            packed_by=[packing_software()],
            attributes=model.values,
            training_data=model.provenance.dataset,
            labels=labels,
            next=start,
        )
        self._write(self._manifest)
        return self._manifest

    def _describe(self, origin: ModelIdentity) -> Manifest:
        """Manifest of the model, which has the values of its attributes and their order."""
        path = f"/models/{origin.model}/{origin.version}"
        described = self._server.json(path)
        try:
            sha256, manifest = described["sha256"], Manifest.model_validate(described["manifest"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClientError(f"{self._server.url}{path} does not describe a model") from error
        if sha256 != origin.model_sha256:
            raise ModelChanged("the server's model has changed since the first image")
        return manifest

    def _pack(self, manifest: DatasetManifest) -> None:
        """Turn the part into the next file."""
        assert self._part is not None
        self._part.close()
        part = self._part_path(manifest)
        manifest.files += self._write_files(part, manifest)
        counts = self.label_counts()
        manifest.images += self._in_part
        manifest.labels, manifest.next = counts, self.progress.next
        manifest.complete = not any(self.progress.missing)
        self._in_part, self._part = 0, None
        if manifest.complete:
            write_descriptions(self._storage, manifest)
        self._write(manifest)
        part.unlink()

    def _write_files(self, part: Path, manifest: DatasetManifest) -> tuple[DatasetFile, ...]:
        with part.open("rb") as source:
            first, _ = next(webdataset.samples(source.read))
            source.seek(0)
            shape = (self._in_part, *pixels(first).shape)
            with open_shard(
                *(self._plan, self._storage, manifest.origin.model),
                *(self._next_number(manifest), manifest.attributes, shape),
            ) as shard:
                for records in _in_groups(source):
                    if self._plan.format == "npy":
                        records = [replace(r, image=pixels(r).tobytes()) for r in records]
                    shard.add(records)
                return shard.end()

    def _next_number(self, manifest: DatasetManifest) -> int:
        """Number of the next file, from 0."""
        return len(manifest.files) // len(self._plan.file_names(manifest.origin.model, 0))

    def _part_path(self, manifest: DatasetManifest) -> Path:
        return self._path / f"{stem(manifest.origin.model, self._next_number(manifest))}.part"

    def _write(self, manifest: DatasetManifest) -> None:
        self._storage.write_manifest(manifest.to_json())


@contextmanager
def open_dataset(path: Path, plan: DatasetPlan, server: HttpClient) -> Iterator[FetchedDataset]:
    """Lock the folder at ``path`` and open the dataset in it; the folder is created.

    Raises ``FetchFailed`` if another command is writing to it, if it contains another dataset, or
    if it cannot be written, and ``OSError``.
    """
    try:
        with (
            LocalStorage(path).lock(),
            closing(FetchedDataset(path, plan, server)) as dataset,
        ):
            yield dataset
    except DatasetError as error:
        raise FetchFailed(str(error)) from error


def _in_groups(source: IO[bytes]) -> Iterator[list[ImageRecord]]:
    group = []
    with suppress(EOFError):  # a part has no end marker
        for record, _ in webdataset.samples(source.read):
            group.append(record)
            if len(group) == BATCH_IMAGES:
                yield group
                group = []
    if group:
        yield group
