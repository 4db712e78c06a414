"""Parquet files that load as Hugging Face image datasets and as plain tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from service.formats.layout import Layout, Values
from service.formats.records import ImageRecord, columns

IMAGE, SPLIT = "image", "split"
FACTS = {
    "model": "string",
    "version": "int64",
    "seed": "int64",
    "index": "int64",
    "address": "string",
}
"""Columns besides the image and its labels, with their types."""
GROUP_IMAGES, GROUP_BYTES = 512, 1 << 25
"""Limits of a row group, the smallest unit that a reader reads."""


class Parquet:
    """``ArchiveWriter`` of a Parquet file."""

    def __init__(self, layout: Layout) -> None:
        # Imported late: it takes a third of a second and 40 MB, and few servers need it.
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        self._layout = layout
        self._attributes = tuple(layout.values)
        splits = [SPLIT] if layout.shares else []
        named = columns(self._attributes, (IMAGE, *splits, *FACTS))
        self._schema = _schema(dict(zip(named, layout.values.values(), strict=True)), layout)
        self._sink = _Sink()
        self._writer = pyarrow.parquet.ParquetWriter(
            pyarrow.PythonFile(self._sink, mode="w"),
            self._schema,
            # PNG files are compressed already.
            compression={"image.bytes": "none", "image.path": "zstd"}
            | dict.fromkeys((*named, *splits, *FACTS), "zstd"),
            use_dictionary=[*named, *splits, "model", "version", "seed"],
        )
        self._waiting: list[ImageRecord] = []
        self._bytes = 0

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        for record in records:
            self._waiting.append(record)
            self._bytes += len(record.image)
            if len(self._waiting) == GROUP_IMAGES or self._bytes >= GROUP_BYTES:
                self._write()
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        if self._waiting:
            self._write()
        self._writer.close()
        yield self._sink.take()

    def close(self) -> None:
        self._waiting = []

    def _write(self) -> None:
        records, self._waiting, self._bytes = self._waiting, [], 0
        layout = self._layout
        rows = [
            (
                {"bytes": record.image, "path": record.file_name},
                *(record.values(self._attributes) if layout.names else layout.ids(record)),
                *((layout.split(record.url),) if layout.shares else ()),
                *(record.model, record.version, record.seed, record.index, record.url),
            )
            for record in records
        ]
        described = zip(self._schema, zip(*rows, strict=True), strict=True)
        arrays = [self._arrow.array(column, field.type) for field, column in described]
        table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=GROUP_IMAGES)


def _schema(attributes: Values, layout: Layout) -> Any:
    """Arrow schema with the ``Features`` of Hugging Face ``datasets`` as JSON metadata."""
    import pyarrow

    facts = FACTS if not layout.shares else {SPLIT: "string"} | FACTS
    kinds = dict.fromkeys(attributes, "string" if layout.names else "int64") | facts
    features: dict[str, Any] = {IMAGE: {"_type": "Image"}}
    features |= {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    if not layout.names:
        for name, values in attributes.items():
            features[name] = {"names": list(values), "_type": "ClassLabel"}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [(IMAGE, image)]
    fields += [(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()]
    known = json.dumps({"info": {"features": features}})
    return pyarrow.schema(fields, metadata={"huggingface": known})


class _Sink:
    """File object for pyarrow from which written bytes can be taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def write(self, content: Any) -> int:
        part = bytes(content)  # pyarrow's buffer does not outlive the call
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        """Bytes written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
