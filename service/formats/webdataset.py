"""WebDataset: a tar file in which the members of a sample share a key and are adjacent.

https://github.com/webdataset/webdataset: ``KEY.png``, then ``KEY.json``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence

from pydantic import TypeAdapter

from service.formats.records import ImageRecord

MAX_MEMBER_BYTES = 1 << 26
"""Many times the size of the largest image of a model."""
RECORD = TypeAdapter(ImageRecord)
END = bytes(2 * tarfile.BLOCKSIZE)
"""End marker of a tar file; a truncated one lacks it."""


class Webdataset:
    """``ArchiveWriter`` of a tar file, without times or users."""

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        return b"".join(sample(record) for record in records)

    def end(self) -> Iterator[bytes]:
        yield END

    def close(self) -> None:
        pass


def sample(record: ImageRecord) -> bytes:
    """Tar members of an image: PNG and JSON."""
    description = json.dumps(record.description()).encode()
    return _member(record.file_name, record.image) + _member(f"{record.key}.json", description)


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")  # two of them for a long name
    return b"%b%b%b" % (header, content, bytes(-len(content) % tarfile.BLOCKSIZE))


def samples(read: Callable[[int], bytes]) -> Iterator[tuple[ImageRecord, bytes]]:
    """Records of a tar file written by ``sample``, each with its bytes in the file.

    ``read(size)`` returns ``size`` bytes, or fewer at the end. Raises ``EOFError`` if the file is
    truncated, and ``ValueError`` for any other file.
    """
    while True:
        header = _exactly(read, tarfile.BLOCKSIZE)
        if not any(header):
            return
        image, image_bytes = _content(header, read)
        description, description_bytes = _content(_exactly(read, tarfile.BLOCKSIZE), read)
        try:
            described = json.loads(description)
        except RecursionError:
            described = None
        if not isinstance(described, dict):
            raise ValueError("the JSON of a sample is not an object")
        yield RECORD.validate_python(described | {"image": image}), image_bytes + description_bytes


def _content(header: bytes, read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """Content of a member, and all of its bytes in the file."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ValueError(f"not a tar file: {error}") from error
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise ValueError(f"a file of {info.size} bytes is not an image")
    padded = _exactly(read, info.size + -info.size % tarfile.BLOCKSIZE)
    if info.type == tarfile.XHDTYPE:  # a long name, which the JSON contains as well
        content, whole = _content(_exactly(read, tarfile.BLOCKSIZE), read)
        return content, header + padded + whole
    return padded[: info.size], header + padded


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    content = read(size)
    if len(content) < size:
        raise EOFError("the file is truncated")
    return content
