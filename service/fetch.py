"""A set of images in a folder: files of a loader's format, and a manifest of them.

    DIR/
      manifest.json              what was asked for, where it came from, sha256 of every file
      anime-faces-00000.tar ...  of as many images each, but for the last
      anime-faces-00003.part     until it is complete: the images of the next file

Files appear whole or not at all. Whatever interrupts a fetch, the same fetch goes on where it was,
and ends with the same files as if nothing had been.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from service.client import pixels
from service.download import Download, Order, Origin, Progress, Server
from service.errors import FetchFailed
from service.files import replacing, write_atomically
from service.formats import sets, webdataset
from service.formats.packers import SUFFIXES, packer
from service.formats.sets import Record

MANIFEST = "manifest.json"
LOCK = ".lock"
LAYOUT = 1
FEWEST_FILES = 8
"""Where there are images enough: loaders share out files among their workers."""
MOST_IN_FILE = 10_000
"""Images."""
AT_ONCE = 256
"""Images that are packed at a time."""


@dataclass(frozen=True)
class Plan:
    """What is fetched, and into what."""

    order: Order
    format: str
    images_per_file: int | None = None
    """Left out, few enough to make ``FEWEST_FILES``."""

    @property
    def per_file(self) -> int:
        some = math.ceil(sum(self.order.counts) / FEWEST_FILES)
        return self.images_per_file or min(some, MOST_IN_FILE)


class Folder:
    """The part of a set that has come; what is whole stands in the manifest."""

    def __init__(self, path: Path, plan: Plan, server: Server) -> None:
        """Take up what is there. Raises ``FetchFailed`` where it is of another plan."""
        self._path = path
        self._plan = plan
        self._attributes: list[str] = []
        self._files: list[dict[str, Any]] = []
        self._packed = 0
        """Files of images."""
        self._in_files = 0
        """Images."""
        self._in_part = 0
        self._part: IO[bytes] | None = None
        progress = Progress(plan.order)
        self.download = Download(server, plan.order, progress)
        self._settled = self._state()
        """As of the last file that is whole."""
        found = self._read_manifest()
        if found is not None:
            self._restore(found, progress)

    @property
    def kept(self) -> int:
        """Images."""
        return self._in_files + self._in_part

    def labels(self) -> list[dict[str, Any]]:
        """Of each label, how many images have come, and how many were looked at."""
        progress, order = self.download.progress, self._plan.order
        return [
            {"label": label, "images": count - missing, "tried": tried}
            for label, count, missing, tried in zip(
                order.labels, order.counts, progress.missing, progress.tried, strict=True
            )
        ]

    def fill(self) -> Iterator[Record]:
        """Fetch what is missing; each image once it is written."""
        for record, content in self.download:
            if self._part is None:
                self._begin_part(record)
            assert self._part is not None
            self._part.write(content)
            self._in_part += 1
            if self._in_part == self._plan.per_file:
                self._pack()
            yield record
        if self._in_part:
            self._pack()

    def close(self) -> None:
        """What cannot be written any more is fetched again."""
        if self._part is not None:
            with suppress(OSError):
                self._part.close()

    # What is there already.

    def _read_manifest(self) -> dict[str, Any] | None:
        self._path.mkdir(parents=True, exist_ok=True)
        for left_over in self._path.glob(".*.tmp"):
            left_over.unlink()
        path = self._path / MANIFEST
        if not path.exists():
            others = sorted(entry.name for entry in self._path.iterdir() if entry.name != LOCK)
            if others:
                raise FetchFailed(
                    f"{self._path} has no {MANIFEST}, but other files ({others[0]}): name an "
                    "empty folder, or a new one"
                )
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise FetchFailed(f"{path} cannot be read: {error}") from error
        asked = self._asked()
        if found.get("layout") != LAYOUT or found["asked"] != asked:
            before = found.get("asked", {})
            differ = [name for name in asked if before.get(name) != asked[name]]
            raise FetchFailed(
                f"{self._path} holds another set (it differs in {', '.join(differ) or 'layout'}): "
                "name another folder"
            )
        return found

    def _restore(self, found: dict[str, Any], progress: Progress) -> None:
        self.download.origin = Origin(**found["origin"])
        self.download.software = found["software"]
        self._attributes = found["attributes"]
        self._files = found["files"]
        self._packed = sum("images" in entry for entry in self._files)
        self._in_files = found["images"]
        for entry in self._files:
            path = self._path / entry["name"]
            if not path.exists() or path.stat().st_size != entry["bytes"]:
                raise FetchFailed(
                    f"{path} is gone or has changed since it was fetched; fetch into a new folder"
                )
        progress.next = found["next"]
        for i, row in enumerate(found["labels"]):
            progress.missing[i] -= row["images"]
            progress.tried[i] = row["tried"]
        self._settled = self._state()
        part = self._part_path()
        for left_over in self._path.glob("*.part"):
            if left_over != part:
                left_over.unlink()
        if part.exists():
            whole = self._recover(part, progress)
            self._part = part.open("r+b")
            self._part.truncate(whole)
            self._part.seek(whole)
            if self._in_part == self._plan.per_file:
                self._pack()

    def _recover(self, part: Path, progress: Progress) -> int:
        """Take up the images of a file that was cut; returns how many of its bytes are good."""
        whole = 0
        # What ends it is no error: it was cut, or a loss of power took what was never on the disk.
        with part.open("rb") as file, suppress(EOFError, OSError, SyntaxError, ValueError):
            for record, content in webdataset.samples(file.read):
                pixels(record)
                progress.take(record.index)
                whole += len(content)
                self._in_part += 1
        return whole

    # What comes.

    def _begin_part(self, first: Record) -> None:
        if not self._files:
            self._attributes = list(first.labels or {})
            self._write_manifest()
        self._part = self._part_path().open("wb")

    def _part_path(self) -> Path:
        return self._path / f"{self._name()}.part"

    def _name(self) -> str:
        assert self.download.origin is not None
        return f"{self.download.origin.model}-{self._packed:05d}"

    def _pack(self) -> None:
        """Make the next file of the part."""
        assert self._part is not None
        self._part.close()
        part = self._part_path()
        name = f"{self._name()}{SUFFIXES[self._plan.format]}"
        with replacing(self._path / name) as file, part.open("rb") as source:
            self._repack(source, file)
        entries = [{"name": name, "images": self._in_part}]
        if self._plan.format == "npy":
            entries.append({"name": self._write_table(part)})
        for entry in entries:
            path = self._path / str(entry["name"])
            entry |= {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        self._files += entries
        self._packed += 1
        self._in_files += self._in_part
        self._in_part, self._part = 0, None
        self._settled = self._state()
        self._write_manifest()
        part.unlink()

    def _repack(self, source: IO[bytes], file: IO[bytes]) -> None:
        first, _ = next(webdataset.samples(source.read))
        source.seek(0)
        shape = (self._in_part, *pixels(first).shape)
        packing = packer(self._plan.format, self._attributes, shape)
        try:
            for records in _in_groups(source):
                if self._plan.format == "npy":
                    file.write(packing.add([pixels(record).tobytes() for record in records]))
                else:
                    file.write(packing.add(records))
            for piece in packing.end():
                file.write(piece)
        finally:
            packing.close()

    def _write_table(self, part: Path) -> str:
        """Labels and addresses of the images of an array, which has no place for them."""
        name = f"{self._name()}.csv"
        with replacing(self._path / name) as file, part.open("rb") as source:
            file.write(sets.table_header(self._attributes))
            for records in _in_groups(source):
                file.writelines(sets.table_row(record, self._attributes) for record in records)
        return name

    def _write_manifest(self) -> None:
        assert self.download.origin is not None
        manifest = {
            "layout": LAYOUT,
            "asked": self._asked(),
            "origin": asdict(self.download.origin),
            "software": self.download.software,
            "attributes": self._attributes,
            "complete": self._in_files == sum(self._plan.order.counts),
            "images": self._in_files,
            **self._settled,
            "files": self._files,
        }
        write_atomically(self._path / MANIFEST, json.dumps(manifest, indent=1) + "\n")

    def _state(self) -> dict[str, Any]:
        return {"labels": self.labels(), "next": self.download.progress.next}

    def _asked(self) -> dict[str, Any]:
        plan = self._plan
        return asdict(plan.order) | {"format": plan.format, "images_per_file": plan.per_file}


@contextmanager
def opened(path: Path, plan: Plan, server: Server) -> Iterator[Folder]:
    """The folder at ``path``, for this process alone.

    Raises ``FetchFailed`` where another fetch is at it, or it holds another set, and ``OSError``.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path / LOCK, timeout=0):
            folder = Folder(path, plan, server)
            try:
                yield folder
            finally:
                folder.close()
    except Timeout as error:
        raise FetchFailed(f"another fetch is writing to {path}") from error


def _in_groups(source: IO[bytes]) -> Iterator[list[Record]]:
    group = []
    with suppress(EOFError):  # a part has no end mark
        for record, _ in webdataset.samples(source.read):
            group.append(record)
            if len(group) == AT_ONCE:
                yield group
                group = []
    if group:
        yield group


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
