"""The files of a folder or a zip, read by their names in the same way."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from training.errors import DataError


class Archive(Protocol):
    def names(self) -> list[str]:
        """Relative paths of all files, with forward slashes, sorted."""

    def read(self, name: str) -> bytes:
        """One file's content."""


class FolderArchive:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file()
        )

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class ZipArchive:
    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(str(path), [f"is not a readable zip file: {error}"]) from error

    def names(self) -> list[str]:
        return sorted(info.filename for info in self._zip.infolist() if not info.is_dir())

    def read(self, name: str) -> bytes:
        return self._zip.read(name)


def open_archive(path: Path) -> Archive:
    """The folder or zip at ``path``."""
    return FolderArchive(path) if path.is_dir() else ZipArchive(path)


def shallowest(names: list[str], file_name: str) -> str | None:
    """The path of the file called ``file_name`` that lies nearest to the top, if any."""
    found = [name for name in names if PurePosixPath(name).name == file_name]
    return min(found, key=lambda name: (name.count("/"), name), default=None)
