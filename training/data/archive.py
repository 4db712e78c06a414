"""Files of a folder, or of an archive, read by their names in the same way.

Names are relative, with forward slashes, in NFC. Hidden files, thumbnails that NAS systems write
and AppleDouble files are left out here, and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from training.data import splits
from training.data.junk import without_junk
from training.data.packed import PACKED, TarArchive, ZipArchive
from training.data.reading import BROKEN_LINK, LOOP, NO_FILE, Reading
from training.data.sniffing import EXTENSIONS
from training.data.text import decode_name
from training.errors import DataError


class Archive(Protocol):
    path: Path
    reading: Reading

    @property
    def names(self) -> list[str]:
        """Relative paths of all files that are not left out, with forward slashes, sorted."""

    def open(self, name: str) -> BinaryIO:
        """One file, to be read from any position."""

    def read(self, name: str) -> bytes:
        """Content of one file."""

    def close(self) -> None:
        """Close the files that are held open."""


class FolderArchive:
    """Files below a folder, links followed, or one file alone."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self.reading = Reading()
        self._encoding = encoding
        self._root = path if path.is_dir() else path.parent
        self._found: dict[str, str] = {}
        self._folders: set[str] = set()
        self._links: list[tuple[str, str]] = []

    @cached_property
    def names(self) -> list[str]:
        if self.path.is_file():
            self._found[self.path.name] = str(self.path)
            return [self.path.name]
        return without_junk(self._walk(), self._folders, self.reading)

    def _walk(self) -> Iterator[str]:
        folders = [(str(self._root), "")]
        seen: set[tuple[int, int]] = set()
        while folders or self._links:
            if not folders:
                folders, self._links = self._links, []
            folder, prefix = folders.pop(0)
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                self.reading.leave_out(LOOP, (prefix.rstrip("/"),))
                continue
            seen.add((status.st_dev, status.st_ino))
            self._folders.add(prefix.rstrip("/"))
            # Links come last: a folder is read under its own name, not under that of a link to it.
            links = []
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = prefix + self._name(entry.name, prefix)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{name}/"))
                    elif entry.is_dir():
                        links.append((entry.path, f"{name}/"))
                    elif not entry.is_file():
                        reason = BROKEN_LINK if entry.is_symlink() else NO_FILE
                        self.reading.leave_out(reason, (name,))
                    elif name in self._found:
                        raise DataError(
                            str(self.path), [f"two files are called {name!r} in Unicode's form NFC"]
                        )
                    else:
                        self._found[name] = entry.path
                        yield name
            self._links += links

    def _name(self, name: str, prefix: str) -> str:
        if name.isascii():
            return name
        return decode_name(os.fsencode(name), f"{self.path}/{prefix}", self._encoding)

    def open(self, name: str) -> BinaryIO:
        return Path(self._location(name)).open("rb")

    def read(self, name: str) -> bytes:
        with open(self._location(name), "rb") as file:  # noqa: PTH123 - half the time of Path.open
            return file.read()

    def close(self) -> None:
        pass

    def _location(self, name: str) -> str:
        return self._found.get(name) or str(self._root / name)


class JoinedArchive:
    """A folder and the zips and tars in it, whose files stand below the archive's name."""

    def __init__(self, outer: FolderArchive, packed: list[str], encoding: str | None) -> None:
        self.path = outer.path
        self.reading = outer.reading
        self._parts = {
            name: _packed(outer.path / name, outer.open(name), encoding) for name in packed
        }
        self._found: dict[str, tuple[Archive, str]] = {
            name: (outer, name) for name in outer.names if name not in self._parts
        }
        for packed_name, part in self._parts.items():
            self._found |= {f"{packed_name}/{name}": (part, name) for name in part.names}
            self.reading.include(part.reading)

    @cached_property
    def names(self) -> list[str]:
        return sorted(self._found)

    def open(self, name: str) -> BinaryIO:
        part, inner = self._found[name]
        return part.open(inner)

    def read(self, name: str) -> bytes:
        part, inner = self._found[name]
        return part.read(inner)

    def close(self) -> None:
        for part in self._parts.values():
            part.close()


def _packed(path: Path, content: BinaryIO | None, encoding: str | None) -> Archive:
    kind = ZipArchive if path.name.lower().endswith(".zip") else TarArchive
    return kind(path, content, encoding)


def open_archive(
    path: Path, encoding: str | None = None, split: str | None = None
) -> tuple[Archive, str]:
    """The folder, zip, tar or single file at ``path``, and the split chosen among its archives.

    A folder without images of its own is read with the zips and tars in it. Raises ``DataError``.
    """
    if path.is_file() and path.name.lower().endswith(PACKED):
        return _packed(path, None, encoding), ""
    folder = FolderArchive(path, encoding)
    packed = [name for name in folder.names if name.lower().endswith(PACKED)]
    if not path.is_dir() or not packed:
        return folder, ""
    if any(_is_data(name) for name in folder.names):
        _check_unpacked(path, packed, folder.names)
        return folder, ""
    chosen = splits.select(packed, str(path), split, stems=True)
    for reason, names in chosen.left_out.items():
        folder.reading.leave_out(reason, names)
    kept = [name for name, _ in chosen.kept]
    if split is None:
        splits.check_shards(kept, str(path))
    dropped = set(packed) - set(kept)
    folder.names[:] = [name for name in folder.names if name not in dropped]
    return JoinedArchive(folder, kept, encoding), chosen.split


def _check_unpacked(path: Path, packed: list[str], names: list[str]) -> None:
    """Raise ``DataError`` if only the images for training are packed still."""
    folders = {part for name in names for part in name.split("/")[:-1]}
    if any(splits.is_for_training(folder) for folder in folders):
        return
    for name in packed:
        if splits.is_for_training(name.rpartition("/")[2]):
            raise DataError(
                str(path), [f"{name} is not read beside files that are unpacked: unpack it, too"]
            )


def _is_data(name: str) -> bool:
    """True for files that are data themselves, so that archives beside them are not read."""
    base = name.lower()
    return base.endswith((*EXTENSIONS, ".parquet", ".npy")) or "ubyte" in base or "celeba" in base
