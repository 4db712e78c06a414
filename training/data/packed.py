"""Zips and tars, read by the names of their files like a folder.

Names are relative, with forward slashes, in NFC. Links to files of the archive are followed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, TypeVar, cast

from training.data.junk import reason_for, without_junk
from training.data.reading import BROKEN_LINK, LOOP, Reading
from training.data.sniffing import HEAD_BYTES, not_text
from training.data.text import compose, decode_name, slashes
from training.errors import DataError

UNREADABLE_ARCHIVE = (
    *(OSError, EOFError, ValueError, struct.error, zlib.error, lzma.LZMAError, RuntimeError),
    *(NotImplementedError, zipfile.BadZipFile, tarfile.TarError),
)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACKED = (".zip", *TAR)
ZIP = b"PK\3\4"
UTF8_FLAG = 0x800
ENCRYPTED_FLAG = 0x1
UNICODE_PATH = 0x7075
"""Extra field of Info-ZIP: the name in UTF-8 beside one in a code page (APPNOTE 4.6.9)."""
GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ"

Entry = TypeVar("Entry", zipfile.ZipInfo, tarfile.TarInfo)


class _Packed(Generic[Entry]):
    """One packed archive; sub-classes know its format."""

    kind: ClassVar[str]

    def __init__(self, path: Path, content: BinaryIO | None = None, encoding: str | None = None):
        self.path = path
        self.reading = Reading()
        self._encoding = encoding
        self._content = _open(path) if content is None else content
        self._files: dict[str, Entry] = {}
        self._folders: set[str] = set()
        self._head = self._content.read(HEAD_BYTES)
        self._content.seek(0)
        try:
            self._follow(self._index())
        except UNREADABLE_ARCHIVE as error:
            is_packed = self._head.startswith((ZIP, GZIP, BZIP2, XZ))
            why = error if is_packed else not_text(self._head) or error
            self._content.close()
            raise DataError(str(path), [f"is not a readable {self.kind} file: {why}"]) from error
        except DataError:
            self._content.close()
            raise

    def _entries(self) -> Iterator[tuple[str, Entry | None, str]]:
        """Name of each file and folder, its entry unless it is a folder, and a link's target."""
        raise NotImplementedError

    def _index(self) -> dict[str, str]:
        """Fill in files and folders. Returns links with their targets."""
        links = {}
        for name, entry, target in self._entries():
            if entry is None:
                self._folders.add(name)
            elif target:
                links[name] = target
            elif name in self._files and not reason_for(name):
                raise DataError(str(self.path), [f"holds two files called {name!r}"])
            else:
                self._files[name] = entry
        return links

    def _follow(self, links: dict[str, str]) -> None:
        folders = {name.rpartition("/")[0] for name in self._files} | self._folders
        found = {name: self._files.get(target) for name, target in links.items()}
        for name, target in links.items():
            if (entry := found[name]) is not None:
                self._files[name] = entry
            elif not reason_for(name):
                self.reading.leave_out(LOOP if target in folders else BROKEN_LINK, (name,))

    @cached_property
    def names(self) -> list[str]:
        return without_junk(self._files, self._folders, self.reading)

    def close(self) -> None:
        self._content.close()


class ZipArchive(_Packed[zipfile.ZipInfo]):
    """Files of a zip; names without the flag for UTF-8 may be UTF-8 still."""

    kind = "zip"

    def _entries(self) -> Iterator[tuple[str, zipfile.ZipInfo | None, str]]:
        self._zip = zipfile.ZipFile(self._content)
        infos = self._zip.infolist()
        if any(info.flag_bits & ENCRYPTED_FLAG for info in infos):
            raise DataError(str(self.path), ["is encrypted: unpack it with its password"])
        for info in infos:
            name = self._name(info)
            target = ""
            if stat.S_ISLNK(info.external_attr >> 16):
                to = decode_name(self._zip.read(info), str(self.path), self._encoding)
                target = _target(name, to)
            yield name, None if info.is_dir() else info, target

    def _name(self, info: zipfile.ZipInfo) -> str:
        name = info.orig_filename
        if not info.flag_bits & UTF8_FLAG and not name.isascii():
            raw = _unicode_path(info.extra) or name.encode("cp437")
            name = decode_name(raw, str(self.path), self._encoding)
        return _relative(compose(name))

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._zip.open(self._files[name]))

    def read(self, name: str) -> bytes:
        return self._zip.read(self._files[name])


def _unicode_path(extra: bytes) -> bytes | None:
    while len(extra) >= 4:
        kind, size = struct.unpack("<2H", extra[:4])
        if kind == UNICODE_PATH and size > 5:
            return extra[9 : 4 + size]
        extra = extra[4 + size :]
    return None


class TarArchive(_Packed[tarfile.TarInfo]):
    """Files of a tar. A compressed one is unpacked to a temporary file, to be read in any order."""

    kind = "tar"

    def _entries(self) -> Iterator[tuple[str, tarfile.TarInfo | None, str]]:
        if self._head.startswith((GZIP, BZIP2, XZ)):
            packed = self._content
            self._content = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            with packed, _unpacked(packed, self._head) as plain:
                shutil.copyfileobj(plain, self._content)
            self._content.seek(0)
        self._tar = tarfile.open(fileobj=self._content, mode="r:", errors="surrogateescape")  # noqa: SIM115
        for member in self._tar:
            name = self._name(member.name)
            if member.isdir():
                yield name, None, ""
            elif member.issym():
                yield name, member, _target(name, self._decoded(member.linkname))
            elif member.islnk():
                yield name, member, self._name(member.linkname)
            elif member.isfile():
                yield name, member, ""

    def _name(self, name: str) -> str:
        return _relative(self._decoded(name))

    def _decoded(self, name: str) -> str:
        raw = name.encode("utf-8", "surrogateescape")
        return decode_name(raw, str(self.path), self._encoding)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        file = self._tar.extractfile(self._files[name])
        if file is None:
            raise OSError(f"{name} is no file")
        return file.read()


def _unpacked(content: BinaryIO, head: bytes) -> BinaryIO:
    if head.startswith(GZIP):
        return cast(BinaryIO, gzip.open(content))
    return cast(BinaryIO, bz2.open(content) if head.startswith(BZIP2) else lzma.open(content))


def _target(name: str, link: str) -> str:
    """Path of what the symbolic link ``name`` points to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(str(path), [f"cannot be read: {error.strerror}"]) from error


def _relative(name: str) -> str:
    """``name`` with forward slashes and below the root: ``a/1.png`` of ``./a/1.png``."""
    name = slashes(name)
    if not name.startswith((".", "/")) and not name.endswith("/"):
        return name
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
