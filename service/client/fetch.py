"""A set of images in a folder: files of a loader's format, and a manifest of them.

    DIR/
      manifest.json              what was asked for, where it came from, sha256 of every file
      anime-faces-00000.tar ...  of as many images each, but for the last
      anime-faces-00003.part     until it is complete: the images of the next file

Files appear whole or not at all. Whatever interrupts a fetch, the same fetch goes on where it was,
and ends with the same files as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from pydantic import ValidationError

from service.client.figment import pixels
from service.client.http import HttpClient
from service.client.stream import ImageStream
from service.core.atomic_write import replacing, write_atomically
from service.datasets.manifest import (
    LOCK,
    MANIFEST,
    DatasetManifest,
    DatasetPlan,
    LabelCount,
    described,
    left_overs,
    packing,
    stem,
)
from service.datasets.request import ModelIdentity, Progress
from service.errors import ClientError, FetchFailed
from service.formats import webdataset
from service.formats.records import ImageRecord, table_header, table_row
from service.formats.registry import SUFFIXES, open_writer

AT_ONCE = 256
"""Images that are packed at a time."""


class FetchedDataset:
    """The part of a set that has come."""

    def __init__(self, path: Path, plan: DatasetPlan, server: HttpClient) -> None:
        """Take up what is there. Raises ``FetchFailed`` where it is of another plan."""
        self._path = path
        self._plan = plan
        self._server = server
        self._part: IO[bytes] | None = None
        self._in_part = 0
        self.progress = Progress(plan.order)
        self._download = ImageStream(server, plan.order, self.progress)
        self._manifest = _read_manifest(path, plan)
        if self._manifest is not None:
            self._restore(self._manifest)

    @property
    def kept(self) -> int:
        """Images."""
        return self._in_part + (self._manifest.images if self._manifest else 0)

    @property
    def origin(self) -> ModelIdentity | None:
        """None before the first image."""
        return self._download.origin

    def tallies(self) -> list[LabelCount]:
        """Of each label."""
        order, progress = self._plan.order, self.progress
        columns = order.labels, order.counts, progress.missing, progress.tried
        return [
            LabelCount(label=label, images=count - missing, tried=tried)
            for label, count, missing, tried in zip(*columns, strict=True)
        ]

    def fill(self) -> Iterator[ImageRecord]:
        """Fetch what is missing; each image once it is written."""
        before = self.tallies(), self.progress.next
        for record, content in self._download:
            manifest = self._manifest or self._begin(record, *before)
            if manifest.software != self._download.software:
                manifest.software = list(self._download.software)
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
        """What cannot be written any more is fetched again."""
        if self._part is not None:
            with suppress(OSError):
                self._part.close()

    # What is there already.

    def _restore(self, manifest: DatasetManifest) -> None:
        self._download.origin = manifest.origin
        self._download.software = list(manifest.software)
        for entry in manifest.files:
            path = self._path / entry.name
            if not path.exists() or described(path, entry.images, entry.labels) != entry:
                raise FetchFailed(
                    f"{path} is gone or has changed since it was fetched; fetch into a new folder"
                )
        if not manifest.complete and packing() not in manifest.packed_by:
            self._server.tell(
                f"files are packed by {packing()} now, and were by {manifest.packed_by[-1]}: they "
                "may differ from those of a fetch in one go"
            )
            manifest.packed_by.append(packing())
        self.progress.next = manifest.next
        for label, tally in enumerate(manifest.labels):
            self.progress.missing[label] -= tally.images
            self.progress.tried[label] = tally.tried
        self._remove_left_overs(manifest)
        part = self._part_path(manifest)
        if part.exists():
            whole = self._recover(part)
            self._part = part.open("r+b")
            self._part.truncate(whole)
            self._part.seek(whole)
            if self._in_part == self._plan.per_file:
                self._pack(manifest)

    def _remove_left_overs(self, manifest: DatasetManifest) -> None:
        """What a fetch that was killed had not put in its place."""
        name = manifest.origin.model
        for pattern in (*left_overs(name), f"{name}-[0-9]*.part"):
            for path in self._path.glob(pattern):
                if path != self._part_path(manifest):
                    path.unlink()

    def _recover(self, part: Path) -> int:
        """Take up the images of a file that was cut; returns how many of its bytes are good."""
        whole = 0
        # What ends it is no error: it was cut, or a loss of power took what was never on the disk.
        with (
            part.open("rb") as file,
            suppress(ClientError, EOFError, ValueError),
        ):
            for record, content in webdataset.samples(file.read):
                pixels(record)
                self.progress.take(record.index)
                whole += len(content)
                self._in_part += 1
        return whole

    # What comes.

    def _begin(self, first: ImageRecord, labels: list[LabelCount], start: int) -> DatasetManifest:
        """The manifest before the first image; only now is it known where images come from."""
        assert self.origin is not None
        self._manifest = DatasetManifest(
            asked=self._plan.asked(),
            origin=self.origin,
            software=list(self._download.software),
            packed_by=[packing()],
            attributes=list(first.labels or {}),
            labels=labels,
            next=start,
        )
        self._write(self._manifest)
        return self._manifest

    def _pack(self, manifest: DatasetManifest) -> None:
        """Make the next file of the part."""
        assert self._part is not None
        self._part.close()
        part, name = self._part_path(manifest), self._stem(manifest)
        file = self._path / f"{name}{SUFFIXES[self._plan.format]}"
        with replacing(file) as target, part.open("rb") as source:
            self._repack(source, target, manifest.attributes)
        tallies = self.tallies()
        before = zip(tallies, manifest.labels, strict=True)
        of_each = [tally.images - counted.images for tally, counted in before]
        manifest.files.append(described(file, self._in_part, of_each))
        if self._plan.format == "npy":
            table = self._path / f"{name}.csv"
            with replacing(table) as target, part.open("rb") as source:
                _write_table(source, target, manifest.attributes)
            manifest.files.append(described(table, 0, []))
        manifest.images += self._in_part
        manifest.labels, manifest.next = tallies, self.progress.next
        manifest.complete = not any(self.progress.missing)
        self._in_part, self._part = 0, None
        self._write(manifest)
        part.unlink()

    def _repack(self, source: IO[bytes], target: IO[bytes], attributes: list[str]) -> None:
        first, _ = next(webdataset.samples(source.read))
        source.seek(0)
        shape = (self._in_part, *pixels(first).shape)
        with closing(open_writer(self._plan.format, attributes, shape)) as packing:
            for records in _in_groups(source):
                if self._plan.format == "npy":
                    target.write(packing.add([pixels(record).tobytes() for record in records]))
                else:
                    target.write(packing.add(records))
            target.writelines(packing.end())

    def _part_path(self, manifest: DatasetManifest) -> Path:
        return self._path / f"{self._stem(manifest)}.part"

    def _stem(self, manifest: DatasetManifest) -> str:
        """What the next file is called."""
        number = sum(entry.images > 0 for entry in manifest.files)
        return stem(manifest.origin.model, number)

    def _write(self, manifest: DatasetManifest) -> None:
        write_atomically(self._path / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


@contextmanager
def open_dataset(path: Path, plan: DatasetPlan, server: HttpClient) -> Iterator[FetchedDataset]:
    """The folder at ``path``, for this process alone.

    Raises ``FetchFailed`` where another fetch is at it, or it holds another set, and ``OSError``.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(path / LOCK, timeout=0),
            closing(FetchedDataset(path, plan, server)) as folder,
        ):
            yield folder
    except Timeout as error:
        raise FetchFailed(f"another fetch is writing to {path}") from error


