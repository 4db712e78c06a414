"""Write one file of a dataset: with splits, a file for each; for npy also its table of labels.

For ``folder`` the images are files, and their tables are the files that the manifest lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import IO, Protocol

from service.datasets.manifest import DatasetFile, DatasetPlan
from service.datasets.storage import SHA256, Storage
from service.formats.layout import Layout, Values
from service.formats.records import ArchiveWriter, ImageRecord, table_header, table_row
from service.formats.registry import FOLDER, open_writer


class ShardWriter(Protocol):
    """Open files of one number."""

    def add(self, records: Sequence[ImageRecord]) -> None:
        """Write images. For npy, ``image`` is the bytes of the pixels."""
        ...

    def end(self) -> tuple[DatasetFile, ...]:
        """Complete the files; return their entries for the manifest."""
        ...


class _FolderWriter:
    """Images as files, and the tables of all splits."""

    def __init__(
        self, layout: Layout, storage: Storage, tables: Sequence[_HashingFile], labels: int
    ) -> None:
        self._layout = layout
        self._storage = storage
        self._tables = dict(zip(layout.splits, tables, strict=True))
        self._counts = {split: [0] * labels for split in layout.splits}
        self._attributes = [*layout.values]
        for table in tables:
            table.write(table_header(self._attributes, SHA256))

    def add(self, records: Sequence[ImageRecord]) -> None:
        for record in records:
            split, path = self._layout.place(record)
            self._storage.put(path, record.image)
            sha256 = hashlib.sha256(record.image).hexdigest()
            self._tables[split].write(table_row(record, self._attributes, path, sha256))
            counts = self._counts[split]
            counts[record.index % len(counts)] += 1

    def end(self) -> tuple[DatasetFile, ...]:
        return tuple(
            table.entry(self._counts[split], split or None) for split, table in self._tables.items()
        )


class _ArchiveWriters:
    """Archives of all splits."""

    def __init__(
        self, layout: Layout, archives: Sequence[_Archive], table: _HashingFile | None
    ) -> None:
        self._layout = layout
        self._archives = dict(zip(layout.splits, archives, strict=True))
        self._table = table
        if table is not None:
            table.write(table_header([*layout.values]))

    def add(self, records: Sequence[ImageRecord]) -> None:
        groups: dict[str, list[ImageRecord]] = {}
        for record in records:
            groups.setdefault(self._layout.split(record.url), []).append(record)
        for split, group in groups.items():
            self._archives[split].add(group)
        if self._table is not None:
            names = [*self._layout.values]
            self._table.write(b"".join(table_row(record, names) for record in records))

    def end(self) -> tuple[DatasetFile, ...]:
        entries = []
        for split, archive in self._archives.items():
            for piece in archive.writer.end():
                archive.file.write(piece)
            entries.append(archive.file.entry(archive.counts, split or None))
        if self._table is not None:
            entries.append(self._table.entry([], None))
        return tuple(entries)


@contextmanager
def open_shard(
    plan: DatasetPlan,
    storage: Storage,
    model: str,
    number: int,
    values: Values,
    shape: Sequence[int],
) -> Iterator[ShardWriter]:
    """Files that appear whole when the block ends. ``shape``: that of all their images."""
    layout = plan.layout(values)
    with ExitStack() as stack:
        files = [
            _HashingFile(name, stack.enter_context(storage.writing(name)))
            for name in plan.file_names(model, number)
        ]
        labels = len(plan.request.entries)
        if plan.format == FOLDER.name:
            yield _FolderWriter(layout, storage, files, labels)
            return
        archives = []
        for split, file in zip(layout.splits, files, strict=False):
            writer = open_writer(plan.format, layout.of_split(split), shape)
            stack.enter_context(closing(writer))
            archives.append(_Archive(file, writer, labels))
        tables = files[len(archives) :]
        yield _ArchiveWriters(layout, archives, tables[0] if tables else None)


class _Archive:
    """Archive of one split, and its images of each label."""

    def __init__(self, file: _HashingFile, writer: ArchiveWriter, labels: int) -> None:
        self.file = file
        self.writer = writer
        self.counts = [0] * labels

    def add(self, records: Sequence[ImageRecord]) -> None:
        for record in records:
            self.counts[record.index % len(self.counts)] += 1
        self.file.write(self.writer.add(records))


class _HashingFile:
    """File that counts its bytes and hashes them as they are written."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)
        self._bytes += len(content)

    def entry(self, labels: list[int], split: str | None) -> DatasetFile:
        """Entry of the manifest. ``labels``: images of each label; none for a table."""
        return DatasetFile(
            name=self._name,
            images=sum(labels),
            labels=labels,
            split=split,
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
        )
