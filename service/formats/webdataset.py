"""WebDataset: a tar file in which the members of a sample share a key and lie side by side.

https://github.com/webdataset/webdataset: ``KEY.png``, then ``KEY.json``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence

from pydantic import TypeAdapter

from service.formats.records import ImageRecord

MAX_MEMBER_BYTES = 1 << 26
"""Bytes of a member: many times those of the largest image that a model may make."""
RECORD = TypeAdapter(ImageRecord)
END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar file ends with; one that was cut lacks it."""


class Webdataset:
    """A ``Packer`` of tar files. No time or user stands in them."""

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        return b"".join(sample(record) for record in records)

    def end(self) -> Iterator[bytes]:
        yield END

    def close(self) -> None:
        pass


def sample(record: ImageRecord) -> bytes:
    """The two members of an image."""
    description = json.dumps(record.description()).encode()
    return _member(record.file_name, record.image) + _member(f"{record.key}.json", description)


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")  # two of them for a long name
    return b"%b%b%b" % (header, content, bytes(-len(content) % tarfile.BLOCKSIZE))


def samples(read: Callable[[int], bytes]) -> Iterator[tuple[ImageRecord, bytes]]:
    """The records of a tar file that ``sample`` made, each with its bytes in the file.

    ``read`` gives as many bytes as it is asked for, or fewer at the end. Raises ``EOFError`` where
    the file was cut, and ``ValueError`` where it is none of ours.
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
            raise ValueError("a sample is described by something else than an object")
        yield RECORD.validate_python(described | {"image": image}), image_bytes + description_bytes


def _content(header: bytes, read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """What a member holds, and all of its bytes."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ValueError(f"this is no tar file: {error}") from error
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise ValueError(f"a file of {info.size} bytes is no image")
    padded = _exactly(read, info.size + -info.size % tarfile.BLOCKSIZE)
    if info.type == tarfile.XHDTYPE:  # a long name, which stands in the description as well
        content, whole = _content(_exactly(read, tarfile.BLOCKSIZE), read)
        return content, header + padded + whole
    return padded[: info.size], header + padded


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    content = read(size)
    if len(content) < size:
        raise EOFError("the file ends in the middle")
    return content
