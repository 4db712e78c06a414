"""Datasets in object stores that fsspec supports."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec

from service.core.redact import without_passwords
from service.datasets.manifest import MANIFEST, DatasetFile
from service.datasets.storage import LocalStorage, Storage
from service.errors import DatasetError


def open_storage(out: str) -> Storage:
    """Storage at ``out``, a path or a URL. Raises ``DatasetError`` for an unsupported URL."""
    protocol, separator, rest = out.partition("://")
    if re.match(r"[a-z0-9]{2,}:/", out) and not separator:
        raise DatasetError(f"{out} is not a URL: write two slashes")
    if protocol == "memory":
        raise DatasetError(
            "memory:// is private to one process: files of other processes would be lost"
        )
    # Absolute, because other processes have other working directories.
    if not separator:
        return LocalStorage(Path(out).absolute())
    if protocol in ("file", "local"):
        return LocalStorage(Path(rest).absolute())
    store = ObjectStorage(out.rstrip("/"))
    store.check()
    return store


@dataclass(frozen=True)
class ObjectStorage:
    """Object store behind a URL. ``has`` compares sizes: a hash would take a download.

    Files are written to a local temporary file first, so that objects appear whole in stores with
    atomic uploads, such as S3. No folder is created: object stores have none, and would create a
    bucket for a misspelt name.
    """

    url: str

    def __str__(self) -> str:
        return without_passwords(self.url)

    def check(self) -> None:
        """Raise ``DatasetError`` if no installed package supports the URL."""
        protocol = self.url.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            raise DatasetError(
                f"{protocol}:// needs a package that is not installed: {error}"
            ) from error
        except ValueError as error:
            raise DatasetError(f"{self}: {without_passwords(str(error))}") from error

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()  # object stores have no locks

    def names(self) -> list[str]:
        with self._as_dataset_error(""):
            system, root = self._open()
            system.invalidate_cache()  # other processes write to it as well
            try:
                found = [path.rstrip("/").rpartition("/")[2] for path in system.ls(root, False)]
            except FileNotFoundError:
                return []
            return sorted(name for name in found if name and name[0] != ".")

    def manifest(self) -> bytes | None:
        with self._as_dataset_error(MANIFEST, "read"):
            system, root = self._open()
            try:
                content: bytes = system.cat_file(f"{root}/{MANIFEST}")
            except FileNotFoundError:
                return None
            return content

    def write_manifest(self, content: bytes) -> None:
        with self._as_dataset_error(MANIFEST):
            system, root = self._open()
            system.pipe_file(f"{root}/{MANIFEST}", content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                with self._as_dataset_error(name):
                    system, root = self._open()
                    system.put_file(file.name, f"{root}/{name}")
        except OSError as error:
            folder = tempfile.gettempdir()
            raise DatasetError(
                f"cannot write {name} to {folder}, from where it is uploaded to {self}: "
                f"{error.strerror or error}; set TMPDIR to another folder"
            ) from error

    def put(self, name: str, content: bytes) -> None:
        with self._as_dataset_error(name):
            system, root = self._open()
            system.pipe_file(f"{root}/{name}", content)

    def has(self, file: DatasetFile) -> bool:
        with self._as_dataset_error(file.name, "read"):
            system, root = self._open()
            try:
                return bool(system.size(f"{root}/{file.name}") == file.bytes)
            except FileNotFoundError:
                return False

    def clean_up(self, model: str) -> None:
        pass  # temporary files end with their process

    def _open(self) -> tuple[Any, str]:
        system, root = fsspec.core.url_to_fs(self.url)
        return system, root.rstrip("/")

    @contextmanager
    def _as_dataset_error(self, name: str, verb: str = "write") -> Iterator[None]:
        try:
            yield
        except DatasetError:
            raise
        except Exception as error:  # each of these libraries has its own errors
            why = without_passwords(str(error)) or type(error).__name__
            raise DatasetError(f"cannot {verb} {self}/{name}: {why}") from error
