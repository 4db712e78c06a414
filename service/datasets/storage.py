"""Where the files of a set go: a folder, or an object store that fsspec has a protocol for.

A target is handed to other processes, on other machines too, so it holds nothing but its name.
"""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec
from filelock import FileLock, Timeout

from service.core.atomic_write import replacing
from service.core.redact import without_passwords
from service.datasets.manifest import LOCK, MANIFEST, DatasetFile, described, left_overs
from service.errors import DatasetError


class Storage(Protocol):
    """All methods raise ``DatasetError`` where something cannot be read or written."""

    def held(self) -> AbstractContextManager[object]:
        """For this process alone, as far as can be; made if it is not there."""
        ...

    def names(self) -> list[str]:
        """What is there, but for names that begin with a dot; sorted."""
        ...

    def manifest(self) -> bytes | None: ...

    def write_manifest(self, content: bytes) -> None: ...

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that appears at the end, whole; not at all if anything is raised."""
        ...

    def holds(self, file: DatasetFile) -> bool:
        """Whether a file is there as it was made."""
        ...

    def tidy(self, model: str) -> None:
        """Remove what processes left that were killed."""
        ...


def open_storage(out: str) -> Storage:
    """``out`` is a path or a URL. Raises ``DatasetError`` for a URL of no known kind."""
    protocol, separator, rest = out.partition("://")
    if re.match(r"[a-z0-9]{2,}:/", out) and not separator:
        raise DatasetError(f"{out} is no URL, and hardly meant as a folder: write two slashes")
    if protocol == "memory":
        raise DatasetError("memory:// is of one process: what others make would be lost")
    # Absolute, for processes elsewhere have other current folders.
    if not separator:
        return LocalStorage(Path(out).absolute())
    if protocol in ("file", "local"):
        return LocalStorage(Path(rest).absolute())
    bucket = ObjectStorage(out.rstrip("/"))
    bucket.check()
    return bucket


@dataclass(frozen=True)
class LocalStorage:
    """A ``Storage``. Files are compared with their SHA-256."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        lock = FileLock(self.path / LOCK, timeout=0)
        with self._explained(self.path):
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
        with self._explained(self.path):
            return sorted(path.name for path in self.path.iterdir() if path.name[0] != ".")

    def manifest(self) -> bytes | None:
        path = self.path / MANIFEST
        with self._explained(path, "read"):
            return path.read_bytes() if path.exists() else None

    def write_manifest(self, content: bytes) -> None:
        with self.writing(MANIFEST) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        if not self.path.is_dir():
            raise DatasetError(
                f"there is no folder {self.path} on {socket.gethostname()}: all machines that make "
                "a set have to share it, or write to a URL"
            )
        with self._explained(self.path / name), replacing(self.path / name) as file:
            yield file

    def holds(self, file: DatasetFile) -> bool:
        path = self.path / file.name
        with self._explained(path, "read"):
            try:
                return path.stat().st_size == file.bytes and (
                    described(path, file.images, file.labels) == file
                )
            except FileNotFoundError:
                return False

    def tidy(self, model: str) -> None:
        with self._explained(self.path):
            for pattern in left_overs(model):
                for path in self.path.glob(pattern):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, path: Path, what: str = "write") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatasetError(f"cannot {what} {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class ObjectStorage:
    """A ``Storage`` behind a URL. Of its files the sizes are compared: all else is a download.

    They are written here first, so that objects appear whole where the store knows no halves, as
    S3 and its like do. No folder is made: those stores have none, and would make a bucket of a
    misspelt name instead.
    """

    url: str

    def __str__(self) -> str:
        return without_passwords(self.url)

    def check(self) -> None:
        """Raise ``DatasetError`` where nothing is installed for such a URL."""
        protocol = self.url.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            raise DatasetError(
                f"{protocol}:// takes a package that is not installed: {error}"
            ) from error
        except ValueError as error:
            raise DatasetError(f"{self}: {without_passwords(str(error))}") from error

    def held(self) -> AbstractContextManager[object]:
        return nullcontext()  # stores have no locks

    def names(self) -> list[str]:
        with self._explained(""):
            system, root = self._open()
            system.invalidate_cache()  # others write there as well
            try:
                found = [path.rstrip("/").rpartition("/")[2] for path in system.ls(root, False)]
            except FileNotFoundError:
                return []
            return sorted(name for name in found if name and name[0] != ".")

    def manifest(self) -> bytes | None:
        with self._explained(MANIFEST, "read"):
            system, root = self._open()
            try:
                content: bytes = system.cat_file(f"{root}/{MANIFEST}")
            except FileNotFoundError:
                return None
            return content

    def write_manifest(self, content: bytes) -> None:
        with self._explained(MANIFEST):
            system, root = self._open()
            system.pipe_file(f"{root}/{MANIFEST}", content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                with self._explained(name):
                    system, root = self._open()
                    system.put_file(file.name, f"{root}/{name}")
        except OSError as error:
            folder = tempfile.gettempdir()
            raise DatasetError(
                f"cannot write {name} to {folder}, from where it goes to {self}: "
                f"{error.strerror or error}; TMPDIR names another folder"
            ) from error

    def holds(self, file: DatasetFile) -> bool:
        with self._explained(file.name, "read"):
            system, root = self._open()
            try:
                return bool(system.size(f"{root}/{file.name}") == file.bytes)
            except FileNotFoundError:
                return False

    def tidy(self, model: str) -> None:
        pass  # temporary files end with the processes that have them

    def _open(self) -> tuple[Any, str]:
        system, root = fsspec.core.url_to_fs(self.url)
        return system, root.rstrip("/")

    @contextmanager
    def _explained(self, name: str, what: str = "write") -> Iterator[None]:
        try:
            yield
        except DatasetError:
            raise
        except Exception as error:  # each of these libraries has errors of its own
            why = without_passwords(str(error)) or type(error).__name__
            raise DatasetError(f"cannot {what} {self}/{name}: {why}") from error
