"""WebDataset: a tar file in which the members of a sample share a key and are adjacent.

https://github.com/webdataset/webdataset: ``KEY.png``, ``KEY.json``, then ``KEY.cls`` with the index
of the class, and with several attributes ``KEY.hair.cls``. With splits, keys begin with ``train/``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence

from pydantic import TypeAdapter

from service.formats.layout import Layout
from service.formats.records import ImageRecord

MAX_MEMBER_BYTES = 1 << 26
"""Many times the size of the largest image of a model."""
RECORD = TypeAdapter(ImageRecord)
END = bytes(2 * tarfile.BLOCKSIZE)
"""End marker of a tar file; a truncated one lacks it."""

MAX_PLAIN_NAME, SIZE, CHECKSUM = 100, slice(124, 135), slice(148, 154)
"""Fields of a header (POSIX.1-2017, pax, ustar interchange format)."""
HEADER = tarfile.TarInfo("").tobuf(tarfile.PAX_FORMAT)
"""Header of an empty file without a name."""
HEADER_SUM = int(HEADER[CHECKSUM], 8) - sum(HEADER[SIZE])


class Webdataset:
    """``ArchiveWriter`` of a tar file, without times or users."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        return b"".join([self._sample(record) for record in records])

    def end(self) -> Iterator[bytes]:
        yield END

    def close(self) -> None:
        pass

    def _sample(self, record: ImageRecord) -> bytes:
        """Tar members of an image: PNG, JSON and classes."""
        key = self._layout.prefix(record) + record.key
        description = json.dumps(record.description()).encode()
        members = [_member(f"{key}.png", record.image), _member(f"{key}.json", description)]
        members += [_member(key + end, index) for end, index in self._layout.class_files(record)]
        return b"".join(members)


def _member(name: str, content: bytes) -> bytes:
    raw, size = name.encode(), b"%011o" % len(content)
    if len(raw) <= MAX_PLAIN_NAME and len(raw) == len(name):
        # What tarfile writes, in a tenth of its time.
        checksum = HEADER_SUM + sum(raw) + sum(size)
        header = b"%b%b%b%b%06o%b" % (
            *(raw.ljust(MAX_PLAIN_NAME, b"\0"), HEADER[MAX_PLAIN_NAME : SIZE.start], size),
            *(HEADER[SIZE.stop : CHECKSUM.start], checksum, HEADER[CHECKSUM.stop :]),
        )
    else:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")  # two of them for a long name
    return b"%b%b%b" % (header, content, bytes(-len(content) % tarfile.BLOCKSIZE))


def samples(read: Callable[[int], bytes]) -> Iterator[tuple[ImageRecord, bytes]]:
    """Records of a tar file of ``Webdataset`` without ``by``, each with its bytes in the file.

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
        record = RECORD.validate_python(described | {"image": image})
        parts = [image_bytes, description_bytes]
        for _ in record.labels or ():
            index, index_bytes = _content(_exactly(read, tarfile.BLOCKSIZE), read)
            if not index.isdigit():
                raise ValueError("the class of a sample is not a number")
            parts.append(index_bytes)
        yield record, b"".join(parts)


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