def _read_manifest(folder: Path, plan: DatasetPlan) -> DatasetManifest | None:
    """The manifest of a folder of this plan; None for one that holds nothing yet."""
    path = folder / MANIFEST
    if not path.exists():
        others = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
        if others:
            raise FetchFailed(
                f"{folder} has no {MANIFEST}, but other files ({others[0]}): name an empty "
                "folder, or a new one"
            )
        return None
    try:
        manifest = DatasetManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FetchFailed(f"{path} is no manifest of a fetch: {error.errors()[0]['msg']}") from None
    if manifest.made_by != "fetch":
        raise FetchFailed(f"{folder} holds a set of {manifest.made_by}: name another folder")
    if differ := plan.differs(manifest.asked):
        raise FetchFailed(
            f"{folder} holds another set (it differs in {', '.join(differ)}): name another folder"
        )
    return manifest


def _write_table(source: IO[bytes], target: IO[bytes], attributes: list[str]) -> None:
    """Labels and addresses of the images of an array, which has no place for them."""
    target.write(table_header(attributes))
    for records in _in_groups(source):
        target.writelines(table_row(record, attributes) for record in records)


def _in_groups(source: IO[bytes]) -> Iterator[list[ImageRecord]]:
    group = []
    with suppress(EOFError):  # a part has no end mark
        for record, _ in webdataset.samples(source.read):
            group.append(record)
            if len(group) == AT_ONCE:
                yield group
                group = []
    if group:
        yield group
