"""Files of a folder, a zip or a tar, read by their names in the same way.

Names are relative, with forward slashes, in NFC. Hidden files, thumbnails that NAS systems write
and AppleDouble files are left out here, and counted.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from training.data import splits
from training.data.reading import (
    APPLE_DOUBLE,
    BROKEN_LINK,
    HEIC,
    HIDDEN,
    LOOP,
    NOT_AN_IMAGE,
    THUMBNAIL,
    Reading,
)
from training.data.sniffing import EXTENSIONS, HEAD_BYTES, is_heic, is_image
from training.data.text import compose, decode_name, slashes
from training.errors import DataError

UNREADABLE_ARCHIVE = (
    *(OSError, EOFError, ValueError, struct.error, zlib.error, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError),
)
TAR = (".tar", ".tar.gz", ".tgz")
PACKED = (".zip", *TAR)
THUMBNAIL_FOLDERS = (
    "@eadir",
    "@thumb",
    ".thumbnails",
    "#recycle",
    "@recycle",
    "@recently-snapshot",
)
THUMBNAIL_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store")
UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075
"""Extra field of Info-ZIP: the name in UTF-8 beside one in a code page (APPNOTE 4.6.9)."""


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


def junk(name: str) -> str | None:
    """Reason to leave out ``name``, or None."""
    *folders, file = name.lower().split("/")
    if any(part in THUMBNAIL_FOLDERS for part in folders) or file in THUMBNAIL_FILES:
        return THUMBNAIL
    if "__macosx" in folders or file.startswith("._"):
        return APPLE_DOUBLE
    if any(part.startswith(".") for part in (*folders, file)):
        return HIDDEN
    return None


def _without_junk(paths: Iterator[str], reading: Reading) -> list[str]:
    kept = []
    for name in paths:
        if reason := junk(name):
            shown = [part for part in name.split("/") if part.lower() not in THUMBNAIL_FOLDERS]
            reading.leave_out(reason, ("/".join(shown),))
        else:
            kept.append(name)
    return sorted(kept)


class FolderArchive:
    """Files below a folder, links followed, or one file alone."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self.reading = Reading()
        self._encoding = encoding
        self._root = path if path.is_dir() else path.parent
        self._found: dict[str, str] = {}
        self._links: list[tuple[str, str]] = []

    @cached_property
    def names(self) -> list[str]:
        if self.path.is_file():
            self._found[self.path.name] = str(self.path)
            return [self.path.name]
        return _without_junk(self._walk(), self.reading)

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
                        if entry.is_symlink():
                            self.reading.leave_out(BROKEN_LINK, (name,))
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


class ZipArchive:
    """Files of a zip; names without the flag for UTF-8 may be UTF-8 still."""

    def __init__(self, path: Path, content: BinaryIO | None = None, encoding: str | None = None):
        self.path = path
        self.reading = Reading()
        self._encoding = encoding
        self._content = content
        try:
            self._zip = zipfile.ZipFile(content or path)
        except UNREADABLE_ARCHIVE as error:
            raise DataError(str(path), [f"is not a readable zip file: {error}"]) from error

    @cached_property
    def names(self) -> list[str]:
        return _without_junk(iter(self._infos), self.reading)

    @cached_property
    def _infos(self) -> dict[str, zipfile.ZipInfo]:
        return {self._name(info): info for info in self._zip.infolist() if not info.is_dir()}

    def _name(self, info: zipfile.ZipInfo) -> str:
        name = info.orig_filename
        if not info.flag_bits & UTF8_FLAG and not name.isascii():
            raw = _unicode_path(info.extra) or name.encode("cp437")
            name = decode_name(raw, str(self.path), self._encoding)
        return slashes(compose(name))

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._zip.open(self._infos[name]))

    def read(self, name: str) -> bytes:
        return self._zip.read(self._infos[name])

    def close(self) -> None:
        self._zip.close()
        if self._content is not None:
            self._content.close()


def _unicode_path(extra: bytes) -> bytes | None:
    while len(extra) >= 4:
        kind, size = struct.unpack("<2H", extra[:4])
        if kind == UNICODE_PATH and size > 5:
            return extra[9 : 4 + size]
        extra = extra[4 + size :]
    return None


