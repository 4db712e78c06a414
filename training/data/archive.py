"""The files of a folder or a zip, read by their names in the same way."""

from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from training.errors import DataError


class Archive(Protocol):
    path: Path

    @property
    def names(self) -> list[str]:
        """Relative paths of all files, with forward slashes, sorted."""

    def open(self, name: str) -> BinaryIO:
        """One file, to be read from any position."""

    def read(self, name: str) -> bytes:
        """One file's content."""


class FolderArchive:
    """The files below a folder, or one file alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path if path.is_dir() else path.parent

    @cached_property
    def names(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file()
        )

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class ZipArchive:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(str(path), [f"is not a readable zip file: {error}"]) from error

    @cached_property
    def names(self) -> list[str]:
        return sorted(info.filename for info in self._zip.infolist() if not info.is_dir())

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._zip.open(name))

    def read(self, name: str) -> bytes:
        return self._zip.read(name)


def open_archive(path: Path) -> Archive:
    """The folder, zip or single file at ``path``. Raises ``DataError`` for a damaged zip."""
    return ZipArchive(path) if path.suffix.lower() == ".zip" else FolderArchive(path)


def shallowest(names: list[str], file_name: str) -> str | None:
    """The path of the file called ``file_name`` that lies nearest to the top, if any."""
    found = [name for name in names if PurePosixPath(name).name == file_name]
    return min(found, key=lambda name: (name.count("/"), name), default=None)
