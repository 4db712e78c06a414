"""Destination of a dataset: the protocol, and a local folder."""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from filelock import FileLock, Timeout

from service.core.atomic_write import replacing
from service.datasets.manifest import LOCK, MANIFEST, DatasetFile, sha256_of, temporary_files
from service.errors import DatasetError

SHA256 = "sha256"
"""Last column of a table that lists the files of its images."""


def listed(table: Path) -> list[tuple[str, str]]:
    """Files that a table of ``folder`` lists, each with its SHA-256; none for other files."""
    if table.suffix != ".csv":
        return []
    with table.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return [(row[0], row[-1]) for row in rows] if head[-1] == SHA256 else []


class Storage(Protocol):
    """Destination of a dataset's files. Its methods raise ``DatasetError`` on I/O errors.

    It is sent to other processes, also on other machines, so it contains only its address.
    """

    def lock(self) -> AbstractContextManager[object]:
        """Create the destination and lock it for this process, if it supports locks."""
        ...

    def names(self) -> list[str]:
        """Sorted names of the files, without those that begin with a dot."""
        ...

    def manifest(self) -> bytes | None:
        """Content of the manifest; None if there is none."""
        ...

    def write_manifest(self, content: bytes) -> None: ...

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """File that appears whole when the block ends, and not at all if it raises."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file that no manifest lists before its table; parent folders are created."""
        ...

    def has(self, file: DatasetFile) -> bool:
        """True if the file exists and is unchanged."""
        ...

    def clean_up(self, model: str) -> None:
        """Remove the temporary files of killed processes."""
        ...


@dataclass(frozen=True)
class LocalStorage:
    """Local folder. ``has`` compares the SHA-256."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        lock = FileLock(self.path / LOCK, timeout=0)
        with self._as_dataset_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise DatasetError(f"another command is writing to {self.path}") from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> list[str]:
        with self._as_dataset_error(self.path):
            return sorted(path.name for path in self.path.iterdir() if path.name[0] != ".")

    def manifest(self) -> bytes | None:
        path = self.path / MANIFEST
        with self._as_dataset_error(path, "read"):
            return path.read_bytes() if path.exists() else None

    def write_manifest(self, content: bytes) -> None:
        with self.writing(MANIFEST) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        if not self.path.is_dir():
            raise DatasetError(
                f"there is no folder {self.path} on {socket.gethostname()}: all machines that "
                "build a set must share it, or write to a URL"
            )
        with self._as_dataset_error(self.path / name), replacing(self.path / name) as file:
            yield file

    def put(self, name: str, content: bytes) -> None:
        path = self.path / name
        with self._as_dataset_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def has(self, file: DatasetFile) -> bool:
        path = self.path / file.name
        with self._as_dataset_error(path, "read"):
            try:
                return (
                    path.stat().st_size == file.bytes
                    and sha256_of(path) == file.sha256
                    and all(sha256_of(self.path / name) == known for name, known in listed(path))
                )
            except FileNotFoundError:
                return False

    def clean_up(self, model: str) -> None:
        with self._as_dataset_error(self.path):
            for pattern in temporary_files(model):
                for path in self.path.glob(pattern):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _as_dataset_error(self, path: Path, verb: str = "write") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatasetError(f"cannot {verb} {path}: {error.strerror or error}") from error