class TarArchive:
    """Files of a tar, which may be gzipped."""

    def __init__(self, path: Path, content: BinaryIO | None = None, encoding: str | None = None):
        self.path = path
        self.reading = Reading()
        self._encoding = encoding
        self._content = content
        try:
            self._tar = tarfile.open(path, fileobj=content, errors="surrogateescape")  # noqa: SIM115
            self._members = {self._name(m): m for m in self._tar.getmembers() if m.isfile()}
        except UNREADABLE_ARCHIVE as error:
            raise DataError(str(path), [f"is not a readable tar file: {error}"]) from error

    def _name(self, member: tarfile.TarInfo) -> str:
        raw = member.name.encode("utf-8", "surrogateescape")
        return slashes(decode_name(raw, str(self.path), self._encoding)).removeprefix("./")

    @cached_property
    def names(self) -> list[str]:
        return _without_junk(iter(self._members), self.reading)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        file = self._tar.extractfile(self._members[name])
        if file is None:
            raise OSError(f"{name} is no file")
        return file.read()

    def close(self) -> None:
        self._tar.close()
        if self._content is not None:
            self._content.close()


class JoinedArchive:
    """A folder and the zips and tars in it, whose files stand below the archive's name."""

    def __init__(self, outer: FolderArchive, shards: list[str], encoding: str | None) -> None:
        self.path = outer.path
        self.reading = outer.reading
        self._outer = outer
        self._parts = {
            name: _packed(outer.path / name, outer.open(name), encoding) for name in shards
        }

    @cached_property
    def names(self) -> list[str]:
        own = [name for name in self._outer.names if name not in self._parts]
        for shard, part in self._parts.items():
            own += [f"{shard}/{name}" for name in part.names]
            for reason, files in part.reading.left_out.items():
                self.reading.leave_out(reason, files.examples)
                self.reading.left_out[reason].count += files.count - len(files.examples)
        return sorted(own)

    def open(self, name: str) -> BinaryIO:
        part, inner = self._find(name)
        return part.open(inner)

    def read(self, name: str) -> bytes:
        part, inner = self._find(name)
        return part.read(inner)

    def close(self) -> None:
        for part in self._parts.values():
            part.close()

    def _find(self, name: str) -> tuple[Archive, str]:
        for shard, part in self._parts.items():
            if name.startswith(f"{shard}/"):
                return part, name.removeprefix(f"{shard}/")
        return self._outer, name


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
    shards = [name for name in folder.names if name.lower().endswith(PACKED)]
    if not path.is_dir() or not shards or any(_is_data(name) for name in folder.names):
        return folder, ""
    chosen = splits.select(shards, str(path), split, stems=True)
    for reason, names in chosen.left_out.items():
        folder.reading.leave_out(reason, names)
    kept = [name for name, _ in chosen.kept]
    dropped = set(shards) - set(kept)
    folder.names[:] = [name for name in folder.names if name not in dropped]
    return JoinedArchive(folder, kept, encoding), chosen.split


def _is_data(name: str) -> bool:
    """True for files that are data themselves, so that archives beside them are not read."""
    base = name.lower()
    return base.endswith((*EXTENSIONS, ".parquet", ".npy")) or "ubyte" in base or "celeba" in base


def images_of(archive: Archive) -> list[str]:
    """Names of the images; the other files are left out and counted by :func:`count_others`."""
    found = []
    for name in archive.names:
        if name.lower().endswith(EXTENSIONS) or is_image(_head(archive, name)):
            found.append(name)
    return found


def count_others(archive: Archive, used: set[str]) -> None:
    """Count every file that is neither in ``used`` nor counted already."""
    for name in archive.names:
        if name not in used:
            heic = name.lower().endswith((".heic", ".heif")) or is_heic(_head(archive, name))
            archive.reading.leave_out(HEIC if heic else NOT_AN_IMAGE, (name,))


def _head(archive: Archive, name: str) -> bytes:
    try:
        with archive.open(name) as file:
            return file.read(HEAD_BYTES)
    except UNREADABLE_ARCHIVE:
        return b""


def shallowest(names: list[str], file_name: str) -> str | None:
    """The path of the file called ``file_name`` that lies nearest to the top, if any."""
    found = [name for name in names if name.rpartition("/")[2] == file_name]
    return min(found, key=lambda name: (name.count("/"), name), default=None)
