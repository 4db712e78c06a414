"""NumPy's ``.npy`` format: a header, then raw pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np

from service.formats.records import ImageRecord


def header(shape: Sequence[int]) -> bytes:
    """Header of a uint8 array of this shape in C order."""
    buffer = io.BytesIO()
    description = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


class Npy:
    """``ArchiveWriter`` of one array; ``image`` of its records is the bytes of the pixels."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._start = header(shape)

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        start, self._start = self._start, b""
        return b"".join([start, *(record.image for record in records)])

    def end(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass
