"""Sets that the service makes are read by the trainer, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.formats.layout import Layout
from service.formats.records import ImageRecord, table_header, table_row
from service.formats.registry import SUFFIXES, open_writer
from tests.helpers.image_files import picture
from training.data import load

ATTRIBUTES = ("hair", "glasses")
LAYOUT = Layout({"hair": ("red", "blue"), "glasses": ("no", "yes")})


def records(first: int, count: int) -> list[ImageRecord]:
    return [
        ImageRecord(
            *("faces", 1, 3, index),
            {"hair": ("red", "blue")[index % 2], "glasses": ("no", "yes")[index // 2 % 2]},
            f"/images/faces/1/3/{index}.png",
            picture(index),
        )
        for index in range(first, first + count)
    ]


def write(folder: Path, format_: str, number: int, items: list[ImageRecord]) -> None:
    writer = open_writer(format_, LAYOUT, (len(items), 16, 16, 3))
    path = folder / f"faces-{number:05d}{SUFFIXES[format_]}"
    if format_ == "npy":
        np.save(path, np.stack([np.full((16, 16, 3), r.index, np.uint8) for r in items]))
        rows = b"".join(table_row(record, ATTRIBUTES) for record in items)
        path.with_suffix(".csv").write_bytes(table_header(ATTRIBUTES) + rows)
    else:
        path.write_bytes(writer.add(items) + b"".join(writer.end()))
    writer.close()


@pytest.mark.parametrize("format_", sorted(SUFFIXES))
@pytest.mark.parametrize("files", [1, 2])
def test_own_set(tmp_path: Path, format_: str, files: int) -> None:
    for number in range(files):
        write(tmp_path, format_, number, records(8 * number, 8))
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "README.md").write_text("# faces")
    dataset = load(str(tmp_path))
    assert [(a.name, a.values) for a in dataset.attributes] == [
        ("hair", ("blue", "red")),
        ("glasses", ("no", "yes")),
    ]
    indices = range(8 * files)
    assert dataset.images[:, 0, 0, 0].tolist() == list(indices)
    assert dataset.labels.tolist() == [[1 - i % 2, i // 2 % 2] for i in indices]
    assert dataset.reading is not None
    assert dataset.reading.left_out["not an image"].count == 2


@pytest.mark.parametrize("format_", ["zip", "webdataset", "parquet"])
def test_one_file_of_an_own_set(tmp_path: Path, format_: str) -> None:
    write(tmp_path, format_, 0, records(0, 8))
    assert len(load(str(tmp_path / f"faces-00000{SUFFIXES[format_]}"))) == 8
